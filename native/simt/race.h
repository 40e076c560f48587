// Do two threads touch the same byte of shared memory, one of them writing, with nothing that orders them?
//
// A race build compiles kernels with -fsanitize=thread and links without it: the calls that g++ puts before every load
// and store land in the private runtime at the end of this file. Each byte of static and dynamic shared memory
// remembers its last write and two of its reads; an access that is not ordered after a conflicting one is a race,
// whatever values came out and in whatever order the threads ran. Atomics conflict with plain accesses, not with each
// other.
//
// Order is happens-before. __syncthreads orders the threads: it starts a new epoch. Warp collectives, named barriers
// and mbarriers order those who take part: within an epoch each thread knows, per thread, up to which tick it has seen
// the other's work (a vector clock). Not watched: global memory.
//
// Blocks of a cluster are ordered by its barrier alone: what one does to another's shared memory must not meet, between
// two of them, what that one or a third does there. The barrier orders what a thread did before cluster_arrive, not
// what it does from there to cluster_wait: neither for its own block nor for others.
//
// What the copy engine and the tensor cores do to shared memory is booked when a thread gives the order, under the name
// of an agent: a thread that is ordered behind it only by the wait for it, which no barrier replaces.
#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>
#include <vector>

#include "simt/block.h"
#include "simt/graph_memory.h"
#include "simt/report.h"
#include "simt/shared.h"

