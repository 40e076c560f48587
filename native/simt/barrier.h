// How do the threads of a block wait for each other?
//
// __syncthreads releases when every thread that has not returned is there. Threads that meet at different __syncthreads
// are reported at once: the hardware may well count them as one barrier, CUDA calls it undefined.
#pragma once

#include "simt/scheduler.h"

namespace simt {

// bar.sync and bar.arrive are for all lanes of a warp together.
inline void check_whole_warps(unsigned number, const Barrier &barrier) {
  for (unsigned w = 0; w < current->num_warps; ++w)
    if (const unsigned arrived = barrier.of_warp[w]; arrived % WARP != 0)
      fail("named barrier %u: %u threads of warp %u, expected whole warps; the last in %s", number, arrived, w,
           describe(*current->running).text);
}

// expected == 0: all threads that are alive. Returns the votes of the round.
inline unsigned arrive(unsigned number, unsigned expected, const char *operation, Site site, bool wait, unsigned vote) {
  Block &block = *current;
  Thread &me = *block.running;
  Barrier &barrier = block.barriers[number];
  me.operation = operation;
  me.site = site;
  if (barrier.arrived == 0) {
    barrier.first = &me;
    barrier.expected = expected;
  } else if (number == 0 && (!(barrier.first->site == site) || barrier.first->operation != operation)) {
    fail("divergent barrier: %s, but %s already", describe(me).text, describe(*barrier.first).text);
  } else if (barrier.expected != expected) {
    fail("named barrier %u: %s expects %u threads, %s expects %u", number, describe(me).text, expected,
         describe(*barrier.first).text, barrier.expected);
  }
  barrier.votes += vote;
  if (number != 0) {
    race::release(barrier.clocks, me.rank);
    ++barrier.of_warp[me.warp()];
  }
  ++barrier.arrived;
  if (barrier.arrived == (expected ? expected : block.alive)) {
    if (number != 0) check_whole_warps(number, barrier);
    if (number != 0 && wait) race::acquire(barrier.clocks, me.rank);
    release(barrier);
  } else if (wait) {
    me.barrier = number;
    wait_as(State::AT_BARRIER);
  }
  return barrier.result;
}

inline unsigned sync_block(const char *operation, Site site, unsigned vote = 0) {
  return arrive(0, 0, operation, site, true, vote);
}

// bar.sync and bar.arrive: `threads` of the block, a multiple of 32, meet at barrier 1..15; arrive does not wait.
inline void named_barrier(unsigned number, unsigned threads, bool wait, Site site) {
  Thread &me = *current->running;
  me.operation = wait ? "named_barrier_sync" : "named_barrier_arrive";
  me.site = site;
  if (number < 1 || number >= NUM_BARRIERS || threads == 0 || threads % WARP != 0 || threads > MAX_THREADS)
    fail("named barrier %u for %u threads: the number must be 1..15, the threads a multiple of 32; %s", number, threads,
         describe(me).text);
  arrive(number, threads, me.operation, site, wait, 0);
}

}  // namespace simt

inline void __syncthreads(simt::Site site = GT_SIMT_HERE) { simt::sync_block("__syncthreads", site); }
inline int __syncthreads_count(int predicate, simt::Site site = GT_SIMT_HERE) {
  return static_cast<int>(simt::sync_block("__syncthreads_count", site, predicate != 0));
}
inline int __syncthreads_or(int predicate, simt::Site site = GT_SIMT_HERE) {
  return simt::sync_block("__syncthreads_or", site, predicate != 0) != 0;
}
inline int __syncthreads_and(int predicate, simt::Site site = GT_SIMT_HERE) {
  return simt::sync_block("__syncthreads_and", site, predicate == 0) == 0;
}

// Memory is sequentially consistent among fibers.
inline void __threadfence_block() {}
inline void __threadfence() {}
inline void __threadfence_system() {}

[[noreturn]] inline void __trap(simt::Site site = GT_SIMT_HERE) {
  simt::Thread &me = *simt::current->running;
  me.operation = "__trap";
  me.site = site;
  simt::fail("%s", simt::describe(me).text);
}
