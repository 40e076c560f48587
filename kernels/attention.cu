// Attention on CUDA: dense, prefill against a paged cache, and filling that cache. Decode is in attention_decode.cu,
// and most of what has 16 bits and no bias in attention_sm90.cu where the GPU is a Hopper.
//
// Computes    gatun/attention.h, block by block with the running maximum and sum of online softmax
// Shapes      as in gatun/attention.h. Where every row of q (k and v; y) starts at a multiple of 16 bytes it moves by
//             16 bytes, else element by element
// Types       f32, bf16, f16. Scores, sums and outputs in f32; for bf16 and f16 the products are mma.sync's and the
//             powers are rounded to the dtype before they meet the values. f32 has plain multiply-adds, no TF32
// Mapping     a block takes up to 128 query rows of one kv head: every query head of the group, query after query, so
//             that a key is read once for all. Its 4 warps own 16 or 32 rows each; from D = 257 (f32: 129) on 2 or 4
//             warps share 16 rows and split the columns of v, of which a warp's registers hold 256 (f32: 128). Under a
//             causal mask the longest tiles come first. The paged op has blocks for as many tiles as N rows of B
//             sequences may need; a block finds its sequence in query_start, and the surplus returns at once
// Memory      q once; k and v once per tile of rows, through shared memory: two tiles of each, the next one on its way
//             while one is worked on. 48 to 96 KiB a block, two blocks on an SM. bias comes from L1
// Numerics    powers of two, log2(e) in the scale. Keys ascend in tiles of fixed size from position 0 on: a row's bits
//             depend on D, its own query, bias and keys alone, so it is the same in any batch, tile or chunk of a
//             prompt. Keys that no row of a tile sees are zeros, never what lies there; one that only some rows see
//             takes no part in the others even where it is NaN or Inf (bf16, f16: rows that see such a value become NaN
//             in its column). A row without keys gives zeros and lse = -inf.
//             Paged, with N <= B and D <= 256: attention_decode.cu, which sums in another order; then too a row's bits
//             do not depend on the batch, as long as every batch it is compared with has N <= B
// Limits      D <= 512; S, T H / G and N H / G below 2^31; sm_80 and later. The paged workspace is for N <= B alone
// Source      Dao 2022 (arXiv 2205.14135), Dao 2023 (arXiv 2307.08691), Kwon et al. 2023 (arXiv 2309.06180). On an
//             H200 a prompt of 512 in pages, 12 heads, D 64, bf16: 40.5 us (bench/results/h200.md)
#include "attention_operands.h"

