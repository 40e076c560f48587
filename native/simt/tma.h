// How does the copy engine move a tile between global and shared memory behind the threads' backs?
//
// A load only joins the list of what is in flight. It may land once some thread waits at its mbarrier: in a fixed order not
// before nobody else can run, in random order at any switch from then on, and among several in any order. Until then the
// tile holds what it held, NaN at first. A store reads shared memory when its thread waits for it, as late as it may.
// Reported: a tile or map that the hardware refuses, a load whose phase nobody waited for, a store not waited for.
#pragma once

#include <vector>

#include "simt/mbarrier.h"

namespace simt {

constexpr unsigned TILE_ROW_BYTES = 128, TILE_ALIGNMENT = 1024;

// What cuTensorMapEncodeTiled would encode: a matrix whose rows lie `stride` bytes apart, cut into tiles.
struct TensorMap {
  char *base;
  int64_t rows, columns, stride;
  unsigned element_bytes, tile_rows;
  size_t tile_bytes() const { return size_t{tile_rows} * TILE_ROW_BYTES; }
};

// 0, or cudaErrorInvalidValue where the driver would say so.
inline int make_tensor_map(TensorMap *map, const void *base, unsigned element_bytes, int64_t rows, int64_t columns,
                           int64_t stride, int tile_rows) {
  constexpr int64_t MAX_EXTENT = int64_t{1} << 32, MAX_STRIDE = int64_t{1} << 40;
  const bool is_legal = reinterpret_cast<uintptr_t>(base) % 16 == 0 && rows > 0 && rows <= MAX_EXTENT && columns > 0 &&
                        columns <= MAX_EXTENT && stride % 16 == 0 && stride < MAX_STRIDE &&
                        stride >= columns * element_bytes && tile_rows > 0 && tile_rows <= 256;
  if (!is_legal) return 1;
  *map = {static_cast<char *>(const_cast<void *>(base)), rows, columns, stride, element_bytes,
          static_cast<unsigned>(tile_rows)};
  return 0;
}

// Bits 4..6 of an address in shared memory, the place of a 16-byte chunk in its row, are mixed with bits 7..9, the row.
inline char *swizzled(char *p) {
  const uintptr_t address = reinterpret_cast<uintptr_t>(p);
  return reinterpret_cast<char *>(address ^ (address >> 7 & 7) << 4);
}

struct TileCopy {
  TensorMap map;
  char *tile;
  int64_t row, column;
  unsigned mbarrier;           // of a load
  unsigned thread, group;      // of a store: who waits for it, and with which group
  race::Ticket ticket;
  Site site;
};

// Calls f(in shared memory, in global memory) for each element of the tile; null where the matrix ends before the tile.
template <class F> inline void for_each_element(const TileCopy &copy, F f) {
  const TensorMap &map = copy.map;
  const unsigned columns = TILE_ROW_BYTES / map.element_bytes;
  for (unsigned r = 0; r < map.tile_rows; ++r)
    for (unsigned c = 0; c < columns; ++c) {
      const int64_t row = copy.row + r, column = copy.column + c;
      const bool is_inside = row >= 0 && row < map.rows && column >= 0 && column < map.columns;
      char *const global = map.base + row * map.stride + column * map.element_bytes;
      f(swizzled(copy.tile + r * TILE_ROW_BYTES + c * map.element_bytes), is_inside ? global : nullptr);
    }
}

class CopyEngine : public Engine {
 public:
  void start_block() override {
    loads_.clear();
    stores_.clear();
    group_.assign(current->num_threads, 0);
  }

  void load(char *tile, const TensorMap &map, uint64_t *mbarrier, int column, int row, Site site) {
    const race::Pause pause;
    const unsigned number = mbarrier_at(mbarrier, "tma_load", site);
    if (!current->mbarriers[number].is_fenced)
      fail("no mbarrier_fence_init after this mbarrier's initialisation: %s", describe(*current->running).text);
    const TileCopy copy = order(tile, map, column, row, site, race::Access::WRITE);
    loads_.push_back(copy);
    loads_.back().mbarrier = number;
    ++current->num_in_flight;
  }

