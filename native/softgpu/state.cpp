// What is counted, set and made to fail, and how does a call learn that it must not go on?
#include <atomic>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>

#include "core.h"

namespace softgpu {

namespace {

#define SOFTGPU_NAME(name) #name,
constexpr const char *SYMBOL_NAMES[] = {SOFTGPU_CUDART(SOFTGPU_NAME) SOFTGPU_CUBLASLT(SOFTGPU_NAME)
                                            SOFTGPU_CUDNN(SOFTGPU_NAME)};
#undef SOFTGPU_NAME
constexpr int NUM_SYMBOLS = static_cast<int>(Symbol::NUM_SYMBOLS);
struct ThreadState {
  uint64_t generation = 0;
  int last_error = OK;
  int device = 0;
};

// What this thread remembers; forgotten by softgpu_reset.
ThreadState &this_thread_state() {
  static thread_local ThreadState mine;
  if (mine.generation != state().generation) mine = {state().generation, OK, 0};
  return mine;
}

int64_t order_from_environment() {
  const char *text = getenv("GATUN_SOFTGPU_ORDER");
  return text ? strtoll(text, nullptr, 10) : 0;
}

// These answer whatever the machine is like.
bool needs_device(Symbol symbol) {
  switch (symbol) {
    case Symbol::cudaDriverGetVersion:
    case Symbol::cudaRuntimeGetVersion:
    case Symbol::cudaGetErrorName:
    case Symbol::cudaGetErrorString:
    case Symbol::cudaGetLastError:
    case Symbol::cudaPeekAtLastError: return false;
    default: return true;
  }
}

}  // namespace

State &state() {
  static State &only = *[] {
    State *s = new State();
    s->settings.stream_order = order_from_environment();
    return s;
  }();
  return only;
}

uint64_t this_thread() {
  static std::atomic<uint64_t> threads{0};
  static thread_local const uint64_t number = ++threads;
  return number;
}

int current_device() { return this_thread_state().device; }
void set_current_device(int device) { this_thread_state().device = device; }

int last_error(bool forget) {
  if (state().lost) return state().lost;
  int &mine = this_thread_state().last_error;
  const int error = mine;
  if (forget) mine = OK;
  return error;
}

int64_t now_ns() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return int64_t{t.tv_sec} * 1000000000 + t.tv_nsec;
}

std::string format(const char *format, ...) {
  char text[2048];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  return text;
}

void refuse_text(const char *format, ...) {
  char text[2048];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  if (!state().lost) state().fault_text = text;
}

bool ends_context(int code) {
  // "This leaves the process in an inconsistent state and any further CUDA work will return the same error"
  // (CUDA Runtime API, cudaError); uncorrectable errors (214, 220) and the unknown one (999) too
  static const int codes[] = {214, 220, 226, 700, 702, 710, 714, 715, 716, 717, 718, 719, 721, 911, 999};
  for (const int c : codes)
    if (c == code) return true;
  return false;
}

void lose(int code, const std::string &text) {
  State &s = state();
  if (s.lost) return;
  s.fault_text = text;
  s.lost = code;
  fprintf(stderr, "softgpu: the device is lost (error %d): %s\n", code, text.c_str());
  drop_pending_work();
}

// Counts a use; the code that softgpu_fail asked for, or 0.
int use_of(Symbol symbol) {
  SymbolState &use = state().symbols[static_cast<int>(symbol)];
  if (++use.calls != use.fails_at_call) return OK;
  refuse_text("%s failed with %d as softgpu_fail asked", SYMBOL_NAMES[static_cast<int>(symbol)], use.fails_with);
  return use.fails_with;
}

// Why no device answers, or 0.
int reason_of_silence() {
  const State &s = state();
  if (s.settings.driver_version < RUNTIME_VERSION / 1000 * 1000) return INSUFFICIENT_DRIVER;
  return s.settings.num_devices == 0 ? NO_DEVICE : s.lost;
}

Call::Call(Symbol symbol) : lock_(state().mutex), error_(use_of(symbol)) {
  if (!error_ && needs_device(symbol)) error_ = reason_of_silence();
}

int Call::finish(int code) {
  if (ends_context(code) && !state().lost) lose(code, state().fault_text);
  if (state().lost) return state().lost;
  if (code) this_thread_state().last_error = code;
  return code;
}

int count_use(Symbol symbol) {
  const Lock lock(state().mutex);
  return use_of(symbol);
}

bool has_device() {
  const Lock lock(state().mutex);
  return reason_of_silence() == OK;
}

int compute_capability() {
  const Lock lock(state().mutex);
  return state().settings.compute_major * 10 + state().settings.compute_minor;
}

void add_to_counter(int counter, int64_t amount) {
  const Lock lock(state().mutex);
  state().counters[counter] += amount;
}

