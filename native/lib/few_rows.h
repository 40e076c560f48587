// How does a warp multiply up to 16 rows of x by a stretch of weights that it asked for earlier?
//
// A tile is some columns of y. Its warps take turns with stretches of C, STRETCH elements each, and add up through
// shared memory. Lane 4 g + t of a warp loads its part of the weights into registers, a Stage; multiply takes that
// with the lane's part of x. 16-bit types multiply on the tensor cores, x as the left operand. Which c take which of
// its 16 inner places does not matter as long as x and weight agree: so what a lane has read is its operand, without
// a detour through shared memory. [F, C]: of weight rows g, g + 8 .., a run of 4 (f32) or 8 elements for each t. [C,
// F]: of the 4 weight rows 4 t .. 4 t + 3, some columns side by side for g = 0 .. 7.
//
// Order of a sum: by lane group and warp, in ascending c each; then over t (f32: a butterfly; else in the tensor
// core), then over the warps in ascending order. Which c belong to which depends on C, layout and dtype alone, and a
// column's sum on nothing of its neighbours: a row has the same bits for any N, F, width of tile, alignment and grid.
#pragma once

#include "lib/async_copy.h"
#include "lib/mma.h"
#include "lib/reduce.h"
#include "lib/vec.h"

namespace gt {

constexpr int FEW_ROWS_ROWS = 16;  // of x per tile: the height of a tensor core's operand
constexpr int FEW_ROWS_WARPS = 8;  // of a block, at most

// Weights [F, C] or [C, F].
template <class T> struct WeightMatrix {
  const T *data;
  int64_t stride, c, f;
  bool is_aligned;  // every row
};

// Rows of x, up to 16, in global or shared memory.
template <class T> struct FewRows {
  const T *data;
  int64_t stride, n, c;
};

// Which part of a tile a lane has.
struct LanePart {
  int g, t;  // lane = 4 g + t
};

// COUNT elements from row[at] on, 0 from `length` on, as 32-bit words: two 16-bit elements each, the first in the lower
// half. WHOLE: they all exist and are aligned.
template <bool WHOLE, int COUNT, class T>
__device__ __forceinline__ void load_words(const T *row, int64_t at, int64_t length, uint32_t (&words)[COUNT / 2]) {
  static_assert(sizeof(T) == 2 && (COUNT == 2 || COUNT == 4 || COUNT == 8), "4, 8 or 16 bytes");
  if constexpr (WHOLE && COUNT == 8) {
    const uint4 v = *reinterpret_cast<const uint4 *>(row + at);
    words[0] = v.x, words[1] = v.y, words[2] = v.z, words[3] = v.w;
  } else if constexpr (WHOLE && COUNT == 2) {
    words[0] = *reinterpret_cast<const uint32_t *>(row + at);
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

// Each kind of tile: load(w, column, part, c, stage) reads STRETCH elements of C from c on, multiply(x, part, c, stage)
// adds their products with x, store writes the warp's sums to partial[row][column]. WHOLE: all elements exist and are
// aligned; of the columns only where NEEDS_WHOLE_COLUMNS.
//
// Or the weights come by way of shared memory, SLOT_BYTES a warp and stretch: copy orders them (lib/async_copy.h), and
// once the copies of all lanes have landed take brings them to registers. Rows are aligned, and what their runs are
// counted in, 16 bytes, lies within C or F whole; ALL: all of the stretch exists, else what does not becomes 0.

// copy of weights [F, C]: a lane asks for what it takes itself, of CHUNKS times 4 runs of 16 bytes and of GROUPS times
// 8 rows.
template <bool ALL, int CHUNKS, int GROUPS, class W>
__device__ __forceinline__ void copy_runs(const WeightMatrix<W> &w, int first, LanePart part, int c,
                                          unsigned char *slot) {
  constexpr int CHUNK = 4 * VEC<W>;
#pragma unroll
  for (int k = 0; k < GROUPS; ++k) {
    const int64_t column = min(int64_t{first} + k * 8 + part.g, w.f - 1);  // beyond the last: computed, never stored
    const W *const row = w.data + column * w.stride + c + part.t * VEC<W>;
#pragma unroll
    for (int i = 0; i < CHUNKS; ++i) {
      const bool exists = ALL || c + i * CHUNK + part.t * VEC<W> < w.c;
      async_copy_16(slot + ((i * GROUPS + k) * WARP + part.g * 4 + part.t) * VEC_BYTES,
                    exists ? row + i * CHUNK : w.data, exists ? VEC_BYTES : 0);
    }
  }
}

// Weights [F, C] of 16 bits: 8 columns per group.
template <class T, int GROUPS> struct RowsTile {
  static constexpr int COLUMNS = 8 * GROUPS, CHUNK = 32, CHUNKS = 4, STRETCH = CHUNK * CHUNKS;
  static constexpr bool NEEDS_WHOLE_COLUMNS = false;
  struct Stage {
    uint32_t word[CHUNKS][GROUPS][4];
  };
  float d[GROUPS][4] = {};

  template <bool WHOLE>
  static __device__ __forceinline__ void load(const WeightMatrix<T> &w, int64_t first, LanePart part, int64_t c,
                                              Stage &stage) {
#pragma unroll
    for (int i = 0; i < CHUNKS; ++i)
#pragma unroll
      for (int k = 0; k < GROUPS; ++k) {
        const int64_t column = min(first + k * 8 + part.g, w.f - 1);  // beyond the last: computed, never stored
        load_words<WHOLE, 8>(w.data + column * w.stride, c + i * CHUNK + part.t * 8, w.c, stage.word[i][k]);
      }
  }

  static constexpr int SLOT_BYTES = CHUNKS * GROUPS * WARP * VEC_BYTES;
  template <bool ALL>
  static __device__ __forceinline__ void copy(const WeightMatrix<T> &w, int first, LanePart part, int c,
                                              unsigned char *slot) {
    copy_runs<ALL, CHUNKS, GROUPS>(w, first, part, c, slot);
  }
  static __device__ __forceinline__ void take(const unsigned char *slot, LanePart part, Stage &stage) {
#pragma unroll
    for (int i = 0; i < CHUNKS; ++i)
#pragma unroll
      for (int k = 0; k < GROUPS; ++k) {
        const int at = (i * GROUPS + k) * WARP + part.g * 4 + part.t;
        const uint4 v = reinterpret_cast<const uint4 *>(slot)[at];
        uint32_t(&word)[4] = stage.word[i][k];
        word[0] = v.x, word[1] = v.y, word[2] = v.z, word[3] = v.w;
      }
  }

  template <bool WHOLE>
  __device__ __forceinline__ void multiply(const FewRows<T> &rows, LanePart part, int64_t c, const Stage &stage) {
    uint32_t x[CHUNKS][2][4];
#pragma unroll
    for (int i = 0; i < CHUNKS; ++i)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int64_t row = half * 8 + part.g;
        const int64_t at = c + i * CHUNK + part.t * 8;
        if (row < rows.n) load_words<WHOLE, 8>(rows.data + row * rows.stride, at, rows.c, x[i][half]);
        else x[i][half][0] = x[i][half][1] = x[i][half][2] = x[i][half][3] = 0;
      }
#pragma unroll
    for (int i = 0; i < CHUNKS; ++i)
#pragma unroll
      for (int j = 0; j < 4; j += 2) {
        const uint32_t a[4] = {x[i][0][j], x[i][1][j], x[i][0][j + 1], x[i][1][j + 1]};
#pragma unroll
        for (int k = 0; k < GROUPS; ++k) mma_m16n8k16<T>(d[k], a, stage.word[i][k][j], stage.word[i][k][j + 1]);
      }
  }

  __device__ __forceinline__ void store(LanePart part, float (&partial)[FEW_ROWS_ROWS][COLUMNS]) {
#pragma unroll
    for (int k = 0; k < GROUPS; ++k)
#pragma unroll
      for (int i = 0; i < 4; ++i) partial[part.g + i / 2 * 8][k * 8 + part.t * 2 + i % 2] = d[k][i];
  }
};

// Weights [C, F] of 16 bits: lane g reads WIDTH neighbours of 8 WIDTH columns; the j-th of each make the j-th product.
template <class T, int WIDTH> struct ColumnsTile {
  static constexpr int COLUMNS = 8 * WIDTH, CHUNK = 16, CHUNKS = 2, STRETCH = CHUNK * CHUNKS;
  static constexpr bool NEEDS_WHOLE_COLUMNS = true;
  struct Stage {
    uint32_t word[CHUNKS][4][WIDTH / 2];
  };
  float d[WIDTH][4] = {};

  template <bool WHOLE>
  static __device__ __forceinline__ void load(const WeightMatrix<T> &w, int64_t first, LanePart part, int64_t c,
                                              Stage &stage) {
#pragma unroll
    for (int i = 0; i < CHUNKS; ++i)
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        const int64_t at = c + i * CHUNK + part.t * 4 + k;
        const bool exists = WHOLE || at < w.c;
        load_words<WHOLE, WIDTH>(w.data + (exists ? at : 0) * w.stride, first + part.g * WIDTH, exists ? w.f : 0,
                                 stage.word[i][k]);
      }
  }

  // Row 4 t + k of a chunk is the (4 k + t)-th: what the warp takes at once lies side by side.
  static constexpr int ROW_VECTORS = COLUMNS / VEC<T>, SLOT_BYTES = STRETCH * ROW_VECTORS * VEC_BYTES;
  template <bool ALL>
  static __device__ __forceinline__ void copy(const WeightMatrix<T> &w, int first, LanePart part, int c,
                                              unsigned char *slot) {
#pragma unroll
    for (int at = part.g * 4 + part.t; at < STRETCH * ROW_VECTORS; at += WARP) {
      const int place = at / ROW_VECTORS, row = place / CHUNK * CHUNK + place % 4 * 4 + place % CHUNK / 4;
      const int column = first + at % ROW_VECTORS * VEC<T>;
      const bool exists = ALL || (c + row < w.c && column < w.f);
      async_copy_16(slot + at * VEC_BYTES, exists ? w.data + (c + row) * w.stride + column : w.data,
                    exists ? VEC_BYTES : 0);
    }
  }
  static __device__ __forceinline__ void take(const unsigned char *slot, LanePart part, Stage &stage) {
#pragma unroll
    for (int i = 0; i < CHUNKS; ++i)
#pragma unroll
      for (int k = 0; k < 4; ++k)
        load_words<true, WIDTH>(reinterpret_cast<const T *>(slot), (i * CHUNK + k * 4 + part.t) * COLUMNS +
                                part.g * WIDTH, 0, stage.word[i][k]);
  }

  template <bool WHOLE>
  __device__ __forceinline__ void multiply(const FewRows<T> &rows, LanePart part, int64_t c, const Stage &stage) {
    uint32_t x[CHUNKS][2][2];
#pragma unroll
    for (int i = 0; i < CHUNKS; ++i)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int64_t row = half * 8 + part.g;
        const int64_t at = c + i * CHUNK + part.t * 4;
        if (row < rows.n) load_words<WHOLE, 4>(rows.data + row * rows.stride, at, rows.c, x[i][half]);
        else x[i][half][0] = x[i][half][1] = 0;
      }
#pragma unroll
    for (int i = 0; i < CHUNKS; ++i) {
      const uint32_t a[4] = {x[i][0][0], x[i][1][0], x[i][0][1], x[i][1][1]};
#pragma unroll
      for (int j = 0; j < WIDTH; ++j) {
        const auto pair = [&](int k) {  // column j of rows k and k + 1
          const uint32_t upper = stage.word[i][k][j / 2], lower = stage.word[i][k + 1][j / 2];
          return j % 2 ? upper >> 16 | (lower & 0xffff0000u) : (upper & 0xffffu) | lower << 16;
        };
        mma_m16n8k16<T>(d[j], a, pair(0), pair(2));
      }
    }
  }

