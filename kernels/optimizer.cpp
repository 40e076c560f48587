// Optimisers, the gradient's norm, the step counter with its loss scale, and averages of parameters: argument checks,
// dispatch, and the CPU twin of optimizer.cu.
#include "gatun/optimizer.h"

#include "check.h"
#include "chunks.h"
#include "cpu/isa.h"
#include "optimizer_step.h"

#if defined(GT_ISA)
// Computes    gatun/optimizer.h, by the rules of optimizer_step.h
// Mapping     threads own ranges of elements; gradient_norm by chunks.h
// Memory      each operand once
// Numerics    an element's value depends on its own inputs alone; the norm is summed in f64 in an order that n decides
#include "cpu/chunked_sum.h"
#include "cpu/math.h"

namespace gt::GT_ISA {
namespace {

constexpr int64_t GRAIN = 1024;  // elements that one thread gets at least: a multiple of every W
constexpr int64_t COST = 8;      // of an element, in the units of parallel_for

// Operands of a step. state: NULL beyond the rule's STATES.
template <class Low>
struct Slabs {
  float *param, *state[2];
  Low *low;
  const float *grad;
};

// Elements begin .. end - 1, all with one decay.
template <class Rule, class Low>
void update_range(const Rule &rule, const Decay &decay, float grad_factor, const Slabs<Low> &s, int64_t begin,
                  int64_t end) {
  const auto root = [](vf v) { return vsqrt(v); };
  for (int64_t i = begin; i < end; i += W) {
    const int64_t left = end - i;
    vf p = load_up_to(s.param + i, left), first{}, second{};
    if (Rule::STATES > 0) first = load_up_to(s.state[0] + i, left);
    if (Rule::STATES > 1) second = load_up_to(s.state[1] + i, left);
    rule.update(decay, p, first, second, load_up_to(s.grad + i, left) * grad_factor, root);
    store_up_to(s.param + i, p, left);
    if (Rule::STATES > 0) store_up_to(s.state[0] + i, first, left);
    if (Rule::STATES > 1) store_up_to(s.state[1] + i, second, left);
    if (s.low) store_up_to(s.low + i, p, left);
  }
}

template <class Settings>
gt_status update(const gt_stream *stream, const Settings &settings, const StepState &state, int64_t decayed,
                 const gt_tensor *param, const gt_tensor *low, const gt_tensor *first, const gt_tensor *second,
                 const gt_tensor *grad) {
  const Step step = step_of(state);
  if (step.is_skipped) return GT_OK;
  const auto rule = settings.rule(step);
  const auto floats = [](const gt_tensor *t) { return t ? static_cast<float *>(t->data) : nullptr; };
  const int64_t n = param->shape[0];
  with_float(low ? low->dtype : GT_F32, [&](auto zero) {
    using Low = decltype(zero);
    const Slabs<Low> slabs = {floats(param), {floats(first), floats(second)},
                              low ? static_cast<Low *>(low->data) : nullptr, floats(grad)};
    parallel_for(stream, (n + GRAIN - 1) / GRAIN, GRAIN * COST, [&](int64_t begin, int64_t end) {
      const int64_t from = begin * GRAIN, to = end * GRAIN < n ? end * GRAIN : n;
      const int64_t middle = decayed < from ? from : decayed > to ? to : decayed;
      update_range(rule, rule.decay, step.grad_factor, slabs, from, middle);
      update_range(rule, Decay{1, 0}, step.grad_factor, slabs, middle, to);
    });
  });
  return GT_OK;
}

}  // namespace

gt_status adamw_cpu(const gt_stream *stream, const gt_tensor *param, const gt_tensor *low, const gt_tensor *m,
                    const gt_tensor *v, const gt_tensor *grad, const gt_tensor *rates, const gt_tensor *step,
                    const gt_tensor *norm, float max_norm, const gt_tensor *loss_scale, double beta1, double beta2,
                    double eps, double weight_decay, int64_t decayed, int32_t decoupled) {
  const AdamWSettings settings = {beta1, beta2, eps, weight_decay, decoupled != 0};
  return update(stream, settings, state_of(rates, step, norm, max_norm, loss_scale), decayed, param, low, m, v, grad);
}

gt_status sgd_cpu(const gt_stream *stream, const gt_tensor *param, const gt_tensor *low,
                  const gt_tensor *momentum_buffer, const gt_tensor *grad, const gt_tensor *rates,
                  const gt_tensor *step, const gt_tensor *norm, float max_norm, const gt_tensor *loss_scale,
                  double momentum, int32_t nesterov, double weight_decay, int64_t decayed) {
  const StepState state = state_of(rates, step, norm, max_norm, loss_scale);
  if (!momentum_buffer)
    return update(stream, PlainSgdSettings{weight_decay}, state, decayed, param, low, nullptr, nullptr, grad);
  const SgdSettings settings = {momentum, weight_decay, nesterov != 0};
  return update(stream, settings, state, decayed, param, low, momentum_buffer, nullptr, grad);
}

gt_status rmsprop_cpu(const gt_stream *stream, const gt_tensor *param, const gt_tensor *low,
                      const gt_tensor *square_average, const gt_tensor *momentum_buffer, const gt_tensor *grad,
                      const gt_tensor *rates, const gt_tensor *step, const gt_tensor *norm, float max_norm,
                      const gt_tensor *loss_scale, double alpha, double eps, double momentum, double weight_decay,
                      int64_t decayed) {
  const StepState state = state_of(rates, step, norm, max_norm, loss_scale);
  if (!momentum_buffer)
    return update(stream, RmsPropSettings<1>{alpha, eps, momentum, weight_decay}, state, decayed, param, low,
                  square_average, nullptr, grad);
  return update(stream, RmsPropSettings<2>{alpha, eps, momentum, weight_decay}, state, decayed, param, low,
                square_average, momentum_buffer, grad);
}

gt_status gradient_norm_cpu(const gt_stream *stream, const gt_tensor *norm, const gt_tensor *grad,
                            const gt_tensor *loss_scale, const gt_tensor *workspace) {
  const float *const g = static_cast<const float *>(grad->data);
  const double squares = chunked_sum(stream, chunks_of(grad->shape[0]), 2, workspace ? workspace->data : nullptr,
                                     [&](int64_t begin, int64_t end) {
    WideSum sum;
    for (int64_t i = begin; i < end; i += W) sum.add_square(load_up_to(g + i, end - i));
    return sum.total();
  });
  const double scale = loss_scale ? static_cast<double>(*static_cast<const float *>(loss_scale->data)) : 1;
  *static_cast<float *>(norm->data) = static_cast<float>(__builtin_sqrt(squares) / scale);
  return GT_OK;
}

gt_status advance_cpu(const gt_stream *, const gt_tensor *step, const gt_tensor *norm, const gt_tensor *loss_scale,
                      const gt_tensor *good_steps, int32_t growth_interval, float growth, float backoff) {
  const auto floats = [](const gt_tensor *t) { return t ? static_cast<float *>(t->data) : nullptr; };
  advance_step(static_cast<int32_t *>(step->data), floats(norm), floats(loss_scale),
               good_steps ? static_cast<int32_t *>(good_steps->data) : nullptr, growth_interval, growth, backoff);
  return GT_OK;
}

gt_status ema_cpu(const gt_stream *stream, const gt_tensor *average, const gt_tensor *param, double decay,
                  const gt_tensor *step) {
  const float weight = ema_weight(decay, step ? static_cast<const int32_t *>(step->data) : nullptr);
  float *const a = static_cast<float *>(average->data);
  const int64_t n = average->shape[0];
  with_float(param->dtype, [&](auto zero) {
    const auto *const p = static_cast<const decltype(zero) *>(param->data);
    parallel_for(stream, (n + GRAIN - 1) / GRAIN, GRAIN * 2, [&](int64_t begin, int64_t end) {
      const int64_t to = end * GRAIN < n ? end * GRAIN : n;
      for (int64_t i = begin * GRAIN; i < to; i += W) {
        const vf old = load_up_to(a + i, to - i);
        store_up_to(a + i, old + weight * (load_up_to(p + i, to - i) - old), to - i);
      }
    });
  });
  return GT_OK;
}

}  // namespace gt::GT_ISA

