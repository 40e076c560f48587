// Which block is the last of some to be done, so that it may put together what all have left in global memory?
//
// A counter in global memory, 0 at first and 0 again once the last block has come, counts blocks as they come. What a
// block stored before it came is visible to the last one. PTX ISA, "Memory Consistency Model", "atom".
#pragma once

#include "lib/cuda.h"

namespace gt {

// atomicInc that hands on what the block has written, and takes what others have: a fence on either side of a plain one
// would be sequentially consistent, which costs more.
__device__ __forceinline__ unsigned count_and_fence(unsigned *counter, unsigned last) {
#if defined(__CUDACC__)
  unsigned before;
  asm volatile("atom.acq_rel.gpu.global.inc.u32 %0, [%1], %2;"
               : "=r"(before) : "l"(__cvta_generic_to_global(counter)), "r"(last) : "memory");
  return before;
#else
  return atomicInc(counter, last);
#endif
}

// For all threads of each of `blocks` blocks, once.
__device__ __forceinline__ bool is_last_block(unsigned *counter, int blocks) {
  __shared__ bool is_last;
  __syncthreads();  // the block's stores come before its thread 0, which hands them on
  if (blocks == 1) return true;
  const unsigned last = static_cast<unsigned>(blocks - 1);
  if (threadIdx.x == 0) is_last = count_and_fence(counter, last) == last;
  __syncthreads();
  return is_last;
}

}  // namespace gt