namespace gt {

decltype(gt_attention) attention_cuda;
decltype(gt_attention_workspace) attention_workspace_cuda;
decltype(gt_attention_paged) attention_paged_cuda;
decltype(gt_attention_paged_workspace) attention_paged_workspace_cuda;
decltype(gt_kv_append) kv_append_cuda;

namespace {

using attention::check_counts;
using attention::HAS_MMA;
using attention::ints_of;
using attention::is_aligned_tensor;
using attention::Operands;
using attention::operands_of;
using attention::PAGE;
using attention::TILE_ROWS;
using attention::with_type;

constexpr int WARPS = 4;              // at most, of a block
constexpr int APPEND_THREADS = 256;   // at most

// 96 KiB at most, so that two blocks fit on an SM; and a warp holds f32 outputs of 32 x 128 or 16 x 256 (f32: 16 x 128,
// whose scores take more registers).
template <class T, int WIDTH> struct Policy {
  static constexpr int ROW_BYTES = WIDTH * static_cast<int>(sizeof(T));
  static constexpr int ROW_TILES = HAS_MMA<T> && WIDTH <= 128 ? 2 : 1;  // of a warp
  static constexpr int WARPS_PER_ROW = WIDTH <= (HAS_MMA<T> ? 256 : 128) ? 1 : WIDTH / (HAS_MMA<T> ? 256 : 128);
  static constexpr int ROWS = WARPS / WARPS_PER_ROW * ROW_TILES * TILE_ROWS;
  static constexpr int KEYS = ROW_BYTES <= 256 ? 64 : ROW_BYTES <= 512 ? 32 : ROW_BYTES <= 1024 ? 16 : 8;
  static constexpr size_t SMEM_BYTES = static_cast<size_t>(ROWS + 4 * KEYS) * ROW_BYTES;
  static_assert(PAGE % KEYS == 0, "the keys of a tile lie in one page");
};

// Rows `first` up to first + num_rows of a sequence: row r is query r / group, head g * group + r % group.
struct RowRange {
  int b, g, first, num_rows, first_query;
};
struct Row {
  int query, head;
};
template <class T> __device__ __forceinline__ Row row_at(const Operands<T> &o, const RowRange &range, int r) {
  const int i = range.first + min(r, range.num_rows - 1);
  return {range.first_query + i / o.group, range.g * o.group + i % o.group};
}

// The rows of this block; none where num_rows is not positive.
template <class T> __device__ __forceinline__ RowRange row_range(const Operands<T> &o, int rows, int num_tiles) {
  const int head = blockIdx.x / num_tiles, tile = num_tiles - 1 - blockIdx.x % num_tiles;
  if (!o.page_table) {
    const int first = tile * rows;
    return {head / o.kv_heads, head % o.kv_heads, first, min(rows, o.num_queries * o.group - first), 0};
  }
  int left = tile;
  for (int b = 0; b < o.num_sequences; ++b) {
    const int begin = o.query_start[b], total = (o.query_start[b + 1] - begin) * o.group;
    const int tiles = (total + rows - 1) / rows;
    if (left < tiles) return {b, head, left * rows, min(rows, total - left * rows), begin};
    left -= tiles;
  }
  return {0, 0, 0, 0, 0};
}

// Keys that a query sees: those before this position.
template <class T> __device__ __forceinline__ int visible_keys(const Operands<T> &o, int b, int query) {
  if (o.positions) return max(o.positions[query] + 1, 0);
  const int length = o.key_lengths ? min(max(o.key_lengths[b], 0), o.num_keys) : o.num_keys;
  return o.is_causal ? min(max(query + 1 - o.num_queries + o.num_keys, 0), length) : length;
}

// s = log2(e) (scale s + bias) where the row sees the key, else -inf. The tile begins at position start.
template <class T, int ROW_TILES, int KEYS>
__device__ __forceinline__ void mask_scores(const Operands<T> &o, const RowRange &range, int first_row, int start,
                                            bool all_seen, float (&s)[ROW_TILES][KEYS / 8][4]) {
  const int lane = threadIdx.x % WARP;
#pragma unroll
  for (int i = 0; i < ROW_TILES; ++i)
#pragma unroll
    for (int j = 0; j < KEYS / 8; ++j)
#pragma unroll
      for (int e = 0; e < 4; ++e) s[i][j][e] *= o.scale;
  if (all_seen && !o.bias) return;
#pragma unroll
  for (int i = 0; i < ROW_TILES; ++i)
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const Row row = row_at(o, range, first_row + i * TILE_ROWS + h * 8 + lane / 4);
      const int seen = all_seen ? KEYS : visible_keys(o, range.b, row.query) - start;
      const float *const bias =
          o.bias + range.b * o.stride_bias[0] + row.head * o.stride_bias[1] + row.query * o.stride_bias[2];
#pragma unroll
      for (int j = 0; j < KEYS / 8; ++j)
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          const int key = j * 8 + lane % 4 * 2 + e;
          float &score = s[i][j][2 * h + e];
          if (key >= seen) score = -INFINITY;
          else if (o.bias) score += bias[(start + key) * o.stride_bias[3]] * attention::LOG2E;
        }
      __syncwarp();  // ends the row: with the loads of all rows in flight registers would spill
    }
}

