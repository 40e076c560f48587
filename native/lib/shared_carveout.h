// How does a kernel ask for more of an SM's memory as shared memory, where it wants several blocks there?
//
// L1 cache and shared memory are one memory, which the driver divides by a rule of its own. A kernel that streams past
// L1 wants all of it for its blocks. It is a wish, not a command; and an SM whose kernels want different divisions has
// to end the one before it begins the other, so a small kernel among others should not ask. The wish stays with the
// kernel: who asks for some launches asks anew before each. CUDA Programming Guide, "Shared Memory Capacity per
// Multiprocessor"; CUDA Runtime API, "cudaFuncSetAttribute".
#pragma once

#include "lib/cuda.h"

namespace gt {

enum class SharedMemory { AS_DRIVER_LIKES, ALL };

// For the kernel's launches until the next call. Returns a cudaError_t, 0 = OK. Costs a call on the host.
template <class... Params> int prefer_shared_memory(void (*kernel)(Params...), SharedMemory wish) {
#if defined(__CUDACC__)
  return static_cast<int>(cudaFuncSetAttribute(reinterpret_cast<const void *>(kernel),
                                               cudaFuncAttributePreferredSharedMemoryCarveout,
                                               wish == SharedMemory::ALL
                                                   ? static_cast<int>(cudaSharedmemCarveoutMaxShared)
                                                   : static_cast<int>(cudaSharedmemCarveoutDefault)));
#else
  (void)kernel, (void)wish;
  return 0;
#endif
}

}  // namespace gt
