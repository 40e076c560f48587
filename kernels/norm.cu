// Layer and RMS normalisation on CUDA.
//
// Computes    h = round(x + residual), or x; layernorm: y = (h - mean) rstd weight + bias, mean = sum(h) / C,
//             rstd = 1 / sqrt(sum((h - mean)^2) / C + eps); rmsnorm: y = round(h rstd) weight,
//             rstd = 1 / sqrt(sum(h^2) / C + eps)
// Shapes      x, y, residual, residual_out [N, C], C contiguous, any row stride each; weight, bias [C]; mean, rstd [N].
//             NULL: all but x and y. y may be x, residual_out may be x or residual: a thread writes only elements it has
//             read, and none before the sums are known
// Types       f32, bf16, f16; weight and bias each in x's dtype or f32; all arithmetic in f32. h is rounded to x's dtype,
//             rmsnorm's h rstd once more before the weight, y at the end
// Mapping     C <= 1024: a warp owns a row, or 2, 4 .. 32 rows where C <= 128 leaves lanes idle; a lane keeps 8 or 32
//             values. Beyond: a block of up to 512 threads owns a row; a thread keeps 16 values, so that C = 4096 is 256
//             threads with 2 (bf16) or 4 (f32) loads in flight each, or 32 where C > 8192. Thread t of a row's m owns the
//             16-byte vectors t, t + m, t + 2m, ... At most 65535 blocks, which step through the rows
// Memory      per element one read of x (and residual) and one write of y (and residual_out). The passes run over
//             registers; columns beyond 16384 are read once per pass. weight and bias come from L1 and L2. Shared: 128 B
// Numerics    two passes, mean first. A thread sums its own values in ascending order, then the butterfly of reduce.h:
//             the order depends on C alone, not on alignment, N or the row's place. A NaN makes the row NaN; so does an
//             Inf in layernorm, in rmsnorm it makes rstd 0. N = 0 launches nothing
// Limits      16-byte accesses where every row of x, y, residual and residual_out starts at a multiple of 16 bytes (weight,
//             bias: each by itself), else element by element; C and N up to 2^63; sm_80 and later; nothing is UNSUPPORTED
// Source      Ba, Kiros & Hinton 2016 (arXiv 1607.06450); Zhang & Sennrich 2019 (arXiv 1910.07467). On an H200 2.3 to
//             3.4 TB/s of 4.2 (bench/results/h200): bound by memory, 2 (with residual 4) elements moved per element
#include "lib/cuda.h"

#include "check.h"
#include "gatun/norm.h"
#include "lib/reduce.h"
#include "lib/row_share.h"
#include "lib/vec.h"

