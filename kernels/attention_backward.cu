// The derivatives of dense attention on CUDA.
//
// Computes    gt_attention_backward of gatun/attention.h, from recomputed scores: P = exp(S - lse), dS = P (dP - delta)
// Shapes      as there. Where every row of q and dy (of k and v) starts at a multiple of 16 bytes it moves by 16 bytes,
//             else element by element. On Hopper attention_backward_sm90.cu has 16-bit rows without bias, D <= 128
// Types       f32, bf16, f16. S, dP, P, dS and sums in f32; for bf16 and f16 the products are mma.sync's, P and dS
//             being rounded to the dtype before they are multiplied. f32 has plain multiply-adds, no TF32
// Mapping     a warp per row finds delta = dy . y. Then tiles twice: a block owns 16 to 64 rows (every query head of a
//             group, query after query) for dq and meets the keys, and 16 to 64 keys for dk, dv and meets the rows;
//             what it owns plays q's part of attention_tile.h, what it meets the keys'. A warp holds the sums of 16 of
//             its own and up to 128 columns; from D = 129 on 2 or 4 warps share them. dbias, where wanted: a block per
//             tile of dbias, which meets the batches and heads that share it
// Memory      what is met comes in tiles of 8 to 64, the next one on its way while one is worked on. 68 to 133 KiB of
//             shared memory a block
// Numerics    powers of two, log2(e) in the scale. Every element is one sum in ascending key, row, or batch and head:
//             no atomics. Tiles that a mask hides are skipped; keys from key_lengths on are zeros, never what lies
//             there
// Limits      D <= 512; S, T H / G and the blocks of a launch below 2^31; sm_80 and later
// Source      Dao 2023 (arXiv 2307.08691), with dq in a pass of its own: 7 products instead of 5, and no sums between
//             blocks. On an H200, where it did D = 128 in bf16 too, 89 TFLOP/s, 0.16 of cuDNN's (bench/results/h200.md)
#include "attention_backward_operands.h"
#include "attention_operands.h"
#include "check.h"
#include "lib/hopper.h"

