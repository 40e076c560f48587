// Attention of decode steps against a paged cache on CUDA: one query row per sequence, its keys split among warps.
//
// Computes    gatun/attention.h, gt_attention_decode, and gt_attention_paged where N <= B. Of the keys of each split
//             the running maximum m, the sum l of powers and the weighted sum o; then, over the splits i,
//             y = sum_i 2^(m_i - m) o_i / sum_i 2^(m_i - m) l_i, m = max m_i
// Shapes      as in gatun/attention.h. workspace: o [N, H, splits, D up to a multiple of 8], (m, l) [N, H, splits, 2],
//             all f32; splits are those of a page table's width, and where it is 1 there is no workspace
// Types       f32, bf16, f16; all sums in f32; powers are rounded to bf16 or f16 before they meet the values
// Mapping     a split's first position depends on its number alone (attention_splits.h). A block takes a row's query
//             heads of one kv head, 16 at most, as one tile; each of its warps every `slots * SPLIT_WARPS`-th split, by
//             itself, 8 to 64 keys at a time. Blocks whose splits lie beyond the row's position return at once. A row
//             of one split is done then; else the block of a row and kv head that comes last by its counter, which is
//             0 again then, adds the splits, a warp per query head (of gt_attention_paged: combine_splits)
// Memory      k and v are read once, q and y once. A block has 64 KiB of keys and values in flight, and 3 blocks fit on
//             an SM. The new key and value go from the operands to the warp of their split, never by way of the cache;
//             its block stores them there. A split leaves D + 2 floats per query head, written and read: of 256 keys
//             in bf16 with a group of 4 that is 3 % of the bytes of keys and values
// Numerics    splits are added in ascending order: a row's bits depend on its own query and keys alone, not on N, B,
//             the width of the page table or the grid, and are those of gt_rope, gt_kv_append and gt_attention_paged.
//             A row without keys gives zeros and lse = -inf
// Limits      D <= 256, H <= 65535; sm_80 and later
// Source      Flash-Decoding (Dao, Haziza, Massa & Sizov 2023). Bound by memory; bench/results/h200.md
#include "attention_operands.h"
#include "attention_splits.h"
#include "attention_step.h"
#include "lib/grid_dependency.h"
#include "lib/hopper.h"
#include "lib/last_block.h"
#include "lib/shared_carveout.h"

namespace gt {

decltype(gt_attention_decode) attention_decode_cuda;
decltype(gt_attention_decode_workspace) attention_decode_workspace_cuda;

namespace attention {

namespace {

static_assert(MAX_SPLIT <= WARP * PAGE, "a lane for each page");

constexpr int TARGET_BLOCKS = 792;  // two waves of the 3 blocks of an H200's 132 SMs
constexpr int MIN_SLOTS = 6;        // blocks of a row and kv head that share its splits: 2 splits a warp at 4096 keys
constexpr int COMBINE_WARPS = 4;

template <class T, int WIDTH> struct SplitPolicy {
  static constexpr int ROW_BYTES = WIDTH * static_cast<int>(sizeof(T));
  static constexpr int KEYS = HAS_MMA<T> ? 8192 / ROW_BYTES : WIDTH <= 64 ? 16 : 8;  // of a warp at a time
  static constexpr int TILE_BYTES = KEYS * ROW_BYTES;
  static constexpr int STAGES = 32 * 1024 / (2 * TILE_BYTES);
  static constexpr size_t SMEM_BYTES = static_cast<size_t>(TILE_ROWS + 2) * ROW_BYTES + SPLIT_WARPS * 32 * 1024;
  static_assert(STAGES >= 2 && PAGE % KEYS == 0 && MIN_SPLIT % KEYS == 0, "whole tiles");
};

struct Partials {
  float *o;            // rows of `pitch`
  float2 *statistics;  // (maximum, sum) of each split
  int max_splits, pitch;

