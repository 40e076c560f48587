// Gradients of activations and gated units, clamp and dropout: argument checks, dispatch, and the CPU twin of
// elementwise_backward.cu.
#include "gatun/elementwise.h"

#include "check.h"
#include "cpu/isa.h"

#if defined(GT_ISA)
// Computes    gatun/elementwise.h
// Mapping     as elementwise.cpp; dropout by runs of RUN elements
// Memory      each operand once
// Numerics    an element's value depends on its inputs alone; dropout's also on its index
#include "cpu/map.h"
#include "cpu/math.h"
#include "cpu/philox.h"

namespace gt::GT_ISA {
namespace {

// An activation and its derivative at once: they share the exponential.
struct Slope {
  vf value, derivative;
};

// s = sigmoid(z) and slope = s (1 - s), in which nothing cancels or overflows.
struct Sigmoid {
  vf s, slope;
};
GT_INLINE Sigmoid sigmoid_at(vf z) {
  const vf e = vexp(-vabs(z)), large = 1.0f / (1.0f + e), small = e * large;
  return {select(z < 0.0f, small, large), small * large};
}

struct GeluErf {
  GT_INLINE Slope at(vf x) {
    const vf half_erfc = 0.5f * verfc_positive(vabs(x) * 0.70710678118654752f);
    const vf cdf = select(x > 0.0f, 1.0f - half_erfc, half_erfc);
    return {x * cdf, cdf + x * (0.3989422804014327f * vexp(-0.5f * x * x))};
  }
};
struct GeluTanh {
  GT_INLINE Slope at(vf x) {
    const vf u = 0.79788456080286536f * (x + 0.044715f * x * x * x);
    const Sigmoid sigmoid = sigmoid_at(2.0f * u);
    // Bounded where the slope has long been 0, so that a finite x gives no 0 * Inf. vmin keeps a NaN of its second.
    const vf square = vmin(broadcast(1e6f), x * x);
    const vf twice_du = 1.5957691216057308f + 0.21406454f * square;
    return {x * sigmoid.s, sigmoid.s + x * sigmoid.slope * twice_du};
  }
};
struct Silu {
  GT_INLINE Slope at(vf x) {
    const Sigmoid sigmoid = sigmoid_at(x);
    return {x * sigmoid.s, sigmoid.s + x * sigmoid.slope};
  }
};

// F::of(dy, x, unused, parameter)
template <class Activation>
struct Backward {
  GT_INLINE vf of(vf dy, vf x, vf, float) { return dy * Activation::at(x).derivative; }
};
struct QuickGeluBackward {
  GT_INLINE vf of(vf dy, vf x, vf, float) {
    const vf z = 1.702f * x;
    const Sigmoid sigmoid = sigmoid_at(z);
    return dy * (sigmoid.s + z * sigmoid.slope);
  }
};
struct ReluBackward {
  GT_INLINE vf of(vf dy, vf x, vf, float) { return select(x <= 0.0f, vf{}, dy); }
};
struct LeakyReluBackward {
  GT_INLINE vf of(vf dy, vf x, vf, float slope) { return select(x > 0.0f, dy, slope * dy); }
};
struct TanhBackward {
  GT_INLINE vf of(vf dy, vf y, vf, float) { return dy * (1.0f - y * y); }
};
struct SigmoidBackward {
  GT_INLINE vf of(vf dy, vf y, vf, float) { return dy * (y * (1.0f - y)); }
};
struct GaussianBackward {
  GT_INLINE vf of(vf dy, vf logvar, vf eps, float) {
    const vf inside = dy * eps * (0.5f * vexp(0.5f * logvar));
    return select((logvar < -30.0f) | (logvar > 20.0f), vf{}, inside);
  }
};

// dgate, dup; dy, gate, up
template <class T, class Activation>
void gated_run(char *const *data, int64_t n, float) {
  T *const dgate = reinterpret_cast<T *>(data[0]), *const dup = reinterpret_cast<T *>(data[1]);
  const T *const dy = reinterpret_cast<const T *>(data[2]), *const gate = reinterpret_cast<const T *>(data[3]);
  const T *const up = reinterpret_cast<const T *>(data[4]);
  for (int64_t i = 0; i < n; i += W) {
    const vf grad = load(dy + i), factor = load(up + i);
    const Slope slope = Activation::at(load(gate + i));
    store(dgate + i, grad * factor * slope.derivative);
    store(dup + i, grad * slope.value);
  }
}

template <class Activation>
gt_status gated(const gt_stream *stream, const gt_tensor *dgate, const gt_tensor *dup, const gt_tensor *dy,
                const gt_tensor *gate, const gt_tensor *up) {
  const gt_tensor *tensors[] = {dgate, dup, dy, gate, up};
  with_float(dy->dtype, [&](auto zero) {
    run(stream, tensors, 2, 5, gated_run<decltype(zero), Activation>, TRANSCENDENTAL, 0);
  });
  return GT_OK;
}

}  // namespace

#define BACKWARD_CPU(op, functor, cost)                                                                             \
  gt_status op##_backward_cpu(const gt_stream *stream, const gt_tensor *dx, const gt_tensor *dy,                    \
                              const gt_tensor *x) {                                                                 \
    return map<functor>(stream, {dx, dy, x}, cost);                                                                 \
  }
