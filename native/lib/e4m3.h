// How do e4m3 numbers become operands of the tensor cores, and how does a kernel round to them?
//
// S.EEEE.MMM, bias 7, subnormals from 2^-9, up to 448, no infinity; the two codes of NaN count as 480 and -480 here. A
// code's fields are moved to those of the 16-bit type, which also makes subnormals of subnormals: what differs is the
// bias, a power of two. PTX ISA, "prmt", "cvt.rn.satfinite.e4m3x2.f32" (sm_89; before, integer operations).
#pragma once

#include "lib/cuda.h"

#include <cstring>
#include <type_traits>

namespace gt {

struct e4m3 { uint8_t bits; };

constexpr float E4M3_MAX = 448;

// What widen_e4m3 leaves out of each number: in f16 the other bias; bf16, whose sums would leave the range of f32, has
// it multiplied in.
template <class T> constexpr float E4M3_UNIT = std::is_same_v<T, f16> ? 256.0f : 1.0f;

#if defined(__CUDACC__)

// Two bytes of a word as signed 16-bit halves of another: bytes 0 and 1, or 2 and 3.
template <bool UPPER> __device__ __forceinline__ uint32_t extend_two_bytes(uint32_t word) {
  uint32_t halves;  // a selector's upper bit says: the sign of that byte, eight times
  asm("prmt.b32 %0, %1, 0, %2;" : "=r"(halves) : "r"(word), "n"(UPPER ? 0xb3a2 : 0x9180));
  return halves;
}

// Each half times 2^120, exactly: from a number whose exponent has e4m3's bias to the number meant.
__device__ __forceinline__ uint32_t rebias_bf16(uint32_t pair) {
  const auto power = __halves2bfloat162(__ushort_as_bfloat16(0x7b80), __ushort_as_bfloat16(0x7b80));
  __nv_bfloat162 v;
  memcpy(&v, &pair, sizeof v);
  v = __hmul2(v, power);
  memcpy(&pair, &v, sizeof pair);
  return pair;
}

#else

template <bool UPPER> inline uint32_t extend_two_bytes(uint32_t word) {
  const auto extended = [&](int byte) { return static_cast<uint16_t>(static_cast<int8_t>(word >> 8 * byte)); };
  return extended(UPPER ? 2 : 0) | static_cast<uint32_t>(extended(UPPER ? 3 : 1)) << 16;
}

inline uint32_t rebias_bf16(uint32_t pair) {
  const auto rebiased = [](uint32_t bits) { return __float_as_uint(__uint_as_float(bits << 16) * 0x1p120f) >> 16; };
  return rebiased(pair & 0xffffu) | rebiased(pair >> 16) << 16;
}

#endif

// Four neighbours as two pairs of T (bf16 or f16), the left one in the lower half; numbers over E4M3_UNIT<T>.
template <class T> __device__ __forceinline__ void widen_e4m3(uint32_t four, uint32_t (&pairs)[2]) {
  const auto widened = [](uint32_t halves) {  // sign to bit 15, the other 7 bits from the mantissa's uppermost 3 on
    if constexpr (std::is_same_v<T, f16>) return halves << 7 & 0xbf80bf80u;
    else return rebias_bf16(halves << 4 & 0x87f087f0u);
  };
  pairs[0] = widened(extend_two_bytes<false>(four));
  pairs[1] = widened(extend_two_bytes<true>(four));
}

// To the nearest, ties to even, at most E4M3_MAX; v is no NaN.
__device__ __forceinline__ uint32_t e4m3_code(float v) {
  const float magnitude = fminf(fabsf(v), E4M3_MAX);
  const uint32_t u = __float_as_uint(magnitude);
  const uint32_t normal = ((u + 0x7ffffu + (u >> 20 & 1u)) >> 20) - ((127 - 7) << 3);
  const uint32_t subnormal = __float_as_uint(magnitude + 0x1p14f) - 0x46800000u;  // the unit of 2^14 is 2^-9
  return (magnitude < 0x1p-6f ? subnormal : normal) | (__float_as_uint(v) >> 24 & 0x80u);
}

// Likewise two, `low` in the lower byte.
__device__ __forceinline__ uint32_t pack_e4m3(float low, float high) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
  uint16_t codes;
  asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(codes) : "f"(high), "f"(low));
  return codes;
#else
  return e4m3_code(low) | e4m3_code(high) << 8;
#endif
}

}  // namespace gt
