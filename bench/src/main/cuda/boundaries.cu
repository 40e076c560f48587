// What does it cost a GPU to go from one phase of a decode step to the next? Prints nanoseconds, a line each: between
// nodes of a graph, between nodes that start early, the same where two kernels want different parts of an SM's memory
// as shared memory, once as the driver divides it and once with all of it asked for, and at a barrier of a grid that
// stays.
//
// A phase does nothing but what makes the next one wait: each block writes a word and reads one of another block.
#include <algorithm>
#include <cstdio>
#include <vector>

#include "lib/grid_dependency.h"
#include "lib/shared_carveout.h"

namespace {

constexpr int PHASES = 1000, THREADS = 256, WARM_UPS = 2, REPEATS = 15, VARIANTS = 5;
constexpr size_t LARGE = 72 << 10, SMALL = 8 << 10;  // of a block's shared memory: three, or more, fit on an SM

// Every SM has a block, whose word of phase p depends on the neighbour's of phase p - 1.
__device__ void phase(unsigned *words, int blocks, int p) {
  const int from = (p & 1) * blocks, to = blocks - from, next = (blockIdx.x + 1) % blocks;
  if (threadIdx.x == 0) words[to + blockIdx.x] = static_cast<volatile unsigned *>(words)[from + next] + 1;
}

// KERNEL: kernels of their own, as the driver sees it.
template <int KERNEL> __global__ void node(unsigned *words, int blocks, int p) {
  gt::grid_dependency_launch();
  gt::grid_dependency_wait();
  phase(words, blocks, p);
}

// All blocks run at once: one per SM, and nothing else on the GPU.
__global__ void stay(unsigned *words, unsigned *arrived, int blocks) {
  for (int p = 0; p < PHASES; ++p) {
    phase(words, blocks, p);
    __syncthreads();
    if (threadIdx.x == 0) {
      __threadfence();
      atomicAdd(arrived, 1);
      const unsigned all = static_cast<unsigned>(p + 1) * static_cast<unsigned>(blocks);
      while (*static_cast<volatile unsigned *>(arrived) < all) {
      }
      __threadfence();
    }
    __syncthreads();
  }
}

bool check(cudaError_t error, const char *what) {
  if (error != cudaSuccess) fprintf(stderr, "boundaries: %s: %s\n", what, cudaGetErrorString(error));
  return error == cudaSuccess;
}

// The median over REPEATS of what `run` takes on the stream, per phase, after WARM_UPS runs that are not counted.
template <class F> double nanos_per_phase(cudaStream_t stream, F run) {
  cudaEvent_t start, end;
  cudaEventCreate(&start);
  cudaEventCreate(&end);
  std::vector<float> millis;
  for (int i = -WARM_UPS; i < REPEATS; ++i) {
    float ms = 0;
    cudaEventRecord(start, stream);
    const bool is_fine = run();
    cudaEventRecord(end, stream);
    if (!is_fine || !check(cudaEventSynchronize(end), "running") || cudaEventElapsedTime(&ms, start, end)) return -1;
    if (i >= 0) millis.push_back(ms);
  }
  std::sort(millis.begin(), millis.end());
  return 1e6 * millis[millis.size() / 2] / PHASES;
}

// PHASES launches as one graph, timed; -1: it failed.
template <class F> double nanos_per_node(cudaStream_t stream, F launch_one) {
  cudaGraph_t graph;
  cudaGraphExec_t executable;
  if (!check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed), "capture")) return -1;
  int status = 0;
  for (int p = 0; p < PHASES && !status; ++p) status = launch_one(p);
  if (!check(cudaStreamEndCapture(stream, &graph), "capture") || status) return -1;
  if (!check(cudaGraphInstantiate(&executable, graph, 0), "a graph")) return -1;
  return nanos_per_phase(stream, [&] { return check(cudaGraphLaunch(executable, stream), "a graph"); });
}

// Whether every block saw its neighbour's word in every phase of all runs.
bool words_are_right(const unsigned *words, int blocks) {
  constexpr unsigned EXPECTED = VARIANTS * (WARM_UPS + REPEATS) * PHASES;
  std::vector<unsigned> found(blocks);
  if (!check(cudaMemcpy(found.data(), words, blocks * sizeof *words, cudaMemcpyDeviceToHost), "the words"))
    return false;
  for (int b = 0; b < blocks; ++b)
    if (found[b] != EXPECTED) {
      fprintf(stderr, "boundaries: word %d is %u, expected %u\n", b, found[b], EXPECTED);
      return false;
    }
  return true;
}

}  // namespace

int main() {
  int blocks = 0;
  unsigned *words = nullptr, *arrived = nullptr;
  cudaStream_t stream;
  if (!check(cudaDeviceGetAttribute(&blocks, cudaDevAttrMultiProcessorCount, 0), "a device") ||
      !check(cudaStreamCreate(&stream), "a stream") ||
      !check(cudaMalloc(&words, 2 * static_cast<size_t>(blocks) * sizeof *words), "memory") ||
      !check(cudaMalloc(&arrived, sizeof *arrived), "memory"))
    return 1;
  cudaMemset(words, 0, 2 * static_cast<size_t>(blocks) * sizeof *words);
  const double in_order = nanos_per_node(
      stream, [&](int p) { return gt::launch(node<0>, blocks, THREADS, 0, stream, words, blocks, p); });
  const double early = nanos_per_node(
      stream, [&](int p) { return gt::launch_dependent(node<0>, blocks, THREADS, 0, stream, words, blocks, p); });
  const auto in_turn = [&](int p) {
    return p % 2 ? gt::launch_dependent(node<1>, blocks, THREADS, SMALL, stream, words, blocks, p)
                 : gt::launch_dependent(node<2>, blocks, THREADS, LARGE, stream, words, blocks, p);
  };
  const double as_driver_likes = nanos_per_node(stream, in_turn);
  if (gt::prefer_shared_memory(node<1>, gt::SharedMemory::ALL) ||
      gt::prefer_shared_memory(node<2>, gt::SharedMemory::ALL))
    return 1;
  const double all_shared = nanos_per_node(stream, in_turn);
  const double barrier = nanos_per_phase(stream, [&] {
    return cudaMemsetAsync(arrived, 0, sizeof *arrived, stream) == cudaSuccess &&
           gt::launch(stay, blocks, THREADS, 0, stream, words, arrived, blocks) == 0;
  });
  if (std::min({in_order, early, as_driver_likes, all_shared, barrier}) < 0) return 1;
  if (!words_are_right(words, blocks)) return 1;
  printf("between nodes of a graph: %.0f ns\n", in_order);
  printf("between nodes that start early: %.0f ns\n", early);
  printf("the same with 72 and 8 KiB of shared memory in turn: %.0f ns\n", as_driver_likes);
  printf("the same with all of an SM's memory asked for as shared memory: %.0f ns\n", all_shared);
  printf("at a barrier of %d blocks that stay: %.0f ns\n", blocks, barrier);
  return 0;
}