template <class T, int WIDTH>
__global__ void __launch_bounds__(WARPS * WARP, 2) attention_row_tiles(const Operands<T> o, int num_tiles) {
  using P = Policy<T, WIDTH>;
  constexpr int ROW_TILES = P::ROW_TILES, KEYS = P::KEYS, TILE = KEYS * WIDTH;
  constexpr int OWN_COLUMNS = WIDTH / P::WARPS_PER_ROW;
  GT_DYNAMIC_SMEM(T, q_tile);
  T *const k_tiles = q_tile + P::ROWS * WIDTH, *const v_tiles = k_tiles + 2 * TILE;
  const RowRange range = row_range(o, P::ROWS, num_tiles);
  if (range.num_rows <= 0) return;
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, num_threads = blockDim.x;
  const int block_rows = num_threads / WARP / P::WARPS_PER_ROW * ROW_TILES * TILE_ROWS;
  const int first_row = warp / P::WARPS_PER_ROW * ROW_TILES * TILE_ROWS;
  const int first_column = warp % P::WARPS_PER_ROW * OWN_COLUMNS, columns = o.columns();

  int num_keys = 0;  // that any row of the block sees
  for (int r = lane; r < min(block_rows, range.num_rows); r += WARP)
    num_keys = max(num_keys, visible_keys(o, range.b, row_at(o, range, r).query));
  num_keys = __reduce_max_sync(ALL_LANES, num_keys);

  attention::load_rows<T, WIDTH>(
      q_tile, block_rows, range.num_rows, o.d, columns, o.q_is_aligned, threadIdx.x, num_threads, [&](int r) {
        const Row row = row_at(o, range, r);
        return o.q + range.b * o.stride_q[0] + row.query * o.stride_q[1] + row.head * o.stride_q[2];
      });
  int page = num_keys > 0 ? attention::page_of(o, range.b, 0) : 0;  // of the tile that is loaded next
  const auto load_keys = [&](T *tile, int start, bool is_v) {
    if (start >= num_keys) return;
    const auto at = attention::key_rows(o, range.b, range.g, start, page);
    const T *const rows = is_v ? at.v : at.k;
    const int64_t stride = is_v ? at.stride_v : at.stride_k;
    attention::load_rows<T, WIDTH>(tile, KEYS, num_keys - start, o.d, columns, o.kv_is_aligned, threadIdx.x,
                                   num_threads, [=](int r) { return rows + r * stride; });
  };
  load_keys(k_tiles, 0, false);
  async_copy_commit();
  load_keys(v_tiles, 0, true);
  async_copy_commit();
  if (KEYS < num_keys) page = attention::page_of(o, range.b, KEYS);

  int least = num_keys, most = 0;  // that a row of this warp sees
#pragma unroll
  for (int i = 0; i < ROW_TILES; ++i)
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int row = first_row + i * TILE_ROWS + h * 8 + lane / 4;
      const int keys = visible_keys(o, range.b, row_at(o, range, row).query);
      least = min(least, keys);
      most = max(most, row < range.num_rows ? keys : 0);
    }
  least = __reduce_min_sync(ALL_LANES, least);
  most = __reduce_max_sync(ALL_LANES, most);

  attention::Rows<OWN_COLUMNS> rows[ROW_TILES];
#pragma unroll
  for (int i = 0; i < ROW_TILES; ++i) rows[i].begin();
  int stage = 0;
#pragma unroll 1
  for (int start = 0; start < num_keys; start += KEYS, stage ^= 1) {
    const bool has_work = start < most, all_seen = start + KEYS <= least;
    T *const k_tile = k_tiles + stage * TILE;
    float s[ROW_TILES][KEYS / 8][4];
    async_copy_wait<1>();
    __syncthreads();
    load_keys(k_tiles + (stage ^ 1) * TILE, start + KEYS, false);
    async_copy_commit();
    if (has_work) {
      attention::score<T, WIDTH, ROW_TILES, KEYS>(q_tile + first_row * WIDTH, k_tile, range.num_rows - first_row,
                                                      columns, s);
      mask_scores<T, ROW_TILES, KEYS>(o, range, first_row, start, all_seen, s);
#pragma unroll
      for (int i = 0; i < ROW_TILES; ++i) rows[i].raise(s[i]);
    }
    async_copy_wait<1>();
    __syncthreads();  // k_tile is free as well
    load_keys(v_tiles + (stage ^ 1) * TILE, start + KEYS, true);
    async_copy_commit();
    if (start + 2 * KEYS < num_keys) page = attention::page_of(o, range.b, start + 2 * KEYS);
    if (has_work) {
      const auto seen = [&](int i, int h) {
        return visible_keys(o, range.b, row_at(o, range, first_row + i * TILE_ROWS + h * 8 + lane / 4).query) - start;
      };
      attention::accumulate<T, WIDTH, OWN_COLUMNS, ROW_TILES, KEYS>(
          rows, s, v_tiles + stage * TILE, k_tile + warp * TILE_ROWS * KEYS, range.num_rows - first_row, first_column,
          columns, all_seen, seen);
    }
  }
  async_copy_wait<0>();
  __syncthreads();

  // Through the rows of q, which nobody reads any more, so that a row leaves 16 bytes at a time.
  T *const out = q_tile + first_row * WIDTH;
