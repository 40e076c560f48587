// The derivatives of dense attention on Hopper's tensor cores and copy engine.
//
// Computes    gt_attention_backward of gatun/attention.h, without bias, from recomputed scores: P = exp(S - lse), dS =
//             P (dP - delta)
// Shapes      as there, as far as launch_hopper takes them: D a multiple of 8 up to 128; rows of q, k, v, dy and y at
//             multiples of 16 bytes. From D = 104 on it asks attention_backward_turns_sm90.cu; attention_backward.cu
//             has the rest
// Types       bf16, f16. S, dP, P, dS and sums in f32; P and dS are rounded to the dtype before they are multiplied
// Mapping     8 or 16 threads per row find delta = dy . y. Then one kernel twice. A block owns 128 keys of a key/value
//             head and meets the rows of each of its query heads, for dk and dv; or it owns 128 rows of a head and
//             meets its keys, for dq. Warpgroup 0 has the copy engine bring what is met, tile by tile; each of two
//             others has 64 of what is owned. It orders the products of the next tile (S and dP) together with the
//             sums of this one, and finds powers and dS while they run. Blocks with most to meet first, in bands of
//             heads whose met rows fit in L2
// Memory      what is owned once, what is met once per tile of owners, mostly from L2. lse and delta lie in the
//             workspace, tile by tile. 100 to 225 KiB of shared memory, one block per SM
// Numerics    powers of two, log2(e) in the scale. Every element is one sum in ascending key, or head and row: no
//             atomics. Tiles that a mask hides are skipped, only tiles that are partly hidden are masked; keys from
//             key_lengths on become zeros where they are met. Off by a rounding from attention_backward.cu, so the
//             dispatch asks for D, dtype and alignment, never for B, T or S
// Limits      S and T below 2^31 - 1024, B H T below 2^35, blocks below 2^31; sm_90a
// Source      Shah et al. 2024 (arXiv 2407.08608), with dq in a pass of its own: 7 products instead of 5, no sums
//             between blocks. Not measured yet: floor and expectation are in bench/results/h200.md
#include "attention_backward_hopper.h"
#include "lib/barrier.h"

