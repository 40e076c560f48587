// What is the state of the block that is running: its threads, warps, barriers, and what each of them waits for?
//
// Blocks run one at a time on one OS thread, so there is one current block, and no lock inside it. Those of a cluster
// take turns (cluster.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "simt/fiber.h"
#include "simt/object.h"
#include "simt/order.h"
#include "simt/types.h"

namespace simt {

constexpr unsigned WARP = 32;
constexpr unsigned MAX_THREADS = 1024;
constexpr unsigned MAX_CLUSTER = 8;    // blocks, as every GPU that has clusters knows them
constexpr unsigned NUM_BARRIERS = 16;  // number 0 is __syncthreads, as in PTX

// A place in a kernel. As a default argument, HERE is the caller's.
struct Site {
  const char *file = nullptr;
  int line = 0;
  bool operator==(const Site &other) const {
    return line == other.line && (file == other.file || !strcmp(file, other.file));
  }
};
#define GT_SIMT_HERE {__builtin_FILE(), __builtin_LINE()}

enum class State : uint8_t { RUNNABLE, IN_COLLECTIVE, AT_BARRIER, AT_MBARRIER, AT_CLUSTER_BARRIER, EXITED };

struct Thread {
  Fiber fiber;
  uint3 index{};             // threadIdx
  unsigned rank = 0;         // threadIdx, linear
  State state = State::RUNNABLE;
  unsigned barrier = 0;      // when AT_BARRIER or AT_MBARRIER: which
  const char *operation = "start";  // the last synchronisation it called, and where: for reports
  Site site;
  bool has_arrived = false;  // at the cluster's barrier, for which it has not waited yet

  unsigned warp() const { return rank / WARP; }
  unsigned lane() const { return rank % WARP; }
  uint32_t bit() const { return 1u << lane(); }
};

struct Warp;
// Executes a collective for every lane of `active`, whose operands lie in warp.operand.
using CollectiveBody = void (*)(Warp &warp, uint32_t active);

// Lanes that wait for each other at one warp collective.
struct Collective {
  uint32_t mask = 0, arrived = 0;
  const char *name = nullptr;
  Site site;
  CollectiveBody body = nullptr;
};

struct Warp {
  unsigned number = 0;
  uint32_t exist = 0, ready = 0, exited = 0;  // lane masks; exist: the last warp of a block may be short
  unsigned num_pending = 0;
  Collective pending[WARP];  // disjoint masks
  void *operand[WARP] = {};  // on the stack of the lane, which waits
};

struct Barrier {
  unsigned arrived = 0, expected = 0;
  Thread *first = nullptr;             // to arrive
  unsigned votes = 0, result = 0;      // __syncthreads_count and its kin: of this round, of the last
  unsigned of_warp[MAX_THREADS / WARP] = {};  // who has arrived, at a named one
  std::vector<uint32_t> clocks;        // race builds: what the arrived threads had seen
};

// What an mbarrier counts; in shared memory lies only its number (mbarrier.h).
struct MbarrierState {
  const void *address = nullptr;
  unsigned count = 0, pending = 0;   // arrivals of a phase; those that are still missing
  int64_t bytes = 0;                 // announced and not yet landed; below 0: landed first
  unsigned phase = 0;
  unsigned num_waiting = 0;          // threads, for this phase
  bool is_fenced = false;            // the copy engine may know of it
  bool is_observed = true;           // somebody has waited for the last phase that is over
  unsigned initialised_by = 0;
  std::vector<uint32_t> clocks, clocks_of_last_phase;  // race builds: what those who arrived had seen
};

struct Cluster;

struct Block {
  dim3 grid_extent, extent;
  uint3 index{};
  unsigned num_threads = 0, num_warps = 0, alive = 0;
  Cluster *cluster = nullptr;
  unsigned rank = 0, num_in_cluster = 1;  // which of how many
  std::vector<Thread> threads;
  std::vector<Warp> warps;
  Barrier barriers[NUM_BARRIERS];
  std::vector<MbarrierState> mbarriers;
  unsigned num_in_flight = 0;  // operations that land while the threads do something else (engine.h)
  Thread *running = nullptr;
  void *dynamic_shared = nullptr;
  size_t dynamic_shared_bytes = 0;
  const std::vector<SharedVariable> *static_shared = nullptr;
  std::vector<char> static_aside;  // what is in them, while another block of the cluster runs

  void (*kernel)(void *arguments) = nullptr;
  void *arguments = nullptr;

  Order::Kind order = Order::FORWARD;
  Draw draw;
  StackPool stacks;
  Fiber host;                 // whoever called launch
  bool failed = false;
  char message[1024] = "";
  // Race builds: the two accesses, turned into file and line once back on the host's stack.
  const void *racing_pc[2] = {};
};

inline Block *current = nullptr;  // null outside a launch

inline Warp &warp_of(const Thread &thread) { return current->warps[thread.warp()]; }
inline void *dynamic_shared() { return current->dynamic_shared; }

}  // namespace simt

#define threadIdx (simt::current->running->index)
#define blockIdx (simt::current->index)
#define blockDim (simt::current->extent)
#define gridDim (simt::current->grid_extent)
static constexpr int warpSize = 32;
