// Do correct kernels give the right result, in every lane order, and without a report?
//
// One small kernel per primitive, against the obvious loop on the host. In the race build these are also the test that
// the race check accuses nobody wrongly.
#include "harness.h"
#include "lib/barrier.h"
#include "lib/cuda.h"
#include "lib/reduce.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <vector>

namespace {

using gt::ALL_LANES;

template <class Kernel, class... Args>
void run(const char *order, Kernel kernel, dim3 grid, dim3 block, size_t smem, Args... args) {
  harness::expect_ok(gt::launch(kernel, grid, block, smem, nullptr, args...), order);
}

// Warps

__global__ void shuffles(int *out, int width) {
  const int lane = threadIdx.x, value = 100 + lane;
  int *const row = out + 4 * lane;
  row[0] = __shfl_sync(ALL_LANES, value, 5, width);
  row[1] = __shfl_up_sync(ALL_LANES, value, 3, width);
  row[2] = __shfl_down_sync(ALL_LANES, value, 3, width);
  row[3] = __shfl_xor_sync(ALL_LANES, value, 6, width);
}
GT_TEST(warp_shuffles, ANY) {
  harness::for_each_order([](const char *order) {
    for (int width = 1; width <= 32; width *= 2) {
      std::vector<int> out(32 * 4, -1);
      run(order, shuffles, 1, 32, 0, out.data(), width);
      for (int lane = 0; lane < 32; ++lane) {
        const int first = lane / width * width, end = first + width;
        // The PTX rules (shfl.sync): index wraps in the segment; up, down and xor past it keep the own value.
        const int index = first + 5 % width, up = lane - 3 >= first ? lane - 3 : lane;
        const int down = lane + 3 < end ? lane + 3 : lane, across = (lane ^ 6) < end ? lane ^ 6 : lane;
        const int expected[4] = {100 + index, 100 + up, 100 + down, 100 + across};
        for (int i = 0; i < 4; ++i)
          GT_CHECK(out[4 * lane + i] == expected[i], "%s: width %d lane %d shuffle %d gives %d, expected %d", order,
                   width, lane, i, out[4 * lane + i], expected[i]);
      }
    }
  });
}

// Types of 8, 4 and 2 bytes, and two groups of lanes that shuffle apart from each other.
__global__ void shuffle_types(double *doubles, unsigned long long *longs, float *halves) {
  const int lane = threadIdx.x;
  doubles[lane] = __shfl_xor_sync(ALL_LANES, 0.1 * lane, 1);
  longs[lane] = __shfl_sync(ALL_LANES, 1ull << lane, 31);
  halves[lane] = __half2float(__shfl_down_sync(ALL_LANES, __float2half(0.5f * lane), 1));
  const unsigned odd = 0xaaaaaaaau;
  if (lane % 2) doubles[lane] += __shfl_xor_sync(odd, 1.0, 2);
  else doubles[lane] += __shfl_xor_sync(~odd, 2.0, 2);
}
GT_TEST(warp_shuffle_types_and_groups, ANY) {
  harness::for_each_order([](const char *order) {
    std::vector<double> doubles(32);
    std::vector<unsigned long long> longs(32);
    std::vector<float> halves(32);
    run(order, shuffle_types, 1, 32, 0, doubles.data(), longs.data(), halves.data());
    for (int lane = 0; lane < 32; ++lane) {
      GT_CHECK(doubles[lane] == 0.1 * (lane ^ 1) + (lane % 2 ? 1.0 : 2.0), "%s: lane %d double %g", order, lane,
               doubles[lane]);
      GT_CHECK(longs[lane] == 1ull << 31, "%s: lane %d long %llu", order, lane, longs[lane]);
      GT_CHECK(halves[lane] == 0.5f * std::min(lane + 1, 31), "%s: lane %d half %g", order, lane, halves[lane]);
    }
  });
}

__global__ void votes(unsigned *out) {
  const unsigned lane = threadIdx.x % 32;
  unsigned *const row = out + 8 * threadIdx.x;
  row[0] = __ballot_sync(ALL_LANES, lane % 3 == 0);
  row[1] = __any_sync(ALL_LANES, lane == 7);
  row[2] = __all_sync(ALL_LANES, lane != 7);
  row[3] = __reduce_add_sync(ALL_LANES, lane);
  row[4] = static_cast<unsigned>(__reduce_min_sync(ALL_LANES, 3 - static_cast<int>(lane)));
  row[5] = __reduce_max_sync(ALL_LANES, lane ^ 9u);
  row[6] = __reduce_or_sync(ALL_LANES, 1u << lane % 5);
  row[7] = lane < 8 ? __ballot_sync(0xffu, lane < 3) : 0;
}
GT_TEST(warp_votes_and_reductions, ANY) {
  harness::for_each_order([](const char *order) {
    std::vector<unsigned> out(64 * 8);
    run(order, votes, 1, 64, 0, out.data());
    for (unsigned t = 0; t < 64; ++t) {
      const unsigned expected[8] = {0x49249249u, 1, 0, 496, static_cast<unsigned>(-28), 31, 31, t % 32 < 8 ? 7u : 0u};
      for (int i = 0; i < 8; ++i)
        GT_CHECK(out[8 * t + i] == expected[i], "%s: thread %u vote %d is 0x%x, expected 0x%x", order, t, i,
                 out[8 * t + i], expected[i]);
    }
  });
}

// A last warp of 8 lanes: masks that name lanes which do not exist are common, and harmless while nobody reads them.
__global__ void short_warp(int *out) {
  __syncwarp();
  out[threadIdx.x] = __shfl_sync(ALL_LANES, static_cast<int>(threadIdx.x), 2);
}
GT_TEST(warp_short_last, ANY) {
  harness::for_each_order([](const char *order) {
    std::vector<int> out(40);
    run(order, short_warp, 1, 40, 0, out.data());
    for (int t = 0; t < 40; ++t) GT_CHECK(out[t] == t / 32 * 32 + 2, "%s: thread %d got %d", order, t, out[t]);
  });
}

// Lanes hand values on through shared memory, ordered by __syncwarp alone, first all of them, then the upper half.
__global__ void warp_exchange(int *out) {
  __shared__ int tile[64];
  const int t = threadIdx.x;
  tile[t] = t;
  __syncwarp();
  const int neighbour = tile[t ^ 1];
  __syncwarp();
  tile[t] = 10 * neighbour;
  if (t % 32 >= 16) {
    __syncwarp(0xffff0000u);
    out[t] = tile[t ^ 2];
  } else {
    out[t] = tile[t];
  }
}
GT_TEST(warp_exchange_through_shared, ANY) {
  harness::for_each_order([](const char *order) {
    std::vector<int> out(64);
    run(order, warp_exchange, 1, 64, 0, out.data());
    for (int t = 0; t < 64; ++t) {
      const int expected = 10 * (t % 32 >= 16 ? t ^ 3 : t ^ 1);
      GT_CHECK(out[t] == expected, "%s: thread %d got %d, expected %d", order, t, out[t], expected);
    }
  });
}

// Blocks

__global__ void barrier_votes(int *out) {
  const int t = threadIdx.x;
  out[3 * t] = __syncthreads_count(t % 3 == 0);
  out[3 * t + 1] = __syncthreads_or(t == 77);
  out[3 * t + 2] = __syncthreads_and(t != 77);
}
GT_TEST(block_barrier_votes, ANY) {
  harness::for_each_order([](const char *order) {
    std::vector<int> out(100 * 3, -1);
    run(order, barrier_votes, 1, 100, 0, out.data());
    for (int t = 0; t < 100; ++t)
      GT_CHECK(out[3 * t] == 34 && out[3 * t + 1] == 1 && out[3 * t + 2] == 0, "%s: thread %d got %d %d %d", order, t,
               out[3 * t], out[3 * t + 1], out[3 * t + 2]);
  });
}

// Threads that have returned are not waited for; the block is neither a multiple of 32 nor one-dimensional.
__global__ void early_exit(int *out) {
  GT_DYNAMIC_SMEM(int, tile);
  const int t = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  if (t % 4 == 3) return;
  tile[t] = t;
  __syncthreads();
  out[t] = tile[(t + 4) % 104];
}
GT_TEST(block_early_exit, ANY) {
  harness::for_each_order([](const char *order) {
    std::vector<int> out(104, -1);
    run(order, early_exit, 1, dim3(13, 4, 2), 104 * sizeof(int), out.data());
    for (int t = 0; t < 104; ++t) {
      const int expected = t % 4 == 3 ? -1 : (t + 4) % 104;
      GT_CHECK(out[t] == expected, "%s: thread %d got %d", order, t, out[t]);
    }
  });
}

// Static arrays in a template: one per instantiation, beside dynamic memory.
template <class T, int N> __global__ void reverse(const T *in, T *out) {
  __shared__ T tile[N];
  GT_DYNAMIC_SMEM(T, copy);
  const int t = threadIdx.x;
  tile[t] = in[t];
  __syncthreads();
  copy[t] = tile[N - 1 - t];
  __syncthreads();
  out[t] = copy[t ^ 1];
}
template <class T, int N> void check_reverse(const char *order) {
  std::vector<T> in(N), out(N);
  std::iota(in.begin(), in.end(), T(1));
  run(order, reverse<T, N>, 1, N, N * sizeof(T), static_cast<const T *>(in.data()), out.data());
  for (int t = 0; t < N; ++t) GT_CHECK(out[t] == T(N - (t ^ 1)), "%s: N %d element %d", order, N, t);
}
GT_TEST(block_static_and_dynamic_shared, ANY) {
  harness::for_each_order([](const char *order) {
    check_reverse<float, 64>(order);
    check_reverse<double, 64>(order);
    check_reverse<int, 1024>(order);
    check_reverse<int, 2>(order);
  });
}

// Never written: must be NaN, not the zero of a static variable. In a template, since g++ treats those apart.
template <class T> __global__ void never_written(T *out) {
  __shared__ T array[4];
  __shared__ T scalar;
  out[threadIdx.x] = threadIdx.x < 4 ? array[threadIdx.x] : scalar;
}
GT_TEST(block_shared_starts_as_nan, ANY) {
  harness::for_each_order([](const char *order) {
    std::vector<float> floats(5);
    std::vector<int> ints(5);
    run(order, never_written<float>, 1, 5, 0, floats.data());
    run(order, never_written<int>, 1, 5, 0, ints.data());
    for (int i = 0; i < 5; ++i)
      GT_CHECK(std::isnan(floats[i]) && ints[i] == -1, "%s: %d: %g %d", order, i, floats[i], ints[i]);
  });
}

// A producer warp fills one of two buffers while the consumer reads the other; four named barriers keep them apart.
__global__ void double_buffer(const int *in, int *out, int rounds) {
  __shared__ int buffer[2][32];
  const int lane = threadIdx.x % 32;
  constexpr int FULL = 1, EMPTY = 3;
  if (threadIdx.x < 32) {
    for (int round = 0; round < rounds; ++round) {
      if (round >= 2) gt::named_barrier_sync(EMPTY + round % 2, 64);
      buffer[round % 2][lane] = in[32 * round + lane];
      gt::named_barrier_arrive(FULL + round % 2, 64);
    }
  } else {
    for (int round = 0; round < rounds; ++round) {
      gt::named_barrier_sync(FULL + round % 2, 64);
      out[32 * round + lane] = buffer[round % 2][31 - lane];
      if (round + 2 < rounds) gt::named_barrier_arrive(EMPTY + round % 2, 64);
    }
  }
}
GT_TEST(block_named_barriers, ANY) {
  harness::for_each_order([](const char *order) {
    constexpr int ROUNDS = 7;
    std::vector<int> in(32 * ROUNDS), out(32 * ROUNDS, -1);
    std::iota(in.begin(), in.end(), 1000);
    run(order, double_buffer, 1, 64, 0, static_cast<const int *>(in.data()), out.data(), ROUNDS);
    for (int i = 0; i < 32 * ROUNDS; ++i) GT_CHECK(out[i] == in[i ^ 31], "%s: element %d is %d", order, i, out[i]);
  });
}

// Grids

__global__ void who_am_i(int *out) {
  const int block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  const int thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  out[block * blockDim.x * blockDim.y * blockDim.z + thread] += 1 + block * 1000 + thread;
}
GT_TEST(grid_indices, ANY) {
  harness::for_each_order([](const char *order) {
    const int threads = 3 * 5 * 2, blocks = 4 * 3 * 2;
    std::vector<int> out(threads * blocks);
    run(order, who_am_i, dim3(4, 3, 2), dim3(3, 5, 2), 0, out.data());
    for (int i = 0; i < threads * blocks; ++i)
      GT_CHECK(out[i] == 1 + i / threads * 1000 + i % threads, "%s: element %d is %d", order, i, out[i]);
  });
}

// Atomics

__global__ void histogram(const int *in, int n, int *bins, float *sum, int *largest, unsigned long long *count) {
  __shared__ int local[8];
  if (threadIdx.x < 8) local[threadIdx.x] = 0;
  __syncthreads();
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) {
    atomicAdd(&local[in[i] % 8], 1);
    atomicAdd(sum, static_cast<float>(in[i]));
    atomicMax(largest, in[i]);
    atomicAdd(count, 1ull);
  }
  __syncthreads();
  if (threadIdx.x < 8) atomicAdd(&bins[threadIdx.x], local[threadIdx.x]);
}
GT_TEST(atomics_histogram, ANY) {
  harness::for_each_order([](const char *order) {
    const int n = 1000;
    std::vector<int> in(n), bins(8), expected(8);
    for (int i = 0; i < n; ++i) ++expected[(in[i] = i * 37 % 501) % 8];
    float sum = 0;
    int largest = -1;
    unsigned long long count = 0;
    run(order, histogram, 5, 96, 0, static_cast<const int *>(in.data()), n, bins.data(), &sum, &largest, &count);
    GT_CHECK(bins == expected, "%s: the bins differ", order);
    GT_CHECK(sum == static_cast<float>(std::accumulate(in.begin(), in.end(), 0)), "%s: sum %g", order, sum);
    GT_CHECK(largest == 500 && count == 1000, "%s: largest %d count %llu", order, largest, count);
  });
}