  __device__ __forceinline__ void store(LanePart part, float (&partial)[FEW_ROWS_ROWS][COLUMNS]) {
#pragma unroll
    for (int j = 0; j < WIDTH; ++j)
#pragma unroll
      for (int i = 0; i < 4; ++i) partial[part.g + i / 2 * 8][(part.t * 2 + i % 2) * WIDTH + j] = d[j][i];
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
  static constexpr bool NEEDS_WHOLE_COLUMNS = false;
  struct Stage {
    float4 vector[CHUNKS][GROUPS];
  };
  float sum[GROUPS][FEW_ROWS_ROWS] = {};

  template <bool WHOLE>
  static __device__ __forceinline__ void load(const WeightMatrix<float> &w, int64_t first, LanePart part, int64_t c,
                                              Stage &stage) {
#pragma unroll
    for (int i = 0; i < CHUNKS; ++i)
#pragma unroll
      for (int k = 0; k < GROUPS; ++k) {
        const int64_t column = min(first + k * 8 + part.g, w.f - 1);
        stage.vector[i][k] = load_float4<WHOLE>(w.data + column * w.stride, c + i * CHUNK + part.t * 4, w.c);
      }
  }

  static constexpr int SLOT_BYTES = CHUNKS * GROUPS * WARP * VEC_BYTES;
  template <bool ALL>
  static __device__ __forceinline__ void copy(const WeightMatrix<float> &w, int first, LanePart part, int c,
                                              unsigned char *slot) {
    copy_runs<ALL, CHUNKS, GROUPS>(w, first, part, c, slot);
  }
  static __device__ __forceinline__ void take(const unsigned char *slot, LanePart part, Stage &stage) {
#pragma unroll
    for (int i = 0; i < CHUNKS; ++i)
#pragma unroll
      for (int k = 0; k < GROUPS; ++k)
        stage.vector[i][k] = reinterpret_cast<const float4 *>(slot)[(i * GROUPS + k) * WARP + part.g * 4 + part.t];
  }

  template <bool WHOLE>
  __device__ __forceinline__ void multiply(const FewRows<float> &rows, LanePart part, int64_t c, const Stage &stage) {
#pragma unroll
    for (int r = 0; r < FEW_ROWS_ROWS; ++r) {
      if (r >= rows.n) continue;
#pragma unroll
      for (int i = 0; i < CHUNKS; ++i) {
        const float4 x = load_float4<WHOLE>(rows.data + r * rows.stride, c + i * CHUNK + part.t * 4, rows.c);
#pragma unroll
        for (int k = 0; k < GROUPS; ++k) {
          const float4 weight = stage.vector[i][k];
          float &s = sum[k][r];
          s += x.x * weight.x;
          s += x.y * weight.y;
          s += x.z * weight.z;
          s += x.w * weight.w;
        }
      }
    }
  }

  __device__ __forceinline__ void store(LanePart part, float (&partial)[FEW_ROWS_ROWS][COLUMNS]) {
#pragma unroll
    for (int k = 0; k < GROUPS; ++k)
#pragma unroll
      for (int r = 0; r < FEW_ROWS_ROWS; ++r) {
        const float s = sum_of_four(sum[k][r]);
        if (part.t == r % 4) partial[r][k * 8 + part.g] = s;
      }
  }
};

// Weights [C, F] of f32: 32 columns, of which lane g reads 4 neighbours.
struct FloatColumnsTile {
  static constexpr int COLUMNS = 32, CHUNK = 16, CHUNKS = 2, STRETCH = CHUNK * CHUNKS;
  static constexpr bool NEEDS_WHOLE_COLUMNS = true;
  struct Stage {
    float4 vector[CHUNKS][4];
  };
  float sum[FEW_ROWS_ROWS][4] = {};

