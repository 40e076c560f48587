// Which random number belongs to (seed, sequence, step, element)?
//
// Philox4x32-10: J. Salmon, M. Moraes, R. Dror, D. Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC'11. A
// counter-based generator: no state, so the bits are the same on every device, for every batch split and thread count.
//   key     = { seed low, seed high }
//   counter = { element low, element high, step, sequence }
// sequence numbers a member of the batch, step a decode or sampler step. One evaluation gives four words. A use that
// needs one number per element shares an evaluation among four neighbours: element e takes word e % 4 of counter e / 4.
// philox_uniform and philox_normal do that; code that needs all four calls philox once and normal_pair twice.
// Plain C++: included by the .cpp twins too. Words are equal everywhere; uniforms too (exact in f32); normals pass
// through logf, sinf and cosf and may differ in the last places between devices.
#pragma once

#include <cmath>
#include <cstdint>

#if defined(__CUDACC__)
#define GT_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define GT_HOST_DEVICE inline
#endif

namespace gt {

struct PhiloxWords { uint32_t word[4]; };

// The bare bijection of the paper: ten rounds, the key bumped by the Weyl constants between them.
static GT_HOST_DEVICE PhiloxWords philox4x32_10(PhiloxWords counter, uint32_t key0, uint32_t key1) {
  uint32_t x0 = counter.word[0], x1 = counter.word[1], x2 = counter.word[2], x3 = counter.word[3];
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = static_cast<uint64_t>(0xD2511F53u) * x0;
    const uint64_t b = static_cast<uint64_t>(0xCD9E8D57u) * x2;
    x0 = static_cast<uint32_t>(b >> 32) ^ x1 ^ key0;
    x1 = static_cast<uint32_t>(b);
    x2 = static_cast<uint32_t>(a >> 32) ^ x3 ^ key1;
    x3 = static_cast<uint32_t>(a);
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return {{x0, x1, x2, x3}};
}

static GT_HOST_DEVICE PhiloxWords philox(uint64_t seed, uint32_t sequence, uint32_t step, uint64_t element) {
  return philox4x32_10({{static_cast<uint32_t>(element), static_cast<uint32_t>(element >> 32), step, sequence}},
                       static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32));
}

// A word to a uniform in (0, 1]: its upper 24 bits, plus one, times 2^-24. Exact, and safe to take the logarithm of.
static GT_HOST_DEVICE float uniform(uint32_t word) { return static_cast<float>((word >> 8) + 1) * 0x1p-24f; }

// Box-Muller: words (0, 1) give normals 0 and 1, words (2, 3) give 2 and 3. |n| <= sqrt(-2 ln 2^-24) = 5.77.
static GT_HOST_DEVICE float radius_of(uint32_t word) { return sqrtf(-2.0f * logf(uniform(word))); }
static GT_HOST_DEVICE float angle_of(uint32_t word) {
  constexpr float TWO_PI = 6.283185307179586f;
  return TWO_PI * uniform(word);
}
static GT_HOST_DEVICE float normal(const PhiloxWords &words, int number) {
  const bool second = number >= 2;
  const float radius = radius_of(second ? words.word[2] : words.word[0]);
  const float angle = angle_of(second ? words.word[3] : words.word[1]);
  return radius * (number % 2 ? sinf(angle) : cosf(angle));
}

// Both normals of two words, for one radius and one angle.
struct NormalPair { float first, second; };
static GT_HOST_DEVICE NormalPair normal_pair(uint32_t word, uint32_t next) {
  const float radius = radius_of(word), angle = angle_of(next);
#if defined(__CUDACC__)
  float sine, cosine;  // the bits of sinf and cosf, for one reduction of the angle
  sincosf(angle, &sine, &cosine);
#else
  const float sine = sinf(angle), cosine = cosf(angle);
#endif
  return {radius * cosine, radius * sine};
}

static GT_HOST_DEVICE float philox_uniform(uint64_t seed, uint32_t sequence, uint32_t step, uint64_t element) {
  return uniform(philox(seed, sequence, step, element / 4).word[element % 4]);
}

static GT_HOST_DEVICE float philox_normal(uint64_t seed, uint32_t sequence, uint32_t step, uint64_t element) {
  return normal(philox(seed, sequence, step, element / 4), static_cast<int>(element % 4));
}

}  // namespace gt