namespace gt {

decltype(gt_attention_backward) attention_backward_cuda;
decltype(gt_attention_backward_workspace) attention_backward_workspace_cuda;

namespace {

using attention::check_counts;
using attention::HAS_MMA;
using attention::TILE_ROWS;
using attention_backward::Heads;
using attention_backward::Operands;

constexpr int WARPS = 4;         // of a block of tiles
constexpr int ROW_THREADS = 256; // of a block of rows

template <class T, int WIDTH> struct Policy {
  static constexpr int COLUMNS = WIDTH < 128 ? WIDTH : 128;  // of a warp: dk and dv of 16 x 128 are 128 registers
  static constexpr int WARPS_PER_ROW = WIDTH / COLUMNS;
  static constexpr int OWN = WARPS / WARPS_PER_ROW * TILE_ROWS;
  static constexpr int MET_16_BIT = WIDTH <= 64 ? 64 : WIDTH <= 256 ? 32 : 16;
  static constexpr int MET_F32 = WIDTH <= 64 ? 32 : WIDTH <= 128 ? 16 : 8;
  static constexpr int MET = HAS_MMA<T> ? MET_16_BIT : MET_F32;
  static constexpr int TILE = MET * WIDTH;
  static constexpr int SCRATCH = HAS_MMA<T> ? 0 : WARPS * TILE_ROWS * MET;  // elements, for accumulate_f32
  static constexpr int INFO_ROWS = OWN > 2 * MET ? OWN : 2 * MET;
};

// What a tile's rows have beside their columns.
template <int N> struct RowInfo {
  float lse[N], delta[N];  // lse in powers of two
  int visible[N];
  int64_t bias[N];         // where the row's bias begins
};
template <class T, int WIDTH> using Info = RowInfo<Policy<T, WIDTH>::INFO_ROWS>;

template <class T, int WIDTH> constexpr size_t smem_bytes() {
  using P = Policy<T, WIDTH>;
  return sizeof(T) * (static_cast<size_t>(2 * P::OWN + 4 * P::MET) * WIDTH + P::SCRATCH) + sizeof(Info<T, WIDTH>);
}

template <class T> __global__ void __launch_bounds__(ROW_THREADS) attention_delta_row_per_warp(const Operands<T> o) {
  const int64_t rows = int64_t{o.num_sequences} * o.heads * o.num_queries;
  const int64_t row = int64_t{blockIdx.x} * (ROW_THREADS / WARP) + threadIdx.x / WARP;
  if (row >= rows) return;
  const int t = row % o.num_queries, bh = static_cast<int>(row / o.num_queries);
  const T *const dy = o.dy.at(bh / o.heads, t, bh % o.heads), *const y = o.y.at(bh / o.heads, t, bh % o.heads);
  float sum = 0.0f;
  for (int i = threadIdx.x % WARP; i < o.d; i += WARP) sum += to_float(dy[i]) * to_float(y[i]);
  sum = warp_sum(sum);
  if (threadIdx.x % WARP == 0) o.workspace[row] = sum;
}

// info[first + i] of rows i < count: query (row + i) / group of head first_head + (row + i) % group; the rows from
// there up to n see nothing.
template <class T, int N>
__device__ __forceinline__ void load_info(RowInfo<N> &info, int first, int n, int count, const Operands<T> &o, int b,
                                          int first_head, int group, int row) {
  for (int i = threadIdx.x; i < n; i += blockDim.x) {
    float lse = 0.0f, delta = 0.0f;
    int visible = 0;
    int64_t bias = 0;
    if (i < count) {
      const int query = (row + i) / group, head = first_head + (row + i) % group;
      const int64_t at = (int64_t{b} * o.heads + head) * o.num_queries + query;
      lse = attention::base_of(o.lse[at]) * attention::LOG2E;
      delta = o.workspace[at];
      visible = o.visible(o.length(b), query);
      bias = b * o.stride_bias[0] + head * o.stride_bias[1] + query * o.stride_bias[2];
    }
    info.lse[first + i] = lse;
    info.delta[first + i] = delta;
    info.visible[first + i] = visible;
    info.bias[first + i] = bias;
  }
}

// Turns q . k into P and dy . v into dS, for row `row` of info and the key at a position; 0 if it is not seen.
template <class T, int N>
__device__ __forceinline__ void differentiate(const Operands<T> &o, const RowInfo<N> &info, int row, int key, float &p,
                                              float &ds) {
  const bool is_seen = key < info.visible[row];
  float score = p * (o.scale * attention::LOG2E);
  if (o.bias && is_seen) score += o.bias[info.bias[row] + key * o.stride_bias[3]] * attention::LOG2E;
  p = is_seen ? exp2_flushed(score - info.lse[row]) : 0.0f;
  ds = is_seen ? p * (ds - info.delta[row]) : 0.0f;
}

// to[0 .. count) = factor * sums, of the warp's 16 rows and its columns.
template <class T, int COLUMNS, class RowOf>
__device__ __forceinline__ void store_sums(const attention::Rows<COLUMNS> &sums, int count, int first_column, int d,
                                           float factor, RowOf row_of) {
  const int lane = threadIdx.x % WARP;
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int r = lane / 4 + h * 8;
    if (r >= count) continue;
    T *const to = row_of(r);
#pragma unroll
    for (int j = 0; j < COLUMNS / 8; ++j)
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const int column = first_column + j * 8 + lane % 4 * 2 + e;
        if (column < d) to[column] = from_float<T>(sums.o[j][2 * h + e] * factor);
      }
  }
}