  template <bool WHOLE>
  static __device__ __forceinline__ void load(const WeightMatrix<float> &w, int64_t first, LanePart part, int64_t c,
                                              Stage &stage) {
#pragma unroll
    for (int i = 0; i < CHUNKS; ++i)
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        const int64_t at = c + i * CHUNK + part.t * 4 + k;
        const bool exists = WHOLE || at < w.c;
        stage.vector[i][k] =
            load_float4<WHOLE>(w.data + (exists ? at : 0) * w.stride, first + part.g * 4, exists ? w.f : 0);
      }
  }

  static constexpr int SLOT_BYTES = CHUNKS * 4 * WARP * VEC_BYTES;
  template <bool ALL>
  static __device__ __forceinline__ void copy(const WeightMatrix<float> &w, int first, LanePart part, int c,
                                              unsigned char *slot) {
    const int column = first + part.g * 4;
#pragma unroll
    for (int i = 0; i < CHUNKS; ++i)
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        const int row = c + i * CHUNK + part.t * 4 + k;
        const bool exists = ALL || (row < w.c && column < w.f);
        async_copy_16(slot + ((i * 4 + k) * WARP + part.g * 4 + part.t) * VEC_BYTES,
                      exists ? w.data + row * w.stride + column : w.data, exists ? VEC_BYTES : 0);
      }
  }
  static __device__ __forceinline__ void take(const unsigned char *slot, LanePart part, Stage &stage) {
#pragma unroll
    for (int i = 0; i < CHUNKS; ++i)
#pragma unroll
      for (int k = 0; k < 4; ++k)
        stage.vector[i][k] = reinterpret_cast<const float4 *>(slot)[(i * 4 + k) * WARP + part.g * 4 + part.t];
  }

  template <bool WHOLE>
  __device__ __forceinline__ void multiply(const FewRows<float> &rows, LanePart part, int64_t c, const Stage &stage) {
#pragma unroll
    for (int r = 0; r < FEW_ROWS_ROWS; ++r) {
      if (r >= rows.n) continue;
#pragma unroll
      for (int i = 0; i < CHUNKS; ++i) {
        const float4 x = load_float4<WHOLE>(rows.data + r * rows.stride, c + i * CHUNK + part.t * 4, rows.c);
        const float by_row[4] = {x.x, x.y, x.z, x.w};
#pragma unroll
        for (int k = 0; k < 4; ++k) {
          sum[r][0] += by_row[k] * stage.vector[i][k].x;
          sum[r][1] += by_row[k] * stage.vector[i][k].y;
          sum[r][2] += by_row[k] * stage.vector[i][k].z;
          sum[r][3] += by_row[k] * stage.vector[i][k].w;
        }
      }
    }
  }

  __device__ __forceinline__ void store(LanePart part, float (&partial)[FEW_ROWS_ROWS][COLUMNS]) {
#pragma unroll
    for (int r = 0; r < FEW_ROWS_ROWS; ++r)
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const float s = sum_of_four(sum[r][j]);
        if (part.t == r % 4) partial[r][part.g * 4 + j] = s;
      }
  }
};