#else

GT_DECLARE_OP(adamw)
GT_DECLARE_OP(sgd)
GT_DECLARE_OP(rmsprop)
GT_DECLARE_OP(gradient_norm)
GT_DECLARE_OP(advance)
GT_DECLARE_OP(ema)

namespace {

constexpr uint64_t LOW = gt::dtype_bit(GT_BF16) | gt::dtype_bit(GT_F16);

void check_slab(gt::Check &check, const char *name, const gt_tensor *t, uint64_t dtypes, const gt_tensor *param) {
  check.tensor(name, t, dtypes).same_shape(name, t, "param", param).contiguous(name, t);
}

void check_one(gt::Check &check, const char *name, const gt_tensor *t, uint64_t dtype) {
  check.tensor(name, t, dtype).shape(name, t, {1});
}

// What all optimisers have in common.
gt::Check check_step(const char *op, const gt_stream *stream, const gt_tensor *param, const gt_tensor *low,
                     const gt_tensor *grad, const gt_tensor *rates, const gt_tensor *step, const gt_tensor *norm,
                     float max_norm, const gt_tensor *loss_scale, double weight_decay, int64_t decayed) {
  gt::Check check(op, stream);
  check.tensor("param", param, gt::F32).rank("param", param, 1).contiguous("param", param);
  if (low) check_slab(check, "low", low, LOW, param);
  check_slab(check, "grad", grad, gt::F32, param);
  check.tensor("rates", rates, gt::F32).rank("rates", rates, 1).contiguous("rates", rates);
  if (check.ok()) check.require(rates->shape[0] > 0, "rates has no elements, expected at least 1");
  check_one(check, "step", step, gt::I32);
  if (norm) check_one(check, "norm", norm, gt::F32);
  if (loss_scale) check_one(check, "loss_scale", loss_scale, gt::F32);
  check.require(max_norm > 0, "max_norm is %g, expected > 0, infinity for no clipping", static_cast<double>(max_norm));
  check.require(weight_decay >= 0, "weight_decay is %g, expected >= 0", weight_decay);
  if (check.ok())
    check.require(decayed >= 0 && decayed <= param->shape[0], "decayed is %lld, expected 0 to %lld",
                  static_cast<long long>(decayed), static_cast<long long>(param->shape[0]));
  return check;
}

void check_below_one(gt::Check &check, const char *name, double x) {
  check.require(x >= 0 && x < 1, "%s is %g, expected at least 0 and below 1", name, x);
}

void check_eps(gt::Check &check, double eps) { check.require(eps > 0, "eps is %g, expected > 0", eps); }

void check_buffer(gt::Check &check, const gt_tensor *buffer, const gt_tensor *param, double momentum) {
  check.require(momentum >= 0, "momentum is %g, expected >= 0", momentum);
  check.require((momentum != 0) == (buffer != nullptr), "momentum_buffer is %s with momentum %g, expected %s",
                buffer ? "given" : "NULL", momentum, buffer ? "NULL" : "a tensor");
  if (buffer) check_slab(check, "momentum_buffer", buffer, gt::F32, param);
}

}  // namespace

