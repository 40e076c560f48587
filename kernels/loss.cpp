// Losses with their gradients: argument checks, dispatch, and the CPU twin of loss.cu.
#include "gatun/loss.h"

#include "check.h"
#include "chunks.h"
#include "cpu/isa.h"
#include "loss_operands.h"

#if defined(GT_ISA)
// Computes    gatun/loss.h
// Mapping     runs of RUN elements along the dimension where x is densest, in groups over threads
// Memory      each operand once; strided operands pass through a buffer
// Numerics    a loss's elements in f32, their sum in f64: a run in W lanes, runs of a group, groups, in this order
#include "cpu/chunked_sum.h"
#include "cpu/map.h"
#include "cpu/math.h"

namespace gt::GT_ISA {
namespace {

// log(1 + e) for e in [0, 1]: 2 atanh(e / (2 + e)), whose series ends below f32's last place at this argument of 1/3.
vf log1p_of(vf e) {
  const vf s = e / (2.0f + e), q = s * s;
  vf p = broadcast(2.0f / 17);
  p = p * q + 2.0f / 15;
  p = p * q + 2.0f / 13;
  p = p * q + 2.0f / 11;
  p = p * q + 2.0f / 9;
  p = p * q + 2.0f / 7;
  p = p * q + 2.0f / 5;
  p = p * q + 2.0f / 3;
  return s * (2.0f + p * q);
}

struct Point {
  vf loss, slope;
};

struct Mse {
  GT_INLINE Point at(vf x, vf t) {
    const vf d = x - t;
    return {d * d, 2.0f * d};
  }
};
struct BceWithLogits {
  GT_INLINE Point at(vf x, vf t) {
    const vf e = vexp(-vabs(x)), large = 1.0f / (1.0f + e);
    return {select(x < 0.0f, vf{}, x) - x * t + log1p_of(e), select(x < 0.0f, e * large, large) - t};
  }
};
struct Hinge {
  GT_INLINE Point at(vf x, vf t) {
    const vf margin = 1.0f - t * x;
    return {select(margin < 0.0f, vf{}, margin), select(margin <= 0.0f, vf{}, -t)};
  }
};
struct Linear {
  GT_INLINE Point at(vf x, vf t) { return {t * x, t}; }
};

// The sum of f(data, n) over all runs of a loop, f giving that of a run.
template <class F>
double sum_of_runs(const gt_stream *stream, const Loop &loop, int64_t cost, const gt_tensor *workspace, const F &f) {
  const int64_t length = loop.shape[loop.rank - 1], pieces = (length + RUN - 1) / RUN;
  int64_t runs = pieces;
  for (int d = 0; d < loop.rank - 1; ++d) runs *= loop.shape[d];
  const auto sum = [&](int64_t begin, int64_t end) {
    double total = 0;
    Position at = position_at(loop, loop.rank - 1, begin / pieces);
    for (int64_t item = begin, piece = begin % pieces; item < end; ++item) {
      const int64_t first = piece * RUN, left = length - first;
      char *data[MAX_OPERANDS];
      for (int t = 0; t < loop.num_operands; ++t) data[t] = at.data[t] + first * stride_in_run(loop, t);
      total += f(data, left < RUN ? left : RUN);
      if (++piece == pieces) {
        piece = 0;
        advance(loop, loop.rank - 1, at);
      }
    }
    return total;
  };
  const int64_t groups = runs < MAX_CHUNKS ? runs : MAX_CHUNKS;
  if (groups == 1) return sum(0, 1);
  double *const sums = static_cast<double *>(workspace->data);
  parallel_for(stream, groups, cost * (runs / groups) * (length < RUN ? length : RUN), [&](int64_t begin, int64_t end) {
    for (int64_t g = begin; g < end; ++g) sums[g] = sum(runs * g / groups, runs * (g + 1) / groups);
  });
  double total = 0;
  for (int64_t g = 0; g < groups; ++g) total += sums[g];
  return total;
}

float scale_of(float factor, const gt_tensor *grad_scale) {
  return grad_scale ? factor * *static_cast<const float *>(grad_scale->data) : factor;
}

void write_loss(const gt_tensor *loss, float factor, double sum) {
  *static_cast<float *>(loss->data) = static_cast<float>(static_cast<double>(factor) * sum);
}

// The lanes of a vector of which n <= W count; the others are 0, whatever they were.
vf first_lanes(vf v, int64_t n) {
  for (int64_t i = n; i < W; ++i) v[i] = 0;
  return v;
}

// Runs of a loop's operands as contiguous memory: inputs gathered, outputs scattered by finish.
struct Runs {
  const Loop &loop;
  char *const *data;
  int64_t n;
  char (*buffer)[RUN * sizeof(float)];

