// When does a cp.async land?
//
// As late as it may: at the wait that covers its group, so that a read without the wait finds what was there before,
// NaN in fresh shared memory. A race build books the write twice, when the copy is ordered (whoever still reads what it
// will write over races with it) and when it lands (whoever reads it later needs a barrier behind that). Reported:
// addresses that are not aligned or not shared, and a thread that returns while copies are in flight.
#pragma once

#include <cstring>
#include <vector>

#include "simt/engine.h"
#include "simt/race.h"
#include "simt/shared_address.h"

namespace simt {

struct AsyncCopy {
  void *to;
  const void *from;
  unsigned bytes, group;
  const void *pc;  // of the order
};

// Of one thread.
struct CopyQueue {
  unsigned group = 0;  // the open one
  std::vector<AsyncCopy> in_flight;
};

struct AsyncCopyEngine : Engine {
  std::vector<CopyQueue> queues[MAX_CLUSTER];  // of the threads of each block of a cluster

  void start_block() override {
    std::vector<CopyQueue> &mine = queues[current->rank];
    mine.resize(MAX_THREADS);
    for (unsigned i = 0; i < current->num_threads; ++i) {
      mine[i].group = 0;
      mine[i].in_flight.clear();
    }
  }
  void check_exit(Block &, const Thread &thread) override {
    if (const size_t left = queues[current->rank][thread.rank].in_flight.size())
      fail("returns while %zu of its asynchronous copies are in flight: %s", left, describe(thread).text);
  }
};
inline AsyncCopyEngine async_copy_engine;

inline CopyQueue &copy_queue() { return async_copy_engine.queues[current->rank][current->running->rank]; }

__attribute__((noinline)) inline void async_copy_16(void *to, const void *from, int bytes, Site site) {
  begin_call("cp.async", site);
  const void *const pc = __builtin_return_address(0);
  const Thread &me = *current->running;
  if (!is_shared(to, 16) || reinterpret_cast<uintptr_t>(to) % 16)
    fail("cp.async must write 16 aligned bytes of shared memory: %s", describe(me).text);
  if (reinterpret_cast<uintptr_t>(from) % 16)
    fail("cp.async reads from an address that is not aligned: %s", describe(me).text);
  if (bytes < 0 || bytes > 16) fail("cp.async of %d bytes, expected 0..16: %s", bytes, describe(me).text);
  race::access(to, 16, race::Access::WRITE, pc);
  race::access_global(from, static_cast<size_t>(bytes), race::Access::READ, pc);
  CopyQueue &queue = copy_queue();
  queue.in_flight.push_back({to, from, static_cast<unsigned>(bytes), queue.group, pc});
}

inline void async_copy_commit() { ++copy_queue().group; }

GT_SIMT_UNWATCHED inline void land(const AsyncCopy &copy) {
  race::access(copy.to, 16, race::Access::WRITE, copy.pc);
  memcpy(copy.to, copy.from, copy.bytes);
  memset(static_cast<char *>(copy.to) + copy.bytes, 0, 16 - copy.bytes);
}

inline void async_copy_wait(unsigned pending_groups, Site site) {
  begin_call("cp.async.wait_group", site);
  CopyQueue &queue = copy_queue();
  size_t landed = 0;
  while (landed < queue.in_flight.size() && queue.in_flight[landed].group + pending_groups < queue.group)
    land(queue.in_flight[landed++]);
  queue.in_flight.erase(queue.in_flight.begin(), queue.in_flight.begin() + static_cast<ptrdiff_t>(landed));
}

}  // namespace simt