extern "C" gt_status gt_adamw(const gt_stream *stream, const gt_tensor *param, const gt_tensor *low,
                              const gt_tensor *m, const gt_tensor *v, const gt_tensor *grad, const gt_tensor *rates,
                              const gt_tensor *step, const gt_tensor *norm, float max_norm,
                              const gt_tensor *loss_scale, double beta1, double beta2, double eps,
                              double weight_decay, int64_t decayed, int32_t decoupled) {
  gt::Check check =
      check_step("adamw", stream, param, low, grad, rates, step, norm, max_norm, loss_scale, weight_decay, decayed);
  check_slab(check, "m", m, gt::F32, param);
  check_slab(check, "v", v, gt::F32, param);
  check_below_one(check, "beta1", beta1);
  check_below_one(check, "beta2", beta2);
  check_eps(check, eps);
  if (!check.ok()) return check.status();
  return GT_RUN(adamw, stream, param, low, m, v, grad, rates, step, norm, max_norm, loss_scale, beta1, beta2, eps,
                weight_decay, decayed, decoupled);
}

extern "C" gt_status gt_sgd(const gt_stream *stream, const gt_tensor *param, const gt_tensor *low,
                            const gt_tensor *momentum_buffer, const gt_tensor *grad, const gt_tensor *rates,
                            const gt_tensor *step, const gt_tensor *norm, float max_norm, const gt_tensor *loss_scale,
                            double momentum, int32_t nesterov, double weight_decay, int64_t decayed) {
  gt::Check check =
      check_step("sgd", stream, param, low, grad, rates, step, norm, max_norm, loss_scale, weight_decay, decayed);
  check_buffer(check, momentum_buffer, param, momentum);
  check.require(!nesterov || momentum > 0, "nesterov with momentum %g, expected momentum > 0", momentum);
  if (!check.ok()) return check.status();
  return GT_RUN(sgd, stream, param, low, momentum_buffer, grad, rates, step, norm, max_norm, loss_scale, momentum,
                nesterov, weight_decay, decayed);
}