__global__ void other_atomics(unsigned *out) {
  atomicMin(&out[0], 100 - threadIdx.x);
  atomicOr(&out[1], 1u << threadIdx.x);
  atomicAnd(&out[2], ~(1u << threadIdx.x));
  atomicXor(&out[3], 3u << threadIdx.x);
  atomicInc(&out[4], 4);
  atomicSub(&out[5], 2u);
  for (unsigned seen = out[6], assumed = seen + 1; assumed != seen;) {  // += threadIdx.x, by compare and swap
    assumed = seen;
    seen = atomicCAS(&out[6], assumed, assumed + threadIdx.x);
  }
  atomicExch(&out[7], 5u);
}
GT_TEST(atomics_others, ANY) {
  harness::for_each_order([](const char *order) {
    std::vector<unsigned> out = {1000, 0, ~0u, 0, 0, 100, 0, 0};
    run(order, other_atomics, 1, 32, 0, out.data());
    const std::vector<unsigned> expected = {69, ~0u, 0, 1u ^ 0u, 32 % 5, 36, 496, 5};
    for (size_t i = 0; i < out.size(); ++i) GT_CHECK(out[i] == expected[i], "%s: %zu is %u", order, i, out[i]);
  });
}

// Intrinsics and conversions

__global__ void conversions(const unsigned short *bits, float *bf16, float *half, unsigned short *bf16_back,
                            unsigned short *half_back) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  bf16[i] = __bfloat162float(__ushort_as_bfloat16(bits[i]));
  half[i] = __half2float(__ushort_as_half(bits[i]));
  bf16_back[i] = __bfloat16_as_ushort(__float2bfloat16_rn(bf16[i]));
  half_back[i] = __half_as_ushort(__float2half_rn(half[i]));
}
GT_TEST(conversions_of_all_16_bit_values, ANY) {
  const int n = 65536;
  std::vector<unsigned short> bits(n), bf16_back(n), half_back(n);
  std::vector<float> bf16(n), half(n);
  std::iota(bits.begin(), bits.end(), 0);
  run("fwd", conversions, n / 256, 256, 0, static_cast<const unsigned short *>(bits.data()), bf16.data(), half.data(),
      bf16_back.data(), half_back.data());
  for (int i = 0; i < n; ++i) {
    const int sign = i & 0x8000 ? -1 : 1, exponent = i >> 10 & 31, fraction = i & 1023;
    const double value = sign * (exponent ? std::ldexp(1024 + fraction, exponent - 25) : std::ldexp(fraction, -24));
    if (exponent == 31) GT_CHECK(fraction ? std::isnan(half[i]) : std::isinf(half[i]), "half 0x%04x is %g", i, half[i]);
    else GT_CHECK(half[i] == value && half_back[i] == i, "half 0x%04x is %g, back 0x%04x", i, half[i], half_back[i]);
    if (std::isnan(bf16[i])) GT_CHECK((i & 0x7fff) > 0x7f80 && bf16_back[i] == 0x7fff, "bf16 0x%04x is NaN", i);
    else GT_CHECK(bf16_back[i] == i, "bf16 0x%04x is %g, back 0x%04x", i, bf16[i], bf16_back[i]);
  }
}

