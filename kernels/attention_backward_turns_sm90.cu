// The derivatives of dense attention on Hopper in one pass, whose blocks add to dq in turns.
//
// Computes    as attention_backward_sm90.cu, which calls it for D from 104 to 128
// Shapes      as there
// Types       bf16, f16. S, dP, P, dS and sums in f32; P and dS are rounded to the dtype before they are multiplied
// Mapping     a block owns 128 keys of a key/value head and meets the rows of each of its query heads, 64 at a time,
//             the last ones first. Warp 0 has the copy engine bring them; warpgroups 1 and 2 have 64 keys each. Their
//             dS meet in shared memory, and each finds one half of dq's columns, which a thread of warp 1 has the copy
//             engine add to sums in global memory. A counter per tile of rows says how many key blocks have added
//             theirs: block n waits for n. Which keys a block owns says a ticket that it draws as it begins, so it
//             waits only for blocks that have begun. All key blocks see the last rows: each follows the one before at
//             a distance of a tile or two. Another kernel rounds the sums
// Memory      k and v once, q and dy once per 128 keys, mostly from L2; 32 KiB of dq's sums per 128 keys and 64 rows,
//             in L2. 520 bytes of workspace per row. 211 KiB of shared memory, one block per SM
// Numerics    as there, but for the order of sums: dq ascending by block of keys, dk and dv by head and from the last
//             tile of rows to the first
// Limits      as there
// Source      Dao 2023 (arXiv 2307.08691): 5 products. Not measured yet (bench/results/h200.md)
#include "attention_backward_hopper.h"
#include "lib/barrier.h"
#include "lib/bulk.h"
#include "lib/turn.h"

