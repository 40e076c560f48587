// Do the headers of native/lib compute what they say: vectors, reductions, random numbers?
#include "harness.h"
#include "lib/cuda.h"
#include "lib/image_noise.h"
#include "lib/philox.h"
#include "lib/reduce.h"
#include "lib/vec.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

namespace {

// Reductions

// Each block reduces one row of `columns` numbers, any number, and every thread writes what it got.
__global__ void reduce_row(const float *in, int columns, float *sums, float *maxima) {
  __shared__ float scratch[gt::MAX_WARPS];
  const float *const row = in + static_cast<int64_t>(blockIdx.x) * columns;
  float sum = 0, largest = -INFINITY;
  for (int c = threadIdx.x; c < columns; c += blockDim.x) {
    sum += row[c];
    largest = fmaxf(largest, row[c]);
  }
  const int64_t out = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  sums[out] = gt::block_sum(sum, scratch);
  maxima[out] = gt::block_max(largest, scratch);
}
GT_TEST(reduce_rows_of_odd_sizes, ANY) {
  for (const int columns : {1, 3, 31, 33, 127, 257, 1000})
    for (const int threads : {32, 64, 96, 256, 1024}) {
      const int rows = 3;
      std::vector<float> in(rows * columns), first_sums;
      for (size_t i = 0; i < in.size(); ++i) in[i] = std::sin(static_cast<float>(i)) - 2;
      harness::for_each_order([&](const char *order) {
        std::vector<float> sums(rows * threads, NAN), maxima(rows * threads, NAN);
        harness::expect_ok(
            gt::launch(reduce_row, rows, threads, 0, nullptr, in.data(), columns, sums.data(), maxima.data()), order);
        for (int i = 0; i < rows * threads; ++i) {
          const float *const row = &in[i / threads * columns];
          double sum = 0, size = 0;
          float largest = -INFINITY;
          for (int c = 0; c < columns; ++c)
            sum += row[c], size += std::fabs(row[c]), largest = std::max(largest, row[c]);
          GT_CHECK(std::fabs(sums[i] - sum) <= 1e-6 * size, "%s: %d columns, %d threads: sum %.9g, expected %.9g",
                   order, columns, threads, sums[i], sum);
          GT_CHECK(maxima[i] == largest, "%s: %d columns, %d threads: max %g, expected %g", order, columns, threads,
                   maxima[i], largest);
          GT_CHECK(sums[i] == sums[i / threads * threads], "%s: threads of one block disagree", order);
        }
        if (first_sums.empty()) first_sums = sums;
        GT_CHECK(!memcmp(sums.data(), first_sums.data(), sums.size() * sizeof(float)),
                 "%s: the sum depends on the order", order);
      });
    }
}

// Vectors

template <class T> __global__ void copy_upto(const T *in, T *out, int64_t count, bool aligned) {
  float v[gt::VEC<T>];
  gt::load_upto(in, count, aligned, -7.0f, v);
  if (count < gt::VEC<T> && v[gt::VEC<T> - 1] != -7.0f) return;  // the fill is missing
  gt::store_upto(out, count, aligned, v);
}
// Every count and every misalignment; buffers end where the data ends, so that ASan sees an access past it.
template <class T> void check_copy(const char *order) {
  constexpr int V = gt::VEC<T>;
  for (int shift = 0; shift < V; ++shift)
    for (int count = -1; count <= V; ++count) {
      const size_t size = static_cast<size_t>(shift + (count > 0 ? count : 0));
      std::vector<T> in(size), out(size);
      for (size_t i = 0; i < size; ++i)
        in[i] = gt::from_float<T>(static_cast<float>(i) + 0.5f), out[i] = gt::from_float<T>(0.0f);
      const bool aligned = gt::is_aligned(in.data() + shift) && gt::is_aligned(out.data() + shift);
      GT_CHECK(size == 0 || aligned == (shift == 0), "%s: shift %d: aligned %d", order, shift, aligned);
      harness::expect_ok(
          gt::launch(copy_upto<T>, 1, 1, 0, nullptr, in.data() + shift, out.data() + shift, count, aligned), order);
      for (size_t i = 0; i < size; ++i) {
        const float expected = static_cast<int>(i) < shift ? 0.0f : static_cast<float>(i) + 0.5f;
        GT_CHECK(gt::to_float(out[i]) == expected, "%s: shift %d count %d: element %zu is %g", order, shift, count, i,
                 gt::to_float(out[i]));
      }
    }
}
GT_TEST(vec_every_count_and_alignment, ANY) {
  harness::for_each_order([](const char *order) {
    check_copy<float>(order);
    check_copy<gt::bf16>(order);
    check_copy<gt::f16>(order);
  });
  GT_CHECK(gt::VEC<float> == 4 && gt::VEC<gt::bf16> == 8 && gt::VEC<gt::f16> == 8, "elements per vector");
  alignas(16) static float row[8];
  GT_CHECK(gt::rows_are_aligned(row, 8) && !gt::rows_are_aligned(row, 6) && !gt::rows_are_aligned(row + 2, 8),
           "rows_are_aligned");
}

// Random numbers

// Random123 1.14, tests/kat_vectors, "philox4x32 10".
GT_TEST(philox_known_answers, ANY) {
  struct Vector { gt::PhiloxWords counter; uint32_t key[2]; gt::PhiloxWords expected; };
  const Vector vectors[] = {
      {{{0, 0, 0, 0}}, {0, 0}, {{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}}},
      {{{~0u, ~0u, ~0u, ~0u}}, {~0u, ~0u}, {{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}}},
      {{{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}},
       {0xa4093822, 0x299f31d0},
       {{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}}},
  };
  for (const Vector &v : vectors) {
    const gt::PhiloxWords got = gt::philox4x32_10(v.counter, v.key[0], v.key[1]);
    for (int i = 0; i < 4; ++i)
      GT_CHECK(got.word[i] == v.expected.word[i], "word %d is %08x, expected %08x", i, got.word[i], v.expected.word[i]);
  }
  const gt::PhiloxWords laid_out = gt::philox(0x299f31d0a4093822, 0x03707344, 0x13198a2e, 0x85a308d3243f6a88);
  GT_CHECK(!memcmp(&laid_out, &vectors[2].expected, sizeof laid_out), "the layout of seed, sequence, step, element");
}

__global__ void draw(uint64_t seed, uint32_t sequence, uint32_t step, uint32_t *words, float *uniforms,
                     float *normals) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  words[i] = gt::philox(seed, sequence, step, i / 4).word[i % 4];
  uniforms[i] = gt::philox_uniform(seed, sequence, step, i);
  normals[i] = gt::philox_normal(seed, sequence, step, i);
}
GT_TEST(philox_kernel_equals_host, ANY) {
  const int n = 4096;
  std::vector<uint32_t> words(n);
  std::vector<float> uniforms(n), normals(n);
  harness::expect_ok(
      gt::launch(draw, n / 128, 128, 0, nullptr, 42, 3, 9, words.data(), uniforms.data(), normals.data()), "fwd");
  double mean = 0, square = 0;
  for (int i = 0; i < n; ++i) {
    GT_CHECK(words[i] == gt::philox(42, 3, 9, i / 4).word[i % 4], "word %d", i);
    GT_CHECK(uniforms[i] > 0 && uniforms[i] <= 1 && uniforms[i] == gt::uniform(words[i]), "uniform %d is %g", i,
             uniforms[i]);
    // The definition, in double: a pair of words gives a radius and an angle.
    const uint32_t *const pair = &words[i / 2 * 2];
    const double radius = std::sqrt(-2 * std::log(((pair[0] >> 8) + 1.0) / 16777216)),
                 angle = 6.283185307179586 * ((pair[1] >> 8) + 1.0) / 16777216;
    const double expected = radius * (i % 2 ? std::sin(angle) : std::cos(angle));
    GT_CHECK(std::fabs(normals[i] - expected) < 4e-6, "normal %d is %.9g, expected %.9g", i, normals[i], expected);
    mean += normals[i] / n;
    square += normals[i] * normals[i] / n;
  }
  GT_CHECK(std::fabs(mean) < 0.05 && std::fabs(square - 1) < 0.08, "mean %g, variance %g", mean, square);
}

