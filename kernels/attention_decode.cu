// Attention of decode steps against a paged cache on CUDA: one query row per sequence, its keys split among blocks.
//
// Computes    gatun/attention.h, gt_attention_paged. Of the keys of each split the running maximum m, the sum l of powers
//             and the weighted sum o; then y = sum_i 2^(m_i - m) o_i / sum_i 2^(m_i - m) l_i over the splits i, m = max m_i
// Shapes      as in gatun/attention.h, N <= B. workspace: (m, l) [N, H, splits, 2], then o [N, H, splits, D], all f32;
//             splits are those of a page table's width, and where it is 1 there is no workspace and no second kernel
// Types       f32, bf16, f16; all sums in f32; powers are rounded to bf16 or f16 before they meet the values
// Mapping     a split's first position depends on its number alone (split_begin). A block takes a row's query heads of
//             one kv head, 16 at most, as one tile, and every `slots`-th split; blocks whose splits lie beyond the row's
//             position return at once. Its warps take every 4th (D > 128: 2nd) group of 16 (f32, D > 64: 8) keys and run
//             apart, each with keys of its own in flight, until their results meet at the split's end. combine_splits:
//             a warp per query head. The grid depends on shapes alone
// Memory      k and v are read once, q and y once. 64 KiB of shared memory hold keys and values in flight; 2 or 3 blocks
//             on an SM. A split leaves D + 2 floats per query head, 0.4 % of its keys and values in bf16
// Numerics    warps are combined in ascending order, then splits: a row's bits depend on its own query and keys alone,
//             not on N, B, the width of the page table or the grid. A row without keys gives zeros and lse = -inf
// Limits      D <= 256; sm_80 and later
// Source      Flash-Decoding (Dao, Haziza, Massa & Sizov 2023). On an H200 3.0 TB/s of 4.2; bound by memory, k and v once
#include "attention_tile.h"

namespace gt::attention {

namespace {

// Short splits where a sequence alone must fill the device, long ones where there are many anyway: the workspace of a
// context of 128k positions would else be 3 times as large.
constexpr int SHORT_SPLIT = 256, NUM_SHORT = 32, LONG_SPLIT = 1024;  // keys; whole pages
static_assert(LONG_SPLIT <= WARP * PAGE, "a lane for each page");

constexpr int TARGET_BLOCKS = 512;    // about two waves of an H200's 132 SMs
constexpr int MIN_SLOTS = 4;          // blocks of a row and kv head that share its splits
constexpr int COMBINE_WARPS = 4;

__host__ __device__ __forceinline__ int split_begin(int split) {
  return split < NUM_SHORT ? split * SHORT_SPLIT : NUM_SHORT * SHORT_SPLIT + (split - NUM_SHORT) * LONG_SPLIT;
}
__host__ __device__ __forceinline__ int num_splits_of(int keys) {
  const int beyond = keys - NUM_SHORT * SHORT_SPLIT;
  return beyond <= 0 ? (keys + SHORT_SPLIT - 1) / SHORT_SPLIT : NUM_SHORT + (beyond + LONG_SPLIT - 1) / LONG_SPLIT;
}

// 16 or 32 KiB of keys and values make a stage of all warps together; 64 KiB of stages, so that 3 blocks fit on an SM and
// one on the 99 KiB of smaller devices.
template <class T, int WIDTH> struct SplitPolicy {
  static constexpr int ROW_BYTES = WIDTH * static_cast<int>(sizeof(T));
  static constexpr int KEYS = HAS_MMA<T> || WIDTH <= 64 ? 16 : 8;  // of a warp at a time
  static constexpr int TILE_BYTES = KEYS * ROW_BYTES;
  static constexpr int WARPS = TILE_BYTES > 4096 ? 2 : 4;
  static constexpr int STAGES = 64 * 1024 / (2 * TILE_BYTES * WARPS);
  static constexpr size_t SMEM_BYTES = static_cast<size_t>(TILE_ROWS) * ROW_BYTES + 64 * 1024;
  static_assert(STAGES >= 2 && WARPS * TILE_ROWS * WIDTH * 4 <= 64 * 1024, "the warps' results fit where the keys were");
};

struct Partials {
  float2 *statistics;  // (maximum, sum) of each split
  float *o;
  int max_splits;

