// Gradients of layer and RMS normalisation on CUDA.
//
// Computes    h = (x - mean) rstd (RMS norm: mean 0), g = dy weight; dx = residual + rstd (g - sum(g) / C - h sum(g
//             h) / C), without sum(g) in RMS norm; dweight = sum over rows of dy h, dbias = that of dy
// Shapes      x, dy, dx, residual [N, C], C contiguous, any row stride each; weight, dweight, dbias [C]; mean, rstd
//             [N]. NULL: dweight, dbias, weight, residual. dx may be dy or residual: a thread writes only
//             elements of dx whose inputs it has read, and sums of columns read none later
// Types       f32, bf16, f16; weight in x's dtype or f32; all arithmetic in f32, dx rounded once; dweight, dbias f32
// Mapping     1024 < C <= 8192: at most 264 blocks step through the rows. A thread keeps 16 columns of each row,
//             which it reads once: it makes their dx and adds to the columns' sums in its registers; where all rows
//             are whole aligned vectors, its part of the next 3 rows is on its way to shared memory meanwhile.
//             Otherwise two kernels. dx: C <= 1024: a warp owns a row, or 2, 4 .. 32 rows where C <= 128; beyond
//             8192, a block of 512 threads. Columns: a block owns a chunk of rows of up to 32 vectors of columns, a
//             thread one vector of every (256 / vectors)-th row. Last, a block of 8 warps adds the chunks' sums of 32
//             columns
// Memory      per element one read of x and dy and one write of dx; in two kernels another read of x and dy, columns
//             beyond 8192 are read once more. Workspace: 8 C bytes for each of at most 264 (128) chunks. Shared: 4
//             rows of x, dy and residual, at C = 4096 in bf16 64 KB of a block without residual; 8 (f32) or 16 KB for
//             columns
// Numerics    sums in f32: a thread's own values in ascending order, then a butterfly, or the threads of a block in
//             their order, then every 8th chunk, then these. The order depends on N and C alone: the number of blocks
//             is no device's. A NaN in a row makes its dx NaN
// Limits      16-byte accesses where every row of x, dy, dx and residual starts at a multiple of 16 bytes, else
//             element by element; sm_80 and later; nothing is UNSUPPORTED
// Source      the derivative of Ba, Kiros & Hinton 2016 (arXiv 1607.06450) and Zhang & Sennrich 2019 (arXiv
//             1910.07467). Bound by memory; bench/results/h200.md
#include "lib/cuda.h"

#include "check.h"
#include "gatun/norm_backward.h"
#include "lib/entry.h"
#include "lib/hopper.h"
#include "lib/reduce.h"
#include "lib/row_share.h"
#include "lib/rows_ahead.h"
#include "lib/vec.h"

