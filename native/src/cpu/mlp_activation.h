// The activations between the matrices of an MLP, as functors of cpu/map.h: one formula for every op that has them.
#pragma once

#include "cpu/math.h"

namespace gt::GT_ISA {
namespace {  // templates of them stay within their file

struct GeluErf {
  // (1 + erf(z)) / 2 by erfc on either side of 0, so that nothing cancels for negative x.
  GT_INLINE vf of(vf x, vf, vf, float) {
    const vf half_erfc = 0.5f * verfc_positive(vabs(x) * 0.70710678118654752f);
    return x * select(x > 0.0f, 1.0f - half_erfc, half_erfc);
  }
};
struct GeluTanh {
  // (1 + tanh(u)) / 2 = sigmoid(2 u)
  GT_INLINE vf of(vf x, vf, vf, float) {
    const vf u = 0.79788456080286536f * (x + 0.044715f * x * x * x);
    return x / (1.0f + vexp(-2.0f * u));
  }
};
struct QuickGelu {
  GT_INLINE vf of(vf x, vf, vf, float) { return x / (1.0f + vexp(-1.702f * x)); }
};
struct Silu {
  GT_INLINE vf of(vf x, vf, vf, float) { return x / (1.0f + vexp(-x)); }
};
struct Relu {
  GT_INLINE vf of(vf x, vf, vf, float) { return select(x < 0.0f, vf{}, x); }
};
template <class Activation>
struct Gated {
  GT_INLINE vf of(vf gate, vf up, vf, float) { return Activation::of(gate, up, up, 0) * up; }
};

}  // namespace
}  // namespace gt::GT_ISA
