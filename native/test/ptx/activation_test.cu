// Has activate_all the bits of activate, whose divisions the compiler writes, as lib/activation.h says?
#include <cmath>
#include <cstdint>

#include "lib/activation.h"
#include "memory.h"

namespace {

constexpr int VECTOR = 8, STRIDE = 9973;  // between the bits of numbers: some 840 of each power of two

__device__ __forceinline__ float number(unsigned i) { return __uint_as_float(i * STRIDE); }

// Of `count` vectors: how many numbers have other bits, and one of them.
__global__ void compare(unsigned count, unsigned *differing, float *example) {
  for (unsigned i = threadIdx.x; i < count; i += blockDim.x) {
    float together[VECTOR];
    for (int j = 0; j < VECTOR; ++j) together[j] = number(VECTOR * i + j);
    gt::activate_all<GT_ACTIVATION_SILU>(together);
    for (int j = 0; j < VECTOR; ++j) {
      const float x = number(VECTOR * i + j), alone = gt::activate(x, GT_ACTIVATION_SILU);
      if (__float_as_uint(alone) == __float_as_uint(together[j]) || (alone != alone && together[j] != together[j]))
        continue;
      ++differing[threadIdx.x];
      example[threadIdx.x] = x;
    }
  }
}

}  // namespace

int main() {
  constexpr unsigned THREADS = 64, VECTORS = (1ull << 32) / STRIDE / VECTOR;
  const ptx::Shared<unsigned> differing(THREADS);
  const ptx::Shared<float> example(THREADS);
  for (unsigned t = 0; t < THREADS; ++t) differing[t] = 0;
  if (ptx::run("compare", compare, THREADS, 0, VECTORS, differing.data(), example.data()))
    for (unsigned t = 0; t < THREADS; ++t)
      ptx::expect(differing[t] == 0, "silu of %u numbers, %.9g among them, has other bits together than alone",
                  differing[t], static_cast<double>(example[t]));
  return ptx::summary();
}
