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

}  // namespace gt
