// Optimisers, the gradient's norm, the step counter with its loss scale, and averages of parameters on CUDA.
//
// Computes    gatun/optimizer.h, by the rules of optimizer_step.h
// Shapes      slabs [n], contiguous; step, norm, loss_scale, good_steps [1]; rates [steps]. NULL: low, norm,
//             loss_scale, the states that a rule does not have
// Types       f32; low bf16 or f16, rounded once; the average's param f32, bf16 or f16. Coefficients and norm in f64
// Mapping     updates: a thread takes four neighbours, grid-stride; a block's first thread turns the step's operands
//             into coefficients for all. Norm: lib/chunked_sum.h. advance: one thread
// Memory      each operand once. Shared: a rule's coefficients
// Numerics    an element depends on its own inputs alone; the norm is summed in an order that n decides. A norm that is
//             not finite: no update
// Limits      16 bytes at once where all slabs are aligned to them, else element by element; sm_80 and later; nothing
//             is UNSUPPORTED
// Source      Kingma & Ba 2014 (arXiv 1412.6980), Loshchilov & Hutter 2017 (arXiv 1711.05101), torch.optim. Not yet
//             measured on a GPU: bound by memory
#include "lib/cuda.h"

#include <type_traits>

#include "check.h"
#include "gatun/optimizer.h"
#include "lib/chunked_sum.h"
#include "lib/entry.h"
#include "lib/vec.h"
#include "optimizer_step.h"