namespace gt::attention_backward {

namespace {

constexpr int64_t MOST_IN_TWO = 96, MOST = 128;  // D in two passes, and in turns
constexpr int64_t BAND_BYTES = int64_t{32} << 20;  // of what is met at a time: of 50 MB of L2
constexpr int STATISTICS_THREADS = 256;

// Numbers of named barriers: each warpgroup's own, and that of both.
constexpr int GROUP_BARRIER = 1, CONSUMER_BARRIER = 3;

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
};

template <class P> struct Shared {
  using T = typename P::T;
  using Tile = T[P::PANELS * P::MET * PANEL];
  T own[2][P::PANELS * OWN * PANEL];              // k and v, or q and dy
  Tile first[P::FIRST_PLACES], second[P::SECOND_PLACES];  // the others
  float statistics[P::OWNS_KEYS ? P::FIRST_PLACES : 1][STATISTICS];  // RowPairs of the rows that are met
  Mbarrier own_full, first_full[P::FIRST_PLACES], first_free[P::FIRST_PLACES];
  Mbarrier second_full[P::SECOND_PLACES], second_free[P::SECOND_PLACES];
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
    load_panels<P::PANELS>(shared->own[i], OWN, &maps->own[i], &shared->own_full, w.first, w.head, w.sequence);
  Ring<P::FIRST_PLACES> first;
  Ring<P::SECOND_PLACES> second;
#pragma unroll 1
  for (int h = w.first_head; h < w.first_head + w.num_heads; ++h)
#pragma unroll 1
    for (int tile = w.first_tile; tile < w.end_tile; ++tile) {
      Mbarrier *const first_full = &shared->first_full[first.place];
      mbarrier_wait(&shared->first_free[first.place], first.parity ^ 1);
      mbarrier_arrive_expect_tx(first_full, P::MET * PANEL_BYTES + (P::OWNS_KEYS ? LINES * TILE_ROW_BYTES : 0));
      load_panels<P::PANELS>(shared->first[first.place], P::MET, &maps->met[0], first_full, tile * P::MET, h,
                             w.sequence);
      if constexpr (P::OWNS_KEYS) {
        const int tiles = static_cast<int>(padded_rows(o.num_queries)) / ROWS;
        tma_load(shared->statistics[first.place], &maps->statistics, first_full, 0,
                 ((w.sequence * o.heads + h) * tiles + tile) * LINES);
      }
      first.advance();
      Mbarrier *const second_full = &shared->second_full[second.place];
      mbarrier_wait(&shared->second_free[second.place], second.parity ^ 1);
      mbarrier_arrive_expect_tx(second_full, P::MET * PANEL_BYTES);
      load_panels<P::PANELS>(shared->second[second.place], P::MET, &maps->met[1], second_full, tile * P::MET, h,
                             w.sequence);
      second.advance();
    }
}

template <class T, int LANES> __global__ void __launch_bounds__(STATISTICS_THREADS)
    attention_row_statistics(const Operands<T> o, unsigned *counters, unsigned *tickets) {
  const int64_t padded = padded_rows(o.num_queries);
  const int64_t row = int64_t{blockIdx.x} * (STATISTICS_THREADS / LANES) + threadIdx.x / LANES;
  const int64_t bh = row / padded;
  const int t = static_cast<int>(row % padded), b = static_cast<int>(bh / o.heads), h = static_cast<int>(bh % o.heads);
  const int lane = threadIdx.x % LANES, column = lane * VEC<T>;
  const bool is_row = t < o.num_queries;
  float sum = 0.0f;
  if (is_row && column < o.d) {
    float dy[VEC<T>], y[VEC<T>];
    load_vec(o.dy.at(b, t, h) + column, dy);
    load_vec(o.y.at(b, t, h) + column, y);
#pragma unroll
    for (int i = 0; i < VEC<T>; ++i) sum += dy[i] * y[i];
  }
#pragma unroll
  for (int distance = LANES / 2; distance > 0; distance /= 2) sum += __shfl_xor_sync(ALL_LANES, sum, distance);
  if (lane != 0) return;
  RowPair &pair = reinterpret_cast<RowPair *>(o.workspace)[row / 2];
  pair.lse[row % 2] = is_row ? attention::base_of(o.lse[bh * o.num_queries + t]) * attention::LOG2E : INFINITY;
  pair.delta[row % 2] = sum;
  if (counters && row % ROWS == 0) counters[row / ROWS] = 0;
  if (tickets && row == 0) *tickets = 0;
}

// x = 0 in columns that the thread's two rows do not pair with: before `from`, or from `to` on.
template <int COUNT>
__device__ __forceinline__ void mask_columns(float (&x)[COUNT], int lane, const int (&from)[2], const int (&to)[2]) {
#pragma unroll
  for (int i = 0; i < COUNT; ++i) {
    const int column = wgmma_column(lane, i);
    if (column < from[i / 2 % 2] || column >= to[i / 2 % 2]) x[i] = 0.0f;
  }
}

// Zeros for the keys of a tile from `begin` on.
template <class P, class T> __device__ __forceinline__ void clear_keys(T *tile, int begin) {
  constexpr int CHUNKS = TILE_ROW_BYTES / VEC_BYTES;
  for (int i = threadIdx.x - WARPGROUP_THREADS; i < P::PANELS * P::MET * CHUNKS; i += CONSUMERS)
    if (i / CHUNKS % P::MET >= begin) reinterpret_cast<uint4 *>(tile)[i] = {0, 0, 0, 0};
  fence_async();
  named_barrier_sync(CONSUMER_BARRIER, CONSUMERS);
}

template <class P, class O>
__device__ __forceinline__ void consume(Shared<P> *shared, const O &o, const Work &w, int group) {
  using T = typename P::T;
  constexpr int MET = P::MET, COUNT = MET / 2;
  const int thread = threadIdx.x % WARPGROUP_THREADS, lane = thread % WARP;
  const int warp_row = group * ROWS + thread / WARP * attention::TILE_ROWS, row = w.first + warp_row;
  const T *const own[2] = {shared->own[0] + group * ROWS * PANEL, shared->own[1] + group * ROWS * PANEL};
  const int length = o.length(w.sequence);
  const int offset = o.num_queries - o.num_keys;  // causal: key s is seen by the queries from s + offset on
  const float scale = o.scale * attention::LOG2E;

  int bound[2];  // the first query that sees the key, or the first key that the query does not see
  RowPair of_rows;
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int r = row + h * 8 + lane / 4;
    if constexpr (P::OWNS_KEYS) {
      bound[h] = o.is_causal ? r + offset : 0;
    } else {
      bound[h] = o.visible(length, min(r, o.num_queries - 1));
      const RowPair pair = reinterpret_cast<const RowPair *>(
          o.workspace)[((w.sequence * int64_t{o.heads} + w.head) * padded_rows(o.num_queries) + r) / 2];
      of_rows.lse[h] = r % 2 ? pair.lse[1] : pair.lse[0];
      of_rows.delta[h] = r % 2 ? pair.delta[1] : pair.delta[0];
    }
  }
  // Tiles from `whole` up to `end_whole` are wholly seen by the warp's rows.
  int whole = 0, end_whole = o.num_queries / MET;
  if constexpr (P::OWNS_KEYS) whole = o.is_causal ? (max(row + 15 + offset, 0) + MET - 1) / MET : 0;
  else end_whole = o.visible(length, min(row, o.num_queries - 1)) / MET;