// OWNS_KEYS: dk and dv of a tile of keys; else dq of a tile of rows.
template <class T, int WIDTH, bool OWNS_KEYS>
__global__ void __launch_bounds__(WARPS * WARP) attention_backward_tiles(const Operands<T> o, int num_tiles) {
  using P = Policy<T, WIDTH>;
  constexpr int OWN = P::OWN, MET = P::MET, TILE = P::TILE, COLUMNS = P::COLUMNS;
  GT_DYNAMIC_SMEM(T, own);  // q and dy, or k and v
  T *const met = own + 2 * OWN * WIDTH;  // the others, two stages
  T *const scratch = met + 4 * TILE;
  auto &info = *reinterpret_cast<Info<T, WIDTH> *>(scratch + P::SCRATCH);
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
  const int first_row = warp / P::WARPS_PER_ROW * TILE_ROWS, first_column = warp % P::WARPS_PER_ROW * COLUMNS;
  const int bg = blockIdx.x / num_tiles, b = bg / o.kv_heads, g = bg % o.kv_heads;
  const int tile = OWNS_KEYS ? blockIdx.x % num_tiles : num_tiles - 1 - blockIdx.x % num_tiles;  // longest first
  const int rows = o.num_queries * o.group, own_first = tile * OWN, columns = o.columns();
  const int num_own = min(OWN, (OWNS_KEYS ? o.num_keys : rows) - own_first);

  int begin = 0, end = o.visible(o.length(b), (own_first + num_own - 1) / o.group);
  if (OWNS_KEYS) {
    begin = o.is_causal ? max(own_first + o.num_queries - o.num_keys, 0) * o.group : 0;
    end = own_first < o.length(b) ? rows : begin;
  }
  const auto load_rows = [&](T *to, const Heads<const T> &from, int n, int first, int count) {
    attention::load_rows<T, WIDTH>(to, n, count, o.d, columns, o.rows_are_aligned(), threadIdx.x, WARPS * WARP,
                                   [&](int r) {
                                     const int row = first + r;
                                     return from.at(b, row / o.group, g * o.group + row % o.group);
                                   });
  };
  const auto load_keys = [&](T *to, const Heads<const T> &from, int n, int first, int count) {
    attention::load_rows<T, WIDTH>(to, n, count, o.d, columns, o.keys_are_aligned(), threadIdx.x, WARPS * WARP,
                                   [&](int r) { return from.at(b, first + r, g); });
  };
  const auto load_met = [&](int stage, int start) {
    T *const to = met + stage * 2 * TILE;
    const int count = end - start;
    if (count <= 0) return;
    if constexpr (OWNS_KEYS) {
      load_rows(to, o.q, MET, start, count);
      load_rows(to + TILE, o.dy, MET, start, count);
      load_info(info, stage * MET, MET, count, o, b, g * o.group, o.group, start);
    } else {
      load_keys(to, o.k, MET, start, count);
      load_keys(to + TILE, o.v, MET, start, count);
    }
  };
  if (begin < end) {
    if constexpr (OWNS_KEYS) {
      const int num_seen = min(num_own, o.length(b) - own_first);  // beyond may lie NaN
      load_keys(own, o.k, OWN, own_first, num_seen);
      load_keys(own + OWN * WIDTH, o.v, OWN, own_first, num_seen);
    } else {
      load_rows(own, o.q, OWN, own_first, num_own);
      load_rows(own + OWN * WIDTH, o.dy, OWN, own_first, num_own);
      load_info(info, 0, OWN, num_own, o, b, g * o.group, o.group, own_first);
    }
    load_met(0, begin);
  }
  async_copy_commit();

  attention::Rows<COLUMNS> first_sums[1], second_sums[1];  // dq, or dk and dv
  first_sums[0].begin();
  second_sums[0].begin();
  const auto every = [](int, int) { return MET; };
  int stage = 0;
#pragma unroll 1
  for (int start = begin; start < end; start += MET, stage ^= 1) {
    async_copy_wait<0>();
    __syncthreads();  // this stage is there, the other one is free
    load_met(stage ^ 1, start + MET);
    async_copy_commit();
    if (first_row >= num_own) continue;
    const T *const one = met + stage * 2 * TILE, *const other = one + TILE;
    float p[1][MET / 8][4], ds[1][MET / 8][4];
    attention::score<T, WIDTH, 1, MET>(own + first_row * WIDTH, one, num_own - first_row, columns, p);
    attention::score<T, WIDTH, 1, MET>(own + (OWN + first_row) * WIDTH, other, num_own - first_row, columns, ds);
#pragma unroll
    for (int j = 0; j < MET / 8; ++j)
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int i = first_row + lane / 4 + e / 2 * 8, m = j * 8 + lane % 4 * 2 + e % 2;
        differentiate(o, info, OWNS_KEYS ? stage * MET + m : i, OWNS_KEYS ? own_first + i : start + m, p[0][j][e],
                      ds[0][j][e]);
      }
    T *const warp_scratch = scratch + warp * TILE_ROWS * MET;
    attention::accumulate<T, WIDTH, COLUMNS, 1, MET>(first_sums, ds, one, warp_scratch, num_own - first_row,
                                                     first_column, columns, true, every);
    if constexpr (OWNS_KEYS)
      attention::accumulate<T, WIDTH, COLUMNS, 1, MET>(second_sums, p, other, warp_scratch, num_own - first_row,
                                                       first_column, columns, true, every);
  }
  async_copy_wait<0>();

  const int count = num_own - first_row, own_row = own_first + first_row;
  if constexpr (OWNS_KEYS) {
    store_sums<T>(first_sums[0], count, first_column, o.d, o.scale, [&](int r) { return o.dk.at(b, own_row + r, g); });
    store_sums<T>(second_sums[0], count, first_column, o.d, 1.0f, [&](int r) { return o.dv.at(b, own_row + r, g); });
  } else {
    store_sums<T>(first_sums[0], count, first_column, o.d, o.scale, [&](int r) {
      return o.dq.at(b, (own_row + r) / o.group, g * o.group + (own_row + r) % o.group);
    });
  }
}

