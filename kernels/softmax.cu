// Softmax and log-softmax over the last dimension on CUDA.
//
// Computes    softmax: y = exp(x - m) / s; log_softmax: y = (x - m) - log(s); m = max(x), s = sum(exp(x - m)). Where
//             m is -inf it counts as 0, and where s is 0 the row is multiplied by 0, or log(s) counts as 0
// Shapes      y, x [N, C], C contiguous, any row stride each. y may be x: a thread writes only elements it has read,
//             and none before the sum is known
// Types       y, x f32, bf16, f16, each by itself; arithmetic in f32, rounded once
// Mapping     as norm.cu: C <= 1024: a warp owns a row, or 2, 4 .. 32 rows where C <= 128 leaves lanes idle; a lane
//             keeps 8 or 32 values. Beyond: a block owns a row, 32 values a thread, at most 512 threads; a cluster of
//             2, 4 or 8 of them where C > 16384 (sm_90). Thread t of a row's m owns the 16-byte vectors t, t + m,
//             t + 2m, .. of x. Where a row of C <= 8192, or of a cluster in 16 bits, is whole aligned vectors: as many
//             blocks as run at once step through the rows, and a thread copies its part of the next 3 rows to shared
//             memory while it works on one; else at most 16384 blocks
// Memory      x once and y once per element; columns beyond 131072 (without clusters 16384) are read three times, later
//             ones maybe from L2. Exponentials stay in registers. Shared: 4 rows of x, of an SM at C = 4096 in bf16
//             6 blocks' 192 KB, 144 of them on their way
// Numerics    the maximum first, so that no exponential exceeds 1; columns that are read again are summed against a
//             running maximum and scaled to the row's. A thread sums its own values in ascending order, then the
//             butterfly of reduce.h, then block after block of a cluster: the order depends on C, and on whether the
//             device has clusters. NaN or +inf makes the row NaN. N = 0 launches nothing
// Limits      16-byte accesses to x, and accesses of as many elements to y, where every row of both is aligned to
//             them; else element by element. C and N up to 2^63; sm_80 and later; nothing is UNSUPPORTED
// Source      Milakov & Gimelshein 2018 (arXiv 1805.02867) for the running maximum. Bound by memory, and nearly by
//             instructions: bench/results/h200.md
#include "lib/cuda.h"

#include "check.h"
#include "gatun/softmax.h"
#include "lib/cluster.h"
#include "lib/entry.h"
#include "lib/hopper.h"
#include "lib/reduce.h"
#include "lib/row_share.h"
#include "lib/rows_ahead.h"
#include "lib/vec.h"