  float sums[P::NUM_SUMS][P::WIDTH / 2];
#pragma unroll
  for (int n = 0; n < P::NUM_SUMS; ++n)
#pragma unroll
    for (int i = 0; i < P::WIDTH / 2; ++i) sums[n][i] = 0.0f;

  const int num_tiles = max(w.end_tile - w.first_tile, 0) * w.num_heads;
  if (num_tiles > 0) {
    float s[COUNT], ds[COUNT];  // then P and dS
    uint32_t p[MET / 16][4], packed[MET / 16][4];
    Ring<P::FIRST_PLACES> first;
    Ring<P::SECOND_PLACES> second;
    int tile = w.first_tile;
    int last_first = 0, last_second = 0;  // places of the tile before

    const auto order_first = [&] {
      mbarrier_wait(&shared->first_full[first.place], first.parity);
      if constexpr (!P::OWNS_KEYS)
        if (length < o.num_keys && (tile + 1) * MET > length)
          clear_keys<P>(shared->first[first.place], length - tile * MET);
      wgmma_fence(s);
      order_scores<P::WIDTH, MET>(s, own[0], shared->first[first.place]);
      wgmma_commit();
    };
    const auto order_second = [&] {
      mbarrier_wait(&shared->second_full[second.place], second.parity);
      wgmma_fence(ds);
      order_scores<P::WIDTH, MET>(ds, own[1], shared->second[second.place]);
      wgmma_commit();
    };
    const auto order_all_sums = [&] {
      wgmma_fence(sums, packed);
      if constexpr (P::OWNS_KEYS) {
        wgmma_fence(sums, p);
        order_sums<P::WIDTH, MET>(sums[1], p, shared->second[last_second]);
      }
      order_sums<P::WIDTH, MET>(sums[0], packed, shared->first[last_first]);
      wgmma_commit();
    };
    const auto wait_for_sums = [&] {
      if constexpr (P::OWNS_KEYS) wgmma_wait<0>(sums, p);
      wgmma_wait<0>(sums, packed);
    };
    const auto free_met = [&] {
      mbarrier_arrive_warp(&shared->first_free[last_first]);
      if constexpr (P::OWNS_KEYS) mbarrier_arrive_warp(&shared->second_free[last_second]);
    };
    const auto is_whole = [&] { return whole <= tile && tile < end_whole; };
    const auto mask = [&](float (&x)[COUNT]) {
      const int start = tile * MET;
      int from[2], to[2];
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        from[h] = P::OWNS_KEYS ? bound[h] - start : 0;
        to[h] = P::OWNS_KEYS ? o.num_queries - start : bound[h] - start;
      }
      mask_columns(x, lane, from, to);
    };
    const auto find_powers = [&] {
#pragma unroll
      for (int j = 0; j < COUNT / 4; ++j)
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const float lse =
              P::OWNS_KEYS ? pair_of(shared->statistics, first.place, lane, j).lse[e % 2] : of_rows.lse[e / 2];
          s[4 * j + e] = exp2_flushed(__fmaf_rn(s[4 * j + e], scale, -lse));
        }
      if (!is_whole()) mask(s);
    };
    const auto find_derivatives = [&] {
#pragma unroll
      for (int j = 0; j < COUNT / 4; ++j)
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const float delta =
              P::OWNS_KEYS ? pair_of(shared->statistics, first.place, lane, j).delta[e % 2] : of_rows.delta[e / 2];
          ds[4 * j + e] = s[4 * j + e] * (ds[4 * j + e] - delta);
        }
      if (!is_whole()) mask(ds);  // here: ptxas moves the wait that follows up to the last branch before it
    };
    const auto end_tile = [&] {
      if constexpr (P::OWNS_KEYS) wgmma_pack<T>(p, s);
      wgmma_pack<T>(packed, ds);
      last_first = first.place, last_second = second.place;
      first.advance(), second.advance();
      if (++tile == w.end_tile) tile = w.first_tile;
    };

    mbarrier_wait(&shared->own_full, 0);
    order_first();
    order_second();
    wgmma_wait<1>(s);
    find_powers();
    wgmma_wait<0>(ds);
    if constexpr (!P::OWNS_KEYS) mbarrier_arrive_warp(&shared->second_free[second.place]);
    find_derivatives();
    end_tile();