// A block has OWN queries and MET keys of a plane of dbias, and meets the sequences and heads that share it.
template <class T, int WIDTH>
__global__ void __launch_bounds__(WARPS * WARP, 2)
    attention_bias_gradient_tile(const Operands<T> o, int row_tiles, int key_tiles, int planes_per_sequence,
                                 int sequences_per_plane) {
  using P = Policy<T, WIDTH>;
  constexpr int OWN = P::OWN, MET = P::MET, TILE = P::TILE;
  GT_DYNAMIC_SMEM(T, own);
  T *const met = own + 2 * OWN * WIDTH;
  auto &info = *reinterpret_cast<Info<T, WIDTH> *>(met + 4 * TILE + P::SCRATCH);
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
  const int first_row = warp / P::WARPS_PER_ROW * TILE_ROWS, columns = o.columns();
  const int key_tile = blockIdx.x % key_tiles, row_tile = blockIdx.x / key_tiles % row_tiles;
  const int plane = blockIdx.x / key_tiles / row_tiles;
  const int first_query = row_tile * OWN, first_key = key_tile * MET;
  const int num_own = min(OWN, o.num_queries - first_query);
  const int heads_per_plane = o.heads / planes_per_sequence;
  float sum[MET / 8][4] = {};
#pragma unroll 1
  for (int i = 0; i < sequences_per_plane * heads_per_plane; ++i) {
    const int b = plane / planes_per_sequence * sequences_per_plane + i / heads_per_plane;
    const int h = plane % planes_per_sequence * heads_per_plane + i % heads_per_plane, g = h / o.group;
    const int num_met = min(o.visible(o.length(b), first_query + num_own - 1) - first_key, MET);
    if (num_met <= 0) continue;
    __syncthreads();
    const auto load = [&](T *to, const Heads<const T> &from, int n, int head, int first, int count, bool aligned) {
      attention::load_rows<T, WIDTH>(to, n, count, o.d, columns, aligned, threadIdx.x, WARPS * WARP,
                                     [&](int r) { return from.at(b, first + r, head); });
    };
    load(own, o.q, OWN, h, first_query, num_own, o.rows_are_aligned());
    load(own + OWN * WIDTH, o.dy, OWN, h, first_query, num_own, o.rows_are_aligned());
    load(met, o.k, MET, g, first_key, num_met, o.keys_are_aligned());
    load(met + TILE, o.v, MET, g, first_key, num_met, o.keys_are_aligned());
    load_info(info, 0, OWN, num_own, o, b, h, 1, first_query);
    async_copy_commit();
    async_copy_wait<0>();
    __syncthreads();
    if (first_row >= num_own) continue;
    float p[1][MET / 8][4], ds[1][MET / 8][4];
    attention::score<T, WIDTH, 1, MET>(own + first_row * WIDTH, met, num_own - first_row, columns, p);
    attention::score<T, WIDTH, 1, MET>(own + (OWN + first_row) * WIDTH, met + TILE, num_own - first_row, columns, ds);
#pragma unroll
    for (int j = 0; j < MET / 8; ++j)
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        differentiate(o, info, first_row + lane / 4 + e / 2 * 8, first_key + j * 8 + lane % 4 * 2 + e % 2, p[0][j][e],
                      ds[0][j][e]);
        sum[j][e] += ds[0][j][e];
      }
  }
  if (warp % P::WARPS_PER_ROW != 0) return;
