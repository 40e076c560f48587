// How does a thread bring 16 bytes from global to shared memory without waiting for them?
//
// A thread orders copies, closes a group with commit, and later waits until all but its N latest groups have landed.
// What has landed is visible to the thread itself; to others after a barrier that follows the wait (__syncwarp,
// __syncthreads). An empty group counts. All copies must have landed when the thread returns. PTX ISA, "cp.async";
// sm_80.
#pragma once

#include "lib/shared_address.h"
#if defined(GT_SIMT)
#include "simt/async_copy.h"
#endif

namespace gt {

#if defined(__CUDACC__)

// to[0 .. bytes) = from[0 .. bytes), to[bytes .. 16) = 0; bytes 0 to 16. Both addresses are 16-byte aligned; with 0
// bytes `from` is not read, but must be an address. Past L1: a tile is read once per block.
__device__ __forceinline__ void async_copy_16(void *to, const void *from, int bytes) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
               :: "r"(shared_address(to)), "l"(__cvta_generic_to_global(from)), "r"(bytes) : "memory");
}

__device__ __forceinline__ void async_copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

template <int N> __device__ __forceinline__ void async_copy_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

#else

inline void async_copy_16(void *to, const void *from, int bytes, simt::Site site = GT_SIMT_HERE) {
  simt::async_copy_16(to, from, bytes, site);
}
inline void async_copy_commit() { simt::async_copy_commit(); }
template <int N> inline void async_copy_wait(simt::Site site = GT_SIMT_HERE) { simt::async_copy_wait(N, site); }

#endif

// Until all but the n latest groups have landed, or all but MOST_GROUPS_OPEN. How many is a constant of the
// instruction: four branches lead to each (of a switch ptxas makes two tables of jumps, one after the other).
constexpr int MOST_GROUPS_OPEN = 11;
template <int LOW = 0, int HIGH = MOST_GROUPS_OPEN>
__device__ __forceinline__ void async_copy_wait_for_all_but(int n) {
  constexpr int MIDDLE = (LOW + HIGH + 1) / 2;
  if constexpr (LOW == HIGH) async_copy_wait<LOW>();
  else if (n >= MIDDLE) async_copy_wait_for_all_but<MIDDLE, HIGH>(n);
  else async_copy_wait_for_all_but<LOW, MIDDLE - 1>(n);
}

}  // namespace gt
