// exp, erfc, tanh and sigmoid on vectors, within a few units in the last place of f32.
#pragma once

#include "cpu/vec.h"

namespace gt::GT_ISA {

// exp(x): 2^n * p(r), r = x - n ln 2 in two parts, p the degree-6 Taylor-like minimax of Cephes expf.
// Below -87.3 gives 0 (no denormals), above 88.7 inf, NaN stays NaN.
GT_INLINE vf vexp(vf x) {
  const vf clamped = select(x < -87.4f, broadcast(-87.4f), select(x > 88.8f, broadcast(88.8f), x));
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
  // Two steps of scaling, so that n = 128 does not overflow the exponent before the product is known.
  const vi k = __builtin_convertvector(n, vi);
  const vi half = k >> 1;
  const vf scale1 = (vf)((half + 127) << 23);
  const vf scale2 = (vf)((k - half + 127) << 23);
  vf y = p * scale1 * scale2;
  y = select(x < -87.33654f, vf{}, y);
  y = select(x > 88.72284f, broadcast(__builtin_inff()), y);
  return select(x == x, y, x);
}

GT_INLINE vf vsigmoid(vf x) { return 1.0f / (1.0f + vexp(-x)); }

GT_INLINE vf vabs(vf x) { return (vf)((vi)x & 0x7fffffff); }

// erfc(z) for z >= 0, relative error below 1.2e-7 (rational Chebyshev fit, Press et al., Numerical Recipes 6.2).
GT_INLINE vf verfc_positive(vf z) {
  const vf t = 1.0f / (1.0f + 0.5f * z);
  vf p = broadcast(0.17087277f);
  p = p * t - 0.82215223f;
  p = p * t + 1.48851587f;
  p = p * t - 1.13520398f;
  p = p * t + 0.27886807f;
  p = p * t - 0.18628806f;
  p = p * t + 0.09678418f;
  p = p * t + 0.37409196f;
  p = p * t + 1.00002368f;
  p = p * t - 1.26551223f;
  return t * vexp(p - z * z);
}

// tanh: the quotient of exponentials, and below 0.25 the odd series, where the quotient cancels.
GT_INLINE vf vtanh(vf x) {
  const vf a = vabs(x);
  const vf far = 1.0f - 2.0f / (vexp(2.0f * a) + 1.0f);
  const vf s = x * x;
  const vf near = a * (1.0f + s * (-1.0f / 3 + s * (2.0f / 15 + s * (-17.0f / 315 + s * (62.0f / 2835)))));
  const vf y = select(a < 0.25f, near, far);
  return (vf)(((vi)x & (vi)(vu{} + 0x80000000u)) | (vi)y);
}

}  // namespace gt::GT_ISA