  // of a query head's first split
  __device__ __forceinline__ int64_t index(int64_t row_and_head) const { return row_and_head * max_splits; }
};

__host__ __device__ __forceinline__ int pitch_of(int d) { return (d + 7) / 8 * 8; }

template <class T> __device__ __forceinline__ int64_t y_at(const Operands<T> &o, int n, int head) {
  return n * o.stride_y[1] + head * o.stride_y[2];
}
template <class T>
__device__ __forceinline__ void store_lse(const Operands<T> &o, int n, int head, float maximum, float sum) {
  if (o.lse)
    o.lse[n * o.stride_lse[1] + head * o.stride_lse[2]] = sum == 0.0f ? -INFINITY : (maximum + log2f(sum)) * LN2;
}

// All the pages of a split at once, one in each lane. The row may not reach them: then they may be no pages.
template <class T> __device__ __forceinline__ int pages_of(const Operands<T> &o, int b, int split, int lane) {
  const int page = split_begin(split) / PAGE + lane;
  const bool is_there = page < split_begin(split + 1) / PAGE && page < o.max_pages;
  return is_there ? o.page_table[int64_t{b} * o.max_pages + page] : 0;
}

// y and lse of a query head, by a warp; a lane owns 4 columns of every 128. Several splits are asked for at a time, the
// first ones before it is known what they count for.
template <class T, int WIDTH>
__device__ __forceinline__ void combine(const Operands<T> &o, const Partials &partials, int n, int head,
                                        int num_splits) {
  constexpr int QUADS = WIDTH / (4 * WARP) > 1 ? WIDTH / (4 * WARP) : 1, AT_ONCE = 8;
  const int lane = threadIdx.x % WARP;
  const int64_t first = partials.index(int64_t{n} * o.kv_heads * o.group + head);
  const float2 *const statistics = partials.statistics + first;
  const float *const of_splits = partials.o + first * partials.pitch;

  Vector<float> x[AT_ONCE][QUADS];
  const auto load = [&](int split) {
#pragma unroll
    for (int k = 0; k < AT_ONCE; ++k)
#pragma unroll
      for (int j = 0; j < QUADS; ++j) {
        const int column = (j * WARP + lane) * 4;
        const float *const place = of_splits + (split + k) * int64_t{partials.pitch} + column;
        const bool is_there = split + k < num_splits && column < partials.pitch;
        x[k][j] = is_there ? *reinterpret_cast<const Vector<float> *>(place) : Vector<float>{};
      }
  };
  load(0);
  float maximum = -INFINITY;
  for (int i = lane; i < num_splits; i += WARP) maximum = fmaxf(maximum, statistics[i].x);
  maximum = warp_max(maximum);
  float sum = 0.0f, value[QUADS][4] = {}, own_weight = 0.0f, own_sum = 0.0f;
#pragma unroll 1
  for (int i = 0; i < num_splits; i += AT_ONCE) {
    if (i % WARP == 0) {  // a lane for each of the next splits; those that are not there have a weight of 0
      const float2 own = i + lane < num_splits ? statistics[i + lane] : make_float2(-INFINITY, 0.0f);
      own_weight = exp2_flushed(own.x - base_of(maximum));
      own_sum = own.y;
    }
#pragma unroll
    for (int k = 0; k < AT_ONCE; ++k) {
      const float weight = __shfl_sync(ALL_LANES, own_weight, i % WARP + k);
      sum = fmaf(weight, __shfl_sync(ALL_LANES, own_sum, i % WARP + k), sum);
#pragma unroll
      for (int j = 0; j < QUADS; ++j)
#pragma unroll
        for (int e = 0; e < 4; ++e) value[j][e] = fmaf(weight, x[k][j].element[e], value[j][e]);
    }
    if (i + AT_ONCE < num_splits) load(i + AT_ONCE);
  }
  const float inverse = sum == 0.0f ? 0.0f : 1.0f / sum;
#pragma unroll
  for (int j = 0; j < QUADS; ++j)
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const int column = (j * WARP + lane) * 4 + e;
      if (column < o.d) o.y[y_at(o, n, head) + column] = from_float<T>(value[j][e] * inverse);
    }
  if (lane == 0) store_lse(o, n, head, maximum, sum);
}

template <class T, int WIDTH>
__global__ void __launch_bounds__(SPLIT_WARPS * WARP)
    attention_split_keys(const Operands<T> o, const Step<T> step, const Partials partials, int head_tiles) {
  using P = SplitPolicy<T, WIDTH>;
  constexpr int KEYS = P::KEYS, STAGES = P::STAGES, TILE = KEYS * WIDTH;
  GT_DYNAMIC_SMEM(T, q_tile);  // and the new key and value
  __shared__ float angles[WIDTH];
  grid_dependency_wait();
  const int n = blockIdx.x, slot = blockIdx.z, slots = gridDim.z, stride = slots * SPLIT_WARPS;
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
  const bool is_step = step.k != nullptr;
  const int b = is_step ? n : sequence_of(o.query_start, o.num_sequences, n);
  int split = slot * SPLIT_WARPS + warp, page = pages_of(o, b, split, lane);
  const int position = o.positions[n];
  const int g = blockIdx.y / head_tiles, head_tile = blockIdx.y % head_tiles, columns = o.columns();
  const int first_head = g * o.group + head_tile * TILE_ROWS;
  const int num_heads = min(TILE_ROWS, (g + 1) * o.group - first_head);
  T *const new_rows = q_tile + TILE_ROWS * WIDTH, *const stages = new_rows + (2 + warp * STAGES * 2 * KEYS) * WIDTH;

  // while page and position are on their way
  const auto load_by_all = [&](T *tile, int rows, int count, bool aligned, auto row_of) {
    load_few_rows<T, WIDTH>(tile, rows, count, o.d, columns, aligned, threadIdx.x, SPLIT_WARPS * WARP, row_of);
  };
  load_by_all(q_tile, TILE_ROWS, num_heads, o.q_is_aligned,
              [&](int r) { return o.q + n * o.stride_q[1] + (first_head + r) * o.stride_q[2]; });
  if (is_step)
    load_by_all(new_rows, 2, 2, step.is_aligned, [&](int r) {
      return r == 0 ? step.k + n * step.stride_k[0] + g * step.stride_k[1]
                    : step.v + n * step.stride_v[0] + g * step.stride_v[1];
    });
  async_copy_commit();

  const int num_keys = max(position + 1, 0), num_splits = num_splits_of(num_keys);
  if (slot * SPLIT_WARPS >= max(num_splits, 1)) return async_copy_wait<0>();
  int begin = 0, end = 0;
  const auto load = [&](int i) {
    const int start = begin + i * KEYS;
    if (start < end) {
      // without the new key, in whose place are zeros until it comes
      const int count = min(end, is_step ? position : end) - start;
      const auto at = key_rows(o, b, g, start, __shfl_sync(ALL_LANES, page, (start - begin) / PAGE));
      T *const k_tile = stages + i % STAGES * 2 * TILE;
      if (o.kv_is_aligned) {
        load_aligned_rows<T, WIDTH, KEYS>(k_tile, at.k, o.d, count, o.d, columns, lane);
        load_aligned_rows<T, WIDTH, KEYS>(k_tile + TILE, at.v, o.d, count, o.d, columns, lane);
      } else {
        for (const bool is_key : {true, false})
          load_few_rows<T, WIDTH>(is_key ? k_tile : k_tile + TILE, KEYS, count, o.d, columns, false, lane, WARP,
                                  [=](int r) { return (is_key ? at.k : at.v) + int64_t{r} * o.d; });
      }
    }
    async_copy_commit();
  };
  const auto enter_split = [&] {
    begin = split_begin(split);
    end = min(split_begin(split + 1), num_keys);
#pragma unroll 1
    for (int i = 0; i < STAGES; ++i) load(i);
  };
  enter_split();
  grid_dependency_launch();
  const bool has_key = is_step && num_splits > 0 && (num_splits - 1) % stride / SPLIT_WARPS == slot;
  const int new_page = has_key ? page_of(o, b, position) : 0;

  if (step.table && position >= 0 && position < step.num_positions)
    for (int i = threadIdx.x; i < 2 * step.half; i += SPLIT_WARPS * WARP)
      angles[i] = step.table[int64_t{position} * 2 * step.half + i];
  async_copy_wait<STAGES>();
  __syncthreads();  // q has come, of which each warp brought a part
  if (step.table && position >= 0) {
    rotate_tile<T, WIDTH>(q_tile, step, angles, num_heads, has_key, position, o.d);
    __syncthreads();
  }

#pragma unroll 1
  while (split < max(num_splits, 1)) {
    const int next_page = pages_of(o, b, split + stride, lane);
    Rows<WIDTH> rows[1];
    rows[0].begin();
#pragma unroll 1
    for (int i = 0; begin + i * KEYS < end; ++i) {
      const int start = begin + i * KEYS;
      T *const k_tile = stages + i % STAGES * 2 * TILE;
      float s[1][KEYS / 8][4];
      async_copy_wait<STAGES - 1>();
      __syncwarp();
      if (is_step && position - start < KEYS) {
        for (int chunk = lane; chunk < 2 * columns / VEC<T>; chunk += WARP) {
          const int r = chunk & 1;
          *reinterpret_cast<Vector<T> *>(chunk_at<T, WIDTH>(k_tile + r * TILE, position - start, chunk / 2)) =
              *reinterpret_cast<const Vector<T> *>(chunk_at<T, WIDTH>(new_rows, r, chunk / 2));
        }
        __syncwarp();
      }
      score<T, WIDTH, 1, KEYS>(q_tile, k_tile, num_heads, columns, s);
#pragma unroll
      for (int j = 0; j < KEYS / 8; ++j)
#pragma unroll
        for (int e = 0; e < 4; ++e)
          s[0][j][e] = start + j * 8 + lane % 4 * 2 + e % 2 < end ? s[0][j][e] * o.scale : -INFINITY;
      rows[0].raise(s[0]);
      // all rows see the same keys, those beyond are zeros
      accumulate<T, WIDTH, WIDTH, 1, KEYS>(rows, s, k_tile + TILE, k_tile, num_heads, 0, columns, true,
                                           [](int, int) { return KEYS; });
      __syncwarp();
      load(i + STAGES);
    }
    const int done = split;
    split += stride;
    page = next_page;
    enter_split();  // on their way while the result is stored

#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int r = h * 8 + lane / 4, head = first_head + r;
      const float sum = row_sum(rows[0].sum[h]), maximum = rows[0].maximum[h];
      if (r >= num_heads) continue;
      if (num_splits <= 1) {
        T *const y = o.y + y_at(o, n, head);
        const float inverse = sum == 0.0f ? 0.0f : 1.0f / sum;
#pragma unroll
        for (int j = 0; j < WIDTH / 8; ++j)
#pragma unroll
          for (int e = 0; e < 2; ++e) {
            const int column = j * 8 + lane % 4 * 2 + e;
            if (column < o.d) y[column] = from_float<T>(rows[0].o[j][2 * h + e] * inverse);
          }
        if (lane % 4 == 0) store_lse(o, n, head, maximum, sum);
      } else {
        const int64_t to = partials.index(int64_t{n} * o.kv_heads * o.group + head) + done;
#pragma unroll
        for (int j = 0; j < WIDTH / 8; ++j)
          if (j * 8 < partials.pitch)
            *reinterpret_cast<float2 *>(partials.o + to * partials.pitch + j * 8 + lane % 4 * 2) =
                make_float2(rows[0].o[j][2 * h], rows[0].o[j][2 * h + 1]);
        if (lane % 4 == 0) partials.statistics[to] = make_float2(maximum, sum);
      }
    }
  }
  async_copy_wait<0>();
  if (!is_step) return;
  if (has_key && head_tile == 0) append<T, WIDTH>(q_tile, o, step, g, position, new_page);
  if (num_splits <= 1) return;
  const int blocks = head_tiles * min(slots, (num_splits + SPLIT_WARPS - 1) / SPLIT_WARPS);
  if (!is_last_block(step.counters + n * o.kv_heads + g, blocks)) return;
  for (int head = warp; head < o.group; head += SPLIT_WARPS)
    combine<T, WIDTH>(o, partials, n, g * o.group + head, num_splits);
}

template <class T>
__global__ void __launch_bounds__(COMBINE_WARPS * WARP) combine_splits(const Operands<T> o, const Partials partials) {
  const int num_heads = o.kv_heads * o.group;
  const int64_t row = int64_t{blockIdx.x} * COMBINE_WARPS + threadIdx.x / WARP;  // query and head
  const int n = static_cast<int>(row / num_heads), head = static_cast<int>(row % num_heads);
  if (n >= o.num_queries) return;
  const int num_splits = num_splits_of(max(o.positions[n] + 1, 0));
  if (num_splits > 1) combine<T, MAX_SPLIT_WIDTH>(o, partials, n, head, num_splits);
}

template <class T, int WIDTH>
int launch_width(void *stream, const Operands<T> &o, const Step<T> &step, const Partials &partials) {
  const int64_t head_tiles = ceil_divide(o.group, TILE_ROWS), items = o.num_queries * o.kv_heads * head_tiles;
  const int64_t wanted = max(int64_t{MIN_SLOTS}, ceil_divide(TARGET_BLOCKS, items));
  const int64_t slots = max(int64_t{1}, min(wanted, ceil_divide(partials.max_splits, SPLIT_WARPS)));
  const bool sm_has_several = items * slots > num_multiprocessors();
  if (const int status = prefer_shared_memory(attention_split_keys<T, WIDTH>,
                                              sm_has_several ? SharedMemory::ALL : SharedMemory::AS_DRIVER_LIKES))
    return status;
  const dim3 grid(static_cast<unsigned>(o.num_queries), static_cast<unsigned>(o.kv_heads * head_tiles),
                  static_cast<unsigned>(slots));
  return launch_dependent(attention_split_keys<T, WIDTH>, grid, SPLIT_WARPS * WARP,
                          SplitPolicy<T, WIDTH>::SMEM_BYTES, stream, o, step, partials, static_cast<int>(head_tiles));
}

template <class T> Partials partials_of(const Operands<T> &o, void *workspace) {
  Partials p = {static_cast<float *>(workspace), nullptr, num_splits_of(o.max_pages * PAGE), pitch_of(o.d)};
  const int64_t splits = int64_t{o.num_queries} * o.kv_heads * o.group * p.max_splits;
  p.statistics = reinterpret_cast<float2 *>(p.o + splits * p.pitch);
  return p;
}

template <class T> int launch_step(void *stream, const Operands<T> &o, const Step<T> &step, const Partials &partials) {
  if (o.d <= 64) return launch_width<T, 64>(stream, o, step, partials);
  if (o.d <= 128) return launch_width<T, 128>(stream, o, step, partials);
  return launch_width<T, 256>(stream, o, step, partials);
}

}  // namespace

