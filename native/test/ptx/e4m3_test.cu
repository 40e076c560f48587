// Are numbers widened from e4m3 exact, and those rounded to it the nearest, as lib/e4m3.h says?
#include <cmath>

#include "lib/e4m3.h"
#include "lib/vec.h"
#include "memory.h"

namespace {

constexpr int CODES = 256, WORDS = CODES / 4;

template <class T> __global__ void widen(const uint32_t *fours, T *out) {
  for (int i = threadIdx.x; i < WORDS; i += blockDim.x) {
    uint32_t pairs[2];
    gt::widen_e4m3<T>(fours[i], pairs);
    memcpy(out + 4 * i, pairs, sizeof pairs);
  }
}

__global__ void pack(const float *x, uint16_t *codes, int count) {
  for (int i = threadIdx.x; i < count / 2; i += blockDim.x)
    codes[i] = static_cast<uint16_t>(gt::pack_e4m3(x[2 * i], x[2 * i + 1]));
}

// Of a code without a sign, 127 as 480.
float value_of(int code) {
  const float units = static_cast<float>(code % 8);
  return code < 8 ? std::ldexp(units, -9) : std::ldexp(8.0f + units, code / 8 - 10);
}

template <class T> void check_widen(const char *name) {
  const ptx::Shared<uint32_t> fours(WORDS);
  const ptx::Shared<T> out(CODES);
  for (uint32_t i = 0; i < WORDS; ++i) fours[i] = (4 * i) | (4 * i + 1) << 8 | (4 * i + 2) << 16 | (4 * i + 3) << 24;
  if (!ptx::run(name, widen<T>, 32, 0, fours.data(), out.data())) return;
  for (int code = 0; code < CODES; ++code) {
    const float value = code < 128 ? value_of(code) : -value_of(code - 128), found = gt::to_float(out[code]);
    ptx::expect(found * gt::E4M3_UNIT<T> == value && std::signbit(found) == std::signbit(value),
                "%s: code %d is %g times %g, expected %g", name, code, found, gt::E4M3_UNIT<T>, value);
  }
}

// Every number, the middle to the next and the floats around it, each with both signs; then what is beyond 448.
void check_pack() {
  constexpr int EACH = 8, COUNT = 127 * EACH;
  const ptx::Shared<float> x(COUNT);
  const ptx::Shared<uint16_t> codes(COUNT / 2);
  const ptx::Shared<uint8_t> expected(COUNT);
  for (int code = 0; code < 127; ++code) {
    const float value = value_of(code), middle = (value + value_of(code + 1)) / 2;  // the last is 464, which saturates
    const float magnitudes[4] = {value, middle, std::nextafter(middle, 0.0f), std::nextafter(middle, 1e30f)};
    const int next = code < 126 ? code + 1 : code, even = code % 2 ? next : code, nearest[4] = {code, even, code, next};
    for (int i = 0; i < EACH; ++i) {
      x[code * EACH + i] = i < 4 ? magnitudes[i] : -magnitudes[i - 4];
      expected[code * EACH + i] = static_cast<uint8_t>(nearest[i % 4] + (i < 4 ? 0 : 128));
    }
  }
  x[126 * EACH + 1] = 1e30f;
  x[126 * EACH + 5] = -3e38f;
  if (!ptx::run("pack_e4m3", pack, 64, 0, x.data(), codes.data(), COUNT)) return;
  for (int i = 0; i < COUNT; ++i) {
    const int found = codes[i / 2] >> i % 2 * 8 & 0xff;
    ptx::expect(found == expected[i], "%.9g has code %d, expected %d", x[i], found, expected[i]);
  }
}

}  // namespace

int main() {
  check_widen<gt::bf16>("widen_e4m3<bf16>");
  check_widen<gt::f16>("widen_e4m3<f16>");
  check_pack();
  return ptx::summary();
}
