// Does cp.async copy and clear the bytes that lib/async_copy.h says, and does a wait cover the right groups?
#include "lib/async_copy.h"
#include "lib/vec.h"
#include "memory.h"

namespace {

using Bytes = gt::Vector<uint8_t>;  // 16

// Thread i copies i % 17 bytes of its own 16, and writes what it finds.
__global__ void copy(const Bytes *in, Bytes *out) {
  __shared__ Bytes tile[64];
  gt::async_copy_16(&tile[threadIdx.x], &in[threadIdx.x], static_cast<int>(threadIdx.x % 17));
  gt::async_copy_commit();
  gt::async_copy_wait<0>();
  out[threadIdx.x] = tile[threadIdx.x];
}

void check_copy() {
  const ptx::Shared<Bytes> in(64), out(64);
  for (int i = 0; i < 64 * 16; ++i) in[i / 16].element[i % 16] = static_cast<uint8_t>(1 + i % 251);
  if (!ptx::run("copy", copy, 64, 0, in.data(), out.data())) return;
  for (int i = 0; i < 64 * 16; ++i) {
    const int thread = i / 16, byte = i % 16, actual = out[thread].element[byte];
    const int expected = byte < thread % 17 ? in[thread].element[byte] : 0;
    ptx::expect(actual == expected, "copy of %d bytes: byte %d is %d, expected %d", thread % 17, byte, actual,
                expected);
  }
}

// A ring of three tiles, two groups in flight; each thread reads its neighbour's part. The last groups are empty.
__global__ void pipeline(const Bytes *in, int num_tiles, Bytes *out) {
  __shared__ Bytes ring[3][64];
  const int me = threadIdx.x;
  const auto order = [&](int tile) {
    if (tile < num_tiles) gt::async_copy_16(&ring[tile % 3][me], &in[tile * 64 + me], 16);
    gt::async_copy_commit();
  };
  order(0);
  order(1);
  for (int tile = 0; tile < num_tiles; ++tile) {
    gt::async_copy_wait<1>();
    __syncthreads();
    order(tile + 2);
    out[tile * 64 + me] = ring[tile % 3][me ^ 33];
  }
}

void check_pipeline() {
  for (const int num_tiles : {1, 2, 3, 7}) {
    const ptx::Shared<Bytes> in(num_tiles * 64), out(num_tiles * 64);
    for (int i = 0; i < num_tiles * 64 * 16; ++i) in[i / 16].element[i % 16] = static_cast<uint8_t>(i % 253);
    if (!ptx::run("pipeline", pipeline, 64, 0, in.data(), num_tiles, out.data())) return;
    for (int i = 0; i < num_tiles * 64; ++i)
      ptx::expect(!memcmp(&out[i], &in[i ^ 33], 16), "pipeline of %d tiles: tile %d, thread %d got other bytes",
                  num_tiles, i / 64, i % 64);
  }
}

// Groups of one tile each: after a wait for all but n of them those before are there.
constexpr int MOST_GROUPS = 13;
__global__ void wait_for_all_but(const Bytes *in, int num_groups, Bytes *out) {
  __shared__ Bytes tiles[MOST_GROUPS][64];
  for (int tile = 0; tile < num_groups; ++tile) {
    gt::async_copy_16(&tiles[tile][threadIdx.x], &in[tile * 64 + threadIdx.x], 16);
    gt::async_copy_commit();
  }
  for (int tile = 0; tile < num_groups; ++tile) {
    gt::async_copy_wait_for_all_but(num_groups - 1 - tile);
    out[tile * 64 + threadIdx.x] = tiles[tile][threadIdx.x];
  }
}

void check_wait_for_all_but() {
  for (int num_groups = 1; num_groups <= MOST_GROUPS; ++num_groups) {
    const ptx::Shared<Bytes> in(num_groups * 64), out(num_groups * 64);
    for (int i = 0; i < num_groups * 64 * 16; ++i) in[i / 16].element[i % 16] = static_cast<uint8_t>(i % 241);
    if (!ptx::run("wait for all but n", wait_for_all_but, 64, 0, in.data(), num_groups, out.data())) return;
    for (int i = 0; i < num_groups * 64; ++i)
      ptx::expect(!memcmp(&out[i], &in[i], 16), "%d groups: of group %d thread %d got other bytes", num_groups, i / 64,
                  i % 64);
  }
}

#if defined(GT_SIMT)
// What the emulator must show or report. Groups: 0 and 1, the second not waited for until the tile was read.
__global__ void wait_too_short(const Bytes *in, Bytes *out) {
  __shared__ Bytes tile[2];
  gt::async_copy_16(&tile[0], in, 16);
  gt::async_copy_commit();
  gt::async_copy_16(&tile[1], in, 16);
  gt::async_copy_commit();
  gt::async_copy_wait<1>();
  out[0] = tile[0];
  out[1] = tile[1];
  gt::async_copy_wait<0>();
}
__global__ void wait_for_the_first(const Bytes *in, int num_groups, Bytes *out) {
  __shared__ Bytes tiles[MOST_GROUPS];
  for (int tile = 0; tile < num_groups; ++tile) {
    gt::async_copy_16(&tiles[tile], in, 16);
    gt::async_copy_commit();
  }
  gt::async_copy_wait_for_all_but(num_groups - 1);
  out[0] = tiles[0];
  out[1] = tiles[1];
  gt::async_copy_wait<0>();
}
__global__ void never_waited_for(const Bytes *in, Bytes *out) {
  __shared__ Bytes tile[1];
  gt::async_copy_16(tile, in, 16);
  gt::async_copy_commit();
  out[0] = tile[0];
}
__global__ void not_committed(const Bytes *in, Bytes *out) {
  __shared__ Bytes tile[1];
  gt::async_copy_16(tile, in, 16);
  gt::async_copy_wait<0>();
  out[0] = tile[0];
}
__global__ void unaligned_source(const Bytes *in, Bytes *out) {
  __shared__ Bytes tile[1];
  gt::async_copy_16(tile, in->element + 4, 4);
  out[0] = tile[0];
}
__global__ void into_global_memory(const Bytes *in, Bytes *out) { gt::async_copy_16(out, in, 16); }
#if defined(GT_SIMT_RACE)
// The copy lands in what the other warp may still read.
__global__ void no_barrier_before_the_order(const Bytes *in, Bytes *out) {
  __shared__ Bytes tile[1];
  if (threadIdx.x == 0) tile[0] = Bytes{};
  __syncthreads();
  if (threadIdx.x == 0) out[0] = tile[0];
  if (threadIdx.x == 32) {
    gt::async_copy_16(tile, in, 16);
    gt::async_copy_commit();
  }
  gt::async_copy_wait<0>();
}
// The other warp reads what has landed, with no barrier behind the wait.
__global__ void no_barrier_behind_the_wait(const Bytes *in, Bytes *out) {
  __shared__ Bytes tile[1];
  if (threadIdx.x == 32) {
    gt::async_copy_16(tile, in, 16);
    gt::async_copy_commit();
  }
  __syncthreads();
  gt::async_copy_wait<0>();
  if (threadIdx.x == 0) out[0] = tile[0];
}
#endif

void check_reports() {
  const ptx::Shared<Bytes> in(1), out(2);
  memset(static_cast<void *>(&in[0]), 7, 16);
  const auto expect_reported = [&](void (*kernel)(const Bytes *, Bytes *), const char *text) {
    ptx::expect_reported(text, gt::launch(kernel, 1, 64, 0, nullptr, in.data(), out.data()), text);
  };
  ptx::run("wait too short", wait_too_short, 1, 0, in.data(), out.data());
  ptx::expect(out[0].element[0] == 7 && out[1].element[0] == 0xff, "a group that was not waited for has landed: %d, %d",
              out[0].element[0], out[1].element[0]);
  for (int num_groups = 2; num_groups <= gt::MOST_GROUPS_OPEN + 1; ++num_groups) {
    ptx::run("wait for the first", wait_for_the_first, 1, 0, in.data(), num_groups, out.data());
    ptx::expect(out[0].element[0] == 7 && out[1].element[0] == 0xff, "%d groups, of which one is waited for: %d, %d",
                num_groups, out[0].element[0], out[1].element[0]);
  }
  expect_reported(never_waited_for, "copies are in flight");
  expect_reported(not_committed, "copies are in flight");
  expect_reported(unaligned_source, "reads from an address that is not aligned");
  expect_reported(into_global_memory, "must write 16 aligned bytes of shared memory");
#if defined(GT_SIMT_RACE)
  expect_reported(no_barrier_before_the_order, "shared memory race");
  expect_reported(no_barrier_behind_the_wait, "shared memory race");
#endif
}
#else
void check_reports() {}
#endif

}  // namespace

int main() {
  check_copy();
  check_pipeline();
  check_wait_for_all_but();
  check_reports();
  return ptx::summary();
}
