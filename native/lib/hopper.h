// Which GPUs know the instructions of mbarrier.h, tma.h and wgmma.h, what do the others do, and how large is the GPU?
//
// They are compiled for sm_90a alone: wgmma exists nowhere else. In the generic PTX of the same kernel they trap, so
// that one file serves every architecture; a launcher asks has_hopper first.
#pragma once

#include "lib/shared_address.h"
#if defined(GT_SIMT)
#include "simt/resident.h"
#endif

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define GT_HOPPER_ASM(...) asm volatile(__VA_ARGS__)
#elif defined(__CUDACC__)
#define GT_HOPPER_ASM(...) __trap()
#endif

namespace gt {

#if defined(__CUDACC__)

// Whether the current device runs the sm_90a code.
inline bool has_hopper() {
  int device = 0, major = 0;
  return cudaGetDevice(&device) == cudaSuccess &&
         cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) == cudaSuccess && major == 9;
}

// Of the current device: as many blocks of a persistent kernel run at once.
inline int num_multiprocessors() {
  int device = 0, count = 0;
  (void)cudaGetDevice(&device);
  (void)cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device);
  return count > 0 ? count : 1;
}

// Of a block on the current device, less 2 KiB for what a kernel has of fixed size.
inline int64_t max_dynamic_shared_bytes() {
  int device = 0, bytes = 0;
  (void)cudaGetDevice(&device);
  (void)cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  return bytes - 2048;
}

#else

inline bool has_hopper() { return true; }
inline int num_multiprocessors() { return simt::num_multiprocessors; }
inline int64_t max_dynamic_shared_bytes() { return simt::max_dynamic_bytes; }

#endif

}  // namespace gt
