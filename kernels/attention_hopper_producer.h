// How do query rows, keys and values come to shared memory on Hopper, and what happens to values that some rows may not
// see?
//
// The first thread of the producer's warpgroup gives the copy engine its orders, the other three warps clean. Keys and
// values that lie in pages come box by box: 64 keys of a page, or 16 where a tile's keys are no multiple of a page; the
// page is the map's outermost coordinate. The page table is read before the wait for the place, which hides it. Boxes
// behind a sequence's last key name a page that is not there, and the copy engine fills in zeros.
#pragma once

#include "attention_hopper.h"

namespace gt::attention {

// Keys that the copy engine brings at a time.
template <int WIDTH, bool PAGED> constexpr int BOX_KEYS =
    !PAGED ? PLAN<WIDTH>.keys : PLAN<WIDTH>.keys % PAGE == 0 ? PAGE : WGMMA_K;

// The first row of each box of a tile, and its sequence or page.
template <int COUNT> struct Boxes { int row[COUNT], outermost[COUNT]; };

template <int WIDTH, bool PAGED, class T>
__device__ __forceinline__ auto boxes_of(const Operands<T> &o, const Tile &tile, int j) {
  constexpr int KEYS = PLAN<WIDTH>.keys, BOX = BOX_KEYS<WIDTH, PAGED>;
  static_assert(KEYS % BOX == 0 && (!PAGED || PAGE % BOX == 0), "a box lies in one tile and in one page");
  Boxes<KEYS / BOX> boxes;
#pragma unroll
  for (int i = 0; i < KEYS / BOX; ++i) {
    const int key = j * KEYS + i * BOX;
    boxes.row[i] = PAGED ? key % PAGE : key;
    boxes.outermost[i] = !PAGED ? tile.sequence : key < tile.num_keys ? page_of(o, tile.sequence, key) : o.num_pages;
  }
  return boxes;
}

// Has one tile of COUNT boxes of `box_rows` rows brought to each panel.
template <int WIDTH, class T, int COUNT>
__device__ __forceinline__ void load_panels(T *to, int box_rows, const TensorMap *map, Mbarrier *barrier,
                                            const Boxes<COUNT> &boxes, int unit) {
  mbarrier_arrive_expect_tx(barrier, PANELS<WIDTH> * COUNT * box_rows * TILE_ROW_BYTES);
#pragma unroll
  for (int panel = 0; panel < PANELS<WIDTH>; ++panel)
#pragma unroll
    for (int i = 0; i < COUNT; ++i) {
      const int place[5] = {panel * PANEL, 0, boxes.row[i], unit, boxes.outermost[i]};
      tma_load(to + (panel * COUNT + i) * box_rows * PANEL, map, barrier, place);
    }
}

template <class T, int WIDTH, bool PAGED>
__device__ __forceinline__ void order_tiles(Shared<T, WIDTH> *shared, const Operands<T> &o, const Schedule &schedule,
                                            const TensorMap *q_map, const TensorMap *k_map, const TensorMap *v_map) {
  constexpr Plan P = PLAN<WIDTH>;
  constexpr int BOX = BOX_KEYS<WIDTH, PAGED>;
  unsigned tile_count = 0, key_count = 0;  // tiles of rows, and of keys, so far
#pragma unroll 1
  for (int round = 0; round < schedule.num_rounds; ++round) {
    Tile tile;
    if (!tile_of<T, P.groups * ROWS, PAGED>(o, schedule, round, tile)) continue;
    const int kv_head = (tile.unit << schedule.pack_bits) / o.group, q_stage = tile_count % P.q_stages;
    const auto load_keys = [&](int j) {
      const int stage = (key_count + j) % STAGES;
      const auto boxes = boxes_of<WIDTH, PAGED>(o, tile, j);
      mbarrier_wait(&shared->k_free[stage], (key_count + j) / STAGES % 2 ^ 1);
      load_panels<WIDTH>(shared->k[stage], BOX, k_map, &shared->k_full[stage], boxes, kv_head);
    };
    if (tile.num_keys > 0) load_keys(0);
#pragma unroll
    for (int group = 0; group < P.groups; ++group) {
      mbarrier_wait(&shared->q_free[q_stage][group], tile_count / P.q_stages % 2 ^ 1);
      const int query = tile.first_query + ((tile.first_row + group * ROWS) >> schedule.pack_bits);
      load_panels<WIDTH>(shared->q[q_stage][group], ROWS, q_map, &shared->q_full[q_stage][group],
                         Boxes<1>{{query}, {PAGED ? 0 : tile.sequence}}, tile.unit);
    }
#pragma unroll 1
    for (int j = 0; j * P.keys < tile.num_keys; ++j) {
      const int stage = (key_count + j) % STAGES;
      if ((j + 1) * P.keys < tile.num_keys) load_keys(j + 1);
      const auto boxes = boxes_of<WIDTH, PAGED>(o, tile, j);
      mbarrier_wait(&shared->v_free[stage], (key_count + j) / STAGES % 2 ^ 1);
      Mbarrier *const barriers = is_partly_seen(o, tile, (j + 1) * P.keys) ? shared->v_landed : shared->v_full;
      load_panels<WIDTH>(shared->v[stage], BOX, v_map, barriers + stage, boxes, kv_head);
    }
    key_count += tile.num_tiles<P.keys>();
    ++tile_count;
  }
}

// Whether any of 8 elements is Inf or NaN: their exponents alone would carry into the sign.
template <class T> __device__ __forceinline__ bool has_nonfinite(const uint4 &x) {
  constexpr uint32_t UNIT = 0x8000u - EXPONENT<T>, BOTH = UNIT | UNIT << 16, MAGNITUDE = 0x7fff7fffu;
  return (((x.x & MAGNITUDE) + BOTH) | ((x.y & MAGNITUDE) + BOTH) | ((x.z & MAGNITUDE) + BOTH) |
          ((x.w & MAGNITUDE) + BOTH)) & 0x80008000u;
}

// Makes chunk i of a tile fit for all rows: see Numerics.
template <class T, int WIDTH>
__device__ __forceinline__ void clean_chunk(uint4 *chunk, int i, int start, int num_keys, int *first_nonfinite) {
  constexpr int KEYS = PLAN<WIDTH>.keys;
  const int row = i / 8 % KEYS, key = start + row;
  const uint4 x = *chunk;
  uint32_t words[4] = {x.x, x.y, x.z, x.w};
  int *const columns = first_nonfinite + i / 8 / KEYS * PANEL + (i % 8 ^ row % 8) * VEC<T>;
#pragma unroll
  for (int w = 0; w < 4; ++w) {
    const uint32_t mask = nonfinite_mask<T>(words[w]);
    if (mask & 1 && key < num_keys) atomicMin(columns + 2 * w, key);
    if (mask >> 31 && key < num_keys) atomicMin(columns + 2 * w + 1, key);
    words[w] &= ~mask;
  }
  *chunk = {words[0], words[1], words[2], words[3]};
}

// The whole tile. Hardly ever is there anything to do, and everybody waits for it: a few chunks at once.
template <class T, int WIDTH>
__device__ __forceinline__ void clean_values(T *v, int start, int num_keys, int *first_nonfinite) {
  constexpr int CHUNKS = PANELS<WIDTH> * PLAN<WIDTH>.keys * PANEL / VEC<T>, BATCH = 4;
  uint4 *const chunks = reinterpret_cast<uint4 *>(v);
#pragma unroll 1
  for (int first = threadIdx.x - WARP; first < CHUNKS; first += BATCH * CLEANERS) {
    unsigned found = 0;
#pragma unroll
    for (int b = 0; b < BATCH; ++b) {
      const int i = first + b * CLEANERS;
      found |= has_nonfinite<T>(chunks[i < CHUNKS ? i : first]) ? 1u << b : 0u;
    }
#pragma unroll 1
    for (int i = first; found != 0 && i < CHUNKS; i += CLEANERS, found >>= 1)
      if (found & 1) clean_chunk<T, WIDTH>(chunks + i, i, start, num_keys, first_nonfinite);
  }
}

template <class T, int WIDTH, bool PAGED>
__device__ __forceinline__ void clean_tiles(Shared<T, WIDTH> *shared, const Operands<T> &o, const Schedule &schedule) {
  constexpr Plan P = PLAN<WIDTH>;
  const int thread = threadIdx.x - WARP;
  unsigned tile_count = 0, key_count = 0, parities = 0;  // bit i: of v_landed[i]
#pragma unroll 1
  for (int round = 0; round < schedule.num_rounds; ++round) {
    Tile tile;
    if (!tile_of<T, P.groups * ROWS, PAGED>(o, schedule, round, tile)) continue;
    int *const first_nonfinite = shared->first_nonfinite[tile_count % P.q_stages];
    const int first = tile.least / P.keys;  // all tiles from here on are partly seen, or none
#pragma unroll 1
    for (int j = first; tile.least < o.num_keys && j * P.keys < tile.num_keys; ++j) {
      const int stage = (key_count + j) % STAGES;
      mbarrier_wait(&shared->v_landed[stage], parities >> stage & 1);
      parities ^= 1u << stage;
      if (j == first)  // those who read what was there have freed q since
        for (int i = thread; i < PANELS<WIDTH> * PANEL; i += CLEANERS) first_nonfinite[i] = INT32_MAX;
      named_barrier_sync(CLEANER_BARRIER, CLEANERS);
      clean_values<T, WIDTH>(shared->v[stage], j * P.keys, tile.num_keys, first_nonfinite);
      fence_async();
      named_barrier_sync(CLEANER_BARRIER, CLEANERS);
      if (thread == 0) mbarrier_arrive(&shared->v_full[stage]);
      __syncwarp();
    }
    key_count += tile.num_tiles<P.keys>();
    ++tile_count;
  }
}

}  // namespace gt::attention
