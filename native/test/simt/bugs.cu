// Does the emulator catch these mistakes? Each kernel compiles with nvcc as well.
//
// A bug must be reported in every lane order. Bugs that the emulator itself finds are checked in every build; those
// that need AddressSanitizer, UBSan or the race check only in theirs.
#include "harness.h"
#include "lib/async_copy.h"
#include "lib/barrier.h"
#include "lib/cuda.h"
#include "lib/reduce.h"
#include "lib/vec.h"

#include <cmath>
#include <memory>

namespace {

// 64 floats on the heap, exactly: ASan sees the first byte past them.
float *output() {
  static float *const buffer = new float[64];
  return buffer;
}
template <class Kernel, class... Args>
int run(Kernel kernel, unsigned grid, unsigned block, size_t smem, Args... args) {
  return gt::launch(kernel, dim3(grid), dim3(block), smem, nullptr, args...);
}

// Where the fault lies, for the report to name: n lines above this one.
#define LINES_ABOVE(n) ("bugs.cu:" + std::to_string(__LINE__ - (n)))

// Barriers

__global__ void divergent_barrier(float *out) {
  if (threadIdx.x < 32) {
    __syncthreads();
  } else {
    out[0] = 1;
    __syncthreads();
  }
}
GT_TEST(bug_divergent_barrier, ANY) {
  harness::expect_reported([] { return run(divergent_barrier, 1, 64, 0, output()); }, {"divergent barrier"},
                           LINES_ABOVE(8));
}

__global__ void barrier_in_half_a_warp(float *out) {
  if (threadIdx.x < 16) __syncthreads();
  else __syncwarp();
  out[0] = 1;
}
GT_TEST(bug_barrier_against_collective, ANY) {
  harness::expect_reported([] { return run(barrier_in_half_a_warp, 1, 64, 0, output()); }, {"deadlock"},
                           "__syncwarp at");
}

__global__ void named_barrier_short(float *out) {
  if (threadIdx.x < 32) gt::named_barrier_sync(1, 64);
  out[0] = 1;
}
GT_TEST(bug_named_barrier_short, ANY) {
  harness::expect_reported([] { return run(named_barrier_short, 1, 64, 0, output()); },
                           {"deadlock: 32 of 64 threads exited; 32 wait at a barrier"}, LINES_ABOVE(5));
}

__global__ void named_barrier_mismatch(float *out) {
  gt::named_barrier_sync(1, threadIdx.x < 32 ? 64 : 96);
  out[0] = 1;
}
GT_TEST(bug_named_barrier_mismatch, ANY) {
  harness::expect_reported([] { return run(named_barrier_mismatch, 1, 64, 0, output()); },
                           {"expects 64", "expects 96"}, LINES_ABOVE(5));
}

__global__ void named_barrier_number(float *out) {
  gt::named_barrier_sync(16, 64);
  out[0] = 1;
}
GT_TEST(bug_named_barrier_number, ANY) {
  harness::expect_reported([] { return run(named_barrier_number, 1, 64, 0, output()); }, {"must be 1..15"},
                           LINES_ABOVE(5));
}

__global__ void named_barrier_of_halves(float *out) {
  if (threadIdx.x % 32 < 16) gt::named_barrier_sync(1, 32);
  out[0] = 1;
}
GT_TEST(bug_named_barrier_of_halves, ANY) {
  harness::expect_reported([] { return run(named_barrier_of_halves, 1, 64, 0, output()); },
                           {"16 threads of warp 0, expected whole warps"}, LINES_ABOVE(5));
}

__global__ void loop_of_uneven_length(float *out) {
  for (unsigned i = 0; i <= threadIdx.x / 32; ++i) __syncwarp();
  for (unsigned i = 0; i < threadIdx.x % 2 + 1; ++i) out[threadIdx.x] = __shfl_xor_sync(gt::ALL_LANES, 1.0f, 1);
}
GT_TEST(bug_loop_of_uneven_length, ANY) {
  harness::expect_reported([] { return run(loop_of_uneven_length, 1, 64, 0, output()); }, {"has exited", "deadlock"},
                           LINES_ABOVE(4));
}

// Lanes and masks

__global__ void lane_missing(float *out) {
  if (threadIdx.x % 2) out[threadIdx.x] = __shfl_xor_sync(gt::ALL_LANES, 1.0f, 2);
  __syncthreads();
}
GT_TEST(bug_lane_missing, ANY) {
  harness::expect_reported([] { return run(lane_missing, 1, 64, 0, output()); }, {"deadlock"}, "__shfl_xor_sync at");
}

__global__ void lane_outside_mask(float *out) {
  if (threadIdx.x % 2) out[threadIdx.x] = __shfl_xor_sync(0xaaaaaaaau, 1.0f, 1);
}
GT_TEST(bug_lane_outside_mask, ANY) {
  harness::expect_reported([] { return run(lane_outside_mask, 1, 64, 0, output()); },
                           {"which is outside the mask"}, LINES_ABOVE(4));
}

__global__ void caller_not_in_mask(float *out) { out[threadIdx.x] = __shfl_sync(0x0000ffffu, 1.0f, 0); }
GT_TEST(bug_caller_not_in_mask, ANY) {
  harness::expect_reported([] { return run(caller_not_in_mask, 1, 32, 0, output()); },
                           {"not in its own mask"}, LINES_ABOVE(3));
}

__global__ void lane_does_not_exist(float *out) { out[threadIdx.x] = gt::warp_sum(1.0f); }
GT_TEST(bug_lane_does_not_exist, ANY) {
  harness::expect_reported([] { return run(lane_does_not_exist, 1, 40, 0, output()); },
                           {"which does not exist"}, "reduce.h:");
}

__global__ void lane_exited(float *out) {
  if (threadIdx.x == 3) return;
  out[threadIdx.x] = __shfl_xor_sync(gt::ALL_LANES, 1.0f, 1);
}
GT_TEST(bug_lane_exited, ANY) {
  harness::expect_reported([] { return run(lane_exited, 1, 64, 0, output()); }, {"has exited", "deadlock"},
                           LINES_ABOVE(4));
}

__global__ void collectives_differ(float *out) {
  if (threadIdx.x % 2) out[threadIdx.x] = __shfl_up_sync(gt::ALL_LANES, 1.0f, 1);
  else out[threadIdx.x] = __shfl_down_sync(gt::ALL_LANES, 1.0f, 1);
}
GT_TEST(bug_collectives_differ, ANY) {
  harness::expect_reported([] { return run(collectives_differ, 1, 32, 0, output()); },
                           {"mismatched warp collectives"}, "bugs.cu:");
}

__global__ void same_collective_in_two_branches(float *out) {
  if (threadIdx.x % 2) out[threadIdx.x] = __shfl_xor_sync(gt::ALL_LANES, 1.0f, 1);
  else out[threadIdx.x] = __shfl_xor_sync(gt::ALL_LANES, 2.0f, 1);
}
GT_TEST(bug_same_collective_in_two_branches, ANY) {
  harness::expect_reported([] { return run(same_collective_in_two_branches, 1, 32, 0, output()); },
                           {"mismatched warp collectives"}, "bugs.cu:");
}

__global__ void trap(float *out) {
  if (threadIdx.x == 5) __trap();
  out[threadIdx.x] = 1;
}
GT_TEST(bug_trap, ANY) {
  harness::expect_reported([] { return run(trap, 1, 32, 0, output()); }, {"thread (5,0,0) [warp 0 lane 5] in __trap"},
                           LINES_ABOVE(5));
}

// Shared memory that nobody wrote

// One thread forgets its element. Block 0 must not leave something for block 1.
__global__ void uninitialised_dynamic(float *out) {
  GT_DYNAMIC_SMEM(float, tile);
  if (threadIdx.x < 31) tile[threadIdx.x] = 1;
  __syncthreads();
  out[blockIdx.x * 32 + threadIdx.x] = tile[threadIdx.x];
  __syncthreads();
  tile[threadIdx.x] = 1;
}
__global__ void uninitialised_static(float *out) {
  __shared__ float tile[32];
  if (threadIdx.x < 31) tile[threadIdx.x] = 1;
  __syncthreads();
  out[blockIdx.x * 32 + threadIdx.x] = tile[threadIdx.x];
  __syncthreads();
  tile[threadIdx.x] = 1;
}
void expect_nan_from(void (*kernel)(float *), size_t smem) {
  harness::for_each_order([&](const char *order) {
    harness::expect_ok(run(kernel, 2, 32, smem, output()), order);
    for (int i = 0; i < 64; ++i) {
      const bool forgotten = i % 32 == 31;
      GT_CHECK(forgotten ? std::isnan(output()[i]) : output()[i] == 1, "%s: element %d is %g", order, i, output()[i]);
    }
  });
}
GT_TEST(bug_uninitialised_dynamic_shared_is_nan, ANY) { expect_nan_from(uninitialised_dynamic, 32 * sizeof(float)); }
GT_TEST(bug_uninitialised_static_shared_is_nan, ANY) { expect_nan_from(uninitialised_static, 0); }

// Copies that nobody waits for have not landed when they are read.
__global__ void async_copy_without_wait(const float *in, float *out) {
  __shared__ __align__(16) float tile[4];
  if (threadIdx.x == 0) {
    gt::async_copy_16(tile, in, 16);
    gt::async_copy_commit();
  }
  __syncthreads();
  if (threadIdx.x < 4) out[threadIdx.x] = tile[threadIdx.x];
  __syncthreads();
  gt::async_copy_wait<0>();
}
GT_TEST(bug_async_copy_without_wait, ANY) {
  alignas(16) static const float in[4] = {1, 2, 3, 4};
  harness::for_each_order([](const char *order) {
    harness::expect_ok(run(async_copy_without_wait, 1, 32, 0, static_cast<const float *>(in), output()), order);
    for (int i = 0; i < 4; ++i) GT_CHECK(std::isnan(output()[i]), "%s: element %d is %g", order, i, output()[i]);
  });
}

// Out of bounds and misaligned: ASan and UBSan

__global__ void read_past_dynamic(float *out) {
  GT_DYNAMIC_SMEM(float, tile);
  tile[threadIdx.x] = 1;
  __syncthreads();
  out[threadIdx.x] = tile[threadIdx.x + 1];
}
GT_TEST(bug_read_past_dynamic_shared, ASAN) {
  harness::expect_killed([] { return run(read_past_dynamic, 1, 64, 64 * sizeof(float), output()); },
                         "heap-buffer-overflow", "bugs.cu:");
}

__global__ void write_past_dynamic(float *out) {
  GT_DYNAMIC_SMEM(float, tile);
  tile[threadIdx.x + 1] = 1;
  out[threadIdx.x] = 1;
}
GT_TEST(bug_write_past_dynamic_shared, ASAN) {
  harness::expect_killed([] { return run(write_past_dynamic, 1, 64, 64 * sizeof(float), output()); },
                         "heap-buffer-overflow", "bugs.cu:");
}

// What p points to is no longer known to the compiler: ASan has to find the overrun, not UBSan or -Warray-bounds.
__device__ float *anywhere(float *p) {
  float *volatile hidden = p;
  return hidden;
}

// Two arrays: past the first lies the other, not the end of the section.
template <int N> __global__ void read_past_static(float *out) {
  __shared__ float tile[N];
  __shared__ float other[N];
  tile[threadIdx.x] = other[threadIdx.x] = 1;
  __syncthreads();
  out[threadIdx.x] = anywhere(tile)[threadIdx.x + 1] + other[threadIdx.x];
}
GT_TEST(bug_read_past_static_shared, ASAN) {
  harness::expect_killed([] { return run(read_past_static<64>, 1, 64, 0, output()); }, "global-buffer-overflow",
                         "bugs.cu:");
}

__global__ void write_past_static(float *out) {
  __shared__ float tile[64];
  anywhere(tile)[threadIdx.x + 1] = 1;
  __syncthreads();
  out[threadIdx.x] = tile[threadIdx.x];
}
GT_TEST(bug_write_past_static_shared, ASAN) {
  harness::expect_killed([] { return run(write_past_static, 1, 64, 0, output()); }, "global-buffer-overflow",
                         "bugs.cu:");
}

__global__ void write_past_global(float *out, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i <= n) out[i] = 1;
}
GT_TEST(bug_write_past_global, ASAN) {
  harness::expect_killed([] { return run(write_past_global, 2, 64, 0, output(), 64); }, "heap-buffer-overflow",
                         "bugs.cu:");
}

