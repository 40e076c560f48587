// How does the copy engine move a tile between global and shared memory behind the threads' backs?
//
// A load only joins the list of what is in flight. It may land once some thread waits at its mbarrier: in a fixed order
// not before nobody else can run, in random order at any switch from then on, and among several in any order. Until
// then the tile holds what it held, NaN at first. A store reads shared memory when its thread waits for it, as late as
// it may. Reported: a tile or map that the hardware refuses, a load whose phase nobody waited for, a store not waited
// for by a thread that returns or passes its turn on, and a bulk copy that follows a turn without fence_async_global.
#pragma once

#include <vector>

#include "simt/mbarrier.h"

namespace simt {

constexpr unsigned TILE_ROW_BYTES = 128, TILE_ALIGNMENT = 1024;

constexpr int MAX_RANK = 5;

// What cuTensorMapEncodeTiled would encode: a tensor whose elements lie stride[i] bytes apart in dimension i, cut into
// boxes.
struct TensorMap {
  char *base;
  int64_t extent[MAX_RANK], stride[MAX_RANK];
  unsigned box[MAX_RANK], rank, element_bytes;

  unsigned tile_rows() const { return box[1] * box[2] * box[3] * box[4]; }
  size_t tile_bytes() const { return size_t{tile_rows()} * TILE_ROW_BYTES; }
};

// Dimension i + 1 has `stride[i]` elements from one to the next and box[i] of a tile. 0, or cudaErrorInvalidValue where
// the driver would say so.
inline int make_tensor_map(TensorMap *map, const void *base, unsigned element_bytes, int rank, const int64_t *extent,
                           const int64_t *stride, const int *box) {
  constexpr int64_t MAX_EXTENT = int64_t{1} << 32, MAX_STRIDE = int64_t{1} << 40;
  *map = {static_cast<char *>(const_cast<void *>(base)), {1, 1, 1, 1, 1}, {element_bytes}, {1, 1, 1, 1, 1},
          static_cast<unsigned>(rank), element_bytes};
  map->box[0] = TILE_ROW_BYTES / element_bytes;
  bool is_legal = reinterpret_cast<uintptr_t>(base) % 16 == 0;
  for (int i = 0; i < rank; ++i) {
    map->extent[i] = extent[i];
    is_legal &= extent[i] > 0 && extent[i] <= MAX_EXTENT;
    if (i == 0) continue;
    map->stride[i] = stride[i - 1] * element_bytes;
    map->box[i] = static_cast<unsigned>(box[i - 1]);
    is_legal &= map->stride[i] > 0 && map->stride[i] % 16 == 0 && map->stride[i] < MAX_STRIDE && box[i - 1] > 0 &&
                box[i - 1] <= 256;
  }
  return is_legal && map->stride[1] >= extent[0] * element_bytes ? 0 : 1;
}

// Bits 4..6 of an address in shared memory, the place of a 16-byte chunk in its row, are mixed with bits 7..9, the row.
inline char *swizzled(char *p) {
  const uintptr_t address = reinterpret_cast<uintptr_t>(p);
  return reinterpret_cast<char *>(address ^ (address >> 7 & 7) << 4);
}

struct Place { int64_t at[MAX_RANK]; };  // of a tile's first element, per dimension

// Floats on their way from shared memory, into global memory or to be added there.
struct BulkCopy {
  float *to;
  const float *from;
  int count;
  bool adds, is_read;
  std::vector<float> data;  // once they have been read
  unsigned thread, group;
  race::Ticket ticket;
  Site site;
};

struct TileCopy {
  TensorMap map;
  char *tile;
  Place place;
  unsigned mbarrier;           // of a load
  unsigned thread, group;      // of a store: who waits for it, and with which group
  race::Ticket ticket;
  Site site;
};

// Calls f(in shared memory, in global memory) for each element of the tile; null where the tensor ends before the tile.
template <class F> inline void for_each_element(const TileCopy &copy, F f) {
  const TensorMap &map = copy.map;
  for (unsigned r = 0; r < map.tile_rows(); ++r) {
    bool row_is_inside = true;
    char *row = map.base;
    unsigned rest = r;
    for (unsigned i = 1; i < map.rank; ++i) {
      const int64_t at = copy.place.at[i] + rest % map.box[i];
      rest /= map.box[i];
      row_is_inside &= at >= 0 && at < map.extent[i];
      row += at * map.stride[i];
    }
    for (unsigned c = 0; c < map.box[0]; ++c) {
      const int64_t column = copy.place.at[0] + c;
      const bool is_inside = row_is_inside && column >= 0 && column < map.extent[0];
      f(swizzled(copy.tile + r * TILE_ROW_BYTES + c * map.element_bytes),
        is_inside ? row + column * map.element_bytes : nullptr);
    }
  }
}

class CopyEngine : public Engine {
 public:
  void start_block() override {
    loads_.clear();
    stores_.clear();
    bulks_.clear();
    group_.assign(current->num_threads, 0);
    knows_of_others_.assign(current->num_threads, false);
  }

