// How does softmax raise two to a power in one instruction?
//
// exp2f costs five: it keeps results below 2^-126 as denormals. Here they are 0, and so is 2^-inf; NaN stays NaN. Off
// by 2 ulp at most. PTX ISA, "ex2".
#pragma once

#include "lib/cuda.h"

#include <cmath>

namespace gt {

#if defined(__CUDACC__)

__device__ __forceinline__ float exp2_flushed(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

#else

inline float exp2_flushed(float x) {
  const float y = exp2f(x);
  return y < 0x1p-126f ? 0.0f : y;
}

#endif

}  // namespace gt
