// What should a row's normalisation be, in double, and how far off may it be?
//
// The bound is a rule, not a number: twice the error of the obvious computation (f32, one loop, the roundings that
// gatun/norm.h names) plus a floor of a few roundings, for a row where the obvious one is exact by luck.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "gatun/types.h"

namespace test {

inline int bytes_of(gt_dtype dtype) { return dtype == GT_F32 ? 4 : 2; }
inline const char *name_of(gt_dtype dtype) { return dtype == GT_F32 ? "f32" : dtype == GT_BF16 ? "bf16" : "f16"; }

// Half the distance from 1 to the next number.
inline double unit_of(gt_dtype dtype) { return dtype == GT_F32 ? 0x1p-24 : dtype == GT_BF16 ? 0x1p-8 : 0x1p-11; }

inline void encode(gt_dtype dtype, void *p, float x) {
  if (dtype == GT_F32) {
    memcpy(p, &x, 4);
  } else if (dtype == GT_F16) {
    const _Float16 h = static_cast<_Float16>(x);
    memcpy(p, &h, 2);
  } else {
    uint32_t u;
    memcpy(&u, &x, 4);
    const uint16_t bits = std::isnan(x) ? 0x7fc0 : static_cast<uint16_t>((u + 0x7fff + (u >> 16 & 1)) >> 16);
    memcpy(p, &bits, 2);
  }
}

inline float decode(gt_dtype dtype, const void *p) {
  float x;
  if (dtype == GT_F32) {
    memcpy(&x, p, 4);
  } else if (dtype == GT_F16) {
    _Float16 h;
    memcpy(&h, p, 2);
    x = static_cast<float>(h);
  } else {
    uint16_t bits;
    memcpy(&bits, p, 2);
    const uint32_t u = static_cast<uint32_t>(bits) << 16;
    memcpy(&x, &u, 4);
  }
  return x;
}

inline float round_to(gt_dtype dtype, float x) {
  unsigned char bytes[4];
  encode(dtype, bytes, x);
  return decode(dtype, bytes);
}

// A row's results in Real: double is the oracle, float the obvious computation. Empty weight or bias: none.
template <class Real> struct Row {
  std::vector<Real> y;
  Real mean = 0, rstd;

  Row(bool rms, gt_dtype dtype, const std::vector<float> &h, const std::vector<float> &weight,
      const std::vector<float> &bias, float eps) {
    constexpr bool ROUNDS = sizeof(Real) == sizeof(float);
    const Real c = static_cast<Real>(h.size());
    Real sum = 0, squares = 0;
    for (float v : h) sum += static_cast<Real>(v);
    if (!rms) mean = sum / c;
    for (float v : h) squares += (static_cast<Real>(v) - mean) * (static_cast<Real>(v) - mean);
    rstd = 1 / std::sqrt(squares / c + static_cast<Real>(eps));
    for (size_t i = 0; i < h.size(); ++i) {
      Real v = (static_cast<Real>(h[i]) - mean) * rstd;
      if (ROUNDS && rms) v = round_to(dtype, static_cast<float>(v));
      if (!weight.empty()) v *= static_cast<Real>(weight[i]);
      if (!bias.empty()) v += static_cast<Real>(bias[i]);
      y.push_back(ROUNDS ? static_cast<Real>(round_to(dtype, static_cast<float>(v))) : v);
    }
  }
};

// Is `actual` as good as the rule asks? NaN where and only where the oracle has one.
inline bool within(double actual, double oracle, double obvious_error, double floor) {
  if (std::isnan(oracle)) return std::isnan(actual);
  if (std::isinf(oracle)) return actual == oracle;
  return std::fabs(actual - oracle) <= 2 * obvious_error + floor;
}

inline double largest(const std::vector<float> &v) {
  double most = 0;
  for (float x : v)
    if (std::isfinite(x)) most = std::max(most, std::fabs(static_cast<double>(x)));
  return most;
}

}  // namespace test