namespace gt::attention_backward {

namespace {

constexpr int MET = 64, WIDTH = 128, PANELS = WIDTH / PANEL, COUNT = MET / 2;
constexpr int Q_PLACES = 3, DY_PLACES = 2;
constexpr int SUMS = MET * PANEL;  // of a tile of dq, of a warpgroup: 4 per thread, for each of its groups of 4

constexpr int CONSUMER_BARRIER = 1;

template <class T> struct Memory {
  T own[2][PANELS * OWN * PANEL];  // k and v
  T ds[2][OWN * MET];              // of this tile and of the one before, a row per key
  float dq[GROUPS][SUMS];
  T q[Q_PLACES][PANELS * MET * PANEL], dy[DY_PLACES][PANELS * MET * PANEL];
  float statistics[Q_PLACES][STATISTICS];
  Mbarrier own_full, q_full[Q_PLACES], q_free[Q_PLACES], dy_full[DY_PLACES], dy_free[DY_PLACES], ds_full[2];
  Mbarrier dq_full, dq_free;
  unsigned ticket;
};

struct Turn {
  int sequence, head, tile, first;  // of key/value heads; of 128 keys; the first of them
  int first_tile, end_tile;         // of rows, in each head of the group
};

template <class O> __device__ __forceinline__ Turn turn_of(const O &o, int num_tiles, unsigned ticket) {
  Turn w;
  const int unit = static_cast<int>(ticket) / num_tiles;
  w.sequence = unit / o.kv_heads, w.head = unit % o.kv_heads;
  w.tile = static_cast<int>(ticket) % num_tiles;
  w.first = w.tile * OWN;
  w.first_tile = o.is_causal ? max(w.first + o.num_queries - o.num_keys, 0) / MET : 0;
  w.end_tile = w.first < o.length(w.sequence) ? (o.num_queries + MET - 1) / MET : w.first_tile;
  return w;
}

// f(head, tile) of all that a block meets, in order.
template <class O, class F> __device__ __forceinline__ void for_each_tile(const O &o, const Turn &w, F f) {
#pragma unroll 1
  for (int h = w.head * o.group; h < (w.head + 1) * o.group; ++h)
#pragma unroll 1
    for (int tile = w.end_tile - 1; tile >= w.first_tile; --tile) f(h, tile);
}
template <class O> __device__ __forceinline__ int64_t tile_index(const O &o, const Turn &w, int h, int tile) {
  return (int64_t{w.sequence} * o.heads + h) * (padded_rows(o.num_queries) / MET) + tile;
}

struct TurnMaps {
  TensorMap k, v, q, dy, statistics;
};

template <class T>
__device__ __forceinline__ void order_all(Memory<T> *shared, const Operands<T> &o, const Turn &w,
                                          const TurnMaps *maps) {
  constexpr int PANEL_BYTES = PANELS * TILE_ROW_BYTES;
  if (w.first_tile >= w.end_tile) return;
  mbarrier_arrive_expect_tx(&shared->own_full, 2 * OWN * PANEL_BYTES);
  load_panels<PANELS>(shared->own[0], OWN, &maps->k, &shared->own_full, w.first, w.head, w.sequence);
  load_panels<PANELS>(shared->own[1], OWN, &maps->v, &shared->own_full, w.first, w.head, w.sequence);
  Ring<Q_PLACES> q;
  Ring<DY_PLACES> dy;
  for_each_tile(o, w, [&](int h, int tile) {
    Mbarrier *const q_full = &shared->q_full[q.place], *const dy_full = &shared->dy_full[dy.place];
    mbarrier_wait(&shared->q_free[q.place], q.parity ^ 1);
    mbarrier_arrive_expect_tx(q_full, MET * PANEL_BYTES + LINES * TILE_ROW_BYTES);
    load_panels<PANELS>(shared->q[q.place], MET, &maps->q, q_full, tile * MET, h, w.sequence);
    tma_load(shared->statistics[q.place], &maps->statistics, q_full, 0,
             static_cast<int>(tile_index(o, w, h, tile)) * LINES);
    q.advance();
    mbarrier_wait(&shared->dy_free[dy.place], dy.parity ^ 1);
    mbarrier_arrive_expect_tx(dy_full, MET * PANEL_BYTES);
    load_panels<PANELS>(shared->dy[dy.place], MET, &maps->dy, dy_full, tile * MET, h, w.sequence);
    dy.advance();
  });
}

// Adds the tiles of dq to their sums, each when its turn has come. The first key block stores them. One thread.
template <class T>
__device__ __forceinline__ void add_all(Memory<T> *shared, const Operands<T> &o, const Turn &w, float *sums,
                                        unsigned *counters) {
  constexpr int TOTAL = GROUPS * SUMS;
  unsigned parity = 0;
  for_each_tile(o, w, [&](int h, int tile) {
    const int64_t index = tile_index(o, w, h, tile);
    mbarrier_wait(&shared->dq_full, parity);
    parity ^= 1;
    if (w.tile == 0) {
      bulk_store(sums + index * TOTAL, shared->dq[0], TOTAL);
    } else {
      turn_wait(counters + index, static_cast<unsigned>(w.tile));
      fence_async_global();
      bulk_add(sums + index * TOTAL, shared->dq[0], TOTAL);
    }
    tma_commit();
    bulk_read_wait<0>();
    mbarrier_arrive(&shared->dq_free);
    tma_store_wait<0>();
    turn_pass(counters + index);
  });
}

// Consumers

template <class T>
__device__ __forceinline__ void consume_all(Memory<T> *shared, const Operands<T> &o, const Turn &w, int group) {
  const int thread = threadIdx.x % WARPGROUP_THREADS, lane = thread % WARP;
  const int warp_row = group * ROWS + thread / WARP * attention::TILE_ROWS, row = w.first + warp_row;
  const T *const own[2] = {shared->own[0] + group * ROWS * PANEL, shared->own[1] + group * ROWS * PANEL};
  const int length = o.length(w.sequence);
  const int offset = o.num_queries - o.num_keys;  // causal: key s is seen by the queries from s + offset on
  const float scale = o.scale * attention::LOG2E;
  int bound[2];  // the first query that sees the key
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int key = row + h * 8 + lane / 4;
    bound[h] = key >= length ? INT32_MAX : o.is_causal ? key + offset : 0;
  }
  // Tiles from `whole` up to `end_whole` are wholly seen by the warp's keys.
  const int end_whole = o.num_queries / MET;
  const int whole = row + 15 >= length ? INT32_MAX : o.is_causal ? (max(row + 15 + offset, 0) + MET - 1) / MET : 0;

  float sums[2][WIDTH / 2];  // dk, dv
#pragma unroll
  for (int n = 0; n < 2; ++n)
#pragma unroll
    for (int i = 0; i < WIDTH / 2; ++i) sums[n][i] = 0.0f;

