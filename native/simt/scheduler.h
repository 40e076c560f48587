// Which fiber runs next?
//
// A fiber runs until it waits (in a warp collective, at a barrier, for an mbarrier) or exits; then it picks its
// successor itself. When nobody is runnable the host's stack takes over: the block is finished, waits for its cluster,
// or is deadlocked.
#pragma once

#include <algorithm>
#include <iterator>

#include "simt/block.h"
#include "simt/engine.h"
#include "simt/race.h"
#include "simt/report.h"

namespace simt {

// Choosing

inline unsigned pick_lane(Block &block, uint32_t ready, int after) {
  switch (block.order) {
    case Order::REVERSE: {
      const uint32_t below = after >= 32 ? ready : ready & ((1u << after) - 1);
      return 31 - __builtin_clz(below ? below : ready);
    }
    case Order::RANDOM:
      for (unsigned skip = block.draw.below(__builtin_popcount(ready)); skip > 0; --skip) ready &= ready - 1;
      return __builtin_ctz(ready);
    default: {
      const uint32_t above = after >= 31 ? 0 : ready & (~0u << (after + 1));
      return __builtin_ctz(above ? above : ready);
    }
  }
}

// The next runnable thread, or null. In a fixed order a warp keeps running while any of its lanes can.
inline Thread *next_runnable(Block &block) {
  const unsigned n = block.num_warps;
  const bool reverse = block.order == Order::REVERSE;
  unsigned start;
  int after_lane = reverse ? 32 : -1;
  if (block.order == Order::RANDOM) {
    start = block.draw.below(n);
  } else if (block.running) {
    start = block.running->warp();
    after_lane = static_cast<int>(block.running->lane());
  } else {
    start = reverse ? n - 1 : 0;
  }
  for (unsigned i = 0; i < n; ++i) {
    const unsigned w = reverse ? (start + n - i) % n : (start + i) % n;
    const uint32_t ready = block.warps[w].ready;
    if (ready) return &block.threads[w * WARP + pick_lane(block, ready, i == 0 ? after_lane : reverse ? 32 : -1)];
  }
  return nullptr;
}

// In random order what is in flight may land at any switch, else when everybody waits: as late as it may.
inline void run_next(Block &block, bool done) {
  if (block.order == Order::RANDOM && block.num_in_flight && block.draw.below(4) == 0) land_one(block);
  Thread *me = block.running, *next = next_runnable(block);
  while (!next && block.num_in_flight && land_one(block)) next = next_runnable(block);
  if (next == me) return;  // what it was about to wait for has just landed
  if (next) block.running = next;
  switch_fiber(me->fiber, next ? next->fiber : block.host, done);
}

// Waiting and waking

inline void wait_as(State state) {
  Thread &me = *current->running;
  me.state = state;
  warp_of(me).ready &= ~me.bit();
  run_next(*current, false);
}

inline void wake(Thread &thread) {
  thread.state = State::RUNNABLE;
  warp_of(thread).ready |= thread.bit();
}

// Every lane still alive has arrived: executes the collective and lets the lanes go on.
inline void complete(Warp &warp, Collective &pending) {
  const uint32_t active = pending.arrived;
  const CollectiveBody body = pending.body;
  pending = warp.pending[--warp.num_pending];
  body(warp, active);
  race::warp_sync(warp.number, active);
  for (uint32_t lanes = active; lanes; lanes &= lanes - 1)
    wake(current->threads[warp.number * WARP + __builtin_ctz(lanes)]);
}

inline void release(Barrier &barrier) {
  const unsigned number = static_cast<unsigned>(&barrier - current->barriers);
  barrier.arrived = 0;
  barrier.first = nullptr;
  barrier.result = barrier.votes;
  barrier.votes = 0;
  if (number == 0) race::block_sync();
  else std::fill(std::begin(barrier.of_warp), std::end(barrier.of_warp), 0u);
  for (Thread &thread : current->threads) {
    if (thread.state != State::AT_BARRIER || thread.barrier != number) continue;
    if (number != 0) race::acquire(barrier.clocks, thread.rank);
    wake(thread);
  }
  if (number != 0) barrier.clocks.clear();
}

// A thread that has returned is no longer waited for at __syncthreads. Lanes of its warp that wait for it in a
// collective stay there, and end in a deadlock report: a mask that names a lane which takes no part hides a mistake,
// though CUDA would let the others go on.
[[noreturn]] inline void exit_thread() {
  Block &block = *current;
  Thread &me = *block.running;
  Warp &warp = warp_of(me);
  check_exit(block, me);
  me.state = State::EXITED;
  warp.ready &= ~me.bit();
  warp.exited |= me.bit();
  --block.alive;
  if (block.alive && block.barriers[0].arrived == block.alive) release(block.barriers[0]);
  run_next(block, true);
  abort();  // unreachable
}

inline void fiber_entry() {
  after_switch(nullptr);
  current->kernel(current->arguments);
  exit_thread();
}

// One block

// Makes `current`, the block at `index` of the grid, ready to run.
inline void start_block(Block &block, uint3 index, Order chosen, uint64_t number) {
  block.index = index;
  block.failed = false;
  block.alive = block.num_threads;
  block.order = chosen.kind;
  block.draw.state = chosen.seed ^ number * 0x9E3779B97F4A7C15u;
  for (Barrier &barrier : block.barriers) barrier = Barrier();
  block.mbarriers.clear();
  block.num_in_flight = 0;
  for (Engine *engine = engines; engine; engine = engine->next) engine->start_block();
  for (unsigned w = 0; w < block.num_warps; ++w) {
    const unsigned lanes = block.num_threads - w * WARP;
    Warp &warp = block.warps[w];
    warp.number = w;
    warp.exist = warp.ready = lanes >= WARP ? ~0u : (1u << lanes) - 1;
    warp.exited = 0;
    warp.num_pending = 0;
  }
  for (unsigned t = 0; t < block.num_threads; ++t) {
    Thread &thread = block.threads[t];
    thread.rank = t;
    thread.index = {t % block.extent.x, t / block.extent.x % block.extent.y, t / (block.extent.x * block.extent.y)};
    thread.state = State::RUNNABLE;
    thread.operation = "start";
    thread.site = Site();
    thread.has_arrived = false;
    prepare_fiber(thread.fiber, block.stacks.low(t), fiber_entry, t);
  }
  block.running = nullptr;
}

// Runs `current` until none of its threads can go on; afterwards block.failed and block.message.
inline void run_block(Block &block) {
  race::resume_block();
  for (Engine *engine = engines; engine; engine = engine->next) engine->resume_block();
  Thread *first = next_runnable(block);
  block.running = first;
  switch_fiber(block.host, first->fiber);
  block.running = nullptr;
  if (block.failed) return;
  for (const Thread &thread : block.threads)
    if (thread.state != State::EXITED && thread.state != State::AT_CLUSTER_BARRIER) return report_deadlock(block);
}

}  // namespace simt
