// How do the lanes of a warp exchange values?
//
// A lane that calls a collective leaves a pointer to its operands in the warp and waits; the last lane of the mask to
// arrive executes the collective for all of them. Lanes that a short last warp does not have are left out of a mask; a
// lane that has exited may not be in it (scheduler.h says why).
#pragma once

#include <type_traits>

#include "simt/scheduler.h"

namespace simt {

// Returns when all lanes of `mask` have called it and `body` has run. `operand` stays valid meanwhile.
inline void collective(uint32_t mask, const char *name, void *operand, CollectiveBody body, Site site) {
  Thread &me = *current->running;
  Warp &warp = warp_of(me);
  me.operation = name;
  me.site = site;
  if (!(mask & me.bit())) fail("the calling lane is not in its own mask 0x%08x: %s", mask, describe(me).text);
  if (mask & warp.exited)
    fail("mask 0x%08x names lane %d, which has exited: %s", mask, __builtin_ctz(mask & warp.exited), describe(me).text);
  mask &= warp.exist;
  warp.operand[me.lane()] = operand;

  Collective *group = nullptr;
  for (unsigned i = 0; i < warp.num_pending; ++i) {
    Collective &pending = warp.pending[i];
    if (!(pending.mask & mask)) continue;
    if (pending.mask != mask || pending.name != name || !(pending.site == site))
      fail("mismatched warp collectives: %s with mask 0x%08x, but lanes of mask 0x%08x wait in %s at %s:%d",
           describe(me).text, mask, pending.mask, pending.name, pending.site.file, pending.site.line);
    group = &pending;
  }
  if (!group) {
    group = &warp.pending[warp.num_pending++];
    *group = {mask, 0, name, site, body};
  }
  group->arrived |= me.bit();
  if (group->arrived == group->mask) complete(warp, *group);
  else wait_as(State::IN_COLLECTIVE);
}

template <class Operand> inline Operand &operand_of(Warp &warp, unsigned lane) {
  return *static_cast<Operand *>(warp.operand[lane]);
}

template <class F> inline void for_each_lane(uint32_t lanes, F f) {
  for (; lanes; lanes &= lanes - 1) f(static_cast<unsigned>(__builtin_ctz(lanes)));
}

// Shuffles

enum class Shuffle { INDEX, UP, DOWN, XOR };

template <class T> struct ShuffleOperand {
  T value, result;
  int argument, width;
};

template <Shuffle KIND> inline unsigned shuffle_source(unsigned lane, int argument, int width) {
  const int first = static_cast<int>(lane) & ~(width - 1);  // of the lane's segment
  int source = 0;
  switch (KIND) {
    case Shuffle::INDEX: return first + (argument & (width - 1));
    case Shuffle::UP: source = static_cast<int>(lane) - argument; break;
    case Shuffle::DOWN: source = static_cast<int>(lane) + argument; break;
    case Shuffle::XOR: source = static_cast<int>(lane) ^ argument; break;
  }
  // xor may reach back into an earlier segment, never beyond its own
  const bool inside = source < first + width && (KIND == Shuffle::XOR || source >= first);
  return inside ? static_cast<unsigned>(source) : lane;
}

template <Shuffle KIND, class T>
inline T shuffle(uint32_t mask, T value, int argument, int width, const char *name, Site site) {
  static_assert(std::is_arithmetic_v<T> || sizeof(T) == 2 || sizeof(T) == 4,
                "shuffles take scalars, bf16, half and their pairs");
  using Operand = ShuffleOperand<T>;
  if (width < 1 || width > 32 || (width & (width - 1)))
    fail("shuffle width %d is not a power of two up to 32: %s:%d", width, site.file, site.line);
  Operand mine{value, value, argument, width};
  const CollectiveBody body = [](Warp &warp, uint32_t active) {
    for_each_lane(active, [&](unsigned lane) {
      Operand &operand = operand_of<Operand>(warp, lane);
      const unsigned source = shuffle_source<KIND>(lane, operand.argument, operand.width);
      if (!(active >> source & 1))
        fail("lane %u reads lane %u, which %s: %s", lane, source,
             warp.exist >> source & 1 ? "is outside the mask" : "does not exist",
             describe(current->threads[warp.number * WARP + lane]).text);
      operand.result = operand_of<Operand>(warp, source).value;
    });
  };
  collective(mask, name, &mine, body, site);
  return mine.result;
}

// Reductions: every lane gets combine over the values of all

template <class T, class Combine> inline T reduce(uint32_t mask, T value, Combine, const char *name, Site site) {
  struct Operand { T value, result; } mine{value, value};
  const CollectiveBody body = [](Warp &warp, uint32_t active) {
    const unsigned first = __builtin_ctz(active);
    T all = operand_of<Operand>(warp, first).value;
    for_each_lane(active & (active - 1),
                  [&](unsigned lane) { all = Combine::of(all, operand_of<Operand>(warp, lane).value); });
    for_each_lane(active, [&](unsigned lane) { operand_of<Operand>(warp, lane).result = all; });
  };
  collective(mask, name, &mine, body, site);
  return mine.result;
}

struct Or { template <class T> static T of(T a, T b) { return a | b; } };
struct And { template <class T> static T of(T a, T b) { return a & b; } };
struct Xor { template <class T> static T of(T a, T b) { return a ^ b; } };
struct Min { template <class T> static T of(T a, T b) { return b < a ? b : a; } };
struct Max { template <class T> static T of(T a, T b) { return a < b ? b : a; } };
struct Add {  // wraps around, as on the device
  template <class T> static T of(T a, T b) {
    return static_cast<T>(static_cast<unsigned>(a) + static_cast<unsigned>(b));
  }
};

}  // namespace simt