  const int per_head = w.end_tile - w.first_tile, num_tiles = per_head * o.group;
  if (num_tiles > 0) {
    float s[COUNT];
    uint32_t p[MET / 16][4];
    Ring<Q_PLACES> q;
    Ring<DY_PLACES> dy;
    Ring<2> buffer;
    unsigned dq_parity = 1;
    int last_q = 0, last_dy = 0, tile = w.end_tile - 1;

    const auto mask = [&](float (&x)[COUNT]) {
#pragma unroll
      for (int i = 0; i < COUNT; ++i) {
        const int query = tile * MET + wgmma_column(lane, i);
        if (query < bound[i / 2 % 2] || query >= o.num_queries) x[i] = 0.0f;
      }
    };
    const auto order_first = [&] {
      mbarrier_wait(&shared->q_full[q.place], q.parity);
      wgmma_fence(s);
      order_scores<WIDTH, MET>(s, own[0], shared->q[q.place]);
      wgmma_commit();
    };
    const auto find_powers = [&] {
#pragma unroll
      for (int j = 0; j < COUNT / 4; ++j)
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const float lse = pair_of(shared->statistics, q.place, lane, j).lse[e % 2];
          s[4 * j + e] = exp2_flushed(__fmaf_rn(s[4 * j + e], scale, -lse));
        }
      if (tile < whole || tile >= end_whole) mask(s);
    };
    // dP and dS of the tile whose P lies in s; then p, and dS in shared memory.
    const auto find_derivatives = [&] {
      float ds[COUNT];
      mbarrier_wait(&shared->dy_full[dy.place], dy.parity);
      wgmma_fence(ds);
      order_scores<WIDTH, MET>(ds, own[1], shared->dy[dy.place]);
      wgmma_commit();
      wgmma_wait<0>(ds);
      if (tile < whole || tile >= end_whole) mask(ds);
#pragma unroll
      for (int j = 0; j < COUNT / 4; ++j)
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const float delta = pair_of(shared->statistics, q.place, lane, j).delta[e % 2];
          ds[4 * j + e] = s[4 * j + e] * (ds[4 * j + e] - delta);
        }
      const int first = buffer.place * OWN * MET + tile_offset<T>(warp_row + lane / 4, lane % 4 * 2);
#pragma unroll
      for (int i = 0; i < COUNT; i += 2) {
        const uint32_t pair = pack_pair<T>(ds[i], ds[i + 1]);
        memcpy(shared->ds[0] + (first ^ i / 4 * VEC<T>) + i / 2 % 2 * 8 * MET, &pair, sizeof pair);
      }
      wgmma_pack<T>(p, s);
      fence_async();
      mbarrier_arrive_warp(&shared->ds_full[buffer.place]);
      last_q = q.place, last_dy = dy.place;
      q.advance(), dy.advance();
      if (--tile < w.first_tile) tile = w.end_tile - 1;
    };
    // dv, dk and dq of the tile before: behind the scores that are on their way where there are some.
    const auto add_tile = [&](auto has_next) {
      const T *const ds_tile = shared->ds[buffer.place];
      wgmma_fence(sums, p);
      order_sums<WIDTH, MET>(sums[1], p, shared->dy[last_dy]);
      wgmma_commit();
      mbarrier_wait(&shared->ds_full[buffer.place], buffer.parity);
      buffer.advance();
      float dq[COUNT];
      wgmma_fence(sums[0]);
      const uint64_t ds_keys = wgmma_k_major(ds_tile + group * ROWS * MET, 0);
      const uint64_t q_rows = wgmma_mn_major(shared->q[last_q], 0, MET);
#pragma unroll
      for (int k = 0; k < MET; k += WGMMA_K)
        wgmma<T, WIDTH, Major::K, Major::MN>(sums[0],
                                             wgmma_advance(ds_keys, k * static_cast<int>(sizeof(T))),
                                             wgmma_advance(q_rows, k * TILE_ROW_BYTES), true);
      wgmma_commit();
      wgmma_fence(dq);
      const uint64_t ds_rows = wgmma_mn_major(ds_tile, 0, OWN);
      const uint64_t keys = wgmma_mn_major(shared->own[0] + group * OWN * PANEL, 0, OWN);
#pragma unroll
      for (int k = 0; k < OWN; k += WGMMA_K)
        wgmma<T, PANEL, Major::MN, Major::MN>(dq, wgmma_advance(ds_rows, k * TILE_ROW_BYTES),
                                              wgmma_advance(keys, k * TILE_ROW_BYTES), k > 0);
      wgmma_commit();
      if constexpr (decltype(has_next)::value) {
        wgmma_wait<3>(s);  // dv, dk and dq may be on their way
        find_powers();
      }
      wgmma_wait<0>(sums, p);
      wgmma_wait<0>(dq);
      mbarrier_arrive_warp(&shared->q_free[last_q]);
      mbarrier_arrive_warp(&shared->dy_free[last_dy]);
      mbarrier_wait(&shared->dq_free, dq_parity);
      dq_parity ^= 1;
#pragma unroll
      for (int i = 0; i < COUNT; i += 4) {
        const float4 four = {dq[i], dq[i + 1], dq[i + 2], dq[i + 3]};
        *reinterpret_cast<float4 *>(shared->dq[group] + (i / 4 * WARPGROUP_THREADS + thread) * 4) = four;
      }
      fence_async();
      mbarrier_arrive_warp(&shared->dq_full);
    };