  // of a query head's first split
  __device__ __forceinline__ int64_t index(int64_t row_and_head) const { return row_and_head * max_splits; }
};

template <class T> __device__ __forceinline__ int64_t y_at(const Operands<T> &o, int n, int head) {
  return n * o.stride_y[1] + head * o.stride_y[2];
}
template <class T>
__device__ __forceinline__ void store_lse(const Operands<T> &o, int n, int head, float maximum, float sum) {
  if (o.lse)
    o.lse[n * o.stride_lse[1] + head * o.stride_lse[2]] = sum == 0.0f ? -INFINITY : (maximum + log2f(sum)) * LN2;
}

template <class T, int WIDTH>
__global__ void __launch_bounds__(SplitPolicy<T, WIDTH>::WARPS * WARP)
    attention_split_keys(const Operands<T> o, const Partials partials, int head_tiles, int slots) {
  using P = SplitPolicy<T, WIDTH>;
  constexpr int KEYS = P::KEYS, WARPS = P::WARPS, STAGES = P::STAGES, TILE = KEYS * WIDTH;
  GT_DYNAMIC_SMEM(T, q_tile);
  __shared__ float warp_maximum[WARPS][TILE_ROWS], warp_sum[WARPS][TILE_ROWS];
  const int items = o.num_queries * o.kv_heads * head_tiles, item = blockIdx.x % items, slot = blockIdx.x / items;
  const int n = item / head_tiles / o.kv_heads, g = item / head_tiles % o.kv_heads;
  const int num_keys = max(o.positions[n] + 1, 0), num_splits = num_splits_of(num_keys);
  const bool is_only = partials.max_splits <= 1;  // then an empty row is this kernel's as well
  if (slot >= num_splits && !is_only) return;
  const int first_head = g * o.group + item % head_tiles * TILE_ROWS;
  const int num_heads = min(TILE_ROWS, (g + 1) * o.group - first_head);
  const int b = sequence_of(o.query_start, o.num_sequences, n), columns = o.columns();
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
  T *const stages = q_tile + TILE_ROWS * WIDTH, *const own_stages = stages + warp * STAGES * 2 * TILE;
  float *const results = reinterpret_cast<float *>(stages);  // [WARPS, 16, WIDTH], once the keys are used

  load_rows<T, WIDTH>(q_tile, TILE_ROWS, num_heads, o.d, columns, o.q_is_aligned, threadIdx.x, WARPS * WARP,
                      [&](int r) { return o.q + n * o.stride_q[1] + (first_head + r) * o.stride_q[2]; });
  async_copy_commit();

#pragma unroll 1
  for (int split = slot; split < num_splits || (is_only && split == 0); split += slots) {
    const int begin = split_begin(split) + warp * KEYS, end = min(split_begin(split + 1), num_keys);
    // all the pages of the split at once, one in each lane
    const int page_start = split_begin(split) + lane * PAGE, page = page_start < end ? page_of(o, b, page_start) : 0;
    const auto load = [&](int i) {
      const int start = begin + i * WARPS * KEYS;
      if (start < end) {
        const auto at = key_rows(o, b, g, start, __shfl_sync(ALL_LANES, page, (start - split_begin(split)) / PAGE));
        T *const k_tile = own_stages + i % STAGES * 2 * TILE;
        load_rows<T, WIDTH>(k_tile, KEYS, end - start, o.d, columns, o.kv_is_aligned, lane, WARP,
                            [=](int r) { return at.k + r * at.stride_k; });
        load_rows<T, WIDTH>(k_tile + TILE, KEYS, end - start, o.d, columns, o.kv_is_aligned, lane, WARP,
                            [=](int r) { return at.v + r * at.stride_v; });
      }
      async_copy_commit();
    };
#pragma unroll 1
    for (int i = 0; i < STAGES; ++i) load(i);
    if (split == slot) {
      async_copy_wait<STAGES>();
      __syncthreads();  // q has come, of which each warp brought a part
    }

    Rows<WIDTH> rows[1];
    rows[0].begin();
#pragma unroll 1
    for (int i = 0; begin + i * WARPS * KEYS < end; ++i) {
      const int start = begin + i * WARPS * KEYS;
      T *const k_tile = own_stages + i % STAGES * 2 * TILE;
      float s[1][KEYS / 8][4];
      async_copy_wait<STAGES - 1>();
      __syncwarp();
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

    __syncthreads();  // the keys of all warps are used
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int r = h * 8 + lane / 4;
      const float sum = row_sum(rows[0].sum[h]);
      if (lane % 4 == 0) warp_maximum[warp][r] = rows[0].maximum[h], warp_sum[warp][r] = sum;
#pragma unroll
      for (int j = 0; j < WIDTH / 8; ++j)
        if (r < num_heads)
          *reinterpret_cast<float2 *>(results + (warp * TILE_ROWS + r) * WIDTH + j * 8 + lane % 4 * 2) =
              make_float2(rows[0].o[j][2 * h], rows[0].o[j][2 * h + 1]);
    }
    __syncthreads();
    for (int i = threadIdx.x; i < num_heads * o.d; i += WARPS * WARP) {
      const int r = i / o.d, column = i % o.d, head = first_head + r;
      float maximum = -INFINITY, sum = 0.0f, value = 0.0f;
#pragma unroll
      for (int w = 0; w < WARPS; ++w) maximum = fmaxf(maximum, warp_maximum[w][r]);
#pragma unroll
      for (int w = 0; w < WARPS; ++w) {
        const float weight = exp2_flushed(warp_maximum[w][r] - base_of(maximum));
        sum += weight * warp_sum[w][r];
        value += weight * results[(w * TILE_ROWS + r) * WIDTH + column];
      }
      if (is_only) {
        o.y[y_at(o, n, head) + column] = from_float<T>(value * (sum == 0.0f ? 0.0f : 1.0f / sum));
        if (column == 0) store_lse(o, n, head, maximum, sum);
      } else {
        const int64_t to = partials.index(int64_t{n} * o.kv_heads * o.group + head) + split;
        partials.o[to * o.d + column] = value;
        if (column == 0) partials.statistics[to] = make_float2(maximum, sum);
      }
    }
    __syncthreads();  // the results are read: keys may come again
  }
  async_copy_wait<0>();
}

// A lane owns the columns lane, lane + 32, ... of a query head.
template <class T> __global__ void __launch_bounds__(COMBINE_WARPS * WARP) combine_splits(const Operands<T> o,
                                                                                       const Partials partials) {
  constexpr int COLUMNS = MAX_SPLIT_WIDTH / WARP;
  const int lane = threadIdx.x % WARP, num_heads = o.kv_heads * o.group;
  const int64_t row = int64_t{blockIdx.x} * COMBINE_WARPS + threadIdx.x / WARP;  // query and head
  const int n = static_cast<int>(row / num_heads), head = static_cast<int>(row % num_heads);
  if (n >= o.num_queries) return;
  const int num_splits = num_splits_of(max(o.positions[n] + 1, 0));
  const float2 *const statistics = partials.statistics + partials.index(row);
  const float *const of_splits = partials.o + partials.index(row) * o.d;

  float maximum = -INFINITY;
  for (int i = lane; i < num_splits; i += WARP) maximum = fmaxf(maximum, statistics[i].x);
  maximum = warp_max(maximum);
  float sum = 0.0f, value[COLUMNS] = {};
#pragma unroll 4
  for (int i = 0; i < num_splits; ++i) {
    const float2 of_split = statistics[i];
    const float weight = exp2_flushed(of_split.x - base_of(maximum));
    sum += weight * of_split.y;
#pragma unroll
    for (int j = 0; j < COLUMNS; ++j)
      if (j * WARP + lane < o.d) value[j] += weight * of_splits[int64_t{i} * o.d + j * WARP + lane];
  }
  const float inverse = sum == 0.0f ? 0.0f : 1.0f / sum;
#pragma unroll
  for (int j = 0; j < COLUMNS; ++j)
    if (j * WARP + lane < o.d) o.y[y_at(o, n, head) + j * WARP + lane] = from_float<T>(value[j] * inverse);
  if (lane == 0) store_lse(o, n, head, maximum, sum);
}

template <class T, int WIDTH> int launch_width(void *stream, const Operands<T> &o, const Partials &partials) {
  const int64_t head_tiles = ceil_divide(o.group, TILE_ROWS), items = o.num_queries * o.kv_heads * head_tiles;
  const int64_t wanted = max(int64_t{MIN_SLOTS}, ceil_divide(TARGET_BLOCKS, items));
  const int64_t most = min(int64_t{partials.max_splits}, INT32_MAX / items);
  const int64_t slots = max(int64_t{1}, min(wanted, most));
  return launch(attention_split_keys<T, WIDTH>, dim3(static_cast<unsigned>(items * slots)),
                SplitPolicy<T, WIDTH>::WARPS * WARP, SplitPolicy<T, WIDTH>::SMEM_BYTES, stream, o, partials,
                static_cast<int>(head_tiles), static_cast<int>(slots));
}

}  // namespace

int64_t split_workspace_bytes(int64_t num_queries, int64_t heads, int64_t d, int64_t max_pages) {
  const int64_t splits = num_splits_of(static_cast<int>(max_pages * PAGE));
  return splits > 1 ? num_queries * heads * splits * (d + 2) * static_cast<int64_t>(sizeof(float)) : 0;
}

template <class T> int launch_split(void *stream, const Operands<T> &o, void *workspace) {
  const int64_t rows = int64_t{o.num_queries} * o.kv_heads * o.group;
  Partials partials = {static_cast<float2 *>(workspace), nullptr, num_splits_of(o.max_pages * PAGE)};
  partials.o = reinterpret_cast<float *>(partials.statistics + rows * partials.max_splits);
  int status;
  if (o.d <= 64) status = launch_width<T, 64>(stream, o, partials);
  else if (o.d <= 128) status = launch_width<T, 128>(stream, o, partials);
  else status = launch_width<T, 256>(stream, o, partials);
  if (status || partials.max_splits <= 1) return status;
  return launch(combine_splits<T>, dim3(static_cast<unsigned>(ceil_divide(rows, COMBINE_WARPS))), COMBINE_WARPS * WARP, 0,
                stream, o, partials);
}

template int launch_split(void *, const Operands<float> &, void *);
template int launch_split(void *, const Operands<bf16> &, void *);
template int launch_split(void *, const Operands<f16> &, void *);

}  // namespace gt::attention
