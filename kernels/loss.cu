// Losses with their gradients on CUDA.
//
// Computes    gatun/loss.h: a sum of l(x, t) over elements, and dx; the divergence of a Gaussian, dmean and dlogvar
// Shapes      x, target, dx of one shape, any strides; weight [B] spread over a sample. NULL: dx, weight, grad_scale,
//             dmean, dlogvar. dx may be x: a thread writes only elements that it has read
// Types       f32, bf16, f16; target x's or f32; elements in f32, their sum in f64
// Mapping     lib/chunked_sum.h: a block per chunk of elements, then one block over the chunks
// Memory      each operand once
// Numerics    the order of the sum depends on the number of elements alone; log1pf and expf in full precision
// Limits      element by element: neighbouring threads on neighbouring elements where x is dense; strided operands cost
//             a division per dimension. sm_80 and later; nothing is UNSUPPORTED
// Source      Kingma & Welling 2013 (arXiv 1312.6114) for the divergence. Not yet measured on a GPU: bound by memory
#include "lib/cuda.h"

#include "check.h"
#include "gatun/loss.h"
#include "lib/chunked_sum.h"
#include "lib/entry.h"
#include "lib/strided.h"
#include "lib/vec.h"
#include "loss_operands.h"

namespace gt {

decltype(gt_loss) loss_cuda;
decltype(gt_kl_gaussian) kl_gaussian_cuda;

namespace {

struct Point { float loss, slope; };

struct Mse {
  static __device__ Point at(float x, float t) {
    const float d = x - t;
    return {d * d, 2.0f * d};
  }
};
struct BceWithLogits {
  static __device__ Point at(float x, float t) {
    const float e = expf(-fabsf(x)), large = 1.0f / (1.0f + e);
    return {(x < 0.0f ? 0.0f : x) - x * t + log1pf(e), (x < 0.0f ? e * large : large) - t};
  }
};
struct Hinge {
  static __device__ Point at(float x, float t) {
    const float margin = 1.0f - t * x;
    return {margin < 0.0f ? 0.0f : margin, margin <= 0.0f ? 0.0f : -t};
  }
};
struct Linear {
  static __device__ Point at(float x, float t) { return {t * x, t}; }
};

// Element i of the operands of a loop, i counting along its last dimension.
struct Walk {
  Loop loop;