void explain(const std::string &text) {
  const Lock lock(state().mutex);
  if (!state().lost) state().fault_text = text;
}

}  // namespace softgpu

using namespace softgpu;

extern "C" {

void softgpu_reset(void) {
  State &s = state();
  Lock lock(s.mutex);
  s.progress.wait(lock, [&] { return !s.is_running; });
  drop_pending_work();
  forget_graphs();
  s.streams.clear();
  s.legacy.clear();
  s.events.clear();
  free_everything();
  s.settings = {};
  s.settings.stream_order = order_from_environment();
  s.lost = OK;
  s.fault_text.clear();
  for (SymbolState &use : s.symbols) use = {};
  const int64_t handles = s.counters[SOFTGPU_LIVE_HANDLES], descriptors = s.counters[SOFTGPU_LIVE_DESCRIPTORS];
  for (int64_t &counter : s.counters) counter = 0;
  s.counters[SOFTGPU_LIVE_HANDLES] = handles;
  s.counters[SOFTGPU_LIVE_DESCRIPTORS] = descriptors;
  s.work_given = s.work_fails_at = 0;
  s.draws = 0;
  ++s.generation;
}

void softgpu_set_capacity(int64_t bytes) {
  const Lock lock(state().mutex);
  state().settings.capacity = bytes;
}

void softgpu_set_device_count(int32_t count) {
  const Lock lock(state().mutex);
  state().settings.num_devices = count;
}

void softgpu_set_compute_capability(int32_t major, int32_t minor) {
  const Lock lock(state().mutex);
  state().settings.compute_major = major;
  state().settings.compute_minor = minor;
}

void softgpu_set_driver_version(int32_t version) {
  const Lock lock(state().mutex);
  state().settings.driver_version = version;
}

void softgpu_set_stream_order(int64_t seed) {
  const Lock lock(state().mutex);
  state().settings.stream_order = seed;
  state().draws = 0;
}

void softgpu_set_kernels_empty(int32_t empty) {
  const Lock lock(state().mutex);
  state().settings.kernels_empty = empty != 0;
}

int32_t softgpu_fail(const char *symbol, int64_t nth_use, int32_t code) {
  if (nth_use < 1) return 2;
  const Lock lock(state().mutex);
  for (int i = 0; i < NUM_SYMBOLS; ++i)
    if (!strcmp(SYMBOL_NAMES[i], symbol)) {
      SymbolState &use = state().symbols[i];
      use.fails_at_call = use.calls + nth_use;
      use.fails_with = code;
      return 0;
    }
  return 1;
}

int32_t softgpu_fail_work(int64_t nth, int32_t code) {
  if (nth < 1) return 2;
  const Lock lock(state().mutex);
  state().work_fails_at = state().work_given + nth;
  state().work_fails_with = code;
  return 0;
}

void softgpu_clear_faults(void) {
  const Lock lock(state().mutex);
  for (SymbolState &use : state().symbols) use.fails_at_call = 0;
  state().work_fails_at = 0;
}

const char *softgpu_last_fault(void) {
  static thread_local std::string copy;
  const Lock lock(state().mutex);
  copy = state().fault_text;
  return copy.c_str();
}

int32_t softgpu_check(void) {
  const Lock lock(state().mutex);
  return check_red_zones() + check_freed();
}

int64_t softgpu_counter(int32_t counter) {
  if (counter < 0 || counter >= SOFTGPU_NUM_COUNTERS) return -1;
  const Lock lock(state().mutex);
  return state().counters[counter];
}

void softgpu_clear_counters(void) {
  State &s = state();
  const Lock lock(s.mutex);
  for (const int sum : {SOFTGPU_BYTES_H2D, SOFTGPU_BYTES_D2H, SOFTGPU_BYTES_D2D, SOFTGPU_BYTES_PAGEABLE,
                        SOFTGPU_COPIES_H2D, SOFTGPU_COPIES_D2H, SOFTGPU_LAUNCHES, SOFTGPU_GRAPH_LAUNCHES,
                        SOFTGPU_GRAPH_NODES, SOFTGPU_RED_ZONE_HITS, SOFTGPU_FREED_HITS})
    s.counters[sum] = 0;
  s.counters[SOFTGPU_PEAK_BYTES] = s.counters[SOFTGPU_LIVE_BYTES];
  for (SymbolState &use : s.symbols) {
    use.fails_at_call -= use.calls;
    use.calls = 0;
  }
}

int32_t softgpu_num_symbols(void) { return NUM_SYMBOLS; }

const char *softgpu_symbol_name(int32_t index) {
  return index >= 0 && index < NUM_SYMBOLS ? SYMBOL_NAMES[index] : nullptr;
}

int64_t softgpu_symbol_calls(int32_t index) {
  if (index < 0 || index >= NUM_SYMBOLS) return -1;
  const Lock lock(state().mutex);
  return state().symbols[index].calls;
}

}  // extern "C"
