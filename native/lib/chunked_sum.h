// Sums in f64 over chunks of elements (chunks.h): a block per chunk, then one block over their sums.
#pragma once

#include "chunks.h"
#include "lib/reduce.h"

namespace gt {

constexpr int SUM_THREADS = 256;

// A thread's addends go by SUM_LOADS at once, so that their loads are in flight together.
constexpr int SUM_LOADS = 4;

// value(i): element i in f64. finish(sum): called by one thread, once.
template <class Value, class Finish>
__global__ void __launch_bounds__(SUM_THREADS)
    sum_chunk(const Value value, const Chunks chunks, double *sums, const Finish finish) {
  __shared__ double scratch[MAX_WARPS];
  const int64_t first = blockIdx.x * chunks.size, end = min(first + chunks.size, chunks.n);
  double sum = 0;
  for (int64_t i = first + threadIdx.x; i < end; i += SUM_LOADS * SUM_THREADS) {
    double addend[SUM_LOADS];
#pragma unroll
    for (int k = 0; k < SUM_LOADS; ++k) addend[k] = i + k * SUM_THREADS < end ? value(i + k * SUM_THREADS) : 0.0;
#pragma unroll
    for (int k = 0; k < SUM_LOADS; ++k) sum += addend[k];
  }
  sum = block_sum(sum, scratch);
  if (threadIdx.x != 0) return;
  if (gridDim.x == 1)
    finish(sum);
  else
    sums[blockIdx.x] = sum;
}

template <class Finish>
__global__ void __launch_bounds__(SUM_THREADS) join_chunks(const double *sums, int64_t count, const Finish finish) {
  __shared__ double scratch[MAX_WARPS];
  double sum = 0;
  for (int64_t i = threadIdx.x; i < count; i += SUM_THREADS) sum += sums[i];
  sum = block_sum(sum, scratch);
  if (threadIdx.x == 0) finish(sum);
}

// workspace: of workspace_bytes(chunks).
template <class Value, class Finish>
int launch_sum(void *stream, const Chunks &chunks, void *workspace, const Value &value, const Finish &finish) {
  double *const sums = static_cast<double *>(workspace);
  const int error = launch(sum_chunk<Value, Finish>, static_cast<unsigned>(chunks.count), SUM_THREADS, 0, stream, value,
                           chunks, sums, finish);
  if (error || chunks.count == 1) return error;
  return launch(join_chunks<Finish>, 1, SUM_THREADS, 0, stream, sums, chunks.count, finish);
}

}  // namespace gt