#pragma unroll
  for (int i = 0; i < ROW_TILES; ++i)
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int r = i * TILE_ROWS + h * 8 + lane / 4;
      const float sum = attention::row_sum(rows[i].sum[h]);
      const float inverse = sum == 0.0f ? 0.0f : 1.0f / sum;
#pragma unroll
      for (int j = 0; j < OWN_COLUMNS / 8; ++j) {
        const int column = first_column + j * 8 + lane % 4 * 2;
        T *const to = attention::chunk_at<T, WIDTH>(out, r, column / VEC<T>) + column % VEC<T>;
        to[0] = from_float<T>(rows[i].o[j][2 * h] * inverse);
        to[1] = from_float<T>(rows[i].o[j][2 * h + 1] * inverse);
      }
      if (o.lse && lane % 4 == 0 && first_column == 0 && first_row + r < range.num_rows) {
        const Row row = row_at(o, range, first_row + r);
        o.lse[range.b * o.stride_lse[0] + row.query * o.stride_lse[1] + row.head * o.stride_lse[2]] =
            sum == 0.0f ? -INFINITY : (rows[i].maximum[h] + log2f(sum)) * attention::LN2;
      }
    }
  __syncwarp();
  constexpr int CHUNKS = OWN_COLUMNS / VEC<T>;
  for (int i = lane; i < ROW_TILES * TILE_ROWS * CHUNKS; i += WARP) {
    const int r = i / CHUNKS, column = first_column + i % CHUNKS * VEC<T>;
    if (first_row + r >= range.num_rows || column >= o.d) continue;
    const Row row = row_at(o, range, first_row + r);
    T *const y = o.y + range.b * o.stride_y[0] + row.query * o.stride_y[1] + row.head * o.stride_y[2] + column;
    const auto v = *reinterpret_cast<const Vector<T> *>(attention::chunk_at<T, WIDTH>(out, r, column / VEC<T>));
    if (o.y_is_aligned && column + VEC<T> <= o.d) {
      *reinterpret_cast<Vector<T> *>(y) = v;
    } else {
#pragma unroll
      for (int j = 0; j < VEC<T>; ++j)
        if (column + j < o.d) y[j] = v.element[j];
    }
  }
}

// A block stores row n of k and v: thread t the 16 bytes t, t + threads, ... (aligned), or elements.
template <class T> struct Append {
  T *k_pages, *v_pages;
  const T *k, *v;
  int64_t stride_k[2], stride_v[2];  // row, head
  const int32_t *page_table, *query_start, *positions;
  int num_sequences, kv_heads, d, max_pages;
  bool is_aligned;
};

template <class T> __global__ void __launch_bounds__(APPEND_THREADS) kv_append_row(const Append<T> a) {
  const int n = blockIdx.x, position = a.positions[n];
  if (position < 0) return;
  const int b = attention::sequence_of(a.query_start, a.num_sequences, n);
  const int64_t page = a.page_table[int64_t{b} * a.max_pages + position / PAGE];
  const int step = a.is_aligned ? VEC<T> : 1, per_head = a.d / step;
  for (int i = threadIdx.x; i < a.kv_heads * per_head; i += blockDim.x) {
    const int g = i / per_head, column = i % per_head * step;
    const int64_t to = ((page * a.kv_heads + g) * PAGE + position % PAGE) * a.d + column;
    const T *const k = a.k + n * a.stride_k[0] + g * a.stride_k[1] + column;
    const T *const v = a.v + n * a.stride_v[0] + g * a.stride_v[1] + column;
    if (a.is_aligned) {
      *reinterpret_cast<Vector<T> *>(a.k_pages + to) = *reinterpret_cast<const Vector<T> *>(k);
      *reinterpret_cast<Vector<T> *>(a.v_pages + to) = *reinterpret_cast<const Vector<T> *>(v);
    } else {
      a.k_pages[to] = *k;
      a.v_pages[to] = *v;
    }
  }
}

