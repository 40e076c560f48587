// Have activate_all and activation_derivatives the bits of activate and activation_derivative, whose divisions the
// compiler writes, as lib/activation.h says?
#include <cmath>
#include <cstdint>

#include "lib/activation.h"
#include "memory.h"

namespace {

constexpr int VECTOR = 8, STRIDE = 9973;  // between the bits of numbers: some 840 of each power of two

__device__ __forceinline__ float number(unsigned i) { return __uint_as_float(i * STRIDE); }

struct Silu {
  static __device__ float alone(float x) { return gt::activate(x, GT_ACTIVATION_SILU); }
  static __device__ void together(float (&x)[VECTOR]) { gt::activate_all<GT_ACTIVATION_SILU>(x); }
};
template <gt_activation ACTIVATION> struct Derivative {
  static __device__ float alone(float x) { return gt::activation_derivative(x, ACTIVATION); }
  static __device__ void together(float (&x)[VECTOR]) { gt::activation_derivatives(x, ACTIVATION); }
};

// Of `count` vectors: how many numbers have other bits, and one of them.
template <class F> __global__ void compare(unsigned count, unsigned *differing, float *example) {
  for (unsigned i = threadIdx.x; i < count; i += blockDim.x) {
    float together[VECTOR];
    for (int j = 0; j < VECTOR; ++j) together[j] = number(VECTOR * i + j);
    F::together(together);
    for (int j = 0; j < VECTOR; ++j) {
      const float x = number(VECTOR * i + j), alone = F::alone(x);
      if (__float_as_uint(alone) == __float_as_uint(together[j]) || (alone != alone && together[j] != together[j]))
        continue;
      ++differing[threadIdx.x];
      example[threadIdx.x] = x;
    }
  }
}

template <class F> void check(const char *name) {
  constexpr unsigned THREADS = 64, VECTORS = (1ull << 32) / STRIDE / VECTOR;
  const ptx::Shared<unsigned> differing(THREADS);
  const ptx::Shared<float> example(THREADS);
  for (unsigned t = 0; t < THREADS; ++t) differing[t] = 0;
  if (ptx::run("compare", compare<F>, THREADS, 0, VECTORS, differing.data(), example.data()))
    for (unsigned t = 0; t < THREADS; ++t)
      ptx::expect(differing[t] == 0, "%s of %u numbers, %.9g among them, has other bits together than alone", name,
                  differing[t], static_cast<double>(example[t]));
}

}  // namespace

int main() {
  check<Silu>("silu");
  check<Derivative<GT_ACTIVATION_SILU>>("silu's derivative");
  check<Derivative<GT_ACTIVATION_TANH>>("tanh's derivative");
  return ptx::summary();
}
