// Layer and RMS normalisation on CUDA.
//
// Computes    h = round(x + residual), or x; layernorm: y = (h - mean) rstd weight + bias, mean = sum(h) / C, rstd =
//             1 / sqrt(sum((h - mean)^2) / C + eps); rmsnorm: y = round(h rstd) weight, rstd = 1 / sqrt(sum(h^2) / C
//             + eps)
// Shapes      x, y, residual, residual_out [N, C], C contiguous, any row stride each; weight, bias [C]; mean, rstd
//             [N]. NULL: all but x and y. y may be x, residual_out may be x or residual: a thread writes only
//             elements that nobody reads again
// Types       f32, bf16, f16; weight and bias each in x's dtype or f32; all arithmetic in f32. h is rounded to x's
//             dtype, rmsnorm's h rstd once more before the weight, y at the end
// Mapping     C <= 1024: a warp owns a row, or 2, 4 .. 32 rows where C <= 128 leaves lanes idle; a lane keeps 8 or 32
//             values. Beyond: a block owns a row, 32 values a thread, at most 512 threads. Thread t of a row's m owns
//             the 16-byte vectors t, t + m, t + 2m, ... Where C <= 8192 is whole vectors, all is aligned, and 4 rows
//             fit into shared memory (of sm_90, f32 with residual: C <= 7168): as many blocks as run at once step
//             through the rows, and a thread copies its part of the next 3 rows to shared memory while it works on
//             one, weight and bias in registers; else at most 65535 blocks
// Memory      per element one read of x (and residual) and one write of y (and residual_out). The passes run over
//             registers; columns beyond 16384 are read once per pass. weight and bias once per block, or from L1 and
//             L2. Shared: 4 rows of x (and residual), of an SM at C = 4096 in bf16 4 blocks' 128 KB, 96 of them on
//             their way
// Numerics    two passes, mean first. A thread sums its own values in ascending order, then the butterfly of
//             reduce.h: the order depends on C alone, not on alignment, N or the row's place. A NaN makes the row
//             NaN; so does an Inf in layernorm, in rmsnorm it makes rstd 0. N = 0 launches nothing
// Limits      16-byte accesses where every row of x, y, residual and residual_out starts at a multiple of 16 bytes
//             (weight, bias: each by itself), else element by element; C and N up to 2^63; sm_80 and later; nothing
//             is UNSUPPORTED
// Source      Ba, Kiros & Hinton 2016 (arXiv 1607.06450); Zhang & Sennrich 2019 (arXiv 1910.07467). Bound by memory,
//             and nearly by instructions: bench/results/h200.md
#include "lib/cuda.h"

#include "check.h"
#include "gatun/norm.h"
#include "lib/entry.h"
#include "lib/hopper.h"
#include "lib/norm_row.h"
#include "lib/reduce.h"
#include "lib/row_share.h"
#include "lib/rows_ahead.h"
#include "lib/vec.h"