  void load(char *tile, const TensorMap &map, uint64_t *mbarrier, unsigned rank, const Place &place, Site site) {
    const race::Pause pause;
    const unsigned number = mbarrier_at(mbarrier, "tma_load", site);
    if (!current->mbarriers[number].is_fenced)
      fail("no mbarrier_fence_init after this mbarrier's initialisation: %s", describe(*current->running).text);
    const TileCopy copy = order(tile, map, rank, place, site, race::Access::WRITE);
    loads_.push_back(copy);
    loads_.back().mbarrier = number;
    ++current->num_in_flight;
  }

  void store(const TensorMap &map, const char *tile, unsigned rank, const Place &place, Site site) {
    const race::Pause pause;
    begin_call("tma_store", site);
    for (unsigned i = 0; i < rank; ++i)
      if (place.at[i] < 0)
        fail("a store at %lld of dimension %u, expected at least 0; a load may begin before the matrix: %s",
             static_cast<long long>(place.at[i]), i, describe(*current->running).text);
    const TileCopy copy = order(const_cast<char *>(tile), map, rank, place, site, race::Access::READ);
    stores_.push_back(copy);
    stores_.back().thread = current->running->rank;
    stores_.back().group = group_[current->running->rank];
  }

  void bulk(float *to, const float *from, int count, bool adds, Site site) {
    const race::Pause pause;
    begin_call(adds ? "bulk_add" : "bulk_store", site);
    expect_no_cluster("the copy engine");
    const Thread &me = *current->running;
    const size_t bytes = static_cast<size_t>(count) * sizeof(float);
    if (knows_of_others_[me.rank])
      fail("no fence_async_global since the thread's turn came: %s", describe(me).text);
    if (count <= 0 || count % 4 || reinterpret_cast<uintptr_t>(to) % 16 || reinterpret_cast<uintptr_t>(from) % 16 ||
        !is_dynamic_shared(from, bytes))
      fail("%d floats, expected a multiple of 4, at multiples of 16 bytes, from dynamic shared memory: %s", count,
           describe(me).text);
#if defined(GT_SIMT_ASAN)
    if (__asan_region_is_poisoned(to, bytes))
      fail("%d floats reach beyond the allocation they go to: %s", count, describe(me).text);
#endif
    const race::Ticket ticket = race::order_from_copy_engine();
    bulks_.push_back({to, from, count, adds, false, {}, me.rank, group_[me.rank], ticket, site});
    race::access(bulks_.back().ticket, from, bytes, race::Access::READ);
  }

  // What other blocks' copy engines have done is visible to the running thread, but not to what it orders.
  void turn_came() { knows_of_others_[current->running->rank] = true; }
  void fence_global() { knows_of_others_[current->running->rank] = false; }

  // The running thread tells other blocks that its stores and additions are over.
  void expect_over() {
    const Thread &me = *current->running;
    for (const TileCopy &copy : stores_)
      if (copy.thread == me.rank)
        fail("has not waited for its tma_store at %s:%d: %s", copy.site.file, copy.site.line, describe(me).text);
    for (const BulkCopy &copy : bulks_)
      if (copy.thread == me.rank)
        fail("has not waited for its bulk copy at %s:%d: %s", copy.site.file, copy.site.line, describe(me).text);
  }

