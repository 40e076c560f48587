// How do blocks do something in a fixed order, one after another?
//
// A counter in global memory, 0 at first, says whose turn it is: block n calls turn_wait(counter, n), and when it is
// done turn_pass(counter); one thread for its block. What came before a turn_pass is visible after the turn_wait that
// follows it. A block may only wait for blocks that have begun: n comes from a ticket that blocks draw as they begin,
// never from blockIdx, since later ones may come first and fill the GPU. A turn_wait that has looked 2^23 times, which
// takes seconds, traps: the process loses the device, where it would wait for ever. PTX ISA, "Memory Consistency
// Model".
#pragma once

#include "lib/cuda.h"
#if defined(GT_SIMT)
#include "simt/tma.h"
#endif

namespace gt {

#if defined(__CUDACC__)

__device__ __forceinline__ void turn_wait(const unsigned *counter, unsigned turn) {
  constexpr unsigned MOST = 1u << 23;  // looks, each of some hundred ns
  unsigned now = 0;
  for (unsigned looks = 0; looks < MOST; ++looks) {
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(now) : "l"(__cvta_generic_to_global(counter)) : "memory");
    if (now == turn) return;
  }
  __trap();
}

__device__ __forceinline__ void turn_pass(unsigned *counter) {
  asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(__cvta_generic_to_global(counter)) : "memory");
}

#else

// Blocks run one after another: a turn that has not come never does.
inline void turn_wait(const unsigned *counter, unsigned turn, simt::Site site = GT_SIMT_HERE) {
  simt::begin_call("turn_wait", site);
  if (*counter != turn)
    simt::fail("turn %u waits for ever, it is turn %u's: %s", turn, *counter,
               simt::describe(*simt::current->running).text);
  simt::copy_engine.turn_came();
}
inline void turn_pass(unsigned *counter, simt::Site site = GT_SIMT_HERE) {
  simt::begin_call("turn_pass", site);
  simt::copy_engine.expect_over();
  ++*counter;
}

#endif

}  // namespace gt
