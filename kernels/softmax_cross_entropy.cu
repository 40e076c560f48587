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
// Mapping     three launches. count_rows and mean_of_rows: one block. A block owns a row, and steps to others.
//             cross_entropy_in_shared, where two rows of whole aligned vectors of 16 bytes fit into shared memory and
//             one has 4 KiB: up to 1024 threads, of which thread t of m owns the vectors t, t + m, t + 2m, ..; as many
//             blocks as run at once. While a row's vectors become its gradient, those of the row after the next take
//             their places. Else cross_entropy_row: 32 to 512 threads, which own columns likewise; up to 16384 blocks
// Memory      logits and dlogits once; twice what does not fit (a row of 128k in bf16 takes 256 KB: the second read
//             mostly hits L2). Nothing for rows that do not count but zeros in dlogits. The workspace holds count, f
//             and the losses of the rows (unless row_losses is wanted). Shared: two rows, 201 KB of 50304 in bf16; else
//             4 KB for the counts and the mean, 128 B per row
// Numerics    the maximum first, then the sum; in cross_entropy_row a thread sums VALUES columns at a time against its
//             running maximum. Then the butterfly of reduce.h. The order depends on V, the dtype, and on whether rows
//             are aligned. NaN, +inf, a target outside 0 .. V-1 and a row of -inf make the row NaN
// Limits      N, V up to 2^63; sm_80 and later; nothing is UNSUPPORTED
// Source      Milakov & Gimelshein 2018 (arXiv 1805.02867) for the running maximum. cross_entropy_row: 1.7 TB/s of 4.2
//             on an H200, ahead of torch.compile; the other has not run on a GPU yet (bench/results/h200.md)
#include "lib/cuda.h"

#include "check.h"
#include "gatun/softmax.h"
#include "lib/async_copy.h"
#include "lib/exp2.h"
#include "lib/hopper.h"
#include "lib/reduce.h"
#include "lib/vec.h"

namespace gt {

decltype(gt_cross_entropy) cross_entropy_cuda;

namespace {

constexpr int THREADS = 512;           // at most, of a block that owns a row; of the blocks that sum over rows
constexpr int VALUES = 8;              // columns of a thread that are in flight together
constexpr int64_t MAX_BLOCKS = 16384;  // enough to fill any device many times
constexpr int SHARED_THREADS = 1024;   // at most, of a block with rows in shared memory; of an SM: 64 registers each
constexpr int VECTORS = 6;             // of a thread there, where that is enough
constexpr int64_t LEAST_BYTES = 4096;  // of a row there
constexpr int64_t SM_BYTES = 224 << 10;
constexpr float LOG2E = 1.44269504f;

// At the start of the workspace; the losses of the rows follow.
struct Totals {
  int64_t count;  // of rows that count
  float factor;   // grad_scale / count
};
static_assert(sizeof(Totals) == 16, "gt_cross_entropy_workspace counts on it");

struct Targets {
  const void *data;
  bool are_i64;
  int64_t num_rows, ignore_index;
  __device__ __forceinline__ int64_t at(int64_t n) const {
    return are_i64 ? static_cast<const int64_t *>(data)[n] : static_cast<const int32_t *>(data)[n];
  }
  // Whether the logits of row n are needed.
  __device__ __forceinline__ bool needs_row(int64_t n, int64_t v) const {
    const int64_t target = n < num_rows ? at(n) : -1;
    return target >= 0 && target < v && target != ignore_index;
  }
};

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

template <class X> struct Operands {
  X *dlogits;  // NULL: not wanted
  const X *logits;
  int64_t stride_d, stride_x, v;
  Targets targets;
  float smoothing;
  float *losses;
  const Totals *totals;
};

// The next VALUES columns of this thread from `first` on, -inf beyond the row.
template <class X>
__device__ __forceinline__ void load_values(const X *x, int64_t first, int64_t v, float (&out)[VALUES]) {
#pragma unroll
  for (int k = 0; k < VALUES; ++k) {
    const int64_t i = first + k * static_cast<int>(blockDim.x);
    out[k] = i < v ? to_float(x[i]) : -INFINITY;
  }
}

__device__ __forceinline__ float offset_of(float m) { return m == -INFINITY ? 0.0f : m; }

template <class X> __device__ __forceinline__ void fill_row(X *dx, int64_t v, float value) {
  if (!dx) return;
  for (int64_t i = threadIdx.x; i < v; i += blockDim.x) dx[i] = from_float<X>(value);
}

// In f64: a few operations per row, whose roundings the mean need not inherit.
__device__ __forceinline__ float loss_of(float sum, float offset, float hit, float total, int64_t v, float smoothing) {
  const double e = smoothing, m = offset;
  double loss = log(static_cast<double>(sum));
  if (e < 1) loss += (1 - e) * (m - hit);
  if (e > 0) loss += e * (m - total / static_cast<double>(v));
  return static_cast<float>(loss);
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
    const float offset = offset_of(m);
    sum *= expf(before - offset);
#pragma unroll
    for (int k = 0; k < VALUES; ++k) sum += expf(value[k] - offset);
    if (smooths) {
#pragma unroll
      for (int k = 0; k < VALUES; ++k)
        if (first + k * static_cast<int>(blockDim.x) < o.v) total += value[k];
    }
  }
  const float offset = offset_of(block_max(m, scratch));
  sum = block_sum(sum * expf(m - offset), scratch);
  // by the thread that will overwrite it
  const float hit = block_sum(threadIdx.x == target % blockDim.x ? to_float(x[target]) : 0.0f, scratch);
  if (smooths) total = block_sum(total, scratch);
  const float loss = threadIdx.x == 0 ? loss_of(sum, offset, hit, total, o.v, o.smoothing) : 0.0f;
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
      fill_row(dx, o.v, loss = 0.0f);
    } else if (target < 0 || target >= o.v) {
      fill_row(dx, o.v, loss = NAN);
    } else {
      loss = row_loss(o, dx, o.logits + n * o.stride_x, target, scratch);
    }
    if (threadIdx.x == 0) o.losses[n] = loss;
  }
}

