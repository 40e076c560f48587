// Runs the registered tests: one line per failure, then "N passed, N failed"; exit code 1 if any failed.
// softgpu_test [PART OF A NAME] runs those whose name holds it.
#include "harness.h"

#include <atomic>
#include <condition_variable>
#include <cstring>
#include <mutex>

#include "softgpu/enqueue.h"

namespace harness {

namespace {

std::atomic<int> failures{0};
const char *running = "";
std::mutex log_mutex;
std::vector<int> logged;

// Numbers that are not logged.
constexpr int GATE = -1, FAULT = -2;
std::mutex gate_mutex;
std::condition_variable gate_moved;
enum { CLOSED, REACHED, OPEN } gate = CLOSED;

struct Item {
  int number, code;
};
void *clone(const void *item) { return new Item(*static_cast<const Item *>(item)); }
void destroy(void *item) { delete static_cast<Item *>(item); }
void describe(const void *, char *text, size_t size) { snprintf(text, size, "of the test"); }
int run(void *item, const char **fault) {
  const Item &self = *static_cast<Item *>(item);
  *fault = "a fault of the test";
  if (self.number == FAULT) return self.code;
  if (self.number == GATE) {
    std::unique_lock<std::mutex> lock(gate_mutex);
    gate = REACHED;
    gate_moved.notify_all();
    gate_moved.wait(lock, [] { return gate == OPEN; });
    gate = CLOSED;
    return 0;
  }
  const std::lock_guard<std::mutex> lock(log_mutex);
  logged.push_back(self.number);
  return 0;
}
constexpr softgpu_launch FUNCTIONS = {clone, destroy, run, describe};

}  // namespace

std::vector<Test> &tests() {
  static std::vector<Test> all;
  return all;
}

void expect(bool condition, const char *file, int line, const char *text) {
  if (condition) return;
  ++failures;
  printf("FAIL  %s: %s:%d: %s (last fault: %s)\n", running, file, line, text, softgpu_last_fault());
}

void expect_equal(long long expected, long long actual, const char *file, int line, const char *text) {
  if (expected == actual) return;
  ++failures;
  printf("FAIL  %s: %s:%d: %s is %lld, expected %lld (last fault: %s)\n", running, file, line, text, actual, expected,
         softgpu_last_fault());
}

void expect_fault(const char *part, const char *file, int line) {
  if (strstr(softgpu_last_fault(), part)) return;
  ++failures;
  printf("FAIL  %s: %s:%d: the fault is '%s', expected '%s' in it\n", running, file, line, softgpu_last_fault(), part);
}

float *device_floats(int count) {
  void *p = nullptr;
  EXPECT_EQUAL(0, cudaMalloc(&p, static_cast<size_t>(count) * sizeof(float)));
  return static_cast<float *>(p);
}

float *pinned_floats(int count, float value) {
  void *p = nullptr;
  EXPECT_EQUAL(0, cudaHostAlloc(&p, static_cast<size_t>(count) * sizeof(float), cudaHostAllocMapped));
  for (int i = 0; i < count; ++i) static_cast<float *>(p)[i] = value;
  return static_cast<float *>(p);
}

void *new_stream() {
  void *stream = nullptr;
  EXPECT_EQUAL(0, cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  return stream;
}

void *new_event() {
  void *event = nullptr;
  EXPECT_EQUAL(0, cudaEventCreateWithFlags(&event, 0));
  return event;
}

void log_work(void *stream, int number) {
  const Item item{number, 0};
  EXPECT_EQUAL(0, softgpu_enqueue(stream, &FUNCTIONS, &item, nullptr, 0));
}

std::vector<int> take_log() {
  const std::lock_guard<std::mutex> lock(log_mutex);
  std::vector<int> all;
  all.swap(logged);
  return all;
}

void gate_work(void *stream) { log_work(stream, GATE); }

void wait_for_gate() {
  std::unique_lock<std::mutex> lock(gate_mutex);
  gate_moved.wait(lock, [] { return gate == REACHED; });
}

void open_gate() {
  const std::lock_guard<std::mutex> lock(gate_mutex);
  gate = OPEN;
  gate_moved.notify_all();
}

int fail_when_run(void *stream, int code) {
  const Item item{code ? FAULT : 0, code};
  return softgpu_enqueue(stream, &FUNCTIONS, &item, nullptr, 0);
}

}  // namespace harness

int main(int argc, char **argv) {
  int passed = 0, failed = 0;
  for (const harness::Test &test : harness::tests()) {
    if (argc > 1 && !strstr(test.name, argv[1])) continue;
    harness::running = test.name;
    const int before = harness::failures;
    softgpu_reset();
    harness::take_log();
    test.run();
    ++(harness::failures == before ? passed : failed);
  }
  softgpu_reset();
  printf("%d passed, %d failed\n", passed, failed);
  return failed != 0 || passed == 0;
}
