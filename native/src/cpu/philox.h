// The uniforms of lib/philox.h for many neighbouring elements at once.
#pragma once

#include "cpu/vec.h"
#include "lib/philox.h"

namespace gt::GT_ISA {

typedef uint64_t vl __attribute__((vector_size(VECTOR_BYTES)));

struct WideProduct {
  vu high, low;
};

// The 64-bit products of 32-bit lanes with a constant: of the even and of the odd lanes, put together again.
GT_INLINE WideProduct wide_product(vu x, uint32_t factor) {
  const vl even = ((vl)x & 0xffffffffu) * factor, odd = ((vl)x >> 32) * factor;
  return {(vu)((even >> 32) | (odd & ~uint64_t{0xffffffffu})), (vu)((even & 0xffffffffu) | (odd << 32))};
}

// out[4 i + k]: word k of counter group + i as a uniform in (0, 1], i < W; of elements 4 group .. 4 group + 4 W - 1.
static inline void uniforms(uint64_t seed, uint32_t sequence, uint32_t step, uint64_t group, float *out) {
  uint32_t low[W], high[W];
  for (int i = 0; i < W; ++i) {
    low[i] = static_cast<uint32_t>(group + static_cast<uint64_t>(i));
    high[i] = static_cast<uint32_t>((group + static_cast<uint64_t>(i)) >> 32);
  }
  vu x[4] = {{}, {}, vu{} + step, vu{} + sequence};
  memcpy(&x[0], low, sizeof low);
  memcpy(&x[1], high, sizeof high);
  uint32_t key0 = static_cast<uint32_t>(seed), key1 = static_cast<uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const WideProduct a = wide_product(x[0], 0xD2511F53u), b = wide_product(x[2], 0xCD9E8D57u);
    x[0] = b.high ^ x[1] ^ key0;
    x[1] = b.low;
    x[2] = a.high ^ x[3] ^ key1;
    x[3] = a.low;
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  alignas(64) float number[4][W];
  for (int k = 0; k < 4; ++k)
    store(number[k], __builtin_convertvector((vi)((x[k] >> 8) + 1u), vf) * 0x1p-24f);
  for (int i = 0; i < W; ++i)
    for (int k = 0; k < 4; ++k) out[4 * i + k] = number[k][i];
}

}  // namespace gt::GT_ISA
