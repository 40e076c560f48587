// Matrix product with few rows on CUDA.
//
// Computes    y[n,f] = sum_c x[n,c] w[f,c] + bias[f]
// Shapes      x [N, C], y [N, F], any row stride; weight [F, C] or [C, F], any row stride; bias [F] or NULL
// Types       x and weight f32, bf16 or f16 alike; y and bias x's dtype or f32; sums in f32, rounded once at the end
// Mapping     a block owns 16 rows of x and a tile of columns; its warps, up to 8, take turns with stretches of C, and
//             add up through shared memory. Lane 4 g + t of a warp reads 16 bytes at a time. [F, C]: of weight rows g,
//             g + 8 .. (a tile of 8 columns, or 32 beyond 4 rows of x, which are then read a quarter as often; f32: 16),
//             a run of 4 (f32) or 8 elements for each t. [C, F]: of the 4 weight rows 4 t .. 4 t + 3, columns of 128
//             bytes side by side for g = 0 .. 7. 16-bit types multiply on the tensor cores, x as the left operand. Which c
//             take which of its 16 inner places does not matter as long as x and weight agree: so what a lane has read
//             is its operand, without a detour through shared memory
// Memory      weight once per 16 rows of x; x once per tile of columns, mostly from L2; y once. Per lane 4 to 16 loads
//             in flight. Shared: up to 32 KiB
// Numerics    partial sums by lane group and warp, in ascending c each; then over t (f32: a butterfly; else in the tensor
//             core), then over the warps in ascending order. Which c belong to which depends on C, layout and dtype alone:
//             a row has the same bits for any N and F, alignment and grid. C = 0 gives the bias; N = 0 launches nothing
// Limits      16-byte accesses where every row starts at a multiple of 16 bytes, in full stretches and tiles; else element
//             by element; sm_80 and later; nothing is UNSUPPORTED
// Source      not measured alone on a GPU: bound by memory, C F weights; decode of GPT-2 in bf16 on an H200 took half the time
//             with it
#include "lib/cuda.h"

#include <type_traits>

#include "check.h"
#include "gatun/linear.h"
#include "lib/mma.h"
#include "lib/reduce.h"
#include "lib/vec.h"

namespace gt {

decltype(gt_linear) linear_cuda;

namespace {

constexpr int ROWS = 16;                  // of x per block: the height of a tensor core's operand
constexpr int FEW_ROWS = 4;               // up to here narrow tiles: x costs little, and more blocks reach more SMs
constexpr int BLOCK_WARPS = 8;            // at most: 32 KiB of partial sums
constexpr int64_t MAX_BLOCKS = 0x7fffffff;

template <class T> struct Operands {
  void *y;
  const T *x, *weight;
  const void *bias;  // NULL: 0
  int64_t n, c, f, stride_y, stride_x, stride_weight;
  bool y_is_f32, bias_is_f32;
  bool is_aligned;  // every row of x and weight
};

// Where a block's tile begins, and which part of it a lane has.
struct Place {
  int64_t row, column;
  int g, t;  // lane = 4 g + t
};

// COUNT elements from row[at] on, 0 from `length` on, as 32-bit words: two 16-bit elements each, the first in the lower
// half. WHOLE: they all exist and are aligned.
template <bool WHOLE, int COUNT, class T>
__device__ __forceinline__ void load_words(const T *row, int64_t at, int64_t length, uint32_t (&words)[COUNT / 2]) {
  static_assert(sizeof(T) == 2 && (COUNT == 4 || COUNT == 8), "8 or 16 bytes");
  if constexpr (WHOLE && COUNT == 8) {
    const uint4 v = *reinterpret_cast<const uint4 *>(row + at);
    words[0] = v.x, words[1] = v.y, words[2] = v.z, words[3] = v.w;
  } else if constexpr (WHOLE) {
    const uint2 v = *reinterpret_cast<const uint2 *>(row + at);
    words[0] = v.x, words[1] = v.y;
  } else {
    const uint16_t *const bits = reinterpret_cast<const uint16_t *>(row);
#pragma unroll
    for (int i = 0; i < COUNT; i += 2)
      words[i / 2] = (at + i < length ? bits[at + i] : 0u) | (at + i + 1 < length ? bits[at + i + 1] : 0u) << 16;
  }
}

template <bool WHOLE> __device__ __forceinline__ float4 load_float4(const float *row, int64_t at, int64_t length) {
  if constexpr (WHOLE) return *reinterpret_cast<const float4 *>(row + at);
  const auto element = [=](int i) { return at + i < length ? row[at + i] : 0.0f; };
  return make_float4(element(0), element(1), element(2), element(3));
}

// Each kind of tile: add(c) multiplies STRETCH elements of C from c on, store writes the warp's sums to
// partial[row][column].

// Weights [F, C] of 16 bits: 8 columns per group.
template <class T, int GROUPS> struct RowsTile {
  static constexpr int COLUMNS = 8 * GROUPS, CHUNK = 32, CHUNKS = 4, STRETCH = CHUNK * CHUNKS;
  float d[GROUPS][4] = {};

  static __device__ __forceinline__ bool is_whole(const Operands<T> &, const Place &) { return true; }

  template <bool WHOLE> __device__ __forceinline__ void add(const Operands<T> &o, const Place &place, int64_t c) {
    uint32_t weight[CHUNKS][GROUPS][4], x[CHUNKS][2][4];
#pragma unroll
    for (int i = 0; i < CHUNKS; ++i) {
      const int64_t at = c + i * CHUNK + place.t * 8;
#pragma unroll
      for (int k = 0; k < GROUPS; ++k) {
        const int64_t column = min(place.column + k * 8 + place.g, o.f - 1);  // beyond the last: computed, never stored
        load_words<WHOLE, 8>(o.weight + column * o.stride_weight, at, o.c, weight[i][k]);
      }
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int64_t row = place.row + half * 8 + place.g;
        if (row < o.n) load_words<WHOLE, 8>(o.x + row * o.stride_x, at, o.c, x[i][half]);
        else x[i][half][0] = x[i][half][1] = x[i][half][2] = x[i][half][3] = 0;
      }
    }
#pragma unroll
    for (int i = 0; i < CHUNKS; ++i)
#pragma unroll
      for (int j = 0; j < 4; j += 2) {
        const uint32_t a[4] = {x[i][0][j], x[i][1][j], x[i][0][j + 1], x[i][1][j + 1]};
#pragma unroll
        for (int k = 0; k < GROUPS; ++k) mma_m16n8k16<T>(d[k], a, weight[i][k][j], weight[i][k][j + 1]);
      }
  }

