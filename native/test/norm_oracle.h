// What should a row's normalisation be, in double, and how far off may it be?
//
// The bound is a rule, not a number: twice the error of the obvious computation (f32, one loop, the roundings that
// gatun/norm.h names) plus a floor of a few roundings, for a row where the obvious one is exact by luck.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "family_test.h"

namespace test {

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