  // All but the thread's last `pending` groups of floats have been read.
  void read_wait(unsigned pending, Site site) {
    const race::Pause pause;
    begin_call("bulk_read_wait", site);
    read_bulks(pending);
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
    read_bulks(pending);
    for (size_t i = 0; i < bulks_.size();) {
      const BulkCopy &copy = bulks_[i];
      if (copy.thread != me || copy.group + pending >= group_[me]) {
        ++i;
        continue;
      }
      for (int j = 0; j < copy.count; ++j) copy.to[j] = copy.adds ? copy.to[j] + copy.data[j] : copy.data[j];
      bulks_.erase(bulks_.begin() + static_cast<ptrdiff_t>(i));
    }
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
        fail("thread (%u,%u,%u) [warp %u lane %u] returns and has not waited for its tma_store at %s:%d", me.index.x,
             me.index.y, me.index.z, me.warp(), me.lane(), copy.site.file, copy.site.line);
    for (const BulkCopy &copy : bulks_)
      if (copy.thread == me.rank)
        fail("returns and has not waited for its bulk copy at %s:%d: %s", copy.site.file, copy.site.line,
             describe(me).text);
    if (block.alive > 1) return;
    for (const TileCopy &copy : loads_)
      fail("nobody has waited for the tma_load at %s:%d", copy.site.file, copy.site.line);
    for (const MbarrierState &barrier : block.mbarriers)
      if (barrier.bytes)
        fail("the block ends while phase %u of an mbarrier of %u arrivals lacks %lld bytes", barrier.phase,
             barrier.count, static_cast<long long>(barrier.bytes));
  }

 private:
  void read_bulks(unsigned pending) {
    const unsigned me = current->running->rank;
    for (BulkCopy &copy : bulks_) {
      if (copy.thread != me || copy.is_read || copy.group + pending >= group_[me]) continue;
      copy.data.assign(copy.from, copy.from + copy.count);
      copy.is_read = true;
      race::observe(me, copy.ticket);
    }
  }

  // Checks and books a copy between a tile and the tensor; it is the running thread's call.
  static TileCopy order(char *tile, const TensorMap &map, unsigned rank, const Place &place, Site site,
                        race::Access access) {
    const Thread &me = *current->running;
    expect_no_cluster("the copy engine");
    const size_t bytes = map.tile_bytes();
    if (map.rank != rank) fail("a tensor map of %u dimensions, asked for %u: %s", map.rank, rank, describe(me).text);
    if (reinterpret_cast<uintptr_t>(tile) % TILE_ALIGNMENT || !is_dynamic_shared(tile, bytes))
      fail("a tile of %zu bytes must lie in dynamic shared memory, at a multiple of %u: %s", bytes, TILE_ALIGNMENT,
           describe(me).text);
    if (place.at[0] * map.element_bytes % 16)
      fail("column %lld, expected a multiple of 16 bytes: %s", static_cast<long long>(place.at[0]), describe(me).text);
    TileCopy copy{map, tile, place, 0, 0, 0, race::order_from_copy_engine(), site};
#if defined(GT_SIMT_ASAN)
    for_each_element(copy, [&](const char *, char *global) {
      if (global && __asan_region_is_poisoned(global, map.element_bytes))
        fail("the matrix of the tile at row %d, column %d reaches beyond its allocation: %s",
             static_cast<int>(place.at[1]), static_cast<int>(place.at[0]), describe(me).text);
    });
#endif
    race::access(copy.ticket, tile, bytes, access);
    return copy;
  }

  std::vector<TileCopy> loads_, stores_;
  std::vector<BulkCopy> bulks_;
  std::vector<unsigned> group_;  // of each thread: the one its next store joins
  std::vector<bool> knows_of_others_;  // of each thread: since fence_global
  std::vector<size_t> ready_;
};

inline CopyEngine copy_engine;

}  // namespace simt
