// When does the work of a stream run?
//
// As late as it can: when a host thread waits for it, and one step at a time when a thread asks whether it is done.
// Between streams only events order, and the legacy stream; softgpu_set_stream_order says who comes first where nothing
// does.
#include <algorithm>

#include "core.h"

namespace softgpu {

namespace {

constexpr unsigned NON_BLOCKING = 1;                      // cudaStreamNonBlocking
void *const LEGACY_HANDLE = reinterpret_cast<void *>(1);  // cudaStreamLegacy, the same as NULL

std::unique_ptr<Stream> new_stream(void *handle, int device, bool is_blocking) {
  auto stream = std::make_unique<Stream>();
  stream->handle = handle;
  stream->device = device;
  stream->is_blocking = is_blocking;
  stream->number = state().next_number++;
  return stream;
}

bool is_legacy(const Stream &stream) { return stream.handle == nullptr; }

Stream &legacy_stream(int device) {
  State &s = state();
  while (static_cast<int>(s.legacy.size()) <= device)
    s.legacy.push_back(new_stream(nullptr, static_cast<int>(s.legacy.size()), false));
  return *s.legacy[device];
}

bool may_run(const Work &work) {
  return work.stream->queue.front().get() == &work &&
         std::all_of(work.after.begin(), work.after.end(), [](const WorkPointer &w) { return w->done; });
}

// The first runnable piece of what has to be done before `work` is. Ends: what is waited for was given to its stream
// earlier than what waits.
Work &needed_for(const Work &work) {
  Work &head = *work.stream->queue.front();
  const Work *waits_for = nullptr;
  for (const WorkPointer &w : head.after)
    if (!w->done && (!waits_for || w->stream->number > waits_for->stream->number)) waits_for = w.get();
  return waits_for ? needed_for(*waits_for) : head;
}

std::vector<Work *> runnable() {
  std::vector<Work *> found;
  for_each_stream([&](Stream &stream) {
    if (!stream.queue.empty() && may_run(*stream.queue.front())) found.push_back(stream.queue.front().get());
  });
  std::sort(found.begin(), found.end(),
            [](const Work *a, const Work *b) { return a->stream->number > b->stream->number; });
  return found;
}

Work &choose(const Work &target) {
  const int64_t order = state().settings.stream_order;
  if (order == 0) return needed_for(target);
  const std::vector<Work *> candidates = runnable();
  if (order == 1) {
    for (Work *work : candidates)
      if (work->stream != target.stream) return *work;
    return needed_for(target);
  }
  uint64_t z = static_cast<uint64_t>(order) * 0x9E3779B97F4A7C15u + ++state().draws * 0xD1B54A32D192ED03u;
  z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;  // splitmix64's finish
  z = (z ^ z >> 27) * 0x94D049BB133111EBu;
  return *candidates[(z ^ z >> 31) % candidates.size()];
}

void drop_if_drained(Stream &stream) {
  auto &destroyed = state().destroyed;
  if (stream.destroyed && stream.queue.empty())
    destroyed.erase(
        std::find_if(destroyed.begin(), destroyed.end(), [&](const auto &s) { return s.get() == &stream; }));
}

// By value: the queue may be dropped while the work runs.
void run(Lock &lock, WorkPointer work) {
  State &s = state();
  int code = work->injected_fault;
  std::string why = "injected by softgpu_fail_work";
  if (!code && work->task) {
    s.is_running = true;
    lock.unlock();
    why.clear();
    code = work->task(why);
    lock.lock();
    s.is_running = false;
  }
  s.progress.notify_all();
  if (work->done) return;  // dropped meanwhile
  work->done = true;
  work->done_ns = now_ns();
  work->after.clear();
  work->task = nullptr;
  Stream &stream = *work->stream;
  stream.queue.pop_front();
  drop_if_drained(stream);
  if (code) lose(code, why);
}

void step(Lock &lock, const Work &target) { run(lock, choose(target).stream->queue.front()); }

}  // namespace

// After everything that runs before it has run: what the device wrote out of bounds shows now.
int result_of_wait() {
  if (!state().lost && !state().settings.kernels_empty && check_red_zones()) lose(ILLEGAL_ADDRESS, state().fault_text);
  return state().lost;
}

Stream *find_stream(void *handle) {
  if (!handle || handle == LEGACY_HANDLE) return &legacy_stream(current_device());
  const auto found = state().streams.find(handle);
  return found == state().streams.end() ? nullptr : found->second.get();
}

void for_each_stream(const std::function<void(Stream &)> &visit) {
  State &s = state();
  for (auto &entry : s.streams) visit(*entry.second);
  for (auto &stream : s.legacy) visit(*stream);
  for (auto &stream : s.destroyed) visit(*stream);
}

WorkPointer push(Stream &stream, Task task) {
  auto work = std::make_shared<Work>();
  work->stream = &stream;
  work->task = std::move(task);
  const auto come_after = [&](const Stream &other) {
    if (other.last && !other.last->done) work->after.push_back(other.last);
  };
  if (is_legacy(stream)) {
    for_each_stream([&](Stream &other) {
      if (other.is_blocking && other.device == stream.device) come_after(other);
    });
  } else if (stream.is_blocking) {
    come_after(legacy_stream(stream.device));
  }
  stream.queue.push_back(work);
  stream.last = work;
  return work;
}

void count_traffic(const Traffic &traffic) {
  int64_t *counters = state().counters;
  counters[SOFTGPU_BYTES_H2D] += traffic.h2d;
  counters[SOFTGPU_BYTES_D2H] += traffic.d2h;
  counters[SOFTGPU_BYTES_D2D] += traffic.d2d;
  counters[SOFTGPU_BYTES_PAGEABLE] += traffic.pageable;
  counters[SOFTGPU_COPIES_H2D] += traffic.copies_h2d;
  counters[SOFTGPU_COPIES_D2H] += traffic.copies_d2h;
}

int submit(Stream &stream, Task task, const Traffic &traffic, WorkPointer *given) {
  State &s = state();
  if (stream.capture) return capture_work(stream, std::move(task), traffic);
  if (const int conflict = capture_conflict_of_legacy_use(stream)) return conflict;
  count_traffic(traffic);
  const bool fails = ++s.work_given == s.work_fails_at;
  if (s.settings.kernels_empty && !fails) return OK;
  const WorkPointer work = push(stream, std::move(task));
  if (fails) work->injected_fault = s.work_fails_with;
  if (given) *given = work;
  return OK;
}

bool wait_for(Lock &lock, WorkPointer work) {
  State &s = state();
  while (work && !work->done && !s.lost) {
    if (s.is_running)
      s.progress.wait(lock);
    else
      step(lock, *work);
  }
  return !s.lost;
}

void advance(Lock &lock, WorkPointer work) {
  if (!state().is_running) step(lock, *work);
}

bool wait_for_device(Lock &lock, int device) {
  std::vector<std::pair<uint64_t, WorkPointer>> ends;
  for_each_stream([&](Stream &stream) {
    if (stream.device == device && stream.last && !stream.last->done) ends.emplace_back(stream.number, stream.last);
  });
  std::sort(ends.begin(), ends.end(), [](const auto &a, const auto &b) { return a.first > b.first; });
  for (const auto &end : ends)
    if (!wait_for(lock, end.second)) return false;
  return !state().lost;
}

void drop_pending_work() {
  for_each_stream([](Stream &stream) {
    for (const WorkPointer &work : stream.queue) {
      work->done = true;
      work->after.clear();
    }
    stream.queue.clear();
  });
  state().destroyed.clear();
  state().progress.notify_all();
}

int submit_launch(Stream &stream, Task task) {
  const bool is_captured = stream.capture != nullptr;
  const int code = submit(stream, std::move(task));
  if (!code && !is_captured) ++state().counters[SOFTGPU_LAUNCHES];
  return code;
}

int enqueue_product(void *handle, Task task) {
  const Lock lock(state().mutex);
  State &s = state();
  if (s.lost) return s.lost;
  Stream *stream = find_stream(handle);
  if (!stream || stream->device != current_device()) return INVALID_HANDLE;
  return submit_launch(*stream, std::move(task));
}

}  // namespace softgpu