  __device__ Position at(int64_t i) const {
    const int64_t columns = loop.shape[loop.rank - 1], row = loop.rank > 1 ? i / columns : 0;
    Position position = position_at(loop, loop.rank - 1, row);
#pragma unroll
    for (int t = 0; t < MAX_OPERANDS; ++t) position.data[t] += (i - row * columns) * loop.stride[t][loop.rank - 1];
    return position;
  }
};

template <class T> __device__ __forceinline__ float read(const Position &at, int t) {
  return to_float(*reinterpret_cast<const T *>(at.data[t]));
}

// factor, times the loss's scale where there is one.
struct GradientScale {
  float factor;
  const float *scale;
  __device__ float operator()() const { return scale ? factor * *scale : factor; }
};

template <class F, class T, class Target> struct LossElement {
  Walk walk;
  bool has_weight, has_dx;
  GradientScale scale;

  __device__ double operator()(int64_t i) const {
    const Position at = walk.at(i);
    const Point p = F::at(read<T>(at, 0), read<Target>(at, 1));
    const float w = has_weight ? read<float>(at, 2) : 1.0f;
    if (has_dx)
      *reinterpret_cast<T *>(has_weight ? at.data[3] : at.data[2]) = from_float<T>(scale() * w * p.slope);
    return static_cast<double>(p.loss * w);
  }
};

template <class T> struct DivergenceElement {
  Walk walk;
  bool has_dmean, has_dlogvar;
  GradientScale scale;

  __device__ double operator()(int64_t i) const {
    const Position at = walk.at(i);
    const float mean = read<T>(at, 0), logvar = read<T>(at, 1), excess = expf(logvar) - 1.0f;
    if (has_dmean) *reinterpret_cast<T *>(at.data[2]) = from_float<T>(scale() * mean);
    if (has_dlogvar)
      *reinterpret_cast<T *>(has_dmean ? at.data[3] : at.data[2]) = from_float<T>(scale() * 0.5f * excess);
    return static_cast<double>(0.5f * (mean * mean + (excess - logvar)));
  }
};

struct WriteLoss {
  float *loss, factor;
  __device__ void operator()(double sum) const { *loss = static_cast<float>(static_cast<double>(factor) * sum); }
};

Walk walk_over(const LossOperands &operands) {
  Walk walk = {};
  switch (operands.count) {
    case 2: walk.loop = loop_over({operands.tensor[0], operands.tensor[1]}); break;
    case 3: walk.loop = loop_over({operands.tensor[0], operands.tensor[1], operands.tensor[2]}); break;
    default:
      walk.loop = loop_over({operands.tensor[0], operands.tensor[1], operands.tensor[2], operands.tensor[3]});
  }
  return walk;
}

template <class F> int with_kind(gt_loss_kind kind, F f) {
  return kind == GT_LOSS_MSE               ? f(Mse())
         : kind == GT_LOSS_BCE_WITH_LOGITS ? f(BceWithLogits())
         : kind == GT_LOSS_HINGE           ? f(Hinge())
                                           : f(Linear());
}

GradientScale scale_of(float factor, const gt_tensor *grad_scale) {
  return {factor, grad_scale ? static_cast<const float *>(grad_scale->data) : nullptr};
}

struct Zero {
  __device__ double operator()(int64_t) const { return 0.0; }
};

// The sum of element(i) over x's elements, times factor.
template <class Element>
int launch_loss(const gt_stream *stream, const gt_tensor &x, const gt_tensor *workspace, const Element &element,
                const gt_tensor *loss, float factor) {
  return launch_sum(stream->handle, chunks_of(elements(x)), workspace ? workspace->data : nullptr, element,
                    WriteLoss{static_cast<float *>(loss->data), factor});
}

}  // namespace

gt_status loss_cuda(const gt_stream *stream, const gt_tensor *loss, const gt_tensor *dx, const gt_tensor *x,
                    const gt_tensor *target, const gt_tensor *weight, gt_loss_kind kind, float factor,
                    const gt_tensor *grad_scale, const gt_tensor *workspace) {
  if (elements(*x) == 0) return status_of("loss", launch_loss(stream, *x, nullptr, Zero(), loss, factor));
  const gt_tensor spread = weight ? over_samples(*weight, *x) : gt_tensor{};
  LossOperands operands;
  for (const gt_tensor *t : {x, target, weight ? &spread : nullptr, dx}) operands.add(t);
  const Walk walk = walk_over(operands);
  return status_of("loss", with_kind(kind, [&](auto form) {
    using F = decltype(form);
    return with_float(x->dtype, [&](auto zero) {
      using T = decltype(zero);
      const GradientScale scale = scale_of(factor, grad_scale);
      const bool has_weight = weight != nullptr, has_dx = dx != nullptr;
      if (target->dtype != GT_F32)
        return launch_loss(stream, *x, workspace, LossElement<F, T, T>{walk, has_weight, has_dx, scale}, loss, factor);
      const LossElement<F, T, float> element = {walk, has_weight, has_dx, scale};
      return launch_loss(stream, *x, workspace, element, loss, factor);
    });
  }));
}

gt_status kl_gaussian_cuda(const gt_stream *stream, const gt_tensor *loss, const gt_tensor *dmean,
                           const gt_tensor *dlogvar, const gt_tensor *mean, const gt_tensor *logvar, float factor,
                           const gt_tensor *grad_scale, const gt_tensor *workspace) {
  if (elements(*mean) == 0) return status_of("kl_gaussian", launch_loss(stream, *mean, nullptr, Zero(), loss, factor));
  LossOperands operands;
  for (const gt_tensor *t : {mean, logvar, dmean, dlogvar}) operands.add(t);
  const Walk walk = walk_over(operands);
  return status_of("kl_gaussian", with_float(mean->dtype, [&](auto zero) {
    using T = decltype(zero);
    const DivergenceElement<T> element = {walk, dmean != nullptr, dlogvar != nullptr, scale_of(factor, grad_scale)};
    return launch_loss(stream, *mean, workspace, element, loss, factor);
  }));
}

}  // namespace gt
