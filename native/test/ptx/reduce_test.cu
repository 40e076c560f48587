// Do the reductions of warps and blocks give every thread the same, right result, in the order that reduce.h promises?
#include "lib/reduce.h"
#include "memory.h"

#include <cmath>
#include <vector>

namespace {

// Every thread writes what it got: sum and maximum of its warp, then of the block, twice from the same scratch.
__global__ void reduce(const float *in, float *out) {
  __shared__ float scratch[gt::MAX_WARPS];
  const float mine = in[threadIdx.x];
  float *const row = out + 5 * threadIdx.x;
  row[0] = gt::warp_sum(mine);
  row[1] = gt::warp_max(mine);
  row[2] = gt::block_sum(mine, scratch);
  row[3] = gt::block_max(mine, scratch);
  row[4] = gt::block_sum(2 * mine, scratch);
}

// The butterfly: v[i] = v[i] + v[i ^ distance], distance 16, 8, 4, 2, 1.
float butterfly(std::vector<float> v) {
  v.resize(32);
  for (int distance = 16; distance > 0; distance /= 2) {
    const std::vector<float> last = v;
    for (int i = 0; i < 32; ++i) v[i] = last[i] + last[i ^ distance];
  }
  return v[0];
}

void check(int threads) {
  const ptx::Shared<float> in(threads), out(5 * threads);
  for (int i = 0; i < threads; ++i) in[i] = sinf(static_cast<float>(i)) - 0.3f;
  if (!ptx::run("reduce", reduce, threads, 0, in.data(), out.data())) return;
  std::vector<float> warp_sums;
  float block_max = -INFINITY;
  for (int w = 0; w < threads / 32; ++w) {
    warp_sums.push_back(butterfly(std::vector<float>(in.data() + 32 * w, in.data() + 32 * w + 32)));
    for (int i = 0; i < 32; ++i) block_max = fmaxf(block_max, in[32 * w + i]);
  }
  const float block_sum = threads == 32 ? warp_sums[0] : butterfly(warp_sums);
  for (int t = 0; t < threads; ++t) {
    float warp_max = -INFINITY;
    for (int i = 0; i < 32; ++i) warp_max = fmaxf(warp_max, in[t / 32 * 32 + i]);
    const float expected[5] = {warp_sums[t / 32], warp_max, block_sum, block_max, 2 * block_sum};
    for (int i = 0; i < 5; ++i)
      ptx::expect(out[5 * t + i] == expected[i], "%d threads: result %d of thread %d is %.9g, expected %.9g", threads,
                  i, t, out[5 * t + i], expected[i]);
  }
}

}  // namespace

int main() {
  for (const int threads : {32, 64, 96, 256, 1024}) check(threads);
  return ptx::summary();
}