namespace gt {

decltype(gt_adamw) adamw_cuda;
decltype(gt_sgd) sgd_cuda;
decltype(gt_rmsprop) rmsprop_cuda;
decltype(gt_gradient_norm) gradient_norm_cuda;
decltype(gt_advance) advance_cuda;
decltype(gt_ema) ema_cuda;

namespace {

constexpr int THREADS = 256;
constexpr int GROUP = VEC<float>;
constexpr int64_t MAX_BLOCKS = 2048;  // full waves on any device, and few enough that coefficients cost nothing

// N elements at p + i of T, the first `count` of them; `aligned`: p at a multiple of their bytes.
template <class T>
__device__ __forceinline__ void load_group(const T *p, int64_t count, bool aligned, float (&v)[GROUP]) {
  Pack<T, GROUP> pack = {};
  if (aligned && count >= GROUP) {
    pack = *reinterpret_cast<const Pack<T, GROUP> *>(p);
  } else {
#pragma unroll
    for (int k = 0; k < GROUP; ++k)
      if (k < count) pack.element[k] = p[k];
  }
#pragma unroll
  for (int k = 0; k < GROUP; ++k) v[k] = to_float(pack.element[k]);
}
template <class T>
__device__ __forceinline__ void store_group(T *p, int64_t count, bool aligned, const float (&v)[GROUP]) {
  Pack<T, GROUP> pack;
#pragma unroll
  for (int k = 0; k < GROUP; ++k) pack.element[k] = from_float<T>(v[k]);
  if (aligned && count >= GROUP) {
    *reinterpret_cast<Pack<T, GROUP> *>(p) = pack;
  } else {
#pragma unroll
    for (int k = 0; k < GROUP; ++k)
      if (k < count) p[k] = pack.element[k];
  }
}

// state: NULL beyond the rule's STATES.
template <class Low> struct Slabs {
  float *param, *first, *second;
  Low *low;
  const float *grad;
  int64_t n, decayed;
  bool aligned;
};

template <class Low, class Settings>
__global__ void __launch_bounds__(THREADS)
    update_slabs(const Slabs<Low> s, const StepState state, const Settings settings) {
  using Rule = decltype(settings.rule(Step()));
  __shared__ Rule shared;
  __shared__ float shared_factor;
  const Step step = step_of(state);
  if (step.is_skipped) return;
  if (threadIdx.x == 0) {
    shared = settings.rule(step);
    shared_factor = step.grad_factor;
  }
  __syncthreads();
  const Rule rule = shared;
  const float factor = shared_factor;
  const auto root = [](float x) { return sqrtf(x); };
  for (int64_t i = (static_cast<int64_t>(blockIdx.x) * THREADS + threadIdx.x) * GROUP; i < s.n;
       i += static_cast<int64_t>(gridDim.x) * THREADS * GROUP) {
    const int64_t left = s.n - i;
    float p[GROUP], g[GROUP], first[GROUP] = {}, second[GROUP] = {};
    load_group(s.param + i, left, s.aligned, p);
    load_group(s.grad + i, left, s.aligned, g);
    if constexpr (Rule::STATES > 0) load_group(s.first + i, left, s.aligned, first);
    if constexpr (Rule::STATES > 1) load_group(s.second + i, left, s.aligned, second);
#pragma unroll
    for (int k = 0; k < GROUP; ++k) {
      const Decay decay = i + k < s.decayed ? rule.decay : Decay{1.0f, 0.0f};
      rule.update(decay, p[k], first[k], second[k], g[k] * factor, root);
    }
    store_group(s.param + i, left, s.aligned, p);
    if constexpr (Rule::STATES > 0) store_group(s.first + i, left, s.aligned, first);
    if constexpr (Rule::STATES > 1) store_group(s.second + i, left, s.aligned, second);
    if (s.low) store_group(s.low + i, left, s.aligned, p);
  }
}

template <class T>
__global__ void __launch_bounds__(THREADS)
    average_slab(float *average, const T *param, int64_t n, bool aligned, double decay, const int32_t *step) {
  const float weight = ema_weight(decay, step);
  for (int64_t i = (static_cast<int64_t>(blockIdx.x) * THREADS + threadIdx.x) * GROUP; i < n;
       i += static_cast<int64_t>(gridDim.x) * THREADS * GROUP) {
    float a[GROUP], p[GROUP];
    load_group(average + i, n - i, aligned, a);
    load_group(param + i, n - i, aligned, p);
#pragma unroll
    for (int k = 0; k < GROUP; ++k) a[k] = a[k] + weight * (p[k] - a[k]);
    store_group(average + i, n - i, aligned, a);
  }
}

__global__ void advance_by_one(int32_t *step, const float *norm, float *loss_scale, int32_t *good_steps,
                               int32_t growth_interval, float growth, float backoff) {
  advance_step(step, norm, loss_scale, good_steps, growth_interval, growth, backoff);
}

struct Square {
  const float *x;
  __device__ double operator()(int64_t i) const {
    const double v = static_cast<double>(x[i]);
    return v * v;
  }
};
struct WriteNorm {
  float *norm;
  const float *loss_scale;
  __device__ void operator()(double squares) const {
    *norm = static_cast<float>(sqrt(squares) / (loss_scale ? static_cast<double>(*loss_scale) : 1.0));
  }
};

float *floats(const gt_tensor *t) { return t ? static_cast<float *>(t->data) : nullptr; }
int32_t *integers(const gt_tensor *t) { return t ? static_cast<int32_t *>(t->data) : nullptr; }

// A pointer at a multiple of the bytes of a group of its elements; NULL is.
template <class T> bool is_group_aligned(const T *p) {
  return reinterpret_cast<uintptr_t>(p) % sizeof(Pack<T, GROUP>) == 0;
}

unsigned blocks_for(int64_t n) {
  return static_cast<unsigned>(min((n + GROUP * THREADS - 1) / (GROUP * THREADS), MAX_BLOCKS));
}

template <class Low, class Settings>
int launch_update(void *stream, const Settings &settings, const StepState &state, Slabs<Low> s) {
  s.aligned = is_group_aligned(s.param) && is_group_aligned(s.first) && is_group_aligned(s.second) &&
              is_group_aligned(s.low) && is_group_aligned(s.grad);
  return launch(update_slabs<Low, Settings>, blocks_for(s.n), THREADS, 0, stream, s, state, settings);
}

template <class Settings>
gt_status update(const char *op, const gt_stream *stream, const Settings &settings, const StepState &state,
                 int64_t decayed, const gt_tensor *param, const gt_tensor *low, const gt_tensor *first,
                 const gt_tensor *second, const gt_tensor *grad) {
  const int64_t n = param->shape[0];
  if (n == 0) return GT_OK;
  const auto with_low = [&](auto *rounded) {
    using Low = std::remove_pointer_t<decltype(rounded)>;
    const Slabs<Low> slabs = {floats(param), floats(first), floats(second), rounded, floats(grad), n, decayed, false};
    return launch_update(stream->handle, settings, state, slabs);
  };
  if (!low || low->dtype == GT_BF16) return status_of(op, with_low(low ? static_cast<bf16 *>(low->data) : nullptr));
  return status_of(op, with_low(static_cast<f16 *>(low->data)));
}

}  // namespace

gt_status adamw_cuda(const gt_stream *stream, const gt_tensor *param, const gt_tensor *low, const gt_tensor *m,
                     const gt_tensor *v, const gt_tensor *grad, const gt_tensor *rates, const gt_tensor *step,
                     const gt_tensor *norm, float max_norm, const gt_tensor *loss_scale, double beta1, double beta2,
                     double eps, double weight_decay, int64_t decayed, int32_t decoupled) {
  const AdamWSettings settings = {beta1, beta2, eps, weight_decay, decoupled != 0};
  return update("adamw", stream, settings, state_of(rates, step, norm, max_norm, loss_scale), decayed, param, low, m, v,
                grad);
}

gt_status sgd_cuda(const gt_stream *stream, const gt_tensor *param, const gt_tensor *low,
                   const gt_tensor *momentum_buffer, const gt_tensor *grad, const gt_tensor *rates,
                   const gt_tensor *step, const gt_tensor *norm, float max_norm, const gt_tensor *loss_scale,
                   double momentum, int32_t nesterov, double weight_decay, int64_t decayed) {
  const StepState state = state_of(rates, step, norm, max_norm, loss_scale);
  if (!momentum_buffer)
    return update("sgd", stream, PlainSgdSettings{weight_decay}, state, decayed, param, low, nullptr, nullptr, grad);
  const SgdSettings settings = {momentum, weight_decay, nesterov != 0};
  return update("sgd", stream, settings, state, decayed, param, low, momentum_buffer, nullptr, grad);
}

gt_status rmsprop_cuda(const gt_stream *stream, const gt_tensor *param, const gt_tensor *low,
                       const gt_tensor *square_average, const gt_tensor *momentum_buffer, const gt_tensor *grad,
                       const gt_tensor *rates, const gt_tensor *step, const gt_tensor *norm, float max_norm,
                       const gt_tensor *loss_scale, double alpha, double eps, double momentum, double weight_decay,
                       int64_t decayed) {
  const StepState state = state_of(rates, step, norm, max_norm, loss_scale);
  if (!momentum_buffer)
    return update("rmsprop", stream, RmsPropSettings<1>{alpha, eps, momentum, weight_decay}, state, decayed, param, low,
                  square_average, nullptr, grad);
  return update("rmsprop", stream, RmsPropSettings<2>{alpha, eps, momentum, weight_decay}, state, decayed, param, low,
                square_average, momentum_buffer, grad);
}

gt_status gradient_norm_cuda(const gt_stream *stream, const gt_tensor *norm, const gt_tensor *grad,
                             const gt_tensor *loss_scale, const gt_tensor *workspace) {
  return status_of("gradient_norm", launch_sum(stream->handle, chunks_of(grad->shape[0]),
                                               workspace ? workspace->data : nullptr, Square{floats(grad)},
                                               WriteNorm{floats(norm), floats(loss_scale)}));
}

gt_status advance_cuda(const gt_stream *stream, const gt_tensor *step, const gt_tensor *norm,
                       const gt_tensor *loss_scale, const gt_tensor *good_steps, int32_t growth_interval, float growth,
                       float backoff) {
  return status_of("advance", launch(advance_by_one, 1, 1, 0, stream->handle, integers(step), floats(norm),
                                     floats(loss_scale), integers(good_steps), growth_interval, growth, backoff));
}

gt_status ema_cuda(const gt_stream *stream, const gt_tensor *average, const gt_tensor *param, double decay,
                   const gt_tensor *step) {
  const int64_t n = average->shape[0];
  if (n == 0) return GT_OK;
  const auto run = [&](auto *p) {
    using T = std::remove_pointer_t<decltype(p)>;
    return launch(average_slab<T>, blocks_for(n), THREADS, 0, stream->handle, floats(average), p, n,
                  is_group_aligned(floats(average)) && is_group_aligned(p), decay, integers(step));
  };
  return status_of("ema", param->dtype == GT_F32    ? run(static_cast<float *>(param->data))
                          : param->dtype == GT_BF16 ? run(static_cast<bf16 *>(param->data))
                                                    : run(static_cast<f16 *>(param->data)));
}

}  // namespace gt