__global__ void whole_vector_at_the_tail(float *out, int n) {
  for (int i = threadIdx.x * 4; i < n; i += blockDim.x * 4) {
    float4 *const p = reinterpret_cast<float4 *>(out + i);
    *p = make_float4(1, 1, 1, 1);
  }
}
GT_TEST(bug_whole_vector_at_the_tail, ASAN) {
  harness::expect_killed(
      [] {
        const std::unique_ptr<float[]> odd(new float[61]);
        return run(whole_vector_at_the_tail, 1, 32, 0, odd.get(), 61);
      },
      "heap-buffer-overflow", "bugs.cu:");
}

__global__ void local_array_overrun(float *out, int k) {
  float local[4] = {1, 2, 3, 4};
  out[threadIdx.x] = anywhere(local)[k];
}
GT_TEST(bug_local_array_overrun, ASAN) {
  harness::expect_killed([] { return run(local_array_overrun, 1, 64, 0, output(), 4); }, "stack-buffer-overflow",
                         "bugs.cu:");
}

__global__ void misaligned_vector(const float *in, float4 *out) {
  out[threadIdx.x] = *reinterpret_cast<const float4 *>(in + 1 + 4 * threadIdx.x);
}
GT_TEST(bug_misaligned_vector, ASAN) {
  harness::expect_killed(
      [] {
        return run(misaligned_vector, 1, 8, 0, static_cast<const float *>(output()),
                   reinterpret_cast<float4 *>(output()));
      },
      "misaligned address", "bugs.cu:");
}

