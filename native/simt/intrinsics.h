// What do CUDA's per-thread intrinsics compute on the CPU?
//
// The approximate ones (__expf, __fdividef, ...) are exact here: a test against this emulator says nothing about the
// error of the approximation on a GPU.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

// glibc declares functions of some of these names, hence macros.
#define __expf(x) expf(x)
#define __exp10f(x) exp10f(x)
#define __logf(x) logf(x)
#define __log2f(x) log2f(x)
#define __log10f(x) log10f(x)
#define __powf(x, y) powf(x, y)
#define __sinf(x) sinf(x)
#define __cosf(x) cosf(x)
#define __tanf(x) tanf(x)

inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline float __frsqrt_rn(float x) { return 1.0f / sqrtf(x); }
inline float __fsqrt_rn(float x) { return sqrtf(x); }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fdividef(float x, float y) { return x / y; }
inline float __fdiv_rn(float x, float y) { return x / y; }
inline float __fadd_rn(float x, float y) { return x + y; }
inline float __fsub_rn(float x, float y) { return x - y; }
inline float __fmul_rn(float x, float y) { return x * y; }
inline float __fmaf_rn(float x, float y, float z) { return fmaf(x, y, z); }
inline float __saturatef(float x) { return x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f; }  // NaN gives 0, as on the device

// Float to integer as the device does it: saturated, NaN to 0; a C++ cast of such a value is undefined.
namespace simt {
template <class Integer> inline Integer saturating_cast(float rounded) {
  using Limits = std::numeric_limits<Integer>;
  if (rounded != rounded) return 0;
  if (rounded >= -static_cast<float>(Limits::min()) && Limits::is_signed) return Limits::max();
  if (rounded >= 4294967296.0f && !Limits::is_signed) return Limits::max();
  if (rounded <= static_cast<float>(Limits::min())) return Limits::min();
  return static_cast<Integer>(rounded);
}
}  // namespace simt
inline int __float2int_rn(float x) { return simt::saturating_cast<int>(nearbyintf(x)); }
inline int __float2int_rz(float x) { return simt::saturating_cast<int>(truncf(x)); }
inline int __float2int_rd(float x) { return simt::saturating_cast<int>(floorf(x)); }
inline int __float2int_ru(float x) { return simt::saturating_cast<int>(ceilf(x)); }
inline unsigned __float2uint_rn(float x) { return simt::saturating_cast<unsigned>(nearbyintf(x)); }
inline float __int2float_rn(int x) { return static_cast<float>(x); }
inline float __uint2float_rn(unsigned x) { return static_cast<float>(x); }

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return x ? __builtin_clz(static_cast<unsigned>(x)) : 32; }
inline int __clzll(long long x) { return x ? __builtin_clzll(static_cast<unsigned long long>(x)) : 64; }
inline unsigned __brev(unsigned x) {
  x = (x >> 1 & 0x55555555u) | (x & 0x55555555u) << 1;
  x = (x >> 2 & 0x33333333u) | (x & 0x33333333u) << 2;
  x = (x >> 4 & 0x0f0f0f0fu) | (x & 0x0f0f0f0fu) << 4;
  return __builtin_bswap32(x);
}
inline unsigned __umulhi(unsigned x, unsigned y) {
  return static_cast<unsigned>(static_cast<uint64_t>(x) * y >> 32);
}

#define GT_SIMT_MIN_MAX(T)                               \
  inline T min(T a, T b) { return b < a ? b : a; }       \
  inline T max(T a, T b) { return a < b ? b : a; }
GT_SIMT_MIN_MAX(int)
GT_SIMT_MIN_MAX(unsigned)
GT_SIMT_MIN_MAX(long)
GT_SIMT_MIN_MAX(unsigned long)
GT_SIMT_MIN_MAX(long long)
GT_SIMT_MIN_MAX(unsigned long long)
#undef GT_SIMT_MIN_MAX
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }
inline double min(double a, double b) { return fmin(a, b); }
inline double max(double a, double b) { return fmax(a, b); }

template <class T> inline T __ldg(const T *p) { return *p; }
template <class T> inline T __ldcs(const T *p) { return *p; }
template <class T> inline void __stcs(T *p, T value) { *p = value; }
