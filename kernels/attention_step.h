// How do the query, the new key and the new value of a decode step come to a block, and the latter two to their page?
//
// A tile of 16 query rows has two more behind it, for the new key and value of its kv head. They are rotated where they
// lie, as gt_rope rotates them.
#pragma once

#include "attention_tile.h"
#include "gatun/rope.h"
#include "rope_pair.h"

namespace gt::attention {

constexpr int SPLIT_WARPS = 2;     // of a block, which has 32 KiB of keys and values for each
constexpr int NEW_KEY = TILE_ROWS, NEW_VALUE = TILE_ROWS + 1;  // rows of the tile that has the queries

// What gt_attention_decode has and gt_attention_paged has not: NULL and 0 there.
template <class T> struct Step {
  T *k_pages, *v_pages;
  const T *k, *v;
  int64_t stride_k[2], stride_v[2];  // row, head
  const float *table;                // [num_positions, 2, half]
  int64_t num_positions;
  int half;
  gt_rope_pairing pairing;
  unsigned *counters;                // [N, G]
  bool is_aligned;                   // k and v
};

template <class T, int WIDTH> __device__ __forceinline__ T &element_at(T *tile, int row, int column) {
  return chunk_at<T, WIDTH>(tile, row, column / VEC<T>)[column % VEC<T>];
}

// As load_rows, but in little code, which must come from memory too: for few rows, and for those that are not aligned.
template <class T, int WIDTH, class RowOf>
__device__ __forceinline__ void load_few_rows(T *tile, int rows, int count, int d, int columns, bool aligned,
                                              int thread, int threads, RowOf row_of) {
  constexpr int CHUNKS = WIDTH / VEC<T>;
#pragma unroll 1
  for (int i = thread; i < rows * CHUNKS; i += threads) {
    const int r = i / CHUNKS, column = i % CHUNKS * VEC<T>, n = r < count ? max(0, min(VEC<T>, d - column)) : 0;
    if (column >= columns) continue;
    const T *const from = row_of(r < count ? r : 0) + (n > 0 ? column : 0);
    T *const to = chunk_at<T, WIDTH>(tile, r, i % CHUNKS);
    if (aligned) {
      async_copy_16(to, from, n * static_cast<int>(sizeof(T)));
      continue;
    }
#pragma unroll 1
    for (int j = 0; j < VEC<T>; ++j) to[j] = j < n ? from[j] : from_float<T>(0.0f);
  }
}

// tile[r] = from[r * stride ..][0 .. d) for r < count, zeros up to `columns` and for the rows from there on up to ROWS,
// by a warp. As load_rows does it where rows are aligned, but a lane keeps to one chunk: 3 instructions a copy, not 25.
template <class T, int WIDTH, int ROWS>
__device__ __forceinline__ void load_aligned_rows(T *tile, const T *from, int stride, int count, int d, int columns,
                                                  int lane) {
  constexpr int CHUNKS = WIDTH / VEC<T>, AT_ONCE = CHUNKS < WARP ? WARP / CHUNKS : 1;  // rows
  static_assert(AT_ONCE <= 8 && ROWS % AT_ONCE == 0, "row r + i * AT_ONCE has the bits of r and of i * AT_ONCE");
  const int r = lane / CHUNKS;
#pragma unroll
  for (int chunk = lane % CHUNKS; chunk < CHUNKS; chunk += WARP) {
    const int column = chunk * VEC<T>, own_count = column < d ? count - r : 0;
    if (column >= columns) continue;
    T *const to = tile + r * WIDTH;
    const T *const source = from + r * stride + (column < d ? column : 0);
#pragma unroll
    for (int i = 0; i < ROWS; i += AT_ONCE) {
      T *const place = to + (chunk ^ r ^ (i & 7)) * VEC<T> + i * WIDTH;
      async_copy_16(place, source + i * stride, i < own_count ? VEC_BYTES : 0);
    }
  }
}

// Turns the first num_heads rows, and the new key where the block has it, by the row's angles; a row is one warp's.
template <class T, int WIDTH>
__device__ __forceinline__ void rotate_tile(T *tile, const Step<T> &step, const float *angles, int num_heads,
                                            bool has_key, int position, int d) {
  const int lane = threadIdx.x % WARP;
  const bool has_halves = step.pairing == GT_ROPE_HALF, is_beyond = position >= step.num_positions;
#pragma unroll 1
  for (int i = threadIdx.x / WARP; i < num_heads + has_key; i += SPLIT_WARPS) {
    const int row = i < num_heads ? i : NEW_KEY;
    if (is_beyond) {
#pragma unroll 1
      for (int column = lane; column < d; column += WARP) element_at<T, WIDTH>(tile, row, column) = from_float<T>(NAN);
      continue;
    }
#pragma unroll 2
    for (int pair = lane; pair < step.half; pair += WARP) {
      T &first = element_at<T, WIDTH>(tile, row, has_halves ? pair : 2 * pair);
      T &second = element_at<T, WIDTH>(tile, row, has_halves ? pair + step.half : 2 * pair + 1);
      float a = to_float(first), b = to_float(second);
      rotate<Turn::FORTH>(a, b, angles[pair], angles[step.half + pair]);
      first = from_float<T>(a);
      second = from_float<T>(b);
    }
  }
}

// Stores the new key and value of a kv head in their page.
template <class T, int WIDTH>
__device__ __forceinline__ void append(T *tile, const Operands<T> &o, const Step<T> &step, int g, int position,
                                       int page) {
  const int64_t to = ((int64_t{page} * o.kv_heads + g) * PAGE + position % PAGE) * o.d;
  const int width = o.kv_is_aligned ? VEC<T> : 1;
#pragma unroll 1
  for (int i = threadIdx.x * width; i < 2 * o.d; i += SPLIT_WARPS * WARP * width) {
    const int column = i % o.d;
    const T &from = element_at<T, WIDTH>(tile, i < o.d ? NEW_KEY : NEW_VALUE, column);
    T *const place = (i < o.d ? step.k_pages : step.v_pages) + to + column;
    if (o.kv_is_aligned) *reinterpret_cast<Vector<T> *>(place) = reinterpret_cast<const Vector<T> &>(from);
    else *place = from;
  }
}

}  // namespace gt::attention