__global__ void roundings(const float *in, unsigned short *bf16, unsigned short *half) {
  bf16[threadIdx.x] = __bfloat16_as_ushort(__float2bfloat16_rn(in[threadIdx.x]));
  half[threadIdx.x] = __half_as_ushort(__float2half_rn(in[threadIdx.x]));
}
GT_TEST(conversions_round_to_nearest_even, ANY) {
  // 1 + 2^-8 is halfway between two bf16 (to the even, lower one), 1 + 3 * 2^-8 halfway to the upper; likewise 2^-11
  // for half.
  const std::vector<float> in = {0x1.01p0f, 0x1.03p0f, 0x1.010002p0f, 0x1.002p0f,
                                 0x1.006p0f, 65519.0f, 65520.0f, 3.4e38f};
  const std::vector<unsigned short> bf16 = {0x3f80, 0x3f82, 0x3f81, 0x3f80, 0x3f80, 0x4780, 0x4780, 0x7f80};
  const std::vector<unsigned short> half = {0x3c04, 0x3c0c, 0x3c04, 0x3c00, 0x3c02, 0x7bff, 0x7c00, 0x7c00};
  std::vector<unsigned short> bf16_out(in.size()), half_out(in.size());
  run("fwd", roundings, 1, static_cast<unsigned>(in.size()), 0, static_cast<const float *>(in.data()), bf16_out.data(),
      half_out.data());
  for (size_t i = 0; i < in.size(); ++i)
    GT_CHECK(bf16_out[i] == bf16[i] && half_out[i] == half[i], "%a: bf16 0x%04x, half 0x%04x", in[i], bf16_out[i],
             half_out[i]);
}

