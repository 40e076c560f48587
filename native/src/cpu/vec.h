// Vectors of floats as wide as the instruction set, loaded from and stored to f32, bf16 and f16.
#pragma once

#include <stdint.h>
#include <string.h>

#include "gatun/types.h"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace gt::GT_ISA {

#if defined(__AVX512F__)
constexpr int VECTOR_BYTES = 64;
#elif defined(__AVX2__)
constexpr int VECTOR_BYTES = 32;
#else
constexpr int VECTOR_BYTES = 16;
#endif

typedef float vf __attribute__((vector_size(VECTOR_BYTES)));
typedef int32_t vi __attribute__((vector_size(VECTOR_BYTES)));
typedef uint32_t vu __attribute__((vector_size(VECTOR_BYTES)));
typedef uint16_t vh __attribute__((vector_size(VECTOR_BYTES / 2)));
constexpr int W = VECTOR_BYTES / 4;

struct bf16 {
  uint16_t bits;
};
struct f16 {
  uint16_t bits;
};

#define GT_INLINE static inline __attribute__((always_inline))

// Subtracting zero, unlike adding it, is known to the compiler to change nothing.
GT_INLINE vf broadcast(float x) { return x - vf{}; }

GT_INLINE float to_float(float x) { return x; }
GT_INLINE float to_float(bf16 x) {
  const uint32_t u = static_cast<uint32_t>(x.bits) << 16;
  float f;
  memcpy(&f, &u, 4);
  return f;
}
GT_INLINE float to_float(f16 x) {
  _Float16 h;
  memcpy(&h, &x, 2);
  return static_cast<float>(h);
}

GT_INLINE void from_float(float x, float *p) { *p = x; }
GT_INLINE void from_float(float x, bf16 *p) {
  uint32_t u;
  memcpy(&u, &x, 4);
  const bool nan = (u & 0x7fffffffu) > 0x7f800000u;
  p->bits = static_cast<uint16_t>(nan ? (u >> 16) | 0x40 : (u + 0x7fffu + (u >> 16 & 1)) >> 16);
}
GT_INLINE void from_float(float x, f16 *p) {
  const _Float16 h = static_cast<_Float16>(x);
  memcpy(p, &h, 2);
}

GT_INLINE vf load(const float *p) {
  vf v;
  memcpy(&v, p, sizeof v);
  return v;
}
// gcc 12 splits the general conversion in two halves, which doubles the cost of a one-row product.
GT_INLINE vf load(const bf16 *p) {
#if defined(__AVX512F__)
  return (vf)((vu)_mm512_maskz_cvtepu16_epi32(0xffff, _mm256_loadu_si256(reinterpret_cast<const __m256i *>(p))) << 16);
#elif defined(__AVX2__)
  return (vf)((vu)_mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i *>(p))) << 16);
#else
  vh h;
  memcpy(&h, p, sizeof h);
  return (vf)(__builtin_convertvector(h, vu) << 16);
#endif
}
// The masked forms say the same as the plain ones and spare gcc 12 a false warning about undefined lanes.
GT_INLINE vf load(const f16 *p) {
#if defined(__AVX512F__)
  return (vf)_mm512_maskz_cvtph_ps(0xffff, _mm256_loadu_si256(reinterpret_cast<const __m256i *>(p)));
#elif defined(__F16C__)
  return (vf)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i *>(p)));
#else
  vf v;
  for (int i = 0; i < W; ++i) v[i] = to_float(p[i]);
  return v;
#endif
}

GT_INLINE void store(float *p, vf v) { memcpy(p, &v, sizeof v); }
GT_INLINE void store(bf16 *p, vf v) {
  const vu u = (vu)v;
#if defined(__AVX512F__)
  const __m512i rounded = (__m512i)(u + 0x7fffu + (u >> 16 & 1u));
  const __mmask16 nan = _mm512_cmp_ps_mask((__m512)v, (__m512)v, _CMP_UNORD_Q);
  const __m512i quiet = _mm512_mask_or_epi32(rounded, nan, (__m512i)u, _mm512_set1_epi32(0x400000));
  _mm256_storeu_si256(reinterpret_cast<__m256i *>(p), _mm512_maskz_cvtepi32_epi16(0xffff, (__m512i)((vu)quiet >> 16)));
#else
  const vu rounded = (u + 0x7fffu + (u >> 16 & 1u)) >> 16;
  const vu quiet = u >> 16 | 0x40u;
  const vu nan = (vu)((u & 0x7fffffffu) > 0x7f800000u);
  const vh h = __builtin_convertvector((nan & quiet) | (~nan & rounded), vh);
  memcpy(p, &h, sizeof h);
#endif
}
GT_INLINE void store(f16 *p, vf v) {
#if defined(__AVX512F__)
  _mm256_storeu_si256(reinterpret_cast<__m256i *>(p),
                      _mm512_maskz_cvtps_ph(0xffff, (__m512)v, _MM_FROUND_TO_NEAREST_INT));
#elif defined(__F16C__)
  _mm_storeu_si128(reinterpret_cast<__m128i *>(p), _mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT));
