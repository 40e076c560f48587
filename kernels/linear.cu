// Matrix product with few rows on CUDA.
//
// Computes    y[n,f] = sum_c x[n,c] w[f,c] + bias[f]
// Shapes      x [N, C], y [N, F], any row stride; weight [F, C] or [C, F], any row stride; bias [F] or NULL
// Types       x and weight f32, bf16 or f16 alike; y and bias x's dtype or f32; sums in f32, rounded once at the end
// Mapping     a block owns 16 rows of x and a tile of columns; its warps, up to 8, take turns with stretches of C,
//             and add up through shared memory. Lane 4 g + t of a warp reads 16 bytes at a time. [F, C]: of weight
//             rows g, g + 8 .. (a tile of 8 columns, or 32 beyond 4 rows of x, which are then read a quarter as
//             often; f32: 16), a run of 4 (f32) or 8 elements for each t. [C, F]: of the 4 weight rows 4 t .. 4 t +
//             3, columns of 128 bytes side by side for g = 0 .. 7. 16-bit types multiply on the tensor cores, x as
//             the left operand. Which c take which of its 16 inner places does not matter as long as x and weight
//             agree: so what a lane has read is its operand, without a detour through shared memory
// Memory      weight once per 16 rows of x; x once per tile of columns, mostly from L2; y once. Per lane 4 to 16
//             loads in flight. Shared: up to 32 KiB
// Numerics    partial sums by lane group and warp, in ascending c each; then over t (f32: a butterfly; else in the
//             tensor core), then over the warps in ascending order. Which c belong to which depends on C, layout and
//             dtype alone: a row has the same bits for any N and F, alignment and grid. C = 0 gives the bias; N = 0
//             launches nothing
// Limits      16-byte accesses where every row starts at a multiple of 16 bytes, in full stretches and tiles; else
//             element by element; sm_80 and later; nothing is UNSUPPORTED
// Source      not measured alone on a GPU: bound by memory, C F weights; decode of GPT-2 in bf16 on an H200 took half
//             the time with it
#include "lib/cuda.h"

#include <type_traits>

#include "check.h"
#include "gatun/linear.h"
#include "lib/entry.h"
#include "lib/few_rows.h"

namespace gt {

decltype(gt_linear) linear_cuda;

namespace {

constexpr int FEW = 4;  // rows of x up to which tiles are narrow: x costs little, more blocks reach more SMs
constexpr int64_t MAX_BLOCKS = 0x7fffffff;

template <class T> struct Operands {
  void *y;
  const T *x;
  const void *bias;  // NULL: 0
  WeightMatrix<T> weight;
  int64_t n, stride_y, stride_x;
  bool y_is_f32, bias_is_f32, x_is_aligned;
};

template <class T> __device__ __forceinline__ void put(const Operands<T> &o, int64_t row, int64_t column, float sum) {
  if (o.bias)
    sum += o.bias_is_f32 ? static_cast<const float *>(o.bias)[column]
                         : to_float(static_cast<const T *>(o.bias)[column]);
  const int64_t at = row * o.stride_y + column;
  if (o.y_is_f32) static_cast<float *>(o.y)[at] = sum;
  else static_cast<T *>(o.y)[at] = from_float<T>(sum);
}

template <class Tile, class T>
__global__ void __launch_bounds__(FEW_ROWS_WARPS *WARP) linear_warps_share_c(const Operands<T> o, int64_t num_tiles) {
  __shared__ float partial[FEW_ROWS_WARPS][FEW_ROWS_ROWS][Tile::COLUMNS];
  const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, warps = blockDim.x / WARP;
  const LanePart part = {lane / 4, lane % 4};
  // of one tile of columns, next to each other: they meet in L2
  const int64_t row_blocks = (o.n + FEW_ROWS_ROWS - 1) / FEW_ROWS_ROWS;
  for (int64_t i = blockIdx.x; i < num_tiles; i += gridDim.x) {
    const int64_t row = i % row_blocks * FEW_ROWS_ROWS, first = i / row_blocks * Tile::COLUMNS;
    const FewRows<T> x = {o.x + row * o.stride_x, o.stride_x, min(int64_t{FEW_ROWS_ROWS}, o.n - row),
                          o.weight.c};
    const bool is_whole = o.weight.is_aligned && o.x_is_aligned &&
                          (!Tile::NEEDS_WHOLE_COLUMNS || first + Tile::COLUMNS <= o.weight.f);
    Tile tile;
    multiply_share(tile, o.weight, x, first, part, warp, warps, is_whole);
    tile.store(part, partial[warp]);
    put_sums<Tile>(partial, warps, x.n, first, o.weight.f,
                   [&](int r, int64_t column, float sum) { put(o, row + r, column, sum); });
  }
}

template <class Tile, class T> int launch_tiles(void *stream, const Operands<T> &o) {
  const int64_t tiles = ceil_divide(o.n, FEW_ROWS_ROWS) * ceil_divide(o.weight.f, Tile::COLUMNS);
  return launch(linear_warps_share_c<Tile, T>, dim3(static_cast<unsigned>(min(tiles, MAX_BLOCKS))),
                warps_for<Tile>(o.weight.c) * WARP, 0, stream, o, tiles);
}

template <class T> int launch_linear(void *stream, const Operands<T> &o, gt_weight_layout layout) {
  const bool out_in = layout == GT_WEIGHT_OUT_IN;
  if constexpr (std::is_same_v<T, float>)
    return out_in ? launch_tiles<FloatRowsTile>(stream, o) : launch_tiles<FloatColumnsTile>(stream, o);
  else if (!out_in)
    return launch_tiles<ColumnsTile<T, 8>>(stream, o);
  else
    return o.n <= FEW ? launch_tiles<RowsTile<T, 1>>(stream, o) : launch_tiles<RowsTile<T, 4>>(stream, o);
}

template <class T>
int run_linear(void *stream, const gt_tensor &y, const gt_tensor &x, const gt_tensor &weight, const gt_tensor *bias,
               gt_weight_layout layout) {
  const T *const x_data = static_cast<const T *>(x.data), *const weight_data = static_cast<const T *>(weight.data);
  const WeightMatrix<T> matrix = {weight_data, weight.stride[0], x.shape[1], y.shape[1],
                                  rows_are_aligned(weight_data, weight.stride[0])};
  const Operands<T> o = {y.data, x_data, bias ? bias->data : nullptr, matrix, x.shape[0], y.stride[0], x.stride[0],
                         y.dtype == GT_F32, bias && bias->dtype == GT_F32, rows_are_aligned(x_data, x.stride[0])};
  return launch_linear(stream, o, layout);
}

}  // namespace

gt_status linear_cuda(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x, const gt_tensor *weight,
                      const gt_tensor *bias, gt_weight_layout layout) {
  int status;
  switch (x->dtype) {
    case GT_F32: status = run_linear<float>(stream->handle, *y, *x, *weight, bias, layout); break;
    case GT_BF16: status = run_linear<bf16>(stream->handle, *y, *x, *weight, bias, layout); break;
    default: status = run_linear<f16>(stream->handle, *y, *x, *weight, bias, layout);
  }
  return status_of("linear", status);
}

}  // namespace gt
