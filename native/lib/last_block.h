// Which block is the last of some to be done, so that it may put together what all have left in global memory?
//
// A counter in global memory, 0 at first and 0 again once the last block has come, counts blocks as they come. What a
// block stored before it came is visible to the last one.
#pragma once

#include "lib/cuda.h"

namespace gt {

// For all threads of each of `blocks` blocks, once.
__device__ __forceinline__ bool is_last_block(unsigned *counter, int blocks) {
  __shared__ bool is_last;
  __syncthreads();  // the block's stores come before its thread 0, whose fence hands them on
  if (blocks == 1) return true;
  if (threadIdx.x == 0) {
    __threadfence();
    is_last = atomicInc(counter, static_cast<unsigned>(blocks - 1)) == static_cast<unsigned>(blocks - 1);
    __threadfence();
  }
  __syncthreads();
  return is_last;
}

}  // namespace gt