__device__ __forceinline__ float exponential(float x, float offset) { return exp2_flushed((x - offset) * LOG2E); }

// The same as row_loss of a row in shared memory, `vectors` long. used(i): vector i will not be read again.
template <bool SMOOTHS, class X, class Used>
__device__ __forceinline__ float row_loss_in_shared(const Operands<X> &o, X *dx, const Vector<X> *x, int vectors,
                                                    int target, float (&maxima)[MAX_WARPS],
                                                    float (&sums)[3][MAX_WARPS], Used used) {
  const int threads = blockDim.x, aim = target / VEC<X>;
  const bool aims = aim % threads == static_cast<int>(threadIdx.x);
  float m = -INFINITY;
#pragma unroll 2
  for (int i = threadIdx.x; i < vectors; i += threads) {
    const Vector<X> packed = x[i];
#pragma unroll
    for (int j = 0; j < VEC<X>; ++j) m = fmaxf(m, to_float(packed.element[j]));
  }
  const float offset = offset_of(block_reduce_alternating<Max>(m, maxima));

  float of_row[SMOOTHS ? 3 : 2] = {};  // the sum of exponentials, the target's logit, the sum of logits
#pragma unroll 2
  for (int i = threadIdx.x; i < vectors; i += threads) {
    const Vector<X> packed = x[i];
#pragma unroll
    for (int j = 0; j < VEC<X>; ++j) {
      const float value = to_float(packed.element[j]);
      of_row[0] += exponential(value, offset);
      if (SMOOTHS) of_row[2] += value;
    }
  }
  if (aims) of_row[1] = to_float(x[aim].element[target % VEC<X>]);
  block_reduce_alternating<Sum>(of_row, sums);
  const float sum = of_row[0], hit = of_row[1], total = SMOOTHS ? of_row[2] : 0.0f;

  const float factor = o.totals->factor, scale = factor / sum;
  const float uniform = SMOOTHS ? factor * o.smoothing / static_cast<float>(o.v) : 0.0f;
#pragma unroll 2
  for (int i = threadIdx.x; i < vectors; i += threads) {
    if (dx) {
      const Vector<X> packed = x[i];
      float d[VEC<X>];
#pragma unroll
      for (int j = 0; j < VEC<X>; ++j) d[j] = exponential(to_float(packed.element[j]), offset) * scale - uniform;
      store_vec(dx + static_cast<int64_t>(i) * VEC<X>, d);
    }
    used(i);
  }
  if (dx && aims)
    dx[target] = from_float<X>(exponential(hit, offset) * scale - uniform - factor * (1.0f - o.smoothing));
  return threadIdx.x == 0 ? loss_of(sum, offset, hit, total, o.v, o.smoothing) : 0.0f;
}