    mbarrier_wait(&shared->own_full, 0);
    if (w.first + OWN > length) {  // keys that nobody sees may be NaN
      constexpr int CHUNKS = TILE_ROW_BYTES / VEC_BYTES;
      for (int i = threadIdx.x - WARPGROUP_THREADS; i < PANELS * OWN * CHUNKS; i += CONSUMERS)
        if (w.first + i / CHUNKS % OWN >= length) reinterpret_cast<uint4 *>(shared->own[0])[i] = {0, 0, 0, 0};
      fence_async();
      named_barrier_sync(CONSUMER_BARRIER, CONSUMERS);
    }
    order_first();
    wgmma_wait<0>(s);
    find_powers();
    find_derivatives();
#pragma unroll 1
    for (int i = 1; i < num_tiles; ++i) {
      order_first();
      add_tile(std::true_type());
      find_derivatives();
    }
    add_tile(std::false_type());
  }

  named_barrier_sync(CONSUMER_BARRIER, CONSUMERS);  // what is owned has been read by all warps
  bool is_seen[2];
#pragma unroll
  for (int h = 0; h < 2; ++h) is_seen[h] = row + h * 8 + lane / 4 < length;
  const auto store = [&](int n, float factor, const Heads<T> &out) {
    store_rows<WIDTH>(sums[n], factor, is_seen, shared->own[n] + warp_row * PANEL, out, w.sequence, w.head, row,
                      o.num_keys - row, o.d);
  };
  store(0, o.scale, o.dk);
  store(1, 1.0f, o.dv);
}

template <class T>
__global__ void __launch_bounds__(THREADS, 1)
    attention_backward_in_turns(const Operands<T> o, int num_tiles, float *sums, unsigned *counters, unsigned *tickets,
                                const __grid_constant__ TurnMaps maps) {
  static_assert(sizeof(Memory<T>) <= 227 << 10, "more than a block has");
  GT_DYNAMIC_SMEM(Memory<T>, shared);
  if (threadIdx.x == 0) {
    constexpr unsigned WARPS = CONSUMERS / WARP;
    mbarrier_init(&shared->own_full, 1);
    for (int i = 0; i < Q_PLACES; ++i) {
      mbarrier_init(&shared->q_full[i], 1);
      mbarrier_init(&shared->q_free[i], WARPS);
    }
    for (int i = 0; i < DY_PLACES; ++i) {
      mbarrier_init(&shared->dy_full[i], 1);
      mbarrier_init(&shared->dy_free[i], WARPS);
    }
    for (int i = 0; i < 2; ++i) mbarrier_init(&shared->ds_full[i], WARPS);
    mbarrier_init(&shared->dq_full, WARPS);
    mbarrier_init(&shared->dq_free, 1);
    mbarrier_fence_init();
    shared->ticket = atomicAdd(tickets, 1u);
  }
  __syncthreads();
  const Turn w = turn_of(o, num_tiles, shared->ticket);
  const int warpgroup = __shfl_sync(ALL_LANES, static_cast<int>(threadIdx.x) / WARPGROUP_THREADS, 0);
  if (warpgroup == 0) {
    decrease_registers<PRODUCER_REGISTERS>();
    if (threadIdx.x == 0) order_all(shared, o, w, &maps);
    else if (threadIdx.x == WARP) add_all(shared, o, w, sums, counters);
  } else {
    increase_registers<CONSUMER_REGISTERS>();
    consume_all(shared, o, w, warpgroup - 1);
  }
}

