// gt_activation on vectors: what an op applies to its result before it is stored.
#pragma once

#include "cpu/math.h"

namespace gt::GT_ISA {

GT_INLINE vf activate(vf x, gt_activation activation) {
  switch (activation) {
    case GT_ACTIVATION_SILU: return vsilu(x);
    case GT_ACTIVATION_RELU: return select(x < 0.0f, vf{}, x);
    case GT_ACTIVATION_TANH: return vtanh(x);
    default: return x;
  }
}

// At x; of relu 0 at 0.
GT_INLINE vf activation_derivative(vf x, gt_activation activation) {
  switch (activation) {
    case GT_ACTIVATION_SILU: {
      const vf s = 1.0f / one_plus_exp_of_minus(x);
      return s * (1.0f + x * (1.0f - s));
    }
    case GT_ACTIVATION_RELU: return select(x <= 0.0f, vf{}, broadcast(1.0f));
    case GT_ACTIVATION_TANH: {
      const vf e = vexp(-2.0f * vabs(x));  // 1 - tanh^2, without its cancellation
      return 4.0f * e / ((1.0f + e) * (1.0f + e));
    }
    default: return broadcast(1.0f);
  }
}

}  // namespace gt::GT_ISA