__global__ void misaligned_load_vec(const gt::bf16 *in, float *out) {
  float v[gt::VEC<gt::bf16>];
  gt::load_vec(in + 1, v);
  out[threadIdx.x] = v[0];
}
GT_TEST(bug_misaligned_load_vec, ASAN) {
  harness::expect_killed(
      [] { return run(misaligned_load_vec, 1, 1, 0, reinterpret_cast<const gt::bf16 *>(output()), output()); },
      "misaligned address", "vec.h:");
}

__global__ void misaligned_store_vec_to_shared(float *out) {
  GT_DYNAMIC_SMEM(float, tile);
  const float v[gt::VEC<float>] = {1, 2, 3, 4};
  gt::store_vec(tile + 2 + 4 * threadIdx.x, v);  // 8 bytes beyond a multiple of 16
  out[threadIdx.x] = tile[2 + 4 * threadIdx.x];
}
GT_TEST(bug_misaligned_store_vec_to_shared, ASAN) {
  harness::expect_killed([] { return run(misaligned_store_vec_to_shared, 1, 1, 8 * sizeof(float), output()); },
                         "misaligned address", "vec.h:");
}

// Shared memory races

__global__ void race_no_barrier(float *out) {
  GT_DYNAMIC_SMEM(float, tile);
  tile[threadIdx.x] = 1;
  out[threadIdx.x] = tile[(threadIdx.x + 37) % blockDim.x];
}
GT_TEST(bug_race_no_barrier, RACE) {
  harness::expect_reported([] { return run(race_no_barrier, 1, 64, 64 * sizeof(float), output()); },
                           {"shared memory race"}, "bugs.cu:");
}

