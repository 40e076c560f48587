// Do TMA, mbarriers and wgmma work together, in every lane order, as in the kernel they were made for?
//
// C[M, N] = A[M, K] B[N, K]^T: one warp orders tiles into a ring of stages, two warpgroups multiply 64 rows each and
// store their part of C through shared memory. B may be given as [K, N]: the same product from MN-major tiles.
#include "harness.h"
#include "lib/barrier.h"
#include "lib/cuda.h"
#include "lib/tma.h"
#include "lib/vec.h"
#include "lib/wgmma.h"

#include <cmath>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

namespace {

using gt::Major;

constexpr int STAGES = 3, TILE_M = 128, TILE_N = 64, TILE_K = 64, CONSUMERS = 2 * gt::WARPGROUP_THREADS;
constexpr int C_COLUMNS = gt::TILE_COLUMNS<float>;  // of a tile of C; the block's part is two of them wide

template <class T> struct Stages {
  T a[STAGES][TILE_M * TILE_K], b[STAGES][TILE_N * TILE_K];
  float c[2][2][64 * C_COLUMNS];  // of each warpgroup
  gt::Mbarrier full[STAGES], empty[STAGES];
};

template <class T, Major B>
__global__ void __launch_bounds__(CONSUMERS + gt::WARPGROUP_THREADS, 1)
    gemm(const __grid_constant__ gt::TensorMap a, const __grid_constant__ gt::TensorMap b,
         const __grid_constant__ gt::TensorMap c, int k) {
  GT_DYNAMIC_SMEM(Stages<T>, s);
  const int thread = threadIdx.x, row = blockIdx.y * TILE_M, column = blockIdx.x * TILE_N;
  const int steps = (k + TILE_K - 1) / TILE_K;
  if (thread == 0) {
    for (int i = 0; i < STAGES; ++i) {
      gt::mbarrier_init(&s->full[i], 1);
      gt::mbarrier_init(&s->empty[i], CONSUMERS);
    }
    gt::mbarrier_fence_init();
  }
  __syncthreads();
  if (thread >= CONSUMERS) {
    gt::decrease_registers<24>();
    if (thread > CONSUMERS) return;
    for (int i = 0; i < steps; ++i) {
      const int stage = i % STAGES;
      gt::mbarrier_wait(&s->empty[stage], i / STAGES % 2 ^ 1);
      gt::mbarrier_arrive_expect_tx(&s->full[stage], sizeof s->a[stage] + sizeof s->b[stage]);
      gt::tma_load(s->a[stage], &a, &s->full[stage], i * TILE_K, row);
      if (B == Major::K) gt::tma_load(s->b[stage], &b, &s->full[stage], i * TILE_K, column);
      else gt::tma_load(s->b[stage], &b, &s->full[stage], column, i * TILE_K);
    }
    return;
  }
  gt::increase_registers<232>();
  const int group = thread / gt::WARPGROUP_THREADS, member = thread % gt::WARPGROUP_THREADS;
  float d[TILE_N / 2];
  for (int i = 0; i < steps; ++i) {
    const int stage = i % STAGES;
    gt::mbarrier_wait(&s->full[stage], i / STAGES % 2);
    gt::wgmma_fence(d);
#pragma unroll
    for (int kk = 0; kk < TILE_K; kk += gt::WGMMA_K) {
      const uint64_t left = gt::wgmma_k_major(s->a[stage] + group * 64 * TILE_K, kk);
      const uint64_t right =
          B == Major::K ? gt::wgmma_k_major(s->b[stage], kk) : gt::wgmma_mn_major(s->b[stage], kk, TILE_K);
      gt::wgmma<T, TILE_N, Major::K, B>(d, left, right, i + kk > 0);
    }
    gt::wgmma_commit();
    gt::wgmma_wait<0>(d);
    gt::mbarrier_arrive(&s->empty[stage]);
  }
#pragma unroll
  for (int i = 0; i < TILE_N / 2; ++i) {
    const int at = gt::wgmma_column(member, i);
    s->c[group][at / C_COLUMNS][gt::tile_offset<float>(gt::wgmma_row(member, i), at % C_COLUMNS)] = d[i];
  }
  gt::fence_async();
  gt::named_barrier_sync(1 + group, gt::WARPGROUP_THREADS);
  if (member == 0) {
    for (int half = 0; half < 2; ++half)
      gt::tma_store(&c, s->c[group][half], column + half * C_COLUMNS, row + group * 64);
    gt::tma_commit();
    gt::tma_store_wait<0>();
  }
}

// On the heap to the byte, rows at multiples of 16 bytes: ASan sees what reaches past them.
template <class T> struct Matrix {
  int rows, columns, stride;
  std::unique_ptr<T[]> data;
  Matrix(int rows_, int columns_)
      : rows(rows_), columns(columns_), stride((columns_ + 7) / 8 * 8), data(new T[rows * stride]) {
    memset(static_cast<void *>(data.get()), 0xff, rows * stride * sizeof(T));
  }
  T &at(int r, int c) { return data[r * stride + c]; }
  void fill(unsigned seed) {
    for (int r = 0; r < rows; ++r)
      for (int c = 0; c < columns; ++c)
        at(r, c) =
            gt::from_float<T>(static_cast<float>((seed + r * 31u + c * 17u) * 2654435761u >> 20) / 2048.0f - 1.0f);
  }
  gt::TensorMap map(int tile_rows) {
    gt::TensorMap map;
    GT_CHECK(gt::make_tensor_map(&map, data.get(), rows, columns, stride, tile_rows) == 0, "no tensor map");
    return map;
  }
};

template <class T, Major B> void check(const std::vector<std::string> &orders, int m, int n, int k) {
  Matrix<T> a(m, k), b(B == Major::K ? n : k, B == Major::K ? k : n);
  a.fill(1);
  b.fill(2);
  std::vector<float> first;
  for (const std::string &order : orders) {
    harness::use_order(order);
    Matrix<float> c(m, n);
    const dim3 grid((n + TILE_N - 1) / TILE_N, (m + TILE_M - 1) / TILE_M);
    const int status = gt::launch(gemm<T, B>, grid, CONSUMERS + gt::WARPGROUP_THREADS, sizeof(Stages<T>), nullptr,
                                  a.map(TILE_M), b.map(B == Major::K ? TILE_N : TILE_K), c.map(64), k);
    harness::expect_ok(status, order.c_str());
    const std::vector<float> bits(c.data.get(), c.data.get() + m * c.stride);
    if (!first.empty()) {
      GT_CHECK(!memcmp(bits.data(), first.data(), bits.size() * sizeof(float)), "%s: other bits", order.c_str());
      continue;
    }
    first = bits;
    for (int i = 0; i < m; ++i)
      for (int j = 0; j < n; ++j) {
        double sum = 0;
        for (int l = 0; l < k; ++l)
          sum += static_cast<double>(gt::to_float(a.at(i, l))) * gt::to_float(B == Major::K ? b.at(j, l) : b.at(l, j));
        GT_CHECK(std::fabs(c.at(i, j) - sum) < 1e-4, "%s: [%d, %d] is %g, expected %g", order.c_str(), i, j, c.at(i, j),
                 sum);
      }
    for (int i = 0; i < m; ++i)
      for (int j = n; j < c.stride; ++j)
        GT_CHECK(std::isnan(c.at(i, j)), "[%d, %d] was written, beyond %d columns", i, j, n);
  }
  harness::use_order("fwd");
}

GT_TEST(gemm_hopper_in_20_orders, ANY) {
  std::vector<std::string> orders = {"fwd", "rev"};
  for (int seed = 1; seed <= 20; ++seed) orders.push_back("rand:" + std::to_string(seed));
  check<gt::bf16, Major::K>(orders, 100, 72, 328);
}
GT_TEST(gemm_hopper_shapes, ANY) {
  check<gt::bf16, Major::MN>(harness::orders(), 100, 72, 200);
  check<gt::f16, Major::K>(harness::orders(), 1, 3, 64);
  check<gt::f16, Major::MN>(harness::orders(), 129, 64, 7);
}

}  // namespace
