// Is exp2_flushed as close to 2^x as lib/exp2.h says, and what does it give at the ends?
#include <cmath>

#include "lib/exp2.h"
#include "memory.h"

namespace {

__global__ void raise(const float *x, float *y, int count) {
  for (int i = threadIdx.x; i < count; i += blockDim.x) y[i] = gt::exp2_flushed(x[i]);
}

}  // namespace

int main() {
  constexpr int COUNT = 4001;
  const ptx::Shared<float> x(COUNT), y(COUNT);
  for (int i = 0; i < COUNT; ++i) x[i] = static_cast<float>(i - 3500) * 0.037f;  // -129.5 to 18.5
  x[0] = -INFINITY;
  x[1] = NAN;
  x[2] = 0;
  x[3] = -3e38f;
  if (ptx::run("exp2", raise, 64, 0, x.data(), y.data(), COUNT)) {
    ptx::expect(y[0] == 0 && y[3] == 0, "2^-inf is %g, 2^-3e38 is %g, expected 0", y[0], y[3]);
    ptx::expect(y[1] != y[1], "2^NaN is %g, expected NaN", y[1]);
    ptx::expect(y[2] == 1, "2^0 is %.9g, expected 1", y[2]);
    for (int i = 4; i < COUNT; ++i) {
      const double expected = std::exp2(static_cast<double>(x[i]));
      const bool is_flushed = expected < 0x1p-126 * (1 + 0x1p-21) && y[i] == 0;
      ptx::expect(is_flushed || std::fabs(y[i] - expected) <= 0x1p-22 * expected, "2^%.9g is %.9g, expected %.9g", x[i],
                  y[i], expected);
    }
  }
  return ptx::summary();
}