#pragma unroll 1
    for (int i = 1; i < num_tiles; ++i) {
      order_first();
      order_second();
      order_all_sums();
      wgmma_wait<2>(s);
      find_powers();
      wgmma_wait<1>(ds);
      if constexpr (!P::OWNS_KEYS) mbarrier_arrive_warp(&shared->second_free[second.place]);
      find_derivatives();
      wait_for_sums();
      free_met();
      end_tile();
    }
    order_all_sums();
    wait_for_sums();
  }

  named_barrier_sync(GROUP_BARRIER + group, WARPGROUP_THREADS);  // what is owned has been read by all warps
  bool is_seen[2];
#pragma unroll
  for (int h = 0; h < 2; ++h) is_seen[h] = !P::OWNS_KEYS || row + h * 8 + lane / 4 < length;
  const auto store = [&](int n, float factor, const Heads<T> &out) {
    store_rows<P::WIDTH>(sums[n], factor, is_seen, shared->own[n] + warp_row * PANEL, out, w.sequence, w.head, row,
                         w.num_own - warp_row, o.d);
  };
  if constexpr (P::OWNS_KEYS) {
    store(0, o.scale, o.dk);
    store(1, 1.0f, o.dv);
  } else {
    store(0, o.scale, o.dq);
  }
}

template <class P>
__global__ void __launch_bounds__(THREADS, 1)
    attention_backward_warp_specialised(const Operands<typename P::T> o, int num_tiles, int num_units,
                                        int units_per_band, const __grid_constant__ Maps maps) {
  using Memory = Shared<P>;
  static_assert(sizeof(Memory) <= 227 << 10, "more than a block has");
  GT_DYNAMIC_SMEM(Memory, shared);
  if (threadIdx.x == 0) {
    mbarrier_init(&shared->own_full, 1);
    for (int i = 0; i < P::FIRST_PLACES; ++i) {
      mbarrier_init(&shared->first_full[i], 1);
      mbarrier_init(&shared->first_free[i], CONSUMERS / WARP);
    }
    for (int i = 0; i < P::SECOND_PLACES; ++i) {
      mbarrier_init(&shared->second_full[i], 1);
      mbarrier_init(&shared->second_free[i], CONSUMERS / WARP);
    }
    mbarrier_fence_init();
  }
  __syncthreads();
  const Work w = work_of<P>(o, num_tiles, num_units, units_per_band);
  const int warpgroup = __shfl_sync(ALL_LANES, static_cast<int>(threadIdx.x) / WARPGROUP_THREADS, 0);
  if (warpgroup == 0) {
    decrease_registers<PRODUCER_REGISTERS>();
    if (threadIdx.x == 0) order_tiles<P>(shared, o, w, &maps);
  } else {
    increase_registers<CONSUMER_REGISTERS>();
    consume<P>(shared, o, w, warpgroup - 1);
  }
}

// Host

