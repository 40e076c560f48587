// Does launch give a kernel the dynamic shared memory that it asks for beside its own, at and around 48 KiB of both?
#include "lib/cuda.h"

#include "memory.h"

namespace {

constexpr int THREADS = 128, OWN = 4096;  // 16 KiB of ints

// Writes both parts from end to end, reads them back the other way round.
__global__ void fill_both(int count, int *out) {
  __shared__ int own[OWN];
  GT_DYNAMIC_SMEM(int, asked);
  for (int i = threadIdx.x; i < OWN; i += THREADS) own[i] = i;
  for (int i = threadIdx.x; i < count; i += THREADS) asked[i] = -i;
  __syncthreads();
  int wrong = 0;
  for (int i = threadIdx.x; i < OWN; i += THREADS) wrong += own[OWN - 1 - i] != OWN - 1 - i;
  for (int i = threadIdx.x; i < count; i += THREADS) wrong += asked[count - 1 - i] != i + 1 - count;
  out[threadIdx.x] = wrong;
}

}  // namespace

int main() {
  const ptx::Shared<int> wrong(THREADS);
  for (const int kib : {0, 1, 31, 32, 33, 40, 48, 49, 80, 33}) {
    char name[60];
    snprintf(name, sizeof name, "16 KiB of its own and %d KiB", kib);
    if (!ptx::run(name, fill_both, THREADS, static_cast<size_t>(kib) << 10, kib * 256, wrong.data())) continue;
    int sum = 0;
    for (int i = 0; i < THREADS; ++i) sum += wrong[i];
    ptx::expect(sum == 0, "%s: %d values differ", name, sum);
  }
  return ptx::summary();
}
