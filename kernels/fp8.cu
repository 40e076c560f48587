// Rows quantised to e4m3, and products of e4m3 weights with few rows, on CUDA.
//
// Computes    scale[n] = max(max_c |x[n,c]|, 1e-30) / 448, y[n,c] = e4m3(x[n,c] / scale[n]);
//             y[n,f] = x_scale[n] weight_scale[f] sum_c x[n,c] w[f,c] + bias[f]
// Shapes      x [N, C], y [N, C] or [N, F], weight [F, C], any row stride; scales and bias contiguous
// Types       quantize_rows: x f32, bf16 or f16. linear_fp8: x bf16, f16 or e4m3 with x_scale; weight e4m3; y x's dtype
//             or f32, for e4m3 any of the three; sums in f32, rounded once at the end
// Mapping     quantize_rows: a warp owns a row up to C = 1024, beyond a block of up to 512 threads; a thread keeps 32
//             values, the 16-byte vectors t, t + m, t + 2 m .. of its row's m threads. linear_fp8: as linear.cu, with
//             the tile of lib/few_rows_fp8.h: a block of up to 8 warps owns up to 16 rows of x and 16 columns, 32
//             beyond 4 rows; a lane reads 16 weights at a time, and asks for 128 before it multiplies the first
// Memory      quantize_rows: x once and y once per element, columns beyond 16384 twice. linear_fp8: weight once per 16
//             rows of x, x once per tile of columns, mostly from L2, y once; 128 bytes of weights a lane in flight
// Numerics    codes are those of an IEEE division. A row with a NaN or an infinity gets scale NaN and zeros.
//             linear_fp8: conversions are exact; order of a sum as in linear.cu, by C alone. N = 0 launches nothing
// Limits      16-byte accesses where every row starts at a multiple of 16 bytes (y of quantize_rows: of 8, of 4 for
//             f32), in full vectors and stretches; else element by element; sm_80 and later (rounding to e4m3 is an
//             instruction from sm_89 on); nothing is UNSUPPORTED
// Source      division: Markstein 1990, doi 10.1147/rd.341.0111. Not measured yet: bench/results/h200.md has the floor
//             and what is expected
#include "lib/cuda.h"

#include "check.h"
#include "gatun/fp8.h"
#include "lib/entry.h"
#include "lib/few_rows_fp8.h"
#include "lib/reduce.h"
#include "lib/row_share.h"

namespace gt {

decltype(gt_quantize_rows) quantize_rows_cuda;
decltype(gt_linear_fp8) linear_fp8_cuda;

namespace {

constexpr int WARPS_THREADS = 128;      // of a block whose warps own rows
constexpr int BLOCK_THREADS = 512;      // at most, of a block that owns a row
constexpr int VALUES = 32;              // that a thread keeps
constexpr int64_t MAX_ROW_BLOCKS = 16384;  // enough to fill any device many times
constexpr float LEAST = 1e-30f;         // of a row's largest magnitude, so that a row of zeros has a scale
constexpr int FEW = 4;                  // rows of x up to which tiles are narrow: more blocks reach more SMs
constexpr int SM_BLOCKS = 2;            // of a product at least: 128 registers each
constexpr int STAGE_BYTES = 128;        // of weights a lane has on their way
constexpr int64_t MAX_BLOCKS = 0x7fffffff;

// x / b for many x and one b: by the reciprocal, and a correction that gives IEEE's quotient wherever e4m3 could tell,
// near the middles between its numbers (tried for all mantissas of b). The correction's residual must not fall below
// f32's range: a small b is lifted together with x.
struct Divisor {
  float lift, b, reciprocal;