// Host

template <class T, int WIDTH> gt_status launch_width(const char *op, void *stream, const Operands<T> &o) {
  using P = Policy<T, WIDTH>;
  const int64_t rows = int64_t{o.num_queries} * o.group;
  // Paged: each sequence may have a tile that is not full.
  const int64_t tiles = o.page_table ? rows / P::ROWS + o.num_sequences : ceil_divide(rows, P::ROWS);
  const int64_t blocks = tiles * o.kv_heads * (o.page_table ? 1 : o.num_sequences);
  if (const gt_status status = check_counts(op, {blocks})) return status;
  constexpr int64_t WARP_ROWS = P::ROW_TILES * TILE_ROWS, FULL = P::ROWS / WARP_ROWS;
  const int64_t needed = ceil_divide(rows, WARP_ROWS);  // fewer warps where there are fewer rows
  const int threads = static_cast<int>(needed < FULL ? needed : FULL) * P::WARPS_PER_ROW * WARP;
  return status_of(op, launch(attention_row_tiles<T, WIDTH>, dim3(static_cast<unsigned>(blocks)), threads,
                              P::SMEM_BYTES, stream, o, static_cast<int>(tiles)));
}

template <class T> gt_status launch_tiles(const char *op, void *stream, const Operands<T> &o) {
  if (o.d <= 64) return launch_width<T, 64>(op, stream, o);
  if (o.d <= 128) return launch_width<T, 128>(op, stream, o);
  if (o.d <= 256) return launch_width<T, 256>(op, stream, o);
  return launch_width<T, 512>(op, stream, o);
}

// Decode steps: a row for each sequence at most.
bool is_split(const gt_tensor *q, const gt_tensor *page_table) {
  return q->shape[0] <= page_table->shape[0] && q->shape[1] <= attention::MAX_SPLIT_HEADS &&
         q->shape[2] <= attention::MAX_SPLIT_WIDTH;
}

}  // namespace

gt_status attention_workspace_cuda(const gt_stream *, const gt_tensor *, const gt_tensor *, int64_t *bytes) {
  *bytes = 0;
  return GT_OK;
}

gt_status attention_cuda(const gt_stream *stream, const gt_tensor *y, const gt_tensor *lse, const gt_tensor *q,
                         const gt_tensor *k, const gt_tensor *v, const gt_tensor *bias, const gt_tensor *key_lengths,
                         float scale, gt_mask mask, const gt_tensor *) {
  const int64_t b = q->shape[0], t = q->shape[1], h = q->shape[2], s = k->shape[1], g = k->shape[2];
  if (const gt_status status = check_counts("attention", {b, t * (h / g), s})) return status;
  return with_type(q->dtype, [&](auto zero) {
    auto o = operands_of<decltype(zero)>(y, lse, q, k, v, scale);
    for (int i = 0; i < 3; ++i) o.stride_k[i] = k->stride[i], o.stride_v[i] = v->stride[i];
    o.stride_lse[0] = h * t;
    o.stride_lse[1] = 1;
    o.stride_lse[2] = t;
    if (bias) {
      o.bias = static_cast<const float *>(bias->data);
      for (int i = 0; i < 4; ++i) o.stride_bias[i] = i < 2 && bias->shape[i] == 1 ? 0 : bias->stride[i];
    }
    o.key_lengths = ints_of(key_lengths);
    o.num_sequences = static_cast<int>(b);
    o.num_queries = static_cast<int>(t);
    o.num_keys = static_cast<int>(s);
    o.kv_heads = static_cast<int>(g);
    o.group = static_cast<int>(h / g);
    o.is_causal = mask == GT_MASK_CAUSAL;
    if constexpr (HAS_MMA<decltype(zero)>) {
      int status = 0;
      if (attention::launch_hopper(stream->handle, o, &status)) return status_of("attention", status);
    }
    return launch_tiles("attention", stream->handle, o);
  });
}

