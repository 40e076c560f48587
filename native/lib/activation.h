// gt_activation on a float: what an op applies to its result before it is stored.
#pragma once

#include "gatun/types.h"
#include "lib/cuda.h"

namespace gt {

__device__ __forceinline__ float activate(float x, gt_activation activation) {
  switch (activation) {
    case GT_ACTIVATION_SILU: return x / (1.0f + expf(-x));
    case GT_ACTIVATION_RELU: return x < 0.0f ? 0.0f : x;
    case GT_ACTIVATION_TANH: return tanhf(x);
    default: return x;
  }
}

#if defined(__CUDACC__)
__device__ __forceinline__ float reciprocal_roughly(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
#else
inline float reciprocal_roughly(float x) { return 1.0f / x; }
#endif

// x[i] /= y[i]: the steps of the compiler's own division side by side, which has a branch after each for operands near
// the ends of the range. is_plain: no quotient or remainder is infinite, a denormal, or 0, whose sign the steps would
// lose.
template <int N> __device__ __forceinline__ void divide_all(float (&x)[N], const float (&y)[N], bool is_plain) {
  if (is_plain) {
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const float rough = reciprocal_roughly(y[i]), r = fmaf(rough, fmaf(-y[i], rough, 1.0f), rough), q = x[i] * r;
      x[i] = fmaf(r, fmaf(-y[i], q, x[i]), q);
    }
  } else {
#pragma unroll
    for (int i = 0; i < N; ++i) x[i] = x[i] / y[i];
  }
}

// The bits of activate, of several numbers: silu's divisions run beside each other.
template <gt_activation ACTIVATION, int N> __device__ __forceinline__ void activate_all(float (&v)[N]) {
  if constexpr (ACTIVATION != GT_ACTIVATION_SILU) {
#pragma unroll
    for (int i = 0; i < N; ++i) v[i] = activate(v[i], ACTIVATION);
  } else {
    float y[N];
    bool is_plain = true;
#pragma unroll
    for (int i = 0; i < N; ++i) {
      y[i] = 1.0f + expf(-v[i]);
      is_plain = is_plain & (fabsf(v[i]) >= 0x1p-40f) & (fabsf(v[i]) <= 64.0f);
    }
    divide_all(v, y, is_plain);
  }
}

template <int N> __device__ __forceinline__ void activate_all(float (&v)[N], gt_activation activation) {
  switch (activation) {
    case GT_ACTIVATION_SILU: return activate_all<GT_ACTIVATION_SILU>(v);
    case GT_ACTIVATION_RELU: return activate_all<GT_ACTIVATION_RELU>(v);
    case GT_ACTIVATION_TANH: return activate_all<GT_ACTIVATION_TANH>(v);
    default: return;
  }
}

// At x; of relu 0 at 0.
__device__ __forceinline__ float activation_derivative(float x, gt_activation activation) {
  switch (activation) {
    case GT_ACTIVATION_SILU: {
      const float s = 1.0f / (1.0f + expf(-x));
      return s * (1.0f + x * (1.0f - s));
    }
    case GT_ACTIVATION_RELU: return x <= 0.0f ? 0.0f : 1.0f;
    case GT_ACTIVATION_TANH: {
      const float e = expf(-2.0f * fabsf(x));  // 1 - tanh^2, without its cancellation
      return 4.0f * e / ((1.0f + e) * (1.0f + e));
    }
    default: return 1.0f;
  }
}

// The bits of activation_derivative, of several numbers; divisions as in activate_all.
template <int N> __device__ __forceinline__ void activation_derivatives(float (&v)[N], gt_activation activation) {
  float y[N];
  bool is_plain = true;
  if (activation == GT_ACTIVATION_SILU) {
#pragma unroll
    for (int i = 0; i < N; ++i) {
      y[i] = 1.0f + expf(-v[i]);
      is_plain = is_plain & (y[i] <= 0x1p125f);
    }
    if (is_plain) {
#pragma unroll
      for (int i = 0; i < N; ++i) {
        const float rough = reciprocal_roughly(y[i]);
        y[i] = fmaf(rough, fmaf(-y[i], rough, 1.0f), rough);
      }
    } else {
#pragma unroll
      for (int i = 0; i < N; ++i) y[i] = 1.0f / y[i];
    }
#pragma unroll
    for (int i = 0; i < N; ++i) v[i] = y[i] * (1.0f + v[i] * (1.0f - y[i]));
  } else if (activation == GT_ACTIVATION_TANH) {
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const float e = expf(-2.0f * fabsf(v[i]));
      v[i] = 4.0f * e;
      y[i] = (1.0f + e) * (1.0f + e);
      is_plain = is_plain & (v[i] >= 0x1p-40f);
    }
    divide_all(v, y, is_plain);
  } else {
#pragma unroll
    for (int i = 0; i < N; ++i) v[i] = activation_derivative(v[i], activation);
  }
}

}  // namespace gt
