// Which threads have waited for the grids in front of theirs?
//
// Grids run one after the other here, so that a wait has nothing to wait for. Reported: a thread that returns without
// having waited, in a grid of launch_dependent (the native tests; a stream of softgpu forgets how a grid was launched)
// or where another thread of its block waits; and one that does too early what graph_memory.h says.
#pragma once

#include <algorithm>

#include "simt/engine.h"
#include "simt/graph_memory.h"
#include "simt/race.h"
#include "simt/shared_address.h"

namespace simt {

struct GridDependencies : Engine {
  bool is_dependent = false;  // the grid that is being launched
  bool is_waited_for[MAX_CLUSTER] = {};            // in each block of a cluster
  bool has_waited[MAX_CLUSTER][MAX_THREADS] = {};

  void start_block() override {
    is_waited_for[current->rank] = false;
    std::fill_n(has_waited[current->rank], current->num_threads, false);
  }
  void resume_block() override {
    race::watch_waits(is_dependent && !written_in_front.empty() ? has_waited[current->rank] : nullptr);
  }
  void check_exit(Block &block, const Thread &thread) override {
    if (has_waited[block.rank][thread.rank]) {
      is_waited_for[block.rank] = true;
    } else if (is_dependent || is_waited_for[block.rank]) {
      fail("returns without having waited for the grids before its own: %s", describe(thread).text);
    }
  }
};
inline GridDependencies grid_dependencies;

inline void grid_dependency_wait(Site site) {
  begin_call("griddepcontrol.wait", site);
  const unsigned block = current->rank;
  grid_dependencies.is_waited_for[block] = grid_dependencies.has_waited[block][current->running->rank] = true;
}

}  // namespace simt