  explicit __device__ __forceinline__ Divisor(float divisor)
      : lift(divisor < 0x1p-90f ? 0x1p64f : 1.0f), b(divisor * lift), reciprocal(1.0f / b) {}
  __device__ __forceinline__ float divide(float x) const {
    const float a = __fmul_rn(x, lift), near = __fmul_rn(a, reciprocal);
    return __fmaf_rn(__fmaf_rn(-b, near, a), reciprocal, near);
  }
};

template <class X> struct RowOperands {
  e4m3 *y;
  float *scale;
  const X *x;
  int64_t n, c, stride_y, stride_x;
  bool is_aligned;
};

// ROW_PER_WARP, else a row per block.
template <class X, bool ROW_PER_WARP, Access ACCESS>
__global__ void __launch_bounds__(ROW_PER_WARP ? WARPS_THREADS : BLOCK_THREADS) quantize_row(const RowOperands<X> o) {
  constexpr int N = VEC<X>, CHUNKS = VALUES / N;
  __shared__ float scratch[MAX_WARPS];
  const int members = ROW_PER_WARP ? WARP : blockDim.x, member = threadIdx.x % members;
  const int per_block = blockDim.x / members;
  const int first = member * N, step = members * N;
  const int end = static_cast<int>(min(o.c, static_cast<int64_t>(step) * CHUNKS));
  for (int64_t row = static_cast<int64_t>(blockIdx.x) * per_block + threadIdx.x / members; row < o.n;
       row += static_cast<int64_t>(gridDim.x) * per_block) {
    const X *const x = o.x + row * o.stride_x;
    e4m3 *const y = o.y + row * o.stride_y;
    Vector<X> kept[CHUNKS];
    load_packed<1, ACCESS>(x, first, step, end, o.is_aligned, kept);

    float largest = 0.0f, poison = 0.0f;  // NaN as soon as a value is not finite
    const auto meet = [&](const Vector<X> &v, int64_t i, int64_t stop) {
#pragma unroll
      for (int j = 0; j < N; ++j)
        if (ACCESS == Access::WHOLE ? i < stop : i + j < stop) {
          const float value = to_float(v.element[j]);
          largest = fmaxf(largest, fabsf(value));
          poison = __fmaf_rn(value, 0.0f, poison);
        }
    };
#pragma unroll
    for (int k = 0; k < CHUNKS; ++k) meet(kept[k], first + k * step, end);
    // Calls f(vector, column) for each vector that is not kept.
    const auto reread = [&](auto f) {
#pragma unroll 1
      for (int64_t i = end + int64_t{first}; i < o.c; i += step) {
        Vector<X> v[1];
        load_packed<1, ACCESS>(x, i, step, o.c, o.is_aligned, v);
        f(v[0], i);
      }
    };
    reread([&](const Vector<X> &v, int64_t i) { meet(v, i, o.c); });
    if (poison != 0.0f) largest = INFINITY;
    largest = ROW_PER_WARP ? warp_max(largest) : block_max(largest, scratch);

    const bool is_finite = largest < INFINITY;
    const float scale = is_finite ? __fdiv_rn(fmaxf(largest, LEAST), E4M3_MAX) : NAN;
    if (member == 0) o.scale[row] = scale;
    const Divisor divisor(is_finite ? scale : 1.0f);
    const uint32_t kept_bits = is_finite ? 0xffffffffu : 0u;
    const auto put = [&](const Vector<X> &v, int64_t i, int64_t stop) {
      Pack<uint32_t, N / 4> codes;
#pragma unroll
      for (int j = 0; j < N; j += 4) {
        const auto two = [&](int k) {
          return pack_e4m3(divisor.divide(to_float(v.element[k])), divisor.divide(to_float(v.element[k + 1])));
        };
        codes.element[j / 4] = (two(j) | two(j + 2) << 16) & kept_bits;
      }
      if (ACCESS == Access::WHOLE ? i < stop : o.is_aligned && i + N <= stop) {
        *reinterpret_cast<Pack<uint32_t, N / 4> *>(y + i) = codes;
      } else if (ACCESS == Access::ANY) {
#pragma unroll
        for (int j = 0; j < N; ++j)
          if (i + j < stop) y[i + j].bits = static_cast<uint8_t>(codes.element[j / 4] >> j % 4 * 8);
      }
    };
#pragma unroll
    for (int k = 0; k < CHUNKS; ++k) put(kept[k], first + k * step, end);
    reread([&](const Vector<X> &v, int64_t i) { put(v, i, o.c); });
  }
}

template <class X> int launch_quantize(void *stream, const gt_tensor &y, const gt_tensor &scale, const gt_tensor &x) {
  const X *const x_data = static_cast<const X *>(x.data);
  const int64_t n = x.shape[0], c = x.shape[1];
  const bool y_is_aligned = reinterpret_cast<uintptr_t>(y.data) % VEC<X> == 0 && y.stride[0] % VEC<X> == 0;
  const RowOperands<X> o = {static_cast<e4m3 *>(y.data), static_cast<float *>(scale.data), x_data, n, c, y.stride[0],
                            x.stride[0], y_is_aligned && rows_are_aligned(x_data, x.stride[0])};
  const bool row_per_warp = c <= WARP * VALUES, is_whole = o.is_aligned && c > 0 && c % VEC<X> == 0;
  const int warps = static_cast<int>(min(ceil_divide(c, WARP * VALUES), int64_t{BLOCK_THREADS / WARP}));
  const int threads = row_per_warp ? WARPS_THREADS : warps * WARP;
  const int64_t blocks = row_per_warp ? ceil_divide(n, WARPS_THREADS / WARP) : n;
  const auto run = [&](auto kernel) {
    return launch(kernel, dim3(static_cast<unsigned>(min(blocks, MAX_ROW_BLOCKS))), threads, 0, stream, o);
  };
  if (row_per_warp)
    return is_whole ? run(quantize_row<X, true, Access::WHOLE>) : run(quantize_row<X, true, Access::ANY>);
  return is_whole ? run(quantize_row<X, false, Access::WHOLE>) : run(quantize_row<X, false, Access::ANY>);
}

template <class X> struct Operands {
  void *y;
  const X *x;
  const float *x_scale;  // NULL: 1
  WeightMatrix<e4m3> weight;
  const float *weight_scale;
  const void *bias;  // NULL: 0
  int64_t n, stride_y, stride_x;
  gt_dtype y_dtype;
  bool bias_is_f32, is_aligned;
};

// f(T{}) with the C++ type of a float dtype.
template <class F> __device__ __forceinline__ void with_float(gt_dtype dtype, F f) {
  if (dtype == GT_F32) f(0.0f);
  else if (dtype == GT_BF16) f(bf16{});
  else f(f16{});
}

// Of a thread's column: asked for beside the weights, or else their way from memory comes behind the last product.
struct Column {
  float scale;
  uint32_t bias;  // as it lies in memory: a conversion would wait for it
};
template <class X> __device__ __forceinline__ Column column_of(const Operands<X> &o, int64_t column) {
  Column own = {0.0f, 0};
  if (column >= o.weight.f) return own;
  own.scale = o.weight_scale[column];
  if (o.bias)
    own.bias = o.bias_is_f32 || o.y_dtype == GT_F32 ? static_cast<const uint32_t *>(o.bias)[column]
                                                    : static_cast<const uint16_t *>(o.bias)[column];
  return own;
}

template <class Tile, class X>
__device__ __forceinline__ void put(const Operands<X> &o, int64_t row, int64_t column, float sum, const Column &own) {
  const float x_scale = o.x_scale ? o.x_scale[row] : 1.0f;
  with_float(o.y_dtype, [&](auto zero) {
    using Y = decltype(zero);
    float bias = __uint_as_float(own.bias);
    if constexpr (sizeof(Y) == 2)
      if (!o.bias_is_f32) {
        const uint16_t bits = static_cast<uint16_t>(own.bias);
        Y narrow;
        memcpy(&narrow, &bits, sizeof bits);
        bias = to_float(narrow);
      }
    static_cast<Y *>(o.y)[row * o.stride_y + column] = from_float<Y>(scaled_sum<Tile>(sum, own.scale, x_scale, bias));
  });
}

// WHOLE: whole aligned stretches alone; ANY: the kernel looks.
template <class Tile, Access ACCESS, class X>
__global__ void __launch_bounds__(FEW_ROWS_WARPS *WARP, SM_BLOCKS)
    linear_fp8_warps_share_c(const Operands<X> o, int64_t num_tiles) {
  constexpr int STAGES = STAGE_BYTES / static_cast<int>(sizeof(typename Tile::Stage));
  __shared__ float partial[FEW_ROWS_WARPS][FEW_ROWS_ROWS][Tile::COLUMNS];
  const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, warps = blockDim.x / WARP;
  const LanePart part = {lane / 4, lane % 4};
  const int64_t c_end = o.weight.c, step = warps * Tile::STRETCH;
  // of one tile of columns, next to each other: they meet in L2
  const int64_t row_blocks = (o.n + Tile::ROWS - 1) / Tile::ROWS;
  for (int64_t i = blockIdx.x; i < num_tiles; i += gridDim.x) {
    const int64_t row = i % row_blocks * Tile::ROWS, first = i / row_blocks * Tile::COLUMNS;
    const FewRows<X> x = {o.x + row * o.stride_x, o.stride_x, min(int64_t{Tile::ROWS}, o.n - row), c_end};
    static_assert(WARP % Tile::COLUMNS == 0, "a thread has one column");
    const Column own = column_of(o, first + threadIdx.x % Tile::COLUMNS);  // which put_sums gives the thread
    Tile tile;
    if constexpr (ACCESS == Access::WHOLE) {
      typename Tile::Stage stages[STAGES];
      int64_t c = warp * Tile::STRETCH;
#pragma unroll
      for (int s = 0; s < STAGES; ++s)
        if (c + s * step < c_end) Tile::template load<true>(o.weight, first, part, c + s * step, stages[s]);
#pragma unroll 1
      while (c < c_end)
#pragma unroll
        for (int s = 0; s < STAGES; ++s) {
          if (c >= c_end) break;
          tile.template multiply<true>(x, part, c, stages[s]);
          if (const int64_t next = c + STAGES * step; next < c_end)
            Tile::template load<true>(o.weight, first, part, next, stages[s]);
          c += step;
        }
    } else {
      multiply_share(tile, o.weight, x, first, part, warp, warps, o.is_aligned);
    }
    tile.store(part, partial[warp]);
    put_sums<Tile>(partial, warps, x.n, first, o.weight.f,
                   [&](int r, int64_t column, float sum) { put<Tile>(o, row + r, column, sum, own); });
  }
}

template <class Tile, Access ACCESS, class X> int launch_tiles(void *stream, const Operands<X> &o) {
  const int64_t tiles = ceil_divide(o.n, Tile::ROWS) * ceil_divide(o.weight.f, Tile::COLUMNS);
  return launch(linear_fp8_warps_share_c<Tile, ACCESS, X>, dim3(static_cast<unsigned>(min(tiles, MAX_BLOCKS))),
                warps_for<Tile>(o.weight.c) * WARP, 0, stream, o, tiles);
}

template <class X>
int launch_linear(void *stream, const gt_tensor &y, const gt_tensor &x, const gt_tensor *x_scale,
                  const gt_tensor &weight, const gt_tensor &weight_scale, const gt_tensor *bias) {
  const X *const x_data = static_cast<const X *>(x.data);
  const e4m3 *const weight_data = static_cast<const e4m3 *>(weight.data);
  const WeightMatrix<e4m3> matrix = {weight_data, weight.stride[0], x.shape[1], y.shape[1],
                                     rows_are_aligned(weight_data, weight.stride[0])};
  const Operands<X> o = {y.data, x_data, x_scale ? static_cast<const float *>(x_scale->data) : nullptr, matrix,
                         static_cast<const float *>(weight_scale.data), bias ? bias->data : nullptr, x.shape[0],
                         y.stride[0], x.stride[0], y.dtype, bias && bias->dtype == GT_F32,
                         matrix.is_aligned && rows_are_aligned(x_data, x.stride[0])};
  if (!o.is_aligned || o.weight.c % F8RowsTile<X, 1, 2>::STRETCH > 0)
    return launch_tiles<F8RowsTile<X, 1, 2>, Access::ANY>(stream, o);
  if (o.n <= FEW) return launch_tiles<F8RowsTile<X, 1, 1>, Access::WHOLE>(stream, o);
  return o.n <= 8 ? launch_tiles<F8RowsTile<X, 2, 1>, Access::WHOLE>(stream, o)
                  : launch_tiles<F8RowsTile<X, 2, 2>, Access::WHOLE>(stream, o);
}

}  // namespace

gt_status quantize_rows_cuda(const gt_stream *stream, const gt_tensor *y, const gt_tensor *scale, const gt_tensor *x) {
  void *const handle = stream->handle;
  return status_of("quantize_rows", x->dtype == GT_F32    ? launch_quantize<float>(handle, *y, *scale, *x)
                                    : x->dtype == GT_BF16 ? launch_quantize<bf16>(handle, *y, *scale, *x)
                                                          : launch_quantize<f16>(handle, *y, *scale, *x));
}

gt_status linear_fp8_cuda(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x, const gt_tensor *x_scale,
                          const gt_tensor *weight, const gt_tensor *weight_scale, const gt_tensor *bias) {
  const auto run = [&](auto zero) {
    return launch_linear<decltype(zero)>(stream->handle, *y, *x, x_scale, *weight, *weight_scale, bias);
  };
  return status_of("linear_fp8", x->dtype == GT_BF16 ? run(bf16{}) : x->dtype == GT_F16 ? run(f16{}) : run(e4m3{}));
}

}  // namespace gt
