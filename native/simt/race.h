// Do two threads touch the same byte of shared memory, one of them writing, with nothing that orders them?
//
// A race build compiles kernels with -fsanitize=thread and links without it: the calls that g++ puts before every load and
// store land in the private runtime at the end of this file. Each byte of static and dynamic shared memory remembers its
// last write and two of its reads; an access that is not ordered after a conflicting one is a race, whatever values
// came out and in whatever order the threads ran. Atomics conflict with plain accesses, not with each other.
//
// Order is happens-before. __syncthreads orders everything: it starts a new epoch. Warp collectives and named barriers
// order those who take part: within an epoch each thread knows, per thread, up to which tick it has seen the other's
// work (a vector clock). Not watched: global memory.
#pragma once

#include <cstdint>
#include <vector>

#include "simt/block.h"
#include "simt/report.h"
#include "simt/shared.h"

namespace simt::race {

enum class Access : uint8_t { READ, WRITE, ATOMIC };

#if !defined(GT_SIMT_RACE)

inline void start_grid() {}
inline void start_block() {}
inline void block_sync() {}
inline void warp_sync(unsigned, uint32_t) {}
inline void release(std::vector<uint32_t> &, unsigned) {}
inline void acquire(const std::vector<uint32_t> &, unsigned) {}
inline void access(const void *, size_t, Access, const void *) {}

#else

// One access in the past. Epochs are never reused, so the shadow need not be cleared between blocks.
struct Record {
  uint32_t epoch = 0, tick = 0;
  uint16_t thread = 0;
  Access kind = Access::READ;
  const void *pc = nullptr;
};

struct Shadow { Record write, read, other_read; };  // of one byte

// Ticks only ever grow, through blocks and launches: what is left of an earlier epoch lies below every tick of this one and
// orders nothing.
struct ThreadClock {
  uint32_t tick = 1;                // advances at each synchronisation
  uint32_t seen[MAX_THREADS] = {};  // of each thread, the tick up to which its accesses are ordered before ours
};

// A piece of shared memory: a static variable, or all of the dynamic.
struct Watched {
  const char *begin = nullptr;
  size_t bytes = 0;
  const char *name = nullptr;
  std::vector<Shadow> shadow;
};

struct Books {
  uint32_t epoch = 0;
  std::vector<ThreadClock> clocks = std::vector<ThreadClock>(MAX_THREADS);
  std::vector<Watched> watched;     // the dynamic memory first
  uintptr_t static_low = 0, static_high = 0;  // all static variables lie between: most accesses are to neither
  bool is_checking = false;
};

inline Books books;

inline void watch(const char *begin, size_t bytes, const char *name) {
  books.watched.push_back({begin, bytes, name, std::vector<Shadow>(bytes)});
}

inline void start_grid() {
  books.watched.clear();
  watch(static_cast<const char *>(current->dynamic_shared), current->dynamic_shared_bytes, "dynamic shared memory");
  books.static_low = UINTPTR_MAX;
  books.static_high = 0;
  for (const SharedVariable &variable : *current->static_shared) {
    watch(variable.address, variable.bytes, variable.name.c_str());
    const uintptr_t begin = reinterpret_cast<uintptr_t>(variable.address);
    books.static_low = min(books.static_low, begin);
    books.static_high = max(books.static_high, begin + variable.bytes);
  }
}

inline void start_block() {
  ++books.epoch;
  books.is_checking = false;  // a block that failed left it set
}

inline void block_sync() {
  ++books.epoch;
}

// The thread publishes what it has done and seen into `into`; another that acquires from there is ordered after it.
inline void release(std::vector<uint32_t> &into, unsigned thread) {
  ThreadClock &clock = books.clocks[thread];
  clock.seen[thread] = clock.tick++;
  into.resize(current->num_threads);
  for (size_t i = 0; i < into.size(); ++i) into[i] = max(into[i], clock.seen[i]);
}

inline void acquire(const std::vector<uint32_t> &from, unsigned thread) {
  ThreadClock &clock = books.clocks[thread];
  for (size_t i = 0; i < from.size(); ++i) clock.seen[i] = max(clock.seen[i], from[i]);
}

// Named barriers are for whole warps, so what lanes can tell each other is about their own warp.
inline void warp_sync(unsigned warp, uint32_t active) {
  const unsigned begin = warp * WARP;
  uint32_t joined[WARP] = {};
  for (uint32_t lanes = active; lanes; lanes &= lanes - 1) {
    const unsigned thread = begin + __builtin_ctz(lanes);
    ThreadClock &clock = books.clocks[thread];
    clock.seen[thread] = clock.tick++;
    for (unsigned i = 0; i < WARP; ++i) joined[i] = max(joined[i], clock.seen[begin + i]);
  }
  for (uint32_t lanes = active; lanes; lanes &= lanes - 1) {
    ThreadClock &clock = books.clocks[begin + __builtin_ctz(lanes)];
    for (unsigned i = 0; i < WARP; ++i) clock.seen[begin + i] = joined[i];
  }
}

inline bool is_ordered(const Record &past, unsigned me) {
  if (past.epoch != books.epoch || past.thread == me) return true;
  return books.clocks[me].seen[past.thread] >= past.tick;
}

inline const char *verb(Access kind, bool past) {
  switch (kind) {
    case Access::READ: return past ? "had read it" : "reads";
    case Access::WRITE: return past ? "had written it" : "writes";
    default: return past ? "had updated it atomically" : "updates atomically";
  }
}

[[noreturn]] inline void report(const Record &past, const Record &now, const char *memory, size_t offset) {
  current->racing_pc[0] = now.pc;
  current->racing_pc[1] = past.pc;
  const Thread &me = current->threads[now.thread], &other = current->threads[past.thread];
  fail("shared memory race: thread (%u,%u,%u) [warp %u lane %u] %s byte %zu of %s; thread (%u,%u,%u) "
       "[warp %u lane %u] %s, and no barrier orders the two",
       me.index.x, me.index.y, me.index.z, me.warp(), me.lane(), verb(now.kind, false), offset, memory, other.index.x,
       other.index.y, other.index.z, other.warp(), other.lane(), verb(past.kind, true));
}

// Keeps the latest read, and beside it one by a thread of another warp if there is one in this epoch: a writer that is ordered
// after the readers of its own warp still meets the other's. Of three readers one is forgotten, so a race with that one alone
// (the others ordered by a partial mask or a named barrier) is missed.
inline void remember_read(Shadow &shadow, const Record &now) {
  const Record &last = shadow.read, &other = shadow.other_read;
  const auto warp = [](const Record &record) { return record.thread / WARP; };
  const bool last_counts = last.epoch == now.epoch && last.thread != now.thread;
  if (last_counts && (warp(last) != warp(now) || warp(other) == warp(now) || other.epoch != now.epoch))
    shadow.other_read = last;
  shadow.read = now;
}

inline void check(Watched &memory, size_t offset, size_t bytes, const Record &now) {
  const bool now_atomic = now.kind == Access::ATOMIC;
  for (size_t i = offset; i < offset + bytes && i < memory.bytes; ++i) {
    Shadow &byte = memory.shadow[i];
    const bool both_atomic = now_atomic && byte.write.kind == Access::ATOMIC;
    if (!both_atomic && !is_ordered(byte.write, now.thread)) report(byte.write, now, memory.name, i);
    if (now.kind == Access::READ) {
      remember_read(byte, now);
      continue;
    }
    if (!is_ordered(byte.read, now.thread)) report(byte.read, now, memory.name, i);
    if (!is_ordered(byte.other_read, now.thread)) report(byte.other_read, now, memory.name, i);
    byte.write = now;
  }
}

inline Watched *find(const char *address) {
  for (Watched &memory : books.watched)
    if (address >= memory.begin && address < memory.begin + memory.bytes) return &memory;
  return nullptr;
}

// Called before the running thread reads or writes `bytes` at p. The check's own code is watched like any other, so it
// calls back here; is_checking ends that.
GT_SIMT_UNWATCHED inline void access(const void *p, size_t bytes, Access kind, const void *pc) {
  if (books.is_checking || !current || !current->running) return;
  const uintptr_t address = reinterpret_cast<uintptr_t>(p);
  const bool in_dynamic = address - reinterpret_cast<uintptr_t>(current->dynamic_shared) < current->dynamic_shared_bytes;
  if (!in_dynamic && (address < books.static_low || address >= books.static_high)) return;
  books.is_checking = true;
  if (Watched *memory = find(static_cast<const char *>(p))) {
    const unsigned me = current->running->rank;
    const Record now{books.epoch, books.clocks[me].tick, static_cast<uint16_t>(me), kind, pc};
    check(*memory, static_cast<size_t>(static_cast<const char *>(p) - memory->begin), bytes, now);
  }
  books.is_checking = false;
}

#endif

}  // namespace simt::race

#if defined(GT_SIMT_RACE)
#include "simt/race_runtime.h"
#endif
