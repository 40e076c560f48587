// How does a warp multiply up to 16 rows of x by a stretch of e4m3 weights [F, C]?
//
// A tile of lib/few_rows.h for WeightMatrix<e4m3>, with the weights as the tensor core's left operand, 16 columns high,
// and x as the right one, 8 rows wide: registers as they come from a load are an operand there, while the left one is
// made in registers anyway, from e4m3 to x's 16-bit type (x of e4m3 becomes f16 likewise). Lane 4 g + t has a run of 16
// elements of weight rows g and g + 8, and the same 16 of x's rows g, g + 8.
//
// A kernel that uses it multiplies a finished sum by the column's scale: scaled_sum<Tile>; and gives a tile at most
// ROWS rows of x. As with RowsTile, x may lie in shared memory; where its rows are a multiple of 128 bytes and 16 more
// apart, no two lanes meet in a bank. A column's sum has the same bits for any number of groups and halves.
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

// X: bf16, f16 or e4m3, the type of x. 16 columns per group, 8 rows of x per half.
template <class X, int GROUPS, int HALVES> struct F8RowsTile {
  using Weight = e4m3;
  using Operand = std::conditional_t<std::is_same_v<X, e4m3>, f16, X>;  // of the tensor cores
  static constexpr int COLUMNS = 16 * GROUPS, ROWS = 8 * HALVES, STRETCH = 64;
  static constexpr bool NEEDS_WHOLE_COLUMNS = false;
  // What a sum lacks; a power of two.
  static constexpr float UNIT = E4M3_UNIT<Operand> * (std::is_same_v<X, e4m3> ? E4M3_UNIT<Operand> : 1.0f);
  struct Stage {
    uint32_t word[GROUPS][2][4];
  };
  float d[GROUPS][HALVES][4] = {};

  template <bool WHOLE>
  static __device__ __forceinline__ void load(const WeightMatrix<e4m3> &w, int64_t first, LanePart part, int64_t c,
                                              Stage &stage) {
#pragma unroll
    for (int k = 0; k < 2 * GROUPS; ++k) {
      const int64_t column = min(first + k * 8 + part.g, w.f - 1);  // beyond the last: computed, never stored
      load_sixteen<WHOLE>(w.data + column * w.stride, c + part.t * 16, w.c, stage.word[k / 2][k % 2]);
    }
  }

  static constexpr int SLOT_BYTES = GROUPS * 2 * WARP * VEC_BYTES;
  template <bool ALL>
  static __device__ __forceinline__ void copy(const WeightMatrix<e4m3> &w, int first, LanePart part, int c,
                                              unsigned char *slot) {
    copy_runs<ALL, 1, 2 * GROUPS>(w, first, part, c, slot);
  }
  static __device__ __forceinline__ void take(const unsigned char *slot, LanePart part, Stage &stage) {
#pragma unroll
    for (int k = 0; k < 2 * GROUPS; ++k) {
      const uint4 v = reinterpret_cast<const uint4 *>(slot)[k * WARP + part.g * 4 + part.t];
      uint32_t(&word)[4] = stage.word[k / 2][k % 2];
      word[0] = v.x, word[1] = v.y, word[2] = v.z, word[3] = v.w;
    }
  }

  // Of one row of x: 16 elements as pairs.
  template <bool WHOLE>
  static __device__ __forceinline__ void load_x(const X *row, int64_t at, int64_t length, uint32_t (&x)[8]) {
    if constexpr (std::is_same_v<X, e4m3>) {
      uint32_t words[4];
      load_sixteen<WHOLE>(row, at, length, words);
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        uint32_t pairs[2];
        widen_e4m3<Operand>(words[j], pairs);
        x[2 * j] = pairs[0], x[2 * j + 1] = pairs[1];
      }
    } else {
#pragma unroll
      for (int j = 0; j < 8; j += 4) {
        uint32_t words[4];
        load_words<WHOLE, 8>(row, at + 2 * j, length, words);
#pragma unroll
        for (int k = 0; k < 4; ++k) x[j + k] = words[k];
      }
    }
  }

  template <bool WHOLE>
  __device__ __forceinline__ void multiply(const FewRows<X> &rows, LanePart part, int64_t c, const Stage &stage) {
    uint32_t x[HALVES][8];
#pragma unroll
    for (int half = 0; half < HALVES; ++half) {
      const int64_t row = min(int64_t{half * 8 + part.g}, rows.n - 1);  // beyond the last: computed, never stored
      load_x<WHOLE>(rows.data + row * rows.stride, c + part.t * 16, rows.c, x[half]);
    }
#pragma unroll
    for (int j = 0; j < 4; ++j)
#pragma unroll
      for (int k = 0; k < GROUPS; ++k) {
        uint32_t upper[2], lower[2];
        widen_e4m3<Operand>(stage.word[k][0][j], upper);
        widen_e4m3<Operand>(stage.word[k][1][j], lower);
        const uint32_t a[4] = {upper[0], lower[0], upper[1], lower[1]};
#pragma unroll
        for (int half = 0; half < HALVES; ++half)
          mma_m16n8k16<Operand>(d[k][half], a, x[half][2 * j], x[half][2 * j + 1]);
      }
  }

  __device__ __forceinline__ void store(LanePart part, float (&partial)[FEW_ROWS_ROWS][COLUMNS]) {
#pragma unroll
    for (int k = 0; k < GROUPS; ++k)
#pragma unroll
      for (int half = 0; half < HALVES; ++half)
#pragma unroll
        for (int i = 0; i < 4; ++i)
          partial[half * 8 + part.t * 2 + i % 2][k * 16 + i / 2 * 8 + part.g] = d[k][half][i];
  }
};

// What a finished sum stands for, with the column's bias; x_scale is 1 where x has none.
template <class Tile>
__device__ __forceinline__ float scaled_sum(float sum, float weight_scale, float x_scale, float bias) {
  return __fmaf_rn(__fmul_rn(sum, weight_scale * Tile::UNIT), x_scale, bias);
}

}  // namespace gt
