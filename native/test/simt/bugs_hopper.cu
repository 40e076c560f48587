// Does the emulator catch mistakes with mbarriers, TMA and wgmma? Each kernel compiles with nvcc as well.
//
// As in bugs.cu: in every lane order, with the place; what only the race check or AddressSanitizer can know in their
// builds.
#include "harness.h"
#include "lib/bulk.h"
#include "lib/cuda.h"
#include "lib/tma.h"
#include "lib/turn.h"
#include "lib/vec.h"
#include "lib/wgmma.h"

#include <algorithm>
#include <cmath>

namespace {

using gt::bf16;

constexpr int TILE = 64 * 64;                 // elements of a tile [64][64]
constexpr unsigned TILE_BYTES = TILE * sizeof(bf16);

struct Memory {
  bf16 a[TILE], b[TILE];
  gt::Mbarrier full, empty;
};

// 64 x 64 ones, exactly: ASan sees the first byte past them.
bf16 *ones() {
  static bf16 *const buffer = [] {
    bf16 *const p = new bf16[TILE];
    for (int i = 0; i < TILE; ++i) p[i] = gt::from_float<bf16>(1.0f);
    return p;
  }();
  return buffer;
}
gt::TensorMap map_of_rows(int rows) {
  gt::TensorMap map;
  GT_CHECK(gt::make_tensor_map(&map, ones(), rows, 64, 64, 64) == 0, "no tensor map");
  return map;
}
float *output() {
  static float *const buffer = new float[128];
  return buffer;
}
template <class Kernel, class... Args> int run(Kernel kernel, unsigned threads, Args... args) {
  return gt::launch(kernel, dim3(1), dim3(threads), sizeof(Memory), nullptr, args...);
}

// Where the fault lies, for the report to name: n lines above this one.
#define LINES_ABOVE(n) ("bugs_hopper.cu:" + std::to_string(__LINE__ - (n)))

// How all kernels begin: thread 0 sets up `full` for one arrival and `empty` for `arrivals`.
__device__ __forceinline__ void set_up(Memory *s, unsigned arrivals) {
  if (threadIdx.x == 0) {
    gt::mbarrier_init(&s->full, 1);
    gt::mbarrier_init(&s->empty, arrivals);
    gt::mbarrier_fence_init();
  }
  __syncthreads();
}
__device__ __forceinline__ void load(Memory *s, bf16 *tile, const gt::TensorMap *map) {
  gt::mbarrier_arrive_expect_tx(&s->full, TILE_BYTES);
  gt::tma_load(tile, map, &s->full, 0, 0);
}
// A tile of ones by ordinary stores; all elements are equal, so no swizzle shows.
__device__ __forceinline__ void fill(bf16 *tile) {
  for (int i = threadIdx.x; i < TILE; i += blockDim.x) tile[i] = gt::from_float<bf16>(1.0f);
}
__device__ __forceinline__ void multiply(Memory *s, float (&d)[32]) {
  gt::wgmma<bf16, 64>(d, gt::wgmma_k_major(s->a, 0), gt::wgmma_k_major(s->b, 0), false);
}

// Mbarriers

__global__ void missing_mbarrier_wait(float *out) {
  GT_DYNAMIC_SMEM(Memory, s);
  set_up(s, 32);
  float *const tile = reinterpret_cast<float *>(s->a);
  if (threadIdx.x < 32) {
    tile[threadIdx.x] = 1;
    gt::mbarrier_arrive(&s->empty);
  } else {
    out[threadIdx.x] = tile[threadIdx.x % 32];
  }
}
GT_TEST(bug_missing_mbarrier_wait, RACE) {
  harness::expect_reported([] { return run(missing_mbarrier_wait, 64, output()); }, {"shared memory race"},
                           "bugs_hopper.cu:");
}

// The consumers' arrivals are not waited for: the producer may write over what they still read.
__global__ void missing_wait_for_empty(float *out) {
  GT_DYNAMIC_SMEM(Memory, s);
  set_up(s, 32);
  float *const tile = reinterpret_cast<float *>(s->a);
  for (unsigned round = 0; round < 3; ++round)
    if (threadIdx.x == 32) {
      tile[0] = static_cast<float>(round);
      gt::mbarrier_arrive(&s->full);
    } else if (threadIdx.x < 32) {
      gt::mbarrier_wait(&s->full, round % 2);
      out[threadIdx.x] = tile[0];
      gt::mbarrier_arrive(&s->empty);
    }
}
GT_TEST(bug_missing_wait_for_empty, ANY) {
  harness::expect_reported([] { return run(missing_wait_for_empty, 64, output()); },
                           {"nobody has waited for the one before", "deadlock", "shared memory race"},
                           "bugs_hopper.cu:");
}

__global__ void too_many_arrivals(const __grid_constant__ gt::TensorMap map, float *out) {
  GT_DYNAMIC_SMEM(Memory, s);
  set_up(s, 31);
  if (threadIdx.x == 0) load(s, s->a, &map);
  gt::mbarrier_arrive(threadIdx.x < 31 ? &s->empty : &s->full);
  gt::mbarrier_wait(&s->full, 0);
  out[threadIdx.x] = gt::to_float(s->a[0]);
}
GT_TEST(bug_too_many_arrivals, ANY) {
  harness::expect_reported([] { return run(too_many_arrivals, 32, map_of_rows(64), output()); },
                           {"too many arrivals: the 1 of phase 0 have come", "nobody has waited for the tma_load",
                            "deadlock", "shared memory race"},
                           "bugs_hopper.cu:");
}

// All 64 threads arrive where 32 were announced: two phases end, of which a late waiter sees none.
__global__ void arrivals_of_two_phases(float *out) {
  GT_DYNAMIC_SMEM(Memory, s);
  set_up(s, 32);
  gt::mbarrier_arrive(&s->empty);
  __syncthreads();
  gt::mbarrier_wait(&s->empty, 0);
  out[threadIdx.x] = 1;
}
GT_TEST(bug_arrivals_of_two_phases, ANY) {
  harness::expect_reported([] { return run(arrivals_of_two_phases, 64, output()); },
                           {"nobody has waited for the one before: too many arrivals"}, LINES_ABOVE(7));
}

__global__ void too_few_arrivals(float *out) {
  GT_DYNAMIC_SMEM(Memory, s);
  set_up(s, 32);
  if (threadIdx.x % 32 < 31) gt::mbarrier_arrive(&s->empty);
  gt::mbarrier_wait(&s->empty, 0);
  out[threadIdx.x] = 1;
}
GT_TEST(bug_too_few_arrivals, ANY) {
  harness::expect_reported([] { return run(too_few_arrivals, 32, output()); }, {"lacks 1 arrivals and 0 bytes"},
                           LINES_ABOVE(5));
}

__global__ void uninitialised_mbarrier(float *out) {
  GT_DYNAMIC_SMEM(Memory, s);
  gt::mbarrier_wait(&s->full, 0);
  out[threadIdx.x] = 1;
}
GT_TEST(bug_uninitialised_mbarrier, ANY) {
  harness::expect_reported([] { return run(uninitialised_mbarrier, 32, output()); }, {"was not initialised"},
                           LINES_ABOVE(5));
}

__global__ void mbarrier_written_over(float *out) {
  GT_DYNAMIC_SMEM(Memory, s);
  set_up(s, 32);
  float *const tiles = reinterpret_cast<float *>(s);
  if (threadIdx.x == 0) tiles[TILE] = out[0];  // past both tiles
  __syncthreads();
  gt::mbarrier_arrive(&s->full);
}
GT_TEST(bug_mbarrier_written_over, ANY) {
  harness::expect_reported([] { return run(mbarrier_written_over, 32, output()); }, {"has been written over", "race"},
                           "bugs_hopper.cu:");
}

// TMA

__global__ void missing_tma_wait(const __grid_constant__ gt::TensorMap map, float *out) {
  GT_DYNAMIC_SMEM(Memory, s);
  set_up(s, 1);
  if (threadIdx.x == 0) load(s, s->a, &map);
  __syncthreads();
  out[threadIdx.x] = gt::to_float(s->a[threadIdx.x]);
}
GT_TEST(bug_missing_tma_wait, ANY) {
  harness::expect_reported([] { return run(missing_tma_wait, 64, map_of_rows(64), output()); },
                           {"nobody has waited for the tma_load", "shared memory race"}, "bugs_hopper.cu:");
}

// One warp waits, the other does not; it may be lucky.
__global__ void half_a_tma_wait(const __grid_constant__ gt::TensorMap map, float *out) {
  GT_DYNAMIC_SMEM(Memory, s);
  set_up(s, 1);
  if (threadIdx.x == 0) load(s, s->a, &map);
  if (threadIdx.x < 32) gt::mbarrier_wait(&s->full, 0);
  out[threadIdx.x] = gt::to_float(s->a[threadIdx.x]);
}
GT_TEST(bug_half_a_tma_wait_reads_nan, ANY) {
  for (const char *order : {"fwd", "rev"}) {
    harness::use_order(order);
    run(half_a_tma_wait, 64, map_of_rows(64), output());
    GT_CHECK(std::isnan(output()[63]), "%s: warp 1 read %g before the tile had landed", order, output()[63]);
  }
  harness::use_order("fwd");
}
GT_TEST(bug_half_a_tma_wait, RACE) {
  harness::expect_reported([] { return run(half_a_tma_wait, 64, map_of_rows(64), output()); },
                           {"'s tma_load at"}, "byte");
}

__global__ void wrong_number_of_bytes(const __grid_constant__ gt::TensorMap map, float *out) {
  GT_DYNAMIC_SMEM(Memory, s);
  set_up(s, 1);
  if (threadIdx.x == 0) {
    gt::mbarrier_arrive_expect_tx(&s->full, 2 * TILE_BYTES);
    gt::tma_load(s->a, &map, &s->full, 0, 0);
  }
  gt::mbarrier_wait(&s->full, 0);
  out[threadIdx.x] = gt::to_float(s->a[threadIdx.x]);
}
GT_TEST(bug_wrong_number_of_bytes, ANY) {
  harness::expect_reported([] { return run(wrong_number_of_bytes, 64, map_of_rows(64), output()); },
                           {"which lacks 0 arrivals and 8192 bytes"}, LINES_ABOVE(5));
}

// Announced by the last producer, for a phase that nobody waits for.
__global__ void bytes_that_never_come(float *out) {
  GT_DYNAMIC_SMEM(Memory, s);
  set_up(s, 1);
  if (threadIdx.x == 0) gt::mbarrier_arrive_expect_tx(&s->full, TILE_BYTES);
  out[threadIdx.x] = 1;
}
GT_TEST(bug_bytes_that_never_come, ANY) {
  harness::expect_reported([] { return run(bytes_that_never_come, 64, output()); },
                           {"phase 0 of an mbarrier of 1 arrivals lacks 8192 bytes"}, "the block ends");
}

__global__ void missing_fence_init(const __grid_constant__ gt::TensorMap map, float *out) {
  GT_DYNAMIC_SMEM(Memory, s);
  if (threadIdx.x == 0) {
    gt::mbarrier_init(&s->full, 1);
    gt::mbarrier_arrive_expect_tx(&s->full, TILE_BYTES);
    gt::tma_load(s->a, &map, &s->full, 0, 0);
  }
  __syncthreads();
  gt::mbarrier_wait(&s->full, 0);
  out[threadIdx.x] = gt::to_float(s->a[threadIdx.x]);
}
GT_TEST(bug_missing_fence_init, ANY) {
  harness::expect_reported([] { return run(missing_fence_init, 64, map_of_rows(64), output()); },
                           {"no mbarrier_fence_init"}, LINES_ABOVE(8));
}

__global__ void misaligned_tile(const __grid_constant__ gt::TensorMap map, float *out) {
  GT_DYNAMIC_SMEM(Memory, s);
  set_up(s, 1);
  if (threadIdx.x == 0) gt::tma_load(s->a + 64, &map, &s->full, 0, 0);
  gt::mbarrier_wait(&s->full, 0);
  out[threadIdx.x] = gt::to_float(s->a[threadIdx.x]);
}
GT_TEST(bug_misaligned_tile, ANY) {
  harness::expect_reported([] { return run(misaligned_tile, 64, map_of_rows(64), output()); },
                           {"at a multiple of 1024"}, LINES_ABOVE(6));
}

__global__ void tile_past_shared(const __grid_constant__ gt::TensorMap map, float *out) {
  GT_DYNAMIC_SMEM(Memory, s);
  set_up(s, 1);
  if (threadIdx.x == 0) gt::tma_load(s->b + 1024, &map, &s->full, 0, 0);
  gt::mbarrier_wait(&s->full, 0);
  out[threadIdx.x] = gt::to_float(s->a[threadIdx.x]);
}
GT_TEST(bug_tile_past_shared, ANY) {
  harness::expect_reported([] { return run(tile_past_shared, 64, map_of_rows(64), output()); },
                           {"must lie in dynamic shared memory"}, LINES_ABOVE(6));
}

__global__ void tile_to_global(const __grid_constant__ gt::TensorMap map, bool waits) {
  GT_DYNAMIC_SMEM(Memory, s);
  fill(s->a);
  gt::fence_async();
  __syncthreads();
  if (threadIdx.x == 0) {
    gt::tma_store(&map, s->a, 0, 0);
    gt::tma_commit();
    if (waits) gt::tma_store_wait<0>();
  }
}
GT_TEST(bug_missing_tma_store_wait, ANY) {
  harness::expect_reported([] { return run(tile_to_global, 64, map_of_rows(64), false); },
                           {"returns and has not waited for its tma_store"}, LINES_ABOVE(7));
}
__global__ void store_at(const __grid_constant__ gt::TensorMap map, int column, int row) {
  GT_DYNAMIC_SMEM(Memory, s);
  fill(s->a);
  gt::fence_async();
  __syncthreads();
  if (threadIdx.x == 0) {
    gt::tma_store(&map, s->a, column, row);
    gt::tma_commit();
    gt::tma_store_wait<0>();
  }
}
GT_TEST(bug_store_before_the_matrix, ANY) {
  harness::expect_ok(run(store_at, 64, map_of_rows(64), 8, 3), "over two edges");
  harness::expect_reported([] { return run(store_at, 64, map_of_rows(64), 0, -1); },
                           {"a store at -1 of dimension 1, expected at least 0"}, LINES_ABOVE(8));
}
GT_TEST(bug_column_within_16_bytes, ANY) {
  harness::expect_reported([] { return run(store_at, 64, map_of_rows(64), 4, 0); },
                           {"column 4, expected a multiple of 16 bytes"}, LINES_ABOVE(12));
}
__global__ void floats_to_global(float *out, bool waits) {
  GT_DYNAMIC_SMEM(float, floats);
  floats[threadIdx.x] = 1.0f;
  gt::fence_async();
  __syncthreads();
  if (threadIdx.x == 0) {
    gt::bulk_store(out, floats, 64);
    gt::tma_commit();
    if (waits) gt::tma_store_wait<0>();
  }
}
GT_TEST(bug_missing_bulk_wait, ANY) {
  harness::expect_ok(run(floats_to_global, 64, output(), true), "with the wait");
  harness::expect_reported([] { return run(floats_to_global, 64, output(), false); },
                           {"returns and has not waited for its bulk copy"}, LINES_ABOVE(8));
}

// Two blocks add 64 ones each, in turns.
enum class Turn { GOOD, NO_FENCE, EARLY };
template <Turn TURN> __global__ void floats_in_turns(unsigned *ticket, unsigned *counter, float *out) {
  GT_DYNAMIC_SMEM(float, floats);
  floats[threadIdx.x] = 1.0f;
  gt::fence_async();
  __syncthreads();
  if (threadIdx.x == 0) {
    gt::turn_wait(counter, atomicAdd(ticket, 1u));
    if (TURN != Turn::NO_FENCE) gt::fence_async_global();
    gt::bulk_add(out, floats, 64);
    gt::tma_commit();
    if (TURN == Turn::EARLY) gt::turn_pass(counter);
    gt::tma_store_wait<0>();
    if (TURN != Turn::EARLY) gt::turn_pass(counter);
  }
}
template <Turn TURN> int run_turns() {
  static unsigned *const ticket = new unsigned[2], *const counter = ticket + 1;
  *ticket = *counter = 0;
  std::fill_n(output(), 128, 0.0f);
  return gt::launch(floats_in_turns<TURN>, dim3(2), dim3(64), 64 * sizeof(float), nullptr, ticket, counter, output());
}
GT_TEST(bug_turns, ANY) {
  harness::for_each_order([](const char *order) {
    harness::expect_ok(run_turns<Turn::GOOD>(), order);
    GT_CHECK(output()[63] == 2 && output()[64] == 0, "%s: sums of %g and %g", order, output()[63], output()[64]);
  });
  harness::expect_reported(run_turns<Turn::NO_FENCE>, {"no fence_async_global since the thread's turn came"},
                           LINES_ABOVE(19));
  harness::expect_reported(run_turns<Turn::EARLY>, {"has not waited for its bulk copy"}, LINES_ABOVE(18));
}
// A row more than the allocation has.
__global__ void load_at(const __grid_constant__ gt::TensorMap map, int row, float *out) {
  GT_DYNAMIC_SMEM(Memory, s);
  set_up(s, 1);
  if (threadIdx.x == 0) {
    gt::mbarrier_arrive_expect_tx(&s->full, TILE_BYTES);
    gt::tma_load(s->a, &map, &s->full, 0, row);
  }
  gt::mbarrier_wait(&s->full, 0);
  out[threadIdx.x] = gt::to_float(s->a[threadIdx.x]);
}
GT_TEST(bug_map_past_allocation, ASAN) {
  harness::expect_reported([] { return run(load_at, 64, map_of_rows(65), 60, output()); },
                           {"the matrix of the tile at row 60, column 0 reaches beyond its allocation"},
                           LINES_ABOVE(8));
}

// Both warps order a tile into the same buffer, with nothing between.
__global__ void two_loads_into_one_tile(const __grid_constant__ gt::TensorMap map, float *out) {
  GT_DYNAMIC_SMEM(Memory, s);
  set_up(s, 1);
  if (threadIdx.x == 0) {
    gt::mbarrier_arrive_expect_tx(&s->full, 2 * TILE_BYTES);
    gt::tma_load(s->a, &map, &s->full, 0, 0);
    gt::tma_load(s->a, &map, &s->full, 0, 0);
  }
  gt::mbarrier_wait(&s->full, 0);
  out[threadIdx.x] = gt::to_float(s->a[threadIdx.x]);
}
GT_TEST(bug_two_loads_into_one_tile, RACE) {
  harness::expect_reported([] { return run(two_loads_into_one_tile, 64, map_of_rows(64), output()); },
                           {"'s tma_load at"}, LINES_ABOVE(7));
}

// The next tile is ordered while others may still read the last.
__global__ void load_over_readers(const __grid_constant__ gt::TensorMap map, float *out) {
  GT_DYNAMIC_SMEM(Memory, s);
  set_up(s, 1);
  for (unsigned round = 0; round < 2; ++round) {
    if (threadIdx.x == 0) load(s, s->a, &map);
    gt::mbarrier_wait(&s->full, round);
    out[threadIdx.x] = gt::to_float(s->a[threadIdx.x]);
  }
}
GT_TEST(bug_load_over_readers, RACE) {
  harness::expect_reported([] { return run(load_over_readers, 64, map_of_rows(64), output()); },
                           {"shared memory race", "deadlock"}, "bugs_hopper.cu:");
}

__global__ void missing_fence_async(const __grid_constant__ gt::TensorMap map) {
  GT_DYNAMIC_SMEM(Memory, s);
  fill(s->a);
  __syncthreads();
  if (threadIdx.x == 0) {
    gt::tma_store(&map, s->a, 0, 0);
    gt::tma_commit();
    gt::tma_store_wait<0>();
  }
}
GT_TEST(bug_missing_fence_async, RACE) {
  harness::expect_reported([] { return run(missing_fence_async, 64, map_of_rows(64)); }, {"fence_async missing"},
                           LINES_ABOVE(7));
}

// Wgmma

enum Mistake {
  NONE, NO_WAIT, LATE_WAIT, WRITES_D, NO_FENCE, WARPS_DIFFER, NO_COMMIT, OUTSIDE, NO_BARRIER, REUSES_TILE, FENCE_WITHIN
};

template <Mistake MISTAKE> __global__ void product(float *out) {
  GT_DYNAMIC_SMEM(Memory, s);
  fill(s->a);
  fill(s->b);
  gt::fence_async();
  if (MISTAKE != NO_BARRIER) __syncthreads();
  float d[32];
  for (int i = 0; i < 32; ++i) d[i] = 0;
  if (MISTAKE != NO_FENCE) gt::wgmma_fence(d);
  if (MISTAKE == WARPS_DIFFER && threadIdx.x < 32)
    gt::wgmma<bf16, 64>(d, gt::wgmma_k_major(s->a, 16), gt::wgmma_k_major(s->b, 16), false);
  else if (MISTAKE == OUTSIDE)
    gt::wgmma<bf16, 64>(d, gt::wgmma_k_major(s->a, 0), gt::wgmma_k_major(s->b + 2048, 0), false);
  else
    multiply(s, d);
  if (MISTAKE == FENCE_WITHIN) gt::wgmma_fence(d);
  if (MISTAKE != NO_COMMIT) gt::wgmma_commit();
  if (MISTAKE == WRITES_D) d[3] = 1;
  if (MISTAKE == REUSES_TILE) s->a[threadIdx.x] = gt::from_float<bf16>(2.0f);
  float early = 0;
  if (MISTAKE == LATE_WAIT) early = d[7];
  if (MISTAKE != NO_WAIT) gt::wgmma_wait<0>(d);
  out[threadIdx.x] = d[0] + early;
}
template <Mistake MISTAKE> int run_product() { return run(product<MISTAKE>, 128, output()); }

GT_TEST(bug_none_in_product, ANY) {
  harness::for_each_order([](const char *order) {
    harness::expect_ok(run_product<NONE>(), order);
    for (int t = 0; t < 128; ++t) GT_CHECK(output()[t] == 16, "%s: thread %d has %g", order, t, output()[t]);
  });
}
GT_TEST(bug_missing_wgmma_wait, ANY) {
  harness::expect_reported(run_product<NO_WAIT>, {"has not waited for its wgmma at"}, "bugs_hopper.cu:");
}
GT_TEST(bug_accumulator_read_in_flight, ANY) {
  harness::for_each_order([](const char *order) {
    harness::expect_ok(run_product<LATE_WAIT>(), order);
    for (int t = 0; t < 128; ++t) GT_CHECK(std::isnan(output()[t]), "%s: thread %d has %g", order, t, output()[t]);
  });
}
GT_TEST(bug_accumulator_written_in_flight, ANY) {
  harness::expect_reported(run_product<WRITES_D>, {"wrote to its accumulator while a wgmma was in flight"},
                           "bugs_hopper.cu:");
}
GT_TEST(bug_missing_wgmma_fence, ANY) {
  harness::expect_reported(run_product<NO_FENCE>, {"no wgmma_fence"}, "bugs_hopper.cu:");
}
GT_TEST(bug_wgmma_fence_within_a_group, ANY) {
  harness::expect_reported(run_product<FENCE_WITHIN>, {"products before this fence are not committed"},
                           "bugs_hopper.cu:");
}
GT_TEST(bug_warps_differ, ANY) {
  harness::expect_reported(run_product<WARPS_DIFFER>, {"differ from those of another warp"}, "bugs_hopper.cu:");
}
GT_TEST(bug_missing_wgmma_commit, ANY) {
  harness::expect_reported(run_product<NO_COMMIT>, {"has not waited for its wgmma at"}, "bugs_hopper.cu:");
}
GT_TEST(bug_operand_outside_shared, ANY) {
  harness::expect_reported(run_product<OUTSIDE>, {"reaches outside dynamic shared memory"}, "bugs_hopper.cu:");
}

// A in registers, written before the product has read it.
__global__ void a_written_in_flight(float *out) {
  GT_DYNAMIC_SMEM(bf16, tile);
  for (int i = threadIdx.x; i < 64 * 64; i += blockDim.x) tile[i] = gt::from_float<bf16>(1.0f);
  gt::fence_async();
  __syncthreads();
  float d[32];
  uint32_t a[1][4] = {};
  gt::wgmma_fence(d, a);
  gt::wgmma<bf16, 64>(d, a[0], gt::wgmma_k_major(tile, 0), false);
  gt::wgmma_commit();
  if (threadIdx.x == 70) a[0][2] = 1;
  gt::wgmma_wait<0>(d, a);
  out[threadIdx.x] = d[0];
}
GT_TEST(bug_registers_of_a_written_in_flight, ANY) {
  harness::expect_reported(
      [] { return gt::launch(a_written_in_flight, dim3(1), dim3(128), 64 * 128, nullptr, output()); },
      {"lane 6 wrote to registers of A while a wgmma was in flight"}, "bugs_hopper.cu:");
}
GT_TEST(bug_product_of_unordered_stores, RACE) {
  harness::expect_reported(run_product<NO_BARRIER>, {"shared memory race"}, "'s wgmma at");
}
GT_TEST(bug_tile_reused_in_flight, RACE) {
  harness::expect_reported(run_product<REUSES_TILE>, {"shared memory race"}, "'s wgmma at");
}

// Registers: 384 threads begin with 168 each.

template <int PRODUCER, int CONSUMER> __global__ void __launch_bounds__(384, 1) share_registers(unsigned first) {
  if (threadIdx.x < first) gt::decrease_registers<PRODUCER>();
  else if (threadIdx.x >= 128) gt::increase_registers<CONSUMER>();
}
GT_TEST(bug_registers, ANY) {
  harness::expect_ok(run(share_registers<24, 240>, 384, 128u), "all that there are");
  harness::expect_reported([] { return run(share_registers<40, 240>, 384, 128u); },
                           {"ask for 2080 registers a lane, and the block has 2016"}, "waits for ever");
  harness::expect_reported([] { return run(share_registers<24, 240>, 384, 96u); },
                           {"warp 3 has 168 registers a thread, warp 0 of its warpgroup 24"}, "all of them must ask");
  harness::expect_reported([] { return run(share_registers<24, 128>, 384, 128u); },
                           {"from 168 registers to 128, expected at least 168"}, LINES_ABOVE(9));
}

}  // namespace
