// How does a block find the loss and the gradient of rows of aligned vectors of 16 bytes, each read once?
//
// See softmax_cross_entropy.cu. Where two rows fit into the shared memory of a block, or of a cluster of 2, 4 or 8 that
// share each row, one is at work there and one on its way; else a row comes twice, the second time from L2. The last
// vector of a row may be a part of one: its other elements count as -inf, and are neither read nor written.
#pragma once

#include "check.h"
#include "lib/async_copy.h"
#include "lib/cluster.h"
#include "lib/exp2.h"
#include "lib/hopper.h"
#include "lib/reduce.h"
#include "lib/vec.h"

namespace gt::cross_entropy {

constexpr int SHARED_THREADS = 1024;   // at most, of a block with rows in shared memory; of an SM: 64 registers each
constexpr int VECTORS = 6;             // of a thread there, where that is enough
constexpr int IN_FLIGHT = 4;           // vectors of a thread, of rows that do not fit there
constexpr int64_t LEAST_BYTES = 4096;  // of a row of vectors
constexpr int64_t SM_BYTES = 224 << 10;
constexpr float LOG2E = 1.44269504f;

// At the start of the workspace; the losses of the rows follow.
struct Totals {
  int64_t count;  // of rows that count
  float factor;   // grad_scale / count
};
static_assert(sizeof(Totals) == 16, "gt_cross_entropy_workspace counts on it");

struct Targets {
  const void *data;
  bool are_i64;
  int64_t num_rows, ignore_index;
  __device__ __forceinline__ int64_t at(int64_t n) const {
    return are_i64 ? static_cast<const int64_t *>(data)[n] : static_cast<const int32_t *>(data)[n];
  }
  // A row's target as it lies in memory, of the last row where n is beyond it. Not as one number: ptxas would take the
  // pair of registers apart at once, and wait.
  struct Words {
    int32_t low, high;
  };
  __device__ __forceinline__ Words ask(int64_t n) const {
    const char *const at = static_cast<const char *>(data) + (min(n, num_rows - 1) << (are_i64 ? 3 : 2));
    Words words;
    memcpy(&words.low, __builtin_assume_aligned(at, 4), 4);
    memcpy(&words.high, __builtin_assume_aligned(at + (are_i64 ? 4 : 0), 4), 4);
    return words;
  }
  // The target's column, IGNORED (also of a row beyond the last), or INVALID.
  static constexpr int IGNORED = -1, INVALID = -2;
  __device__ __forceinline__ int column_of(const Words &words, int64_t n, int64_t v) const {
    const int32_t high = are_i64 ? words.high : words.low >> 31;  // a number of 64 bits would be widened at its load
    const uint64_t bits = static_cast<uint64_t>(static_cast<uint32_t>(high)) << 32 | static_cast<uint32_t>(words.low);
    const int64_t target = static_cast<int64_t>(bits);
    if (n >= num_rows || target == ignore_index) return IGNORED;
    return target >= 0 && target < v ? static_cast<int>(target) : INVALID;
  }
  // Whether the logits of row n are needed.
  __device__ __forceinline__ bool needs_row(int64_t n, int64_t v) const {
    const int64_t target = n < num_rows ? at(n) : -1;
    return target >= 0 && target < v && target != ignore_index;
  }
};

template <class X> struct Operands {
  X *dlogits;  // NULL: not wanted
  const X *logits;
  int64_t stride_d, stride_x, v;
  Targets targets;
  float smoothing;
  float *losses;
  const Totals *totals;
};

__device__ __forceinline__ float offset_of(float m) { return m == -INFINITY ? 0.0f : m; }

template <class X> __device__ __forceinline__ void fill_row(X *dx, int64_t v, float value) {
  if (!dx) return;
  for (int64_t i = threadIdx.x; i < v; i += blockDim.x) dx[i] = from_float<X>(value);
}

// In f64: a few operations per row, whose roundings the mean need not inherit.
__device__ __forceinline__ float loss_of(float sum, float offset, float hit, float total, int64_t v, float smoothing) {
  const double e = smoothing, m = offset;
  double loss = log(static_cast<double>(sum));
  if (e < 1) loss += (1 - e) * (m - hit);
  if (e > 0) loss += e * (m - total / static_cast<double>(v));
  return static_cast<float>(loss);
}

__device__ __forceinline__ float exponential(float x, float offset) { return exp2_flushed((x - offset) * LOG2E); }

// What a block knows of its row when its logits have been summed.
struct RowSums {
  float offset, sum, hit, total;  // total: of the logits, where it is smoothed
};
struct Gradient {
  float offset, scale, uniform, at_target;

