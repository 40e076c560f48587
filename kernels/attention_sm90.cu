// Attention on Hopper's tensor cores and copy engine: dense, and of prompts against a paged cache.
//
// Computes    gatun/attention.h, without bias: online softmax over tiles of keys
// Shapes      as in gatun/attention.h, as far as launch_hopper takes them: D a multiple of 8 up to 128 or from 200 to
//             256, rows of q, k and v at multiples of 16 bytes, scale > 0; attention.cu has the rest, and
//             attention_decode.cu paged rows of which there are no more than sequences
// Types       bf16, f16. Scores, sums and outputs in f32; powers are rounded to the dtype before they meet the values
// Mapping     a persistent block per SM. Warpgroup 0 has the copy engine bring q, and k and v tile by tile; each of 2
//             or 3 others owns 64 query rows. A row is a query of one head; up to 64 heads of a group are neighbours in
//             a tile, so that short queries fill it. A warpgroup orders the scores of the next tile and the values of
//             this one together, and does its softmax while both run; the groups take turns (named barriers), so that
//             one's softmax meets the other's products; a group leaves out keys that none of its rows sees. Causal:
//             the longest tiles first, in bands of heads whose keys fit in L2. Paged: the same, with all heads side by
//             side; the tiles that N rows of B sequences may need, see attention_hopper.h
// Memory      q once, k and v once per tile of rows, mostly from L2, in pages 64 keys at a time (D above 128: 16); y
//             leaves through the place of q. Shared: see PLAN
// Numerics    powers of two, log2(e) in the scale, one fma each; only tiles that some row sees in part are masked. Keys
//             ascend in tiles of fixed size from position 0 on: a row's bits depend on D, its own query and keys alone,
//             not on whether these lie in pages.
//             Values that not all rows of a tile of rows see are read by warps of the producer first: what is NaN or
//             Inf becomes 0, and its column NaN in the rows that see it. A row without keys gives zeros and lse = -inf.
//             Off by a rounding from attention.cu, so the dispatch asks for D, dtype and alignment, not for B, T or S,
//             and in pages only whether N <= B
// Limits      S, T H / G and N H below 2^31, tiles below 2^30; positions ascend within a sequence; sm_90a
// Source      Shah et al. 2024 (arXiv 2407.08608). On an H200, B 4, H 16, S 8192, D 128, causal, bf16: 568 TFLOP/s,
//             0.90 of cuDNN's speed, before groups stopped by themselves and values were looked through first
//             (bench/results/h200.md). A tile of 128 keys costs a thread 64 each of fma, ex2, max and add between 24
//             (D = 128) wgmma
#include "attention_hopper_producer.h"

namespace gt::attention {

namespace {

constexpr int64_t BAND_BYTES = int64_t{32} << 20;  // of k and v that are worked on at a time: of 50 MB of L2
constexpr int ROUNDS_PER_BAND = 4;             // at least, so that blocks have equally much to do in each
constexpr int MAX_PACK = ROWS;                 // heads side by side in a tile

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

template <class T, int WIDTH, bool PAGED>
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
    if (!tile_of<T, P.groups * ROWS, PAGED>(o, schedule, round, tile)) continue;
    const int q_stage = tile_count % P.q_stages;
    const auto query_of = [&](int row) {  // beyond the last: the last
      return tile.first_query + ((tile.first_row + min(row, tile.num_rows - 1)) >> schedule.pack_bits);
    };
    const auto keys_of = [&](int row) { return visible_keys<PAGED>(o, tile.sequence, query_of(row)); };
    // Groups with rows, and how many tiles of keys one of them meets: the first fewest. So many times all take turns.
    const int working = (tile.num_rows + ROWS - 1) / ROWS;
    const auto tiles_of = [&](int g) { return (keys_of(g * ROWS + ROWS - 1) + P.keys - 1) / P.keys; };
    const int num_tiles = group < working ? tiles_of(group) : 0, turns = working > 1 ? tiles_of(0) : 0;
    const int next_turn = TURN_BARRIER + (group + 1 < working ? group + 1 : 0);
    const int least = keys_of(first_row);  // keys that all rows of the warp see
    int seen[2];
#pragma unroll
    for (int h = 0; h < 2; ++h) seen[h] = keys_of(first_row + h * 8 + lane / 4);
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
      mbarrier_arrive_warp(&shared->k_free[stage_of(0)]);
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
        mbarrier_arrive_warp(&shared->k_free[stage_of(j)]);
        mask_scores(j);
        softmax.raise(s, o.scale, rescale);
        wgmma_wait_behind(softmax.sum[0], softmax.sum[1]);
        wgmma_wait<0>(out, p);
        mbarrier_arrive_warp(&shared->v_free[stage_of(j - 1)]);
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
      mbarrier_arrive_warp(&shared->v_free[stage_of(num_tiles - 1)]);
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
    mbarrier_arrive_warp(&shared->q_free[q_stage][group]);