using namespace softgpu;

extern "C" {

SOFTGPU_API int cudaStreamCreateWithFlags(void **out, unsigned flags) {
  Call call(Symbol::cudaStreamCreateWithFlags);
  if (call.is_refused()) return call.refusal();
  if (!out || flags > NON_BLOCKING) return call.finish(INVALID_VALUE);
  *out = state().new_handle();
  state().streams.emplace(*out, new_stream(*out, current_device(), flags != NON_BLOCKING));
  ++state().counters[SOFTGPU_LIVE_STREAMS];
  return call.finish(OK);
}

// Returns at once; what the stream was given still runs.
SOFTGPU_API int cudaStreamDestroy(void *handle) {
  Call call(Symbol::cudaStreamDestroy);
  if (call.is_refused_release()) return call.refusal();
  State &s = state();
  const auto found = s.streams.find(handle);
  if (found == s.streams.end()) return call.finish(INVALID_HANDLE);
  Stream &stream = *found->second;
  leave_capture(stream);
  stream.destroyed = true;
  if (!stream.queue.empty()) s.destroyed.push_back(std::move(found->second));
  s.streams.erase(found);
  --s.counters[SOFTGPU_LIVE_STREAMS];
  return call.finish(OK);
}

SOFTGPU_API int cudaStreamSynchronize(void *handle) {
  Call call(Symbol::cudaStreamSynchronize);
  if (call.is_refused()) return call.refusal();
  Stream *stream = find_stream(handle);
  if (!stream) return call.finish(INVALID_HANDLE);
  if (const int conflict = capture_conflict(*stream)) return call.finish(conflict);
  wait_for(call.lock(), is_legacy(*stream) ? push(*stream, nullptr) : stream->last);
  return call.finish(result_of_wait());
}

SOFTGPU_API int cudaStreamQuery(void *handle) {
  Call call(Symbol::cudaStreamQuery);
  if (call.is_refused()) return call.refusal();
  Stream *stream = find_stream(handle);
  if (!stream) return call.finish(INVALID_HANDLE);
  if (const int conflict = capture_conflict(*stream)) return call.finish(conflict);
  if (!stream->last || stream->last->done) return call.finish(OK);
  advance(call.lock(), stream->last);
  return call.finish(NOT_READY);
}

SOFTGPU_API int cudaDeviceSynchronize(void) {
  Call call(Symbol::cudaDeviceSynchronize);
  if (call.is_refused()) return call.refusal();
  if (const int conflict = capture_conflict_of_device_wait()) return call.finish(conflict);
  wait_for_device(call.lock(), current_device());
  return call.finish(result_of_wait());
}

}  // extern "C"
