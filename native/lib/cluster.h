// How do blocks that run side by side share a row that is too wide for one of them?
//
// A cluster is up to MAX_CLUSTER neighbouring blocks of a grid that start together on neighbouring SMs. Each can store
// to the others' shared memory, and load from there, without a way through L2; all their threads meet at one barrier.
// CUDA Programming Guide, "Thread Block Clusters", "Distributed Shared Memory"; PTX ISA, "barrier.cluster", "mapa";
// sm_90. Compiled for less, a kernel finds itself alone in its cluster, as it does after an ordinary launch.
//
// The rules: every thread of every block of a cluster makes the same barriers, each an arrive and a wait. The first
// remote access comes behind one, since before it the other block may not have begun: arrive at the kernel's start,
// wait when there is something to say. What a thread does between the two is ordered by __syncthreads alone, also for
// its own block. What a store has written is seen behind the next barrier; so is that a place may be written again. A
// block returns behind a barrier that follows the last access to it. The emulator reports most of what breaks them
// (simt/cluster.h).
#pragma once

#include <type_traits>

#include "lib/hopper.h"
#include "lib/shared_address.h"
#if defined(GT_SIMT)
#include "simt/cluster.h"
#include "simt/resident.h"
#endif

namespace gt {

constexpr unsigned MAX_CLUSTER = 8;  // blocks: what every GPU with clusters runs

#if defined(__CUDACC__)

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
#define GT_CLUSTER(with_clusters, alone) alone
#else
#define GT_CLUSTER(with_clusters, alone) with_clusters
#endif

// Which block of its cluster this is, and of how many.
__device__ __forceinline__ unsigned cluster_rank() {
  unsigned rank = 0;
  GT_CLUSTER(asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank)), );
  return rank;
}
__device__ __forceinline__ unsigned cluster_size() {
  unsigned size = 1;
  GT_CLUSTER(asm("mov.u32 %0, %%cluster_nctarank;" : "=r"(size)), );
  return size;
}

__device__ __forceinline__ void cluster_arrive() {
  GT_CLUSTER(asm volatile("barrier.cluster.arrive.release;" ::: "memory"), );
}
__device__ __forceinline__ void cluster_wait() {
  GT_CLUSTER(asm volatile("barrier.cluster.wait.acquire;" ::: "memory"), __syncthreads());
}

// The address of `own` in the shared memory of block `rank`.
__device__ __forceinline__ uint32_t cluster_address(const void *own, unsigned rank) {
  uint32_t address = shared_address(own);
  GT_CLUSTER(asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(address) : "r"(shared_address(own)), "r"(rank)), );
  return address;
}

// *own of block `rank` = value, 4 or 8 bytes.
template <class T> __device__ __forceinline__ void cluster_store(T *own, unsigned rank, T value) {
  static_assert(std::is_trivially_copyable_v<T> && (sizeof(T) == 4 || sizeof(T) == 8));
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
  *own = value;
#else
  const uint32_t address = cluster_address(own, rank);
  if constexpr (sizeof(T) == 4) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    asm volatile("st.shared::cluster.b32 [%0], %1;" ::"r"(address), "r"(bits) : "memory");
  } else {
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    asm volatile("st.shared::cluster.b64 [%0], %1;" ::"r"(address), "l"(bits) : "memory");
  }
#endif
}

// *own of block `rank`, 4 or 8 bytes.
template <class T> __device__ __forceinline__ T cluster_load(const T *own, unsigned rank) {
  static_assert(std::is_trivially_copyable_v<T> && (sizeof(T) == 4 || sizeof(T) == 8));
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
  return *own;
#else
  const uint32_t address = cluster_address(own, rank);
  T value;
  if constexpr (sizeof(T) == 4) {
    uint32_t bits;
    asm volatile("ld.shared::cluster.b32 %0, [%1];" : "=r"(bits) : "r"(address) : "memory");
    memcpy(&value, &bits, sizeof bits);
  } else {
    uint64_t bits;
    asm volatile("ld.shared::cluster.b64 %0, [%1];" : "=l"(bits) : "r"(address) : "memory");
    memcpy(&value, &bits, sizeof bits);
  }
  return value;
#endif
}