template <class T, int WIDTH> bool launch_width(void *stream, const Operands<T> &o, int *status) {
  using Keys = Pass<T, WIDTH, true>;
  using Rows = Pass<T, WIDTH, false>;
  const int b = o.num_sequences, h = o.heads, g = o.kv_heads, t = o.num_queries, s = o.num_keys;
  const int64_t lines = b * padded_rows(t) * h / ROWS_PER_LINE;
  Maps keys, rows;
  if (!map_rows(&keys.own[0], o.k, b, s, g, o.d, OWN) || !map_rows(&keys.own[1], o.v, b, s, g, o.d, OWN) ||
      !map_rows(&keys.met[0], o.q, b, t, h, o.d, Keys::MET) || !map_rows(&keys.met[1], o.dy, b, t, h, o.d, Keys::MET) ||
      !map_rows(&rows.own[0], o.q, b, t, h, o.d, OWN) || !map_rows(&rows.own[1], o.dy, b, t, h, o.d, OWN) ||
      !map_rows(&rows.met[0], o.k, b, s, g, o.d, Rows::MET) || !map_rows(&rows.met[1], o.v, b, s, g, o.d, Rows::MET) ||
      make_tensor_map(&keys.statistics, static_cast<const float *>(o.workspace), lines, TILE_COLUMNS<float>,
                      TILE_COLUMNS<float>, LINES) != 0)
    return false;
  rows.statistics = keys.statistics;
  const int64_t key_tiles = ceil_divide(s, OWN), row_tiles = ceil_divide(t, OWN);
  if (key_tiles * b * g > INT32_MAX || row_tiles * b * h > INT32_MAX) return false;

  const auto run = [&](auto pass, int64_t tiles, int64_t units, int64_t met_bytes, const Maps &maps) {
    using P = decltype(pass);
    const int64_t band = max(int64_t{1}, min(units, BAND_BYTES / met_bytes));
    return gt::launch(attention_backward_warp_specialised<P>, dim3(static_cast<unsigned>(tiles * units)), THREADS,
                      sizeof(Shared<P>), stream, o, static_cast<int>(tiles), static_cast<int>(units),
                      static_cast<int>(band), maps);
  };
  const int64_t row_bytes = int64_t{o.d} * 2 * static_cast<int64_t>(sizeof(T));
  *status = launch_statistics(stream, o, nullptr, nullptr);
  if (*status == 0)
    *status = run(Keys(), key_tiles, int64_t{b} * g, row_bytes * t * o.group, keys);
  if (*status == 0)
    *status = run(Rows(), row_tiles, int64_t{b} * h, row_bytes * s, rows);
  return true;
}

}  // namespace

template <class T> int launch_statistics(void *stream, const Operands<T> &o, unsigned *counters, unsigned *tickets) {
  const int64_t rows = int64_t{o.num_sequences} * o.heads * padded_rows(o.num_queries);
  const auto run = [&](auto kernel, int lanes) {
    return gt::launch(kernel, dim3(static_cast<unsigned>(rows / (STATISTICS_THREADS / lanes))), STATISTICS_THREADS, 0,
                      stream, o, counters, tickets);
  };
  return o.d <= 64 ? run(attention_row_statistics<T, 8>, 8) : run(attention_row_statistics<T, 16>, 16);
}
template int launch_statistics(void *, const Operands<bf16> &, unsigned *, unsigned *);
template int launch_statistics(void *, const Operands<f16> &, unsigned *, unsigned *);

template <class T> bool launch_hopper(void *stream, const Operands<T> &o, int *status) {
  const bool takes = !o.bias && o.d % VEC<T> == 0 && o.d <= MOST && o.num_sequences > 0 && o.num_queries > 0 &&
                     o.num_keys > 0 && o.heads > 0 && o.rows_are_aligned() && o.keys_are_aligned() && o.y.is_aligned;
  const int64_t rows = int64_t{o.num_sequences} * o.heads * padded_rows(o.num_queries);
  const bool is_countable = rows / ROWS_PER_LINE <= INT32_MAX && max(o.num_queries, o.num_keys) < INT32_MAX - 1024;
  if (!takes || !is_countable || !has_hopper()) return false;
  if (o.d <= 64) return launch_width<T, 64>(stream, o, status);
  if (o.d <= MOST_IN_TWO) return launch_width<T, 96>(stream, o, status);
  return launch_in_turns(stream, o, status);
}
template bool launch_hopper(void *, const Operands<bf16> &, int *);
template bool launch_hopper(void *, const Operands<f16> &, int *);

int64_t hopper_workspace_bytes(int64_t sequences, int64_t heads, int64_t queries, int64_t d) {
  const int64_t rows = sequences * heads * padded_rows(queries);
  const int64_t statistics = rows / 2 * static_cast<int64_t>(sizeof(RowPair));
  return d > MOST_IN_TWO && d <= MOST ? statistics + turns_workspace_bytes(rows) : statistics;
}

}  // namespace gt::attention_backward