  void store(const TensorMap &map, const char *tile, int column, int row, Site site) {
    const race::Pause pause;
    begin_call("tma_store", site);
    const TileCopy copy = order(const_cast<char *>(tile), map, column, row, site, race::Access::READ);
    stores_.push_back(copy);
    stores_.back().thread = current->running->rank;
    stores_.back().group = group_[current->running->rank];
  }

  void commit() { ++group_[current->running->rank]; }

  // All but the thread's last `pending` groups are over.
  void wait(unsigned pending, Site site) {
    const race::Pause pause;
    begin_call("tma_store_wait", site);
    const unsigned me = current->running->rank;
    size_t kept = 0;
    for (const TileCopy &copy : stores_) {
      if (copy.thread != me || copy.group + pending >= group_[me]) {
        stores_[kept++] = copy;
        continue;
      }
      for_each_element(copy, [&](const char *shared, char *global) {
        if (global) memcpy(global, shared, copy.map.element_bytes);
      });
      race::observe(me, copy.ticket);
    }
    stores_.resize(kept);
  }

  bool land_one(Block &block) override {
    const race::Pause pause;
    std::vector<size_t> &ready = ready_;
    ready.clear();
    for (size_t i = 0; i < loads_.size(); ++i)
      if (block.mbarriers[loads_[i].mbarrier].num_waiting) ready.push_back(i);
    if (ready.empty()) return false;
    const size_t chosen = block.order == Order::RANDOM    ? block.draw.below(static_cast<unsigned>(ready.size()))
                          : block.order == Order::REVERSE ? ready.size() - 1
                                                          : 0;
    const TileCopy copy = loads_[ready[chosen]];
    loads_.erase(loads_.begin() + static_cast<ptrdiff_t>(ready[chosen]));
    --block.num_in_flight;
    for_each_element(copy, [&](char *shared, const char *global) {
      if (global) memcpy(shared, global, copy.map.element_bytes);
      else memset(shared, 0, copy.map.element_bytes);
    });
    MbarrierState &barrier = block.mbarriers[copy.mbarrier];
    barrier.bytes -= static_cast<int64_t>(copy.map.tile_bytes());
    race::release(barrier.clocks, copy.ticket);
    check_phase(copy.mbarrier);
    return true;
  }

  void check_exit(Block &block, const Thread &me) override {
    for (const TileCopy &copy : stores_)
      if (copy.thread == me.rank)
        fail("thread (%u,%u,%u) [warp %u lane %u] returns and has not waited for its tma_store at %s:%d", me.index.x, me.index.y,
             me.index.z, me.warp(), me.lane(), copy.site.file, copy.site.line);
    if (block.alive > 1) return;
    for (const TileCopy &copy : loads_)
      fail("nobody has waited for the tma_load at %s:%d", copy.site.file, copy.site.line);
  }

 private:
  // Checks and books a copy between a tile and the matrix; it is the running thread's call.
  static TileCopy order(char *tile, const TensorMap &map, int column, int row, Site site, race::Access access) {
    const Thread &me = *current->running;
    const size_t bytes = map.tile_bytes();
    if (reinterpret_cast<uintptr_t>(tile) % TILE_ALIGNMENT || !is_dynamic_shared(tile, bytes))
      fail("a tile of %zu bytes must lie in dynamic shared memory, at a multiple of %u: %s", bytes, TILE_ALIGNMENT,
           describe(me).text);
    TileCopy copy{map, tile, row, column, 0, 0, 0, race::order_from_copy_engine(), site};
#if defined(GT_SIMT_ASAN)
    for_each_element(copy, [&](const char *, char *global) {
      if (global && __asan_region_is_poisoned(global, map.element_bytes))
        fail("the matrix of the tile at row %d, column %d reaches beyond its allocation: %s", row, column, describe(me).text);
    });
#endif
    race::access(copy.ticket, tile, bytes, access);
    return copy;
  }

  std::vector<TileCopy> loads_, stores_;
  std::vector<unsigned> group_;  // of each thread: the one its next store joins
  std::vector<size_t> ready_;
};

inline CopyEngine copy_engine;

}  // namespace simt