#define GATED_BACKWARD_CPU(op, activation)                                                                          \
  gt_status op##_backward_cpu(const gt_stream *stream, const gt_tensor *dgate, const gt_tensor *dup,                \
                              const gt_tensor *dy, const gt_tensor *gate, const gt_tensor *up) {                    \
    return gated<activation>(stream, dgate, dup, dy, gate, up);                                                     \
  }

BACKWARD_CPU(gelu_erf, Backward<GeluErf>, TRANSCENDENTAL)
BACKWARD_CPU(gelu_tanh, Backward<GeluTanh>, TRANSCENDENTAL)
BACKWARD_CPU(quick_gelu, QuickGeluBackward, TRANSCENDENTAL)
BACKWARD_CPU(silu, Backward<Silu>, TRANSCENDENTAL)
BACKWARD_CPU(relu, ReluBackward, CHEAP)
BACKWARD_CPU(tanh, TanhBackward, CHEAP)
BACKWARD_CPU(sigmoid, SigmoidBackward, CHEAP)
GATED_BACKWARD_CPU(swiglu, Silu)
GATED_BACKWARD_CPU(geglu, GeluErf)
GATED_BACKWARD_CPU(geglu_tanh, GeluTanh)

gt_status leaky_relu_backward_cpu(const gt_stream *stream, const gt_tensor *dx, const gt_tensor *dy,
                                  const gt_tensor *x, float slope) {
  return map<LeakyReluBackward>(stream, {dx, dy, x}, CHEAP, slope);
}

gt_status gaussian_backward_cpu(const gt_stream *stream, const gt_tensor *dlogvar, const gt_tensor *dy,
                                const gt_tensor *logvar, const gt_tensor *eps) {
  return map<GaussianBackward>(stream, {dlogvar, dy, logvar, eps}, TRANSCENDENTAL);
}

gt_status clamp_cpu(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x, float low, float high) {
  const gt_tensor *tensors[] = {y, x};
  const Loop loop = loop_over(tensors, 2);
  with_float(y->dtype, [&](auto zero) {
    using T = decltype(zero);
    for_runs(stream, loop, CHEAP, [&](char *const *data, int64_t n) {
      alignas(64) char buffer[RUN * sizeof(T)], clamped[RUN * sizeof(T)];
      const T *const from = reinterpret_cast<const T *>(contiguous_run(loop, 1, data[1], n, buffer));
      T *const to = reinterpret_cast<T *>(is_contiguous(loop, 0) ? data[0] : clamped);
      for (int64_t i = 0; i < n; i += W)
        store_up_to(to + i, vmin(broadcast(high), vmax(broadcast(low), load_up_to(from + i, n - i))), n - i);
      if (!is_contiguous(loop, 0))
        copy_run(data[0], stride_in_run(loop, 0), clamped, sizeof(T), sizeof(T), n);
    });
  });
  return GT_OK;
}

gt_status dropout_cpu(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x, float probability,
                      int64_t seed, const gt_tensor *step, int32_t layer) {
  const uint32_t at_step = static_cast<uint32_t>(*static_cast<const int32_t *>(step->data));
  const float factor = probability < 1 ? 1 / (1 - probability) : 0;
  const int64_t elements = gt::elements(*x), runs = (elements + RUN - 1) / RUN;
  with_float(x->dtype, [&](auto zero) {
    using T = decltype(zero);
    T *const to = static_cast<T *>(y->data);
    const T *const from = static_cast<const T *>(x->data);
    parallel_for(stream, runs, RUN * TRANSCENDENTAL, [&](int64_t begin, int64_t end) {
      for (int64_t first = begin * RUN; first < elements && first < end * RUN; first += 4 * W) {
        alignas(64) float number[4 * W];
        uniforms(static_cast<uint64_t>(seed), static_cast<uint32_t>(layer), at_step,
                 static_cast<uint64_t>(first / 4), number);
        for (int64_t i = 0; i < 4 * W && first + i < elements; i += W) {
          const int64_t left = elements - first - i;
          const vf value = load_up_to(from + first + i, left);
          store_up_to(to + first + i, select(load(number + i) > probability, value * factor, vf{}), left);
        }
      }
    });
  });
  return GT_OK;
}

}  // namespace gt::GT_ISA

#else

