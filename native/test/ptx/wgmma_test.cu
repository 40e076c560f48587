// Does wgmma multiply what its descriptors describe, for every type, width and layout, in groups and by two warpgroups?
//
// Operands are eighths of small integers: every sum is exact in f32, whatever its order, so results must be equal.
#include "lib/vec.h"
#include "lib/wgmma.h"
#include "memory.h"

namespace {

using gt::Major;
using gt::WARPGROUP_THREADS;

constexpr int K = 64, MAX_N = 256;
template <class T> struct Tiles { T a[2 * 64 * K], b[MAX_N * K]; };

template <class T> __host__ __device__ T element(int row, int column) {
  return gt::from_float<T>(static_cast<float>((row * 13 + column * 7) % 17 - 8) / 8);
}

// Element (mn, k) of an operand: of one tile [mn][64 k], or of tiles [64 k][64 mn] side by side.
template <class T, Major MAJOR> __device__ int offset(int mn, int k) {
  return MAJOR == Major::K ? gt::tile_offset<T>(mn, k) : mn / 64 * 64 * K + gt::tile_offset<T>(k, mn % 64);
}
template <class T, Major MAJOR> __device__ void fill(T *tile, int rows, int salt) {
  for (int i = threadIdx.x; i < rows * K; i += blockDim.x) tile[offset<T, MAJOR>(i / K, i % K)] = element<T>(i / K + salt, i % K);
}
template <class T, Major MAJOR> __device__ uint64_t describe(const T *tile, int k) {
  return MAJOR == Major::K ? gt::wgmma_k_major(tile, k) : gt::wgmma_mn_major(tile, k, K);
}

// out[64 per warpgroup, N] = A B, or A B + A B: all K in one group, or one step per group with the waits one behind.
template <class T, int N, Major A, Major B> __global__ void __launch_bounds__(256, 1) product(bool twice, float *out) {
  GT_DYNAMIC_SMEM(Tiles<T>, tiles);
  fill<T, A>(tiles->a, 64 * (blockDim.x / WARPGROUP_THREADS), 0);
  fill<T, B>(tiles->b, N, 100);
  gt::fence_async();
  __syncthreads();
  const int group = threadIdx.x / WARPGROUP_THREADS, thread = threadIdx.x % WARPGROUP_THREADS;
  const T *const a = tiles->a + group * 64 * K;
  float d[N / 2];
#pragma unroll
  for (int i = 0; i < N / 2; ++i) d[i] = 12345;  // the first product must not add it
  gt::wgmma_fence(d);
#pragma unroll
  for (int k = 0; k < K; k += gt::WGMMA_K) gt::wgmma<T, N, A, B>(d, describe<T, A>(a, k), describe<T, B>(tiles->b, k), k > 0);
  gt::wgmma_commit();
  if (twice) {
    gt::wgmma_fence(d);  // the branch may have moved registers
#pragma unroll
    for (int k = 0; k < K; k += gt::WGMMA_K) {
      gt::wgmma<T, N, A, B>(d, describe<T, A>(a, k), describe<T, B>(tiles->b, k), true);
      gt::wgmma_commit();
    }
  }
  gt::wgmma_wait<0>(d);
#pragma unroll
  for (int i = 0; i < N / 2; ++i)
    out[(group * 64 + gt::wgmma_row(thread, i)) * N + gt::wgmma_column(thread, i)] = d[i];
}

// A part of A B in the second of two accumulators while the first, already over, is used.
__global__ void __launch_bounds__(128, 1) two_accumulators(float *out) {
  GT_DYNAMIC_SMEM(Tiles<gt::bf16>, tiles);
  fill<gt::bf16, Major::K>(tiles->a, 64, 0);
  fill<gt::bf16, Major::K>(tiles->b, 128, 100);
  gt::fence_async();
  __syncthreads();
  float d[2][32];
  gt::wgmma_fence(d);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
#pragma unroll
    for (int k = 0; k < K; k += gt::WGMMA_K)
      gt::wgmma<gt::bf16, 64>(d[half], gt::wgmma_k_major(tiles->a, k), gt::wgmma_k_major(tiles->b + half * 64 * K, k), k > 0);
    gt::wgmma_commit();
  }
  gt::wgmma_wait<1>(d[0]);
#pragma unroll
  for (int i = 0; i < 32; ++i) out[gt::wgmma_row(threadIdx.x, i) * 128 + gt::wgmma_column(threadIdx.x, i)] = d[0][i];
  gt::wgmma_wait<0>(d[1]);
#pragma unroll
  for (int i = 0; i < 32; ++i) out[gt::wgmma_row(threadIdx.x, i) * 128 + 64 + gt::wgmma_column(threadIdx.x, i)] = d[1][i];
}

// One warpgroup gives its registers to two others.
__global__ void __launch_bounds__(384, 1) registers(int *out) {
  if (threadIdx.x < WARPGROUP_THREADS) gt::decrease_registers<24>();
  else gt::increase_registers<240>();
  out[threadIdx.x] = threadIdx.x;
}

template <class T> void expect_product(const char *what, const ptx::Shared<float> &out, int rows, int n, float factor) {
  for (int row = 0; row < rows; ++row)
    for (int column = 0; column < n; ++column) {
      float sum = 0;
      for (int k = 0; k < K; ++k) sum += gt::to_float(element<T>(row, k)) * gt::to_float(element<T>(column + 100, k));
      const float actual = out[row * n + column];
      ptx::expect(actual == factor * sum, "%s: [%d, %d] is %g, expected %g", what, row, column, actual, factor * sum);
    }
}

template <class T, int N, Major A, Major B> void check(const char *type) {
  for (const int warpgroups : {1, 2})
    for (const bool twice : {false, true}) {
      const ptx::Shared<float> out(warpgroups * 64 * N);
      char what[80];
      snprintf(what, sizeof what, "%s, N = %d, A %s, B %s, %d warpgroups%s", type, N, A == Major::K ? "K" : "MN",
               B == Major::K ? "K" : "MN", warpgroups, twice ? ", twice" : "");
      if (ptx::run(what, product<T, N, A, B>, warpgroups * WARPGROUP_THREADS, sizeof(Tiles<T>), twice, out.data()))
        expect_product<T>(what, out, warpgroups * 64, N, twice ? 2 : 1);
    }
}
template <class T> void check_type(const char *type) {
  check<T, 64, Major::K, Major::K>(type);
  check<T, 64, Major::MN, Major::MN>(type);
  check<T, 128, Major::K, Major::MN>(type);
  check<T, 128, Major::MN, Major::K>(type);
  check<T, 256, Major::K, Major::K>(type);
  check<T, 256, Major::K, Major::MN>(type);
}

}  // namespace

int main() {
  if (!gt::has_hopper()) return printf("skipped: needs a Hopper GPU\n"), 0;
  check_type<gt::bf16>("bf16");
  check_type<gt::f16>("f16");
  const ptx::Shared<float> out(64 * 128);
  if (ptx::run("two accumulators", two_accumulators, 128, sizeof(Tiles<gt::bf16>), out.data()))
    expect_product<gt::bf16>("two accumulators", out, 64, 128, 1);
  const ptx::Shared<int> threads(384);
  if (ptx::run("registers", registers, 384, 0, threads.data()))
    for (int i = 0; i < 384; ++i) ptx::expect(threads[i] == i, "registers: thread %d wrote %d", i, threads[i]);
  return ptx::summary();
}
