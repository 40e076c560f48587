// What is said when a kernel goes wrong?
//
// One message per launch: the fault, the thread, the operation it was in, file and line. The first fault ends the block
// and the launch. No heap here: a fiber that fails is abandoned, its destructors never run.
#pragma once

#include <cstdarg>
#include <cstdio>
#include <cstdlib>

#include "simt/block.h"

namespace simt {

struct Text { char text[256]; };

inline Text describe(const Thread &thread) {
  Text t;
  if (thread.state == State::EXITED) {
    snprintf(t.text, sizeof t.text, "thread (%u,%u,%u) [warp %u lane %u] has exited", thread.index.x, thread.index.y,
             thread.index.z, thread.warp(), thread.lane());
    return t;
  }
  snprintf(t.text, sizeof t.text, "thread (%u,%u,%u) [warp %u lane %u] in %s at %s:%d", thread.index.x, thread.index.y,
           thread.index.z, thread.warp(), thread.lane(), thread.operation, thread.site.file ? thread.site.file : "?",
           thread.site.line);
  return t;
}

// Ends the block with a report.
[[noreturn]] __attribute__((format(printf, 1, 2))) inline void fail(const char *format, ...) {
  Block &block = *current;
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(block.message, sizeof block.message, format, arguments);
  va_end(arguments);
  block.failed = true;
  switch_fiber(block.running->fiber, block.host, true);
  abort();  // unreachable: a failed block is never resumed
}

// Nobody can run and not everybody has returned: says who waits for what.
inline void report_deadlock(Block &block) {
  unsigned exited = 0, at_barrier = 0, in_collective = 0, at_mbarrier = 0, at_cluster_barrier = 0;
  const Thread *barrier_example = nullptr, *collective_example = nullptr, *mbarrier_example = nullptr;
  for (const Thread &thread : block.threads) {
    if (thread.state == State::EXITED) ++exited;
    if (thread.state == State::AT_BARRIER && !at_barrier++) barrier_example = &thread;
    if (thread.state == State::IN_COLLECTIVE && !in_collective++) collective_example = &thread;
    if (thread.state == State::AT_MBARRIER && !at_mbarrier++) mbarrier_example = &thread;
    if (thread.state == State::AT_CLUSTER_BARRIER) ++at_cluster_barrier;
  }
  int used =
      snprintf(block.message, sizeof block.message, "deadlock: %u of %u threads exited", exited, block.num_threads);
  if (at_barrier)
    used += snprintf(block.message + used, sizeof block.message - used, "; %u wait at a barrier, the first is %s",
                     at_barrier, describe(*barrier_example).text);
  if (in_collective)
    used +=
        snprintf(block.message + used, sizeof block.message - used, "; %u wait in a warp collective, the first is %s",
                 in_collective, describe(*collective_example).text);
  if (at_cluster_barrier)
    used += snprintf(block.message + used, sizeof block.message - used, "; %u wait for the cluster",
                     at_cluster_barrier);
  if (at_mbarrier) {
    const MbarrierState &barrier = block.mbarriers[mbarrier_example->barrier];
    snprintf(block.message + used, sizeof block.message - used,
             "; %u wait at an mbarrier, the first for phase %u, which lacks %u arrivals and %lld bytes, is %s",
             at_mbarrier, barrier.phase, barrier.pending, static_cast<long long>(barrier.bytes),
             describe(*mbarrier_example).text);
  }
  block.failed = true;
}

}  // namespace simt
