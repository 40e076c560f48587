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
  bool is_waited_for = false;
  bool has_waited[MAX_THREADS] = {};

  void start_block() override {
    is_waited_for = false;
    std::fill_n(has_waited, current->num_threads, false);
    race::watch_waits(is_dependent && !written_in_front.empty() ? has_waited : nullptr);
  }
  void check_exit(Block &, const Thread &thread) override {
    if (has_waited[thread.rank]) {
      is_waited_for = true;
    } else if (is_dependent || is_waited_for) {
      fail("returns without having waited for the grids before its own: %s", describe(thread).text);
    }
  }
};
inline GridDependencies grid_dependencies;

inline void grid_dependency_wait(Site site) {
  begin_call("griddepcontrol.wait", site);
  grid_dependencies.is_waited_for = grid_dependencies.has_waited[current->running->rank] = true;
}

}  // namespace simt