gt_status split_workspace(const char *op, const gt_tensor &q, const gt_tensor &page_table, int64_t *bytes) {
  const int64_t n = q.shape[0], h = q.shape[1], max_pages = page_table.shape[1];
  if (h > MAX_SPLIT_HEADS)
    return fail(GT_UNSUPPORTED, "%s: q has %lld heads, expected at most %lld", op, static_cast<long long>(h),
                static_cast<long long>(MAX_SPLIT_HEADS));
  if (const gt_status status = check_counts(op, {n, max_pages})) return status;
  if (const gt_status status = check_counts(op, {n * h, max_pages * PAGE})) return status;
  const int64_t splits = num_splits_of(static_cast<int>(max_pages * PAGE));
  const int64_t floats = pitch_of(static_cast<int>(q.shape[2])) + 2;
  *bytes = splits > 1 ? n * h * splits * floats * static_cast<int64_t>(sizeof(float)) : 0;
  return GT_OK;
}

template <class T> int launch_split(void *stream, const Operands<T> &o, void *workspace) {
  const Partials partials = partials_of(o, workspace);
  const int status = launch_step(stream, o, Step<T>{}, partials);
  if (status || partials.max_splits <= 1) return status;
  const int64_t rows = int64_t{o.num_queries} * o.kv_heads * o.group;
  return launch(combine_splits<T>, dim3(static_cast<unsigned>(ceil_divide(rows, COMBINE_WARPS))),
                COMBINE_WARPS * WARP, 0, stream, o, partials);
}

