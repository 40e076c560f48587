// Do named barriers keep a producer and a consumer warp apart, and let the others pass?
#include "lib/barrier.h"
#include "memory.h"

namespace {

// Warp 0 fills two buffers in turn, warp 1 reads them reversed, warps 2 and 3 meet at another barrier.
__global__ void double_buffer(const int *in, int rounds, int *out, int *exchanged) {
  __shared__ int buffer[2][32], others[64];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  constexpr int FULL = 1, EMPTY = 3, OTHERS = 15;
  if (warp == 0) {
    for (int round = 0; round < rounds; ++round) {
      if (round >= 2) gt::named_barrier_sync(EMPTY + round % 2, 64);
      buffer[round % 2][lane] = in[32 * round + lane];
      gt::named_barrier_arrive(FULL + round % 2, 64);
    }
  } else if (warp == 1) {
    for (int round = 0; round < rounds; ++round) {
      gt::named_barrier_sync(FULL + round % 2, 64);
      out[32 * round + lane] = buffer[round % 2][31 - lane];
      if (round + 2 < rounds) gt::named_barrier_arrive(EMPTY + round % 2, 64);
    }
  } else {
    const int me = static_cast<int>(threadIdx.x) - 64;
    others[me] = in[me];
    gt::named_barrier_sync(OTHERS, 64);
    exchanged[me] = others[me ^ 33];
  }
}

void check(int rounds) {
  const ptx::Shared<int> in(32 * rounds), out(32 * rounds), exchanged(64);
  for (int i = 0; i < 32 * rounds; ++i) in[i] = 1000 + i;
  if (!ptx::run("double_buffer", double_buffer, 128, 0, in.data(), rounds, out.data(), exchanged.data())) return;
  for (int i = 0; i < 32 * rounds; ++i)
    ptx::expect(out[i] == in[i ^ 31], "%d rounds: element %d is %d, expected %d", rounds, i, out[i], in[i ^ 31]);
  for (int i = 0; i < 64; ++i)
    ptx::expect(exchanged[i] == in[i ^ 33], "%d rounds: thread %d got %d, expected %d", rounds, 64 + i, exchanged[i],
                in[i ^ 33]);
}

}  // namespace

int main() {
  check(2);
  check(7);
  check(100);
  return ptx::summary();
}