// A block draws a piece of an image into shared memory, and copies it and what lies behind it.
constexpr int PIECE = 128, BEHIND = 8;
__global__ void draw_image_piece(gt::ImageShape shape, unsigned begin, unsigned count, float *out) {
  __shared__ float piece[PIECE + BEHIND];
  for (unsigned i = threadIdx.x; i < PIECE + BEHIND; i += blockDim.x) piece[i] = -99;
  __syncthreads();
  gt::draw_piece(shape, 42, 3, 9, begin, count, blockDim.x, piece);
  __syncthreads();
  for (unsigned i = threadIdx.x; i < PIECE + BEHIND; i += blockDim.x) out[i] = piece[i];
}
void expect_piece(const gt::ImageShape &shape, unsigned begin, unsigned count_wanted) {
  const unsigned count = std::min(count_wanted, shape.elements() - begin);
  std::vector<float> out(PIECE + BEHIND);
  harness::expect_ok(gt::launch(draw_image_piece, 1, 32, 0, nullptr, shape, begin, count, out.data()), "fwd");
  for (unsigned i = 0; i < PIECE + BEHIND; ++i) {
    const unsigned number = gt::pixel_at(shape, begin + i).planar(shape);
    const float expected = i < count ? gt::philox_normal(42, 3, 9, number) : -99;
    GT_CHECK(out[i] == expected, "%u x %u x %u, element %u + %u of %u: %.9g, expected %.9g", shape.height, shape.width,
             shape.channels, begin, i, count, out[i], expected);
  }
}
// Pieces that begin and end anywhere, planes and rows that end within four, more channels than a piece has elements.
GT_TEST(image_noise_is_that_of_each_element, ANY) {
  const gt::ImageShape shapes[] = {{4, 8, 4}, {3, 5, 4}, {5, 7, 1}, {7, 9, 3}, {2, 3, 16}, {1, 3, 150}, {1, 1, 7}};
  for (const gt::ImageShape &shape : shapes)
    for (const unsigned count : {1u, 48u, 128u})
      for (unsigned begin = 0; begin < shape.elements(); begin += begin < 12 ? 1 : 37)
        expect_piece(shape, begin, count);
}
// 3 elements of a four lie further apart than 32 bits count.
GT_TEST(image_noise_of_most_channels, ANY) {
  for (const unsigned channels : {1431655800u, 2147483647u})
    for (const unsigned begin : {0u, 5u, channels / 2, channels - PIECE, channels - 3})
      expect_piece({1, 1, channels}, begin, PIECE);
}

GT_TEST(philox_uniform_bounds, ANY) {
  GT_CHECK(gt::uniform(0) == 0x1p-24f && gt::uniform(~0u) == 1.0f, "uniform runs from %g to %g", gt::uniform(0),
           gt::uniform(~0u));
  const gt::PhiloxWords extreme = {{0, ~0u, 0, ~0u}};
  const float largest = gt::normal(extreme, 0);
  GT_CHECK(largest > 5.7f && largest < 5.8f && std::isfinite(gt::normal(extreme, 1)), "the largest normal is %g",
           largest);
}

}  // namespace
