// The derivatives of dense attention on Hopper's tensor cores and copy engine.
//
// Computes    gt_attention_backward of gatun/attention.h, without bias, from recomputed scores: P = exp(S - lse), dS =
//             P (dP - delta)
// Shapes      as there, as far as launch_hopper takes them: D a multiple of 8 up to 128; rows of q, k, v, dy and y at
//             multiples of 16 bytes. attention_backward.cu has the rest
// Types       bf16, f16. S, dP, P, dS and sums in f32; P and dS are rounded to the dtype before they are multiplied
// Mapping     8 or 16 threads per row find delta = dy . y. Then one kernel twice. A block owns 128 keys of a key/value
//             head and meets the rows of each of its query heads, for dk and dv; or it owns 128 rows of a head and
//             meets its keys, for dq. Warpgroup 0 has the copy engine bring what is met, tile by tile; each of two
//             others has 64 of what is owned. It orders the products of the next tile (S, and up to D = 96 dP) together
//             with the sums of this one, and finds powers and dS while they run. Blocks with most to meet first, in
//             bands of heads whose met rows fit in L2
// Memory      what is owned once, what is met once per tile of owners, mostly from L2. lse and delta lie in the
//             workspace, tile by tile. 100 to 225 KiB of shared memory, one block per SM
// Numerics    powers of two, log2(e) in the scale. Every element is one sum in ascending key, or head and row: no
//             atomics. Tiles that a mask hides are skipped, only tiles that are partly hidden are masked; keys from
//             key_lengths on become zeros where they are met. Off by a rounding from attention_backward.cu, so the
//             dispatch asks for D, dtype and alignment, never for B, T or S
// Limits      S and T below 2^31 - 1024, B H T below 2^35, blocks below 2^31; sm_90a
// Source      Shah et al. 2024 (arXiv 2407.08608), with dq in a pass of its own: 7 products instead of 5, no sums
//             between blocks. Not measured yet: floor and expectation are in bench/results/h200
#include "attention_backward_stream.h"
#include "lib/barrier.h"
#include "lib/wgmma.h"

