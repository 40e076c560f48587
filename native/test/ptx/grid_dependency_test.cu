// Does a kernel, in clusters too, start before the one in front of it has ended, see what those in front wrote, and
// does the emulator report those that do not wait?
#include <algorithm>

#include "lib/async_copy.h"
#include "lib/grid_dependency.h"
#include "lib/hopper.h"
#include "memory.h"

namespace {

constexpr int THREADS = 64, KERNELS = 12, LONG = 100000;  // cycles: those behind would be too early without their wait

__device__ void delay_cycles(int cycles) {
#if defined(__CUDACC__)
  const long long start = clock64();
  while (clock64() - start < cycles) {
  }
#else
  (void)cycles;
#endif
}

// values[i] = weight[i] * values[i ^ 1] + 1, from one half of the buffer to the other.
__global__ void step(const unsigned *weight, unsigned *values, int from, int delay) {
  const unsigned me = threadIdx.x, w = weight[me];
  gt::grid_dependency_launch();
  gt::grid_dependency_wait();
  delay_cycles(delay);
  values[(from ^ 1) * THREADS + me] = w * values[from * THREADS + (me ^ 1)] + 1;
}

// The same by a cluster of two blocks, each of which reads what the other one needs.
__global__ void step_in_cluster(const unsigned *weight, unsigned *values, int from, int delay) {
  constexpr unsigned HALF = THREADS / 2;
  __shared__ unsigned told[HALF];
  gt::cluster_arrive();
  const unsigned rank = gt::cluster_rank(), other = rank ^ 1, me = rank * HALF + threadIdx.x, w = weight[me];
  gt::grid_dependency_launch();
  gt::grid_dependency_wait();
  gt::cluster_wait();
  delay_cycles(delay);
  gt::cluster_store(&told[threadIdx.x], other, values[from * THREADS + other * HALF + (threadIdx.x ^ 1)]);
  gt::cluster_sync();
  values[(from ^ 1) * THREADS + me] = w * told[threadIdx.x] + 1;
}

// What a step leaves of what it finds.
void step_on_host(const ptx::Shared<unsigned> &weight, std::vector<unsigned> &values, int from) {
  for (int i = 0; i < THREADS; ++i)
    values[(from ^ 1) * THREADS + i] = weight[i] * values[from * THREADS + (i ^ 1)] + 1;
}

// KERNELS steps, the first and the last of them long.
int launch_steps(void *stream, const unsigned *weight, unsigned *values) {
  int status = 0;
  for (int k = 0; k < KERNELS && !status; ++k)
    status = gt::launch_dependent(step, 1, THREADS, 0, stream, weight, values, k % 2,
                                  k == 0 || k == KERNELS - 1 ? LONG : 0);
  return status;
}

// Every other one in clusters; the first and the second are long, and the last.
int launch_steps_in_clusters(void *stream, const unsigned *weight, unsigned *values) {
  int status = 0;
  for (int k = 0; k < KERNELS && !status; ++k) {
    const int delay = k < 2 || k == KERNELS - 1 ? LONG : 0;
    status = k % 2 == 0 ? gt::launch_dependent(step, 1, THREADS, 0, stream, weight, values, 0, delay)
                        : gt::launch_dependent_in_clusters(step_in_cluster, 2, 2, THREADS / 2, 0, stream, weight,
                                                           values, 1, delay);
  }
  return status;
}

// Long steps with nodes of other kinds between them: a memset of what the one in front reads and the next one writes, a
// copy of what the one in front writes and the next one writes again, and a launch as usual.
int launch_mixture(void *stream, const unsigned *weight, unsigned *values) {
  const auto early = [&](int from) {
    return gt::launch_dependent(step, 1, THREADS, 0, stream, weight, values, from, LONG);
  };
  const size_t bytes = THREADS * sizeof *values;
  int status = early(0);
#if defined(__CUDACC__)
  const auto on = static_cast<cudaStream_t>(stream);
  if (!status) status = cudaMemsetAsync(values, 0, bytes, on);
  if (!status) status = early(1);
  if (!status) status = cudaMemcpyAsync(values + THREADS, values, bytes, cudaMemcpyDeviceToDevice, on);
#else
  memset(values, 0, bytes);
  if (!status) status = early(1);
  memcpy(values + THREADS, values, bytes);
#endif
  if (!status) status = early(1);
  if (!status) status = gt::launch(step, 1, THREADS, 0, stream, weight, values, 0, LONG);
  return status ? status : early(1);
}

// launch_all(stream), on a GPU captured into a graph that is launched so many times.
template <class F> int run_captured(int times, F launch_all) {
#if defined(__CUDACC__)
  for (const ptx::Mirror &m : ptx::mirrors) cudaMemcpy(m.device, m.host, m.bytes, cudaMemcpyHostToDevice);
  cudaStream_t stream;
  cudaGraph_t graph;
  cudaGraphExec_t executable;
  if (cudaStreamCreate(&stream) || cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed)) return 1;
  const int status = launch_all(stream);
  if (status || cudaStreamEndCapture(stream, &graph) || cudaGraphInstantiate(&executable, graph, 0)) return 1;
  for (int i = 0; i < times; ++i)
    if (cudaGraphLaunch(executable, stream)) return 1;
  if (cudaStreamSynchronize(stream)) return 1;
  for (const ptx::Mirror &m : ptx::mirrors) cudaMemcpy(m.host, m.device, m.bytes, cudaMemcpyDeviceToHost);
  cudaGraphExecDestroy(executable);
  cudaGraphDestroy(graph);
  return cudaStreamDestroy(stream) != cudaSuccess;
#else
  int status = 0;
  for (int i = 0; i < times && !status; ++i) status = launch_all(nullptr);
  return status;
#endif
}