#undef GT_CLUSTER

// Whether the current device runs clusters, and the kernels' code for it has them.
inline bool has_clusters() { return has_hopper(); }

inline cudaLaunchAttribute cluster_attribute(unsigned cluster) {
  cudaLaunchAttribute attribute = {};
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim.x = cluster;
  attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
  return attribute;
}

// launch(...) of blocks in clusters of neighbours along x, of which there must be a multiple. Compute capability 9.0.
template <class... Params, class... Args>
int launch_in_clusters(void (*kernel)(Params...), dim3 grid, unsigned cluster, dim3 block, size_t smem_bytes,
                       void *stream, Args &&...args) {
  cudaLaunchAttribute attribute = cluster_attribute(cluster);
  return launch_with(&attribute, 1, kernel, grid, block, smem_bytes, stream, std::forward<Args>(args)...);
}

// How many clusters of such blocks run at once; 0 where not one does. A cluster lies within a group of 16 or 18 SMs, so
// that some SMs may be left over. Asks the driver: a few microseconds.
template <class... Params>
int max_active_clusters(void (*kernel)(Params...), unsigned cluster, unsigned threads, size_t smem_bytes) {
  cudaLaunchAttribute attribute = cluster_attribute(cluster);
  cudaLaunchConfig_t config = {};
  config.gridDim = cluster;
  config.blockDim = threads;
  config.dynamicSmemBytes = smem_bytes;
  config.attrs = &attribute;
  config.numAttrs = 1;
  int count = 0;
  if (consent_to_shared(reinterpret_cast<const void *>(kernel), smem_bytes) ||
      cudaOccupancyMaxActiveClusters(&count, kernel, &config)) {
    (void)cudaGetLastError();
    return 0;
  }
  return count;
}

#else

inline unsigned cluster_rank() { return simt::current->rank; }
inline unsigned cluster_size() { return simt::current->num_in_cluster; }
inline void cluster_arrive(simt::Site site = GT_SIMT_HERE) { simt::cluster_arrive(site); }
inline void cluster_wait(simt::Site site = GT_SIMT_HERE) { simt::cluster_wait(site); }

template <class T> void cluster_store(T *own, unsigned rank, T value, simt::Site site = GT_SIMT_HERE) {
  static_assert(std::is_trivially_copyable_v<T> && (sizeof(T) == 4 || sizeof(T) == 8));
  simt::cluster_store(own, rank, &value, sizeof value, site);
}
template <class T> T cluster_load(const T *own, unsigned rank, simt::Site site = GT_SIMT_HERE) {
  static_assert(std::is_trivially_copyable_v<T> && (sizeof(T) == 4 || sizeof(T) == 8));
  T value;
  simt::cluster_load(&value, own, rank, sizeof value, site);
  return value;
}

template <class... Params, class... Args>
int launch_in_clusters(void (*kernel)(Params...), dim3 grid, unsigned cluster, dim3 block, size_t smem_bytes,
                       void *stream, Args &&...args) {
  return simt::launch(kernel, {grid, block, smem_bytes, cluster}, stream, std::forward<Args>(args)...);
}

inline bool has_clusters() { return simt::resident_clusters > 0; }
template <class... Params> int max_active_clusters(void (*)(Params...), unsigned, unsigned, size_t) {
  return simt::resident_clusters;
}

#endif

// Every thread of the cluster has come here, and what they have written so far is seen.
#if defined(__CUDACC__)
__device__ __forceinline__ void cluster_sync() {
  cluster_arrive();
  cluster_wait();
}
#else
inline void cluster_sync(simt::Site site = GT_SIMT_HERE) {
  simt::cluster_arrive(site);
  simt::cluster_wait(site);
}
#endif

}  // namespace gt
