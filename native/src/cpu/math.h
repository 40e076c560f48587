// exp, erfc, tanh and sigmoid on vectors, within a few units in the last place of f32; the exact square root.
#pragma once

#include "cpu/vec.h"

namespace gt::GT_ISA {

constexpr float INF = __builtin_inff();

// p * 2^n for whole n in [-127, 129].
GT_INLINE vf scale_by_power(vf p, vf n) {
#if defined(__AVX512F__)
  return (vf)_mm512_maskz_scalef_ps(0xffff, (__m512)p, (__m512)n);
#else
  // Two steps, so that n = 128 does not overflow the exponent before the product is known.
  const vi k = __builtin_convertvector(n, vi);
  const vi half = k >> 1;
  return p * (vf)((half + 127) << 23) * (vf)((k - half + 127) << 23);
#endif
}

// exp(x): 2^n * p(r), r = x - n ln 2 in two parts, p the degree-6 Taylor-like minimax of Cephes expf.
// Below -87.3 gives 0 (no denormals), above 88.7 inf, NaN stays NaN: vmax and vmin give their second operand then.
GT_INLINE vf vexp(vf x) {
  const vf clamped = vmin(broadcast(88.8f), vmax(broadcast(-87.4f), x));
  const vf magic = broadcast(12582912.0f);  // 1.5 * 2^23: adding and subtracting rounds to the nearest integer
  const vf n = (clamped * 1.44269504088896341f + magic) - magic;
  vf r = clamped - n * 0.693359375f;
  r = r - n * -2.12194440e-4f;
  vf p = broadcast(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const vf y = scale_by_power(p, n);  // overflows to inf above 88.7228
#if defined(__AVX512F__)
  return (vf)_mm512_maskz_mov_ps(_mm512_cmp_ps_mask((__m512)x, _mm512_set1_ps(-87.33654f), _CMP_NLT_UQ), (__m512)y);
#else
  return select(x < -87.33654f, vf{}, y);
#endif
}

// 1 + exp(-x); the exponent's rounding is worth |x| 2^-24 of the power.
GT_INLINE vf one_plus_exp_of_minus(vf x) {
#if defined(__AVX512DQ__)
  // 2^t = 2^floor(t) p(t - floor(t)), p fitted to 2^f in [0, 1) with p(0) = 1; infinities need no care here.
  const vf t = x * -1.44269504088896341f;
  const vf f = (vf)_mm512_maskz_reduce_ps(0xffff, (__m512)t, _MM_FROUND_TO_NEG_INF);
  vf p = broadcast(0.000216129410546273f);
  p = p * f + 0.0012467838823795319f;
  p = p * f + 0.00967545248568058f;
  p = p * f + 0.055485278367996216f;
  p = p * f + 0.2402293086051941f;
  p = p * f + 0.6931470632553101f;
  p = p * f + 1.0f;
  return 1.0f + (vf)_mm512_maskz_scalef_ps(0xffff, (__m512)p, (__m512)t);
#else
  return 1.0f + vexp(-x);
#endif
}

// x * sigmoid(x), off by at most one unit of 2^-24.
GT_INLINE vf vsilu(vf x) { return x / one_plus_exp_of_minus(x); }

constexpr float LOG2_E = 1.44269504088896341f;

// The same of x = -t ln 2, off by about two: what multiplies x by a factor anyway has t for nothing. p is fitted to 2^f
// in [0, 1) within 2^-23.7 of its value.
GT_INLINE vf vsilu_log2(vf t) {
#if defined(__AVX512DQ__)
  const vf f = (vf)_mm512_maskz_reduce_ps(0xffff, (__m512)t, _MM_FROUND_TO_NEG_INF);
  vf p = broadcast(-LOG2_E * 0.001877576685715344f);
  p = p * f - LOG2_E * 0.008989340167458337f;
  p = p * f - LOG2_E * 0.05582631787874149f;
  p = p * f - LOG2_E * 0.24015361715857245f;
  p = p * f - LOG2_E * 0.6931530731742109f;
  p = p * f - LOG2_E * 0.9999999250650202f;
  return t / ((vf)_mm512_maskz_scalef_ps(0xffff, (__m512)p, (__m512)t) - LOG2_E);
#else
  return vsilu(t * -0.69314718055994531f);
#endif
}

// The same within 2^-12 of its value, for results that are rounded to bf16.
GT_INLINE vf vsilu_coarse_log2(vf t) {
#if defined(__AVX512DQ__)
  const vf f = (vf)_mm512_maskz_reduce_ps(0xffff, (__m512)t, _MM_FROUND_TO_NEG_INF);
  vf p = broadcast(-LOG2_E * 0.07802452353797557f);
  p = p * f - LOG2_E * 0.22606716467262558f;
  p = p * f - LOG2_E * 0.6958335313278304f;
  p = p * f - LOG2_E * 0.9999252200953331f;
  const vf power = (vf)_mm512_maskz_scalef_ps(0xffff, (__m512)p, (__m512)t);
  return t * (vf)_mm512_maskz_rcp14_ps(0xffff, (__m512)(power - LOG2_E));
#else
  return vsilu(t * -0.69314718055994531f);
#endif
}

GT_INLINE vf vsigmoid(vf x) { return 1.0f / (1.0f + vexp(-x)); }

GT_INLINE vf vsqrt(vf x) {
#if defined(__AVX512F__)
  return (vf)_mm512_maskz_sqrt_ps(0xffff, (__m512)x);
#elif defined(__AVX2__)
  return (vf)_mm256_sqrt_ps((__m256)x);
#else
  vf y;
  for (int i = 0; i < W; ++i) y[i] = __builtin_sqrtf(x[i]);
  return y;
#endif
}

GT_INLINE vf vabs(vf x) { return (vf)((vi)x & 0x7fffffff); }

// erfc(z) for z >= 0, within 5 units in the last place: t P(t - 1/2) exp(-z^2), t = 1 / (1 + z/2), with P fitted to
// exp(z^2) erfc(z) / t at the Chebyshev nodes of t for z in [0, 9.4]. The exponent is split into the exact square of
// z's upper twelve bits and a rest below 0.05, because rounding z^2 = 80 to f32 alone would cost 60 units.
GT_INLINE vf verfc_positive(vf z) {
  const vf bounded = select(z > 10.0f, broadcast(10.0f), z);  // erfc(10) is 0 in f32; inf - inf would be NaN
  const vf t = 1.0f / (1.0f + 0.5f * bounded);
  const vf residual = (1.0f - t) - 0.5f * bounded * t;  // what the roundings of t left over, relative to t
  const vf s = (t - 0.5f) + t * residual;
  vf p = broadcast(0.03092573955655098f);
  p = p * s - 0.008091241121292114f;
  p = p * s - 0.07540421932935715f;
  p = p * s + 0.052293866872787476f;
  p = p * s + 0.0980507880449295f;
  p = p * s - 0.10353309661149979f;
  p = p * s - 0.17205151915550232f;
  p = p * s + 0.14576447010040283f;
  p = p * s + 0.5589436888694763f;
  p = p * s + 0.6871607303619385f;
  p = p * s + 0.5107913613319397f;
  const vf upper = (vf)((vi)bounded & ~0xfff);
  const vf rest = (upper - bounded) * (upper + bounded);
  const vf expm1_rest = rest * (1.0f + rest * (1.0f / 2 + rest * (1.0f / 6 + rest * (1.0f / 24))));
  const vf y = t * p * vexp(-upper * upper);
  return y + y * (expm1_rest + residual);
}

// tanh: the quotient of exponentials, and below 0.625, where the quotient cancels, the odd polynomial of Cephes tanhf.
GT_INLINE vf vtanh(vf x) {
  const vf a = vabs(x);
  const vf far = 1.0f - 2.0f / (vexp(2.0f * a) + 1.0f);
  const vf s = x * x;
  vf p = broadcast(-5.70498872745e-3f);
  p = p * s + 2.06390887954e-2f;
  p = p * s - 5.37397155531e-2f;
  p = p * s + 1.33314422036e-1f;
  p = p * s - 3.33332819422e-1f;
  const vf near = a + a * s * p;
  const vf y = select(a < 0.625f, near, far);
  return (vf)(((vi)x & (vi)(vu{} + 0x80000000u)) | (vi)y);
}

}  // namespace gt::GT_ISA
