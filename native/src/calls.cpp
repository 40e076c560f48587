// gatun/calls.h: calls of a vendor's library side by side.
#include "gatun/calls.h"

#include <omp.h>

#include "check.h"

extern "C" gt_status gt_call_each(const gt_stream *stream, gt_call function, const void *const *primitives,
                                  void *context, int32_t count, const void *const *arguments, int64_t n) {
  gt::Check check("call_each", stream);
  check.require(function, "function is NULL, expected what to call");
  check.require(primitives && arguments, "primitives is NULL, or arguments, expected one of each per call");
  if (check.ok()) check.require(stream->device == GT_CPU, "the stream is not of the CPU");
  check.require(n >= 0, "n is %lld, expected at least 0", static_cast<long long>(n));
  if (!check.ok()) return check.status();
  int32_t failed = 0;
  // The team has the stream's size whatever n is: libgomp rebuilds its pool when the size changes.
#pragma omp parallel for num_threads(stream->num_threads) schedule(dynamic, 1) if (stream->num_threads > 1)
  for (int64_t i = 0; i < n; ++i) {
    const int32_t result = function(primitives[i], context, count, arguments[i]);
    if (result != 0) {
#pragma omp critical
      if (failed == 0) failed = result;
    }
  }
  return failed == 0 ? GT_OK : gt::fail(GT_INTERNAL, "call_each: a call gave %d, expected 0", failed);
}
