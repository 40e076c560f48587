// Does a device draw the same random words and uniforms as the host, and normals that are as good?
#include "lib/philox.h"
#include "memory.h"

#include <cmath>

namespace {

constexpr uint64_t SEED = 0x299f31d0a4093822;
constexpr uint32_t SEQUENCE = 3, STEP = 9;

struct Draws {
  uint32_t word;
  float uniform, normal, of_pair;
};

__global__ void draw(uint64_t first, Draws *out) {
  const uint64_t element = first + threadIdx.x;
  const gt::PhiloxWords words = gt::philox(SEED, SEQUENCE, STEP, element / 4);
  const bool second = element % 4 >= 2;
  const gt::NormalPair pair = gt::normal_pair(words.word[second ? 2 : 0], words.word[second ? 3 : 1]);
  out[threadIdx.x].word = words.word[element % 4];
  out[threadIdx.x].uniform = gt::philox_uniform(SEED, SEQUENCE, STEP, element);
  out[threadIdx.x].normal = gt::philox_normal(SEED, SEQUENCE, STEP, element);
  out[threadIdx.x].of_pair = element % 2 ? pair.second : pair.first;
}

void check(uint64_t first) {
  const ptx::Shared<Draws> out(1024);
  if (!ptx::run("draw", draw, 1024, 0, first, out.data())) return;
  for (int i = 0; i < 1024; ++i) {
    const uint64_t element = first + i;
    const gt::PhiloxWords words = gt::philox(SEED, SEQUENCE, STEP, element / 4);
    const uint32_t word = words.word[element % 4];
    ptx::expect(out[i].word == word, "word %d is %08x, expected %08x", i, out[i].word, word);
    const float uniform = gt::uniform(word);
    ptx::expect(out[i].uniform == uniform, "uniform %d is %.9g, expected %.9g", i, out[i].uniform, uniform);
    // Box-Muller in double: a pair of words gives a radius and an angle.
    const uint32_t *const pair = &words.word[element % 4 / 2 * 2];
    const double radius = std::sqrt(-2 * std::log(((pair[0] >> 8) + 1.0) / 16777216));
    const double angle = 6.283185307179586 * ((pair[1] >> 8) + 1.0) / 16777216;
    const double normal = radius * (element % 2 ? std::sin(angle) : std::cos(angle));
    ptx::expect(std::fabs(out[i].normal - normal) < 4e-6, "normal %d is %.9g, expected %.9g", i, out[i].normal, normal);
    ptx::expect(out[i].of_pair == out[i].normal, "normal %d of a pair is %.9g, by itself %.9g", i, out[i].of_pair,
                out[i].normal);
  }
}

}  // namespace

int main() {
  check(0);
  check((uint64_t{1} << 40) + 5);  // beyond 32 bits, not at the beginning of four
  return ptx::summary();
}
