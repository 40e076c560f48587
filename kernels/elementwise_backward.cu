// Gradients of activations and gated units, clamp and dropout on CUDA.
//
// Computes    gatun/elementwise.h: dx = dy f'(x) and its kin; dropout keeps an element by its own random number
// Shapes      one shape of rank <= 5, any strides, 0 in an input broadcasts; dropout: contiguous. An output may be an
//             input: a thread writes only elements that it has read
// Types       f32, bf16, f16: in f32, rounded once
// Mapping     lib/map.h; dropout: a thread owns the four neighbours that share a Philox evaluation, grid-stride
// Memory      each operand once
// Numerics    an element depends on its own inputs alone, dropout's also on its index. expf, erfcf and division in full
//             precision. NaN and Inf as the formula treats them. No elements: no launch
// Limits      lib/map.h; dropout takes 8 or 16 bytes at once where both operands allow it. sm_80 and later; nothing is
//             UNSUPPORTED
// Source      Salmon et al. 2011 for dropout's bits. Not yet measured on a GPU: bound by memory
#include "lib/cuda.h"

#include "check.h"
#include "gatun/elementwise.h"
#include "lib/map.h"
#include "lib/philox.h"

namespace gt {

decltype(gt_clamp) clamp_cuda;
decltype(gt_dropout) dropout_cuda;
decltype(gt_leaky_relu_backward) leaky_relu_backward_cuda;
decltype(gt_gaussian_backward) gaussian_backward_cuda;

namespace {

constexpr int THREADS = 256;
constexpr int GROUP = 4;               // elements that share a Philox evaluation
constexpr int64_t MAX_BLOCKS = 16384;  // of dropout: enough to fill any device many times

// An activation and its derivative at once: they share the exponential.
struct Slope { float value, derivative; };

// s = sigmoid(z) and slope = s (1 - s), in which nothing cancels or overflows.
struct Sigmoid { float s, slope; };

__device__ __forceinline__ Sigmoid sigmoid_at(float z) {
  const float e = expf(-fabsf(z)), large = 1.0f / (1.0f + e), small = e * large;
  return {z < 0.0f ? small : large, small * large};
}

struct GeluErf {
  static __device__ Slope at(float x) {
    const float cdf = 0.5f * erfcf(-0.70710678118654752f * x);
    return {x * cdf, cdf + x * (0.3989422804014327f * expf(-0.5f * x * x))};
  }
};
struct GeluTanh {
  static __device__ Slope at(float x) {
    const float u = 0.79788456080286536f * (x + 0.044715f * x * x * x);
    const Sigmoid sigmoid = sigmoid_at(2.0f * u);
    const float square = fminf(1e6f, x * x);  // bounded where the slope has long been 0: a finite x gives no 0 * Inf
    return {x * sigmoid.s, sigmoid.s + x * sigmoid.slope * (1.5957691216057308f + 0.21406454f * square)};
  }
};
struct Silu {
  static __device__ Slope at(float x) {
    const Sigmoid sigmoid = sigmoid_at(x);
    return {x * sigmoid.s, sigmoid.s + x * sigmoid.slope};
  }
};

template <class Activation> struct Backward {
  static constexpr int INPUTS = 2;
  __device__ float operator()(float dy, float x) const { return dy * Activation::at(x).derivative; }
};
struct QuickGeluBackward {
  static constexpr int INPUTS = 2;
  __device__ float operator()(float dy, float x) const {
    const float z = 1.702f * x;
    const Sigmoid sigmoid = sigmoid_at(z);
    return dy * (sigmoid.s + z * sigmoid.slope);
  }
};
struct ReluBackward {
  static constexpr int INPUTS = 2;
  __device__ float operator()(float dy, float x) const { return x <= 0.0f ? 0.0f : dy; }
};
struct LeakyReluBackward {
  static constexpr int INPUTS = 2;
  float slope;
  __device__ float operator()(float dy, float x) const { return x > 0.0f ? dy : slope * dy; }
};
struct TanhBackward {
  static constexpr int INPUTS = 2;
  __device__ float operator()(float dy, float y) const { return dy * (1.0f - y * y); }
};
struct SigmoidBackward {
  static constexpr int INPUTS = 2;
  __device__ float operator()(float dy, float y) const { return dy * (y * (1.0f - y)); }
};
struct GaussianBackward {
  static constexpr int INPUTS = 3;
  __device__ float operator()(float dy, float logvar, float eps) const {
    const float inside = dy * eps * (0.5f * expf(0.5f * logvar));
    return logvar < -30.0f || logvar > 20.0f ? 0.0f : inside;
  }
};
template <class Activation> struct GatedBackward {
  static constexpr int INPUTS = 3, OUTPUTS = 2;
  __device__ Two<float> operator()(float dy, float gate, float up) const {
    const Slope slope = Activation::at(gate);
    return {dy * up * slope.derivative, dy * slope.value};
  }
};
struct Clamp {
  static constexpr int INPUTS = 1;
  float low, high;
  // fminf and fmaxf would not let a NaN through.
  __device__ float operator()(float x, float) const { return x < low ? low : x > high ? high : x; }
};

struct Dropout {
  float probability, factor;
  uint64_t seed;
  uint32_t layer;
};

template <class T>
__global__ void __launch_bounds__(THREADS)
    dropout_by_groups(T *y, const T *x, int64_t elements, bool aligned, const int32_t *step, const Dropout d) {
  const uint32_t at_step = static_cast<uint32_t>(*step);
  const int64_t groups = (elements + GROUP - 1) / GROUP;
  for (int64_t group = static_cast<int64_t>(blockIdx.x) * THREADS + threadIdx.x; group < groups;
       group += static_cast<int64_t>(gridDim.x) * THREADS) {
    const PhiloxWords words = philox(d.seed, d.layer, at_step, static_cast<uint64_t>(group));
    const int64_t left = elements - group * GROUP;
    Pack<T, GROUP> pack = {};
    if (aligned && left >= GROUP) {
      pack = reinterpret_cast<const Pack<T, GROUP> *>(x)[group];
    } else {
#pragma unroll
      for (int i = 0; i < GROUP; ++i)
        if (i < left) pack.element[i] = x[group * GROUP + i];
    }
#pragma unroll
    for (int i = 0; i < GROUP; ++i)
      pack.element[i] =
          from_float<T>(uniform(words.word[i]) > d.probability ? to_float(pack.element[i]) * d.factor : 0.0f);
    if (aligned && left >= GROUP) {
      reinterpret_cast<Pack<T, GROUP> *>(y)[group] = pack;
    } else {
#pragma unroll
      for (int i = 0; i < GROUP; ++i)
        if (i < left) y[group * GROUP + i] = pack.element[i];
    }
  }
}

}  // namespace

#define BACKWARD_CUDA(op, functor)                                                                                  \
  decltype(gt_##op##_backward) op##_backward_cuda;                                                                  \
  gt_status op##_backward_cuda(const gt_stream *stream, const gt_tensor *dx, const gt_tensor *dy,                   \
                               const gt_tensor *x) {                                                                \
    return map(#op "_backward", stream, functor(), {dx, dy, x});                                                    \
  }
#define GATED_BACKWARD_CUDA(op, activation)                                                                         \
  decltype(gt_##op##_backward) op##_backward_cuda;                                                                  \
  gt_status op##_backward_cuda(const gt_stream *stream, const gt_tensor *dgate, const gt_tensor *dup,               \
                               const gt_tensor *dy, const gt_tensor *gate, const gt_tensor *up) {                   \
    return map(#op "_backward", stream, GatedBackward<activation>(), {dgate, dup, dy, gate, up});                   \
  }

BACKWARD_CUDA(gelu_erf, Backward<GeluErf>)
BACKWARD_CUDA(gelu_tanh, Backward<GeluTanh>)
BACKWARD_CUDA(quick_gelu, QuickGeluBackward)
BACKWARD_CUDA(silu, Backward<Silu>)
BACKWARD_CUDA(relu, ReluBackward)
BACKWARD_CUDA(tanh, TanhBackward)
BACKWARD_CUDA(sigmoid, SigmoidBackward)
GATED_BACKWARD_CUDA(swiglu, Silu)
GATED_BACKWARD_CUDA(geglu, GeluErf)
GATED_BACKWARD_CUDA(geglu_tanh, GeluTanh)

gt_status leaky_relu_backward_cuda(const gt_stream *stream, const gt_tensor *dx, const gt_tensor *dy,
                                   const gt_tensor *x, float slope) {
  return map("leaky_relu_backward", stream, LeakyReluBackward{slope}, {dx, dy, x});
}

gt_status gaussian_backward_cuda(const gt_stream *stream, const gt_tensor *dlogvar, const gt_tensor *dy,
                                 const gt_tensor *logvar, const gt_tensor *eps) {
  return map("gaussian_backward", stream, GaussianBackward(), {dlogvar, dy, logvar, eps});
}

gt_status clamp_cuda(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x, float low, float high) {
  return map("clamp", stream, Clamp{low, high}, {y, x});
}

gt_status dropout_cuda(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x, float probability,
                       int64_t seed, const gt_tensor *step, int32_t layer) {
  const int64_t n = elements(*x);
  if (n == 0) return GT_OK;
  const Dropout d = {probability, probability < 1 ? 1 / (1 - probability) : 0, static_cast<uint64_t>(seed),
                     static_cast<uint32_t>(layer)};
  const int64_t blocks = min(ceil_divide(n, static_cast<int64_t>(GROUP * THREADS)), MAX_BLOCKS);
  return status_of("dropout", with_float(x->dtype, [&](auto zero) {
                     using T = decltype(zero);
                     T *const to = static_cast<T *>(y->data);
                     const T *const from = static_cast<const T *>(x->data);
                     const bool aligned = (reinterpret_cast<uintptr_t>(to) | reinterpret_cast<uintptr_t>(from)) %
                                              sizeof(Pack<T, GROUP>) == 0;
                     return launch(dropout_by_groups<T>, static_cast<unsigned>(blocks), THREADS, 0, stream->handle, to,
                                   from, n, aligned, static_cast<const int32_t *>(step->data), d);
                   }));
}

}  // namespace gt
