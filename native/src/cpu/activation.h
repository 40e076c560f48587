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

}  // namespace gt::GT_ISA