gt_status attention_paged_workspace_cuda(const gt_stream *, const gt_tensor *q, const gt_tensor *page_table,
                                         int64_t *bytes) {
  if (is_split(q, page_table)) return attention::split_workspace("attention_paged", *q, *page_table, bytes);
  *bytes = 0;
  return GT_OK;
}

gt_status attention_paged_cuda(const gt_stream *stream, const gt_tensor *y, const gt_tensor *lse, const gt_tensor *q,
                               const gt_tensor *k_pages, const gt_tensor *v_pages, const gt_tensor *page_table,
                               const gt_tensor *query_start, const gt_tensor *positions, float scale,
                               const gt_tensor *workspace) {
  const int64_t b = page_table->shape[0], n = q->shape[0], h = q->shape[1], g = k_pages->shape[1];
  const int64_t max_pages = page_table->shape[1], num_pages = k_pages->shape[0];
  if (const gt_status status = check_counts("attention_paged", {b, n * h, max_pages * PAGE, num_pages})) return status;
  return with_type(q->dtype, [&](auto zero) {
    auto o = operands_of<decltype(zero)>(y, lse, q, k_pages, v_pages, scale);
    o.stride_lse[1] = h;
    o.stride_lse[2] = 1;
    o.page_table = ints_of(page_table);
    o.query_start = ints_of(query_start);
    o.positions = ints_of(positions);
    o.num_sequences = static_cast<int>(b);
    o.num_queries = static_cast<int>(n);
    o.kv_heads = static_cast<int>(g);
    o.group = static_cast<int>(h / g);
    o.max_pages = static_cast<int>(max_pages);
    o.num_pages = static_cast<int>(num_pages);
    o.num_keys = INT32_MAX;  // nothing says that what lies behind a sequence's last key is zeros
    int status = 0;
    if (is_split(q, page_table)) {
      status = attention::launch_split(stream->handle, o, workspace ? workspace->data : nullptr);
      return status_of("attention_paged", status);
    }
    if constexpr (HAS_MMA<decltype(zero)>)
      if (attention::launch_hopper(stream->handle, o, &status)) return status_of("attention_paged", status);
    return launch_tiles("attention_paged", stream->handle, o);
  });
}

gt_status kv_append_cuda(const gt_stream *stream, const gt_tensor *k_pages, const gt_tensor *v_pages,
                         const gt_tensor *k, const gt_tensor *v, const gt_tensor *page_table,
                         const gt_tensor *query_start, const gt_tensor *positions) {
  const int64_t n = k->shape[0], g = k->shape[1], d = k->shape[2], b = page_table->shape[0];
  if (const gt_status status = check_counts("kv_append", {n, g * d, b, page_table->shape[1] * PAGE})) return status;
  const auto append = [&](auto zero) {
    using T = decltype(zero);
    const Append<T> a = {static_cast<T *>(k_pages->data), static_cast<T *>(v_pages->data),
                         static_cast<const T *>(k->data), static_cast<const T *>(v->data),
                         {k->stride[0], k->stride[1]}, {v->stride[0], v->stride[1]},
                         ints_of(page_table), ints_of(query_start), ints_of(positions), static_cast<int>(b),
                         static_cast<int>(g), static_cast<int>(d), static_cast<int>(page_table->shape[1]),
                         is_aligned_tensor<T>(*k) && is_aligned_tensor<T>(*v) && is_aligned_tensor<T>(*k_pages) &&
                             is_aligned_tensor<T>(*v_pages)};
    const int64_t vectors = g * d / (a.is_aligned ? VEC<T> : 1), full = APPEND_THREADS / WARP;
    const int64_t warps = ceil_divide(vectors, WARP);
    const int threads = static_cast<int>(warps < full ? warps : full) * WARP;
    return launch(kv_append_row<T>, dim3(static_cast<unsigned>(n)), threads, 0, stream->handle, a);
  };
  return status_of("kv_append", k->dtype == GT_F32 ? append(float{}) : append(bf16{}));  // f16 is 16 bits as well
}

}  // namespace gt
