// How does a test of the emulator register itself, run a kernel in several orders, and say what went wrong?
//
// The .cu files that include this are read by nvcc too (to see that the kernels are CUDA); nothing here names the
// emulator.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace harness {

enum class Build { ANY, ASAN, RACE };  // what a test needs; elsewhere it is listed as skipped

struct Test {
  const char *name;
  Build needs;
  void (*run)();
};
std::vector<Test> &tests();
inline bool add(const char *name, Build needs, void (*run)()) {
  tests().push_back({name, needs, run});
  return true;
}

#define GT_TEST(name, needs)                                                              \
  static void name();                                                                     \
  static const bool name##_added = harness::add(#name, harness::Build::needs, name);      \
  static void name()

// Records the first failure of the running test.
__attribute__((format(printf, 1, 2))) void failure(const char *format, ...);
bool failed();

#define GT_CHECK(condition, ...)                                \
  do {                                                          \
    if (!(condition) && !harness::failed()) harness::failure(__VA_ARGS__); \
  } while (0)

// fwd, rev and several seeds of rand.
const std::vector<std::string> &orders();
void use_order(const std::string &order);
const char *last_error();

// Runs f under every order.
template <class F> void for_each_order(F f) {
  for (const std::string &order : orders()) {
    use_order(order);
    f(order.c_str());
  }
  use_order("fwd");
}

// The launch returns 0.
void expect_ok(int status, const char *order);

// The launch fails under every order, with a message that holds one of `alternatives`, and `place`.
void expect_reported(int (*launch)(), const std::vector<const char *> &alternatives, const std::string &place);

// A child process that calls launch dies, with `text` and `place` on its standard error. In one order: what a sanitizer
// finds does not depend on it, and a child takes a quarter of a second.
void expect_killed(int (*launch)(), const char *text, const char *place);

}  // namespace harness
