// What is the address of something in shared memory, as PTX instructions take it?
//
// 32 bits, counted from the start of the block's shared memory. Under the emulator: of the dynamic one.
#pragma once

#include "lib/cuda.h"
#if defined(GT_SIMT)
#include "simt/shared_address.h"
#endif

namespace gt {

#if defined(__CUDACC__)
__device__ __forceinline__ uint32_t shared_address(const void *p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}
#else
inline uint32_t shared_address(const void *p) { return simt::shared_address(p); }
#endif

}  // namespace gt