namespace gt {

decltype(gt_softmax) softmax_cuda;
decltype(gt_log_softmax) log_softmax_cuda;

namespace {

constexpr int WARPS_THREADS = 128;      // of a block whose warps own rows: small, so that few rows still reach many SMs
constexpr int WARPS_BLOCKS = 4;         // of them on an SM at least: 128 registers each
constexpr int BLOCK_THREADS = 512;      // at most, of a block that owns a row
constexpr int FEW = 8, MANY = 32;       // values a lane keeps: C <= 256, or beyond, also where a block owns a row
constexpr int AHEAD_THREADS = 256;      // at most, of a block that copies rows ahead: C <= 8192
constexpr int AHEAD_BLOCKS = 3;         // of them on an SM: 85 registers each
constexpr int64_t SM_BYTES = 224 << 10; // of an sm_90; where there are fewer, some blocks of the grid come later
constexpr int64_t MAX_BLOCKS = 16384;   // enough to fill any device many times

enum class Result { PROBABILITY, LOGARITHM };

struct Operands {
  char *y;
  const char *x;
  gt_dtype y_dtype;
  Result result;
  int64_t y_row_bytes, x_row_bytes;  // from row to row
  int64_t num_rows, c;
  bool is_aligned;
};

// v[k][j] = x of the column first + k * step + j, -inf from end on.
template <class X, Access ACCESS, int CHUNKS, class Index>
__device__ __forceinline__ void widen(const Vector<X> (&packed)[CHUNKS], Index first, int step, Index end,
                                      float (&v)[CHUNKS][VEC<X>]) {
#pragma unroll
  for (int k = 0; k < CHUNKS; ++k) {
    const bool is_whole = first + k * step < end;
#pragma unroll
    for (int j = 0; j < VEC<X>; ++j) {
      const bool is_column = ACCESS == Access::WHOLE ? is_whole : first + k * step + j < end;
      v[k][j] = is_column ? to_float(packed[k].element[j]) : -INFINITY;
    }
  }
}

// The same of a row in memory.
template <class X, Access ACCESS, int CHUNKS, class Index>
__device__ __forceinline__ void load_values(const X *x, Index first, int step, Index end, bool aligned,
                                            float (&v)[CHUNKS][VEC<X>]) {
  Vector<X> packed[CHUNKS];
  load_packed<1, ACCESS>(x, first, step, end, aligned, packed);
  widen<X, ACCESS>(packed, first, step, end, v);
}

// y[first + k * step + j] = v[k][j] below end.
template <class Y, Access ACCESS, int CHUNKS, int N, class Index>
__device__ __forceinline__ void store_values(Y *y, Index first, int step, Index end, bool aligned,
                                             const float (&v)[CHUNKS][N]) {
#pragma unroll
  for (int k = 0; k < CHUNKS; ++k) {
    const Index i = first + k * step;
    if (ACCESS == Access::WHOLE ? i < end : aligned && i + N <= end) {
      Pack<Y, N> packed;
#pragma unroll
      for (int j = 0; j < N; ++j) packed.element[j] = from_float<Y>(v[k][j]);
      *reinterpret_cast<Pack<Y, N> *>(y + i) = packed;
    } else if (ACCESS == Access::ANY) {
#pragma unroll
      for (int j = 0; j < N; ++j)
        if (i + j < end) y[i + j] = from_float<Y>(v[k][j]);
    }
  }
}

__device__ __forceinline__ float offset_of(float m) { return m == -INFINITY ? 0.0f : m; }

// One row by `members` threads, of which this is number `member`. A row beyond the last is read and written nowhere,
// but takes part in the reductions. load(x, first, step, end, v): the thread's part of the row. REREADS: there may be
// more columns than registers.
template <class X, int VALUES, Access ACCESS, bool REREADS, class Load, class GroupMax, class GroupSum>
__device__ __forceinline__ void softmax_row(const Operands &o, int64_t row, int member, int members, Result result,
                                            Load load, GroupMax group_max, GroupSum group_sum) {
  constexpr int CHUNKS = VALUES / VEC<X>;
  const bool exists = row < o.num_rows;
  const int64_t n = exists ? row : 0;
  const X *const x = reinterpret_cast<const X *>(o.x + n * o.x_row_bytes);
  char *const y = o.y + once(n * o.y_row_bytes);
  const int first = member * VEC<X>, step = members * VEC<X>;
  const int end = exists ? static_cast<int>(min(o.c, static_cast<int64_t>(step) * CHUNKS)) : 0;

  float v[CHUNKS][VEC<X>];
  load(x, first, step, end, v);
  float m = -INFINITY;
#pragma unroll
  for (int k = 0; k < CHUNKS; ++k)
#pragma unroll
    for (int j = 0; j < VEC<X>; ++j) m = fmaxf(m, v[k][j]);

  // Calls f(column, values) for each vector that is not in v.
  const auto reread = [&](auto f) {
    if constexpr (REREADS) {
#pragma unroll 1
      for (int64_t i = end + int64_t{first}; i < o.c; i += step) {
        float again[1][VEC<X>];
        load_values<X, ACCESS>(x, i, step, o.c, o.is_aligned, again);
        f(i, again);
      }
    }
  };
  float running_m = -INFINITY, running_sum = 0.0f;  // of those vectors: the sum of exp(x - offset_of(running_m))
  reread([&](int64_t, const float (&again)[1][VEC<X>]) {
    const float before = running_m;
#pragma unroll
    for (int j = 0; j < VEC<X>; ++j) running_m = fmaxf(running_m, again[0][j]);
    running_sum *= expf(before - offset_of(running_m));
#pragma unroll
    for (int j = 0; j < VEC<X>; ++j) running_sum += expf(again[0][j] - offset_of(running_m));
  });

  const float offset = offset_of(group_max(fmaxf(m, running_m)));
  const bool is_log = result == Result::LOGARITHM;
  float sum = 0.0f;
#pragma unroll
  for (int k = 0; k < CHUNKS; ++k)
#pragma unroll
    for (int j = 0; j < VEC<X>; ++j) {
      const float e = expf(v[k][j] - offset);
      sum += e;
      v[k][j] = is_log ? v[k][j] - offset : e;
    }
  if constexpr (REREADS) sum += running_sum * expf(running_m - offset);
  sum = group_sum(sum);
  const float log_sum = sum == 0.0f ? 0.0f : logf(sum), factor = sum == 0.0f ? 0.0f : 1.0f / sum;

  const auto finish = [&](auto i, auto stop, auto &values) {
    constexpr int COUNT = sizeof values / sizeof values[0];
#pragma unroll
    for (int k = 0; k < COUNT; ++k)
#pragma unroll
      for (int j = 0; j < VEC<X>; ++j) values[k][j] = is_log ? values[k][j] - log_sum : values[k][j] * factor;
    if (o.y_dtype == GT_F32)
      store_values<float, ACCESS>(reinterpret_cast<float *>(y), i, step, stop, o.is_aligned, values);
    else if (o.y_dtype == GT_BF16)
      store_values<bf16, ACCESS>(reinterpret_cast<bf16 *>(y), i, step, stop, o.is_aligned, values);
    else
      store_values<f16, ACCESS>(reinterpret_cast<f16 *>(y), i, step, stop, o.is_aligned, values);
  };
  finish(first, end, v);
  reread([&](int64_t i, float (&again)[1][VEC<X>]) {
#pragma unroll
    for (int j = 0; j < VEC<X>; ++j) again[0][j] = is_log ? again[0][j] - offset : expf(again[0][j] - offset);
    finish(i, o.c, again);
  });
}

// Reads a thread's part of a row from memory.
template <class X, Access ACCESS> struct FromMemory {
  bool is_aligned;

  template <int CHUNKS>
  __device__ __forceinline__ void operator()(const X *x, int first, int step, int end,
                                             float (&v)[CHUNKS][VEC<X>]) const {
    load_values<X, ACCESS>(x, first, step, end, is_aligned, v);
  }
};

// A row per `lanes` lanes, a power of two.
template <class X, int VALUES, Access ACCESS>
__global__ void __launch_bounds__(WARPS_THREADS, WARPS_BLOCKS) softmax_row_per_warp(const Operands o, int lanes) {
  const int rows_per_block = WARPS_THREADS / lanes;
  const int64_t step = static_cast<int64_t>(gridDim.x) * rows_per_block;
  const auto reduce = [lanes](float v, auto combine) {
    for (int distance = lanes / 2; distance > 0; distance /= 2)
      v = combine(v, __shfl_xor_sync(ALL_LANES, v, distance));
    return v;
  };
  // every lane of a warp makes every round: the reductions need them
  for (int64_t row = static_cast<int64_t>(blockIdx.x) * rows_per_block; row < o.num_rows; row += step)
    softmax_row<X, VALUES, ACCESS, false>(
        o, row + threadIdx.x / lanes, threadIdx.x % lanes, lanes, o.result, FromMemory<X, ACCESS>{o.is_aligned},
        [&](float v) { return reduce(v, [](float a, float b) { return fmaxf(a, b); }); },
        [&](float v) { return reduce(v, [](float a, float b) { return a + b; }); });
}

template <class X> __global__ void __launch_bounds__(BLOCK_THREADS) softmax_row_per_block(const Operands o) {
  __shared__ float scratch[MAX_WARPS];
  for (int64_t row = blockIdx.x; row < o.num_rows; row += gridDim.x)
    softmax_row<X, MANY, Access::ANY, true>(
        o, row, threadIdx.x, blockDim.x, o.result, FromMemory<X, Access::ANY>{o.is_aligned},
        [](float v) { return block_max(v, scratch); }, [](float v) { return block_sum(v, scratch); });
}

// Whole rows that a block, or a cluster, works on one after the other, while the next ones are on their way.
template <class X, Result RESULT, class GroupMax, class GroupSum>
__device__ __forceinline__ void softmax_ahead(const Operands &o, const RowsOfThread &mine, GroupMax group_max,
                                              GroupSum group_sum) {
  constexpr int CHUNKS = MANY / VEC<X>;
  GT_DYNAMIC_SMEM(Vector<X>, shared);
  const RowInput<X> input[1] = {{reinterpret_cast<const X *>(o.x), o.x_row_bytes / static_cast<int64_t>(sizeof(X))}};
  RowsAhead<X, CHUNKS, 1> rows(shared, input, o.num_rows, static_cast<int>(o.c), mine);
  rows.run([&](int64_t row, const auto &part) {
    softmax_row<X, MANY, Access::WHOLE, false>(
        o, row, mine.member, mine.members, RESULT,
        [&](const X *, int first, int step, int end, float(&v)[CHUNKS][VEC<X>]) {
          Vector<X> packed[CHUNKS];
#pragma unroll
          for (int k = 0; k < CHUNKS; ++k) packed[k] = part.vector(0, k);
          widen<X, Access::WHOLE>(packed, first, step, end, v);
        },
        group_max, group_sum);
  });
}

template <class X, Result RESULT>
__global__ void __launch_bounds__(AHEAD_THREADS, AHEAD_BLOCKS) softmax_rows_ahead(const Operands o) {
  __shared__ float maxima[MAX_WARPS], sums[MAX_WARPS];
  softmax_ahead<X, RESULT>(
      o, rows_of_block(), [](float v) { return block_reduce_alternating<Max>(v, maxima); },
      [](float v) { return block_reduce_alternating<Sum>(v, sums); });
}

// A row per cluster; AHEAD: as above, else of any width and alignment.
template <class X, Result RESULT, bool AHEAD>
__global__ void __launch_bounds__(BLOCK_THREADS) softmax_row_per_cluster(const Operands o) {
  __shared__ float of_warps[2][MAX_WARPS], of_blocks[2][MAX_CLUSTER];  // of a maximum, and of a sum
  cluster_arrive();
  const int rank = static_cast<int>(cluster_rank()), size = static_cast<int>(cluster_size()), me = threadIdx.x;
  const int threads = blockDim.x;
  const RowsOfThread mine = {rank * threads + me, size * threads, blockIdx.x / size, gridDim.x / size};
  cluster_wait();
  const auto reduce = [&](float v, auto op, int place) {
    v = block_reduce_alternating<decltype(op)>(v, of_warps[place]);
    if (me < size) cluster_store(&of_blocks[place][rank], me, v);
    cluster_sync();
    v = of_blocks[place][0];
#pragma unroll 1
    for (int r = 1; r < size; ++r) v = op.combine(v, of_blocks[place][r]);
    return v;
  };
  const auto group_max = [&](float v) { return reduce(v, Max{}, 0); };
  const auto group_sum = [&](float v) { return reduce(v, Sum{}, 1); };
  if constexpr (AHEAD) {
    softmax_ahead<X, RESULT>(o, mine, group_max, group_sum);
  } else {
    for (int64_t row = mine.first; row < o.num_rows; row += mine.step)
      softmax_row<X, MANY, Access::ANY, true>(o, row, mine.member, mine.members, RESULT,
                                              FromMemory<X, Access::ANY>{o.is_aligned}, group_max, group_sum);
  }
}

// false: a block has registers for a row, or there are no clusters.
template <class X> bool launch_clusters(void *stream, const Operands &o, int *status) {
  constexpr int64_t BLOCK_COLUMNS = int64_t{BLOCK_THREADS} * MANY;
  if (o.c <= BLOCK_COLUMNS || !has_clusters()) return false;
  unsigned size = 2;
  while (size < MAX_CLUSTER && size * BLOCK_COLUMNS < o.c) size *= 2;
  const int64_t ahead_bytes = rows_ahead_bytes<X>(BLOCK_THREADS, MANY / VEC<X>, 1);
  constexpr bool HAS_ROOM = sizeof(X) == 2;  // for 4 rows; f32 would take 256 KB
  const bool ahead = HAS_ROOM && o.is_aligned && o.c % VEC<X> == 0 && o.c <= size * BLOCK_COLUMNS &&
                     ahead_bytes <= max_dynamic_shared_bytes();
  const auto run = [&](auto kernel) {
    const int64_t bytes = ahead ? ahead_bytes : 0;
    const int64_t resident = max_active_clusters(kernel, size, BLOCK_THREADS, bytes);
    if (resident == 0) return false;
    const dim3 grid(static_cast<unsigned>(min(o.num_rows, resident) * size));
    *status = launch_in_clusters(kernel, grid, size, BLOCK_THREADS, bytes, stream, o);
    return true;
  };
  if (o.result == Result::LOGARITHM)
    return ahead ? run(softmax_row_per_cluster<X, Result::LOGARITHM, HAS_ROOM>)
                 : run(softmax_row_per_cluster<X, Result::LOGARITHM, false>);
  return ahead ? run(softmax_row_per_cluster<X, Result::PROBABILITY, HAS_ROOM>)
               : run(softmax_row_per_cluster<X, Result::PROBABILITY, false>);
}

template <class X> int launch_softmax(void *stream, const Operands &o) {
  const auto blocks = [&](int64_t rows_per_block) {
    return dim3(static_cast<unsigned>(min(ceil_divide(o.num_rows, rows_per_block), MAX_BLOCKS)));
  };
  const auto row_per_warp = [&](auto kernel, int lanes) {
    return launch(kernel, blocks(WARPS_THREADS / lanes), WARPS_THREADS, 0, stream, o, lanes);
  };
  if (o.c <= WARP * FEW) {
    int lanes = 1;
    while (lanes * FEW < o.c) lanes *= 2;
    return row_per_warp(softmax_row_per_warp<X, FEW, Access::ANY>, lanes);
  }
  const bool is_whole = o.is_aligned && o.c % VEC<X> == 0;
  if (o.c <= WARP * MANY && is_whole) return row_per_warp(softmax_row_per_warp<X, MANY, Access::WHOLE>, WARP);
  if (o.c <= WARP * MANY) return row_per_warp(softmax_row_per_warp<X, MANY, Access::ANY>, WARP);
  if (int status = 0; launch_clusters<X>(stream, o, &status)) return status;
  const int threads = static_cast<int>(min(ceil_divide(o.c, WARP * MANY) * WARP, int64_t{BLOCK_THREADS}));
  const int64_t bytes = rows_ahead_bytes<X>(threads, MANY / VEC<X>, 1);
  if (!is_whole || threads > AHEAD_THREADS || bytes > max_dynamic_shared_bytes())
    return launch(softmax_row_per_block<X>, blocks(1), threads, 0, stream, o);
  const int64_t resident = max(int64_t{1}, min(int64_t{AHEAD_BLOCKS * AHEAD_THREADS / threads}, SM_BYTES / bytes));
  const dim3 grid(static_cast<unsigned>(min(o.num_rows, resident * num_multiprocessors())));
  const auto rows_ahead = o.result == Result::LOGARITHM ? softmax_rows_ahead<X, Result::LOGARITHM>
                                                        : softmax_rows_ahead<X, Result::PROBABILITY>;
  return launch(rows_ahead, grid, threads, bytes, stream, o);
}

gt_status run_softmax(const char *op, const gt_stream *stream, const gt_tensor *y, const gt_tensor *x, Result result) {
  const Rows to = rows_of(*y), from = rows_of(*x);
  if (from.n == 0 || from.c == 0) return GT_OK;
  const int64_t y_bytes = dtype_bytes(y->dtype), x_bytes = dtype_bytes(x->dtype);
  Operands o = {static_cast<char *>(y->data), static_cast<const char *>(x->data), y->dtype, result,
                to.stride * y_bytes, from.stride * x_bytes, from.n, from.c, false};
  const int64_t y_access = min(static_cast<int64_t>(VEC_BYTES), VEC_BYTES / x_bytes * y_bytes);
  o.is_aligned = is_aligned(o.x) && o.x_row_bytes % VEC_BYTES == 0 &&
                 reinterpret_cast<uintptr_t>(o.y) % y_access == 0 && o.y_row_bytes % y_access == 0;
  int error;
  switch (x->dtype) {
    case GT_F32: error = launch_softmax<float>(stream->handle, o); break;
    case GT_BF16: error = launch_softmax<bf16>(stream->handle, o); break;
    default: error = launch_softmax<f16>(stream->handle, o);
  }
  return status_of(op, error);
}

}  // namespace

gt_status softmax_cuda(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x) {
  return run_softmax("softmax", stream, y, x, Result::PROBABILITY);
}

gt_status log_softmax_cuda(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x) {
  return run_softmax("log_softmax", stream, y, x, Result::LOGARITHM);
}

}  // namespace gt