__global__ void race_no_barrier_static(float *out) {
  __shared__ float tile[64];
  tile[threadIdx.x] = 1;
  out[threadIdx.x] = tile[(threadIdx.x + 37) % blockDim.x];
}
GT_TEST(bug_race_no_barrier_static, RACE) {
  harness::expect_reported([] { return run(race_no_barrier_static, 1, 64, 0, output()); },
                           {"of tile; thread"}, "bugs.cu:");
}

// The second round writes what a slow thread of the first may not have read yet. Right in every lane order of the
// emulator.
__global__ void race_write_after_read(float *out) {
  __shared__ float tile[64];
  for (int round = 0; round < 2; ++round) {
    tile[threadIdx.x] = static_cast<float>(round);
    __syncthreads();
    out[threadIdx.x] = tile[(threadIdx.x + 37) % blockDim.x];
  }
}
GT_TEST(bug_race_write_after_read, RACE) {
  harness::expect_reported([] { return run(race_write_after_read, 1, 64, 0, output()); }, {"shared memory race"},
                           LINES_ABOVE(7));
}

// The same inside one warp, where lockstep makes it work on old hardware.
__global__ void race_within_a_warp(float *out) {
  GT_DYNAMIC_SMEM(float, tile);
  tile[threadIdx.x] = 1;
  __syncwarp();
  const float neighbour = tile[threadIdx.x ^ 1];
  tile[threadIdx.x] = neighbour + 1;
  out[threadIdx.x] = neighbour;
}
GT_TEST(bug_race_within_a_warp, RACE) {
  harness::expect_reported([] { return run(race_within_a_warp, 1, 32, 32 * sizeof(float), output()); },
                           {"shared memory race"}, "bugs.cu:");
}