namespace gt {

decltype(gt_layernorm_backward) layernorm_backward_cuda;
decltype(gt_layernorm_backward_workspace) layernorm_backward_workspace_cuda;
decltype(gt_rmsnorm_backward) rmsnorm_backward_cuda;
decltype(gt_rmsnorm_backward_workspace) rmsnorm_backward_workspace_cuda;

namespace {

constexpr int WARPS_THREADS = 128;     // of a block whose warps own rows
constexpr int BLOCK_THREADS = 512;     // at most, of a block that owns a row: 128 registers each
constexpr int FEW = 8, MANY = 32;      // of g and of h each, that a lane keeps where a warp owns a row
constexpr int SOME = 16;               // that a thread keeps where a block owns a row: C <= 8192
constexpr int64_t MAX_BLOCKS = 65535;

constexpr int SUM_THREADS = 256;
constexpr int AT_ONCE = 4;             // rows that a thread of the column sums loads together
constexpr int SUM_BLOCKS = 2;          // of an SM at least: for more, ptxas would move loads to their uses
constexpr int64_t MAX_CHUNKS = 128;    // of rows: with a few strips of columns enough to fill any device
constexpr int64_t MAX_ROW_CHUNKS = 264;  // where the rows are read once: 2 blocks for each of 132 SMs
constexpr int FINISH_WARPS = 8;

enum class Norm { LAYER, RMS };

template <class T> struct Operands {
  T *dx;
  const T *dy, *x, *residual;
  int64_t stride_dx, stride_dy, stride_x, stride_residual;
  Parameter weight;
  const float *mean, *rstd;
  int64_t num_rows, c;
  bool is_aligned;  // every row of dx, dy, x and residual
};

// One row by `members` threads, of which this is number `member`. A row beyond the last is read and written nowhere,
// but takes part in the sums. group_sum(v): the sum over the members. REREADS: there may be more columns than
// registers. Products are rounded before they are added, so that a row has the same bits with any ACCESS.
template <class T, Norm NORM, int VALUES, Access ACCESS, bool REREADS, class GroupSum>
__device__ __forceinline__ void backward_row(const Operands<T> &o, int64_t row, int member, int members,
                                             GroupSum group_sum) {
  constexpr int CHUNKS = VALUES / VEC<T>;
  const bool exists = row < o.num_rows;
  const int64_t n = exists ? row : 0;
  const T *const x = o.x + n * o.stride_x, *const dy = o.dy + n * o.stride_dy;
  const int first = member * VEC<T>, step = members * VEC<T>;
  const int end = exists ? static_cast<int>(min(o.c, static_cast<int64_t>(step) * CHUNKS)) : 0;
  const float mean = NORM == Norm::LAYER ? o.mean[n] : 0.0f, rstd = o.rstd[n];

  // h and g of the vectors i, i + step, ...; arbitrary from `stop` on.
  const auto load = [&](auto i, auto stop, auto &h, auto &g) {
    constexpr int COUNT = sizeof h / sizeof h[0];
    Vector<T> packed_x[COUNT], packed_dy[COUNT];
    load_packed<1, ACCESS>(x, i, step, stop, o.is_aligned, packed_x);
    load_packed<1, ACCESS>(dy, i, step, stop, o.is_aligned, packed_dy);
#pragma unroll
    for (int k = 0; k < COUNT; ++k)
#pragma unroll
      for (int j = 0; j < VEC<T>; ++j) {
        h[k][j] = (to_float(packed_x[k].element[j]) - mean) * rstd;
        g[k][j] = to_float(packed_dy[k].element[j]);
      }
    apply_parameter<T, ACCESS>(o.weight, i, step, stop, g, [](float a, float w) { return __fmul_rn(a, w); });
  };
  // Calls f(column, h, g) for each vector beyond the registers.
  const auto reread = [&](auto f) {
    if constexpr (REREADS) {
#pragma unroll 1
      for (int64_t i = end + int64_t{first}; i < o.c; i += step) {
        float h[1][VEC<T>], g[1][VEC<T>];
        load(i, o.c, h, g);
        f(i, h, g);
      }
    }
  };

  float h[CHUNKS][VEC<T>], g[CHUNKS][VEC<T>];
  load(first, end, h, g);
  float sum = 0.0f, product = 0.0f;
#pragma unroll
  for (int k = 0; k < CHUNKS; ++k) {
    if (ACCESS == Access::WHOLE && first + k * step >= end) continue;
#pragma unroll
    for (int j = 0; j < VEC<T>; ++j) {
      const bool is_column = ACCESS == Access::WHOLE || first + k * step + j < end;
      sum += is_column ? g[k][j] : 0.0f;
      product += is_column ? __fmul_rn(g[k][j], h[k][j]) : 0.0f;
    }
  }
  reread([&](int64_t i, const float (&h1)[1][VEC<T>], const float (&g1)[1][VEC<T>]) {
#pragma unroll
    for (int j = 0; j < VEC<T>; ++j) {
      sum += i + j < o.c ? g1[0][j] : 0.0f;
      product += i + j < o.c ? g1[0][j] * h1[0][j] : 0.0f;
    }
  });
  const float c = static_cast<float>(o.c);
  const float mean_g = NORM == Norm::LAYER ? group_sum(sum) / c : 0.0f, mean_gh = group_sum(product) / c;

  T *const dx = o.dx + n * o.stride_dx;
  const T *const residual = o.residual ? o.residual + n * o.stride_residual : nullptr;
  const auto finish = [&](auto i, auto stop, auto &values, const auto &weighted) {
    constexpr int COUNT = sizeof values / sizeof values[0];
    Vector<T> packed[COUNT] = {};
    if (residual) load_packed<1, ACCESS>(residual, i, step, stop, o.is_aligned, packed);
#pragma unroll
    for (int k = 0; k < COUNT; ++k) {
#pragma unroll
      for (int j = 0; j < VEC<T>; ++j) {
        values[k][j] = __fmul_rn(weighted[k][j] - mean_g - values[k][j] * mean_gh, rstd);
        if (residual) values[k][j] += to_float(packed[k].element[j]);
      }
      if (ACCESS == Access::ANY) store_upto(dx + i + k * step, stop - i - k * step, o.is_aligned, values[k]);
      else if (i + k * step < stop) store_vec(dx + i + k * step, values[k]);
    }
  };
  finish(first, end, h, g);
  reread([&](int64_t i, float (&h1)[1][VEC<T>], const float (&g1)[1][VEC<T>]) { finish(i, o.c, h1, g1); });
}

// A thread's part of a row where no copy ran ahead.
template <class T, int INPUTS> struct PartInMemory {
  const T *rows[INPUTS];
  int first, step, end;
  bool is_aligned;

  __device__ __forceinline__ Vector<T> vector(int input, int k) const {
    Vector<T> v[1];
    load_packed<1>(rows[input], first + k * step, step, end, is_aligned, v);
    return v[0];
  }
};

// A row per `lanes` lanes, a power of two.
template <class T, Norm NORM, int VALUES, Access ACCESS>
__global__ void __launch_bounds__(WARPS_THREADS) backward_row_per_warp(const Operands<T> o, int lanes) {
  const int rows_per_block = WARPS_THREADS / lanes;
  const int64_t step = static_cast<int64_t>(gridDim.x) * rows_per_block;
  const auto lanes_sum = [lanes](float v) {
    for (int distance = lanes / 2; distance > 0; distance /= 2) v += __shfl_xor_sync(ALL_LANES, v, distance);
    return v;
  };
  // every lane of a warp makes every round: the sums need them
  for (int64_t row = static_cast<int64_t>(blockIdx.x) * rows_per_block; row < o.num_rows; row += step)
    backward_row<T, NORM, VALUES, ACCESS, false>(o, row + threadIdx.x / lanes, threadIdx.x % lanes, lanes, lanes_sum);
}

template <class T, Norm NORM>
__global__ void __launch_bounds__(BLOCK_THREADS) backward_row_per_block(const Operands<T> o) {
  __shared__ float scratch[MAX_WARPS];
  for (int64_t row = blockIdx.x; row < o.num_rows; row += gridDim.x)
    backward_row<T, NORM, SOME, Access::ANY, true>(o, row, threadIdx.x, blockDim.x,
                                                   [](float v) { return block_sum(v, scratch); });
}

// Rows that a block works on one after the other, a thread on the same columns of each, of which it keeps the sums.
// WHOLE: the next rows are on their way meanwhile. sums [blocks, 2, C], or NULL.
template <class T, Norm NORM, Access ACCESS, bool RESIDUAL>
__global__ void __launch_bounds__(BLOCK_THREADS) backward_rows_with_sums(const Operands<T> o, float *sums) {
  constexpr int CHUNKS = SOME / VEC<T>, INPUTS = RESIDUAL ? 3 : 2;
  __shared__ float scratch[2][2][MAX_WARPS];
  GT_DYNAMIC_SMEM(Vector<T>, shared);
  const int first = threadIdx.x * VEC<T>, step = blockDim.x * VEC<T>, end = static_cast<int>(o.c);
  RowInput<T> inputs[INPUTS];
  inputs[0] = {o.x, o.stride_x};
  inputs[1] = {o.dy, o.stride_dy};
  if (RESIDUAL) inputs[INPUTS - 1] = {o.residual, o.stride_residual};
  const auto mean_of = [&](int64_t row) { return NORM == Norm::LAYER && row < o.num_rows ? o.mean[row] : 0.0f; };
  const auto rstd_of = [&](int64_t row) { return row < o.num_rows ? o.rstd[row] : 0.0f; };
  float weight[CHUNKS][VEC<T>], weight_sum[CHUNKS][VEC<T>] = {}, bias_sum[CHUNKS][VEC<T>] = {};
  float mean_ahead = mean_of(blockIdx.x), rstd_ahead = rstd_of(blockIdx.x);
  int turn = 0;

  const auto work = [&](int64_t row, const auto &part) {
    const float mean = mean_ahead, rstd = rstd_ahead, c = static_cast<float>(o.c);
    mean_ahead = mean_of(row + gridDim.x);
    rstd_ahead = rstd_of(row + gridDim.x);
    float h[CHUNKS][VEC<T>], g[CHUNKS][VEC<T>], total[2] = {};
#pragma unroll
    for (int k = 0; k < CHUNKS; ++k) {
      const Vector<T> x = part.vector(0, k), dy = part.vector(1, k);
#pragma unroll
      for (int j = 0; j < VEC<T>; ++j) {
        const float d = ACCESS == Access::WHOLE || first + k * step + j < end ? to_float(dy.element[j]) : 0.0f;
        h[k][j] = (to_float(x.element[j]) - mean) * rstd;
        g[k][j] = d * weight[k][j];
        weight_sum[k][j] = fmaf(d, h[k][j], weight_sum[k][j]);
        bias_sum[k][j] += d;
        total[0] = fmaf(g[k][j], h[k][j], total[0]);
        total[1] += g[k][j];
      }
    }
    turn ^= 1;
    block_reduce_alternating<Sum>(total, scratch[turn]);
    const float mean_gh = total[0] / c, mean_g = NORM == Norm::LAYER ? total[1] / c : 0.0f;
#pragma unroll
    for (int k = 0; k < CHUNKS; ++k)
#pragma unroll
      for (int j = 0; j < VEC<T>; ++j) h[k][j] = fmaf(-h[k][j], mean_gh, g[k][j] - mean_g) * rstd;
    if (RESIDUAL)
#pragma unroll
      for (int k = 0; k < CHUNKS; ++k) {
        const Vector<T> residual = part.vector(INPUTS - 1, k);
#pragma unroll
        for (int j = 0; j < VEC<T>; ++j) h[k][j] += to_float(residual.element[j]);
      }
    store_chunks<T, ACCESS>(o.dx + once(row * o.stride_dx), first, step, end, o.is_aligned, h);
  };
  const auto load_weight = [&] {
#pragma unroll
    for (int k = 0; k < CHUNKS; ++k)
#pragma unroll
      for (int j = 0; j < VEC<T>; ++j) weight[k][j] = 1.0f;
    apply_parameter<T, ACCESS>(o.weight, first, step, end, weight, [](float, float p) { return p; });
  };

  if constexpr (ACCESS == Access::WHOLE) {
    RowsAhead<T, CHUNKS, INPUTS> rows(shared, inputs, o.num_rows, end);
    load_weight();
    rows.run(work);
  } else {
    load_weight();
    for (int64_t row = blockIdx.x; row < o.num_rows; row += gridDim.x) {
      PartInMemory<T, INPUTS> part = {{}, first, step, end, o.is_aligned};
#pragma unroll
      for (int i = 0; i < INPUTS; ++i) part.rows[i] = inputs[i].data + row * inputs[i].stride;
      work(row, part);
    }
  }
  if (!sums) return;
  float *const to = sums + static_cast<int64_t>(blockIdx.x) * 2 * o.c;
  const bool aligned = rows_are_aligned<float>(sums, o.c);
#pragma unroll
  for (int k = 0; k < CHUNKS; ++k)
#pragma unroll
    for (int j = 0; j < VEC<T>; j += VEC<float>) {
      const int i = first + k * step + j;
      const auto store = [&](float *row, const float (&all)[VEC<T>]) {
        const float four[VEC<float>] = {all[j], all[j + 1], all[j + 2], all[j + 3]};
        store_upto(row + i, end - i, aligned, four);
      };
      store(to, weight_sum[k]);
      store(to + o.c, bias_sum[k]);
    }
}

// How the column sums are dealt out.
struct Deal {
  int64_t n, c;
  int columns;      // threads side by side along C, a power of two up to WARP
  int64_t chunk;    // rows of a block, whole rounds of its threads
  int64_t chunks;
  bool in_one_pass; // a chunk is every chunks-th row, and the block that makes their dx sums their columns
};

Deal deal_of(const gt_tensor &x) {
  const int64_t vec = VEC_BYTES / dtype_bytes(x.dtype);
  Deal d = {rows_of(x).n, rows_of(x).c, 1, 0, 0, false};
  if (d.c > WARP * MANY && d.c <= BLOCK_THREADS * SOME) {
    d.in_one_pass = true;
    d.chunks = min(d.n, MAX_ROW_CHUNKS);
    return d;
  }
  while (d.columns < WARP && d.columns * vec < d.c) d.columns *= 2;
  const int64_t round = static_cast<int64_t>(SUM_THREADS / d.columns) * AT_ONCE;
  d.chunk = round * ceil_divide(d.n, round * MAX_CHUNKS);
  d.chunks = d.n == 0 ? 0 : ceil_divide(d.n, d.chunk);
  return d;
}

// sums [chunks, 2, C]: of dy h, and of dy. Block (strip of columns, chunk).
template <class T, Norm NORM>
__global__ void __launch_bounds__(SUM_THREADS, SUM_BLOCKS) sum_columns(const Operands<T> o, const Deal d, float *sums) {
  __shared__ float of_weight[SUM_THREADS * VEC<T>], of_bias[SUM_THREADS * VEC<T>];
  const int column = threadIdx.x % d.columns, row = threadIdx.x / d.columns, rows = SUM_THREADS / d.columns;
  const int width = d.columns * VEC<T>;
  const int64_t strip = static_cast<int64_t>(blockIdx.x) * width, i = strip + column * VEC<T>, left = d.c - i;
  const int64_t begin = blockIdx.y * d.chunk, end = min(begin + d.chunk, d.n);
  float weight_sum[VEC<T>] = {}, bias_sum[VEC<T>] = {};
  const auto add = [&](int64_t n, auto whole, auto count) {
    constexpr bool WHOLE = decltype(whole)::value;
    constexpr int COUNT = decltype(count)::value;  // rows, without a branch: their loads are in flight together
    Vector<T> x[COUNT], dy[COUNT];
    float mean[COUNT], rstd[COUNT];
#pragma unroll
    for (int k = 0; k < COUNT; ++k) {
      const int64_t m = n + k * rows;
      x[k] = packed_at<WHOLE>(o.x + m * o.stride_x + i, left);
      dy[k] = packed_at<WHOLE>(o.dy + m * o.stride_dy + i, left);
      mean[k] = NORM == Norm::LAYER ? o.mean[m] : 0.0f;
      rstd[k] = o.rstd[m];
    }
#pragma unroll
    for (int k = 0; k < COUNT; ++k)
#pragma unroll
      for (int j = 0; j < VEC<T>; ++j) {
        const float g = to_float(dy[k].element[j]);
        weight_sum[j] += g * ((to_float(x[k].element[j]) - mean[k]) * rstd[k]);
        bias_sum[j] += g;
      }
  };
  constexpr std::integral_constant<int, 1> ONE = {};
  int64_t n = begin + row;
  if (o.is_aligned && left >= VEC<T>) {
    for (; n + (AT_ONCE - 1) * rows < end; n += AT_ONCE * rows)
      add(n, std::true_type(), std::integral_constant<int, AT_ONCE>());
#pragma unroll 1
    for (; n < end; n += rows) add(n, std::true_type(), ONE);
  } else if (left > 0) {
#pragma unroll 1
    for (; n < end; n += rows) add(n, std::false_type(), ONE);
  }
#pragma unroll
  for (int j = 0; j < VEC<T>; ++j) {
    of_weight[threadIdx.x * VEC<T> + j] = weight_sum[j];
    of_bias[threadIdx.x * VEC<T> + j] = bias_sum[j];
  }
  __syncthreads();
  const int mine = threadIdx.x;
  if (mine >= width || strip + mine >= d.c) return;
  float weight_total = 0.0f, bias_total = 0.0f;
  for (int r = 0; r < rows; ++r) {
    weight_total += of_weight[r * width + mine];
    bias_total += of_bias[r * width + mine];
  }
  float *const to = sums + blockIdx.y * 2 * d.c + strip + mine;
  to[0] = weight_total;
  to[d.c] = bias_total;
}

// Block (columns, 0 for dweight, 1 for dbias). A warp has every FINISH_WARPS-th chunk; then the warps' sums are added
// in their order.
__global__ void __launch_bounds__(FINISH_WARPS * WARP)
    add_chunks(float *dweight, float *dbias, const Deal d, const float *sums) {
  __shared__ float part[FINISH_WARPS][WARP];
  float *const out = blockIdx.y == 0 ? dweight : dbias;
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
  const int64_t c = static_cast<int64_t>(blockIdx.x) * WARP + lane;
  if (!out) return;
  float sum = 0.0f;
  if (c < d.c)
#pragma unroll 8
    for (int64_t k = warp; k < d.chunks; k += FINISH_WARPS) sum += sums[(k * 2 + blockIdx.y) * d.c + c];
  part[warp][lane] = sum;
  __syncthreads();
  if (warp > 0 || c >= d.c) return;
#pragma unroll
  for (int w = 1; w < FINISH_WARPS; ++w) sum += part[w][lane];
  out[c] = sum;
}

template <class T> bool is_whole_vectors(const Operands<T> &o) {
  return o.is_aligned && o.c % VEC<T> == 0 && (!o.weight.data || o.weight.is_aligned);
}

template <class T, Norm NORM> int launch_rows(void *stream, const Operands<T> &o) {
  const auto blocks = [&](int64_t rows_per_block) {
    return dim3(static_cast<unsigned>(min(ceil_divide(o.num_rows, rows_per_block), MAX_BLOCKS)));
  };
  const auto row_per_warp = [&](auto kernel, int lanes) {
    return launch(kernel, blocks(WARPS_THREADS / lanes), WARPS_THREADS, 0, stream, o, lanes);
  };
  if (o.c <= WARP * FEW) {
    int lanes = 1;
    while (lanes * FEW < o.c) lanes *= 2;
    return row_per_warp(backward_row_per_warp<T, NORM, FEW, Access::ANY>, lanes);
  }
  if (o.c <= WARP * MANY && is_whole_vectors(o))
    return row_per_warp(backward_row_per_warp<T, NORM, MANY, Access::WHOLE>, WARP);
  if (o.c <= WARP * MANY) return row_per_warp(backward_row_per_warp<T, NORM, MANY, Access::ANY>, WARP);
  return launch(backward_row_per_block<T, NORM>, blocks(1), BLOCK_THREADS, 0, stream, o);
}

template <class T, Norm NORM>
int launch_rows_with_sums(void *stream, const Operands<T> &o, const Deal &d, float *sums) {
  const int threads = static_cast<int>(ceil_divide(o.c, WARP * SOME)) * WARP;
  const int64_t bytes = rows_ahead_bytes<T>(threads, SOME / VEC<T>, o.residual ? 3 : 2);
  const bool is_whole = is_whole_vectors(o) && bytes <= max_dynamic_shared_bytes();
  const dim3 grid(static_cast<unsigned>(d.chunks));
  const auto run = [&](auto kernel, int64_t shared) { return launch(kernel, grid, threads, shared, stream, o, sums); };
  if (is_whole && o.residual) return run(backward_rows_with_sums<T, NORM, Access::WHOLE, true>, bytes);
  if (is_whole) return run(backward_rows_with_sums<T, NORM, Access::WHOLE, false>, bytes);
  if (o.residual) return run(backward_rows_with_sums<T, NORM, Access::ANY, true>, 0);
  return run(backward_rows_with_sums<T, NORM, Access::ANY, false>, 0);
}

struct Tensors {
  const gt_tensor *dx, *dweight, *dbias, *dy, *x, *mean, *rstd, *weight, *residual, *workspace;
};

template <class T, Norm NORM> int launch_backward(void *stream, const Tensors &t) {
  const auto stride = [](const gt_tensor *rows) { return rows ? rows_of(*rows).stride : 0; };
  const auto aligned = [&](const gt_tensor *rows) { return rows_are_aligned(data_of<const T>(rows), stride(rows)); };
  const Operands<T> o = {data_of<T>(t.dx), data_of<T>(t.dy), data_of<T>(t.x), data_of<T>(t.residual),
                         stride(t.dx), stride(t.dy), stride(t.x), stride(t.residual),
                         parameter_of(t.weight), data_of<float>(t.mean), data_of<float>(t.rstd),
                         rows_of(*t.x).n, rows_of(*t.x).c,
                         aligned(t.dx) && aligned(t.dy) && aligned(t.x) && aligned(t.residual)};
  const Deal d = deal_of(*t.x);
  const bool wants_sums = t.dweight || t.dbias;
  float *const sums = wants_sums ? data_of<float>(t.workspace) : nullptr;
  int error = 0;
  if (d.in_one_pass) {
    if (d.chunks > 0) error = launch_rows_with_sums<T, NORM>(stream, o, d, sums);
  } else if (o.num_rows > 0) {
    const dim3 grid(static_cast<unsigned>(ceil_divide(d.c, d.columns * VEC<T>)), static_cast<unsigned>(d.chunks));
    if (wants_sums) error = launch(sum_columns<T, NORM>, grid, SUM_THREADS, 0, stream, o, d, sums);
  }
  if (!error && wants_sums)
    error = launch(add_chunks, dim3(static_cast<unsigned>(ceil_divide(d.c, WARP)), 2), FINISH_WARPS * WARP, 0, stream,
                   data_of<float>(t.dweight), data_of<float>(t.dbias), d, sums);
  return error || d.in_one_pass || o.num_rows == 0 ? error : launch_rows<T, NORM>(stream, o);
}

template <Norm NORM> gt_status run(const char *op, const gt_stream *stream, const Tensors &t) {
  int error;
  switch (t.x->dtype) {
    case GT_F32: error = launch_backward<float, NORM>(stream->handle, t); break;
    case GT_BF16: error = launch_backward<bf16, NORM>(stream->handle, t); break;
    default: error = launch_backward<f16, NORM>(stream->handle, t);
  }
  return status_of(op, error);
}

gt_status workspace_bytes(const gt_tensor *x, int64_t *bytes) {
  const Deal d = deal_of(*x);
  *bytes = d.chunks * 2 * d.c * 4;
  return GT_OK;
}

}  // namespace

gt_status layernorm_backward_cuda(const gt_stream *stream, const gt_tensor *dx, const gt_tensor *dweight,
                                  const gt_tensor *dbias, const gt_tensor *dy, const gt_tensor *x,
                                  const gt_tensor *mean, const gt_tensor *rstd, const gt_tensor *weight,
                                  const gt_tensor *residual, const gt_tensor *workspace) {
  return run<Norm::LAYER>("layernorm_backward", stream,
                          {dx, dweight, dbias, dy, x, mean, rstd, weight, residual, workspace});
}

gt_status layernorm_backward_workspace_cuda(const gt_stream *, const gt_tensor *x, int64_t *bytes) {
  return workspace_bytes(x, bytes);
}

gt_status rmsnorm_backward_cuda(const gt_stream *stream, const gt_tensor *dx, const gt_tensor *dweight,
                                const gt_tensor *dy, const gt_tensor *x, const gt_tensor *rstd, const gt_tensor *weight,
                                const gt_tensor *residual, const gt_tensor *workspace) {
  return run<Norm::RMS>("rmsnorm_backward", stream,
                        {dx, dweight, nullptr, dy, x, nullptr, rstd, weight, residual, workspace});
}

gt_status rmsnorm_backward_workspace_cuda(const gt_stream *, const gt_tensor *x, int64_t *bytes) {
  return workspace_bytes(x, bytes);
}

}  // namespace gt