namespace {

void check_written(gt::Check &check, const char *name, const gt_tensor *t) {
  check.tensor(name, t, gt::FLOATS);
  for (int i = 0; check.ok() && gt::elements(*t) > 0 && i < t->rank; ++i)
    check.require(t->shape[i] == 1 || t->stride[i] != 0, "%s repeats elements (dimension %d has stride 0)", name, i);
}

void check_like(gt::Check &check, const char *name, const gt_tensor *t, const char *other_name,
                const gt_tensor *other) {
  check.tensor(name, t, gt::FLOATS).same_shape(name, t, other_name, other).same_dtype(name, t, other_name, other);
}

gt::Check check_backward(const char *op, const gt_stream *stream, const gt_tensor *dx, const gt_tensor *dy,
                         const char *x_name, const gt_tensor *x) {
  gt::Check check(op, stream);
  check_written(check, "dx", dx);
  check_like(check, "dy", dy, "dx", dx);
  check_like(check, x_name, x, "dx", dx);
  return check;
}

gt::Check check_gated(const char *op, const gt_stream *stream, const gt_tensor *dgate, const gt_tensor *dup,
                      const gt_tensor *dy, const gt_tensor *gate, const gt_tensor *up) {
  gt::Check check(op, stream);
  check_written(check, "dgate", dgate);
  check_written(check, "dup", dup);
  check_like(check, "dup", dup, "dgate", dgate);
  check_like(check, "dy", dy, "dgate", dgate);
  check_like(check, "gate", gate, "dgate", dgate);
  check_like(check, "up", up, "dgate", dgate);
  if (check.ok() && gt::elements(*dy) > 0)
    check.require(dgate->data != dup->data, "dgate and dup are the same memory, expected two tensors");
  return check;
}

}  // namespace

#define BACKWARD(op, x)                                                                                             \
  GT_DECLARE_OP(op##_backward)                                                                                      \
  extern "C" gt_status gt_##op##_backward(const gt_stream *stream, const gt_tensor *dx, const gt_tensor *dy,        \
                                          const gt_tensor *x) {                                                     \
    const gt::Check check = check_backward(#op "_backward", stream, dx, dy, #x, x);                                 \
    return check.ok() ? GT_RUN(op##_backward, stream, dx, dy, x) : check.status();                                  \
  }
#define GATED_BACKWARD(op)                                                                                          \
  GT_DECLARE_OP(op##_backward)                                                                                      \
  extern "C" gt_status gt_##op##_backward(const gt_stream *stream, const gt_tensor *dgate, const gt_tensor *dup,    \
                                          const gt_tensor *dy, const gt_tensor *gate, const gt_tensor *up) {        \
    const gt::Check check = check_gated(#op "_backward", stream, dgate, dup, dy, gate, up);                         \
    return check.ok() ? GT_RUN(op##_backward, stream, dgate, dup, dy, gate, up) : check.status();                   \
  }

BACKWARD(gelu_erf, x)
BACKWARD(gelu_tanh, x)
BACKWARD(quick_gelu, x)
BACKWARD(silu, x)
BACKWARD(relu, x)
BACKWARD(tanh, y)
BACKWARD(sigmoid, y)
GATED_BACKWARD(swiglu)
GATED_BACKWARD(geglu)
GATED_BACKWARD(geglu_tanh)

GT_DECLARE_OP(leaky_relu_backward)
GT_DECLARE_OP(gaussian_backward)
GT_DECLARE_OP(clamp)
GT_DECLARE_OP(dropout)

extern "C" gt_status gt_leaky_relu_backward(const gt_stream *stream, const gt_tensor *dx, const gt_tensor *dy,
                                            const gt_tensor *x, float slope) {
  const gt::Check check = check_backward("leaky_relu_backward", stream, dx, dy, "x", x);
  return check.ok() ? GT_RUN(leaky_relu_backward, stream, dx, dy, x, slope) : check.status();
}

extern "C" gt_status gt_gaussian_backward(const gt_stream *stream, const gt_tensor *dlogvar, const gt_tensor *dy,
                                          const gt_tensor *logvar, const gt_tensor *eps) {
  gt::Check check("gaussian_backward", stream);
  check_written(check, "dlogvar", dlogvar);
  check_like(check, "dy", dy, "dlogvar", dlogvar);
  check_like(check, "logvar", logvar, "dlogvar", dlogvar);
  check_like(check, "eps", eps, "dlogvar", dlogvar);
  return check.ok() ? GT_RUN(gaussian_backward, stream, dlogvar, dy, logvar, eps) : check.status();
}

extern "C" gt_status gt_clamp(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x, float low, float high) {
  gt::Check check("clamp", stream);
  check_written(check, "y", y);
  check_like(check, "x", x, "y", y);
  check.require(low <= high, "low is %g and high is %g, expected low <= high", static_cast<double>(low),
                static_cast<double>(high));
  return check.ok() ? GT_RUN(clamp, stream, y, x, low, high) : check.status();
}

extern "C" gt_status gt_dropout(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x, float probability,
                                int64_t seed, const gt_tensor *step, int32_t layer) {
  gt::Check check("dropout", stream);
  check.tensor("y", y, gt::FLOATS).contiguous("y", y);
  check_like(check, "x", x, "y", y);
  check.contiguous("x", x).tensor("step", step, gt::I32).shape("step", step, {1});
  check.require(probability >= 0 && probability <= 1, "probability is %g, expected 0 to 1",
                static_cast<double>(probability));
  return check.ok() ? GT_RUN(dropout, stream, y, x, probability, seed, step, layer) : check.status();
}

#endif
