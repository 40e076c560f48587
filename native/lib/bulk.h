// How does one thread have floats moved from shared to global memory, or added to what lies there, without waiting?
//
// The copy engine takes `count` neighbours, a multiple of 4, at multiples of 16 bytes on both sides, from dynamic
// shared memory. Each thread that wrote them calls fence_async; after a barrier one thread:
//   bulk_store or bulk_add, tma_commit() (tma.h); bulk_read_wait<0>() before the shared memory is written again;
//   tma_store_wait<0>() before others are told of the result, and before the block ends
// Two additions to one place come in any order, unless the second is ordered after the first has been waited for
// (turn.h). PTX ISA, "cp.async.bulk" and "cp.reduce.async.bulk".
#pragma once

#include "lib/tma.h"

namespace gt {

#if defined(__CUDACC__)

__device__ __forceinline__ void bulk_store(float *to, const float *from, int count) {
  GT_HOPPER_ASM("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;"
                ::"l"(__cvta_generic_to_global(to)), "r"(shared_address(from)), "r"(count * 4) : "memory");
}
__device__ __forceinline__ void bulk_add(float *to, const float *from, int count) {
  GT_HOPPER_ASM("cp.reduce.async.bulk.global.shared::cta.bulk_group.add.f32 [%0], [%1], %2;"
                ::"l"(__cvta_generic_to_global(to)), "r"(shared_address(from)), "r"(count * 4) : "memory");
}

// Waits until all but the thread's last PENDING groups have been read from shared memory.
template <int PENDING> __device__ __forceinline__ void bulk_read_wait() {
  GT_HOPPER_ASM("cp.async.bulk.wait_group.read %0;" ::"n"(PENDING) : "memory");
}

// Orders what this thread has seen of global memory before what it orders the copy engine to do there.
__device__ __forceinline__ void fence_async_global() { GT_HOPPER_ASM("fence.proxy.async.global;" ::: "memory"); }

#else

inline void bulk_store(float *to, const float *from, int count, simt::Site site = GT_SIMT_HERE) {
  simt::copy_engine.bulk(to, from, count, false, site);
}
inline void bulk_add(float *to, const float *from, int count, simt::Site site = GT_SIMT_HERE) {
  simt::copy_engine.bulk(to, from, count, true, site);
}
template <int PENDING> void bulk_read_wait(simt::Site site = GT_SIMT_HERE) {
  simt::copy_engine.read_wait(PENDING, site);
}
inline void fence_async_global() { simt::copy_engine.fence_global(); }

#endif

}  // namespace gt
