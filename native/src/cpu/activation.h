// gt_activation on vectors: what an op applies to its result before it is stored.
#pragma once

#include <type_traits>

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

// Of a value that is then rounded to T.
template <class T>
GT_INLINE vf activate_for(vf x, gt_activation activation) {
  return std::is_same_v<T, bf16> && activation == GT_ACTIVATION_SILU ? vsilu_coarse(x) : activate(x, activation);
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