namespace gt::attention_backward {

namespace {

constexpr int PRODUCER_REGISTERS = 24, CONSUMER_REGISTERS = 240;
static_assert(PRODUCER_REGISTERS + GROUPS * CONSUMER_REGISTERS <= (GROUPS + 1) * (65536 / THREADS / 8 * 8),
              "the warpgroups ask for more registers than a block has");
constexpr int64_t BAND_BYTES = int64_t{32} << 20;  // of what is met at a time: of 50 MB of L2
constexpr int STATISTICS_THREADS = 256;

// Numbers of named barriers: each warpgroup's own, and that of both.
constexpr int GROUP_BARRIER = 1, CONSUMER_BARRIER = 3;

template <class T, int LANES> __global__ void __launch_bounds__(STATISTICS_THREADS)
    attention_row_statistics(const Operands<T> o) {
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
}

// s = own met^T, of the warpgroup's 64 rows. The caller fences before and commits after.
template <class P, class T>
__device__ __forceinline__ void order_scores(float (&s)[P::MET / 2], const T *own, const T *met) {
  const uint64_t a = wgmma_k_major(own, 0), b = wgmma_k_major(met, 0);
#pragma unroll
  for (int column = 0; column < P::WIDTH; column += WGMMA_K) {
    const int panel = column / PANEL, bytes = column % PANEL * static_cast<int>(sizeof(T));
    wgmma<T, P::MET>(s, wgmma_advance(a, panel * OWN * TILE_ROW_BYTES + bytes),
                     wgmma_advance(b, panel * P::MET * TILE_ROW_BYTES + bytes), column > 0);
  }
}
// sums += p met.
template <class P, class T>
__device__ __forceinline__ void order_sums(float (&sums)[P::WIDTH / 2], const uint32_t (&p)[P::MET / 16][4],
                                           const T *met) {
  const uint64_t b = wgmma_mn_major(met, 0, P::MET);
#pragma unroll
  for (int row = 0; row < P::MET; row += WGMMA_K)
    wgmma<T, P::WIDTH, Major::MN>(sums, p[row / WGMMA_K], wgmma_advance(b, row * TILE_ROW_BYTES), true);
}

// Lets all threads of the warp finish what they did with a place, then frees it.
__device__ __forceinline__ void free_place(Mbarrier *barrier) {
  __syncwarp();
  if (threadIdx.x % WARP == 0) mbarrier_arrive(barrier);
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

// lse and delta that belong to x[4 j .. 4 j + 3]: of columns where rows are met, of the thread's two rows else.
__device__ __forceinline__ const RowPair &pair_of(const float *statistics, int lane, int j) {
  const int pair = j * 4 + lane % 4;
  return *reinterpret_cast<const RowPair *>(
      statistics + tile_offset<float>(pair / PAIRS_PER_LINE, pair % PAIRS_PER_LINE * 4));
}

// Zeros for the keys of a tile from `begin` on.
template <class P, class T> __device__ __forceinline__ void clear_keys(T *tile, int begin) {
  constexpr int CHUNKS = TILE_ROW_BYTES / VEC_BYTES;
  for (int i = threadIdx.x - WARPGROUP_THREADS; i < P::PANELS * P::MET * CHUNKS; i += CONSUMERS)
    if (i / CHUNKS % P::MET >= begin) reinterpret_cast<uint4 *>(tile)[i] = {0, 0, 0, 0};
  fence_async();
  named_barrier_sync(CONSUMER_BARRIER, CONSUMERS);
}

// Rounds factor * sums of the warp's 16 rows, of which `count` exist and is_seen says which are not zero, and stores
// them by way of `tile`, the warp's rows of a place in shared memory that nobody reads any more.
template <class P, class T>
__device__ __forceinline__ void store_rows(const float (&sums)[P::WIDTH / 2], float factor, const bool (&is_seen)[2],
                                           T *tile, const Heads<T> &out, const Work &w, int row, int count, int d) {
  const int lane = threadIdx.x % WARP;
#pragma unroll
  for (int h = 0; h < 2; ++h)
#pragma unroll
    for (int i = 2 * h; i < P::WIDTH / 2; i += 4) {
      const int column = wgmma_column(lane, i);
      const float low = is_seen[h] ? sums[i] * factor : 0.0f, high = is_seen[h] ? sums[i + 1] * factor : 0.0f;
      const uint32_t pair = pack_pair<T>(low, high);
      const int place = column / PANEL * OWN * PANEL + tile_offset<T>(h * 8 + lane / 4, column % PANEL);
      memcpy(tile + place, &pair, sizeof pair);
    }
  __syncwarp();
  constexpr int CHUNKS = P::WIDTH / VEC<T>;
#pragma unroll 1
  for (int i = lane; i < attention::TILE_ROWS * CHUNKS; i += WARP) {
    const int r = i / CHUNKS, column = i % CHUNKS * VEC<T>;
    if (r >= count || column >= d) continue;
    const auto x = *reinterpret_cast<const Vector<T> *>(tile + column / PANEL * OWN * PANEL +
                                                        tile_offset<T>(r, column % PANEL));
    T *const to = out.at(w.sequence, row + r, w.head) + column;
    if (out.is_aligned) {
      *reinterpret_cast<Vector<T> *>(to) = x;
    } else {
#pragma unroll
      for (int j = 0; j < VEC<T>; ++j) to[j] = x.element[j];
    }
  }
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
      order_scores<P>(s, own[0], shared->first[first.place]);
      wgmma_commit();
    };
    const auto order_second = [&] {
      mbarrier_wait(&shared->second_full[second.place], second.parity);
      wgmma_fence(ds);
      order_scores<P>(ds, own[1], shared->second[second.place]);
      wgmma_commit();
    };
    const auto order_all_sums = [&] {
      wgmma_fence(sums, packed);
      if constexpr (P::OWNS_KEYS) {
        wgmma_fence(sums, p);
        order_sums<P>(sums[1], p, shared->second[last_second]);
      }
      order_sums<P>(sums[0], packed, shared->first[last_first]);
      wgmma_commit();
    };
    const auto wait_for_sums = [&] {
      if constexpr (P::OWNS_KEYS) wgmma_wait<0>(sums, p);
      wgmma_wait<0>(sums, packed);
    };
    const auto free_met = [&] {
      free_place(&shared->first_free[last_first]);
      if constexpr (P::OWNS_KEYS) free_place(&shared->second_free[last_second]);
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
              P::OWNS_KEYS ? pair_of(shared->statistics[first.place], lane, j).lse[e % 2] : of_rows.lse[e / 2];
          s[4 * j + e] = exp2_flushed(__fmaf_rn(s[4 * j + e], scale, -lse));
        }
      if (!is_whole()) mask(s);
    };
    const auto find_derivatives = [&] {
      if (!is_whole()) mask(ds);
#pragma unroll
      for (int j = 0; j < COUNT / 4; ++j)
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const float delta =
              P::OWNS_KEYS ? pair_of(shared->statistics[first.place], lane, j).delta[e % 2] : of_rows.delta[e / 2];
          ds[4 * j + e] = s[4 * j + e] * (ds[4 * j + e] - delta);
        }
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
    if constexpr (!P::OWNS_KEYS) free_place(&shared->second_free[second.place]);
    find_derivatives();
    end_tile();
#pragma unroll 1
    for (int i = 1; i < num_tiles; ++i) {
      order_first();
      if constexpr (!P::IS_NARROW) order_second();
      order_all_sums();
      if constexpr (P::IS_NARROW) {
        wgmma_wait<1>(s);
        find_powers();
        wait_for_sums();
        free_met();
        order_second();
        wgmma_wait<0>(ds);
      } else {
        wgmma_wait<2>(s);
        find_powers();
        wgmma_wait<1>(ds);
      }
      if constexpr (!P::OWNS_KEYS) free_place(&shared->second_free[second.place]);
      find_derivatives();
      if constexpr (!P::IS_NARROW) {
        wait_for_sums();
        free_met();
      }
      end_tile();
    }
    order_all_sums();
    wait_for_sums();
  }

