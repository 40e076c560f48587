// How do some of a block's warps wait for each other without stopping the rest?
//
// A producer and its consumers meet at one of the barriers 1 to 15 (0 is __syncthreads): `threads` of the block, a
// multiple of 32, whole warps. sync waits for the others; arrive is counted and goes on. Memory written before either
// is visible after the sync. PTX ISA, "bar{.cta}".
#pragma once

#include "lib/cuda.h"

namespace gt {

#if defined(__CUDACC__)

__device__ __forceinline__ void named_barrier_sync(int number, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(number), "r"(threads) : "memory");
}
__device__ __forceinline__ void named_barrier_arrive(int number, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(number), "r"(threads) : "memory");
}

#else

inline void named_barrier_sync(int number, int threads, simt::Site site = GT_SIMT_HERE) {
  simt::named_barrier(static_cast<unsigned>(number), static_cast<unsigned>(threads), true, site);
}
inline void named_barrier_arrive(int number, int threads, simt::Site site = GT_SIMT_HERE) {
  simt::named_barrier(static_cast<unsigned>(number), static_cast<unsigned>(threads), false, site);
}

#endif

}  // namespace gt
