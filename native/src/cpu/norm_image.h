// What do the norms of images share on the CPU: how an image lies, its parameters, its activation as a constant,
// sums in f64?
#pragma once

#include <type_traits>

#include "cpu/activation.h"

namespace gt::GT_ISA {

typedef double vd __attribute__((vector_size(VECTOR_BYTES)));

GT_INLINE vd load_doubles(const double *p) {
  vd v;
  memcpy(&v, p, sizeof v);
  return v;
}
// The first or second half of the lanes.
template <int HALF>
GT_INLINE vd half_of(vf v) {
#if defined(__AVX512F__)
  return (vd)_mm512_maskz_cvtps_pd(0xff, _mm512_maskz_extractf32x8_ps(0xff, (__m512)v, HALF));
#elif defined(__AVX2__)
  return (vd)_mm256_cvtps_pd(_mm256_extractf128_ps((__m256)v, HALF));
#else
  return vd{static_cast<double>(v[2 * HALF]), static_cast<double>(v[2 * HALF + 1])};
#endif
}

GT_INLINE int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }
GT_INLINE int64_t at_most(int64_t n, int64_t limit) { return n < limit ? n : limit; }

// [B, S, C] in one of the two layouts.
template <class T>
struct Image {
  T *data;
  int64_t stride_b, stride_s, stride_c;

  explicit Image(const gt_tensor &t)
      : data(static_cast<T *>(t.data)), stride_b(t.stride[0]), stride_s(t.stride[1]), stride_c(t.stride[2]) {}
  T *at(int64_t b, int64_t s, int64_t c) const { return data + b * stride_b + s * stride_s + c * stride_c; }
};

// Element `at` of [C] or [B, C] in f32 or T.
template <class T>
GT_INLINE double parameter(const gt_tensor *t, int64_t at, double missing) {
  if (!t) return missing;
  if (t->dtype == GT_F32) return static_cast<double>(static_cast<const float *>(t->data)[at]);
  return static_cast<double>(to_float(static_cast<const T *>(t->data)[at]));
}

template <gt_activation A>
using Activation = std::integral_constant<gt_activation, A>;

template <class F>
GT_INLINE void with_activation(gt_activation activation, F &&f) {
  if (activation == GT_ACTIVATION_SILU)
    f(Activation<GT_ACTIVATION_SILU>{});
  else if (activation == GT_ACTIVATION_RELU)
    f(Activation<GT_ACTIVATION_RELU>{});
  else if (activation == GT_ACTIVATION_TANH)
    f(Activation<GT_ACTIVATION_TANH>{});
  else
    f(Activation<GT_ACTIVATION_NONE>{});
}

}  // namespace gt::GT_ISA