// The writer has read the same byte itself, after the other: its own read must not hide the other's.
__global__ void race_after_own_read(float *out) {
  __shared__ float value;
  if (threadIdx.x == 0) value = 1;
  __syncthreads();
  if (threadIdx.x % 32 == 0) out[threadIdx.x] = value;
  if (threadIdx.x == 0) value = out[0] + 1;
}
GT_TEST(bug_race_after_own_read, RACE) {
  harness::expect_reported([] { return run(race_after_own_read, 1, 64, 0, output()); }, {"shared memory race"},
                           "bugs.cu:");
}

// A warp collective orders its own warp alone.
__global__ void race_across_warps(float *out) {
  __shared__ float tile[64];
  tile[threadIdx.x] = 1;
  __syncwarp();
  out[threadIdx.x] = tile[threadIdx.x ^ 32];
}
GT_TEST(bug_race_across_warps, RACE) {
  harness::expect_reported([] { return run(race_across_warps, 1, 64, 0, output()); }, {"shared memory race"},
                           "bugs.cu:");
}

__global__ void race_atomic_and_plain(float *out) {
  __shared__ int count;
  if (threadIdx.x == 0) count = 0;
  __syncthreads();
  atomicAdd(&count, 1);
  out[threadIdx.x] = static_cast<float>(count);
}
GT_TEST(bug_race_atomic_and_plain, RACE) {
  harness::expect_reported([] { return run(race_atomic_and_plain, 1, 64, 0, output()); }, {"atomically"}, "bugs.cu:");
}

// The consumer waits at the wrong barrier.
__global__ void race_wrong_named_barrier(float *out) {
  __shared__ float tile[32];
  if (threadIdx.x < 32) {
    gt::named_barrier_sync(2, 64);
    tile[threadIdx.x] = 1;
    gt::named_barrier_arrive(1, 32);
  } else {
    gt::named_barrier_sync(2, 64);
    out[threadIdx.x] = tile[threadIdx.x % 32];
  }
}
GT_TEST(bug_race_wrong_named_barrier, RACE) {
  harness::expect_reported([] { return run(race_wrong_named_barrier, 1, 64, 0, output()); },
                           {"shared memory race"}, "bugs.cu:");
}

// Scratch of a block reduction used again too early: the barrier that block_reduce ends with is missing.
__global__ void race_scratch_reused(float *out) {
  __shared__ float scratch[gt::MAX_WARPS];
  for (int round = 0; round < 2; ++round) {
    const float part = gt::warp_sum(1.0f);
    if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = part;
    __syncthreads();
    out[threadIdx.x] = gt::warp_sum(threadIdx.x % 32 < 2 ? scratch[threadIdx.x % 32] : 0.0f);
  }
}
GT_TEST(bug_race_scratch_reused, RACE) {
  harness::expect_reported([] { return run(race_scratch_reused, 1, 64, 0, output()); }, {"shared memory race"},
                           "bugs.cu:");
}

}  // namespace
