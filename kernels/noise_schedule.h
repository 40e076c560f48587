// How much noise do images have at a training step? The formulas of gt_noise_schedule, for CPU and CUDA alike.
//
// Betas in f64, rounded to f32 before anything is derived from them; products in f64, from the first to the last, each
// rounded. The bits are torch's, but for the last places of cos and exp.
#pragma once

#include <math.h>
#include <stdint.h>

#include "gatun/noise.h"

#if defined(__CUDACC__)
#define GT_SCHEDULE __host__ __device__
#else
#define GT_SCHEDULE
#endif

namespace gt {

// Of the part t / steps of the way: how much of an image is left, Nichol & Dhariwal 2021 (arXiv 2102.09672).
GT_SCHEDULE static inline double cosine(int64_t t, int64_t steps) {
  constexpr double PI = 3.14159265358979323846;
  const double c = cos((static_cast<double>(t) / static_cast<double>(steps) + 0.008) / 1.008 * PI / 2);
  return c * c;
}

// Both halves from their own end, in f32 with one rounding each: torch.linspace's bits.
GT_SCHEDULE static inline float linspace(double from, double to, int64_t i, int64_t steps) {
  const float first = static_cast<float>(from), last = static_cast<float>(to);
  if (steps == 1) return first;
  const float step = (last - first) / static_cast<float>(steps - 1);
  if (i < steps / 2) return fmaf(step, static_cast<float>(i), first);
  return fmaf(-step, static_cast<float>(steps - 1 - i), last);
}

// Of any schedule but GIVEN.
GT_SCHEDULE static inline float beta_of(gt_beta_schedule schedule, double from, double to, int64_t t, int64_t steps) {
  if (schedule == GT_BETAS_LINEAR) return linspace(from, to, t, steps);
  if (schedule == GT_BETAS_SCALED_LINEAR) {
    const float root = linspace(sqrt(from), sqrt(to), t, steps);
    return root * root;
  }
  if (schedule == GT_BETAS_COSINE) {
    const double beta = 1 - cosine(t + 1, steps) / cosine(t, steps);
    return static_cast<float>(beta < 0.999 ? beta : 0.999);
  }
  const float sigmoid = static_cast<float>(1 / (1 + exp(-static_cast<double>(linspace(-6, 6, t, steps)))));
  return fmaf(sigmoid, static_cast<float>(to - from), static_cast<float>(from));
}

GT_SCHEDULE static inline void multiply_up(float *products, const float *betas, int64_t steps) {
  double product = 1;
  for (int64_t t = 0; t < steps; ++t) {
    product *= static_cast<double>(1.0f - betas[t]);
    products[t] = static_cast<float>(product);
  }
}

// The first root of the products must be above the last, or all becomes NaN.
GT_SCHEDULE static inline void rescale_to_zero_snr(float *betas, float *products, int64_t steps) {
  const float first = sqrtf(products[0]), last = sqrtf(products[steps - 1]);
  float previous = 1;
  for (int64_t t = 0; t < steps; ++t) {
    const float root = (sqrtf(products[t]) - last) * (first / (first - last));
    const float product = root * root;
    betas[t] = 1.0f - product / previous;
    previous = product;
  }
  multiply_up(products, betas, steps);
}

}  // namespace gt

#undef GT_SCHEDULE
