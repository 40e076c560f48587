// Runs the registered tests: one line per test, then "N passed, N failed"; exit code 1 if any failed.
// simt_test [PART OF A NAME] runs those whose name holds it.
#include "harness.h"

#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/cuda.h"

namespace harness {

std::vector<Test> &tests() {
  static std::vector<Test> all;
  return all;
}

static std::string first_failure;

bool failed() { return !first_failure.empty(); }

void failure(const char *format, ...) {
  char text[4096];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  if (!failed()) first_failure = text;
}

#if defined(GT_SIMT_RACE)
static const Build build = Build::RACE;
#elif defined(GT_SIMT_ASAN)
static const Build build = Build::ASAN;
#else
static const Build build = Build::ANY;
#endif

// Instrumented code is an order of magnitude slower.
const std::vector<std::string> &orders() {
  static const std::vector<std::string> all = [] {
    std::vector<std::string> orders = {"fwd", "rev"};
    for (int seed = 1; seed <= (build == Build::ANY ? 20 : 3); ++seed) orders.push_back("rand:" + std::to_string(seed));
    return orders;
  }();
  return all;
}

void use_order(const std::string &order) { simt::set_order(simt::parse_order(order.c_str())); }
const char *last_error() { return simt::last_error(); }

void expect_ok(int status, const char *order) {
  GT_CHECK(status == 0, "%s: status %d, %s", order, status, last_error());
}

void expect_reported(int (*launch)(), const std::vector<const char *> &alternatives, const std::string &place) {
  for_each_order([&](const char *order) {
    const int status = launch();
    GT_CHECK(status == simt::KERNEL_FAILED, "%s: not reported, status %d", order, status);
    bool found = false;
    for (const char *text : alternatives) found |= strstr(last_error(), text) != nullptr;
    GT_CHECK(found, "%s: expected '%s' in the report: %s", order, alternatives[0], last_error());
    GT_CHECK(strstr(last_error(), place.c_str()), "%s: expected '%s' in the report: %s", order, place.c_str(),
             last_error());
  });
}

void expect_killed(int (*launch)(), const char *text, const char *place) {
  int ends[2];
  if (pipe(ends) != 0) return failure("pipe failed");
  fflush(nullptr);
  const pid_t child = fork();
  if (child == 0) {
    dup2(ends[1], STDERR_FILENO);
    close(ends[0]);
    launch();
    _exit(0);
  }
  close(ends[1]);
  std::string report;
  char buffer[4096];
  for (ssize_t n; (n = read(ends[0], buffer, sizeof buffer)) > 0;) report.append(buffer, static_cast<size_t>(n));
  close(ends[0]);
  int status = 0;
  waitpid(child, &status, 0);
  GT_CHECK(status != 0, "the child came through");
  for (const char *part : {text, place})
    GT_CHECK(report.find(part) != std::string::npos, "expected '%s' in: %.600s", part, report.c_str());
}

}  // namespace harness

int main(int argc, char **argv) {
  using namespace harness;
  int passed = 0, failures = 0;
  for (const Test &test : tests()) {
    if (argc > 1 && !strstr(test.name, argv[1])) continue;
    if (test.needs != Build::ANY && test.needs != build) {
      printf("skip  %s (needs the %s build)\n", test.name, test.needs == Build::ASAN ? "asan" : "race");
      continue;
    }
    first_failure.clear();
    test.run();
    if (failed()) printf("FAIL  %s: %s\n", test.name, first_failure.c_str());
    else printf("ok    %s\n", test.name);
    ++(failed() ? failures : passed);
    fflush(stdout);
  }
  printf("%d passed, %d failed\n", passed, failures);
  return failures != 0;
}
