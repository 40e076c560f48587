// In which order do the threads and blocks of a launch run?
//
// A kernel that is free of races gives the same result in every order, so the tests run it in several. The order comes
// from GATUN_SIMT_ORDER or set_order:
//   fwd         lane after lane, warp after warp, block after block; the default
//   rev         the other way round
//   rand:SEED   at every switch a runnable warp and lane drawn from SEED and the block's number; blocks permuted
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <numeric>

namespace simt {

struct Order {
  enum Kind : uint8_t { FORWARD, REVERSE, RANDOM, UNKNOWN };
  Kind kind = FORWARD;
  uint64_t seed = 0;
};

inline Order parse_order(const char *text) {
  if (!text || !*text || !strcmp(text, "fwd")) return {Order::FORWARD, 0};
  if (!strcmp(text, "rev")) return {Order::REVERSE, 0};
  if (!strncmp(text, "rand:", 5) && text[5] >= '0' && text[5] <= '9') {
    char *end;
    const uint64_t seed = strtoull(text + 5, &end, 10);
    if (!*end) return {Order::RANDOM, seed};
  }
  return {Order::UNKNOWN, 0};
}

inline Order &order() {
  static Order chosen = parse_order(getenv("GATUN_SIMT_ORDER"));
  return chosen;
}

inline void set_order(Order chosen) { order() = chosen; }

// splitmix64 (Steele, Lea, Flood 2014): one 64-bit state, good from any seed, zero included.
struct Draw {
  uint64_t state = 0;
  uint64_t next() {
    uint64_t z = state += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
  }
  unsigned below(unsigned bound) { return static_cast<unsigned>((next() >> 32) * bound >> 32); }
};

// The i-th block to run, of `total`. Random order steps through the grid by a stride coprime to its size: every block
// once, no table.
struct BlockOrder {
  Order::Kind kind;
  uint64_t total, stride = 1, offset = 0;
  BlockOrder(Order chosen, uint64_t total_) : kind(chosen.kind), total(total_) {
    if (kind != Order::RANDOM || total < 2) return;
    Draw draw{chosen.seed};
    offset = draw.next() % total;
    do stride = 1 + draw.next() % (total - 1);
    while (std::gcd(stride, total) != 1);
  }
  uint64_t at(uint64_t i) const {
    if (kind == Order::REVERSE) return total - 1 - i;
    return static_cast<uint64_t>((static_cast<unsigned __int128>(i) * stride + offset) % total);
  }
};

}  // namespace simt