  template <class T>
  const T *input(int t) const {
    return reinterpret_cast<const T *>(contiguous_run(loop, t, data[t], n, buffer[t]));
  }
  template <class T>
  T *output(int t) const {
    return reinterpret_cast<T *>(is_contiguous(loop, t) ? data[t] : buffer[t]);
  }
  void finish(int t) const {
    if (!is_contiguous(loop, t)) copy_run(data[t], stride_in_run(loop, t), buffer[t], loop.bytes[t], loop.bytes[t], n);
  }
};

// Operands of gt_loss: x, target, and where there are weight and dx.
struct Elements {
  LossOperands all;
  int weight = 0, dx = 0;
};

template <class F, class T, class Target>
double loss_of(const gt_stream *stream, const Elements &operands, float scale, const gt_tensor *workspace) {
  const Loop loop = loop_over(operands.all.tensor, operands.all.count);
  return sum_of_runs(stream, loop, TRANSCENDENTAL, workspace, [&](char *const *data, int64_t n) {
    alignas(64) char buffer[MAX_OPERANDS][RUN * sizeof(float)];
    const Runs runs = {loop, data, n, buffer};
    const T *const x = runs.input<T>(0);
    const Target *const target = runs.input<Target>(1);
    const float *const weight = operands.weight ? runs.input<float>(operands.weight) : nullptr;
    T *const dx = operands.dx ? runs.output<T>(operands.dx) : nullptr;
    WideSum sum;
    for (int64_t i = 0; i < n; i += W) {
      const int64_t left = n - i;
      const Point p = F::at(load_up_to(x + i, left), load_up_to(target + i, left));
      const vf w = weight ? load_up_to(weight + i, left) : broadcast(1);
      sum.add(left < W ? first_lanes(p.loss * w, left) : p.loss * w);
      if (dx) store_up_to(dx + i, scale * w * p.slope, left);
    }
    if (dx) runs.finish(operands.dx);
    return sum.total();
  });
}

template <class F>
double loss_by_types(const gt_stream *stream, const Elements &operands, float scale, const gt_tensor *workspace) {
  double sum = 0;
  with_float(operands.all.tensor[0]->dtype, [&](auto zero) {
    using T = decltype(zero);
    sum = operands.all.tensor[1]->dtype == GT_F32 ? loss_of<F, T, float>(stream, operands, scale, workspace)
                                                  : loss_of<F, T, T>(stream, operands, scale, workspace);
  });
  return sum;
}

}  // namespace

gt_status loss_cpu(const gt_stream *stream, const gt_tensor *loss, const gt_tensor *dx, const gt_tensor *x,
                   const gt_tensor *target, const gt_tensor *weight, gt_loss_kind kind, float factor,
                   const gt_tensor *grad_scale, const gt_tensor *workspace) {
  const gt_tensor spread = weight ? over_samples(*weight, *x) : gt_tensor{};
  Elements operands;
  operands.all.add(x);
  operands.all.add(target);
  operands.weight = operands.all.add(weight ? &spread : nullptr);
  operands.dx = operands.all.add(dx);
  const float scale = scale_of(factor, grad_scale);
  double sum = 0;
  if (elements(*x) > 0)
    sum = kind == GT_LOSS_MSE               ? loss_by_types<Mse>(stream, operands, scale, workspace)
          : kind == GT_LOSS_BCE_WITH_LOGITS ? loss_by_types<BceWithLogits>(stream, operands, scale, workspace)
          : kind == GT_LOSS_HINGE           ? loss_by_types<Hinge>(stream, operands, scale, workspace)
                                            : loss_by_types<Linear>(stream, operands, scale, workspace);
  write_loss(loss, factor, sum);
  return GT_OK;
}

gt_status kl_gaussian_cpu(const gt_stream *stream, const gt_tensor *loss, const gt_tensor *dmean,
                          const gt_tensor *dlogvar, const gt_tensor *mean, const gt_tensor *logvar, float factor,
                          const gt_tensor *grad_scale, const gt_tensor *workspace) {
  LossOperands operands;
  operands.add(mean);
  operands.add(logvar);
  const int at_dmean = operands.add(dmean), at_dlogvar = operands.add(dlogvar);
  const float scale = scale_of(factor, grad_scale);
  double sum = 0;
  if (elements(*mean) > 0) with_float(mean->dtype, [&](auto zero) {
    using T = decltype(zero);
    const Loop loop = loop_over(operands.tensor, operands.count);
    sum = sum_of_runs(stream, loop, TRANSCENDENTAL, workspace, [&](char *const *data, int64_t n) {
      alignas(64) char buffer[MAX_OPERANDS][RUN * sizeof(float)];
      const Runs runs = {loop, data, n, buffer};
      const T *const m = runs.input<T>(0), *const lv = runs.input<T>(1);
      T *const dm = dmean ? runs.output<T>(at_dmean) : nullptr;
      T *const dlv = dlogvar ? runs.output<T>(at_dlogvar) : nullptr;
      WideSum total;
      for (int64_t i = 0; i < n; i += W) {
        const int64_t left = n - i;
        const vf mu = load_up_to(m + i, left), log = load_up_to(lv + i, left), excess = vexp(log) - 1.0f;
        const vf point = 0.5f * (mu * mu + (excess - log));
        total.add(left < W ? first_lanes(point, left) : point);
        if (dm) store_up_to(dm + i, scale * mu, left);
        if (dlv) store_up_to(dlv + i, scale * 0.5f * excess, left);
      }
      if (dm) runs.finish(at_dmean);
      if (dlv) runs.finish(at_dlogvar);
      return total.total();
    });
  });
  write_loss(loss, factor, sum);
  return GT_OK;
}

}  // namespace gt::GT_ISA

