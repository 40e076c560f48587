// What does an event mark, and who waits for it?
//
// A record is a mark in a stream; an event stands for its last record. cudaStreamWaitEvent looks the record up when it
// is called, so recording the event again later changes nothing for those who already wait.
#include "core.h"

using namespace softgpu;

namespace {

constexpr unsigned BLOCKING_SYNC = 1, DISABLE_TIMING = 2;  // cudaEventBlockingSync changes nothing here

Event *find_event(void *handle) {
  const auto found = state().events.find(handle);
  return found == state().events.end() ? nullptr : &found->second;
}

// Asking about an event that was last recorded in a capture has no answer, and about any other is unsafe beside a
// capture.
int conflict_of_asking(const Event &event) {
  if (event.capture) {
    if (!event.capture->ended) event.capture->invalid = true;
    return CAPTURED_EVENT;
  }
  return capture_conflict_of_unsafe_call();
}

}  // namespace

extern "C" {

SOFTGPU_API int cudaEventCreateWithFlags(void **out, unsigned flags) {
  Call call(Symbol::cudaEventCreateWithFlags);
  if (call.is_refused()) return call.refusal();
  if (!out || flags & ~(BLOCKING_SYNC | DISABLE_TIMING)) return call.finish(INVALID_VALUE);
  *out = state().new_handle();
  state().events[*out] = {current_device(), !(flags & DISABLE_TIMING), nullptr, nullptr, {}};
  ++state().counters[SOFTGPU_LIVE_EVENTS];
  return call.finish(OK);
}

SOFTGPU_API int cudaEventDestroy(void *handle) {
  Call call(Symbol::cudaEventDestroy);
  if (call.is_refused_release()) return call.refusal();
  if (!state().events.erase(handle)) return call.finish(INVALID_HANDLE);
  --state().counters[SOFTGPU_LIVE_EVENTS];
  return call.finish(OK);
}

SOFTGPU_API int cudaEventRecord(void *handle, void *stream_handle) {
  Call call(Symbol::cudaEventRecord);
  if (call.is_refused()) return call.refusal();
  Event *event = find_event(handle);
  Stream *stream = find_stream(stream_handle);
  if (!event || !stream || event->device != stream->device) return call.finish(INVALID_HANDLE);
  if (stream->capture) return call.finish(capture_record(*stream, *event));
  if (const int conflict = capture_conflict_of_legacy_use(*stream)) return call.finish(conflict);
  event->capture = nullptr;
  event->record = push(*stream, nullptr);
  return call.finish(OK);
}

SOFTGPU_API int cudaStreamWaitEvent(void *stream_handle, void *handle, unsigned flags) {
  Call call(Symbol::cudaStreamWaitEvent);
  if (call.is_refused()) return call.refusal();
  Stream *stream = find_stream(stream_handle);
  Event *event = find_event(handle);
  if (!event || !stream) return call.finish(INVALID_HANDLE);
  if (flags > 1) return call.finish(INVALID_VALUE);
  if (stream->capture || event->capture) return call.finish(capture_wait(*stream, *event));
  if (const int conflict = capture_conflict_of_legacy_use(*stream)) return call.finish(conflict);
  if (event->record && !event->record->done) push(*stream, nullptr)->after.push_back(event->record);
  return call.finish(OK);
}

SOFTGPU_API int cudaEventSynchronize(void *handle) {
  Call call(Symbol::cudaEventSynchronize);
  if (call.is_refused()) return call.refusal();
  const Event *event = find_event(handle);
  if (!event) return call.finish(INVALID_HANDLE);
  if (const int conflict = conflict_of_asking(*event)) return call.finish(conflict);
  wait_for(call.lock(), event->record);
  return call.finish(result_of_wait());
}

SOFTGPU_API int cudaEventQuery(void *handle) {
  Call call(Symbol::cudaEventQuery);
  if (call.is_refused()) return call.refusal();
  const Event *event = find_event(handle);
  if (!event) return call.finish(INVALID_HANDLE);
  if (const int conflict = conflict_of_asking(*event)) return call.finish(conflict);
  if (!event->record || event->record->done) return call.finish(OK);
  advance(call.lock(), event->record);
  return call.finish(NOT_READY);
}

SOFTGPU_API int cudaEventElapsedTime(float *ms, void *start_handle, void *end_handle) {
  Call call(Symbol::cudaEventElapsedTime);
  if (call.is_refused()) return call.refusal();
  const Event *start = find_event(start_handle), *end = find_event(end_handle);
  if (!ms) return call.finish(INVALID_VALUE);
  if (!start || !end || !start->has_timing || !end->has_timing || start->device != end->device)
    return call.finish(INVALID_HANDLE);
  if (start->capture || end->capture) return call.finish(CAPTURED_EVENT);
  if (!start->record || !end->record) return call.finish(INVALID_HANDLE);
  if (!start->record->done || !end->record->done) return call.finish(NOT_READY);
  *ms = static_cast<float>(end->record->done_ns - start->record->done_ns) * 1e-6f;
  return call.finish(OK);
}

}  // extern "C"