namespace gt {

decltype(gt_layernorm) layernorm_cuda;
decltype(gt_rmsnorm) rmsnorm_cuda;

namespace {

constexpr int WARPS_THREADS = 128;      // of a block whose warps own rows: small, so that few rows still reach many SMs
constexpr int BLOCK_THREADS = NORM_THREADS;  // at most, of a block that owns a row: 128 registers each
constexpr int FEW = NORM_FEW, MANY = NORM_MANY;
constexpr int64_t MAX_BLOCKS = 65535;   // enough to fill any device many times
constexpr int RING_THREADS = 256;       // at most, of a block that copies rows ahead: C <= 8192
// Of them on an SM at least, and their threads in all: 128 registers, or 168 where there is more to hold.
template <class T, bool RESIDUAL> constexpr int RING_BLOCKS = sizeof(T) == 2 && !RESIDUAL ? 2 : 1;
template <class T, bool RESIDUAL> constexpr int SM_THREADS = RING_BLOCKS<T, RESIDUAL> == 2 ? 512 : 384;
constexpr int64_t SM_BYTES = 224 << 10; // of an sm_90; where there are fewer, some blocks of the grid come later

// A row per `lanes` lanes, a power of two.
template <class T, Norm NORM, int VALUES, Access ACCESS>
__global__ void __launch_bounds__(WARPS_THREADS) norm_row_per_warp(const NormOperands<T> o, int lanes) {
  const int rows_per_block = WARPS_THREADS / lanes;
  const int64_t step = static_cast<int64_t>(gridDim.x) * rows_per_block;
  const auto lanes_sum = [lanes](float v) {
    for (int distance = lanes / 2; distance > 0; distance /= 2) v += __shfl_xor_sync(ALL_LANES, v, distance);
    return v;
  };
  // every lane of a warp makes every round: the sums need them
  for (int64_t row = static_cast<int64_t>(blockIdx.x) * rows_per_block; row < o.num_rows; row += step)
    norm_row<T, NORM, VALUES, ACCESS, false>(o, row + threadIdx.x / lanes, threadIdx.x % lanes, lanes,
                                             FromMemory<T, ACCESS>{o.is_aligned},
                                             Affine<T, NORM, ACCESS>{o.weight, o.bias}, lanes_sum);
}

template <class T, Norm NORM>
__global__ void __launch_bounds__(BLOCK_THREADS) norm_row_per_block(const NormOperands<T> o) {
  __shared__ float scratch[MAX_WARPS];
  for (int64_t row = blockIdx.x; row < o.num_rows; row += gridDim.x)
    norm_row<T, NORM, MANY, Access::ANY, true>(o, row, threadIdx.x, blockDim.x,
                                               FromMemory<T, Access::ANY>{o.is_aligned},
                                               Affine<T, NORM, Access::ANY>{o.weight, o.bias},
                                               [](float v) { return block_sum(v, scratch); });
}

// Rows that a block works on one after the other, while the next ones are on their way.
template <class T, Norm NORM, bool RESIDUAL>
__global__ void __launch_bounds__(RING_THREADS, RING_BLOCKS<T, RESIDUAL>) norm_rows_ahead(const NormOperands<T> o) {
  constexpr int CHUNKS = MANY / VEC<T>, INPUTS = RESIDUAL ? 2 : 1;
  __shared__ float scratch[2][MAX_WARPS];
  GT_DYNAMIC_SMEM(Vector<T>, shared);
  const int threads = blockDim.x, first = threadIdx.x * VEC<T>, step = threads * VEC<T>, end = static_cast<int>(o.c);
  RowInput<T> inputs[INPUTS];
  inputs[0] = {o.x, o.stride_x};
  if (RESIDUAL) inputs[INPUTS - 1] = {o.residual, o.stride_residual};
  RowsAhead<T, CHUNKS, INPUTS> rows(shared, inputs, o.num_rows, end);
  float weight[CHUNKS][VEC<T>], bias[CHUNKS][VEC<T>];
#pragma unroll
  for (int k = 0; k < CHUNKS; ++k)
#pragma unroll
    for (int j = 0; j < VEC<T>; ++j) {
      weight[k][j] = 1.0f;
      bias[k][j] = -0.0f;  // which changes no number, as +0 would change -0
    }
  const auto parameter = [](float, float p) { return p; };
  apply_parameter<T, Access::WHOLE>(o.weight, first, step, end, weight, parameter);
  apply_parameter<T, Access::WHOLE>(o.bias, first, step, end, bias, parameter);
  int turn = 0;
  rows.run([&](int64_t row, const auto &part) {
    norm_row<T, NORM, MANY, Access::WHOLE, false>(
        o, row, threadIdx.x, threads,
        [&](const T *, const T *, int, int, int, float(&h)[CHUNKS][VEC<T>]) {
          Vector<T> x[CHUNKS], residual[CHUNKS] = {};
#pragma unroll
          for (int k = 0; k < CHUNKS; ++k) {
            x[k] = part.vector(0, k);
            if (RESIDUAL) residual[k] = part.vector(INPUTS - 1, k);
          }
          add_residual<T>(x, residual, RESIDUAL, h);
        },
        [&](auto, int, auto, auto &v) {
          constexpr int COUNT = sizeof v / sizeof v[0];
#pragma unroll
          for (int k = 0; k < COUNT; ++k)
#pragma unroll
            for (int j = 0; j < VEC<T>; ++j) {
              v[k][j] = __fmul_rn(v[k][j], weight[k][j]);
              if (NORM == Norm::LAYER) v[k][j] += bias[k][j];
            }
        },
        [&](float v) {
          turn ^= 1;
          return block_reduce_alternating<Sum>(v, scratch[turn]);
        });
  });
}

template <class T> bool is_whole_vectors(const NormOperands<T> &o) {
  const auto whole = [](const Parameter &p) { return !p.data || p.is_aligned; };
  return o.is_aligned && o.c % VEC<T> == 0 && whole(o.weight) && whole(o.bias);
}

template <class T, Norm NORM> int launch_norm(void *stream, const NormOperands<T> &o) {
  const auto blocks = [&](int64_t rows_per_block) {
    return dim3(static_cast<unsigned>(min(ceil_divide(o.num_rows, rows_per_block), MAX_BLOCKS)));
  };
  const auto row_per_warp = [&](auto kernel, int lanes) {
    return launch(kernel, blocks(WARPS_THREADS / lanes), WARPS_THREADS, 0, stream, o, lanes);
  };
  const int threads = norm_members(o.c);
  if (o.c <= WARP * FEW) return row_per_warp(norm_row_per_warp<T, NORM, FEW, Access::ANY>, threads);
  const bool is_whole = is_whole_vectors(o);
  if (o.c <= WARP * MANY && is_whole) return row_per_warp(norm_row_per_warp<T, NORM, MANY, Access::WHOLE>, WARP);
  if (o.c <= WARP * MANY) return row_per_warp(norm_row_per_warp<T, NORM, MANY, Access::ANY>, WARP);
  const int64_t bytes = rows_ahead_bytes<T>(threads, MANY / VEC<T>, o.residual ? 2 : 1);
  if (!is_whole || threads > RING_THREADS || bytes > max_dynamic_shared_bytes())
    return launch(norm_row_per_block<T, NORM>, blocks(1), threads, 0, stream, o);
  const int sm_threads = o.residual ? SM_THREADS<T, true> : SM_THREADS<T, false>;
  const int64_t resident = max(int64_t{1}, min(int64_t{sm_threads / threads}, SM_BYTES / bytes));
  const dim3 grid(static_cast<unsigned>(min(o.num_rows, resident * num_multiprocessors())));
  const auto rows_ahead = o.residual ? norm_rows_ahead<T, NORM, true> : norm_rows_ahead<T, NORM, false>;
  return launch(rows_ahead, grid, threads, bytes, stream, o);
}

struct Tensors {
  const gt_tensor *y, *residual_out, *mean, *rstd, *x, *residual, *weight, *bias;
};

template <class T> NormOperands<T> operands_of(const Tensors &t, float eps) {
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
  return status_of(op, status);
}

}  // namespace

gt_status layernorm_cuda(const gt_stream *stream, const gt_tensor *y, const gt_tensor *residual_out,
                         const gt_tensor *mean, const gt_tensor *rstd, const gt_tensor *x, const gt_tensor *residual,
                         const gt_tensor *weight, const gt_tensor *bias, float eps) {
  return run_norm<Norm::LAYER>("layernorm", stream, {y, residual_out, mean, rstd, x, residual, weight, bias}, eps);
}

gt_status rmsnorm_cuda(const gt_stream *stream, const gt_tensor *y, const gt_tensor *residual_out,
                       const gt_tensor *rstd, const gt_tensor *x, const gt_tensor *residual, const gt_tensor *weight,
                       float eps) {
  return run_norm<Norm::RMS>("rmsnorm", stream, {y, residual_out, nullptr, rstd, x, residual, weight, nullptr}, eps);
}

}  // namespace gt
