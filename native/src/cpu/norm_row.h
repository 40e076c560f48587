// How is one row normalised, for every op with the same bits? gatun/norm.h; W lanes are summed in ascending order and
// then folded: the order depends on C alone.
#pragma once

#include <math.h>

#include "cpu/row.h"
#include "gatun/types.h"

namespace gt::GT_ISA {

// The operands of one row; pointers are NULL where the tensor is.
template <class T>
struct NormRow {
  T *y, *residual_out;
  const T *x, *residual;
  const gt_tensor *weight, *bias;
  int64_t c;

  // h[i .. i + W), rounded to T, zeros beyond C.
  GT_INLINE vf h(const NormRow &r, int64_t i) {
    const int64_t left = r.c - i;
    const vf x = load_up_to(r.x + i, left);
    if (!r.residual) return x;
    T rounded[W];
    store(rounded, x + load_up_to(r.residual + i, left));
    return load(rounded);
  }
  GT_INLINE vf parameter(const gt_tensor *t, int64_t i, int64_t left) {
    if (t->dtype == GT_F32) return load_up_to(static_cast<const float *>(t->data) + i, left);
    return load_up_to(static_cast<const T *>(t->data) + i, left);
  }
};

template <class T>
GT_INLINE void layernorm_row(const NormRow<T> &r, float eps, float *mean_out, float *rstd_out) {
  vf sum{};
  for (int64_t i = 0; i < r.c; i += W) sum += NormRow<T>::h(r, i);
  const float mean = sum_lanes(sum) / static_cast<float>(r.c);
  vf squares{};
  for (int64_t i = 0; i < r.c; i += W) {
    vf d = NormRow<T>::h(r, i) - mean;
    for (int64_t k = r.c - i; k < W; ++k) d[k] = 0;
    squares += d * d;
  }
  const float rstd = 1.0f / sqrtf(sum_lanes(squares) / static_cast<float>(r.c) + eps);
  for (int64_t i = 0; i < r.c; i += W) {
    const int64_t left = r.c - i;
    const vf h = NormRow<T>::h(r, i);
    vf v = (h - mean) * rstd;
    if (r.weight) v = v * NormRow<T>::parameter(r.weight, i, left);
    if (r.bias) v = v + NormRow<T>::parameter(r.bias, i, left);
    if (r.residual_out) store_up_to(r.residual_out + i, h, left);
    store_up_to(r.y + i, v, left);
  }
  if (mean_out) *mean_out = mean;
  if (rstd_out) *rstd_out = rstd;
}

template <class T>
GT_INLINE void rmsnorm_row(const NormRow<T> &r, float eps, float *rstd_out) {
  vf squares{};
  for (int64_t i = 0; i < r.c; i += W) {
    const vf h = NormRow<T>::h(r, i);
    squares += h * h;
  }
  const float rstd = 1.0f / sqrtf(sum_lanes(squares) / static_cast<float>(r.c) + eps);
  for (int64_t i = 0; i < r.c; i += W) {
    const int64_t left = r.c - i;
    const vf h = NormRow<T>::h(r, i);
    T normalised[W];
    store(normalised, h * rstd);
    vf v = load(normalised);
    if (r.weight) v = v * NormRow<T>::parameter(r.weight, i, left);
    if (r.residual_out) store_up_to(r.residual_out + i, h, left);
    store_up_to(r.y + i, v, left);
  }
  if (rstd_out) *rstd_out = rstd;
}

}  // namespace gt::GT_ISA
