// What do mma.sync and ldmatrix do when the last lane of a warp arrives?
//
// The last lane reads the others' registers from their stacks and writes the results back there. Products are summed in
// f32, k ascending; a GPU sums in an order of its own, and truncates. Reported: a warp with a lane missing, a row of
// ldmatrix that is not 16 aligned bytes of shared memory.
#pragma once

#include "simt/shared_address.h"
#include "simt/warp.h"

namespace simt {

enum class Format { BF16, F16 };

// F16 by hand: without F16C the compiler calls a function for each. Denormals come out right: the product is exact.
template <Format FORMAT> GT_SIMT_UNWATCHED __attribute__((always_inline)) inline float widen(uint32_t bits) {
  if (FORMAT == Format::BF16) return __uint_as_float(bits << 16);
  uint32_t magnitude = (bits & 0x7fff) << 13;
  const float scaled = __uint_as_float(magnitude) * 0x1p112f;
  magnitude = (bits & 0x7c00) == 0x7c00 ? magnitude | 0x7f800000u : __float_as_uint(scaled);
  return __uint_as_float(magnitude | (bits & 0x8000) << 16);
}

struct MmaOperand {
  float *d;
  const uint32_t *a;
  uint32_t b[2];
};

template <Format FORMAT> GT_SIMT_UNWATCHED inline void execute_mma_m16n8k16(Warp &warp, uint32_t active) {
  if (active != ~0u) fail("mma.sync takes 32 lanes, the warp has others: %s", describe(*current->running).text);
  typedef float Row __attribute__((vector_size(32)));
  float a[16][16];
  Row b[16], d[16];
  for (int lane = 0; lane < 32; ++lane) {
    const MmaOperand &operand = *static_cast<const MmaOperand *>(warp.operand[lane]);
    const int g = lane / 4, t = lane % 4 * 2;
    for (int i = 0; i < 4; ++i) {
      float *const pair = &a[g + i % 2 * 8][t + i / 2 * 8];
      pair[0] = widen<FORMAT>(operand.a[i] & 0xffff);
      pair[1] = widen<FORMAT>(operand.a[i] >> 16);
    }
    for (int i = 0; i < 2; ++i) {
      b[t + i * 8][g] = widen<FORMAT>(operand.b[i] & 0xffff);
      b[t + i * 8 + 1][g] = widen<FORMAT>(operand.b[i] >> 16);
    }
    for (int i = 0; i < 4; ++i) d[g + i / 2 * 8][t + i % 2] = operand.d[i];
  }
  for (int row = 0; row < 16; ++row)
    for (int k = 0; k < 16; ++k) d[row] += a[row][k] * b[k];
  for (int lane = 0; lane < 32; ++lane) {
    float *const out = static_cast<const MmaOperand *>(warp.operand[lane])->d;
    for (int i = 0; i < 4; ++i) out[i] = d[lane / 4 + i / 2 * 8][lane % 4 * 2 + i % 2];
  }
}

template <Format FORMAT>
inline void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, Site site) {
  MmaOperand operand{d, a, {b0, b1}};
  collective(~0u, "mma.sync", &operand, execute_mma_m16n8k16<FORMAT>, site);
}

struct LdmatrixOperand {
  uint32_t *r;
  const uint16_t *row;
};

template <bool TRANSPOSED> GT_SIMT_UNWATCHED inline void execute_ldmatrix_x4(Warp &warp, uint32_t active) {
  if (active != ~0u) fail("ldmatrix takes 32 lanes, the warp has others: %s", describe(*current->running).text);
  const uint16_t *row[32];
  for (int lane = 0; lane < 32; ++lane) row[lane] = static_cast<const LdmatrixOperand *>(warp.operand[lane])->row;
  for (int lane = 0; lane < 32; ++lane) {
    const int g = lane / 4, t = lane % 4 * 2;
    uint32_t *const r = static_cast<const LdmatrixOperand *>(warp.operand[lane])->r;
    for (int i = 0; i < 4; ++i) {
      const uint16_t *const *const matrix = row + i * 8;
      const uint32_t low = TRANSPOSED ? matrix[t][g] : matrix[g][t];
      const uint32_t high = TRANSPOSED ? matrix[t + 1][g] : matrix[g][t + 1];
      r[i] = low | high << 16;
    }
  }
}

// Each lane answers for the row that it names: in a race build the read is its own, at the kernel's line.
template <bool TRANSPOSED> __attribute__((noinline)) void ldmatrix_x4(uint32_t (&r)[4], const void *row, Site site) {
  begin_call("ldmatrix", site);
  if (!is_shared(row, 16) || reinterpret_cast<uintptr_t>(row) % 16)
    fail("a row of ldmatrix must be 16 aligned bytes of shared memory: %s", describe(*current->running).text);
  race::access(row, 16, race::Access::READ, __builtin_return_address(0));
  LdmatrixOperand operand{r, static_cast<const uint16_t *>(row)};
  collective(~0u, "ldmatrix", &operand, execute_ldmatrix_x4<TRANSPOSED>, site);
}

}  // namespace simt
