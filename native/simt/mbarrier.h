// When is a phase of an mbarrier over, and who waits for it?
//
// The state lies outside shared memory, in the block; the eight bytes hold a tag and the barrier's number, so that
// one that was never initialised, or that something else has written over, is recognised. Reported as well: an arrival
// beyond the count, and a phase that ends before anybody has waited for the one before it: whoever still comes to wait
// for that one would hang, since both have its parity between them.
#pragma once

#include "simt/scheduler.h"
#include "simt/shared_address.h"

namespace simt {

constexpr uint64_t MBARRIER_TAG = 0x6d62617272690000u;
constexpr unsigned MAX_MBARRIER_COUNT = (1u << 20) - 1;  // of arrivals, and of bytes in a phase

inline void mbarrier_init(uint64_t *p, unsigned arrivals, Site site) {
  begin_call("mbarrier_init", site);
  const race::Pause pause;
  const Thread &me = *current->running;
  if (!is_shared(p, sizeof *p) || reinterpret_cast<uintptr_t>(p) % sizeof *p)
    fail("an mbarrier must be 8 aligned bytes of shared memory: %s", describe(me).text);
  if (arrivals < 1 || arrivals > MAX_MBARRIER_COUNT)
    fail("an mbarrier of %u arrivals, expected 1..%u: %s", arrivals, MAX_MBARRIER_COUNT, describe(me).text);
  race::synchronise(p, sizeof *p, race::Access::WRITE);
  *p = MBARRIER_TAG + current->mbarriers.size();
  MbarrierState state;
  state.address = p;
  state.count = state.pending = arrivals;
  state.initialised_by = me.rank;
  current->mbarriers.push_back(state);
}

inline void mbarrier_fence_init() {
  for (MbarrierState &barrier : current->mbarriers)
    barrier.is_fenced |= barrier.initialised_by == current->running->rank;
}

// The barrier at p, for the running thread's call.
inline unsigned mbarrier_at(uint64_t *p, const char *operation, Site site) {
  begin_call(operation, site);
  const Thread &me = *current->running;
  if (!is_shared(p, sizeof *p)) fail("not an mbarrier in shared memory: %s", describe(me).text);
  race::synchronise(p, sizeof *p, race::Access::ATOMIC);
  const uint64_t number = *p - MBARRIER_TAG;
  if (number >= current->mbarriers.size() || current->mbarriers[number].address != p)
    fail("the mbarrier was not initialised, or has been written over: %s", describe(me).text);
  return static_cast<unsigned>(number);
}

// Ends the phase if nothing is missing any more.
inline void check_phase(unsigned number) {
  MbarrierState &barrier = current->mbarriers[number];
  if (barrier.pending || barrier.bytes) return;
  if (!barrier.is_observed)
    fail("phase %u of an mbarrier of %u arrivals ends, and nobody has waited for the one before: too many arrivals, or "
         "a missing wait; the last in %s", barrier.phase, barrier.count, describe(*current->running).text);
  ++barrier.phase;
  barrier.pending = barrier.count;
  barrier.clocks_of_last_phase = barrier.clocks;
  barrier.is_observed = barrier.num_waiting > 0;
  barrier.num_waiting = 0;
  for (Thread &thread : current->threads)
    if (thread.state == State::AT_MBARRIER && thread.barrier == number) wake(thread);
}

inline void arrive_at(unsigned number) {
  MbarrierState &barrier = current->mbarriers[number];
  const Thread &me = *current->running;
  if (barrier.pending == 0)
    fail("too many arrivals: the %u of phase %u have come, and %lld bytes are missing; %s", barrier.count,
         barrier.phase, static_cast<long long>(barrier.bytes), describe(me).text);
  race::release(barrier.clocks, me.rank);
  --barrier.pending;
  check_phase(number);
}

inline void mbarrier_arrive(uint64_t *p, Site site) {
  const race::Pause pause;
  arrive_at(mbarrier_at(p, "mbarrier_arrive", site));
}

inline void mbarrier_arrive_expect_tx(uint64_t *p, unsigned bytes, Site site) {
  const race::Pause pause;
  const unsigned number = mbarrier_at(p, "mbarrier_arrive_expect_tx", site);
  MbarrierState &barrier = current->mbarriers[number];
  barrier.bytes += bytes;
  if (barrier.bytes > MAX_MBARRIER_COUNT)
    fail("%lld bytes in one phase, at most %u: %s", static_cast<long long>(barrier.bytes), MAX_MBARRIER_COUNT,
         describe(*current->running).text);
  arrive_at(number);
}

inline bool is_over(unsigned number, unsigned parity) { return current->mbarriers[number].phase % 2 != parity; }

// Returns once the current phase has the other parity: the last phase of this one is over.
inline void mbarrier_wait(uint64_t *p, unsigned parity, Site site) {
  const auto arrived = [=] {
    const race::Pause pause;
    return mbarrier_at(p, "mbarrier_wait", site);
  };
  const unsigned number = arrived();
  Thread &me = *current->running;
  if (parity > 1) fail("parity %u, expected 0 or 1: %s", parity, describe(me).text);
  while (!is_over(number, parity)) {
    me.barrier = number;
    ++current->mbarriers[number].num_waiting;
    wait_as(State::AT_MBARRIER);
  }
  MbarrierState &barrier = current->mbarriers[number];
  barrier.is_observed = true;
  race::acquire(barrier.clocks_of_last_phase, me.rank);
}

}  // namespace simt