#pragma unroll
  for (int j = 0; j < MET / 8; ++j)
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const int r = first_row + lane / 4 + e / 2 * 8, key = first_key + j * 8 + lane % 4 * 2 + e % 2;
      if (r < num_own && key < o.num_keys)
        o.dbias[(int64_t{plane} * o.num_queries + first_query + r) * o.num_keys + key] = sum[j][e];
    }
}

// Host

constexpr const char *OP = "attention_backward";

template <class T, int WIDTH> gt_status launch_width(void *stream, const Operands<T> &o, const gt_tensor *dbias) {
  using P = Policy<T, WIDTH>;
  const int64_t rows = int64_t{o.num_queries} * o.group, pairs = int64_t{o.num_sequences} * o.kv_heads;
  const int64_t row_tiles = ceil_divide(rows, P::OWN);
  const int64_t key_tiles = ceil_divide(o.num_keys, P::OWN);
  const auto run = [&](auto kernel, int64_t blocks, auto... sizes) -> gt_status {
    if (blocks == 0) return GT_OK;
    if (const gt_status status = check_counts(OP, {blocks})) return status;
    return status_of(OP, launch(kernel, dim3(static_cast<unsigned>(blocks)), WARPS * WARP, smem_bytes<T, WIDTH>(),
                                stream, o, static_cast<int>(sizes)...));
  };
  gt_status status = run(attention_backward_tiles<T, WIDTH, true>, key_tiles * pairs, key_tiles);
  if (status == GT_OK) status = run(attention_backward_tiles<T, WIDTH, false>, row_tiles * pairs, row_tiles);
  if (status != GT_OK || !dbias) return status;
  const int64_t query_tiles = ceil_divide(o.num_queries, P::OWN);
  const int64_t met_tiles = ceil_divide(o.num_keys, P::MET);
  return run(attention_bias_gradient_tile<T, WIDTH>, dbias->shape[0] * dbias->shape[1] * query_tiles * met_tiles,
             query_tiles, met_tiles, dbias->shape[1], dbias->shape[0] == 1 ? o.num_sequences : 1);
}

template <class T> gt_status launch_all(void *stream, const Operands<T> &o, const gt_tensor *dbias) {
  const int64_t blocks = ceil_divide(int64_t{o.num_sequences} * o.heads * o.num_queries, ROW_THREADS / WARP);
  if (const gt_status status = check_counts(OP, {blocks})) return status;
  if (blocks > 0)
    if (const int status = launch(attention_delta_row_per_warp<T>, dim3(static_cast<unsigned>(blocks)), ROW_THREADS, 0,
                                  stream, o))
      return status_of(OP, status);
  if (o.d <= 64) return launch_width<T, 64>(stream, o, dbias);
  if (o.d <= 128) return launch_width<T, 128>(stream, o, dbias);
  if (o.d <= 256) return launch_width<T, 256>(stream, o, dbias);
  return launch_width<T, 512>(stream, o, dbias);
}

