// Does the copy engine store and add floats, and read shared memory before bulk_read_wait returns?
#include "lib/bulk.h"
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

}  // namespace

int main() {
  if (!gt::has_hopper()) return printf("skipped: needs a Hopper GPU\n"), 0;
  check(4, 0);
  check(4, 1);
  check(1024, 0);
  check(1000, 5);
  return ptx::summary();
}
