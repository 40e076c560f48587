// Splits independent work over the threads of a stream. The split decides only who computes what, never in which
// order a result is summed, so results do not depend on the number of threads.
#pragma once

#include <omp.h>

#include "cpu/vec.h"

namespace gt::GT_ISA {

// Below this many cost units (about one f32 operation each) a second thread costs more than it brings (about 2 us).
constexpr int64_t MIN_COST_PER_THREAD = 16 * 1024;

// Calls f(begin, end) on disjoint ranges that cover 0 .. n-1; cost is per item.
template <class F>
static inline void parallel_for(const gt_stream *stream, int64_t n, int64_t cost, const F &f) {
  const int64_t worth = n * cost / MIN_COST_PER_THREAD;
  int64_t threads = stream->num_threads;
  if (threads > worth) threads = worth;
  if (threads > n) threads = n;
  if (threads <= 1) {
    if (n > 0) f(int64_t{0}, n);
    return;
  }
#pragma omp parallel num_threads(static_cast<int>(stream->num_threads))
  {
    // The team always has the stream's size: libgomp rebuilds its pool when the size changes.
    const int64_t team = omp_get_num_threads(), me = omp_get_thread_num();
    const int64_t begin = n * me / team, end = n * (me + 1) / team;
    if (begin < end) f(begin, end);
  }
}

}  // namespace gt::GT_ISA
