// How does a test of softgpu register itself, and say what went wrong?
//
// Every test starts from softgpu_reset. EXPECT counts; a test goes on after a failure.
#pragma once

#include <cstdio>
#include <vector>

#include "cuda.h"

namespace harness {

struct Test {
  const char *name;
  void (*run)();
};
std::vector<Test> &tests();
inline bool add(const char *name, void (*run)()) {
  tests().push_back({name, run});
  return true;
}

#define TEST(name)                                            \
  static void name();                                         \
  static const bool name##_added = harness::add(#name, name); \
  static void name()

void expect(bool condition, const char *file, int line, const char *text);
void expect_equal(long long expected, long long actual, const char *file, int line, const char *text);

#define EXPECT(condition) harness::expect((condition), __FILE__, __LINE__, #condition)
#define EXPECT_EQUAL(expected, actual) \
  harness::expect_equal(static_cast<long long>(expected), static_cast<long long>(actual), __FILE__, __LINE__, #actual)
// The last fault or refusal says this.
void expect_fault(const char *part, const char *file, int line);
#define EXPECT_FAULT(part) harness::expect_fault(part, __FILE__, __LINE__)

// Shorter names for what most tests need; a failure is a failure of the test.
float *device_floats(int count);
float *pinned_floats(int count, float value);
void *new_stream();
void *new_event();
inline long long counter(int which) { return softgpu_counter(which); }

// Work of a stream that tests can look at: appends its number to a log when it runs.
void log_work(void *stream, int number);
std::vector<int> take_log();
// Work that, once it has begun, waits for open_gate.
void gate_work(void *stream);
void wait_for_gate();  // until the work has begun
void open_gate();
// Work that reports a fault of this code.
int fail_when_run(void *stream, int code);

}  // namespace harness