#else
  for (int i = 0; i < W; ++i) from_float(v[i], p + i);
#endif
}

// 2 W elements, those of even and those of odd indices: an operation for each, where their order would take three more.
GT_INLINE void load_two(const bf16 *p, vf &even, vf &odd) {
  vu both;
  memcpy(&both, p, sizeof both);
  even = (vf)(both << 16);
  odd = (vf)(both & 0xffff0000u);
}

// Back, to the nearest. NaNs stay such where their lower 16 bits are 0, as those of bf16 are. AWAY: where two are as
// near, not the even one but that away from zero: for values less exact than that anyway, in half the time.
enum Ties { EVEN, AWAY };
template <Ties TIES>
GT_INLINE vu join_two(vf even, vf odd) {
  const auto rounded = [](vf v) {
    const vu u = (vu)v;
    return TIES == AWAY ? u + 0x8000u : u + 0x7fffu + (u >> 16 & 1u);
  };
  return rounded(even) >> 16 | (rounded(odd) & 0xffff0000u);
}

constexpr int64_t STREAM_BYTES = 16 << 20;  // of y: more than would still be cached when the next op reads it

// Past the caches: spares reading the lines that are overwritten. p is aligned to sizeof(T) * W; finish_streaming comes
// before another thread reads.
template <class T>
GT_INLINE void store_streaming(T *p, vf v) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) {
    _mm512_stream_ps(reinterpret_cast<float *>(p), (__m512)v);
  } else {
    T rounded[W];
    store(rounded, v);
    _mm256_stream_si256(reinterpret_cast<__m256i *>(p), _mm256_loadu_si256(reinterpret_cast<__m256i *>(rounded)));
  }
#elif defined(__AVX2__)
  if constexpr (sizeof(T) == 4) {
    _mm256_stream_ps(reinterpret_cast<float *>(p), (__m256)v);
  } else {
    T rounded[W];
    store(rounded, v);
    _mm_stream_si128(reinterpret_cast<__m128i *>(p), _mm_loadu_si128(reinterpret_cast<__m128i *>(rounded)));
  }
#else
  store(p, v);
#endif
}
// What join_two makes; p is aligned to VECTOR_BYTES.
GT_INLINE void store_streaming(void *p, vu bits) { store_streaming(static_cast<float *>(p), (vf)bits); }
GT_INLINE void finish_streaming() {
#if defined(__AVX2__)
  _mm_sfence();
#endif
}

// The first n < W elements; the rest of the vector is fill.
template <class T>
GT_INLINE vf load_part(const T *p, int64_t n, float fill = 0) {
  vf v = broadcast(fill);
  for (int i = 0; i < n; ++i) v[i] = to_float(p[i]);
  return v;
}
template <class T>
GT_INLINE void store_part(T *p, vf v, int64_t n) {
  for (int i = 0; i < n; ++i) from_float(v[i], p + i);
}

GT_INLINE vf select(vi mask, vf yes, vf no) { return (vf)((mask & (vi)yes) | (~mask & (vi)no)); }
// The larger, b where either is NaN: what one instruction does.
GT_INLINE vf vmax(vf a, vf b) {
#if defined(__AVX512F__)
  return (vf)_mm512_maskz_max_ps(0xffff, (__m512)a, (__m512)b);
#elif defined(__AVX2__)
  return (vf)_mm256_max_ps((__m256)a, (__m256)b);
#else
  return select(a > b, a, b);
#endif
}

// The smaller, likewise.
GT_INLINE vf vmin(vf a, vf b) {
#if defined(__AVX512F__)
  return (vf)_mm512_maskz_min_ps(0xffff, (__m512)a, (__m512)b);
#elif defined(__AVX2__)
  return (vf)_mm256_min_ps((__m256)a, (__m256)b);
#else
  return select(a < b, a, b);
#endif
}

// Horizontal sum and maximum, halves folded onto each other: one order for every caller.
GT_INLINE float sum_lanes(vf v) {
  float a[W];
  store(a, v);
  for (int n = W / 2; n > 0; n /= 2)
    for (int i = 0; i < n; ++i) a[i] += a[i + n];
  return a[0];
}
GT_INLINE float max_lanes(vf v) {
  float a[W];
  store(a, v);
  for (int n = W / 2; n > 0; n /= 2)
    for (int i = 0; i < n; ++i) a[i] = a[i] > a[i + n] ? a[i] : a[i + n];
  return a[0];
}

// Calls f(T{}) with the C++ type of a float dtype.
template <class F>
GT_INLINE void with_float(gt_dtype dtype, F &&f) {
  if (dtype == GT_F32)
    f(float{});
  else if (dtype == GT_BF16)
    f(bf16{});
  else
    f(f16{});
}

}  // namespace gt::GT_ISA