  __device__ __forceinline__ void store(const Place &place, float (&partial)[ROWS][COLUMNS]) {
#pragma unroll
    for (int k = 0; k < GROUPS; ++k)
#pragma unroll
      for (int i = 0; i < 4; ++i) partial[place.g + i / 2 * 8][k * 8 + place.t * 2 + i % 2] = d[k][i];
  }
};

// Weights [C, F] of 16 bits: 64 columns, of which lane g reads 8 neighbours; the j-th of each make the j-th product.
template <class T> struct ColumnsTile {
  static constexpr int COLUMNS = 64, CHUNK = 16, CHUNKS = 2, STRETCH = CHUNK * CHUNKS;
  float d[8][4] = {};

  static __device__ __forceinline__ bool is_whole(const Operands<T> &o, const Place &place) {
    return place.column + COLUMNS <= o.f;
  }

  template <bool WHOLE> __device__ __forceinline__ void add(const Operands<T> &o, const Place &place, int64_t c) {
    uint32_t weight[CHUNKS][4][4], x[CHUNKS][2][2];
#pragma unroll
    for (int i = 0; i < CHUNKS; ++i) {
      const int64_t at = c + i * CHUNK + place.t * 4;
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        const bool exists = WHOLE || at + k < o.c;
        load_words<WHOLE, 8>(o.weight + (exists ? at + k : 0) * o.stride_weight, place.column + place.g * 8,
                             exists ? o.f : 0, weight[i][k]);
      }
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int64_t row = place.row + half * 8 + place.g;
        if (row < o.n) load_words<WHOLE, 4>(o.x + row * o.stride_x, at, o.c, x[i][half]);
        else x[i][half][0] = x[i][half][1] = 0;
      }
    }
#pragma unroll
    for (int i = 0; i < CHUNKS; ++i) {
      const uint32_t a[4] = {x[i][0][0], x[i][1][0], x[i][0][1], x[i][1][1]};
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        const auto pair = [&](int k) {  // column j of rows k and k + 1
          const uint32_t upper = weight[i][k][j / 2], lower = weight[i][k + 1][j / 2];
          return j % 2 ? upper >> 16 | (lower & 0xffff0000u) : (upper & 0xffffu) | lower << 16;
        };
        mma_m16n8k16<T>(d[j], a, pair(0), pair(2));
      }
    }
  }

  __device__ __forceinline__ void store(const Place &place, float (&partial)[ROWS][COLUMNS]) {
#pragma unroll
    for (int j = 0; j < 8; ++j)
#pragma unroll
      for (int i = 0; i < 4; ++i) partial[place.g + i / 2 * 8][(place.t * 2 + i % 2) * 8 + j] = d[j][i];
  }
};

