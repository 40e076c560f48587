// Does wgmma multiply what its descriptors describe, for every type, width and layout, in groups and by two warpgroups,
// and with A in registers?
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
  for (int i = threadIdx.x; i < rows * K; i += blockDim.x)
    tile[offset<T, MAJOR>(i / K, i % K)] = element<T>(i / K + salt, i % K);
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
  for (int k = 0; k < K; k += gt::WGMMA_K)
    gt::wgmma<T, N, A, B>(d, describe<T, A>(a, k), describe<T, B>(tiles->b, k), k > 0);
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
      gt::wgmma<gt::bf16, 64>(d[half], gt::wgmma_k_major(tiles->a, k), gt::wgmma_k_major(tiles->b + half * 64 * K, k),
                              k > 0);
    gt::wgmma_commit();
  }
  gt::wgmma_wait<1>(d[0]);
#pragma unroll
  for (int i = 0; i < 32; ++i) out[gt::wgmma_row(threadIdx.x, i) * 128 + gt::wgmma_column(threadIdx.x, i)] = d[0][i];
  gt::wgmma_wait_behind(d[0][0] * d[0][0], d[0][31] * d[0][31]);
  gt::wgmma_wait<0>(d[1]);
#pragma unroll
  for (int i = 0; i < 32; ++i)
    out[gt::wgmma_row(threadIdx.x, i) * 128 + 64 + gt::wgmma_column(threadIdx.x, i)] = d[1][i];
}

// As attention does it: rows of WIDTH columns lie in panels of 64 behind each other, of 64 rows for A, of N rows for B.
template <int COLUMNS> constexpr int PADDED = (COLUMNS + 63) / 64 * 64;
template <class T, int N, int WIDTH> struct Panels { T a[64 * PADDED<WIDTH>], b[N * PADDED<WIDTH>]; };
template <class T> __device__ void fill_panels(T *to, int rows, int columns, int salt) {
  for (int i = threadIdx.x; i < rows * columns; i += blockDim.x) {
    const int row = i / columns, column = i % columns;
    to[column / 64 * rows * 64 + gt::tile_offset<T>(row, column % 64)] = element<T>(row + salt, column);
  }
}

// out[64, N] = A B, both K-major, with all of WIDTH in one group.
template <class T, int N, int WIDTH> __global__ void __launch_bounds__(128, 1) scores(float *out) {
  using Memory = Panels<T, N, WIDTH>;
  GT_DYNAMIC_SMEM(Memory, tiles);
  fill_panels(tiles->a, 64, PADDED<WIDTH>, 0);
  fill_panels(tiles->b, N, PADDED<WIDTH>, 100);
  gt::fence_async();
  __syncthreads();
  const uint64_t a = gt::wgmma_k_major(tiles->a, 0), b = gt::wgmma_k_major(tiles->b, 0);
  float d[N / 2];
  gt::wgmma_fence(d);
#pragma unroll
  for (int k = 0; k < WIDTH; k += gt::WGMMA_K)
    gt::wgmma<T, N>(d, gt::wgmma_advance(a, k / 64 * 64 * 128 + k % 64 * 2),
                    gt::wgmma_advance(b, k / 64 * N * 128 + k % 64 * 2), k > 0);
  gt::wgmma_commit();
  gt::wgmma_wait<0>(d);
#pragma unroll
  for (int i = 0; i < N / 2; ++i) out[gt::wgmma_row(threadIdx.x, i) * N + gt::wgmma_column(threadIdx.x, i)] = d[i];
}

// out[64, N] = A B twice, with A [64, KEYS] in registers and B [KEYS, N], of which columns are neighbours, in panels of
// KEYS rows. The last panel may be half used.
template <class T, int N, int KEYS> __global__ void __launch_bounds__(128, 1) values(float *out) {
  GT_DYNAMIC_SMEM(T, tile);
  fill_panels(tile, KEYS, PADDED<N>, 100);
  gt::fence_async();
  __syncthreads();
  float source[KEYS / 2], d[N / 2];
  uint32_t a[KEYS / 16][4];
#pragma unroll
  for (int i = 0; i < KEYS / 2; ++i)
    source[i] = gt::to_float(element<T>(gt::wgmma_row(threadIdx.x, i), gt::wgmma_column(threadIdx.x, i)));
  gt::wgmma_pack<T>(a, source);
#pragma unroll
  for (int i = 0; i < N / 2; ++i) d[i] = 0.0f;
  const uint64_t b = gt::wgmma_mn_major(tile, 0, KEYS);
#pragma unroll 1
  for (int repeat = 0; repeat < 2; ++repeat) {
    gt::wgmma_fence(d, a);
#pragma unroll
    for (int k = 0; k < KEYS; k += gt::WGMMA_K)
      gt::wgmma<T, N, Major::MN>(d, a[k / 16], gt::wgmma_advance(b, k * 128), true);
    gt::wgmma_commit();
    gt::wgmma_wait<0>(d, a);
  }
#pragma unroll
  for (int i = 0; i < N / 2; ++i) out[gt::wgmma_row(threadIdx.x, i) * N + gt::wgmma_column(threadIdx.x, i)] = d[i];
}

