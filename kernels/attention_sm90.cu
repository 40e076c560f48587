// Dense attention on Hopper's tensor cores and copy engine.
//
// Computes    gatun/attention.h, without bias: online softmax over tiles of keys
// Shapes      as in gatun/attention.h, as far as launch_hopper takes them: D a multiple of 8 up to 128 or from 200 to
//             256, rows of q, k and v at multiples of 16 bytes, scale > 0; attention.cu has the rest
// Types       bf16, f16. Scores, sums and outputs in f32; powers are rounded to the dtype before they meet the values
// Mapping     a persistent block per SM. Warpgroup 0 has the copy engine bring q, and k and v tile by tile; each of 2
//             or 3 others owns 64 query rows. A row is a query of one head; up to 64 heads of a group are neighbours in
//             a tile, so that short queries fill it. A warpgroup orders the scores of the next tile and the values of
//             this one together, and does its softmax while both run; the groups take turns (named barriers), so that
//             one's softmax meets the other's products; a group leaves out keys that none of its rows sees. Causal:
//             the longest tiles first, in bands of heads whose keys fit in L2
// Memory      q once, k and v once per tile of rows, mostly from L2; y leaves through the place of q. Shared: see PLAN
// Numerics    powers of two, log2(e) in the scale, one fma each; only tiles that some row sees in part are masked. Keys
//             ascend in tiles of fixed size from position 0 on: a row's bits depend on D, its own query and keys alone.
//             Values that not all rows of a tile of rows see are read by warps of the producer first: what is NaN or
//             Inf becomes 0, and its column NaN in the rows that see it. A row without keys gives zeros and lse = -inf.
//             Off by a rounding from attention.cu, so the dispatch asks for D, dtype and alignment, never for B, T or S
// Limits      S and T H / G below 2^31, tiles below 2^30; sm_90a
// Source      Shah et al. 2024 (arXiv 2407.08608). On an H200, B 4, H 16, S 8192, D 128, causal, bf16: 568 TFLOP/s,
//             0.90 of cuDNN's speed, before groups stopped by themselves and values were looked through first
//             (bench/results/h200.md). A tile of 128 keys costs a thread 64 each of fma, ex2, max and add between 24
//             (D = 128) wgmma
#include "attention_tile.h"
#include "lib/barrier.h"
#include "lib/wgmma.h"

namespace gt::attention {

namespace {

constexpr bool IS_ENABLED = true;  // false: attention.cu does everything

constexpr int ROWS = WGMMA_M;                  // of a warpgroup
constexpr int PANEL = 64;                      // columns of a swizzled tile; wider rows are several of them
constexpr int STAGES = 2;                      // tiles of k, and of v, in shared memory
constexpr int64_t BAND_BYTES = int64_t{32} << 20;  // of k and v that are worked on at a time: of 50 MB of L2
constexpr int ROUNDS_PER_BAND = 4;             // at least, so that blocks have equally much to do in each
constexpr int MAX_PACK = ROWS;                 // heads side by side in a tile

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

// The work of all blocks: tiles of rows of units. A unit is 2^pack_bits heads of a sequence with one key/value head.
struct Schedule {
  int pack_bits, units_per_sequence, num_units, num_tiles;  // num_tiles: of a unit
  int units_per_band, rounds_per_band, num_rounds;     // a block does at most one tile per round
};

struct Tile {
  int sequence, unit, first_row, num_rows;
  int num_keys, least;  // keys that any, and that every row sees