  named_barrier_sync(GROUP_BARRIER + group, WARPGROUP_THREADS);  // what is owned has been read by all warps
  bool is_seen[2];
#pragma unroll
  for (int h = 0; h < 2; ++h) is_seen[h] = !P::OWNS_KEYS || row + h * 8 + lane / 4 < length;
  const int count = w.num_own - warp_row;
  if constexpr (P::OWNS_KEYS) {
    store_rows<P>(sums[0], o.scale, is_seen, shared->own[0] + warp_row * PANEL, o.dk, w, row, count, o.d);
    store_rows<P>(sums[1], 1.0f, is_seen, shared->own[1] + warp_row * PANEL, o.dv, w, row, count, o.d);
  } else {
    store_rows<P>(sums[0], o.scale, is_seen, shared->own[0] + warp_row * PANEL, o.dq, w, row, count, o.d);
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

// Rows of [B, N, H, D] in tiles of `rows` positions. False: no map takes them.
template <class T>
bool map_rows(TensorMap *map, const Heads<const T> &x, int b, int n, int h, int d, int rows) {
  const int64_t extents[5] = {d, n, h, b, 1};
  int64_t strides[4] = {x.stride[1], x.stride[2], x.stride[0], d};
  for (int i = 0; i < 4; ++i) {
    if (extents[i + 1] == 1) strides[i] = d;
    if (strides[i] <= 0) return false;
  }
  return make_tensor_map(map, x.data, extents, strides, {rows, 1, 1, 1}) == 0;
}

template <class T, int WIDTH> bool launch_width(void *stream, const Operands<T> &o, int *status) {
  using Keys = Pass<T, WIDTH, true>;
  using Rows = Pass<T, WIDTH, false>;
  const int b = o.num_sequences, h = o.heads, g = o.kv_heads, t = o.num_queries, s = o.num_keys;
  const int64_t lines = b * padded_rows(t) * h / (2 * PAIRS_PER_LINE);
  if (lines > INT32_MAX || t > INT32_MAX - 1024 || s > INT32_MAX - 1024) return false;
  Maps keys, rows;
  if (!map_rows(&keys.own[0], o.k, b, s, g, o.d, OWN) || !map_rows(&keys.own[1], o.v, b, s, g, o.d, OWN) ||
      !map_rows(&keys.met[0], o.q, b, t, h, o.d, Keys::MET) || !map_rows(&keys.met[1], o.dy, b, t, h, o.d, Keys::MET) ||
      !map_rows(&rows.own[0], o.q, b, t, h, o.d, OWN) || !map_rows(&rows.own[1], o.dy, b, t, h, o.d, OWN) ||
      !map_rows(&rows.met[0], o.k, b, s, g, o.d, Rows::MET) || !map_rows(&rows.met[1], o.v, b, s, g, o.d, Rows::MET) ||
      make_tensor_map(&keys.statistics, static_cast<const float *>(o.workspace), lines, TILE_COLUMNS<float>,
                      TILE_COLUMNS<float>, LINES) != 0)
    return false;
  rows.statistics = keys.statistics;
  constexpr int LANES = WIDTH <= 64 ? 8 : 16;
  const int64_t key_tiles = attention::ceil_divide(s, OWN), row_tiles = attention::ceil_divide(t, OWN);
  const int64_t statistics_blocks = b * padded_rows(t) * h / (STATISTICS_THREADS / LANES);
  if (key_tiles * b * g > INT32_MAX || row_tiles * b * h > INT32_MAX || statistics_blocks > INT32_MAX) return false;

  const auto run = [&](auto pass, int64_t tiles, int64_t units, int64_t met_bytes, const Maps &maps) {
    using P = decltype(pass);
    const int64_t band = max(int64_t{1}, min(units, BAND_BYTES / met_bytes));
    return gt::launch(attention_backward_warp_specialised<P>, dim3(static_cast<unsigned>(tiles * units)), THREADS,
                      sizeof(Shared<P>), stream, o, static_cast<int>(tiles), static_cast<int>(units),
                      static_cast<int>(band), maps);
  };
  const int64_t row_bytes = int64_t{o.d} * 2 * static_cast<int64_t>(sizeof(T));
  *status = gt::launch(attention_row_statistics<T, LANES>, dim3(static_cast<unsigned>(statistics_blocks)),
                       STATISTICS_THREADS, 0, stream, o);
  if (*status == 0)
    *status = run(Keys(), key_tiles, int64_t{b} * g, row_bytes * t * o.group, keys);
  if (*status == 0)
    *status = run(Rows(), row_tiles, int64_t{b} * h, row_bytes * s, rows);
  return true;
}

}  // namespace

template <class T> bool launch_hopper(void *stream, const Operands<T> &o, int *status) {
  const bool takes = !o.bias && o.d % VEC<T> == 0 && o.d <= 128 && o.num_sequences > 0 && o.num_queries > 0 &&
                     o.num_keys > 0 && o.heads > 0 && o.rows_are_aligned() && o.keys_are_aligned() && o.y.is_aligned;
  if (!takes || !has_hopper()) return false;
  if (o.d <= 64) return launch_width<T, 64>(stream, o, status);
  if (o.d <= 96) return launch_width<T, 96>(stream, o, status);
  return launch_width<T, 128>(stream, o, status);
}
template bool launch_hopper(void *, const Operands<bf16> &, int *);
template bool launch_hopper(void *, const Operands<f16> &, int *);

int64_t hopper_workspace_bytes(int64_t sequences, int64_t heads, int64_t queries) {
  return sequences * heads * padded_rows(queries) / 2 * static_cast<int64_t>(sizeof(RowPair));
}

}  // namespace gt::attention_backward
