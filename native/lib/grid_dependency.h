// How does a kernel begin before the one in front of it has ended?
//
// A graph of small kernels spends most of its time between them: the last block ends, the next kernel is started,
// asks for its weights, and waits for memory. A kernel that launch_dependent put into a graph starts when every block
// of the one in front has called grid_dependency_launch or returned; it asks for its weights, and then waits until
// that one has ended and what it wrote is visible. CUDA Programming Guide, "Programmatic Dependent Launch"; PTX ISA,
// "griddepcontrol"; sm_90.
//
// The rule: every thread of such a kernel calls grid_dependency_wait before it reads or writes anything but weights,
// that is what no kernel of the graph writes, and before it returns. Then a kernel ends after the one in front of it,
// which ended after all before it: a wait covers them all, and memory may be used again as if kernels ran one by one.
// The emulator reports a thread that returns without having waited, and in race builds one that reads or writes, before
// its wait, what a test has named (simt/graph_memory.h).
//
// When to call grid_dependency_launch: once the block has asked for its own first weights. From then on a kernel is
// bound by latency, and the next one's loads keep the memory busy. It takes no room from this kernel, whose blocks
// have all been started; a kernel of more blocks than run at once is there with its last ones.
#pragma once

#include <cstdlib>
#include <cstring>

#include "lib/cluster.h"
#include "lib/cuda.h"
#if defined(GT_SIMT)
#include "simt/grid_dependency.h"
#endif

namespace gt {

#if defined(__CUDACC__)

// Until the kernels in front have ended. In the PTX of sm_80, which launch_dependent does not launch early: nothing.
__device__ __forceinline__ void grid_dependency_wait() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// The next kernel may start once every block has said so. It says nothing of what this one has written.
__device__ __forceinline__ void grid_dependency_launch() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// GATUN_PROGRAMMATIC_LAUNCH=off: every kernel starts after the one in front of it. The runtime refuses what is neither
// on nor off when it opens a device.
inline bool programmatic_launch_is_on() {
  static const bool on = [] {
    const char *const text = getenv("GATUN_PROGRAMMATIC_LAUNCH");
    return !text || strcmp(text, "off") != 0;
  }();
  return on;
}

// Whether a launch on this stream becomes part of a graph, and the kernel's code for this device has the instructions.
inline bool starts_early(const void *kernel, void *stream) {
  if (!programmatic_launch_is_on()) return false;
  cudaStreamCaptureStatus capture = cudaStreamCaptureStatusNone;
  cudaFuncAttributes attributes = {};
  if (cudaStreamIsCapturing(static_cast<cudaStream_t>(stream), &capture) != cudaSuccess ||
      (capture == cudaStreamCaptureStatusActive && cudaFuncGetAttributes(&attributes, kernel) != cudaSuccess)) {
    (void)cudaGetLastError();  // the launch itself will say
    return false;
  }
  return capture == cudaStreamCaptureStatusActive && attributes.ptxVersion >= 90;
}

inline cudaLaunchAttribute early_attribute() {
  cudaLaunchAttribute attribute = {};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  return attribute;
}

// As launch(...), for a kernel that keeps to the rule above: in a graph it may start before the one in front has ended.
// Outside of a graph it is an ordinary launch, since there the kernel in front could be one that writes weights.
template <class... Params, class... Args>
int launch_dependent(void (*kernel)(Params...), dim3 grid, dim3 block, size_t smem_bytes, void *stream,
                     Args &&...args) {
  cudaLaunchAttribute attribute = early_attribute();
  const unsigned count = starts_early(reinterpret_cast<const void *>(kernel), stream) ? 1 : 0;
  return launch_with(&attribute, count, kernel, grid, block, smem_bytes, stream, std::forward<Args>(args)...);
}

// The same of blocks in clusters (lib/cluster.h).
template <class... Params, class... Args>
int launch_dependent_in_clusters(void (*kernel)(Params...), dim3 grid, unsigned cluster, dim3 block, size_t smem_bytes,
                                 void *stream, Args &&...args) {
  cudaLaunchAttribute attributes[2] = {cluster_attribute(cluster), early_attribute()};
  const unsigned count = starts_early(reinterpret_cast<const void *>(kernel), stream) ? 2 : 1;
  return launch_with(attributes, count, kernel, grid, block, smem_bytes, stream, std::forward<Args>(args)...);
}

#else

inline void grid_dependency_wait(simt::Site site = GT_SIMT_HERE) { simt::grid_dependency_wait(site); }
inline void grid_dependency_launch() {}

template <class... Params, class... Args>
int launch_dependent_in_clusters(void (*kernel)(Params...), dim3 grid, unsigned cluster, dim3 block, size_t smem_bytes,
                                 void *stream, Args &&...args) {
#if !defined(GT_SOFTGPU)
  simt::grid_dependencies.is_dependent = true;
#endif
  const int status = launch_in_clusters(kernel, grid, cluster, block, smem_bytes, stream, std::forward<Args>(args)...);
#if !defined(GT_SOFTGPU)
  simt::grid_dependencies.is_dependent = false;
#endif
  return status;
}

template <class... Params, class... Args>
int launch_dependent(void (*kernel)(Params...), dim3 grid, dim3 block, size_t smem_bytes, void *stream,
                     Args &&...args) {
  return launch_dependent_in_clusters(kernel, grid, 1, block, smem_bytes, stream, std::forward<Args>(args)...);
}

#endif

}  // namespace gt
