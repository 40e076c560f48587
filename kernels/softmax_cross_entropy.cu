// Softmax cross-entropy and its gradient on CUDA.
//
// Computes    of each row that counts (target t != ignore_index), with m = max(x), s = sum(exp(x - m)), e the
//             smoothing: loss = log(s) + (1 - e)(m - x[t]) + e (m - mean(x)),
//             dx = f (exp(x - m) / s - (1 - e)[v = t] - e / V), f = grad_scale / number of rows that count; then the
//             mean of the losses. Other rows: loss 0, dx 0
// Shapes      logits, dlogits [N, V], V contiguous, any row stride; targets, row_losses [N]; loss, grad_scale [1].
//             dlogits may be logits: a thread writes only elements that it alone reads, after the row's sums are known
// Types       logits, dlogits f32, bf16, f16, one for both; targets i32 or i64. Arithmetic in f32, rounded once; counts
//             in i64, a row's loss from its sums, and the sum over rows, in f64
// Mapping     three launches. count_rows and mean_of_rows: one block. A block owns a row, and steps to others. Rows of
//             4 KiB or more that all begin at multiples of 16 bytes: up to 1024 threads, of which thread t of m owns
//             the vectors t, t + m, t + 2m, ..; as many blocks as run at once. Where two rows fit into the shared
//             memory of a block, or of a cluster of 2, 4 or 8 (sm_90) that has a part of each row in every block,
//             cross_entropy_in_shared: while a row's vectors become its gradient, those of the row after the next take
//             their places. Else cross_entropy_in_memory, 4 vectors in flight. Other rows: cross_entropy_row, 32 to 512
//             threads, which own columns likewise; up to 16384 blocks
// Memory      logits and dlogits once; logits twice where rows fit into no cluster (beyond 900 KB). Nothing for rows
//             that do not count but zeros in dlogits. The workspace holds count, f and the losses of the rows (unless
//             row_losses is wanted). Shared: two rows, 201 KB of 50304 in bf16, 4 x 128 KB of 128256; else 4 KB for the
//             counts and the mean, 512 B per row
// Numerics    in shared memory the maximum first, then the sum; else a thread sums some columns at a time against its
//             running maximum. Then the butterfly of reduce.h; a cluster's parts, each against its own maximum, are
//             added in their order. The order depends on V, the dtype, on whether rows of logits and of dlogits are
//             aligned, and on whether two fit into the device's shared memory or a cluster's. NaN, +inf, a
//             target outside 0 .. V-1 and a row of -inf make the row NaN
// Limits      N, V up to 2^63; sm_80 and later; nothing is UNSUPPORTED
// Source      Milakov & Gimelshein 2018 (arXiv 1805.02867) for the running maximum. cross_entropy_row: 1.7 TB/s of 4.2
//             on an H200, ahead of torch.compile; the others have not run on a GPU yet (bench/results/h200.md)
#include "lib/cuda.h"

#include "check.h"
#include "cross_entropy_rows.h"
#include "gatun/softmax.h"
#include "lib/entry.h"

