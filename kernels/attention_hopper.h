// Which work has a block of attention on Hopper, and where does it keep what it works on?
//
// Blocks are persistent and take a tile of query rows a round, in an order that all know. In dense attention all
// sequences have equally many rows and the host counts them. Against a paged cache only the device knows how many rows
// a sequence has: the host gives rounds enough for any split of N rows among B sequences, and a block looks its tile up
// in query_start.
#pragma once

#include "attention_tile.h"
#include "lib/barrier.h"
#include "lib/wgmma.h"

namespace gt::attention {

constexpr int ROWS = WGMMA_M;                  // of a warpgroup
constexpr int PANEL = 64;                      // columns of a swizzled tile; wider rows are several of them
constexpr int STAGES = 2;                      // tiles of k, and of v, in shared memory

// Per width: warpgroups of rows, keys of a tile, places of q, registers of a thread (64 Ki for all).
struct Plan { int groups, keys, q_stages, producer_registers, consumer_registers; };
template <int WIDTH> constexpr Plan PLAN = {2, 128, 2, 40, 232};
template <> constexpr Plan PLAN<64> = {3, 128, 2, 32, 160};   // 113 KiB
template <> constexpr Plan PLAN<256> = {2, 80, 1, 40, 232};   // 225 KiB

template <int WIDTH> constexpr int PANELS = (WIDTH + PANEL - 1) / PANEL;
template <int WIDTH> constexpr int THREADS = (PLAN<WIDTH>.groups + 1) * WARPGROUP_THREADS;

// A block starts with equal shares, in eights, of 64 Ki registers. Whoever asks for more than others have given back
// waits for ever.
template <int WIDTH> constexpr bool HAS_REGISTERS =
    PLAN<WIDTH>.producer_registers + PLAN<WIDTH>.groups * PLAN<WIDTH>.consumer_registers <=
    (PLAN<WIDTH>.groups + 1) * (65536 / THREADS<WIDTH> / 8 * 8);

template <class T, int WIDTH> struct Shared {
  static constexpr Plan P = PLAN<WIDTH>;
  T q[P.q_stages][P.groups][PANELS<WIDTH> * ROWS * PANEL];
  T k[STAGES][PANELS<WIDTH> * P.keys * PANEL];
  T v[STAGES][PANELS<WIDTH> * P.keys * PANEL];
  int first_nonfinite[P.q_stages][PANELS<WIDTH> * PANEL];  // key, per column, of the partly seen tiles
  Mbarrier q_full[P.q_stages][P.groups], q_free[P.q_stages][P.groups];
  Mbarrier k_full[STAGES], k_free[STAGES], v_full[STAGES], v_free[STAGES];
  Mbarrier v_landed[STAGES];  // instead of v_full where the tile is cleaned first
};

// Numbers of named barriers: the turns of the groups, each group's own, the cleaners'.
constexpr int TURN_BARRIER = 1, GROUP_BARRIER = 4, CLEANER_BARRIER = 7;
constexpr int CLEANERS = WARPGROUP_THREADS - WARP;

// The work of all blocks: tiles of rows of units. A unit is 2^pack_bits heads, with one key/value head, of a sequence
// (paged: of all sequences one after the other, and num_tiles as many as they may need).
struct Schedule {
  int pack_bits, units_per_sequence, num_units, num_tiles;  // num_tiles: of a unit
  int units_per_band, rounds_per_band, num_rounds;     // a block does at most one tile per round
};

struct Tile {
  int sequence, first_query, unit, first_row, num_rows;  // first_query: of the sequence in q; dense has a dim for it
  int num_keys, least;  // keys that any, and that every row sees

  template <int KEYS> __device__ __forceinline__ int num_tiles() const { return (num_keys + KEYS - 1) / KEYS; }
};

template <bool PAGED, class T>
__device__ __forceinline__ int visible_keys(const Operands<T> &o, int sequence, int query) {
  if constexpr (PAGED) return max(o.positions[query] + 1, 0);
  const int length = o.key_lengths ? min(max(o.key_lengths[sequence], 0), o.num_keys) : o.num_keys;
  return o.is_causal ? min(max(query + 1 - o.num_queries + o.num_keys, 0), length) : length;
}

// The tile of a round of dense attention; false: none.
template <class T, int TILE_ROWS>
__device__ __forceinline__ bool find_rows(const Operands<T> &o, const Schedule &s, int round, int place, Tile &tile) {
  const int blocks = gridDim.x;
  const int first_unit = round / s.rounds_per_band * s.units_per_band;
  const int units = min(s.units_per_band, s.num_units - first_unit);
  const int index = round % s.rounds_per_band * blocks + place, divisor = o.is_causal ? units : s.num_tiles;
  if (index >= units * s.num_tiles) return false;
  const int high = index / divisor, low = index % divisor;
  const int unit = first_unit + (o.is_causal ? low : high);
  tile.sequence = unit / s.units_per_sequence;
  tile.first_query = 0;
  tile.unit = unit % s.units_per_sequence;
  tile.first_row = (o.is_causal ? s.num_tiles - 1 - high : low) * TILE_ROWS;
  tile.num_rows = min(TILE_ROWS, (o.num_queries << s.pack_bits) - tile.first_row);
  return true;
}

// The same of paged attention. The last rows of the last sequence come first, tiles that nobody needs last.
template <class T, int TILE_ROWS>
__device__ __forceinline__ bool find_paged_rows(const Operands<T> &o, const Schedule &s, int round, int place,
                                                Tile &tile) {
  const int index = round * gridDim.x + place;
  tile.unit = index % s.num_units;
  int left = index / s.num_units, end = o.query_start[o.num_sequences];
#pragma unroll 1
  for (tile.sequence = o.num_sequences - 1; tile.sequence >= 0; --tile.sequence, end = tile.first_query) {
    tile.first_query = o.query_start[tile.sequence];
    const int rows = (end - tile.first_query) << s.pack_bits, tiles = (rows + TILE_ROWS - 1) / TILE_ROWS;
    if (left < tiles) {
      tile.first_row = (tiles - 1 - left) * TILE_ROWS;
      tile.num_rows = min(TILE_ROWS, rows - tile.first_row);
      return true;
    }
    left -= tiles;
  }
  return false;
}

// This block's tile of a round; false: none. Every other round the blocks stand in reverse order: tiles get shorter.
template <class T, int TILE_ROWS, bool PAGED>
__device__ __forceinline__ bool tile_of(const Operands<T> &o, const Schedule &s, int round, Tile &tile) {
  const int place = round % 2 ? gridDim.x - 1 - blockIdx.x : blockIdx.x;
  if constexpr (PAGED) {
    if (!find_paged_rows<T, TILE_ROWS>(o, s, round, place, tile)) return false;
  } else {
    if (!find_rows<T, TILE_ROWS>(o, s, round, place, tile)) return false;
  }
  const auto keys_of = [&](int row) {
    return visible_keys<PAGED>(o, tile.sequence, tile.first_query + (row >> s.pack_bits));
  };
  tile.least = keys_of(tile.first_row);
  tile.num_keys = keys_of(tile.first_row + tile.num_rows - 1);
  return true;
}

// Whether the tile of values that ends before `end` has some that not every row sees. Beyond S there are only zeros.
template <class T> __device__ __forceinline__ bool is_partly_seen(const Operands<T> &o, const Tile &tile, int end) {
  return min(end, o.num_keys) > tile.least;
}

}  // namespace gt::attention
