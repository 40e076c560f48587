// How do the threads that share a row normalise it, for every kernel with the same bits?
//
// gatun/norm.h: h = round(x + residual), or x; layer norm (h - mean) rstd weight + bias, RMS norm round(h rstd)
// weight. Two passes over registers, mean first. A thread adds its own values in ascending order, then the caller's
// group_sum: a butterfly over the lanes, then over the warps. norm_members threads share a row: so the order depends
// on C alone.
#pragma once

#include "lib/row_share.h"

namespace gt {

constexpr int NORM_FEW = 8, NORM_MANY = 32;  // values a thread keeps: C <= 256, or beyond
constexpr int NORM_THREADS = 512;            // at most that share a row

enum class Norm { LAYER, RMS };

template <class T> struct NormOperands {
  T *y, *residual_out;
  const T *x, *residual;
  int64_t stride_y, stride_residual_out, stride_x, stride_residual;
  Parameter weight, bias;
  float *mean, *rstd;
  int64_t num_rows, c;
  float eps;
  bool is_aligned;  // every row of x, y, residual and residual_out
};

// h = round(x + residual), or x.
template <class T, int CHUNKS>
__device__ __forceinline__ void add_residual(const Vector<T> (&x)[CHUNKS], const Vector<T> (&residual)[CHUNKS],
                                             bool has_residual, float (&h)[CHUNKS][VEC<T>]) {
#pragma unroll
  for (int k = 0; k < CHUNKS; ++k)
#pragma unroll
    for (int j = 0; j < VEC<T>; ++j) {
      h[k][j] = to_float(x[k].element[j]);
      // not without a residual: -0 + 0 is +0
      if (has_residual) h[k][j] = to_float(from_float<T>(h[k][j] + to_float(residual[k].element[j])));
    }
}

// h[k][j] of the columns first + k * step + j; arbitrary from end on.
template <class T, Access ACCESS, int CHUNKS, class Index>
__device__ __forceinline__ void load_h(const T *x, const T *residual, Index first, int step, Index end, bool aligned,
                                       float (&h)[CHUNKS][VEC<T>]) {
  Vector<T> packed[CHUNKS], packed_residual[CHUNKS] = {};
  load_packed<1, ACCESS>(x, first, step, end, aligned, packed);
  if (residual) load_packed<1, ACCESS>(residual, first, step, end, aligned, packed_residual);
  add_residual<T>(packed, packed_residual, residual, h);
}

// One row by `members` threads, of which this is number `member`. A row beyond the last is read and written nowhere,
// but takes part in the sums. load(x, residual, first, step, end, h): the thread's part of the row. affine(first, step,
// end, v): v weight + bias, the product rounded. group_sum(v): the sum over the members. REREADS: there may be more
// columns than registers.
template <class T, Norm NORM, int VALUES, Access ACCESS, bool REREADS, class Load, class Affine, class GroupSum>
__device__ __forceinline__ void norm_row(const NormOperands<T> &o, int64_t row, int member, int members, Load load,
                                         Affine affine, GroupSum group_sum) {
  constexpr int CHUNKS = VALUES / VEC<T>;
  const bool exists = row < o.num_rows;
  const int64_t n = exists ? row : 0;
  const int first = member * VEC<T>, step = members * VEC<T>;
  const int end = exists ? static_cast<int>(min(o.c, static_cast<int64_t>(step) * CHUNKS)) : 0;

  const T *const x = o.x + n * o.stride_x, *const residual = o.residual ? o.residual + n * o.stride_residual : nullptr;

  float h[CHUNKS][VEC<T>];
  load(x, residual, first, step, end, h);

  // Calls f(column, values) for each vector that is not in h.
  const auto reread = [&](auto f) {
    if constexpr (REREADS) {
#pragma unroll 1
      for (int64_t i = end + int64_t{first}; i < (exists ? o.c : 0); i += step) {
        float again[1][VEC<T>];
        load_h<T, ACCESS>(x, residual, i, step, o.c, o.is_aligned, again);
        f(i, again);
      }
    }
  };
  T *const y = o.y + once(n * o.stride_y);
  T *const residual_out = o.residual_out ? o.residual_out + once(n * o.stride_residual_out) : nullptr;
  // nobody reads what h holds again, wherever residual_out lies
  if (residual_out) store_chunks<T, ACCESS>(residual_out, first, step, end, o.is_aligned, h);

  // The sum of h, or of its squares, over the columns that exist; h is centred first.
  const auto sum = [&](float mean, auto f) {
    if (NORM == Norm::LAYER)
#pragma unroll
      for (int k = 0; k < CHUNKS; ++k)
#pragma unroll
        for (int j = 0; j < VEC<T>; ++j) h[k][j] -= mean;
    float total = 0.0f;
    add_chunks<VEC<T>, ACCESS, CHUNKS>(total, first, step, end, [&](int k, int j) { return f(h[k][j]); });
    reread([&](int64_t i, const float (&again)[1][VEC<T>]) {
      add_chunks<VEC<T>, ACCESS, 1>(total, i, step, o.c, [&](int, int j) { return f(again[0][j] - mean); });
    });
    return group_sum(total);
  };

  const float c = static_cast<float>(o.c);
  float mean = 0.0f;
  if constexpr (NORM == Norm::LAYER) mean = sum(0.0f, [](float v) { return v; }) / c;
  const float squares = sum(mean, [](float v) { return v * v; });
  const float rstd = 1.0f / sqrtf(squares / c + o.eps);

  // All loads of the parameters before the first store: the compiler must take y for a possible weight.
  const auto finish = [&](auto i, auto stop, auto &v) {
    constexpr int COUNT = sizeof v / sizeof v[0];
#pragma unroll
    for (int k = 0; k < COUNT; ++k)
#pragma unroll
      for (int j = 0; j < VEC<T>; ++j) {
        v[k][j] *= rstd;
        if constexpr (NORM == Norm::RMS) v[k][j] = to_float(from_float<T>(v[k][j]));
      }
    affine(i, step, stop, v);
    store_chunks<T, ACCESS>(y, i, step, stop, o.is_aligned, v);
  };
  finish(first, end, h);
  reread([&](int64_t i, float (&again)[1][VEC<T>]) {
    if (residual_out) store_chunks<T, ACCESS>(residual_out, i, step, o.c, o.is_aligned, again);
#pragma unroll
    for (int j = 0; j < VEC<T>; ++j) again[0][j] -= mean;
    finish(i, o.c, again);
  });

  if (exists && member == 0) {
    if (o.mean) o.mean[n] = mean;
    if (o.rstd) o.rstd[n] = rstd;
  }
}

template <class T, Access ACCESS> struct FromMemory {
  bool is_aligned;

  template <int CHUNKS>
  __device__ __forceinline__ void operator()(const T *x, const T *residual, int first, int step, int end,
                                             float (&h)[CHUNKS][VEC<T>]) const {
    load_h<T, ACCESS>(x, residual, first, step, end, is_aligned, h);
  }
};

template <class T, Norm NORM, Access ACCESS> struct Affine {
  const Parameter &weight, &bias;

  template <int CHUNKS, class Index>
  __device__ __forceinline__ void operator()(Index first, int step, Index end, float (&v)[CHUNKS][VEC<T>]) const {
    apply_parameter<T, ACCESS>(weight, first, step, end, v, [](float a, float w) { return __fmul_rn(a, w); });
    if constexpr (NORM == Norm::LAYER)
      apply_parameter<T, ACCESS>(bias, first, step, end, v, [](float a, float b) { return a + b; });
  }
};

// How many threads share a row: of a warp a power of two, or whole warps.
inline int norm_members(int64_t c) {
  constexpr int LANES = 32;
  if (c <= LANES * NORM_FEW) {
    int lanes = 1;
    while (lanes * NORM_FEW < c) lanes *= 2;
    return lanes;
  }
  const int64_t warps = (c + LANES * NORM_MANY - 1) / (LANES * NORM_MANY);
  return static_cast<int>(min(warps * LANES, int64_t{NORM_THREADS}));
}

}  // namespace gt
