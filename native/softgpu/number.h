// How are the numbers of cublasLt's and cuDNN's operands read and written?
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace softgpu {

enum class Type { F32, BF16, F16, F8_E4M3 };  // F8_E4M3: operands of products alone

inline int64_t bytes_of(Type type) { return type == Type::F32 ? 4 : type == Type::F8_E4M3 ? 1 : 2; }

inline float load_bf16(const void *p) {
  uint16_t half;
  memcpy(&half, p, sizeof half);
  const uint32_t bits = uint32_t{half} << 16;
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

inline float load_f16(const void *p) {
  _Float16 x;
  memcpy(&x, p, sizeof x);
  return static_cast<float>(x);
}

// 4 bits of exponent with bias 7, 3 of mantissa; all ones are a NaN, there is no infinity.
inline float load_e4m3(const void *p) {
  uint8_t code;
  memcpy(&code, p, sizeof code);
  const uint32_t sign = uint32_t{code} >> 7 << 31, magnitude = code & 0x7fu;
  if (magnitude < 8) return (sign ? -0x1p-9f : 0x1p-9f) * static_cast<float>(magnitude);  // zero and subnormals
  const uint32_t bits = sign | (magnitude == 0x7f ? 0x7fc00000u : (magnitude << 20) + ((127u - 7u) << 23));
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

inline float load(Type type, const void *p) {
  if (type == Type::BF16) return load_bf16(p);
  if (type == Type::F16) return load_f16(p);
  if (type == Type::F8_E4M3) return load_e4m3(p);
  float x;
  memcpy(&x, p, sizeof x);
  return x;
}

// Rounds to nearest, ties to even. Nothing is stored as F8_E4M3.
inline void store(Type type, void *p, float x) {
  if (type == Type::F32) {
    memcpy(p, &x, sizeof x);
  } else if (type == Type::F16) {
    const auto half = static_cast<_Float16>(x);
    memcpy(p, &half, sizeof half);
  } else {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    const bool is_nan = (bits & 0x7fffffffu) > 0x7f800000u;
    const auto half = static_cast<uint16_t>((is_nan ? bits | 0x400000u : bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
    memcpy(p, &half, sizeof half);
  }
}

// What a tensor core makes of an f32 operand where TF32 is allowed: 10 bits after the point, ties away from zero.
inline float to_tf32(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  if ((bits & 0x7f800000u) == 0x7f800000u) return x;  // Inf, NaN
  bits = (bits + 0x1000u) & ~0x1fffu;
  memcpy(&x, &bits, sizeof x);
  return x;
}

}  // namespace softgpu