namespace gt {

decltype(gt_layernorm) layernorm_cuda;
decltype(gt_rmsnorm) rmsnorm_cuda;

namespace {

constexpr int WARPS_THREADS = 128;      // of a block whose warps own rows: small, so that few rows still reach many SMs
constexpr int BLOCK_THREADS = 512;      // at most, of a block that owns a row: 128 registers each
constexpr int FEW = 8, MANY = 32;       // values a lane keeps where a warp owns a row: C <= 256, C <= 1024
constexpr int SOME = 16;                // values a thread keeps where a block owns a row: C <= 8192; MANY beyond
constexpr int64_t MAX_BLOCKS = 65535;   // enough to fill any device many times

enum class Norm { LAYER, RMS };

template <class T> struct Operands {
  T *y, *residual_out;
  const T *x, *residual;
  int64_t stride_y, stride_residual_out, stride_x, stride_residual;
  Parameter weight, bias;
  float *mean, *rstd;
  int64_t num_rows, c;
  float eps;
  bool is_aligned;  // every row of x, y, residual and residual_out
};

// h[k][j] = round(x + residual) at first + k * step + j; arbitrary from end on.
template <class T, int CHUNKS, class Index>
__device__ __forceinline__ void load_h(const T *x, const T *residual, Index first, int step, Index end, bool aligned,
                                       float (&h)[CHUNKS][VEC<T>]) {
  Vector<T> packed[CHUNKS], packed_residual[CHUNKS] = {};
  load_packed<1>(x, first, step, end, aligned, packed);
  if (residual) load_packed<1>(residual, first, step, end, aligned, packed_residual);
#pragma unroll
  for (int k = 0; k < CHUNKS; ++k)
#pragma unroll
    for (int j = 0; j < VEC<T>; ++j) {
      h[k][j] = to_float(packed[k].element[j]);
      // not without a residual: -0 + 0 is +0
      if (residual) h[k][j] = to_float(from_float<T>(h[k][j] + to_float(packed_residual[k].element[j])));
    }
}

// One row by `members` threads, of which this is number `member`. A row beyond the last is read and written nowhere, but
// takes part in the sums. group_sum(v): the sum over the members. REREADS: there may be more columns than registers.
template <class T, Norm NORM, int VALUES, bool REREADS, class GroupSum>
__device__ __forceinline__ void norm_row(const Operands<T> &o, int64_t row, int member, int members, GroupSum group_sum) {
  constexpr int CHUNKS = VALUES / VEC<T>;
  const bool exists = row < o.num_rows;
  const int64_t n = exists ? row : 0;
  const T *const x = o.x + n * o.stride_x, *const residual = o.residual ? o.residual + n * o.stride_residual : nullptr;
  const int first = member * VEC<T>, step = members * VEC<T>;
  const int end = exists ? static_cast<int>(min(o.c, static_cast<int64_t>(step) * CHUNKS)) : 0;

  float h[CHUNKS][VEC<T>];
  load_h(x, residual, first, step, end, o.is_aligned, h);

  // Calls f(column, values) for each vector that is not in h.
  const auto reread = [&](auto f) {
    if constexpr (REREADS) {
#pragma unroll 1
      for (int64_t i = end + int64_t{first}; i < o.c; i += step) {
        float again[1][VEC<T>];
        load_h(x, residual, i, step, o.c, o.is_aligned, again);
        f(i, again);
      }
    }
  };
  // sum(f(h)) over the columns that exist.
  const auto sum = [&](auto f) {
    float total = 0.0f;
#pragma unroll
    for (int k = 0; k < CHUNKS; ++k)
#pragma unroll
      for (int j = 0; j < VEC<T>; ++j) total += first + k * step + j < end ? f(h[k][j]) : 0.0f;
    reread([&](int64_t i, const float (&again)[1][VEC<T>]) {
#pragma unroll
      for (int j = 0; j < VEC<T>; ++j) total += i + j < o.c ? f(again[0][j]) : 0.0f;
    });
    return group_sum(total);
  };

  const float c = static_cast<float>(o.c);
  float mean = 0.0f;
  if constexpr (NORM == Norm::LAYER) mean = sum([](float v) { return v; }) / c;
  const float squares = sum([mean](float v) { return (v - mean) * (v - mean); });
  const float rstd = 1.0f / sqrtf(squares / c + o.eps);

  T *const y = o.y + n * o.stride_y;
  T *const residual_out = o.residual_out ? o.residual_out + n * o.stride_residual_out : nullptr;
  // All loads of the parameters before the first store: the compiler must take y for a possible weight.
  const auto finish = [&](auto i, auto stop, auto &v) {
    constexpr int COUNT = sizeof v / sizeof v[0];
    if (residual_out)
#pragma unroll
      for (int k = 0; k < COUNT; ++k) store_upto(residual_out + i + k * step, stop - i - k * step, o.is_aligned, v[k]);
#pragma unroll
    for (int k = 0; k < COUNT; ++k)
#pragma unroll
      for (int j = 0; j < VEC<T>; ++j) {
        v[k][j] = (v[k][j] - mean) * rstd;
        if constexpr (NORM == Norm::RMS) v[k][j] = to_float(from_float<T>(v[k][j]));
      }
    apply_parameter<T>(o.weight, i, step, stop, v, [](float a, float weight) { return a * weight; });
    if constexpr (NORM == Norm::LAYER)
      apply_parameter<T>(o.bias, i, step, stop, v, [](float a, float bias) { return a + bias; });
#pragma unroll
    for (int k = 0; k < COUNT; ++k) store_upto(y + i + k * step, stop - i - k * step, o.is_aligned, v[k]);
  };
  finish(first, end, h);
  reread([&](int64_t i, float (&again)[1][VEC<T>]) { finish(i, o.c, again); });

  if (exists && member == 0) {
    if (o.mean) o.mean[n] = mean;
    if (o.rstd) o.rstd[n] = rstd;
  }
}

// A row per `lanes` lanes, a power of two.
template <class T, Norm NORM, int VALUES>
__global__ void __launch_bounds__(WARPS_THREADS) norm_row_per_warp(const Operands<T> o, int lanes) {
  const int rows_per_block = WARPS_THREADS / lanes;
  const int64_t step = static_cast<int64_t>(gridDim.x) * rows_per_block;
  const auto lanes_sum = [lanes](float v) {
    for (int distance = lanes / 2; distance > 0; distance /= 2) v += __shfl_xor_sync(ALL_LANES, v, distance);
    return v;
  };
  // every lane of a warp makes every round: the sums need them
  for (int64_t row = static_cast<int64_t>(blockIdx.x) * rows_per_block; row < o.num_rows; row += step)
    norm_row<T, NORM, VALUES, false>(o, row + threadIdx.x / lanes, threadIdx.x % lanes, lanes, lanes_sum);
}

template <class T, Norm NORM, int VALUES>
__global__ void __launch_bounds__(BLOCK_THREADS) norm_row_per_block(const Operands<T> o) {
  __shared__ float scratch[MAX_WARPS];
  for (int64_t row = blockIdx.x; row < o.num_rows; row += gridDim.x)
    norm_row<T, NORM, VALUES, VALUES == MANY>(o, row, threadIdx.x, blockDim.x,
                                              [](float v) { return block_sum(v, scratch); });
}

int64_t ceil_divide(int64_t a, int64_t b) { return (a + b - 1) / b; }

template <class T, Norm NORM> int launch_norm(void *stream, const Operands<T> &o) {
  const auto blocks = [&](int64_t rows_per_block) {
    return dim3(static_cast<unsigned>(min(ceil_divide(o.num_rows, rows_per_block), MAX_BLOCKS)));
  };
  const auto row_per_warp = [&](auto kernel, int lanes) {
    return launch(kernel, blocks(WARPS_THREADS / lanes), WARPS_THREADS, 0, stream, o, lanes);
  };
  const auto row_per_block = [&](auto kernel, int threads) { return launch(kernel, blocks(1), threads, 0, stream, o); };
  if (o.c <= WARP * FEW) {
    int lanes = 1;
    while (lanes * FEW < o.c) lanes *= 2;
    return row_per_warp(norm_row_per_warp<T, NORM, FEW>, lanes);
  }
  if (o.c <= WARP * MANY) return row_per_warp(norm_row_per_warp<T, NORM, MANY>, WARP);
  if (o.c <= BLOCK_THREADS * SOME) {
    const int warps = static_cast<int>(ceil_divide(o.c, WARP * SOME));
    return row_per_block(norm_row_per_block<T, NORM, SOME>, warps * WARP);
  }
  return row_per_block(norm_row_per_block<T, NORM, MANY>, BLOCK_THREADS);
}

struct Tensors {
  const gt_tensor *y, *residual_out, *mean, *rstd, *x, *residual, *weight, *bias;
};

template <class T> T *data_of(const gt_tensor *t) { return t ? static_cast<T *>(t->data) : nullptr; }

template <class T> Operands<T> operands_of(const Tensors &t, float eps) {
  const auto stride = [](const gt_tensor *rows) { return rows ? rows_of(*rows).stride : 0; };
  const auto aligned = [&](const gt_tensor *rows) { return rows_are_aligned(data_of<const T>(rows), stride(rows)); };
  return {data_of<T>(t.y), data_of<T>(t.residual_out), data_of<T>(t.x), data_of<T>(t.residual),
          stride(t.y), stride(t.residual_out), stride(t.x), stride(t.residual),
          parameter_of(t.weight), parameter_of(t.bias), data_of<float>(t.mean), data_of<float>(t.rstd),
          rows_of(*t.x).n, rows_of(*t.x).c, eps,
          aligned(t.x) && aligned(t.y) && aligned(t.residual) && aligned(t.residual_out)};
}

template <Norm NORM> gt_status run_norm(const char *op, const gt_stream *stream, const Tensors &t, float eps) {
  if (rows_of(*t.x).n == 0) return GT_OK;
  int status;
  switch (t.x->dtype) {
    case GT_F32: status = launch_norm<float, NORM>(stream->handle, operands_of<float>(t, eps)); break;
    case GT_BF16: status = launch_norm<bf16, NORM>(stream->handle, operands_of<bf16>(t, eps)); break;
    default: status = launch_norm<f16, NORM>(stream->handle, operands_of<f16>(t, eps));
  }
  return status ? fail(GT_DEVICE_ERROR, "%s: %s", op, launch_error(status)) : GT_OK;
}

}  // namespace

gt_status layernorm_cuda(const gt_stream *stream, const gt_tensor *y, const gt_tensor *residual_out,
                         const gt_tensor *mean, const gt_tensor *rstd, const gt_tensor *x, const gt_tensor *residual,
                         const gt_tensor *weight, const gt_tensor *bias, float eps) {
  return run_norm<Norm::LAYER>("layernorm", stream, {y, residual_out, mean, rstd, x, residual, weight, bias}, eps);
}

gt_status rmsnorm_cuda(const gt_stream *stream, const gt_tensor *y, const gt_tensor *residual_out, const gt_tensor *rstd,
                       const gt_tensor *x, const gt_tensor *residual, const gt_tensor *weight, float eps) {
  return run_norm<Norm::RMS>("rmsnorm", stream, {y, residual_out, nullptr, rstd, x, residual, weight, nullptr}, eps);
}

}  // namespace gt