// launch(stream, weight, values) as a graph, launched twice, against the same on the host.
template <class Launch, class OnHost> void check_graph(const char *name, Launch launch, OnHost on_host) {
  constexpr int TIMES = 2;
  const ptx::Shared<unsigned> weight(THREADS), values(2 * THREADS);
  std::vector<unsigned> expected(2 * THREADS);
  for (unsigned i = 0; i < THREADS; ++i) {
    weight[i] = i % 3 + 1;
    values[i] = expected[i] = i;
    values[THREADS + i] = expected[THREADS + i] = 0;
  }
  for (int i = 0; i < TIMES; ++i) on_host(weight, expected);
  const int status = run_captured(TIMES, [&](auto stream) { return launch(stream, weight.data(), values.data()); });
  ptx::expect(status == 0, "%s: %s", name, gt::launch_error(status));
  for (int i = 0; i < 2 * THREADS && !status; ++i)
    ptx::expect(values[i] == expected[i], "%s: value %d is %u, expected %u", name, i, values[i], expected[i]);
}

void check_steps() {
  const auto steps_on_host = [](const auto &weight, auto &values) {
    for (int k = 0; k < KERNELS; ++k) step_on_host(weight, values, k % 2);
  };
  check_graph("steps", launch_steps, steps_on_host);
  if (gt::has_clusters()) check_graph("steps in clusters", launch_steps_in_clusters, steps_on_host);
  check_graph("a mixture", launch_mixture, [](const auto &weight, auto &values) {
    step_on_host(weight, values, 0);
    step_on_host(weight, values, 1);
    std::copy_n(values.begin(), THREADS, values.begin() + THREADS);
    for (const int from : {1, 0, 1}) step_on_host(weight, values, from);
  });
}

// Looks for some 100 ms whether the kernel behind this one has begun.
__global__ void look_for_next(const volatile int *has_begun, int *has_seen) {
  constexpr int MOST = 1 << 17;
  gt::grid_dependency_launch();
  gt::grid_dependency_wait();
  int seen = 0;
  for (int looks = 0; looks < MOST && !seen; ++looks) seen = *has_begun;
  *has_seen = seen;
}
__global__ void begin(volatile int *has_begun) {
  *has_begun = 1;
  gt::grid_dependency_wait();
}