  template <int KEYS> __device__ __forceinline__ int num_tiles() const { return (num_keys + KEYS - 1) / KEYS; }
};

template <class T> __device__ __forceinline__ int visible_keys(const Operands<T> &o, int sequence, int query) {
  const int length = o.key_lengths ? min(max(o.key_lengths[sequence], 0), o.num_keys) : o.num_keys;
  return o.is_causal ? min(max(query + 1 - o.num_queries + o.num_keys, 0), length) : length;
}

// This block's tile of a round; false: none. Every other round the blocks stand in reverse order: tiles get shorter.
template <class T, int TILE_ROWS>
__device__ __forceinline__ bool tile_of(const Operands<T> &o, const Schedule &s, int round, Tile &tile) {
  const int blocks = gridDim.x, place = round % 2 ? blocks - 1 - blockIdx.x : blockIdx.x;
  const int first_unit = round / s.rounds_per_band * s.units_per_band;
  const int units = min(s.units_per_band, s.num_units - first_unit);
  const int index = round % s.rounds_per_band * blocks + place, divisor = o.is_causal ? units : s.num_tiles;
  if (index >= units * s.num_tiles) return false;
  const int high = index / divisor, low = index % divisor;
  const int unit = first_unit + (o.is_causal ? low : high);
  tile.sequence = unit / s.units_per_sequence;
  tile.unit = unit % s.units_per_sequence;
  tile.first_row = (o.is_causal ? s.num_tiles - 1 - high : low) * TILE_ROWS;
  tile.num_rows = min(TILE_ROWS, (o.num_queries << s.pack_bits) - tile.first_row);
  tile.least = visible_keys(o, tile.sequence, tile.first_row >> s.pack_bits);
  tile.num_keys = visible_keys(o, tile.sequence, (tile.first_row + tile.num_rows - 1) >> s.pack_bits);
  return true;
}

// Whether the tile of values that ends before `end` has some that not every row sees. Beyond S there are only zeros.
template <class T> __device__ __forceinline__ bool is_partly_seen(const Operands<T> &o, const Tile &tile, int end) {
  return min(end, o.num_keys) > tile.least;
}

// Producer: the first thread gives the orders, the other three warps clean.

// Has one tile of `rows` rows brought to each panel, from `place` on.
template <int WIDTH, class T>
__device__ __forceinline__ void load_panels(T *to, int rows, const TensorMap *map, Mbarrier *barrier, int row, int unit,
                                            int sequence) {
  mbarrier_arrive_expect_tx(barrier, PANELS<WIDTH> * rows * TILE_ROW_BYTES);
#pragma unroll
  for (int panel = 0; panel < PANELS<WIDTH>; ++panel) {
    const int place[5] = {panel * PANEL, 0, row, unit, sequence};
    tma_load(to + panel * rows * PANEL, map, barrier, place);
  }
}

template <class T, int WIDTH>
__device__ __forceinline__ void order_tiles(Shared<T, WIDTH> *shared, const Operands<T> &o, const Schedule &schedule,
                                            const TensorMap *q_map, const TensorMap *k_map, const TensorMap *v_map) {
  constexpr Plan P = PLAN<WIDTH>;
  unsigned tile_count = 0, key_count = 0;  // tiles of rows, and of keys, so far
#pragma unroll 1
  for (int round = 0; round < schedule.num_rounds; ++round) {
    Tile tile;
    if (!tile_of<T, P.groups * ROWS>(o, schedule, round, tile)) continue;
    const int kv_head = (tile.unit << schedule.pack_bits) / o.group, q_stage = tile_count % P.q_stages;
    const auto load_keys = [&](int j) {
      const int stage = (key_count + j) % STAGES;
      mbarrier_wait(&shared->k_free[stage], (key_count + j) / STAGES % 2 ^ 1);
      load_panels<WIDTH>(shared->k[stage], P.keys, k_map, &shared->k_full[stage], j * P.keys, kv_head, tile.sequence);
    };
    if (tile.num_keys > 0) load_keys(0);
#pragma unroll
    for (int group = 0; group < P.groups; ++group) {
      mbarrier_wait(&shared->q_free[q_stage][group], tile_count / P.q_stages % 2 ^ 1);
      load_panels<WIDTH>(shared->q[q_stage][group], ROWS, q_map, &shared->q_full[q_stage][group],
                         (tile.first_row + group * ROWS) >> schedule.pack_bits, tile.unit, tile.sequence);
    }
#pragma unroll 1
    for (int j = 0; j * P.keys < tile.num_keys; ++j) {
      const int stage = (key_count + j) % STAGES;
      if ((j + 1) * P.keys < tile.num_keys) load_keys(j + 1);
      mbarrier_wait(&shared->v_free[stage], (key_count + j) / STAGES % 2 ^ 1);
      Mbarrier *const barriers = is_partly_seen(o, tile, (j + 1) * P.keys) ? shared->v_landed : shared->v_full;
      load_panels<WIDTH>(shared->v[stage], P.keys, v_map, barriers + stage, j * P.keys, kv_head, tile.sequence);
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

template <class T, int WIDTH>
__device__ __forceinline__ void clean_tiles(Shared<T, WIDTH> *shared, const Operands<T> &o, const Schedule &schedule) {
  constexpr Plan P = PLAN<WIDTH>;
  const int thread = threadIdx.x - WARP;
  unsigned tile_count = 0, key_count = 0, parities = 0;  // bit i: of v_landed[i]
#pragma unroll 1
  for (int round = 0; round < schedule.num_rounds; ++round) {
    Tile tile;
    if (!tile_of<T, P.groups * ROWS>(o, schedule, round, tile)) continue;
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

// Consumers

// Of the two rows of a thread: the largest score so far, as it is and times the scale, and a part of the sum of powers.
struct Softmax {
  float maximum[2], scaled[2], sum[2];

  // Turns scores into powers relative to the new maximum; what was summed under the old one counts `rescale` now.
  template <int COUNT> __device__ __forceinline__ void raise(float (&s)[COUNT], float scale, float (&rescale)[2]) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float now = maximum[h];
#pragma unroll
      for (int i = 2 * h; i < COUNT; i += 4) now = fmaxf(now, fmaxf(s[i], s[i + 1]));
      maximum[h] = row_max(now);
      const float last = scaled[h];
      scaled[h] = __fmul_rn(maximum[h], scale);  // not joined with the difference: an old maximum must rescale by 1
      const float base = base_of(scaled[h]);
      rescale[h] = exp2_flushed(last - base);
      sum[h] *= rescale[h];
#pragma unroll
      for (int i = 2 * h; i < COUNT; i += 4)
#pragma unroll
        for (int e = i; e < i + 2; ++e) {
          s[e] = exp2_flushed(__fmaf_rn(s[e], scale, -base));
          sum[h] += s[e];
        }
    }
  }
};

// Products of the running group; the caller fences before and commits after.
template <class T, int WIDTH>
__device__ __forceinline__ void order_scores(float (&s)[PLAN<WIDTH>.keys / 2], const T *q, const T *k) {
  const uint64_t a = wgmma_k_major(q, 0), b = wgmma_k_major(k, 0);
#pragma unroll
  for (int column = 0; column < WIDTH; column += WGMMA_K) {
    const int panel = column / PANEL, bytes = column % PANEL * static_cast<int>(sizeof(T));
    wgmma<T, PLAN<WIDTH>.keys>(s, wgmma_advance(a, panel * ROWS * TILE_ROW_BYTES + bytes),
                               wgmma_advance(b, panel * PLAN<WIDTH>.keys * TILE_ROW_BYTES + bytes), column > 0);
  }
}
template <class T, int WIDTH>
__device__ __forceinline__ void order_values(float (&o)[WIDTH / 2], const uint32_t (&p)[PLAN<WIDTH>.keys / 16][4],
                                             const T *v) {
  const uint64_t b = wgmma_mn_major(v, 0, PLAN<WIDTH>.keys);
#pragma unroll
  for (int key = 0; key < PLAN<WIDTH>.keys; key += WGMMA_K)
    wgmma<T, WIDTH, Major::MN>(o, p[key / WGMMA_K], wgmma_advance(b, key * TILE_ROW_BYTES), true);
}

// Lets all threads of the warp finish what they did with a place, then frees it.
__device__ __forceinline__ void free_place(Mbarrier *barrier) {
  __syncwarp();
  if (threadIdx.x % WARP == 0) mbarrier_arrive(barrier);
}

template <class T, int WIDTH>
__device__ __forceinline__ void consume(Shared<T, WIDTH> *shared, const Operands<T> &o, const Schedule &schedule,
                                        int group) {
  constexpr Plan P = PLAN<WIDTH>;
  const int thread = threadIdx.x % WARPGROUP_THREADS, lane = threadIdx.x % WARP;
  const int first_row = group * ROWS + thread / WARP * TILE_ROWS;  // of the warp, in the tile
  const int my_turn = TURN_BARRIER + group;
  unsigned tile_count = 0, key_count = 0;
  if (group == P.groups - 1) named_barrier_arrive(TURN_BARRIER, 2 * WARPGROUP_THREADS);
#pragma unroll 1
  for (int round = 0; round < schedule.num_rounds; ++round) {
    Tile tile;
    if (!tile_of<T, P.groups * ROWS>(o, schedule, round, tile)) continue;
    const int q_stage = tile_count % P.q_stages;
    const auto query_of = [&](int row) {  // beyond the last: the last
      return (tile.first_row + min(row, tile.num_rows - 1)) >> schedule.pack_bits;
    };
    // Groups with rows, and how many tiles of keys one of them meets: the first fewest. So many times all take turns.
    const int working = (tile.num_rows + ROWS - 1) / ROWS;
    const auto tiles_of = [&](int g) {
      return (visible_keys(o, tile.sequence, query_of(g * ROWS + ROWS - 1)) + P.keys - 1) / P.keys;
    };
    const int num_tiles = group < working ? tiles_of(group) : 0, turns = working > 1 ? tiles_of(0) : 0;
    const int next_turn = TURN_BARRIER + (group + 1 < working ? group + 1 : 0);
    const int least = visible_keys(o, tile.sequence, query_of(first_row));  // keys that all rows of the warp see
    int seen[2];
#pragma unroll
    for (int h = 0; h < 2; ++h) seen[h] = visible_keys(o, tile.sequence, query_of(first_row + h * 8 + lane / 4));
    T *const q = shared->q[q_stage][group];

    float out[WIDTH / 2], rescale[2];
    Softmax softmax;
#pragma unroll
    for (int i = 0; i < WIDTH / 2; ++i) out[i] = 0.0f;
#pragma unroll
    for (int h = 0; h < 2; ++h) softmax.maximum[h] = softmax.scaled[h] = -INFINITY, softmax.sum[h] = 0.0f;
    float s[P.keys / 2];
    uint32_t p[P.keys / 16][4];
    const auto wait_for = [&](Mbarrier *full, int j) {
      mbarrier_wait(full + (key_count + j) % STAGES, (key_count + j) / STAGES % 2);
    };
    const auto stage_of = [&](int j) { return (key_count + j) % STAGES; };
    const auto mask_scores = [&](int j) {
      if ((j + 1) * P.keys <= least) return;
#pragma unroll
      for (int i = 0; i < P.keys / 2; ++i)
        if (j * P.keys + wgmma_column(lane, i) >= seen[i / 2 % 2]) s[i] = -INFINITY;
    };

    mbarrier_wait(&shared->q_full[q_stage][group], tile_count / P.q_stages % 2);
    if (num_tiles > 0) {
      wait_for(shared->k_full, 0);
      if (turns > 0) named_barrier_sync(my_turn, 2 * WARPGROUP_THREADS);
      wgmma_fence(s);
      order_scores<T, WIDTH>(s, q, shared->k[stage_of(0)]);
      wgmma_commit();
      if (turns > 0) named_barrier_arrive(next_turn, 2 * WARPGROUP_THREADS);
      wgmma_wait<0>(s);
      free_place(&shared->k_free[stage_of(0)]);
      mask_scores(0);
      softmax.raise(s, o.scale, rescale);
      wgmma_pack<T>(p, s);
#pragma unroll 1
      for (int j = 1; j < num_tiles; ++j) {
        wait_for(shared->k_full, j);
        if (j < turns) named_barrier_sync(my_turn, 2 * WARPGROUP_THREADS);
        wgmma_fence(s);
        order_scores<T, WIDTH>(s, q, shared->k[stage_of(j)]);
        wgmma_commit();
        wait_for(shared->v_full, j - 1);
        wgmma_fence(out, p);
        order_values<T, WIDTH>(out, p, shared->v[stage_of(j - 1)]);
        wgmma_commit();
        if (j < turns) named_barrier_arrive(next_turn, 2 * WARPGROUP_THREADS);
        wgmma_wait<1>(s);
        free_place(&shared->k_free[stage_of(j)]);
        mask_scores(j);
        softmax.raise(s, o.scale, rescale);
        wgmma_wait<0>(out, p);
        free_place(&shared->v_free[stage_of(j - 1)]);
        if (__any_sync(ALL_LANES, rescale[0] != 1.0f || rescale[1] != 1.0f))  // else the maxima have been found
#pragma unroll
          for (int i = 0; i < WIDTH / 2; ++i) out[i] *= rescale[i / 2 % 2];
        wgmma_pack<T>(p, s);
      }
      wait_for(shared->v_full, num_tiles - 1);
      wgmma_fence(out, p);
      order_values<T, WIDTH>(out, p, shared->v[stage_of(num_tiles - 1)]);
      wgmma_commit();
      wgmma_wait<0>(out, p);
      free_place(&shared->v_free[stage_of(num_tiles - 1)]);
    }
    const auto head_of = [&](int row) {
      return (tile.unit << schedule.pack_bits) + ((tile.first_row + row) & ((1 << schedule.pack_bits) - 1));
    };
    const bool has_partial = is_partly_seen(o, tile, num_tiles * P.keys);
    named_barrier_sync(GROUP_BARRIER + group, WARPGROUP_THREADS);  // q has been read by all warps: y goes there
    T *const y_tile = q + thread / WARP * TILE_ROWS * PANEL;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int row = h * 8 + lane / 4;
      const float sum = row_sum(softmax.sum[h]), inverse = sum == 0.0f ? 0.0f : 1.0f / sum;
#pragma unroll
      for (int i = 2 * h; i < WIDTH / 2; i += 4) {
        const int column = wgmma_column(lane, i);
        float low = out[i] * inverse, high = out[i + 1] * inverse;
        if (has_partial) {
          if (shared->first_nonfinite[q_stage][column] < seen[h]) low = NAN;
          if (shared->first_nonfinite[q_stage][column + 1] < seen[h]) high = NAN;
        }
        const uint32_t pair = pack_pair<T>(low, high);
        memcpy(y_tile + column / PANEL * ROWS * PANEL + tile_offset<T>(row, column % PANEL), &pair, sizeof pair);
      }
      if (o.lse && lane % 4 == 0 && first_row + row < tile.num_rows)
        o.lse[tile.sequence * o.stride_lse[0] + query_of(first_row + row) * o.stride_lse[1] +
              head_of(first_row + row) * o.stride_lse[2]] =
            sum == 0.0f ? -INFINITY : (softmax.scaled[h] + log2f(sum)) * LN2;
    }
    __syncwarp();
    constexpr int CHUNKS = WIDTH / VEC<T>;
#pragma unroll 1
    for (int i = lane; i < TILE_ROWS * CHUNKS; i += WARP) {
      const int r = i / CHUNKS, row = first_row + r, column = i % CHUNKS * VEC<T>;
      if (row >= tile.num_rows || column >= o.d) continue;
      const auto x = *reinterpret_cast<const Vector<T> *>(y_tile + column / PANEL * ROWS * PANEL +
                                                          tile_offset<T>(r, column % PANEL));
      T *const y =
          o.y + tile.sequence * o.stride_y[0] + query_of(row) * o.stride_y[1] + head_of(row) * o.stride_y[2] + column;
      if (o.y_is_aligned) {
        *reinterpret_cast<Vector<T> *>(y) = x;
      } else {
#pragma unroll
        for (int j = 0; j < VEC<T>; ++j) y[j] = x.element[j];
      }
    }
    fence_async();
    free_place(&shared->q_free[q_stage][group]);

    const int all_tiles = tile.num_tiles<P.keys>();
#pragma unroll 1
    for (int j = num_tiles; j < all_tiles; ++j) {  // those that only groups behind this one meet
      wait_for(shared->k_full, j);
      free_place(&shared->k_free[stage_of(j)]);
      wait_for(shared->v_full, j);
      free_place(&shared->v_free[stage_of(j)]);
    }
    key_count += all_tiles;
    ++tile_count;
  }
  if (group == 0) named_barrier_sync(TURN_BARRIER, 2 * WARPGROUP_THREADS);
}

template <class T, int WIDTH>
__global__ void __launch_bounds__(THREADS<WIDTH>, 1)
    attention_warp_specialised(const Operands<T> o, const Schedule schedule, const __grid_constant__ TensorMap q_map,
                               const __grid_constant__ TensorMap k_map, const __grid_constant__ TensorMap v_map) {
  constexpr Plan P = PLAN<WIDTH>;
  static_assert(HAS_REGISTERS<WIDTH>, "the warpgroups ask for more registers than a block has");
  using Memory = Shared<T, WIDTH>;
  GT_DYNAMIC_SMEM(Memory, shared);
  if (threadIdx.x == 0) {
    constexpr unsigned GROUP_WARPS = WARPGROUP_THREADS / WARP, WARPS = P.groups * GROUP_WARPS;
    for (int i = 0; i < P.q_stages; ++i)
      for (int group = 0; group < P.groups; ++group) {
        mbarrier_init(&shared->q_full[i][group], 1);
        mbarrier_init(&shared->q_free[i][group], GROUP_WARPS);
      }
    for (int i = 0; i < STAGES; ++i) {
      mbarrier_init(&shared->k_full[i], 1);
      mbarrier_init(&shared->k_free[i], WARPS);
      mbarrier_init(&shared->v_full[i], 1);
      mbarrier_init(&shared->v_free[i], WARPS);
      mbarrier_init(&shared->v_landed[i], 1);
    }
    mbarrier_fence_init();
  }
  __syncthreads();
  const int warpgroup = __shfl_sync(ALL_LANES, static_cast<int>(threadIdx.x) / WARPGROUP_THREADS, 0);
  if (warpgroup == 0) {
    decrease_registers<P.producer_registers>();
    if (threadIdx.x == 0) order_tiles<T, WIDTH>(shared, o, schedule, &q_map, &k_map, &v_map);
    else if (threadIdx.x >= WARP) clean_tiles<T, WIDTH>(shared, o, schedule);
  } else {
    increase_registers<P.consumer_registers>();
    consume<T, WIDTH>(shared, o, schedule, warpgroup - 1);
  }
}

// Host

// extents and strides from dimension 1 on; a stride that leads nowhere becomes one that a map may have. False: no map
// takes them.
template <class T>
bool map_rows(TensorMap *map, const T *base, int d, const int64_t (&extents)[4], const int64_t (&strides)[4],
              const int (&box)[4]) {
  const int64_t all[5] = {d, extents[0], extents[1], extents[2], extents[3]};
  int64_t steps[4];
  for (int i = 0; i < 4; ++i) {
    steps[i] = extents[i] == 1 ? d : strides[i];
    if (steps[i] <= 0) return false;
  }
  return make_tensor_map(map, base, all, steps, box) == 0;
}

template <class T, int WIDTH> bool launch_width(void *stream, const Operands<T> &o, int *status) {
  constexpr Plan P = PLAN<WIDTH>;
  constexpr int TILE = P.groups * ROWS;
  const int heads = o.kv_heads * o.group;
  Schedule s = {};
  while (1 << s.pack_bits < MAX_PACK && (o.group >> s.pack_bits) % 2 == 0) ++s.pack_bits;
  const int pack = 1 << s.pack_bits;
  s.units_per_sequence = heads / pack;
  const int64_t units = int64_t{o.num_sequences} * s.units_per_sequence;
  const int64_t tiles = ceil_divide(int64_t{o.num_queries} * pack, TILE);
  if (units * tiles > INT32_MAX / 2) return false;
  s.num_units = static_cast<int>(units);
  s.num_tiles = static_cast<int>(tiles);

  const int64_t processors = num_multiprocessors(), blocks = units * tiles < processors ? units * tiles : processors;
  int64_t band = units;
  if (o.is_causal) {
    const int64_t bytes = int64_t{o.num_keys} * o.d * 2 * static_cast<int64_t>(sizeof(T));  // of a key/value head
    const int64_t fit = max(BAND_BYTES / bytes, int64_t{1}) * (o.group / pack);
    band = min(max(fit, ceil_divide(ROUNDS_PER_BAND * blocks, tiles)), units);
  }
  s.units_per_band = static_cast<int>(band);
  s.rounds_per_band = static_cast<int>(ceil_divide(band * tiles, blocks));
  s.num_rounds = static_cast<int>(ceil_divide(units, band)) * s.rounds_per_band;

  TensorMap q, k, v;
  const int64_t b = o.num_sequences;
  const int64_t key_extents[4] = {1, o.num_keys, o.kv_heads, b};
  const int key_box[4] = {1, P.keys, 1, 1};
  if (!map_rows(&q, o.q, o.d, {pack, o.num_queries, heads / pack, b},
                {o.stride_q[2], o.stride_q[1], o.stride_q[2] * pack, o.stride_q[0]}, {pack, ROWS / pack, 1, 1}) ||
      !map_rows(&k, o.k, o.d, key_extents, {0, o.stride_k[1], o.stride_k[2], o.stride_k[0]}, key_box) ||
      !map_rows(&v, o.v, o.d, key_extents, {0, o.stride_v[1], o.stride_v[2], o.stride_v[0]}, key_box))
    return false;
  *status = gt::launch(attention_warp_specialised<T, WIDTH>, dim3(static_cast<unsigned>(blocks)), THREADS<WIDTH>,
                       sizeof(Shared<T, WIDTH>), stream, o, s, q, k, v);
  return true;
}

}  // namespace

template <class T> bool launch_hopper(void *stream, const Operands<T> &o, int *status) {
  const bool takes = IS_ENABLED && !o.bias && !o.page_table && o.num_keys > 0 && o.d % VEC<T> == 0 && o.q_is_aligned &&
                     o.kv_is_aligned && o.scale > 0 && o.scale < INFINITY;
  if (!takes || !has_hopper()) return false;
  if (o.d <= 64) return launch_width<T, 64>(stream, o, status);
  if (o.d <= 96) return launch_width<T, 96>(stream, o, status);
  if (o.d <= 128) return launch_width<T, 128>(stream, o, status);
  return o.d > 192 && o.d <= 256 && launch_width<T, 256>(stream, o, status);
}
template bool launch_hopper(void *, const Operands<bf16> &, int *);
template bool launch_hopper(void *, const Operands<f16> &, int *);

}  // namespace gt::attention