#else

GT_DECLARE_OP(loss)
GT_DECLARE_OP(kl_gaussian)

namespace {

void check_gradient(gt::Check &check, const char *name, const gt_tensor *t, const char *of_name, const gt_tensor *of) {
  check.optional(name, t, gt::FLOATS).same_shape(name, t, of_name, of).same_dtype(name, t, of_name, of);
  for (int i = 0; t && check.ok() && gt::elements(*t) > 0 && i < t->rank; ++i)
    check.require(t->shape[i] == 1 || t->stride[i] != 0, "%s repeats elements (dimension %d has stride 0)", name, i);
}

void check_scalars(gt::Check &check, const gt_tensor *loss, const gt_tensor *grad_scale) {
  check.tensor("loss", loss, gt::F32).shape("loss", loss, {1});
  check.optional("grad_scale", grad_scale, gt::F32).shape("grad_scale", grad_scale, {1});
}

}  // namespace

extern "C" gt_status gt_loss(const gt_stream *stream, const gt_tensor *loss, const gt_tensor *dx, const gt_tensor *x,
                             const gt_tensor *target, const gt_tensor *weight, gt_loss_kind kind, float factor,
                             const gt_tensor *grad_scale, const gt_tensor *workspace) {
  gt::Check check("loss", stream);
  check_scalars(check, loss, grad_scale);
  check.tensor("x", x, gt::FLOATS);
  if (check.ok()) check.require(x->rank >= 1, "x has no dimension, expected [B, ...]");
  check_gradient(check, "dx", dx, "x", x);
  if (check.ok()) check.tensor("target", target, gt::F32 | gt::dtype_bit(x->dtype));
  check.same_shape("target", target, "x", x);
  if (check.ok()) check.optional("weight", weight, gt::F32).shape("weight", weight, {x->shape[0]});
  check.require(kind >= GT_LOSS_MSE && kind <= GT_LOSS_LINEAR, "kind is %d, expected 0 to 3", kind);
  if (check.ok()) check.workspace(workspace, gt::loss_workspace_bytes(*x));
  if (!check.ok()) return check.status();
  return GT_RUN(loss, stream, loss, dx, x, target, weight, kind, factor, grad_scale, workspace);
}

extern "C" gt_status gt_kl_gaussian(const gt_stream *stream, const gt_tensor *loss, const gt_tensor *dmean,
                                    const gt_tensor *dlogvar, const gt_tensor *mean, const gt_tensor *logvar,
                                    float factor, const gt_tensor *grad_scale, const gt_tensor *workspace) {
  gt::Check check("kl_gaussian", stream);
  check_scalars(check, loss, grad_scale);
  check.tensor("mean", mean, gt::FLOATS).tensor("logvar", logvar, gt::FLOATS);
  check.same_shape("logvar", logvar, "mean", mean).same_dtype("logvar", logvar, "mean", mean);
  check_gradient(check, "dmean", dmean, "mean", mean);
  check_gradient(check, "dlogvar", dlogvar, "mean", mean);
  if (check.ok()) check.workspace(workspace, gt::loss_workspace_bytes(*mean));
  if (!check.ok()) return check.status();
  return GT_RUN(kl_gaussian, stream, loss, dmean, dlogvar, mean, logvar, factor, grad_scale, workspace);
}

extern "C" gt_status gt_loss_workspace(const gt_stream *stream, const gt_tensor *x, int64_t *bytes) {
  gt::Check check("loss_workspace", stream);
  check.tensor("x", x, gt::FLOATS);
  check.require(bytes != nullptr, "bytes is NULL, expected a place for the result");
  if (check.ok()) *bytes = gt::loss_workspace_bytes(*x);
  return check.status();
}

#endif
