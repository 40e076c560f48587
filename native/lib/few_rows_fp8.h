// How does a warp multiply up to 16 rows of x by a stretch of e4m3 weights [F, C]?
//
// A tile of lib/few_rows.h for WeightMatrix<e4m3>: lane 4 g + t has of weight rows g, g + 8 .. a run of 16 elements,
// and of x the same 16, so that again what a lane has read is its operand. Weights become x's 16-bit type in registers;
// x of e4m3 becomes f16 likewise.
//
// A kernel that uses it multiplies a finished sum by the column's scale: scaled_sum<Tile>. As in RowsTile, x may lie in
// shared memory; where its rows are a multiple of 128 bytes and 16 more apart, no two lanes meet in a bank. A column's
// sum has the same bits for any number of groups.
#pragma once

#include "lib/e4m3.h"
#include "lib/few_rows.h"

namespace gt {

// 16 elements from row[at] on, 0 from `length` on. WHOLE: they all exist and are aligned.
template <bool WHOLE>
__device__ __forceinline__ void load_sixteen(const e4m3 *row, int64_t at, int64_t length, uint32_t (&words)[4]) {
  if constexpr (WHOLE) {
    const uint4 v = *reinterpret_cast<const uint4 *>(row + at);
    words[0] = v.x, words[1] = v.y, words[2] = v.z, words[3] = v.w;
  } else {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      words[i] = 0;
#pragma unroll
      for (int j = 0; j < 4; ++j)
        if (const int64_t k = at + i * 4 + j; k < length) words[i] |= static_cast<uint32_t>(row[k].bits) << 8 * j;
    }
  }
}

// X: bf16, f16 or e4m3, the type of x. 8 columns per group.
template <class X, int GROUPS> struct F8RowsTile {
  using Weight = e4m3;
  using Operand = std::conditional_t<std::is_same_v<X, e4m3>, f16, X>;  // of the tensor cores
  static constexpr int COLUMNS = 8 * GROUPS, CHUNK = 64, CHUNKS = 2, STRETCH = CHUNK * CHUNKS;
  static constexpr bool NEEDS_WHOLE_COLUMNS = false;
  // What a sum lacks; a power of two.
  static constexpr float UNIT = E4M3_UNIT<Operand> * (std::is_same_v<X, e4m3> ? E4M3_UNIT<Operand> : 1.0f);
  struct Stage {
    uint32_t word[CHUNKS][GROUPS][4];
  };
  float d[GROUPS][4] = {};

  template <bool WHOLE>
  static __device__ __forceinline__ void load(const WeightMatrix<e4m3> &w, int64_t first, LanePart part, int64_t c,
                                              Stage &stage) {
#pragma unroll
    for (int i = 0; i < CHUNKS; ++i)
#pragma unroll
      for (int k = 0; k < GROUPS; ++k) {
        const int64_t column = min(first + k * 8 + part.g, w.f - 1);  // beyond the last: computed, never stored
        load_sixteen<WHOLE>(w.data + column * w.stride, c + i * CHUNK + part.t * 16, w.c, stage.word[i][k]);
      }
  }

  // Of one row: 16 elements as pairs.
  template <bool WHOLE>
  static __device__ __forceinline__ void load_x(const FewRows<X> &rows, int64_t row, int64_t at, uint32_t (&x)[8]) {
    if (row >= rows.n) {
#pragma unroll
      for (int j = 0; j < 8; ++j) x[j] = 0;
      return;
    }
    const X *const data = rows.data + row * rows.stride;
    if constexpr (std::is_same_v<X, e4m3>) {
      uint32_t words[4];
      load_sixteen<WHOLE>(data, at, rows.c, words);
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        uint32_t pairs[2];
        widen_e4m3<Operand>(words[j], pairs);
        x[2 * j] = pairs[0], x[2 * j + 1] = pairs[1];
      }
    } else {
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        uint32_t words[4];
        load_words<WHOLE, 8>(data, at + 8 * j, rows.c, words);
#pragma unroll
        for (int k = 0; k < 4; ++k) x[4 * j + k] = words[k];
      }
    }
  }

  template <bool WHOLE>
  __device__ __forceinline__ void multiply(const FewRows<X> &rows, LanePart part, int64_t c, const Stage &stage) {
#pragma unroll
    for (int i = 0; i < CHUNKS; ++i) {
      uint32_t x[2][8];
#pragma unroll
      for (int half = 0; half < 2; ++half)
        load_x<WHOLE>(rows, half * 8 + part.g, c + i * CHUNK + part.t * 16, x[half]);
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const uint32_t a[4] = {x[0][2 * j], x[1][2 * j], x[0][2 * j + 1], x[1][2 * j + 1]};
#pragma unroll
        for (int k = 0; k < GROUPS; ++k) {
          uint32_t b[2];
          widen_e4m3<Operand>(stage.word[i][k][j], b);
          mma_m16n8k16<Operand>(d[k], a, b[0], b[1]);
        }
      }
    }
  }

  __device__ __forceinline__ void store(LanePart part, float (&partial)[FEW_ROWS_ROWS][COLUMNS]) {
#pragma unroll
    for (int k = 0; k < GROUPS; ++k)
#pragma unroll
      for (int i = 0; i < 4; ++i) partial[part.g + i / 2 * 8][k * 8 + part.t * 2 + i % 2] = d[k][i];
  }
};

// What a finished sum stands for, with the column's bias; x_scale is 1 where x has none.
template <class Tile>
__device__ __forceinline__ float scaled_sum(float sum, float weight_scale, float x_scale, float bias) {
  return __fmaf_rn(__fmul_rn(sum, weight_scale * Tile::UNIT), x_scale, bias);
}

}  // namespace gt