  __device__ __forceinline__ float of(float logit) const { return exponential(logit, offset) * scale - uniform; }
};
template <bool SMOOTHS, class X>
__device__ __forceinline__ Gradient gradient_of(const Operands<X> &o, float factor, const RowSums &row) {
  Gradient g = {row.offset, factor / row.sum, SMOOTHS ? factor * o.smoothing / static_cast<float>(o.v) : 0.0f, 0.0f};
  g.at_target = g.of(row.hit) - factor * (1.0f - o.smoothing);
  return g;
}
// How many vectors a row has, whole ones, and elements behind these.
struct Length {
  int vectors, whole, tail;
};
template <class X> __device__ __forceinline__ bool exists(const Length &row, int i, int j) {
  return i < row.whole || j < row.tail;
}
template <class X> __device__ __forceinline__ void hide_beyond(Vector<X> &last, int tail) {
#pragma unroll
  for (int j = 0; j < VEC<X>; ++j)
    if (j >= tail) last.element[j] = from_float<X>(-INFINITY);
}
template <class X>
__device__ __forceinline__ void store_gradient(X *dx, const Length &row, int i, const Vector<X> &x, const Gradient &g) {
  float d[VEC<X>];
#pragma unroll
  for (int j = 0; j < VEC<X>; ++j) d[j] = g.of(to_float(x.element[j]));
  X *const to = dx + static_cast<int64_t>(i) * VEC<X>;
  if (i < row.whole) {
    store_vec(to, d);
    return;
  }
#pragma unroll
  for (int j = 0; j < VEC<X>; ++j)
    if (j < row.tail) to[j] = from_float<X>(d[j]);
}

// Whether this thread owns the target's column, which another block may have.
template <class X> __device__ __forceinline__ bool owns(const Length &row, int target) {
  return target >= 0 && target < row.vectors * VEC<X> && target / VEC<X> % blockDim.x == threadIdx.x;
}
template <class X> __device__ __forceinline__ int64_t elements(const Length &row) {
  return static_cast<int64_t>(row.whole) * VEC<X> + row.tail;
}

// The block's sums of what a thread has: against m, its maximum.
template <bool SMOOTHS>
__device__ __forceinline__ RowSums sums_of_block(float offset, float sum, float hit, float total,
                                                 float (&scratch)[3][MAX_WARPS]) {
  float of_row[SMOOTHS ? 3 : 2] = {sum, hit};
  if (SMOOTHS) of_row[SMOOTHS ? 2 : 1] = total;
  block_reduce_alternating<Sum>(of_row, scratch);
  return {offset, of_row[0], of_row[1], SMOOTHS ? of_row[SMOOTHS ? 2 : 1] : 0.0f};
}

struct RowScratch {
  float maxima[MAX_WARPS], sums[3][MAX_WARPS];
};

// What blocks tell each other of a row: their maximum, and their sums against it.
struct alignas(8) Two {
  float first, second;
};
struct ClusterScratch {
  Two sums[2][MAX_CLUSTER], logits[2][MAX_CLUSTER];  // in turns: a slow block may still read the last row's
};

// The sums of the whole row, in the order of the blocks.
template <bool SMOOTHS>
__device__ __forceinline__ RowSums sums_of_cluster(float m, const RowSums &part, ClusterScratch &scratch, int turn) {
  const unsigned rank = cluster_rank(), size = cluster_size(), to = threadIdx.x;
  if (to < size) {
    cluster_store(&scratch.sums[turn][rank], to, Two{m, part.sum});
    cluster_store(&scratch.logits[turn][rank], to, Two{part.hit, part.total});
  }
  cluster_sync();
  float largest = -INFINITY;
#pragma unroll 1
  for (unsigned r = 0; r < size; ++r) largest = fmaxf(largest, scratch.sums[turn][r].first);
  RowSums row = {offset_of(largest), 0.0f, 0.0f, 0.0f};
#pragma unroll 1
  for (unsigned r = 0; r < size; ++r) {
    const Two sum = scratch.sums[turn][r], logits = scratch.logits[turn][r];
    row.sum += sum.second * exponential(sum.first, row.offset);
    row.hit += logits.first;
    if (SMOOTHS) row.total += logits.second;
  }
  return row;
}

// The loss of a row in shared memory, known to thread 0; its gradient goes to dx. All of these are the block's part of
// the row, the target counted from its start. factor: of Totals. used(i): vector i will not be read again.
// of_all(m, sums): the row's sums from those of the part against its maximum m.
template <bool SMOOTHS, class X, class OfAll, class Used>
__device__ __forceinline__ float row_loss_in_shared(const Operands<X> &o, float factor, X *dx, Vector<X> *x,
                                                    const Length &length, int target, RowScratch &scratch, OfAll of_all,
                                                    Used used) {
  const int threads = blockDim.x, vectors = length.vectors;
  if (length.tail > 0 && length.whole % threads == static_cast<int>(threadIdx.x))
    hide_beyond(x[length.whole], length.tail);
  float m = -INFINITY;
#pragma unroll 2
  for (int i = threadIdx.x; i < vectors; i += threads) {
    const Vector<X> packed = x[i];
#pragma unroll
    for (int j = 0; j < VEC<X>; ++j) m = fmaxf(m, to_float(packed.element[j]));
  }
  m = block_reduce_alternating<Max>(m, scratch.maxima);
  const float offset = offset_of(m);

  float sum = 0.0f, total = 0.0f;
#pragma unroll 2
  for (int i = threadIdx.x; i < vectors; i += threads) {
    const Vector<X> packed = x[i];
#pragma unroll
    for (int j = 0; j < VEC<X>; ++j) {
      const float value = to_float(packed.element[j]);
      sum += exponential(value, offset);
      if (SMOOTHS && exists<X>(length, i, j)) total += value;
    }
  }
  const bool has_target = owns<X>(length, target);
  const float hit = has_target ? to_float(x[target / VEC<X>].element[target % VEC<X>]) : 0.0f;
  const RowSums row = of_all(m, sums_of_block<SMOOTHS>(offset, sum, hit, total, scratch.sums));
  const Gradient gradient = gradient_of<SMOOTHS>(o, factor, row);
#pragma unroll 2
  for (int i = threadIdx.x; i < vectors; i += threads) {
    const Vector<X> packed = x[i];
    if (dx) store_gradient(dx, length, i, packed, gradient);
    used(i);
  }
  if (dx && has_target) dx[target] = from_float<X>(gradient.at_target);
  return threadIdx.x == 0 ? loss_of(row.sum, row.offset, row.hit, row.total, o.v, o.smoothing) : 0.0f;
}

// The same of a row in global memory, which dx may be.
template <bool SMOOTHS, class X>
__device__ __forceinline__ float row_loss_in_memory(const Operands<X> &o, X *dx, const Vector<X> *x,
                                                    const Length &length, int target, RowScratch &scratch) {
  const int threads = blockDim.x, whole = length.whole;
  // f(i, vector) for the thread's vectors, IN_FLIGHT asked for at a time; begin() before each such part of them
  const auto for_each_vector = [&](auto begin, auto f) {
#pragma unroll 1
    for (int first = threadIdx.x; first < whole; first += IN_FLIGHT * threads) {
      Vector<X> packed[IN_FLIGHT];
#pragma unroll
      for (int k = 0; k < IN_FLIGHT; ++k)
        packed[k] = x[first + k * threads < whole ? first + k * threads : first];  // the first twice, lest one waits
      begin(packed);
#pragma unroll
      for (int k = 0; k < IN_FLIGHT; ++k)
        if (first + k * threads < whole) f(first + k * threads, packed[k]);
    }
    if (length.tail == 0 || whole % threads != static_cast<int>(threadIdx.x)) return;
    Vector<X> last[1];
    hide_beyond(last[0], 0);
#pragma unroll
    for (int j = 0; j < VEC<X>; ++j)
      if (j < length.tail) last[0].element[j] = x[whole].element[j];
    begin(last);
    f(whole, last[0]);
  };
  float m = -INFINITY, sum = 0.0f, total = 0.0f;
  for_each_vector(
      [&](const auto &packed) {
        const float before = m;
#pragma unroll
        for (const Vector<X> &x_k : packed)
#pragma unroll
          for (int j = 0; j < VEC<X>; ++j) m = fmaxf(m, to_float(x_k.element[j]));
        sum *= exponential(before, offset_of(m));
      },
      [&](int i, const Vector<X> &packed) {
#pragma unroll
        for (int j = 0; j < VEC<X>; ++j) {
          const float value = to_float(packed.element[j]);
          sum += exponential(value, offset_of(m));
          if (SMOOTHS && exists<X>(length, i, j)) total += value;
        }
      });
  const float offset = offset_of(block_reduce_alternating<Max>(m, scratch.maxima));
  const bool has_target = owns<X>(length, target);
  const float hit = has_target ? to_float(x[target / VEC<X>].element[target % VEC<X>]) : 0.0f;
  const RowSums row = sums_of_block<SMOOTHS>(offset, sum * exponential(m, offset), hit, total, scratch.sums);
  if (dx) {
    const Gradient gradient = gradient_of<SMOOTHS>(o, o.totals->factor, row);
    for_each_vector([](const auto &) {},
                    [&](int i, const Vector<X> &packed) { store_gradient(dx, length, i, packed, gradient); });
    if (has_target) dx[target] = from_float<X>(gradient.at_target);
  }
  return threadIdx.x == 0 ? loss_of(row.sum, offset, row.hit, row.total, o.v, o.smoothing) : 0.0f;
}

template <class X, bool SMOOTHS>
__global__ void __launch_bounds__(SHARED_THREADS, 1) cross_entropy_in_memory(const Operands<X> o, const Length length) {
  __shared__ RowScratch scratch;
  for (int64_t n = blockIdx.x; n < o.targets.num_rows; n += gridDim.x) {
    const int64_t target = o.targets.at(n);
    X *const dx = o.dlogits ? o.dlogits + n * o.stride_d : nullptr;
    float loss;
    if (o.targets.needs_row(n, o.v))
      loss = row_loss_in_memory<SMOOTHS>(o, dx, reinterpret_cast<const Vector<X> *>(o.logits + n * o.stride_x), length,
                                         static_cast<int>(target), scratch);
    else
      fill_row(dx, o.v, loss = target == o.targets.ignore_index ? 0.0f : NAN);
    if (threadIdx.x == 0) o.losses[n] = loss;
  }
}

// Where a block's part of each row begins, and how long it is.
struct Part {
  int64_t first;  // element
  Length length;
};
template <class X> __device__ __forceinline__ Part part_of(const Length &row, int rank, int vectors_per_block) {
  const int begin = min(rank * vectors_per_block, row.vectors), end = min(begin + vectors_per_block, row.vectors);
  const int whole = max(min(end, row.whole) - begin, 0);
  return {static_cast<int64_t>(begin) * VEC<X>, {end - begin, whole, end - begin > whole ? row.tail : 0}};
}

// Of each row the block has a part of as many vectors, the last one of its cluster maybe fewer; all of it where it is
// alone.
template <class X, bool SMOOTHS, bool IN_CLUSTER>
__global__ void __launch_bounds__(SHARED_THREADS, 1)
    cross_entropy_in_shared(const Operands<X> o, const Length row_length, int vectors) {
  __shared__ RowScratch scratch;
  __shared__ ClusterScratch cluster_scratch;
  GT_DYNAMIC_SMEM(Vector<X>, shared);
  if constexpr (IN_CLUSTER) cluster_arrive();
  const int rank = IN_CLUSTER ? static_cast<int>(cluster_rank()) : 0;
  const int64_t size = IN_CLUSTER ? cluster_size() : 1, step = gridDim.x / size;
  const Part part = IN_CLUSTER ? part_of<X>(row_length, rank, vectors) : Part{0, row_length};
  const Length &length = part.length;
  const X *const logits = o.logits + part.first;
  const auto order = [&](Vector<X> *row, const X *x, int i) {
    const int bytes = i < length.whole ? VEC_BYTES : length.tail * static_cast<int>(sizeof(X));
    async_copy_16(row + i, x + static_cast<int64_t>(i) * VEC<X>, bytes);
  };
  const int64_t first_row = blockIdx.x / size;
  // What concerns a row's target, and the factor, is asked for a row before it is used.
  const float factor = o.totals->factor;
  const auto ask = [&](int ahead) { return o.targets.ask(first_row + ahead * step); };
  const Targets::Words words[3] = {ask(0), ask(1), ask(2)};
  const auto column_of = [&](int ahead) { return o.targets.column_of(words[ahead], first_row + ahead * step, o.v); };
  int target = column_of(0), next = column_of(1), after_next = column_of(2);
  for (int ahead = 0; ahead < 2; ++ahead) {
    const X *const x = logits + (first_row + ahead * step) * o.stride_x;
    if ((ahead == 0 ? target : next) >= 0)
      for (int i = threadIdx.x; i < length.vectors; i += blockDim.x)
        order(shared + ahead * vectors, x, i);
    async_copy_commit();
  }
  if constexpr (IN_CLUSTER) cluster_wait();
  int turn = 0;
  const auto of_all = [&](float m, const RowSums &sums) {
    if constexpr (IN_CLUSTER) {
      turn ^= 1;
      return sums_of_cluster<SMOOTHS>(m, sums, cluster_scratch, turn);
    } else {
      return sums;
    }
  };
  Vector<X> *row = shared, *other = shared + vectors;
  for (int64_t n = first_row; n < o.targets.num_rows; n += step) {
    const Targets::Words coming = o.targets.ask(n + 3 * step);
    const bool refills = after_next >= 0;
    const X *const x = logits + (refills ? n + 2 * step : 0) * o.stride_x;
    const auto used = [&](int i) {
      if (refills) order(row, x, i);
    };
    X *const dx = o.dlogits ? o.dlogits + n * o.stride_d + part.first : nullptr;
    float loss;
    async_copy_wait<1>();  // a thread reads what it has copied itself
    if (target >= 0) {
      loss = row_loss_in_shared<SMOOTHS>(o, factor, dx, row, length, target - static_cast<int>(part.first), scratch,
                                         of_all, used);
    } else {
      fill_row(dx, elements<X>(length), loss = target == Targets::IGNORED ? 0.0f : NAN);
      for (int i = threadIdx.x; i < length.vectors; i += blockDim.x) used(i);
    }
    async_copy_commit();
    if (threadIdx.x == 0 && rank == 0) o.losses[n] = loss;
    Vector<X> *const done = row;
    row = other;
    other = done;
    target = next;
    next = after_next;
    after_next = o.targets.column_of(coming, n + 3 * step, o.v);
  }
  async_copy_wait<0>();
}

// false: no cluster of 2, 4 or 8 blocks has room for two rows.
template <class X> bool launch_clusters(void *stream, const Operands<X> &o, const Length &length, int *status) {
  if (!has_clusters()) return false;
  const auto kernel =
      o.smoothing > 0.0f ? cross_entropy_in_shared<X, true, true> : cross_entropy_in_shared<X, false, true>;
  for (int size = 2; size <= static_cast<int>(MAX_CLUSTER); size *= 2) {
    const int vectors = (length.vectors + size - 1) / size;
    const int64_t bytes = 2 * int64_t{vectors} * VEC_BYTES;
    if (bytes > max_dynamic_shared_bytes()) continue;
    const int64_t resident = max_active_clusters(kernel, size, SHARED_THREADS, bytes);
    if (resident == 0) return false;
    const dim3 grid(static_cast<unsigned>(min(o.targets.num_rows, resident) * size));
    *status = launch_in_clusters(kernel, grid, size, SHARED_THREADS, bytes, stream, o, length, vectors);
    return true;
  }
  return false;
}

// false: rows are not aligned, or short.
template <class X> bool launch_vectors(void *stream, const Operands<X> &o, int *status) {
  const int64_t vectors = (o.v + VEC<X> - 1) / VEC<X>, row_bytes = vectors * VEC_BYTES;
  const bool are_aligned =
      rows_are_aligned(o.logits, o.stride_x) && (!o.dlogits || rows_are_aligned(o.dlogits, o.stride_d));
  if (!are_aligned || row_bytes < LEAST_BYTES || o.v > INT32_MAX / 2) return false;
  const Length length = {static_cast<int>(vectors), static_cast<int>(o.v / VEC<X>), static_cast<int>(o.v % VEC<X>)};
  const bool fits = 2 * row_bytes <= max_dynamic_shared_bytes(), smooths = o.smoothing > 0.0f;
  if (!fits && launch_clusters(stream, o, length, status)) return true;
  const int64_t warps = (vectors + VECTORS * WARP - 1) / (VECTORS * WARP);
  const int threads = static_cast<int>(min(warps * WARP, int64_t{SHARED_THREADS}));
  const int64_t resident =
      fits ? max(int64_t{1}, min(int64_t{SHARED_THREADS / threads}, SM_BYTES / (2 * row_bytes))) : 1;
  const dim3 grid(static_cast<unsigned>(min(o.targets.num_rows, resident * num_multiprocessors())));
  if (fits) {
    const auto kernel = smooths ? cross_entropy_in_shared<X, true, false> : cross_entropy_in_shared<X, false, false>;
    *status = launch(kernel, grid, threads, 2 * row_bytes, stream, o, length, length.vectors);
  } else {
    const auto kernel = smooths ? cross_entropy_in_memory<X, true> : cross_entropy_in_memory<X, false>;
    *status = launch(kernel, grid, threads, 0, stream, o, length);
  }
  return true;
}

}  // namespace gt::cross_entropy
