// What are CUDA's built-in types on the CPU: vectors, dim3, bf16 and half, and their conversions?
//
// Only what our kernels use, with CUDA's names, layouts and alignments. bf16 and half have no arithmetic here on
// purpose: kernels widen to float first.
#pragma once

#include <cstdint>
#include <cstring>

// Kernels read float and 16-bit arrays through vector types; under g++'s aliasing rules that needs may_alias.
#define GT_SIMT_VECTOR(bytes) __attribute__((aligned(bytes), may_alias))

struct GT_SIMT_VECTOR(8) float2 { float x, y; };
struct float3 { float x, y, z; };
struct GT_SIMT_VECTOR(16) float4 { float x, y, z, w; };
struct GT_SIMT_VECTOR(8) int2 { int x, y; };
struct GT_SIMT_VECTOR(16) int4 { int x, y, z, w; };
struct GT_SIMT_VECTOR(8) uint2 { unsigned x, y; };
struct uint3 { unsigned x, y, z; };
struct GT_SIMT_VECTOR(16) uint4 { unsigned x, y, z, w; };

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

inline float2 make_float2(float x, float y) { return {x, y}; }
inline float3 make_float3(float x, float y, float z) { return {x, y, z}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline int2 make_int2(int x, int y) { return {x, y}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

inline uint32_t __float_as_uint(float f) { uint32_t u; memcpy(&u, &f, sizeof u); return u; }
inline float __uint_as_float(uint32_t u) { float f; memcpy(&f, &u, sizeof f); return f; }
inline int __float_as_int(float f) { return static_cast<int>(__float_as_uint(f)); }
inline float __int_as_float(int i) { return __uint_as_float(static_cast<uint32_t>(i)); }

// Bf16: the upper half of a float

struct __nv_bfloat16 { uint16_t bits; };
struct GT_SIMT_VECTOR(4) __nv_bfloat162 { __nv_bfloat16 x, y; };
using nv_bfloat16 = __nv_bfloat16;
using nv_bfloat162 = __nv_bfloat162;

inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short bits) { return {bits}; }
inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 b) { return b.bits; }
inline float __bfloat162float(__nv_bfloat16 b) { return __uint_as_float(static_cast<uint32_t>(b.bits) << 16); }

// To nearest, ties to even; every NaN becomes 0x7fff, as on the device.
inline __nv_bfloat16 __float2bfloat16_rn(float f) {
  const uint32_t u = __float_as_uint(f);
  if ((u & 0x7fffffffu) > 0x7f800000u) return {0x7fff};
  return {static_cast<uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16)};
}
inline __nv_bfloat16 __float2bfloat16(float f) { return __float2bfloat16_rn(f); }
inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y) {
  return {__float2bfloat16_rn(x), __float2bfloat16_rn(y)};
}
inline float2 __bfloat1622float2(__nv_bfloat162 v) { return {__bfloat162float(v.x), __bfloat162float(v.y)}; }
inline float __low2float(__nv_bfloat162 v) { return __bfloat162float(v.x); }
inline float __high2float(__nv_bfloat162 v) { return __bfloat162float(v.y); }

// Half: the compiler's own 16-bit float does the rounding

#if defined(__x86_64__)
namespace simt { using CompilerHalf = _Float16; }
#else
namespace simt { using CompilerHalf = __fp16; }
#endif

struct __half { uint16_t bits; };
struct GT_SIMT_VECTOR(4) __half2 { __half x, y; };
using half = __half;
using half2 = __half2;

inline __half __ushort_as_half(unsigned short bits) { return {bits}; }
inline unsigned short __half_as_ushort(__half h) { return h.bits; }
inline float __half2float(__half h) {
  simt::CompilerHalf value;
  memcpy(&value, &h.bits, sizeof value);
  return static_cast<float>(value);
}
inline __half __float2half_rn(float f) {
  const simt::CompilerHalf value = static_cast<simt::CompilerHalf>(f);
  __half h;
  memcpy(&h.bits, &value, sizeof value);
  return h;
}
inline __half __float2half(float f) { return __float2half_rn(f); }
inline __half2 __floats2half2_rn(float x, float y) { return {__float2half_rn(x), __float2half_rn(y)}; }
inline float2 __half22float2(__half2 v) { return {__half2float(v.x), __half2float(v.y)}; }
inline float __low2float(__half2 v) { return __half2float(v.x); }
inline float __high2float(__half2 v) { return __half2float(v.y); }
