// Does an mbarrier count arrivals, phase after phase, and does its wait show what was written before them?
#include "lib/mbarrier.h"
#include "memory.h"

namespace {

// 32 producers hand values to 64 consumers through a ring of two buffers, by arrivals alone.
__global__ void ring(const int *in, int rounds, int *out) {
  __shared__ int buffer[2][32];
  __shared__ gt::Mbarrier full[2], empty[2];
  const int thread = threadIdx.x;
  if (thread == 0) {
    for (int i = 0; i < 2; ++i) {
      gt::mbarrier_init(&full[i], 32);
      gt::mbarrier_init(&empty[i], 2);  // a warp at a time
    }
    gt::mbarrier_fence_init();
  }
  __syncthreads();
  if (thread < 32) {
    for (int round = 0; round < rounds; ++round) {
      gt::mbarrier_wait(&empty[round % 2], round / 2 % 2 ^ 1);  // the first two rounds go on at once
      buffer[round % 2][thread] = in[32 * round + thread];
      gt::mbarrier_arrive(&full[round % 2]);
    }
  } else {
    for (int round = 0; round < rounds; ++round) {
      gt::mbarrier_wait(&full[round % 2], round / 2 % 2);
      out[64 * round + thread - 32] = buffer[round % 2][(thread * 7) % 32];
      gt::mbarrier_arrive_warp(&empty[round % 2]);
    }
  }
}

void check(int rounds) {
  const ptx::Shared<int> in(32 * rounds), out(64 * rounds);
  for (int i = 0; i < 32 * rounds; ++i) in[i] = 7 * i + 1;
  if (!ptx::run("ring", ring, 96, 0, in.data(), rounds, out.data())) return;
  for (int i = 0; i < 64 * rounds; ++i) {
    const int expected = in[i / 64 * 32 + (i % 64 + 32) * 7 % 32];
    ptx::expect(out[i] == expected, "%d rounds: consumer %d of round %d got %d, expected %d", rounds, i % 64, i / 64,
                out[i], expected);
  }
}

}  // namespace

int main() {
  if (!gt::has_hopper()) return printf("skipped: needs a Hopper GPU\n"), 0;
  check(1);
  check(2);
  check(5);
  check(100);
  return ptx::summary();
}