void check_early_start() {
  const ptx::Shared<int> has_begun(1), has_seen(1);
  has_begun[0] = 0;
  const int status = run_captured(1, [&](auto stream) {
    const int first = gt::launch_dependent(look_for_next, 1, 1, 0, stream, has_begun.data(), has_seen.data());
    return first ? first : gt::launch_dependent(begin, 1, 1, 0, stream, has_begun.data());
  });
  // It need not, under a tool that has kernels run one by one for one: so what happened is said.
#if defined(GT_SIMT)
  constexpr bool may_start_early = false;
#else
  const bool may_start_early = gt::has_hopper() && gt::programmatic_launch_is_on();
#endif
  ptx::expect(status == 0 && (may_start_early || !has_seen[0]), "early start: status %d, seen %d", status, has_seen[0]);
  printf("a kernel of a graph %s before the one in front has ended\n", has_seen[0] ? "starts" : "does not start");
}

#if defined(GT_SIMT)
__global__ void nobody_waits(int *out) { out[threadIdx.x] = 1; }
__global__ void one_warp_waits(int *out) {
  if (threadIdx.x < 32) gt::grid_dependency_wait();
  __syncthreads();
  out[threadIdx.x] = 1;
}

#if defined(GT_SIMT_RACE)
__global__ void reads_early(const unsigned *values, int *out) {
  const int value = static_cast<int>(values[threadIdx.x]);
  gt::grid_dependency_wait();
  out[threadIdx.x] = value;
}
__global__ void copies_early(const unsigned *values, int *out) {
  GT_DYNAMIC_SMEM(int, copied);
  gt::async_copy_16(copied + 4 * threadIdx.x, values + 4 * (threadIdx.x % 16), 16);
  gt::async_copy_commit();
  gt::grid_dependency_wait();
  gt::async_copy_wait<0>();
  out[threadIdx.x] = copied[4 * threadIdx.x];
}
__global__ void writes_early(int *out) {
  out[threadIdx.x] = 1;
  gt::grid_dependency_wait();
}

void check_early_accesses() {
  const ptx::Shared<int> out(THREADS);
  const ptx::Shared<unsigned> weight(THREADS), values(2 * THREADS);
  simt::written_in_front = {{reinterpret_cast<const char *>(values.data()), 2 * THREADS * sizeof(unsigned)},
                            {reinterpret_cast<const char *>(out.data()), THREADS * sizeof(int)}};
  const auto expect_reported = [](const char *name, int status) {
    ptx::expect_reported(name, status, "grid_dependency_wait missing");
  };
  expect_reported("an early read", gt::launch_dependent(reads_early, 1, THREADS, 0, nullptr, values.data(),
                                                        out.data()));
  expect_reported("an early copy", gt::launch_dependent(copies_early, 1, THREADS, THREADS * 16, nullptr, values.data(),
                                                        out.data()));
  expect_reported("an early write", gt::launch_dependent(writes_early, 1, THREADS, 0, nullptr, out.data()));
  const int status = gt::launch_dependent(step, 1, THREADS, 0, nullptr, weight.data(), values.data(), 0, 0);
  ptx::expect(status == 0, "weights may be read early: %s", gt::launch_error(status));
  simt::written_in_front.clear();
}
#else
void check_early_accesses() {}
#endif

void check_reports() {
  const ptx::Shared<int> out(THREADS);
  const auto expect_reported = [&](const char *name, int status) {
    ptx::expect_reported(name, status, "without having waited");
  };
  expect_reported("nobody waits", gt::launch_dependent(nobody_waits, 1, THREADS, 0, nullptr, out.data()));
  expect_reported("one warp waits", gt::launch_dependent(one_warp_waits, 1, THREADS, 0, nullptr, out.data()));
  expect_reported("one warp waits, launched as usual", gt::launch(one_warp_waits, 1, THREADS, 0, nullptr, out.data()));
  ptx::run("an ordinary kernel", nobody_waits, THREADS, 0, out.data());
}
#else
void check_early_accesses() {}
void check_reports() {}
#endif

}  // namespace

int main() {
  check_steps();
  check_early_start();
  check_early_accesses();
  check_reports();
  return ptx::summary();
}