// The sum over t: lanes 4 g .. 4 g + 3.
__device__ __forceinline__ float sum_of_four(float v) {
  v += __shfl_xor_sync(ALL_LANES, v, 2);
  return v + __shfl_xor_sync(ALL_LANES, v, 1);
}

// Weights [F, C] of f32: columns g and g + 8.
struct FloatRowsTile {
  static constexpr int GROUPS = 2, COLUMNS = 8 * GROUPS, CHUNK = 16, CHUNKS = 4, STRETCH = CHUNK * CHUNKS;
  float sum[GROUPS][ROWS] = {};

  static __device__ __forceinline__ bool is_whole(const Operands<float> &, const Place &) { return true; }

  template <bool WHOLE> __device__ __forceinline__ void add(const Operands<float> &o, const Place &place, int64_t c) {
    float4 weight[CHUNKS][GROUPS];
#pragma unroll
    for (int i = 0; i < CHUNKS; ++i)
#pragma unroll
      for (int k = 0; k < GROUPS; ++k) {
        const int64_t column = min(place.column + k * 8 + place.g, o.f - 1);
        weight[i][k] = load_float4<WHOLE>(o.weight + column * o.stride_weight, c + i * CHUNK + place.t * 4, o.c);
      }
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
      if (place.row + r >= o.n) continue;
#pragma unroll
      for (int i = 0; i < CHUNKS; ++i) {
        const float4 x = load_float4<WHOLE>(o.x + (place.row + r) * o.stride_x, c + i * CHUNK + place.t * 4, o.c);
#pragma unroll
        for (int k = 0; k < GROUPS; ++k) {
          float &s = sum[k][r];
          s += x.x * weight[i][k].x;
          s += x.y * weight[i][k].y;
          s += x.z * weight[i][k].z;
          s += x.w * weight[i][k].w;
        }
      }
    }
  }

  __device__ __forceinline__ void store(const Place &place, float (&partial)[ROWS][COLUMNS]) {
#pragma unroll
    for (int k = 0; k < GROUPS; ++k)
#pragma unroll
      for (int r = 0; r < ROWS; ++r) {
        const float s = sum_of_four(sum[k][r]);
        if (place.t == r % 4) partial[r][k * 8 + place.g] = s;
      }
  }
};

// Weights [C, F] of f32: 32 columns, of which lane g reads 4 neighbours.
struct FloatColumnsTile {
  static constexpr int COLUMNS = 32, CHUNK = 16, CHUNKS = 2, STRETCH = CHUNK * CHUNKS;
  float sum[ROWS][4] = {};

  static __device__ __forceinline__ bool is_whole(const Operands<float> &o, const Place &place) {
    return place.column + COLUMNS <= o.f;
  }

  template <bool WHOLE> __device__ __forceinline__ void add(const Operands<float> &o, const Place &place, int64_t c) {
    float4 weight[CHUNKS][4];
#pragma unroll
    for (int i = 0; i < CHUNKS; ++i)
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        const int64_t at = c + i * CHUNK + place.t * 4 + k;
        const bool exists = WHOLE || at < o.c;
        weight[i][k] = load_float4<WHOLE>(o.weight + (exists ? at : 0) * o.stride_weight, place.column + place.g * 4,
                                          exists ? o.f : 0);
      }
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
      if (place.row + r >= o.n) continue;
#pragma unroll
      for (int i = 0; i < CHUNKS; ++i) {
        const float4 x = load_float4<WHOLE>(o.x + (place.row + r) * o.stride_x, c + i * CHUNK + place.t * 4, o.c);
        const float by_row[4] = {x.x, x.y, x.z, x.w};
#pragma unroll
        for (int k = 0; k < 4; ++k) {
          sum[r][0] += by_row[k] * weight[i][k].x;
          sum[r][1] += by_row[k] * weight[i][k].y;
          sum[r][2] += by_row[k] * weight[i][k].z;
          sum[r][3] += by_row[k] * weight[i][k].w;
        }
      }
    }
  }

  __device__ __forceinline__ void store(const Place &place, float (&partial)[ROWS][COLUMNS]) {
#pragma unroll
    for (int r = 0; r < ROWS; ++r)
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const float s = sum_of_four(sum[r][j]);
        if (place.t == r % 4) partial[r][place.g * 4 + j] = s;
      }
  }
};