// A in registers, B K-major.
template <class T> __global__ void __launch_bounds__(128, 1) registers_and_rows(float *out) {
  GT_DYNAMIC_SMEM(T, tile);
  fill_panels(tile, 64, 64, 100);
  gt::fence_async();
  __syncthreads();
  float source[32], d[32];
  uint32_t a[4][4];
#pragma unroll
  for (int i = 0; i < 32; ++i)
    source[i] = gt::to_float(element<T>(gt::wgmma_row(threadIdx.x, i), gt::wgmma_column(threadIdx.x, i)));
  gt::wgmma_pack<T>(a, source);
  gt::wgmma_fence(d, a);
#pragma unroll
  for (int k = 0; k < 64; k += gt::WGMMA_K) gt::wgmma<T, 64>(d, a[k / 16], gt::wgmma_k_major(tile, k), k > 0);
  gt::wgmma_commit();
  gt::wgmma_wait<0>(d, a);
#pragma unroll
  for (int i = 0; i < 32; ++i) out[gt::wgmma_row(threadIdx.x, i) * 64 + gt::wgmma_column(threadIdx.x, i)] = d[i];
}

// One warpgroup gives its registers to the others.
template <int THREADS, int PRODUCER, int CONSUMER>
__global__ void __launch_bounds__(THREADS, 1) registers(int *out) {
  if (threadIdx.x < WARPGROUP_THREADS) gt::decrease_registers<PRODUCER>();
  else gt::increase_registers<CONSUMER>();
  out[threadIdx.x] = threadIdx.x;
}
template <int THREADS, int PRODUCER, int CONSUMER> void check_registers() {
  const ptx::Shared<int> threads(THREADS);
  char what[80];
  snprintf(what, sizeof what, "%d threads, %d and %d registers", THREADS, PRODUCER, CONSUMER);
  if (ptx::run(what, registers<THREADS, PRODUCER, CONSUMER>, THREADS, 0, threads.data()))
    for (int i = 0; i < THREADS; ++i) ptx::expect(threads[i] == i, "%s: thread %d wrote %d", what, i, threads[i]);
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
template <class T, int N, int WIDTH> void check_scores(const char *type) {
  const ptx::Shared<float> out(64 * N);
  char what[80];
  snprintf(what, sizeof what, "%s scores, N = %d, K = %d", type, N, WIDTH);
  if (!ptx::run(what, scores<T, N, WIDTH>, 128, sizeof(Panels<T, N, WIDTH>), out.data())) return;
  for (int row = 0; row < 64; ++row)
    for (int column = 0; column < N; ++column) {
      float sum = 0;
      for (int k = 0; k < WIDTH; ++k)
        sum += gt::to_float(element<T>(row, k)) * gt::to_float(element<T>(column + 100, k));
      ptx::expect(out[row * N + column] == sum, "%s: [%d, %d] is %g, expected %g", what, row, column,
                  out[row * N + column], sum);
    }
}
template <class T, int N, int KEYS> void check_values(const char *type) {
  const ptx::Shared<float> out(64 * N);
  char what[80];
  snprintf(what, sizeof what, "%s values, N = %d, K = %d", type, N, KEYS);
  if (!ptx::run(what, values<T, N, KEYS>, 128, PADDED<N> * KEYS * sizeof(T), out.data())) return;
  for (int row = 0; row < 64; ++row)
    for (int column = 0; column < N; ++column) {
      float sum = 0;
      for (int k = 0; k < KEYS; ++k)
        sum += gt::to_float(element<T>(row, k)) * gt::to_float(element<T>(k + 100, column));
      ptx::expect(out[row * N + column] == 2 * sum, "%s: [%d, %d] is %g, expected %g", what, row, column,
                  out[row * N + column], 2 * sum);
    }
}

template <class T> void check_type(const char *type) {
  check<T, 64, Major::K, Major::K>(type);
  check<T, 64, Major::MN, Major::MN>(type);
  check<T, 128, Major::K, Major::MN>(type);
  check<T, 128, Major::MN, Major::K>(type);
  check<T, 256, Major::K, Major::K>(type);
  check<T, 256, Major::K, Major::MN>(type);
  check_scores<T, 128, 64>(type);
  check_scores<T, 128, 96>(type);
  check_scores<T, 128, 128>(type);
  check_scores<T, 80, 256>(type);
  check_values<T, 64, 64>(type);
  check_values<T, 96, 64>(type);
  check_values<T, 128, 64>(type);
  check_values<T, 64, 128>(type);
  check_values<T, 96, 128>(type);
  check_values<T, 128, 128>(type);
  check_values<T, 256, 80>(type);
  const ptx::Shared<float> out(64 * 64);
  if (ptx::run("A in registers, B K", registers_and_rows<T>, 128, 64 * 64 * sizeof(T), out.data()))
    expect_product<T>("A in registers, B K", out, 64, 64, 1);
}

}  // namespace

int main() {
  if (!gt::has_hopper()) return printf("skipped: needs a Hopper GPU\n"), 0;
  check_type<gt::bf16>("bf16");
  check_type<gt::f16>("f16");
  const ptx::Shared<float> out(64 * 128);
  if (ptx::run("two accumulators", two_accumulators, 128, sizeof(Tiles<gt::bf16>), out.data()))
    expect_product<gt::bf16>("two accumulators", out, 64, 128, 1);
  check_registers<384, 24, 240>();
  check_registers<384, 40, 232>();
  check_registers<512, 32, 160>();
  return ptx::summary();
}