template <class T> Heads<T> heads_of(const gt_tensor *t) {
  bool aligned = is_aligned(static_cast<const T *>(t->data));
  for (int i = 0; i < t->rank - 1; ++i) aligned &= t->stride[i] % VEC<T> == 0 || t->shape[i] == 1;
  return {static_cast<T *>(t->data), {t->stride[0], t->stride[1], t->stride[2]}, aligned};
}

}  // namespace

gt_status attention_backward_workspace_cuda(const gt_stream *, const gt_tensor *q, const gt_tensor *, int64_t *bytes) {
  *bytes = q->shape[0] * q->shape[1] * q->shape[2] * static_cast<int64_t>(sizeof(float));
  if (q->dtype != GT_F32 && has_hopper())
    *bytes = max(*bytes, attention_backward::hopper_workspace_bytes(q->shape[0], q->shape[2], q->shape[1],
                                                                    q->shape[3]));
  return GT_OK;
}

gt_status attention_backward_cuda(const gt_stream *stream, const gt_tensor *dq, const gt_tensor *dk,
                                  const gt_tensor *dv, const gt_tensor *dbias, const gt_tensor *dy, const gt_tensor *y,
                                  const gt_tensor *lse, const gt_tensor *q, const gt_tensor *k, const gt_tensor *v,
                                  const gt_tensor *bias, const gt_tensor *key_lengths, float scale, gt_mask mask,
                                  const gt_tensor *workspace) {
  const int64_t b = q->shape[0], t = q->shape[1], h = q->shape[2], s = k->shape[1], g = k->shape[2];
  if (const gt_status status = check_counts(OP, {b, t * (h / g), s, b * h})) return status;
  int64_t bytes = 0;
  attention_backward_workspace_cuda(stream, q, k, &bytes);
  if (bytes > 0 && (!workspace || elements(*workspace) < bytes || !is_aligned(static_cast<char *>(workspace->data))))
    return fail(GT_INVALID_ARGUMENT, "%s: workspace has %lld bytes, expected %lld, 16-byte aligned", OP,
                static_cast<long long>(workspace ? elements(*workspace) : 0), static_cast<long long>(bytes));
  const auto run = [&](auto zero) -> gt_status {
    using T = decltype(zero);
    Operands<T> o = {};
    o.dq = heads_of<T>(dq), o.dk = heads_of<T>(dk), o.dv = heads_of<T>(dv);
    o.dy = heads_of<const T>(dy), o.y = heads_of<const T>(y);
    o.q = heads_of<const T>(q), o.k = heads_of<const T>(k), o.v = heads_of<const T>(v);
    o.lse = static_cast<const float *>(lse->data);
    o.workspace = workspace ? static_cast<float *>(workspace->data) : nullptr;
    o.dbias = dbias ? static_cast<float *>(dbias->data) : nullptr;
    if (bias) {
      o.bias = static_cast<const float *>(bias->data);
      for (int i = 0; i < 4; ++i) o.stride_bias[i] = i < 2 && bias->shape[i] == 1 ? 0 : bias->stride[i];
    }
    o.key_lengths = key_lengths ? static_cast<const int32_t *>(key_lengths->data) : nullptr;
    o.num_sequences = static_cast<int>(b), o.num_queries = static_cast<int>(t), o.num_keys = static_cast<int>(s);
    o.heads = static_cast<int>(h), o.kv_heads = static_cast<int>(g), o.group = static_cast<int>(h / g);
    o.d = static_cast<int>(q->shape[3]);
    o.scale = scale;
    o.is_causal = mask == GT_MASK_CAUSAL;
    if constexpr (HAS_MMA<T>) {
      int status = 0;
      if (attention_backward::launch_hopper(stream->handle, o, &status)) return status_of(OP, status);
    }
    return launch_all(stream->handle, o, dbias);
  };
  switch (q->dtype) {
    case GT_F32: return run(float{});
    case GT_BF16: return run(bf16{});
    default: return run(f16{});
  }
}

}  // namespace gt
