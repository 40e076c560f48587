// The activations between the matrices of an MLP, as functors of lib/map.h: one formula for every op that has them.
#pragma once

#include "lib/cuda.h"

namespace gt {
namespace {  // templates of them stay within their file

struct GeluErf {
  static constexpr int INPUTS = 1;
  // (1 + erf(z)) / 2 = erfc(-z) / 2, where nothing cancels for negative x
  __device__ float operator()(float x, float) const { return x * (0.5f * erfcf(-0.70710678118654752f * x)); }
};
struct GeluTanh {
  static constexpr int INPUTS = 1;
  // (1 + tanh(u)) / 2 = sigmoid(2 u)
  __device__ float operator()(float x, float) const {
    const float u = 0.79788456080286536f * (x + 0.044715f * x * x * x);
    return x / (1.0f + expf(-2.0f * u));
  }
};
struct QuickGelu {
  static constexpr int INPUTS = 1;
  __device__ float operator()(float x, float) const { return x / (1.0f + expf(-1.702f * x)); }
};
struct Silu {
  static constexpr int INPUTS = 1;
  __device__ float operator()(float x, float) const { return x / (1.0f + expf(-x)); }
};
struct Relu {
  static constexpr int INPUTS = 1;
  __device__ float operator()(float x, float) const { return x < 0.0f ? 0.0f : x; }
};
template <class Activation> struct Gated {
  static constexpr int INPUTS = 2;
  __device__ float operator()(float gate, float up) const { return Activation()(gate, 0.0f) * up; }
};

}  // namespace
}  // namespace gt