template int launch_split(void *, const Operands<float> &, void *);
template int launch_split(void *, const Operands<bf16> &, void *);
template int launch_split(void *, const Operands<f16> &, void *);

}  // namespace attention

gt_status attention_decode_workspace_cuda(const gt_stream *, const gt_tensor *q, const gt_tensor *,
                                          const gt_tensor *page_table, int64_t *bytes) {
  return attention::split_workspace("attention_decode", *q, *page_table, bytes);
}

gt_status attention_decode_cuda(const gt_stream *stream, const gt_tensor *y, const gt_tensor *lse,
                                const gt_tensor *k_pages, const gt_tensor *v_pages, const gt_tensor *counters,
                                const gt_tensor *q, const gt_tensor *k, const gt_tensor *v,
                                const gt_tensor *page_table, const gt_tensor *positions, const gt_tensor *rope_table,
                                gt_rope_pairing pairing, float scale, const gt_tensor *workspace) {
  const int64_t n = q->shape[0], h = q->shape[1], g = k->shape[1], max_pages = page_table->shape[1];
  return attention::with_type(q->dtype, [&](auto zero) {
    using T = decltype(zero);
    auto o = attention::operands_of<T>(y, lse, q, k_pages, v_pages, scale);
    o.stride_lse[1] = h;
    o.stride_lse[2] = 1;
    o.page_table = attention::ints_of(page_table);
    o.positions = attention::ints_of(positions);
    o.num_sequences = o.num_queries = static_cast<int>(n);
    o.kv_heads = static_cast<int>(g);
    o.group = static_cast<int>(h / g);
    o.max_pages = static_cast<int>(max_pages);
    attention::Step<T> step = {static_cast<T *>(k_pages->data), static_cast<T *>(v_pages->data),
                               static_cast<const T *>(k->data), static_cast<const T *>(v->data),
                               {k->stride[0], k->stride[1]}, {v->stride[0], v->stride[1]}, nullptr, 0, 0, pairing,
                               static_cast<unsigned *>(counters->data),
                               attention::is_aligned_tensor<T>(*k) && attention::is_aligned_tensor<T>(*v)};
    if (rope_table) {
      step.table = static_cast<const float *>(rope_table->data);
      step.num_positions = rope_table->shape[0];
      step.half = static_cast<int>(rope_table->shape[2]);
    }
    const auto partials = attention::partials_of(o, workspace ? workspace->data : nullptr);
    return status_of("attention_decode", attention::launch_step(stream->handle, o, step, partials));
  });
}

}  // namespace gt
