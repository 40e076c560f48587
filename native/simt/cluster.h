// How do the blocks of a cluster run, and how do they reach each other's shared memory?
//
// One after another, each until all its threads wait at the cluster's barrier; when all blocks are there, in turns
// again. Of static shared memory there is one copy, which is put aside with its block. A store to another block lands
// as late as it may, when the barrier behind it is over; in reverse order at once, in random one or the other.
// Reported: remote accesses before the first barrier (the other block may not have begun), to a block that has
// returned, or with no barrier behind them before a block returns; and, in race builds, what race.h says of clusters.
#pragma once

#include <cstring>
#include <vector>

#include "simt/engine.h"
#include "simt/scheduler.h"
#include "simt/shared.h"
#include "simt/shared_address.h"

namespace simt {

// Not yet part of the memory it goes to, or only read from there.
struct RemoteAccess {
  Block *block;    // whose memory it is
  char *to;        // of a store, once that block has been put aside
  size_t bytes;    // of a load 0
  uint64_t value;
  Text made_by;
};

struct Cluster {
  std::vector<Block *> blocks;
  unsigned num_barriers = 0;  // that are over
  std::vector<RemoteAccess> open;  // since the last of them
};

struct ClusterBarrier : Engine {
  void start_block() override {}
  void check_exit(Block &, const Thread &thread) override {
    if (thread.has_arrived) fail("returns between cluster_arrive and cluster_wait: %s", describe(thread).text);
  }
};
inline ClusterBarrier cluster_barrier;

// Threads

inline void cluster_arrive(Site site) {
  begin_call("cluster_arrive", site);
  Thread &me = *current->running;
  if (me.has_arrived) fail("arrives twice at the cluster's barrier, no cluster_wait between: %s", describe(me).text);
  me.has_arrived = true;
}

inline void cluster_wait(Site site) {
  begin_call("cluster_wait", site);
  Thread &me = *current->running;
  if (!me.has_arrived) fail("cluster_wait without cluster_arrive: %s", describe(me).text);
  wait_as(State::AT_CLUSTER_BARRIER);
  me.has_arrived = false;
}

// Where the running block's `own` lies in `block`'s memory while that is put aside.
inline char *address_aside(Block &block, void *own) {
  char *const p = static_cast<char *>(own);
  if (is_dynamic_shared(own, 1))
    return static_cast<char *>(block.dynamic_shared) + (p - static_cast<char *>(current->dynamic_shared));
  if (block.num_in_cluster == 1) return p;
  size_t begin = 0;
  for (const SharedVariable &variable : *block.static_shared) {
    if (lies_in(own, 1, variable.address, variable.bytes)) return &block.static_aside[begin + (p - variable.address)];
    begin += variable.bytes;
  }
  return nullptr;  // check_remote has seen to it that it lies in one of them
}
inline char *address_now(Block &block, void *own) {
  return &block == current ? static_cast<char *>(own) : address_aside(block, own);
}

// The block of that rank, once the running thread may reach it.
inline Block &check_remote(const void *own, size_t bytes, unsigned rank, const char *operation, Site site) {
  begin_call(operation, site);
  const Thread &me = *current->running;
  const Cluster &cluster = *current->cluster;
  if (!is_shared(own, bytes) || reinterpret_cast<uintptr_t>(own) % bytes)
    fail("%zu aligned bytes of shared memory expected: %s", bytes, describe(me).text);
  if (rank >= cluster.blocks.size())
    fail("block %u of a cluster of %zu: %s", rank, cluster.blocks.size(), describe(me).text);
  if (cluster.num_barriers == 0)
    fail("block %u of the cluster may not have begun: no barrier of the cluster before %s", rank, describe(me).text);
  if (me.has_arrived) fail("between cluster_arrive and cluster_wait: %s", describe(me).text);
  Block &block = *cluster.blocks[rank];
  if (block.alive == 0) fail("block %u of the cluster has returned: %s", rank, describe(me).text);
  return block;
}

inline void cluster_store(void *own, unsigned rank, const void *value, size_t bytes, Site site) {
  const race::Pause pause;
  Block &block = check_remote(own, bytes, rank, "cluster_store", site);
  race::access_remote(block, own, bytes, race::Access::WRITE);
  RemoteAccess store{&block, address_aside(block, own), bytes, 0, describe(*current->running)};
  memcpy(&store.value, value, bytes);
  const Order::Kind order = current->order;
  if (order == Order::REVERSE || (order == Order::RANDOM && current->draw.below(2)))
    memcpy(address_now(block, own), value, bytes);
  current->cluster->open.push_back(store);
}

inline void cluster_load(void *to, const void *own, unsigned rank, size_t bytes, Site site) {
  const race::Pause pause;
  Block &block = check_remote(own, bytes, rank, "cluster_load", site);
  race::access_remote(block, own, bytes, race::Access::READ);
  memcpy(to, address_now(block, const_cast<void *>(own)), bytes);
  current->cluster->open.push_back({&block, nullptr, 0, 0, describe(*current->running)});
}

// The host's stack

template <class F> inline void for_each_static(Block &block, F f) {
  if (block.num_in_cluster == 1) return;
  char *aside = block.static_aside.data();
  for (const SharedVariable &variable : *block.static_shared) {
    f(variable.address, aside, variable.bytes);
    aside += variable.bytes;
  }
}
inline void put_static_aside(Block &block) {
  for_each_static(block, [](char *variable, char *aside, size_t bytes) { memcpy(aside, variable, bytes); });
}
inline void take_static_back(Block &block) {
  for_each_static(block, [](char *variable, const char *aside, size_t bytes) { memcpy(variable, aside, bytes); });
}

// All have come to the barrier, or returned. False: block.failed and block.message of the one it went wrong with.
inline bool end_phase(Cluster &cluster) {
  for (const RemoteAccess &access : cluster.open) {
    if (access.block->alive == 0) {
      snprintf(access.block->message, sizeof access.block->message,
               "returned while another block may still have reached its memory: %s", access.made_by.text);
      current = access.block;
      access.block->failed = true;
      return false;
    }
    if (access.bytes) memcpy(access.to, &access.value, access.bytes);
  }
  cluster.open.clear();
  ++cluster.num_barriers;
  race::end_phase();
  for (Block *block : cluster.blocks) {
    current = block;
    for (Thread &thread : block->threads)
      if (thread.state == State::AT_CLUSTER_BARRIER) wake(thread);
  }
  return true;
}

// Runs blocks that have been started to their ends. False: `current` has failed.
inline bool run_cluster(Cluster &cluster, Order chosen, uint64_t number) {
  Draw draw{chosen.seed + number};
  const auto is_alive = [](const Block *block) { return block->alive > 0; };
  const auto alive = [&] { return std::any_of(cluster.blocks.begin(), cluster.blocks.end(), is_alive); };
  while (alive()) {
    const BlockOrder order({chosen.kind, draw.next()}, cluster.blocks.size());
    for (uint64_t i = 0; i < order.total; ++i) {
      Block &block = *cluster.blocks[order.at(i)];
      if (!is_alive(&block)) continue;
      current = &block;
      take_static_back(block);
      run_block(block);
      put_static_aside(block);
      race::pause_block();
      if (block.failed) return false;
    }
    if ((alive() || !cluster.open.empty()) && !end_phase(cluster)) return false;
  }
  return true;
}

}  // namespace simt
