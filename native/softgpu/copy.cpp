// How do bytes get from the host to the device and back?
//
// A pinned source is read when the copy runs, not when it is asked for. A pageable source is read at once, as CUDA
// reads it into a staging buffer; a copy to pageable memory returns when it is done. Both are counted apart: they cost
// what they hide.
#include <cstring>

#include "core.h"

namespace softgpu {

namespace {

enum class Kind : int { HOST_TO_HOST = 0, HOST_TO_DEVICE = 1, DEVICE_TO_HOST = 2, DEVICE_TO_DEVICE = 3, DEFAULT = 4 };

// Where the bytes really are. false: the place is no memory for a copy, and the reason is noted.
bool check_end(const char *name, const void *address, size_t bytes, Place &place) {
  place = place_of(address);
  if (place.where == Where::UNKNOWN) return true;  // pageable host memory, as far as CUDA can tell
  if (place.where != Where::FREED && bytes <= place.room) return true;
  if (place.where == Where::FREED) ++state().counters[SOFTGPU_FREED_HITS];
  refuse_text("cudaMemcpyAsync: %s: %zu bytes, %s", name, bytes, describe(address).c_str());
  return false;
}

// Pinned memory is host memory, and the device can address it too: it may stand for either in `kind`.
bool fits(Where where, bool as_device) { return where == Where::PINNED || (where == Where::DEVICE) == as_device; }

bool kind_fits(Kind kind, Where to, Where from) {
  switch (kind) {
    case Kind::HOST_TO_HOST: return fits(to, false) && fits(from, false);
    case Kind::HOST_TO_DEVICE: return fits(to, true) && fits(from, false);
    case Kind::DEVICE_TO_HOST: return fits(to, false) && fits(from, true);
    case Kind::DEVICE_TO_DEVICE: return fits(to, true) && fits(from, true);
    case Kind::DEFAULT: return true;
  }
  return false;
}

Traffic traffic_of(Where to, Where from, size_t bytes) {
  Traffic t;
  const int64_t n = static_cast<int64_t>(bytes);
  const bool to_device = to == Where::DEVICE, from_device = from == Where::DEVICE;
  if (to_device && from_device) t.d2d = n;
  if (to_device && !from_device) t.h2d = n, t.copies_h2d = 1;
  if (!to_device && from_device) t.d2h = n, t.copies_d2h = 1;
  if (to == Where::UNKNOWN || from == Where::UNKNOWN) t.pageable = n;
  return t;
}

// For the time it runs: a graph may be launched after its memory was freed.
bool still_there(const void *address, size_t bytes, Where was, const char *what, std::string &why) {
  return was == Where::UNKNOWN || is_accessible(address, bytes, what, why);
}

}  // namespace

}  // namespace softgpu

using namespace softgpu;

extern "C" {

SOFTGPU_API int cudaMemcpyAsync(void *to, const void *from, size_t bytes, int kind, void *handle) {
  Call call(Symbol::cudaMemcpyAsync);
  if (call.is_refused()) return call.refusal();
  Stream *stream = find_stream(handle);
  if (!stream) return call.finish(INVALID_HANDLE);
  if (bytes == 0) return call.finish(OK);
  Place target, source;
  if (!to || !from || !check_end("target", to, bytes, target) || !check_end("source", from, bytes, source))
    return call.finish(INVALID_VALUE);
  if (!kind_fits(static_cast<Kind>(kind), target.where, source.where)) {
    refuse_text("cudaMemcpyAsync: kind %d does not fit: target %s, source %s", kind, describe(to).c_str(),
                describe(from).c_str());
    return call.finish(kind < 0 || kind > 4 ? 21 /* cudaErrorInvalidMemcpyDirection */ : INVALID_VALUE);
  }
  const Where to_where = target.where, from_where = source.where;
  const bool is_pageable = to_where == Where::UNKNOWN || from_where == Where::UNKNOWN;
  if (is_pageable && stream->capture) {
    refuse_text("cudaMemcpyAsync: a copy of pageable memory in a capture");
    return call.finish(capture_conflict(*stream));
  }
  Task task;
  if (from_where == Where::UNKNOWN && to_where != Where::UNKNOWN && !state().settings.kernels_empty) {
    auto staged =
        std::make_shared<std::vector<char>>(static_cast<const char *>(from), static_cast<const char *>(from) + bytes);
    task = [=](std::string &why) -> int {
      if (!still_there(to, bytes, to_where, "cudaMemcpyAsync: target", why)) return ILLEGAL_ADDRESS;
      memcpy(to, staged->data(), bytes);
      return OK;
    };
  } else {
    task = [=](std::string &why) -> int {
      if (!still_there(to, bytes, to_where, "cudaMemcpyAsync: target", why) ||
          !still_there(from, bytes, from_where, "cudaMemcpyAsync: source", why))
        return ILLEGAL_ADDRESS;
      memmove(to, from, bytes);
      return OK;
    };
  }
  if (const int code = submit(*stream, std::move(task), traffic_of(to_where, from_where, bytes)))
    return call.finish(code);
  if (to_where == Where::UNKNOWN) wait_for(call.lock(), stream->last);
  return call.finish(OK);
}

SOFTGPU_API int cudaMemsetAsync(void *to, int value, size_t bytes, void *handle) {
  Call call(Symbol::cudaMemsetAsync);
  if (call.is_refused()) return call.refusal();
  Stream *stream = find_stream(handle);
  if (!stream) return call.finish(INVALID_HANDLE);
  if (bytes == 0) return call.finish(OK);
  const Place target = place_of(to);
  if ((target.where != Where::DEVICE && target.where != Where::PINNED) || bytes > target.room) {
    refuse_text("cudaMemsetAsync: %zu bytes, %s", bytes, describe(to).c_str());
    return call.finish(INVALID_VALUE);
  }
  return call.finish(submit(*stream, [=](std::string &why) -> int {
    if (!is_accessible(to, bytes, "cudaMemsetAsync", why)) return ILLEGAL_ADDRESS;
    memset(to, value, bytes);
    return OK;
  }));
}

}  // extern "C"