// dq = scale * sums, a block per tile; zeros where no key is seen.
template <class T>
__global__ void __launch_bounds__(CONSUMERS) attention_round_tile(const Operands<T> o, const float *sums, int tiles) {
  const int tile = blockIdx.x % tiles, bh = blockIdx.x / tiles, b = bh / o.heads, h = bh % o.heads;
  const int group = threadIdx.x / WARPGROUP_THREADS, thread = threadIdx.x % WARPGROUP_THREADS;
  const int last = min(tile * MET + MET, o.num_queries) - 1;
  if (last < tile * MET) return;
  const bool is_seen = o.visible(o.length(b), last) > 0;
  const float *const from = sums + (int64_t{blockIdx.x} * GROUPS + group) * SUMS + thread * 4;
#pragma unroll
  for (int i = 0; i < COUNT; i += 4) {
    const float4 four = is_seen ? *reinterpret_cast<const float4 *>(from + i * WARPGROUP_THREADS) : float4{0, 0, 0, 0};
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int query = tile * MET + wgmma_row(thread, i + 2 * half);
      const int column = group * PANEL + wgmma_column(thread, i);
      if (query >= o.num_queries || column >= o.d) continue;
      const uint32_t pair = pack_pair<T>((half ? four.z : four.x) * o.scale, (half ? four.w : four.y) * o.scale);
      T *const to = o.dq.at(b, query, h) + column;
      if (o.dq.is_aligned) {
        *reinterpret_cast<uint32_t *>(to) = pair;
      } else {
        T two[2];
        memcpy(two, &pair, sizeof pair);
        to[0] = two[0], to[1] = two[1];
      }
    }
  }
}

}  // namespace

template <class T> bool launch_in_turns(void *stream, const Operands<T> &o, int *status) {
  const int b = o.num_sequences, h = o.heads, g = o.kv_heads, t = o.num_queries, s = o.num_keys;
  const int64_t lines = b * padded_rows(t) * h / ROWS_PER_LINE;
  const int64_t key_tiles = ceil_divide(s, OWN), tiles = padded_rows(t) / MET;
  if (key_tiles * b * g > INT32_MAX || tiles * b * h > INT32_MAX) return false;
  TurnMaps maps;
  if (!map_rows(&maps.k, o.k, b, s, g, o.d, OWN) || !map_rows(&maps.v, o.v, b, s, g, o.d, OWN) ||
      !map_rows(&maps.q, o.q, b, t, h, o.d, MET) || !map_rows(&maps.dy, o.dy, b, t, h, o.d, MET) ||
      make_tensor_map(&maps.statistics, static_cast<const float *>(o.workspace), lines, TILE_COLUMNS<float>,
                      TILE_COLUMNS<float>, LINES) != 0)
    return false;
  const int64_t rows = b * padded_rows(t) * h;
  float *const sums = o.workspace + rows * static_cast<int64_t>(sizeof(RowPair) / (2 * sizeof(float)));
  unsigned *const counters = reinterpret_cast<unsigned *>(sums + rows * WIDTH), *const tickets = counters + rows / MET;
  *status = launch_statistics(stream, o, counters, tickets);
  if (*status == 0)
    *status = gt::launch(attention_backward_in_turns<T>, dim3(static_cast<unsigned>(key_tiles * b * g)), THREADS,
                         sizeof(Memory<T>), stream, o, static_cast<int>(key_tiles), sums, counters, tickets,
                         maps);
  if (*status == 0)
    *status = gt::launch(attention_round_tile<T>, dim3(static_cast<unsigned>(tiles * b * h)), CONSUMERS, 0, stream, o,
                         static_cast<const float *>(sums), static_cast<int>(tiles));
  return true;
}
template bool launch_in_turns(void *, const Operands<bf16> &, int *);
template bool launch_in_turns(void *, const Operands<f16> &, int *);

// dq's sums, a counter per tile, the ticket.
int64_t turns_workspace_bytes(int64_t rows) { return (rows * WIDTH + rows / MET + 1) * 4; }

}  // namespace gt::attention_backward
