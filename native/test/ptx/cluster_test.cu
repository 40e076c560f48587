// Do blocks of a cluster reach each other's shared memory, static and dynamic, and wait for each other?
#include "lib/async_copy.h"
#include "lib/cluster.h"
#include "lib/hopper.h"
#include "memory.h"

namespace {

using gt::MAX_CLUSTER;

constexpr int THREADS = 64, ROUNDS = 5;
constexpr unsigned ORDINARY = 0;  // a launch without clusters, in which every block is one by itself

unsigned size_of(unsigned cluster) { return cluster == ORDINARY ? 1 : cluster; }

template <class... Params, class... Args>
int run(void (*kernel)(Params...), unsigned blocks, unsigned cluster, size_t smem_bytes, Args... args) {
  const auto launch = [&] {
    return cluster == ORDINARY
               ? gt::launch(kernel, blocks, THREADS, smem_bytes, nullptr, args...)
               : gt::launch_in_clusters(kernel, blocks, cluster, THREADS, smem_bytes, nullptr, args...);
  };
#if defined(__CUDACC__)
  for (const ptx::Mirror &m : ptx::mirrors) cudaMemcpy(m.device, m.host, m.bytes, cudaMemcpyHostToDevice);
  int status = launch();
  if (!status) status = static_cast<int>(cudaDeviceSynchronize());
  for (const ptx::Mirror &m : ptx::mirrors) cudaMemcpy(m.host, m.device, m.bytes, cudaMemcpyDeviceToHost);
  return status;
#else
  return launch();
#endif
}

__global__ void ranks(unsigned *out) {
  if (threadIdx.x == 0) out[blockIdx.x] = 100 * gt::cluster_size() + gt::cluster_rank();
}

void check_ranks(unsigned blocks, unsigned cluster) {
  const ptx::Shared<unsigned> out(blocks);
  const int status = run(ranks, blocks, cluster, 0, out.data());
  ptx::expect(status == 0, "ranks: %s", gt::launch_error(status));
  for (unsigned b = 0; b < blocks && !status; ++b)
    ptx::expect(out[b] == 100 * size_of(cluster) + b % size_of(cluster), "block %u in clusters of %u: %u", b, cluster,
                out[b]);
}

// Each round every block tells all others a number, in two places in turns; each adds what it was told, in order.
__global__ void exchange(unsigned long long *sums) {
  __shared__ unsigned long long told[2][MAX_CLUSTER];
  GT_DYNAMIC_SMEM(unsigned, told_dynamic);  // likewise [2][MAX_CLUSTER]
  const unsigned rank = gt::cluster_rank(), size = gt::cluster_size();
  unsigned long long sum = blockIdx.x + 1;
  gt::cluster_arrive();
  gt::cluster_wait();
  for (int round = 0; round < ROUNDS; ++round) {
    if (threadIdx.x < size) {
      gt::cluster_store(&told[round % 2][rank], threadIdx.x, sum);
      gt::cluster_store(&told_dynamic[round % 2 * MAX_CLUSTER + rank], threadIdx.x, static_cast<unsigned>(sum));
    }
    gt::cluster_sync();
    for (unsigned r = 0; r < size; ++r)
      sum = sum * 3 + told[round % 2][r] + told_dynamic[round % 2 * MAX_CLUSTER + r] % 1000;
  }
  if (threadIdx.x == 40) sums[blockIdx.x] = sum;
}

void check_exchange(unsigned blocks, unsigned cluster) {
  const unsigned size = size_of(cluster);
  const ptx::Shared<unsigned long long> sums(blocks);
  std::vector<unsigned long long> expected(blocks);
  for (unsigned b = 0; b < blocks; ++b) expected[b] = b + 1;
  for (int round = 0; round < ROUNDS; ++round) {
    const std::vector<unsigned long long> told = expected;
    for (unsigned b = 0; b < blocks; ++b)
      for (unsigned r = 0; r < size; ++r) {
        const unsigned long long number = told[b / size * size + r];
        expected[b] = expected[b] * 3 + number + static_cast<unsigned>(number) % 1000;
      }
  }
  const int status = run(exchange, blocks, cluster, 2 * MAX_CLUSTER * sizeof(unsigned), sums.data());
  ptx::expect(status == 0, "exchange: %s", gt::launch_error(status));
  for (unsigned b = 0; b < blocks && !status; ++b)
    ptx::expect(sums[b] == expected[b], "block %u in clusters of %u: %llu, expected %llu", b, cluster, sums[b],
                expected[b]);
}

// out = in, each block's part from the next block, by loads; copies are under way across a barrier of the cluster.
__global__ void shift(float *out, const float *in) {
  GT_DYNAMIC_SMEM(float, part);
  __shared__ float first;
  const unsigned next = (gt::cluster_rank() + 1) % gt::cluster_size();
  gt::async_copy_16(part + 4 * threadIdx.x, in + 4 * (blockIdx.x * THREADS + threadIdx.x), 16);
  gt::async_copy_commit();
  gt::cluster_sync();
  gt::async_copy_wait<0>();
  if (threadIdx.x == 0) first = part[0];
  gt::cluster_sync();
  for (int i = 0; i < 4; ++i)
    out[4 * (blockIdx.x * THREADS + threadIdx.x) + i] = gt::cluster_load(part + 4 * threadIdx.x + i, next);
  if (threadIdx.x == 0) out[4 * blockIdx.x * THREADS] += gt::cluster_load(&first, next);
  gt::cluster_sync();
}

void check_shift(unsigned blocks, unsigned cluster) {
  const int n = static_cast<int>(blocks) * 4 * THREADS, part = 4 * THREADS;
  const ptx::Shared<float> in(n), out(n);
  for (int i = 0; i < n; ++i) in[i] = static_cast<float>(i + 1);
  const int status = run(shift, blocks, cluster, part * sizeof(float), out.data(), in.data());
  ptx::expect(status == 0, "shift: %s", gt::launch_error(status));
  const int width = static_cast<int>(size_of(cluster));
  for (int i = 0; i < n && !status; ++i) {
    const int block = i / part, next = block / width * width + (block + 1) % width;
    const float expected = in[next * part + i % part] * (i % part == 0 ? 2.0f : 1.0f);
    ptx::expect(out[i] == expected, "clusters of %u: element %d is %g, expected %g", cluster, i, out[i], expected);
  }
}

#if defined(GT_SIMT)
__global__ void without_first_barrier() {
  __shared__ int told;
  gt::cluster_store(&told, 0, 1);
  gt::cluster_sync();
}
__global__ void without_last_barrier(int *out) {
  __shared__ int told;
  gt::cluster_sync();
  if (gt::cluster_rank() == 1) out[threadIdx.x] = gt::cluster_load(&told, 0);
}
__global__ void within_barrier() {
  __shared__ int told;
  gt::cluster_sync();
  gt::cluster_arrive();
  if (threadIdx.x == 0) gt::cluster_store(&told, 1, 1);
  gt::cluster_wait();
}
__global__ void beyond_cluster() {
  __shared__ int told;
  gt::cluster_sync();
  if (threadIdx.x == 0) gt::cluster_store(&told, gt::cluster_size(), 1);
  gt::cluster_sync();
}
__global__ void without_wait() { gt::cluster_arrive(); }
__global__ void one_waits_elsewhere() {
  if (threadIdx.x == 3) __syncthreads();
  gt::cluster_sync();
}
#if defined(GT_SIMT_RACE)
__global__ void early_read(int *out) {
  __shared__ int told[MAX_CLUSTER];
  gt::cluster_sync();
  if (threadIdx.x < gt::cluster_size()) gt::cluster_store(&told[gt::cluster_rank()], threadIdx.x, 1);
  out[threadIdx.x] = told[0];
  gt::cluster_sync();
}
__global__ void one_place_for_all(int *out) {
  __shared__ int told[MAX_CLUSTER];
  const unsigned rank = gt::cluster_rank();
  gt::cluster_sync();
  for (int round = 0; round < 2; ++round) {
    if (threadIdx.x < gt::cluster_size()) gt::cluster_store(&told[rank], threadIdx.x, round);
    gt::cluster_sync();
    out[threadIdx.x] = told[rank ^ 1];
  }
}
__global__ void read_behind_arrive(int *out) {
  __shared__ int told;
  gt::cluster_sync();
  gt::cluster_arrive();
  out[threadIdx.x] = told;
  gt::cluster_wait();
  if (threadIdx.x == 0) gt::cluster_store(&told, gt::cluster_rank() ^ 1, 1);
  gt::cluster_sync();
}
__global__ void read_behind_wait(int *out) {
  __shared__ int told[THREADS];
  gt::cluster_arrive();
  told[threadIdx.x] = threadIdx.x;
  gt::cluster_wait();
  out[threadIdx.x] = told[threadIdx.x ^ 33];
}
__global__ void read_behind_barrier(int *out) {
  __shared__ int told[2][THREADS];
  told[0][threadIdx.x] = threadIdx.x;
  gt::cluster_arrive();
  told[1][threadIdx.x] = threadIdx.x;
  gt::cluster_wait();
  const int mine = told[1][threadIdx.x], other = told[0][threadIdx.x ^ 33];
  __syncthreads();
  out[threadIdx.x] = mine + other + told[1][threadIdx.x ^ 33];
}
#endif

void check_reports() {
  const ptx::Shared<int> out(THREADS);
  using ptx::expect_reported;
  expect_reported("without a first barrier", run(without_first_barrier, 4, 2, 0), "no barrier of the cluster before");
  expect_reported("without a last barrier", run(without_last_barrier, 4, 2, 0, out.data()), "returned");
  expect_reported("within a barrier", run(within_barrier, 4, 2, 0), "between cluster_arrive and cluster_wait");
  expect_reported("beyond the cluster", run(beyond_cluster, 4, 2, 0), "block 2 of a cluster of 2");
  expect_reported("without a wait", run(without_wait, 4, 2, 0), "returns between cluster_arrive and cluster_wait");
  expect_reported("one waits elsewhere", run(one_waits_elsewhere, 4, 2, 0), "deadlock");
  expect_reported("a grid of no whole clusters", run(without_wait, 5, 2, 0), "multiple");
#if defined(GT_SIMT_RACE)
  expect_reported("an early read", run(early_read, 4, 2, 0, out.data()), "shared memory race");
  expect_reported("one place for all", run(one_place_for_all, 4, 2, 0, out.data()), "shared memory race");
  expect_reported("a read behind arriving", run(read_behind_arrive, 4, 2, 0, out.data()), "shared memory race");
  expect_reported("a read behind the wait", run(read_behind_wait, 4, 2, 0, out.data()), "shared memory race");
  const int status = run(read_behind_barrier, 4, 2, 0, out.data());
  ptx::expect(status == 0, "a read behind a barrier: %s", gt::launch_error(status));
#endif
}
#else
void check_reports() {}
#endif

}  // namespace

int main() {
  if (!gt::has_hopper()) {
    printf("no clusters on this GPU\n");
    return 0;
  }
  for (const unsigned cluster : {ORDINARY, 1u, 2u, 3u, 4u, MAX_CLUSTER}) {
    check_ranks(6 * size_of(cluster), cluster);
    check_exchange(3 * size_of(cluster), cluster);
    check_shift(2 * size_of(cluster), cluster);
  }
  ptx::expect(gt::max_active_clusters(exchange, 4, THREADS, 1024) > 0, "no cluster of 4 runs");
  check_reports();
  return ptx::summary();
}