template <class X, bool SMOOTHS>
__global__ void __launch_bounds__(SHARED_THREADS, 1) cross_entropy_in_shared(const Operands<X> o, int vectors) {
  __shared__ float maxima[MAX_WARPS], sums[3][MAX_WARPS];
  GT_DYNAMIC_SMEM(Vector<X>, shared);
  const int64_t step = gridDim.x;
  for (int ahead = 0; ahead < 2; ++ahead) {
    const int64_t n = blockIdx.x + ahead * step;
    const X *const x = o.logits + n * o.stride_x;
    if (o.targets.needs_row(n, o.v))
      for (int i = threadIdx.x; i < vectors; i += blockDim.x)
        async_copy_16(shared + ahead * vectors + i, x + static_cast<int64_t>(i) * VEC<X>, VEC_BYTES);
    async_copy_commit();
  }
  Vector<X> *row = shared, *other = shared + vectors;
  for (int64_t n = blockIdx.x; n < o.targets.num_rows; n += step) {
    const int64_t target = o.targets.at(n), after_next = n + 2 * step;
    const bool refills = o.targets.needs_row(after_next, o.v);
    const X *const x = o.logits + (refills ? after_next : 0) * o.stride_x;
    const auto used = [&](int i) {
      if (refills) async_copy_16(row + i, x + static_cast<int64_t>(i) * VEC<X>, VEC_BYTES);
    };
    X *const dx = o.dlogits ? o.dlogits + n * o.stride_d : nullptr;
    float loss;
    async_copy_wait<1>();  // a thread reads what it has copied itself
    if (o.targets.needs_row(n, o.v)) {
      loss = row_loss_in_shared<SMOOTHS>(o, dx, row, vectors, static_cast<int>(target), maxima, sums, used);
    } else {
      fill_row(dx, o.v, loss = target == o.targets.ignore_index ? 0.0f : NAN);
      for (int i = threadIdx.x; i < vectors; i += blockDim.x) used(i);
    }
    async_copy_commit();
    if (threadIdx.x == 0) o.losses[n] = loss;
    Vector<X> *const done = row;
    row = other;
    other = done;
  }
  async_copy_wait<0>();
}

// false: not for these operands.
template <class X> bool launch_in_shared(void *stream, const Operands<X> &o, int *status) {
  const int64_t bytes = 2 * o.v * static_cast<int64_t>(sizeof(X)), vectors = o.v / VEC<X>;
  const bool is_whole = o.v % VEC<X> == 0 && rows_are_aligned(o.logits, o.stride_x) &&
                        (!o.dlogits || rows_are_aligned(o.dlogits, o.stride_d));
  if (!is_whole || bytes < 2 * LEAST_BYTES || bytes > max_dynamic_shared_bytes()) return false;
  const int64_t warps = (vectors + VECTORS * WARP - 1) / (VECTORS * WARP);
  const int threads = static_cast<int>(min(warps * WARP, int64_t{SHARED_THREADS}));
  const int64_t resident = max(int64_t{1}, min(int64_t{SHARED_THREADS / threads}, SM_BYTES / bytes));
  const dim3 grid(static_cast<unsigned>(min(o.targets.num_rows, resident * num_multiprocessors())));
  const auto kernel = o.smoothing > 0.0f ? cross_entropy_in_shared<X, true> : cross_entropy_in_shared<X, false>;
  *status = launch(kernel, grid, threads, bytes, stream, o, static_cast<int>(vectors));
  return true;
}

template <class X>
int launch_cross_entropy(void *stream, const gt_tensor *dlogits, const gt_tensor &logits, const Targets &targets,
                         float smoothing, float *losses, const Totals *totals) {
  const Operands<X> o = {dlogits ? static_cast<X *>(dlogits->data) : nullptr, static_cast<const X *>(logits.data),
                         dlogits ? dlogits->stride[0] : 0, logits.stride[0], logits.shape[1], targets, smoothing,
                         losses, totals};
  int status = 0;
  if (launch_in_shared(stream, o, &status)) return status;
  int threads = WARP;
  while (threads < THREADS && int64_t{threads} * VALUES < o.v) threads *= 2;
  return launch(cross_entropy_row<X>, static_cast<unsigned>(min(targets.num_rows, MAX_BLOCKS)), threads, 0, stream, o);
}

template <class T> T *data_of(const gt_tensor *t) { return t ? static_cast<T *>(t->data) : nullptr; }

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
  return error ? fail(GT_DEVICE_ERROR, "cross_entropy: %s", launch_error(error)) : GT_OK;
}

}  // namespace gt