namespace gt {

decltype(gt_cross_entropy) cross_entropy_cuda;

namespace {

using cross_entropy::Operands;
using cross_entropy::Targets;
using cross_entropy::Totals;

constexpr int THREADS = 512;           // at most, of a block that owns a row; of the blocks that sum over rows
constexpr int VALUES = 8;              // columns of a thread that are in flight together
constexpr int64_t MAX_BLOCKS = 16384;  // enough to fill any device many times

// The sum of a value per thread of a block of THREADS, known to thread 0.
template <class T> __device__ __forceinline__ T sum_to_first(T value) {
  __shared__ T scratch[THREADS];
  scratch[threadIdx.x] = value;
  __syncthreads();
#pragma unroll 1
  for (unsigned half = THREADS / 2; half > 0; half /= 2) {
    if (threadIdx.x < half) scratch[threadIdx.x] += scratch[threadIdx.x + half];
    __syncthreads();
  }
  return scratch[0];
}

__global__ void __launch_bounds__(THREADS) count_rows(const Targets targets, const float *grad_scale, Totals *totals) {
  int64_t count = 0;
#pragma unroll 4
  for (int64_t n = threadIdx.x; n < targets.num_rows; n += THREADS) count += targets.at(n) != targets.ignore_index;
  count = sum_to_first(count);
  if (threadIdx.x == 0) {
    totals->count = count;
    totals->factor = (grad_scale ? *grad_scale : 1.0f) / static_cast<float>(count);
  }
}

__global__ void __launch_bounds__(THREADS) mean_of_rows(float *loss, const float *losses, int64_t num_rows,
                                                        const Totals *totals) {
  double sum = 0;
#pragma unroll 4
  for (int64_t n = threadIdx.x; n < num_rows; n += THREADS) sum += losses[n];
  sum = sum_to_first(sum);
  if (threadIdx.x == 0)
    *loss = num_rows == 0 || totals->count == 0 ? 0.0f : static_cast<float>(sum / static_cast<double>(totals->count));
}

// The next VALUES columns of this thread from `first` on, -inf beyond the row.
template <class X>
__device__ __forceinline__ void load_values(const X *x, int64_t first, int64_t v, float (&out)[VALUES]) {
#pragma unroll
  for (int k = 0; k < VALUES; ++k) {
    const int64_t i = first + k * static_cast<int>(blockDim.x);
    out[k] = i < v ? to_float(x[i]) : -INFINITY;
  }
}

// The loss of a row that counts, known to thread 0; its gradient goes to dx.
template <class X>
__device__ __forceinline__ float row_loss(const Operands<X> &o, X *dx, const X *x, int64_t target, float *scratch) {
  const int64_t step = static_cast<int64_t>(blockDim.x) * VALUES;
  const bool smooths = o.smoothing > 0.0f;
  float m = -INFINITY, sum = 0.0f, total = 0.0f, value[VALUES];  // sum: of exp(x - offset_of(m)) so far
#pragma unroll 1
  for (int64_t first = threadIdx.x; first < o.v; first += step) {
    load_values(x, first, o.v, value);
    const float before = m;
#pragma unroll
    for (int k = 0; k < VALUES; ++k) m = fmaxf(m, value[k]);
    const float offset = cross_entropy::offset_of(m);
    sum *= expf(before - offset);
#pragma unroll
    for (int k = 0; k < VALUES; ++k) sum += expf(value[k] - offset);
    if (smooths) {
#pragma unroll
      for (int k = 0; k < VALUES; ++k)
        if (first + k * static_cast<int>(blockDim.x) < o.v) total += value[k];
    }
  }
  const float offset = cross_entropy::offset_of(block_max(m, scratch));
  sum = block_sum(sum * expf(m - offset), scratch);
  // by the thread that will overwrite it
  const float hit = block_sum(threadIdx.x == target % blockDim.x ? to_float(x[target]) : 0.0f, scratch);
  if (smooths) total = block_sum(total, scratch);
  const float loss = threadIdx.x == 0 ? cross_entropy::loss_of(sum, offset, hit, total, o.v, o.smoothing) : 0.0f;
  if (!dx) return loss;

  const float e = o.smoothing, factor = o.totals->factor, scale = factor / sum;
  const float uniform = factor * e / static_cast<float>(o.v);
#pragma unroll 1
  for (int64_t first = threadIdx.x; first < o.v; first += step) {
    load_values(x, first, o.v, value);
#pragma unroll
    for (int k = 0; k < VALUES; ++k) {
      const int64_t i = first + k * static_cast<int>(blockDim.x);
      float d = expf(value[k] - offset) * scale - uniform;
      if (i == target) d -= factor * (1.0f - e);
      if (i < o.v) dx[i] = from_float<X>(d);
    }
  }
  return loss;
}

template <class X> __global__ void __launch_bounds__(THREADS) cross_entropy_row(const Operands<X> o) {
  __shared__ float scratch[MAX_WARPS];
  for (int64_t n = blockIdx.x; n < o.targets.num_rows; n += gridDim.x) {
    const int64_t target = o.targets.at(n);
    X *const dx = o.dlogits ? o.dlogits + n * o.stride_d : nullptr;
    float loss;
    if (target == o.targets.ignore_index) {
      cross_entropy::fill_row(dx, o.v, loss = 0.0f);
    } else if (target < 0 || target >= o.v) {
      cross_entropy::fill_row(dx, o.v, loss = NAN);
    } else {
      loss = row_loss(o, dx, o.logits + n * o.stride_x, target, scratch);
    }
    if (threadIdx.x == 0) o.losses[n] = loss;
  }
}

template <class X>
int launch_cross_entropy(void *stream, const gt_tensor *dlogits, const gt_tensor &logits, const Targets &targets,
                         float smoothing, float *losses, const Totals *totals) {
  const Operands<X> o = {dlogits ? static_cast<X *>(dlogits->data) : nullptr, static_cast<const X *>(logits.data),
                         dlogits ? dlogits->stride[0] : 0, logits.stride[0], logits.shape[1], targets, smoothing,
                         losses, totals};
  int status = 0;
  if (cross_entropy::launch_vectors(stream, o, &status)) return status;
  int threads = WARP;
  while (threads < THREADS && int64_t{threads} * VALUES < o.v) threads *= 2;
  return launch(cross_entropy_row<X>, static_cast<unsigned>(min(targets.num_rows, MAX_BLOCKS)), threads, 0, stream, o);
}

}  // namespace

gt_status cross_entropy_cuda(const gt_stream *stream, const gt_tensor *loss, const gt_tensor *row_losses,
                             const gt_tensor *dlogits, const gt_tensor *logits, const gt_tensor *targets,
                             int64_t ignore_index, float label_smoothing, const gt_tensor *grad_scale,
                             const gt_tensor *workspace) {
  const Targets rows = {targets->data, targets->dtype == GT_I64, targets->shape[0], ignore_index};
  Totals *const totals = rows.num_rows ? static_cast<Totals *>(workspace->data) : nullptr;
  float *losses = data_of<float>(row_losses);
  if (!losses && totals) losses = reinterpret_cast<float *>(totals + 1);
  int error = 0;
  if (rows.num_rows > 0) {
    error = launch(count_rows, 1, THREADS, 0, stream->handle, rows, data_of<const float>(grad_scale), totals);
    const auto run = [&](auto launch_of_dtype) {
      return launch_of_dtype(stream->handle, dlogits, *logits, rows, label_smoothing, losses, totals);
    };
    if (!error) {
      switch (logits->dtype) {
        case GT_F32: error = run(launch_cross_entropy<float>); break;
        case GT_BF16: error = run(launch_cross_entropy<bf16>); break;
        default: error = run(launch_cross_entropy<f16>);
      }
    }
  }
  if (!error)
    error = launch(mean_of_rows, 1, THREADS, 0, stream->handle, data_of<float>(loss), losses, rows.num_rows, totals);
  return status_of("cross_entropy", error);
}

}  // namespace gt
