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

}  // namespace gt