template <class T> __device__ __forceinline__ void put(const Operands<T> &o, int64_t row, int64_t column, float sum) {
  if (o.bias)
    sum += o.bias_is_f32 ? static_cast<const float *>(o.bias)[column] : to_float(static_cast<const T *>(o.bias)[column]);
  const int64_t at = row * o.stride_y + column;
  if (o.y_is_f32) static_cast<float *>(o.y)[at] = sum;
  else static_cast<T *>(o.y)[at] = from_float<T>(sum);
}

template <class Tile, class T>
__global__ void __launch_bounds__(BLOCK_WARPS *WARP) linear_warps_share_c(const Operands<T> o, int64_t num_tiles) {
  __shared__ float partial[BLOCK_WARPS][ROWS][Tile::COLUMNS];
  const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, warps = blockDim.x / WARP;
  const int64_t row_blocks = (o.n + ROWS - 1) / ROWS;  // of one tile of columns, next to each other: they meet in L2
  for (int64_t i = blockIdx.x; i < num_tiles; i += gridDim.x) {
    const Place place = {i % row_blocks * ROWS, i / row_blocks * Tile::COLUMNS, lane / 4, lane % 4};
    const bool is_whole = o.is_aligned && Tile::is_whole(o, place);
    Tile tile;
#pragma unroll 1
    for (int64_t c = warp * Tile::STRETCH; c < o.c; c += warps * Tile::STRETCH)
      if (is_whole && c + Tile::STRETCH <= o.c) tile.template add<true>(o, place, c);
      else tile.template add<false>(o, place, c);
    tile.store(place, partial[warp]);
    __syncthreads();
    const int rows = static_cast<int>(min(static_cast<int64_t>(ROWS), o.n - place.row));
    for (int j = threadIdx.x; j < rows * Tile::COLUMNS; j += blockDim.x) {
      const int row = j / Tile::COLUMNS, column = j % Tile::COLUMNS;
      if (place.column + column >= o.f) continue;
      float sum = partial[0][row][column];
      for (int w = 1; w < warps; ++w) sum += partial[w][row][column];
      put(o, place.row + row, place.column + column, sum);
    }
    __syncthreads();  // the next tile's sums go to the same place
  }
}

int64_t ceil_divide(int64_t a, int64_t b) { return (a + b - 1) / b; }

template <class Tile, class T> int launch_tiles(void *stream, const Operands<T> &o) {
  const int64_t warps = max(int64_t{1}, min(ceil_divide(o.c, Tile::STRETCH), int64_t{BLOCK_WARPS}));
  const int64_t tiles = ceil_divide(o.n, ROWS) * ceil_divide(o.f, Tile::COLUMNS);
  return launch(linear_warps_share_c<Tile, T>, dim3(static_cast<unsigned>(min(tiles, MAX_BLOCKS))),
                dim3(static_cast<unsigned>(warps * WARP)), 0, stream, o, tiles);
}

template <class T> int launch_linear(void *stream, const Operands<T> &o, gt_weight_layout layout) {
  const bool out_in = layout == GT_WEIGHT_OUT_IN;
  if constexpr (std::is_same_v<T, float>)
    return out_in ? launch_tiles<FloatRowsTile>(stream, o) : launch_tiles<FloatColumnsTile>(stream, o);
  else if (!out_in)
    return launch_tiles<ColumnsTile<T>>(stream, o);
  else
    return o.n <= FEW_ROWS ? launch_tiles<RowsTile<T, 1>>(stream, o) : launch_tiles<RowsTile<T, 4>>(stream, o);
}

template <class T>
int run_linear(void *stream, const gt_tensor &y, const gt_tensor &x, const gt_tensor &weight, const gt_tensor *bias,
               gt_weight_layout layout) {
  const T *const x_data = static_cast<const T *>(x.data), *const weight_data = static_cast<const T *>(weight.data);
  const Operands<T> o = {y.data, x_data, weight_data, bias ? bias->data : nullptr, x.shape[0], x.shape[1], y.shape[1],
                         y.stride[0], x.stride[0], weight.stride[0], y.dtype == GT_F32, bias && bias->dtype == GT_F32,
                         rows_are_aligned(x_data, x.stride[0]) && rows_are_aligned(weight_data, weight.stride[0])};
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
  return status ? fail(GT_DEVICE_ERROR, "linear: %s", launch_error(status)) : GT_OK;
}

}  // namespace gt