namespace simt::race {

enum class Access : uint8_t { READ, WRITE, ATOMIC };

// Each warp's tensor core is an agent; the orders to the copy engine take turns among the others. The last one stands
// for all threads that reach another block's memory.
constexpr unsigned FIRST_AGENT = MAX_THREADS, FIRST_COPY_AGENT = FIRST_AGENT + MAX_THREADS / WARP;
constexpr unsigned REMOTE_AGENT = FIRST_COPY_AGENT + 64, NUM_CLOCKS = REMOTE_AGENT + 1;

// An asynchronous operation: all that an agent has done up to this tick.
struct Ticket { unsigned agent = 0; uint32_t tick = 0; };

#if !defined(GT_SIMT_RACE)

inline void watch_shared() {}
inline void start_cluster() {}
inline void end_phase() {}
inline void resume_block() {}
inline void pause_block() {}
inline void access_remote(const Block &, const void *, size_t, Access) {}
inline void block_sync() {}
inline void warp_sync(unsigned, uint32_t) {}
inline void release(std::vector<uint32_t> &, unsigned) {}
inline void acquire(const std::vector<uint32_t> &, unsigned) {}
inline void access(const void *, size_t, Access, const void *) {}
inline void access_global(const void *, size_t, Access, const void *) {}
inline void watch_waits(const bool *) {}
inline void synchronise(const void *, size_t, Access) {}
inline Ticket order_from_tensor_core() { return {}; }
inline Ticket order_from_copy_engine() { return {}; }
inline void access(Ticket, const void *, size_t, Access) {}
inline void release(std::vector<uint32_t> &, Ticket) {}
inline void observe(unsigned, Ticket) {}
inline void fence_async(unsigned) {}
struct Pause { Pause() {} };

#else

// A call of the running thread that touches shared memory: where it stands in the source.
struct Call {
  unsigned thread;
  const char *operation;
  Site site;
};

// One access in the past. Epochs are never reused, so the shadow need not be cleared between blocks.
struct Record {
  uint32_t epoch = 0, tick = 0;
  uint16_t actor = 0;  // a thread, or an agent
  Access kind = Access::READ;
  bool is_late = false;        // between cluster_arrive and cluster_wait
  const void *pc = nullptr;    // of a load or store,
  const Call *call = nullptr;  // or of what one called
};

struct Shadow { Record write, read, other_read; };  // of one byte

// Ticks only ever grow, through blocks and launches: what is left of an earlier epoch lies below every tick of this one
// and orders nothing.
struct ThreadClock {
  uint32_t tick = 1;               // advances at each synchronisation
  uint32_t fenced = 0;             // up to this tick its stores are visible to the agents
  uint32_t seen[NUM_CLOCKS] = {};  // of each actor, the tick up to which its accesses are ordered before ours
};

// A piece of shared memory: a static variable, or all of the dynamic.
struct Watched {
  const char *begin = nullptr;
  size_t bytes = 0;
  const char *name = nullptr;
  std::vector<Shadow> shadow;
  bool is_touched = false;  // before, there is no shadow
};

// What is watched of a block: the dynamic memory, then the static variables in ascending order.
struct WatchedBlock {
  std::vector<Watched> pieces;
  const std::vector<SharedVariable> *statics = nullptr;
  uint32_t late_epoch = 0;  // when it came to wait for its cluster; 0 once __syncthreads has ordered what was late then
};

struct Books {
  uint32_t epoch = 0, first_epoch = 0;  // now, and when the block's cluster began or was last at its barrier
  uint32_t first_before = 0;            // the first_epoch before the last barrier
  uint32_t agent_tick[NUM_CLOCKS - FIRST_AGENT] = {};
  unsigned num_copies = 0;
  bool has_agents = false;  // of this block, or mbarriers: threads can know of those beyond their own warp
  std::deque<Call> calls;   // of this cluster
  std::vector<ThreadClock> clocks = std::vector<ThreadClock>(MAX_THREADS);
  WatchedBlock watched[MAX_CLUSTER];
  Watched *pieces = nullptr;  // of the block that is running
  size_t num_pieces = 0;
  uintptr_t static_low = 0, static_high = 0;  // all static variables lie between: most accesses are to neither
  bool is_checking = false;
  const bool *has_waited = nullptr;  // of a dependent grid's threads, else null
};

inline Books books;

inline void watch_waits(const bool *has_waited) { books.has_waited = has_waited; }

inline void watch_statics(WatchedBlock &watched) {
  watched.statics = current->static_shared;
  watched.pieces.resize(1);
  books.static_low = UINTPTR_MAX;
  books.static_high = 0;
  for (const SharedVariable &variable : *current->static_shared) {
    watched.pieces.push_back({variable.address, variable.bytes, variable.name.c_str(), {}, false});
    const uintptr_t begin = reinterpret_cast<uintptr_t>(variable.address);
    books.static_low = min(books.static_low, begin);
    books.static_high = max(books.static_high, begin + variable.bytes);
  }
  std::sort(watched.pieces.begin() + 1, watched.pieces.end(),
            [](const Watched &a, const Watched &b) { return a.begin < b.begin; });
}

// Of the current block, for the grid that begins. What is booked of static variables stays, as between blocks.
inline void watch_shared() {
  WatchedBlock &watched = books.watched[current->rank];
  if (watched.statics != current->static_shared) watch_statics(watched);
  watched.pieces[0] = {static_cast<const char *>(current->dynamic_shared), current->dynamic_shared_bytes,
                       "dynamic shared memory", {}, false};
}

inline void start_cluster() {
  books.first_before = books.first_epoch = ++books.epoch;
  books.has_agents = false;
  books.calls.clear();
  books.is_checking = false;  // a block that failed left it set
  for (WatchedBlock &block : books.watched) block.late_epoch = 0;
}
inline void end_phase() {
  books.first_before = books.first_epoch;
  books.first_epoch = ++books.epoch;
}

// Between two barriers of the cluster a block runs once: what it knew when another block ran is known to all of it.
inline void resume_block() {
  ++books.epoch;
  books.pieces = books.watched[current->rank].pieces.data();
  books.num_pieces = books.watched[current->rank].pieces.size();
}
inline void pause_block() { books.watched[current->rank].late_epoch = books.epoch; }

template <class F> inline void for_each_agent(F f) {
  if (books.has_agents)
    for (unsigned i = FIRST_AGENT; i < NUM_CLOCKS; ++i) f(i);
}
template <class F> inline void for_each_clock(F f) {
  for (unsigned i = 0; i < current->num_threads; ++i) f(i);
  for_each_agent(f);
}

// Afterwards everybody knows what one thread knew.
inline void block_sync() {
  ++books.epoch;
  books.watched[current->rank].late_epoch = 0;
  for_each_agent([](unsigned agent) {
    uint32_t latest = 0;
    for (unsigned t = 0; t < current->num_threads; ++t) latest = max(latest, books.clocks[t].seen[agent]);
    for (unsigned t = 0; t < current->num_threads; ++t) books.clocks[t].seen[agent] = latest;
  });
}

// The thread publishes what it has done and seen into `into`; another that acquires from there is ordered after it.
inline void release(std::vector<uint32_t> &into, unsigned thread) {
  ThreadClock &clock = books.clocks[thread];
  clock.seen[thread] = clock.tick++;
  into.resize(NUM_CLOCKS);
  for_each_clock([&](unsigned i) { into[i] = max(into[i], clock.seen[i]); });
}

inline void acquire(const std::vector<uint32_t> &from, unsigned thread) {
  if (from.empty()) return;
  ThreadClock &clock = books.clocks[thread];
  for_each_clock([&](unsigned i) { clock.seen[i] = max(clock.seen[i], from[i]); });
}

// The lanes tell each other what they have seen of the actors begin .. end - 1.
GT_SIMT_UNWATCHED inline void join_lanes(unsigned warp, uint32_t active, unsigned begin, unsigned end) {
  ThreadClock *const clocks = &books.clocks[warp * WARP];
  uint32_t latest[NUM_CLOCKS];
  for (unsigned i = begin; i < end; ++i) latest[i] = 0;
  for (uint32_t lanes = active; lanes; lanes &= lanes - 1) {
    const uint32_t *const seen = clocks[__builtin_ctz(lanes)].seen;
    for (unsigned i = begin; i < end; ++i) latest[i] = seen[i] > latest[i] ? seen[i] : latest[i];
  }
  for (uint32_t lanes = active; lanes; lanes &= lanes - 1) {
    uint32_t *const seen = clocks[__builtin_ctz(lanes)].seen;
    for (unsigned i = begin; i < end; ++i) seen[i] = latest[i];
  }
}

// Named barriers are for whole warps: without mbarriers, what lanes can tell each other is about their own warp.
inline void warp_sync(unsigned warp, uint32_t active) {
  const unsigned begin = warp * WARP;
  for (uint32_t lanes = active; lanes; lanes &= lanes - 1) {
    const unsigned thread = begin + __builtin_ctz(lanes);
    books.clocks[thread].seen[thread] = books.clocks[thread].tick++;
  }
  if (!books.has_agents) return join_lanes(warp, active, begin, begin + WARP);
  join_lanes(warp, active, 0, current->num_threads);
  join_lanes(warp, active, FIRST_AGENT, NUM_CLOCKS);
}

// A barrier of the threads does not wait for an agent.
GT_SIMT_UNWATCHED inline bool is_ordered(const Record &past, unsigned me) {
  if (past.actor == me) return true;
  if (!past.is_late || past.epoch != books.watched[current->rank].late_epoch) {
    if (past.epoch < books.first_epoch) return true;
    if (past.epoch != books.epoch && past.actor < FIRST_AGENT) return true;
  }
  return books.clocks[me].seen[past.actor] >= past.tick;
}

// Asynchronous operations

inline Ticket order_from(unsigned agent) {
  books.has_agents = true;
  return {agent, ++books.agent_tick[agent - FIRST_AGENT]};
}
inline Ticket order_from_tensor_core() { return order_from(FIRST_AGENT + current->running->warp()); }
inline Ticket order_from_copy_engine() {
  return order_from(FIRST_COPY_AGENT + books.num_copies++ % (REMOTE_AGENT - FIRST_COPY_AGENT));
}

// It is over; who acquires from there, or `thread` itself, has seen that.
inline void release(std::vector<uint32_t> &into, Ticket done) {
  into.resize(NUM_CLOCKS);
  into[done.agent] = max(into[done.agent], done.tick);
}
inline void observe(unsigned thread, Ticket done) {
  uint32_t &seen = books.clocks[thread].seen[done.agent];
  seen = max(seen, done.tick);
}

// fence.proxy.async
inline void fence_async(unsigned thread) {
  books.clocks[thread].fenced = books.clocks[thread].tick++;
}

inline const char *verb(Access kind, bool past) {
  switch (kind) {
    case Access::READ: return past ? "had read it" : "reads";
    case Access::WRITE: return past ? "had written it" : "writes";
    default: return past ? "had updated it atomically" : "updates atomically";
  }
}

// "thread (0,0,0) [warp 0 lane 0]", and of a call also its name, file and line.
inline Text describe(const Record &record) {
  const Thread &thread = current->threads[record.call ? record.call->thread : record.actor];
  Text t;
  const int used = snprintf(t.text, sizeof t.text, "thread (%u,%u,%u) [warp %u lane %u]", thread.index.x,
                            thread.index.y, thread.index.z, thread.warp(), thread.lane());
  if (const Call *call = record.call)
    snprintf(t.text + used, sizeof t.text - used, "'s %s at %s:%d", call->operation, call->site.file, call->site.line);
  return t;
}

[[noreturn]] inline void report(const Record &past, const Record &now, const char *memory, size_t offset) {
  current->racing_pc[0] = now.pc;
  current->racing_pc[1] = past.pc;
  fail("shared memory race: %s %s byte %zu of %s; %s %s, and no barrier orders the two", describe(now).text,
       verb(now.kind, false), offset, memory, describe(past).text, verb(past.kind, true));
}

// The reader is an agent.
inline void check_fence(const Record &write, const Record &now, const char *memory, size_t offset) {
  if (write.epoch < books.first_epoch || write.actor >= FIRST_AGENT) return;
  if (books.clocks[write.actor].fenced >= write.tick) return;
  current->racing_pc[1] = write.pc;
  fail("fence_async missing: %s reads byte %zu of %s; %s had written it, and called no fence_async since",
       describe(now).text, offset, memory, describe(write).text);
}

// Keeps the latest read, and beside it one by a thread of another warp that is not ordered before: a writer that is
// ordered after the readers of its own warp still meets the other's. Of three readers one is forgotten, so a race with
// that one alone (the others ordered by a partial mask or a named barrier) is missed.
GT_SIMT_UNWATCHED inline void remember_read(Shadow &shadow, const Record &now, unsigned me) {
  const Record &last = shadow.read, &other = shadow.other_read;
  const auto warp = [](const Record &record) { return record.actor / WARP; };
  if (!is_ordered(last, me) && (warp(last) != warp(now) || warp(other) == warp(now) || is_ordered(other, me)))
    shadow.other_read = last;
  shadow.read = now;
}

// `me` is the thread that makes the access, or gave the order for it.
GT_SIMT_UNWATCHED inline void check(Watched &memory, size_t offset, size_t bytes, const Record &now, unsigned me) {
  const bool now_atomic = now.kind == Access::ATOMIC;
  for (size_t i = offset; i < offset + bytes && i < memory.bytes; ++i) {
    Shadow &byte = memory.shadow[i];
    const bool both_atomic = now_atomic && byte.write.kind == Access::ATOMIC;
    if (!both_atomic && !is_ordered(byte.write, me)) report(byte.write, now, memory.name, i);
    if (now.kind == Access::READ) {
      if (now.actor >= FIRST_AGENT) check_fence(byte.write, now, memory.name, i);
      remember_read(byte, now, me);
      continue;
    }
    if (!is_ordered(byte.read, me)) report(byte.read, now, memory.name, i);
    if (!is_ordered(byte.other_read, me)) report(byte.other_read, now, memory.name, i);
    byte.write = now;
  }
}

// Without calls: what the check calls is watched itself, and a file has hundreds of static variables.
GT_SIMT_UNWATCHED inline Watched *find(const char *address) {
  Watched *found = books.pieces;
  if (static_cast<size_t>(address - found->begin) >= found->bytes) {
    size_t low = 1, high = books.num_pieces;
    while (low < high) {
      const size_t middle = (low + high) / 2;
      if (books.pieces[middle].begin + books.pieces[middle].bytes <= address) low = middle + 1;
      else high = middle;
    }
    found = books.pieces + low;
    if (low == books.num_pieces || address < found->begin) return nullptr;
  }
  if (!found->is_touched) {
    found->shadow.assign(found->bytes, Shadow());
    found->is_touched = true;
  }
  return found;
}

// graph_memory.h
GT_SIMT_UNWATCHED inline void access_global(const void *p, size_t bytes, Access kind, const void *pc) {
  if (books.is_checking || !books.has_waited || books.has_waited[current->running->rank]) return;
  books.is_checking = true;
  const char *const begin = static_cast<const char *>(p);
  for (const Span &span : written_in_front)
    if (begin < span.begin + span.bytes && span.begin < begin + bytes) {
      current->racing_pc[0] = pc;
      fail("grid_dependency_wait missing: %s %s what a grid in front of it writes", describe(*current->running).text,
           verb(kind, false));
    }
  books.is_checking = false;
}

// Called before the running thread reads or writes `bytes` at p. The check's own code is watched like any other, so it
// calls back here; is_checking ends that.
GT_SIMT_UNWATCHED inline void access(const void *p, size_t bytes, Access kind, const void *pc) {
  if (books.is_checking || !current || !current->running) return;
  const uintptr_t address = reinterpret_cast<uintptr_t>(p);
  const bool in_dynamic =
      address - reinterpret_cast<uintptr_t>(current->dynamic_shared) < current->dynamic_shared_bytes;
  if (!in_dynamic && (address < books.static_low || address >= books.static_high))
    return access_global(p, bytes, kind, pc);
  books.is_checking = true;
  if (Watched *memory = find(static_cast<const char *>(p))) {
    const unsigned me = current->running->rank;
    const Record now{books.epoch, books.clocks[me].tick, static_cast<uint16_t>(me), kind,
                     current->running->has_arrived, pc, nullptr};
    check(*memory, static_cast<size_t>(static_cast<const char *>(p) - memory->begin), bytes, now, me);
  }
  books.is_checking = false;
}

// While one lives the emulator's own accesses are not booked.
struct Pause {
  Pause() : was_checking(books.is_checking) { books.is_checking = true; }
  ~Pause() { books.is_checking = was_checking; }
  const bool was_checking;
};

// What the running thread's call (its operation and site) does to shared memory itself, or lets an agent do.
inline void access(unsigned actor, uint32_t tick, const void *p, size_t bytes, Access kind) {
  const Pause pause;
  const Thread &me = *current->running;
  Watched *memory = find(static_cast<const char *>(p));
  if (!memory) return;
  if (books.calls.empty() || books.calls.back().thread != me.rank || !(books.calls.back().site == me.site))
    books.calls.push_back({me.rank, me.operation, me.site});
  const Record now{books.epoch, tick, static_cast<uint16_t>(actor), kind, me.has_arrived, nullptr,
                   &books.calls.back()};
  check(*memory, static_cast<size_t>(static_cast<const char *>(p) - memory->begin), bytes, now, me.rank);
}
inline void synchronise(const void *p, size_t bytes, Access kind) {
  books.has_agents = true;
  access(current->running->rank, books.clocks[current->running->rank].tick, p, bytes, kind);
}
inline void access(Ticket order, const void *p, size_t bytes, Access kind) {
  access(order.agent, order.tick, p, bytes, kind);
}

// What the running thread's call does to the shared memory of a block of its cluster, where `own` lies in its own.
inline void access_remote(const Block &block, const void *own, size_t bytes, Access kind) {
  const Pause pause;
  Watched *const mine = find(static_cast<const char *>(own));
  if (!mine) return;
  const size_t offset = static_cast<size_t>(static_cast<const char *>(own) - mine->begin);
  Watched &memory = books.watched[block.rank].pieces[static_cast<size_t>(mine - books.pieces)];
  if (!memory.is_touched) memory.shadow.assign(memory.bytes, Shadow());
  memory.is_touched = true;
  const Thread &me = *current->running;
  books.calls.push_back({me.rank, me.operation, me.site});
  const Record now{books.epoch, 1, REMOTE_AGENT, kind, false, nullptr, &books.calls.back()};
  const auto check = [&](const Record &past, size_t i) {
    if (past.epoch >= (past.is_late ? books.first_before : books.first_epoch)) report(past, now, memory.name, i);
  };
  for (size_t i = offset; i < offset + bytes; ++i) {
    Shadow &byte = memory.shadow[i];
    check(byte.write, i);
    if (kind == Access::READ) {
      if (byte.read.epoch >= books.first_epoch) byte.other_read = byte.read;
      byte.read = now;
      continue;
    }
    check(byte.read, i);
    check(byte.other_read, i);
    byte.write = now;
  }
}

#endif

}  // namespace simt::race

#if defined(GT_SIMT_RACE)
#include "simt/race_runtime.h"
#endif
