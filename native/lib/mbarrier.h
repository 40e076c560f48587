// How do threads and the copy engine tell each other that a buffer in shared memory is full, or free again?
//
// An mbarrier counts in phases. A phase is over when all its arrivals have come, and all bytes they announced have
// landed (tma.h); the next begins at once. Phases are told apart by parity, the first is 0:
//   one thread    mbarrier_init(&full, 1), mbarrier_fence_init(), then __syncthreads() for all
//   producer      mbarrier_arrive_expect_tx(&full, bytes), tma_load(..., &full, ...)
//   consumer      mbarrier_wait(&full, parity); parity ^= 1 when the same buffer comes round again
// What a thread did before its arrival is visible to those who have waited. A waiter for parity 1 of a new barrier goes
// on at once. At most 2^20 - 1 arrivals and as many bytes per phase. PTX ISA, "mbarrier".
#pragma once

#include "lib/hopper.h"
#if defined(GT_SIMT)
#include "simt/mbarrier.h"
#endif

namespace gt {

struct Mbarrier { uint64_t state; };  // in shared memory

#if defined(__CUDACC__)

__device__ __forceinline__ void mbarrier_init(Mbarrier *barrier, unsigned arrivals) {
  GT_HOPPER_ASM("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(arrivals) : "memory");
}

// Shows the barriers this thread has initialised to the copy engine.
__device__ __forceinline__ void mbarrier_fence_init() {
  GT_HOPPER_ASM("fence.mbarrier_init.release.cluster;" ::: "memory");
}

__device__ __forceinline__ void mbarrier_arrive(Mbarrier *barrier) {
  GT_HOPPER_ASM("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory");
}

// One arrival for the warp, behind what all its lanes have done.
__device__ __forceinline__ void mbarrier_arrive_warp(Mbarrier *barrier) {
  __syncwarp();
  if (threadIdx.x % 32 == 0) mbarrier_arrive(barrier);
}

// One arrival, which announces `bytes` for this phase.
__device__ __forceinline__ void mbarrier_arrive_expect_tx(Mbarrier *barrier, unsigned bytes) {
  GT_HOPPER_ASM("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes)
                : "memory");
}

__device__ __forceinline__ void mbarrier_wait(Mbarrier *barrier, unsigned parity) {
  unsigned is_over = 1;
  do {  // each try sleeps in hardware for a while
    GT_HOPPER_ASM(
        "{\n.reg .pred over;\n"
        "mbarrier.try_wait.parity.shared::cta.b64 over, [%1], %2;\n"
        "selp.u32 %0, 1, 0, over;\n}\n"
        : "=r"(is_over) : "r"(shared_address(barrier)), "r"(parity) : "memory");
  } while (!is_over);
}

#else

inline void mbarrier_init(Mbarrier *barrier, unsigned arrivals, simt::Site site = GT_SIMT_HERE) {
  simt::mbarrier_init(&barrier->state, arrivals, site);
}
inline void mbarrier_fence_init() { simt::mbarrier_fence_init(); }
inline void mbarrier_arrive(Mbarrier *barrier, simt::Site site = GT_SIMT_HERE) {
  simt::mbarrier_arrive(&barrier->state, site);
}
inline void mbarrier_arrive_warp(Mbarrier *barrier, simt::Site site = GT_SIMT_HERE) {
  __syncwarp(~0u, site);
  if (threadIdx.x % 32 == 0) mbarrier_arrive(barrier, site);
}
inline void mbarrier_arrive_expect_tx(Mbarrier *barrier, unsigned bytes, simt::Site site = GT_SIMT_HERE) {
  simt::mbarrier_arrive_expect_tx(&barrier->state, bytes, site);
}
inline void mbarrier_wait(Mbarrier *barrier, unsigned parity, simt::Site site = GT_SIMT_HERE) {
  simt::mbarrier_wait(&barrier->state, parity, site);
}

#endif

}  // namespace gt