// What warp `warp` of `warps` adds to a tile: its products over every warps-th stretch of C. is_whole: the tile's
// columns all exist, and all rows are aligned.
template <class Tile, class W, class X>
__device__ __forceinline__ void multiply_share(Tile &tile, const WeightMatrix<W> &weight, const FewRows<X> &x,
                                               int64_t first, LanePart part, int warp, int warps, bool is_whole) {
#pragma unroll 1
  for (int64_t c = warp * Tile::STRETCH; c < x.c; c += warps * Tile::STRETCH) {
    typename Tile::Stage stage;
    if (is_whole && c + Tile::STRETCH <= x.c) {
      Tile::template load<true>(weight, first, part, c, stage);
      tile.template multiply<true>(x, part, c, stage);
    } else {
      Tile::template load<false>(weight, first, part, c, stage);
      tile.template multiply<false>(x, part, c, stage);
    }
  }
}

// put(row, column, sum) for each output of a tile whose columns begin at `first`, of what its warps have stored; after
// it partial may be written again. Where COLUMNS divides WARP, a thread has the column first + threadIdx.x % COLUMNS
// alone.
template <class Tile, class Put>
__device__ __forceinline__ void put_sums(const float (&partial)[FEW_ROWS_WARPS][FEW_ROWS_ROWS][Tile::COLUMNS],
                                         int warps, int64_t rows, int64_t first, int64_t f, Put put) {
  __syncthreads();
  for (int j = threadIdx.x; j < static_cast<int>(rows) * Tile::COLUMNS; j += blockDim.x) {
    const int r = j / Tile::COLUMNS, column = j % Tile::COLUMNS;
    if (first + column >= f) continue;
    float sum = partial[0][r][column];
    for (int w = 1; w < warps; ++w) sum += partial[w][r][column];
    put(r, first + column, sum);
  }
  __syncthreads();
}

// How many warps share C.
template <class Tile> int warps_for(int64_t c) {
  const int64_t stretches = (c + Tile::STRETCH - 1) / Tile::STRETCH;
  return static_cast<int>(max(int64_t{1}, min(stretches, int64_t{FEW_ROWS_WARPS})));
}

}  // namespace gt
