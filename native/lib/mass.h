// In which unit are the weights of a softmax summed, so that every order of summation gives the same sum?
//
// As integers. A weight w = exp(x - max), an f32 in [0, 1], has the mass floor(w 2^bits), with as many bits as V masses
// leave in 62. Integers add up to the same in any order: sums, and the decisions taken from them, are equal over
// threads, instruction sets and devices wherever the weights are. The largest weight is 1, so a sum falls short by less
// than V 2^-bits of itself: 2^-30 for V = 50257, 2^-26 for V = 256k, below the rounding of the weights. A weight under
// 2^-bits counts as 0. Plain C++, static: included by code for one instruction set and by CUDA.
#pragma once

#include <cmath>
#include <cstdint>

#include "lib/philox.h"

namespace gt {

// For V weights, 1 <= V < 2^31: from 62 down to 31.
static GT_HOST_DEVICE int mass_bits(int64_t v) {
  int bits = 62;
  while (int64_t{1} << (62 - bits) < v) --bits;
  return bits;
}

// Exact: the factor is a power of two, and no weight but 0 is below 2^-126.
static GT_HOST_DEVICE uint64_t mass_of(float weight, int bits) {
  return static_cast<uint64_t>(static_cast<int64_t>(weight * static_cast<float>(int64_t{1} << bits)));
}

// The smallest sum that reaches `fraction` of total, never 0: something must be summed to reach it.
static GT_HOST_DEVICE uint64_t mass_target(double fraction, uint64_t total) {
  const double target = ceil(fraction * static_cast<double>(total));
  if (!(target >= 1)) return 1;
  return target < static_cast<double>(total) ? static_cast<uint64_t>(target) : total;
}

}  // namespace gt
