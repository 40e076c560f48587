// How does rope turn a pair? With fused operations, so that every kernel that turns one rounds alike.
#pragma once

#include "lib/cuda.h"

namespace gt {

enum class Turn { FORTH, BACK };  // by the angle, or by its negative, which is the gradient

template <Turn TURN> __device__ __forceinline__ void rotate(float &a, float &b, float cosine, float sine) {
  if constexpr (TURN == Turn::BACK) sine = -sine;
  const float turned = fmaf(a, cosine, -__fmul_rn(b, sine));
  b = fmaf(b, cosine, __fmul_rn(a, sine));
  a = turned;
}

}  // namespace gt
