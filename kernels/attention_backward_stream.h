// What do Hopper's kernels of attention's derivatives work on, and how does it come into shared memory?
//
// A block owns 128 keys of a key/value head, or 128 rows of a head, and meets the others tile by tile. One thread has
// the copy engine bring them, as soon as their place is free.
#pragma once

#include "attention_backward_operands.h"
#include "lib/tma.h"
#include "lib/wgmma.h"

namespace gt::attention_backward {

constexpr int ROWS = WGMMA_M;          // of a warpgroup
constexpr int GROUPS = 2;              // warpgroups that multiply
constexpr int OWN = GROUPS * ROWS;
constexpr int PANEL = 64;              // columns of a swizzled tile; wider rows are several of them
constexpr int THREADS = (GROUPS + 1) * WARPGROUP_THREADS;
constexpr int CONSUMERS = GROUPS * WARPGROUP_THREADS;

// Of a pass: who owns, the tiles of what is met, and places for the first and the second operand's. The second one of
// the pass that owns rows, v, has less to wait for.
template <class T_, int WIDTH_, bool OWNS_KEYS_> struct Pass {
  using T = T_;
  static constexpr int WIDTH = WIDTH_;
  static constexpr bool OWNS_KEYS = OWNS_KEYS_;
  static constexpr int PANELS = (WIDTH + PANEL - 1) / PANEL;
  static constexpr int MET = OWNS_KEYS ? 64 : 128;
  static constexpr int FIRST_PLACES = OWNS_KEYS ? 4 : 3, SECOND_PLACES = OWNS_KEYS ? 4 : 2;
  static constexpr int NUM_SUMS = OWNS_KEYS ? 2 : 1;
  // Whether the next tile's dP waits until this one's sums have freed the registers of P and dS.
  static constexpr bool IS_NARROW = WIDTH > 96;
};

// lse in powers of two and delta of two neighbouring rows: 16 bytes. A head's rows are padded to whole tiles with rows
// whose P is 0.
struct alignas(16) RowPair {
  float lse[2], delta[2];
};
constexpr int PAIRS_PER_LINE = TILE_ROW_BYTES / static_cast<int>(sizeof(RowPair));
constexpr int LINES = ROWS / 2 / PAIRS_PER_LINE;  // of a tile of rows
__host__ __device__ constexpr int64_t padded_rows(int64_t queries) { return (queries + OWN - 1) / OWN * OWN; }

template <class P> struct Shared {
  using T = typename P::T;
  using Tile = T[P::PANELS * P::MET * PANEL];
  T own[2][P::PANELS * OWN * PANEL];              // k and v, or q and dy
  Tile first[P::FIRST_PLACES], second[P::SECOND_PLACES];  // the others
  float statistics[P::OWNS_KEYS ? P::FIRST_PLACES : 1][8 * TILE_COLUMNS<float>];  // RowPairs of the rows that are met
  Mbarrier own_full, first_full[P::FIRST_PLACES], first_free[P::FIRST_PLACES];
  Mbarrier second_full[P::SECOND_PLACES], second_free[P::SECOND_PLACES];
};

// Which of PLACES comes next, and the parity of its phase.
template <int PLACES> struct Ring {
  int place = 0;
  unsigned parity = 0;
  __device__ __forceinline__ void advance() {
    if (++place == PLACES) place = 0, parity ^= 1;
  }
};

// What a block does: tiles first_tile up to end_tile of each of num_heads heads.
struct Work {
  int sequence, head, first, num_own;  // head: of key/value heads or of query heads
  int first_tile, end_tile, first_head, num_heads;
};

template <class P, class O>
__device__ __forceinline__ Work work_of(const O &o, int num_tiles, int num_units, int units_per_band) {
  const int per_band = units_per_band * num_tiles, band = blockIdx.x / per_band, rest = blockIdx.x % per_band;
  const int units = min(units_per_band, num_units - band * units_per_band);
  const int unit = band * units_per_band + rest % units, tile = rest / units;
  Work w;
  if constexpr (P::OWNS_KEYS) {
    w.sequence = unit / o.kv_heads, w.head = unit % o.kv_heads;
    w.first = tile * OWN;
    w.num_own = min(OWN, o.num_keys - w.first);
    w.first_tile = o.is_causal ? max(w.first + o.num_queries - o.num_keys, 0) / P::MET : 0;
    w.end_tile = w.first < o.length(w.sequence) ? (o.num_queries + P::MET - 1) / P::MET : w.first_tile;
    w.first_head = w.head * o.group, w.num_heads = o.group;
  } else {
    w.sequence = unit / o.heads, w.head = unit % o.heads;
    w.first = (num_tiles - 1 - tile) * OWN;
    w.num_own = min(OWN, o.num_queries - w.first);
    w.first_tile = 0;
    w.end_tile = (o.visible(o.length(w.sequence), w.first + w.num_own - 1) + P::MET - 1) / P::MET;
    w.first_head = w.head / o.group, w.num_heads = 1;
  }
  return w;
}

// Has one tile of `rows` rows brought to each panel.
template <class P, class T>
__device__ __forceinline__ void load_panels(T *to, int rows, const TensorMap *map, Mbarrier *barrier, int row, int head,
                                            int sequence) {
#pragma unroll
  for (int panel = 0; panel < P::PANELS; ++panel) {
    const int place[5] = {panel * PANEL, row, head, sequence, 0};
    tma_load(to + panel * rows * PANEL, map, barrier, place);
  }
}

struct Maps {
  TensorMap own[2], met[2], statistics;
};

template <class P, class O>
__device__ __forceinline__ void order_tiles(Shared<P> *shared, const O &o, const Work &w, const Maps *maps) {
  constexpr int PANEL_BYTES = P::PANELS * TILE_ROW_BYTES;
  if (w.first_tile >= w.end_tile) return;
  mbarrier_arrive_expect_tx(&shared->own_full, 2 * OWN * PANEL_BYTES);
#pragma unroll
  for (int i = 0; i < 2; ++i)
    load_panels<P>(shared->own[i], OWN, &maps->own[i], &shared->own_full, w.first, w.head, w.sequence);
  Ring<P::FIRST_PLACES> first;
  Ring<P::SECOND_PLACES> second;
#pragma unroll 1
  for (int h = w.first_head; h < w.first_head + w.num_heads; ++h)
#pragma unroll 1
    for (int tile = w.first_tile; tile < w.end_tile; ++tile) {
      Mbarrier *const first_full = &shared->first_full[first.place];
      mbarrier_wait(&shared->first_free[first.place], first.parity ^ 1);
      mbarrier_arrive_expect_tx(first_full, P::MET * PANEL_BYTES + (P::OWNS_KEYS ? LINES * TILE_ROW_BYTES : 0));
      load_panels<P>(shared->first[first.place], P::MET, &maps->met[0], first_full, tile * P::MET, h, w.sequence);
      if constexpr (P::OWNS_KEYS) {
        const int tiles = static_cast<int>(padded_rows(o.num_queries)) / ROWS;
        tma_load(shared->statistics[first.place], &maps->statistics, first_full, 0,
                 ((w.sequence * o.heads + h) * tiles + tile) * LINES);
      }
      first.advance();
      Mbarrier *const second_full = &shared->second_full[second.place];
      mbarrier_wait(&shared->second_free[second.place], second.parity ^ 1);
      mbarrier_arrive_expect_tx(second_full, P::MET * PANEL_BYTES);
      load_panels<P>(shared->second[second.place], P::MET, &maps->met[1], second_full, tile * P::MET, h, w.sequence);
      second.advance();
    }
}

}  // namespace gt::attention_backward
