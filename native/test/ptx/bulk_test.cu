// Does the copy engine store and add floats, read shared memory before bulk_read_wait returns, and add those of several
// blocks in turns?
#include "lib/bulk.h"
#include "lib/turn.h"
#include "memory.h"

namespace {

constexpr int MOST = 1024;

// out = in, then `rounds` times out += in again, by way of one buffer that is overwritten as soon as it has been read.
__global__ void store_and_add(const float *in, int count, int rounds, float *out) {
  GT_DYNAMIC_SMEM(float, buffer);
  for (int round = 0; round <= rounds; ++round) {
    for (int i = threadIdx.x; i < count; i += blockDim.x) buffer[i] = in[i] + static_cast<float>(round);
    gt::fence_async();
    __syncthreads();
    if (threadIdx.x == 0) {
      if (round == 0) {
        gt::bulk_store(out, buffer, count);
      } else {
        gt::tma_store_wait<0>();
        gt::fence_async_global();
        gt::bulk_add(out, buffer, count);
      }
      gt::tma_commit();
      gt::bulk_read_wait<0>();
    }
    __syncthreads();
  }
  if (threadIdx.x == 0) gt::tma_store_wait<0>();
}

void check(int count, int rounds) {
  ptx::Shared<float> in(MOST), out(MOST + 4);
  for (int i = 0; i < MOST; ++i) in[i] = 0.25f * static_cast<float>(i % 97);
  for (int i = 0; i < MOST + 4; ++i) out[i] = -1;
  if (!ptx::run("store_and_add", store_and_add, dim3(64), MOST * sizeof(float), in.data(), count, rounds, out.data()))
    return;
  for (int i = 0; i < MOST + 4; ++i) {
    float expected = -1;
    for (int round = 0; i < count && round <= rounds; ++round)
      expected = (round == 0 ? 0 : expected) + in[i] + static_cast<float>(round);
    ptx::expect(out[i] == expected, "%d floats, %d rounds: [%d] is %g, expected %g", count, rounds, i, out[i],
                expected);
  }
}

__host__ __device__ float summand(int n, int tile, int i) {
  return static_cast<float>((n * 37 + tile * 11 + i) % 61 - 30) * (n % 3 == 1 ? 1e6f : 0.37f);
}

// Block n adds its COUNT floats to each tile as the n-th, the first stores them: as attention's derivatives do it.
constexpr int COUNT = 512;
__global__ void add_in_turns(unsigned *ticket, unsigned *counters, int tiles, float *out) {
  GT_DYNAMIC_SMEM(float, buffer);
  __shared__ unsigned drawn;
  if (threadIdx.x == 0) drawn = atomicAdd(ticket, 1u);
  __syncthreads();
  const unsigned n = drawn;
  for (int tile = tiles - 1; tile >= 0; --tile) {
    for (int i = threadIdx.x; i < COUNT; i += blockDim.x) buffer[i] = summand(static_cast<int>(n), tile, i);
    gt::fence_async();
    __syncthreads();
    if (threadIdx.x == 0) {
      if (n == 0) {
        gt::bulk_store(out + tile * COUNT, buffer, COUNT);
      } else {
        gt::turn_wait(counters + tile, n);
        gt::fence_async_global();
        gt::bulk_add(out + tile * COUNT, buffer, COUNT);
      }
      gt::tma_commit();
      gt::tma_store_wait<0>();
      gt::turn_pass(counters + tile);
    }
    __syncthreads();
  }
}

// Sums of floats: another order, or one that comes twice or never, gives other bits.
void check_turns(int blocks, int tiles) {
  ptx::Shared<unsigned> ticket(1), counters(tiles);
  ptx::Shared<float> out(tiles * COUNT);
  ticket[0] = 0;
  for (int i = 0; i < tiles; ++i) counters[i] = 0;
  if (!ptx::run_blocks("add_in_turns", add_in_turns, blocks, dim3(64), COUNT * sizeof(float), ticket.data(),
                       counters.data(), tiles, out.data()))
    return;
  for (int tile = 0; tile < tiles; ++tile)
    for (int i = 0; i < COUNT; ++i) {
      float expected = summand(0, tile, i);
      for (int n = 1; n < blocks; ++n) expected += summand(n, tile, i);
      const float actual = out[tile * COUNT + i];
      ptx::expect(actual == expected, "%d blocks in turns: tile %d [%d] is %g, expected %g", blocks, tile, i, actual,
                  expected);
    }
}

}  // namespace

int main() {
  if (!gt::has_hopper()) return printf("skipped: needs a Hopper GPU\n"), 0;
  check(4, 0);
  check(4, 1);
  check(1024, 0);
  check(1000, 5);
  check_turns(2, 1);
  check_turns(400, 5);
  return ptx::summary();
}