    const int all_tiles = tile.num_tiles<P.keys>();
#pragma unroll 1
    for (int j = num_tiles; j < all_tiles; ++j) {  // those that only groups behind this one meet
      wait_for(shared->k_full, j);
      mbarrier_arrive_warp(&shared->k_free[stage_of(j)]);
      wait_for(shared->v_full, j);
      mbarrier_arrive_warp(&shared->v_free[stage_of(j)]);
    }
    key_count += all_tiles;
    ++tile_count;
  }
  if (group == 0) named_barrier_sync(TURN_BARRIER, 2 * WARPGROUP_THREADS);
}

template <class T, int WIDTH, bool PAGED>
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
    if (threadIdx.x == 0) order_tiles<T, WIDTH, PAGED>(shared, o, schedule, &q_map, &k_map, &v_map);
    else if (threadIdx.x >= WARP) clean_tiles<T, WIDTH, PAGED>(shared, o, schedule);
  } else {
    increase_registers<P.consumer_registers>();
    consume<T, WIDTH, PAGED>(shared, o, schedule, warpgroup - 1);
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

// Rounds in which each block has a tile at most; false: too many tiles.
template <class T, int TILE> bool make_schedule(Schedule *schedule, const Operands<T> &o, int64_t *num_blocks) {
  Schedule &s = *schedule;
  const int heads = o.kv_heads * o.group;
  while (1 << s.pack_bits < MAX_PACK && (o.group >> s.pack_bits) % 2 == 0) ++s.pack_bits;
  const int pack = 1 << s.pack_bits;
  s.units_per_sequence = heads / pack;
  const int64_t units = int64_t{o.page_table ? 1 : o.num_sequences} * s.units_per_sequence;
  const int64_t rows = int64_t{o.num_queries} * pack;
  // Paged: each sequence may have a tile that is not full.
  const int64_t tiles = o.page_table && o.num_sequences > 1 ? rows / TILE + o.num_sequences : ceil_divide(rows, TILE);
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
  *num_blocks = blocks;
  return true;
}

// Of k or v, in boxes of `keys` keys; a page stands for a sequence.
template <class T> bool map_keys(TensorMap *map, const Operands<T> &o, const T *base, const int64_t (&strides)[3],
                                 int keys) {
  const int box[4] = {1, keys, 1, 1};
  if (o.page_table)
    return map_rows(map, base, o.d, {1, PAGE, o.kv_heads, o.num_pages},
                    {0, o.d, int64_t{PAGE} * o.d, int64_t{o.kv_heads} * PAGE * o.d}, box);
  return map_rows(map, base, o.d, {1, o.num_keys, o.kv_heads, o.num_sequences}, {0, strides[1], strides[2], strides[0]},
                  box);
}

template <class T, int WIDTH, bool PAGED> bool launch_width(void *stream, const Operands<T> &o, int *status) {
  constexpr int BOX = BOX_KEYS<WIDTH, PAGED>;
  Schedule s = {};
  int64_t blocks = 0;
  if (!make_schedule<T, PLAN<WIDTH>.groups * ROWS>(&s, o, &blocks)) return false;
  TensorMap q, k, v;
  const int pack = 1 << s.pack_bits;
  if (!map_rows(&q, o.q, o.d, {pack, o.num_queries, s.units_per_sequence, PAGED ? 1 : o.num_sequences},
                {o.stride_q[2], o.stride_q[1], o.stride_q[2] * pack, o.stride_q[0]}, {pack, ROWS / pack, 1, 1}) ||
      !map_keys(&k, o, o.k, o.stride_k, BOX) || !map_keys(&v, o, o.v, o.stride_v, BOX))
    return false;
  *status = gt::launch(attention_warp_specialised<T, WIDTH, PAGED>, dim3(static_cast<unsigned>(blocks)), THREADS<WIDTH>,
                       sizeof(Shared<T, WIDTH>), stream, o, s, q, k, v);
  return true;
}

template <bool PAGED, class T> bool launch_any_width(void *stream, const Operands<T> &o, int *status) {
  if (o.d <= 64) return launch_width<T, 64, PAGED>(stream, o, status);
  if (o.d <= 96) return launch_width<T, 96, PAGED>(stream, o, status);
  if (o.d <= 128) return launch_width<T, 128, PAGED>(stream, o, status);
  return o.d > 192 && o.d <= 256 && launch_width<T, 256, PAGED>(stream, o, status);
}

}  // namespace

template <class T> bool launch_hopper(void *stream, const Operands<T> &o, int *status) {
  const bool takes = !o.bias && o.num_keys > 0 && o.d % VEC<T> == 0 && o.q_is_aligned && o.kv_is_aligned &&
                     o.scale > 0 && o.scale < INFINITY;
  if (!takes || !has_hopper()) return false;
  return o.page_table ? launch_any_width<true>(stream, o, status) : launch_any_width<false>(stream, o, status);
}
template bool launch_hopper(void *, const Operands<bf16> &, int *);
template bool launch_hopper(void *, const Operands<f16> &, int *);

}  // namespace gt::attention
