// How do e4m3 numbers come from memory to vectors of f32, and back?
//
// S.EEEE.MMM, bias 7, subnormals from 2^-9, up to 448, no infinity; the two codes of NaN count as 480 and -480 here.
#pragma once

#include "cpu/vec.h"

namespace gt::GT_ISA {

struct e4m3 {
  uint8_t bits;
};

constexpr float E4M3_MAX = 448;
// What load_two leaves out of each element: moved to f16's fields a number has f16's bias. That needs no further
// operation, and no multiplication of a subnormal f32, which costs 100 cycles.
constexpr float E4M3_LOADED_UNIT = 256;

// 2 W elements over E4M3_LOADED_UNIT, those of even and those of odd indices. A sum of two products of bytes, 128 and 0
// times signed ones, shifts the even ones to their fields at once.
GT_INLINE void load_two(const e4m3 *p, vf &even, vf &odd) {
#if defined(__AVX512BW__)
  const __m256i both = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(p)), fields = _mm256_set1_epi16(~0x407f);
  const __m256i e = _mm256_and_si256(_mm256_maddubs_epi16(_mm256_set1_epi16(128), both), fields);
  const __m256i o = _mm256_and_si256(_mm256_srai_epi16(both, 1), fields);
  even = (vf)_mm512_maskz_cvtph_ps(0xffff, e);
  odd = (vf)_mm512_maskz_cvtph_ps(0xffff, o);
#elif defined(__AVX2__) && defined(__F16C__)
  const __m128i both = _mm_loadu_si128(reinterpret_cast<const __m128i *>(p)), fields = _mm_set1_epi16(~0x407f);
  const __m128i e = _mm_and_si128(_mm_maddubs_epi16(_mm_set1_epi16(128), both), fields);
  const __m128i o = _mm_and_si128(_mm_srai_epi16(both, 1), fields);
  even = (vf)_mm256_cvtph_ps(e);
  odd = (vf)_mm256_cvtph_ps(o);
#else
  vh words;
  memcpy(&words, p, sizeof words);
  const vu both = __builtin_convertvector(words, vu);
  const auto widened = [](vu byte) { return (vf)((byte & 0x80u) << 24 | (byte & 0x7fu) << 20) * 0x1p112f; };
  even = widened(both & 0xffu);
  odd = widened(both >> 8);
#endif
}

// To the nearest, ties to even, at most E4M3_MAX; v is no NaN.
GT_INLINE void store(e4m3 *p, vf v) {
  const vf magnitude = vmin((vf)((vu)v & 0x7fffffffu), broadcast(E4M3_MAX));
  const vu u = (vu)magnitude;
  const vu normal = ((u + 0x7ffffu + (u >> 20 & 1u)) >> 20) - ((127 - 7) << 3);
  const vu subnormal = (vu)(magnitude + 0x1p14f) - 0x46800000u;  // 2^14 is so large that its unit is 2^-9
  const vu code = (vu)select(magnitude < 0x1p-6f, (vf)subnormal, (vf)normal) | ((vu)v >> 24 & 0x80u);
#if defined(__AVX512F__)
  _mm_storeu_si128(reinterpret_cast<__m128i *>(p), _mm512_maskz_cvtepi32_epi8(0xffff, (__m512i)code));
#else
  typedef uint8_t vb __attribute__((vector_size(VECTOR_BYTES / 4)));
  const vb bytes = __builtin_convertvector(code, vb);
  memcpy(p, &bytes, sizeof bytes);
#endif
}

}  // namespace gt::GT_ISA