extern "C" gt_status gt_rmsprop(const gt_stream *stream, const gt_tensor *param, const gt_tensor *low,
                                const gt_tensor *square_average, const gt_tensor *momentum_buffer,
                                const gt_tensor *grad, const gt_tensor *rates, const gt_tensor *step,
                                const gt_tensor *norm, float max_norm, const gt_tensor *loss_scale, double alpha,
                                double eps, double momentum, double weight_decay, int64_t decayed) {
  gt::Check check =
      check_step("rmsprop", stream, param, low, grad, rates, step, norm, max_norm, loss_scale, weight_decay, decayed);
  check_slab(check, "square_average", square_average, gt::F32, param);
  check_buffer(check, momentum_buffer, param, momentum);
  check_below_one(check, "alpha", alpha);
  check_eps(check, eps);
  if (!check.ok()) return check.status();
  return GT_RUN(rmsprop, stream, param, low, square_average, momentum_buffer, grad, rates, step, norm, max_norm,
                loss_scale, alpha, eps, momentum, weight_decay, decayed);
}

extern "C" gt_status gt_gradient_norm(const gt_stream *stream, const gt_tensor *norm, const gt_tensor *grad,
                                      const gt_tensor *loss_scale, const gt_tensor *workspace) {
  gt::Check check("gradient_norm", stream);
  check_one(check, "norm", norm, gt::F32);
  check.tensor("grad", grad, gt::F32).rank("grad", grad, 1).contiguous("grad", grad);
  if (loss_scale) check_one(check, "loss_scale", loss_scale, gt::F32);
  if (check.ok()) check.workspace(workspace, gt::workspace_bytes(gt::chunks_of(grad->shape[0])));
  return check.ok() ? GT_RUN(gradient_norm, stream, norm, grad, loss_scale, workspace) : check.status();
}

extern "C" gt_status gt_gradient_norm_workspace(const gt_stream *stream, const gt_tensor *grad, int64_t *bytes) {
  gt::Check check("gradient_norm_workspace", stream);
  check.tensor("grad", grad, gt::F32).rank("grad", grad, 1);
  check.require(bytes != nullptr, "bytes is NULL, expected a place for the result");
  if (check.ok()) *bytes = gt::workspace_bytes(gt::chunks_of(grad->shape[0]));
  return check.status();
}

extern "C" gt_status gt_advance(const gt_stream *stream, const gt_tensor *step, const gt_tensor *norm,
                                const gt_tensor *loss_scale, const gt_tensor *good_steps, int32_t growth_interval,
                                float growth, float backoff) {
  gt::Check check("advance", stream);
  check_one(check, "step", step, gt::I32);
  if (norm) check_one(check, "norm", norm, gt::F32);
  if (loss_scale || good_steps) {
    check_one(check, "loss_scale", loss_scale, gt::F32);
    check_one(check, "good_steps", good_steps, gt::I32);
    check.require(growth_interval > 0, "growth_interval is %d, expected > 0", growth_interval);
    check.require(growth >= 1 && backoff > 0 && backoff <= 1,
                  "growth is %g and backoff %g, expected at least 1 and a number in (0, 1]",
                  static_cast<double>(growth), static_cast<double>(backoff));
  }
  if (!check.ok()) return check.status();
  return GT_RUN(advance, stream, step, norm, loss_scale, good_steps, growth_interval, growth, backoff);
}

extern "C" gt_status gt_ema(const gt_stream *stream, const gt_tensor *average, const gt_tensor *param, double decay,
                            const gt_tensor *step) {
  gt::Check check("ema", stream);
  check.tensor("average", average, gt::F32).rank("average", average, 1).contiguous("average", average);
  check.tensor("param", param, gt::FLOATS).same_shape("param", param, "average", average).contiguous("param", param);
  check.require(decay >= 0 && decay <= 1, "decay is %g, expected 0 to 1", decay);
  if (step) check_one(check, "step", step, gt::I32);
  return check.ok() ? GT_RUN(ema, stream, average, param, decay, step) : check.status();
}

#endif
