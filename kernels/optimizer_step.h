// What does an optimiser's step have in common for all elements? Read on the device; the same on the CPU and on CUDA.
#pragma once

#include <cmath>
#include <cstdint>

#include "gatun/types.h"

#if defined(__CUDACC__)
#define GT_STEP_MEMBER __host__ __device__ __forceinline__
#else
#define GT_STEP_MEMBER inline __attribute__((always_inline))
#endif
#define GT_STEP_FUNCTION static GT_STEP_MEMBER

namespace gt {

// Pointers are NULL where there is no such operand.
struct StepState {
  const float *rates;
  int64_t num_rates;
  const int32_t *step;
  const float *norm;
  float max_norm;
  const float *loss_scale;
};

struct Step {
  int32_t t;          // updates before this one
  double rate;
  float grad_factor;  // clipping / loss scale
  bool is_skipped;
};

static inline StepState state_of(const gt_tensor *rates, const gt_tensor *step, const gt_tensor *norm, float max_norm,
                                 const gt_tensor *loss_scale) {
  const auto floats = [](const gt_tensor *t) { return t ? static_cast<const float *>(t->data) : nullptr; };
  return {floats(rates), rates->shape[0], static_cast<const int32_t *>(step->data), floats(norm), max_norm,
          floats(loss_scale)};
}

// Not isfinite, which the CPU's compiler flags may take for true.
GT_STEP_FUNCTION bool is_finite(float x) { return x - x == 0.0f; }

GT_STEP_FUNCTION Step step_of(const StepState &s) {
  const int32_t t = *s.step < 0 ? 0 : *s.step;
  const int64_t at = t < s.num_rates ? t : s.num_rates - 1;
  Step step = {t, static_cast<double>(s.rates[at]), 1.0f, false};
  if (s.norm) {
    const float clipping = s.max_norm / (*s.norm + 1e-6f);
    step.is_skipped = !is_finite(*s.norm);
    if (clipping < 1.0f) step.grad_factor = clipping;
  }
  if (s.loss_scale) step.grad_factor /= *s.loss_scale;
  return step;
}

// base^n for n >= 0 by squaring: the same bits everywhere.
GT_STEP_FUNCTION double power(double base, int64_t n) {
  double result = 1;
  for (; n > 0; n >>= 1) {
    if (n & 1) result *= base;
    base *= base;
  }
  return result;
}

// A rule updates one element, or a vector of them: p, its states and the gradient g. `root` is the square root of V.
// keep and pull are the weight decay of these elements: p *= keep, g += pull * p.
struct Decay {
  float keep, pull;
};

struct AdamW {
  static constexpr int STATES = 2;
  Decay decay;
  float beta1, one_minus_beta1, beta2, one_minus_beta2, step_size, root_factor, eps;

  template <class V, class Root>
  GT_STEP_MEMBER void update(const Decay &d, V &p, V &m, V &v, V g, Root root) const {
    g = g + d.pull * p;
    m = beta1 * m + one_minus_beta1 * g;
    v = beta2 * v + one_minus_beta2 * (g * g);
    p = d.keep * p - step_size * m / (root(v) * root_factor + eps);
  }
};

struct Sgd {
  static constexpr int STATES = 1;
  Decay decay;
  float rate, momentum;
  bool nesterov;

  template <class V, class Root>
  GT_STEP_MEMBER void update(const Decay &d, V &p, V &buffer, V &, V g, Root) const {
    g = g + d.pull * p;
    buffer = momentum * buffer + g;
    p = p - rate * (nesterov ? g + momentum * buffer : buffer);
  }
};

struct PlainSgd {
  static constexpr int STATES = 0;
  Decay decay;
  float rate;

  template <class V, class Root>
  GT_STEP_MEMBER void update(const Decay &d, V &p, V &, V &, V g, Root) const {
    p = p - rate * (g + d.pull * p);
  }
};

// With a buffer where STATES is 2.
template <int NUM_STATES>
struct RmsProp {
  static constexpr int STATES = NUM_STATES;
  Decay decay;
  float rate, alpha, one_minus_alpha, eps, momentum;

  template <class V, class Root>
  GT_STEP_MEMBER void update(const Decay &d, V &p, V &square, V &buffer, V g, Root root) const {
    g = g + d.pull * p;
    square = alpha * square + one_minus_alpha * (g * g);
    buffer = (STATES == 2 ? momentum * buffer : V{}) + g / (root(square) + eps);
    p = p - rate * buffer;
  }
};

// What the caller of an op chose; rule(step) is the rule of one step.
struct AdamWSettings {
  double beta1, beta2, eps, weight_decay;
  bool is_decoupled;

  GT_STEP_MEMBER AdamW rule(const Step &s) const {
    const int64_t n = static_cast<int64_t>(s.t) + 1;
    const double correction1 = 1 - power(beta1, n), correction2 = 1 - power(beta2, n);
    const Decay decay = {is_decoupled ? static_cast<float>(1 - s.rate * weight_decay) : 1.0f,
                         is_decoupled ? 0.0f : static_cast<float>(weight_decay)};
    return {decay, static_cast<float>(beta1), static_cast<float>(1 - beta1), static_cast<float>(beta2),
            static_cast<float>(1 - beta2), static_cast<float>(s.rate / correction1),
            static_cast<float>(1 / sqrt(correction2)), static_cast<float>(eps)};
  }
};

struct SgdSettings {
  double momentum, weight_decay;
  bool nesterov;

  GT_STEP_MEMBER Sgd rule(const Step &s) const {
    return {{1.0f, static_cast<float>(weight_decay)}, static_cast<float>(s.rate),
            static_cast<float>(momentum), nesterov};
  }
};

struct PlainSgdSettings {
  double weight_decay;

  GT_STEP_MEMBER PlainSgd rule(const Step &s) const {
    return {{1.0f, static_cast<float>(weight_decay)}, static_cast<float>(s.rate)};
  }
};

template <int NUM_STATES>
struct RmsPropSettings {
  double alpha, eps, momentum, weight_decay;

  GT_STEP_MEMBER RmsProp<NUM_STATES> rule(const Step &s) const {
    return {{1.0f, static_cast<float>(weight_decay)}, static_cast<float>(s.rate), static_cast<float>(alpha),
            static_cast<float>(1 - alpha), static_cast<float>(eps), static_cast<float>(momentum)};
  }
};

// What gt_advance does. Pointers are NULL where there is no such operand.
GT_STEP_FUNCTION void advance_step(int32_t *step, const float *norm, float *loss_scale, int32_t *good_steps,
                                   int32_t growth_interval, float growth, float backoff) {
  if (norm && !is_finite(*norm)) {
    if (!loss_scale) return;
    *loss_scale *= backoff;
    *good_steps = 0;
    return;
  }
  ++*step;
  if (!loss_scale || ++*good_steps < growth_interval) return;
  *good_steps = 0;
  if (is_finite(*loss_scale * growth)) *loss_scale *= growth;
}

GT_STEP_FUNCTION float ema_weight(double decay, const int32_t *step) {
  if (!step) return static_cast<float>(1 - decay);
  const double t = *step < 0 ? 0 : *step, warm = (1 + t) / (10 + t);
  return static_cast<float>(1 - (warm < decay ? warm : decay));
}

}  // namespace gt