__global__ void intrinsics(int *out) {
  out[0] = __popc(0xf0f0u);
  out[1] = __ffs(8);
  out[2] = __clz(1);
  out[3] = __clz(0);
  out[4] = static_cast<int>(__brev(1u) >> 31);
  out[5] = static_cast<int>(__umulhi(0x80000000u, 6u));
  out[6] = __float2int_rn(2.5f);
  out[7] = __float2int_rz(-2.9f);
  out[8] = __float2int_rn(3e9f) == 2147483647;
  out[9] = __float2int_rn(nanf("")) == 0;
  out[10] = __saturatef(-1.0f) == 0.0f && __saturatef(7.0f) == 1.0f;
  out[11] = min(3, -4);
  out[12] = rsqrtf(4.0f) == 0.5f;
}
GT_TEST(intrinsics_of_a_thread, ANY) {
  const std::vector<int> expected = {8, 4, 31, 32, 1, 3, 2, -2, 1, 1, 1, -4, 1};
  std::vector<int> out(expected.size());
  run("fwd", intrinsics, 1, 1, 0, out.data());
  for (size_t i = 0; i < out.size(); ++i)
    GT_CHECK(out[i] == expected[i], "%zu is %d, expected %d", i, out[i], expected[i]);
}

}  // namespace