inline void __syncwarp(unsigned mask = 0xffffffffu, simt::Site site = GT_SIMT_HERE) {
  simt::collective(mask, "__syncwarp", nullptr, [](simt::Warp &, uint32_t) {}, site);
}

template <class T>
inline T __shfl_sync(unsigned mask, T value, int source, int width = 32, simt::Site site = GT_SIMT_HERE) {
  return simt::shuffle<simt::Shuffle::INDEX>(mask, value, source, width, "__shfl_sync", site);
}
template <class T>
inline T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, simt::Site site = GT_SIMT_HERE) {
  return simt::shuffle<simt::Shuffle::UP>(mask, value, static_cast<int>(delta), width, "__shfl_up_sync", site);
}
template <class T>
inline T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, simt::Site site = GT_SIMT_HERE) {
  return simt::shuffle<simt::Shuffle::DOWN>(mask, value, static_cast<int>(delta), width, "__shfl_down_sync", site);
}
template <class T>
inline T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = 32, simt::Site site = GT_SIMT_HERE) {
  return simt::shuffle<simt::Shuffle::XOR>(mask, value, lane_mask, width, "__shfl_xor_sync", site);
}

inline unsigned __ballot_sync(unsigned mask, int predicate, simt::Site site = GT_SIMT_HERE) {
  return simt::reduce(mask, predicate ? simt::current->running->bit() : 0u, simt::Or(), "__ballot_sync", site);
}
inline int __any_sync(unsigned mask, int predicate, simt::Site site = GT_SIMT_HERE) {
  return simt::reduce(mask, predicate != 0 ? 1 : 0, simt::Or(), "__any_sync", site);
}
inline int __all_sync(unsigned mask, int predicate, simt::Site site = GT_SIMT_HERE) {
  return simt::reduce(mask, predicate != 0 ? 1 : 0, simt::And(), "__all_sync", site);
}

#define GT_SIMT_REDUCE(name, T, Op)                                                       \
  inline T name(unsigned mask, T value, simt::Site site = GT_SIMT_HERE) {                 \
    return simt::reduce(mask, value, simt::Op(), #name, site);                            \
  }
GT_SIMT_REDUCE(__reduce_add_sync, unsigned, Add)
GT_SIMT_REDUCE(__reduce_add_sync, int, Add)
GT_SIMT_REDUCE(__reduce_min_sync, unsigned, Min)
GT_SIMT_REDUCE(__reduce_min_sync, int, Min)
GT_SIMT_REDUCE(__reduce_max_sync, unsigned, Max)
GT_SIMT_REDUCE(__reduce_max_sync, int, Max)
GT_SIMT_REDUCE(__reduce_and_sync, unsigned, And)
GT_SIMT_REDUCE(__reduce_or_sync, unsigned, Or)
GT_SIMT_REDUCE(__reduce_xor_sync, unsigned, Xor)
#undef GT_SIMT_REDUCE
