// Matrix product with few rows: argument checks, dispatch, and the CPU twin of linear.cu.
#include "gatun/linear.h"

#include "check.h"
#include "cpu/isa.h"

#if defined(GT_ISA)
// Computes    gatun/linear.h
// Mapping     threads own ranges of outputs. [F, C]: tiles of 4 dot products by 4; a group of weight rows stays in the
//             L1 cache while the rows of x pass by. [C, F]: 8 weight rows at a time are added into sums that stay in
//             L1; with more than 16 rows of x, panels of 64 columns are packed and multiplied by register tiles
// Memory      weights come from DRAM once per 64 ([C, F]: 16, then 128) rows of x, with prefetches one group ahead:
//             pages of 4 KiB end the hardware's own. x is converted to f32 once per block and thread
// Numerics    [F, C]: W lanes, each a chain of fused multiply-adds in ascending c, then folded. [C, F]: one chain in
//             ascending c. The chains of an output never depend on N, on its neighbours or on the threads
// Limits      280 KiB of stack. bf16 and f16 with C > 8192 and 8 rows convert x again for every group of columns
#include "cpu/parallel.h"
#include "cpu/tile.h"

namespace gt::GT_ISA {
namespace {

constexpr int PAIR = 2 * W;                                 // elements per step
constexpr int DOT_ROWS = 4, DOT_COLUMNS = W == 16 ? 4 : 2;  // register tile for weights [F, C]
constexpr int64_t C_STRETCH = 1024;       // elements per weight row and pass over more than DOT_ROWS rows: 16 KiB in L1
constexpr int64_t BLOCK_ROWS = 64;        // rows of x per read of weights [F, C]
constexpr int64_t X_FLOATS = 64 * 1024;   // x as f32: 256 KiB, in the L2 cache
constexpr int STREAM_TILE = W == 16 ? 8 : 4;  // rows of x in the register tile for weights [C, F]
constexpr int64_t STREAM_ROWS = 16;       // most rows of x that stream weights [C, F]
constexpr int64_t C_BLOCK = 8;            // weight rows [C, F] per pass over the sums
constexpr int64_t SUM_FLOATS = 8 * 1024;  // sums of a slice of columns: 32 KiB, in the L1 cache
constexpr int64_t PANEL = 64, PANEL_C = 256, PANEL_ROWS = 128;

GT_INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
GT_INLINE int64_t round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

// PAIR elements as two vectors, in whichever order is cheapest for the type: the same for x, weights and sums.
struct Pair {
  vf lo, hi;
};
GT_INLINE Pair load_pair(const float *p) { return {load(p), load(p + W)}; }
GT_INLINE Pair load_pair(const f16 *p) { return {load(p), load(p + W)}; }
GT_INLINE Pair load_pair(const bf16 *p) {  // even elements, odd elements
  vu u;
  memcpy(&u, p, sizeof u);
  return {(vf)(u << 16), (vf)(u & 0xffff0000u)};
}
template <class T>
GT_INLINE Pair load_pair(const T *p, int64_t n) {
  if (n >= PAIR) return load_pair(p);
  T padded[PAIR] = {};
  for (int64_t i = 0; i < n; ++i) padded[i] = p[i];
  return load_pair(padded);
}
// Back to ascending order.
GT_INLINE void store_pair(float *p, Pair v, const bf16 *) {
  for (int i = 0; i < W; ++i) {
    p[2 * i] = v.lo[i];
    p[2 * i + 1] = v.hi[i];
  }
}
template <class T>
GT_INLINE void store_pair(float *p, Pair v, const T *) {
  store(p, v.lo);
  store(p + W, v.hi);
}

template <class T>
GT_INLINE void prefetch_pair(const T *p) {
  __builtin_prefetch(p);
  if (sizeof(T) * PAIR > 64) __builtin_prefetch(p + W);
}

template <class T>
struct Product {
  const gt_tensor *y_tensor, *bias;
  const T *x, *w;
  int64_t n, c, f, ldx, ldw, ldy;

  static float bias_at(const gt_tensor *bias, int64_t column) {
    if (!bias) return 0;
    return bias->dtype == GT_F32 ? static_cast<const float *>(bias->data)[column]
                                 : to_float(static_cast<const T *>(bias->data)[column]);
  }

  // y[row + r][column .. column + columns) = sums[r][..] + bias
  void put(int64_t row, int64_t rows, int64_t column, int64_t columns, const float *sums, int64_t ld) const {
    if (y_tensor->dtype == GT_F32)
      put_as<float>(row, rows, column, columns, sums, ld);
    else
      put_as<T>(row, rows, column, columns, sums, ld);
  }
  template <class Y>
  void put_as(int64_t row, int64_t rows, int64_t column, int64_t columns, const float *sums, int64_t ld) const {
    Y *y = static_cast<Y *>(y_tensor->data) + row * ldy + column;
    for (int64_t k = 0; k < columns; ++k) {
      const float b = bias_at(bias, column + k);
      for (int64_t r = 0; r < rows; ++r) from_float(sums[r * ld + k] + b, y + r * ldy + k);
    }
  }
};

// Weight rows to ask for: half of the next group each, so that two passes over a group keep the memory busy throughout.
template <class T>
struct Ahead {
  const T *first, *second;
};

// Dot products of R rows of x with K rows of weight over c in [from, to); the sums wait in carry between two stretches
// of c. X is T, or float: x converted, in pairs, padded to whole pairs.
template <int R, int K, class T, class X>
GT_INLINE void dot_tile(const Product<T> &p, int64_t row, const X *x, int64_t ldx, int64_t column, int64_t from,
                        int64_t to, const Ahead<T> &ahead, vf *carry) {
  constexpr int A = (R * K + W - 1) / W * W;
  vf sum[A];
  for (int a = 0; a < A; ++a) sum[a] = from > 0 && a < R * K ? carry[a] : vf{};
  const T *w = p.w + column * p.ldw;
  const auto step = [&](int64_t i, int64_t left) __attribute__((always_inline)) {
    const int64_t left_x = sizeof(X) == sizeof(T) ? left : PAIR;
    Pair rows[R];
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) rows[r] = load_pair(x + r * ldx + i, left_x);
#pragma GCC unroll 4
    for (int k = 0; k < K; ++k) {
      const Pair weight = load_pair(w + k * p.ldw + i, left);
      prefetch_pair((k < (K + 1) / 2 ? ahead.first : ahead.second) + k * p.ldw + i);
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r)
        sum[r * K + k] = fused(rows[r].hi, weight.hi, fused(rows[r].lo, weight.lo, sum[r * K + k]));
    }
  };
  int64_t i = from;
  for (; i + PAIR <= to; i += PAIR) step(i, PAIR);
  if (i < to) step(i, to - i);
  if (to < p.c) {
    for (int a = 0; a < R * K; ++a) carry[a] = sum[a];
    return;
  }
  float out[A];
  for (int a = 0; a < A; a += W) store(out + a, sum_lanes_of_each(sum + a));
  p.put(row, R, column, K, out, K);
}

template <int K, class T, class X>
GT_INLINE void dot_rows(int64_t rows, const Product<T> &p, int64_t row, const X *x, int64_t ldx, int64_t column,
                        int64_t from, int64_t to, const Ahead<T> &ahead, vf *carry) {
  switch (rows) {
    case 1: return dot_tile<1, K>(p, row, x, ldx, column, from, to, ahead, carry);
    case 2: return dot_tile<2, K>(p, row, x, ldx, column, from, to, ahead, carry);
    case 3: return dot_tile<3, K>(p, row, x, ldx, column, from, to, ahead, carry);
    default: return dot_tile<4, K>(p, row, x, ldx, column, from, to, ahead, carry);
  }
}

// K weight rows, C_STRETCH elements of each at a time: they stay in the L1 cache while the rows of x pass by.
template <int K, class T, class X>
void dot_columns(const Product<T> &p, int64_t row, int64_t rows, const X *x, int64_t ldx, int64_t column) {
  vf carry[BLOCK_ROWS * K];
  const int64_t stretch = rows <= DOT_ROWS ? p.c : C_STRETCH;
  int64_t from = 0;
  do {  // once even if C = 0: y is the bias then
    const int64_t to = smaller(from + stretch, p.c);
    for (int64_t r = 0; r < rows; r += DOT_ROWS) {
      const T *here = p.w + column * p.ldw, *next = here + K * p.ldw;
      const Ahead<T> ahead{r == 0 ? next : here, r == DOT_ROWS || rows <= DOT_ROWS ? next : here};
      dot_rows<K>(smaller(DOT_ROWS, rows - r), p, row + r, x + r * ldx, ldx, column, from, to, ahead, carry + r * K);
    }
    from = to;
  } while (from < p.c);
}

template <class T, class X>
void dot_block(const Product<T> &p, int64_t row, int64_t rows, const X *x, int64_t ldx, int64_t begin, int64_t end) {
  int64_t column = begin;
  for (; column + DOT_COLUMNS <= end; column += DOT_COLUMNS)
    dot_columns<DOT_COLUMNS>(p, row, rows, x, ldx, column);
  for (; column < end; ++column) dot_columns<1>(p, row, rows, x, ldx, column);
}

template <class T>
void multiply_out_in(const Product<T> &p, int64_t begin, int64_t end) {
  const int64_t padded = round_up(p.c, PAIR), fit = X_FLOATS / (padded ? padded : 1);
  const bool convert = sizeof(T) < sizeof(float) && fit >= smaller(p.n, 8);
  const int64_t block = convert ? smaller(fit, BLOCK_ROWS) : BLOCK_ROWS;
  alignas(64) float converted[X_FLOATS];
  for (int64_t row = 0; row < p.n; row += block) {
    const int64_t rows = smaller(block, p.n - row);
    const T *x = p.x + row * p.ldx;
    if (!convert) {
      dot_block(p, row, rows, x, p.ldx, begin, end);
      continue;
    }
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t i = 0; i < p.c; i += PAIR) {
        const Pair v = load_pair(x + r * p.ldx + i, p.c - i);
        store(converted + r * padded + i, v.lo);
        store(converted + r * padded + i + W, v.hi);
      }
    dot_block(p, row, rows, converted, padded, begin, end);
  }
}

// sums[r] += x[r] * w for R rows of x and up to C_BLOCK rows of weight, over the columns of a slice.
template <int R, class T>
void stream_rows(float *sums, int64_t ld, const float *x, const T *w, int64_t ldw, int64_t rows, int64_t columns) {
  const auto step = [&](int64_t i, int64_t left) __attribute__((always_inline)) {
    Pair sum[R];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) sum[r] = load_pair(sums + r * ld + i);
    for (int64_t k = 0; k < rows; ++k) {
      const Pair v = load_pair(w + k * ldw + i, left);
      if (left == PAIR) prefetch_pair(w + (k + C_BLOCK) * ldw + i);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const vf xr = x[r * C_BLOCK + k] - vf{};  // + 0 would cost an addition: gcc must keep -0 apart
        sum[r].lo = fused(xr, v.lo, sum[r].lo);
        sum[r].hi = fused(xr, v.hi, sum[r].hi);
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      store(sums + r * ld + i, sum[r].lo);
      store(sums + r * ld + i + W, sum[r].hi);
    }
  };
  int64_t i = 0;
  for (; i + PAIR <= columns; i += PAIR) step(i, PAIR);
  if (i < columns) step(i, columns - i);
}

template <class T>
void stream_rows(int64_t n, float *sums, int64_t ld, const float *x, const T *w, int64_t ldw, int64_t rows,
                 int64_t columns) {
  switch (n) {
    case 1: return stream_rows<1>(sums, ld, x, w, ldw, rows, columns);
    case 2: return stream_rows<2>(sums, ld, x, w, ldw, rows, columns);
    case 3: return stream_rows<3>(sums, ld, x, w, ldw, rows, columns);
    case 4: return stream_rows<4>(sums, ld, x, w, ldw, rows, columns);
  }
  if constexpr (STREAM_TILE > 4) switch (n) {
      case 5: return stream_rows<5>(sums, ld, x, w, ldw, rows, columns);
      case 6: return stream_rows<6>(sums, ld, x, w, ldw, rows, columns);
      case 7: return stream_rows<7>(sums, ld, x, w, ldw, rows, columns);
      case 8: return stream_rows<8>(sums, ld, x, w, ldw, rows, columns);
    }
}

// N <= STREAM_ROWS.
template <class T>
void stream_in_out(const Product<T> &p, int64_t begin, int64_t end) {
  const int64_t slice = SUM_FLOATS / p.n / PAIR * PAIR;
  alignas(64) float sums[SUM_FLOATS];
  alignas(64) float x[STREAM_ROWS * C_BLOCK];
  for (int64_t first = begin; first < end; first += slice) {
    const int64_t columns = smaller(slice, end - first), ld = round_up(columns, PAIR);
    for (int64_t i = 0; i < p.n * ld; i += W) store(sums + i, vf{});
    for (int64_t c = 0; c < p.c; c += C_BLOCK) {
      const int64_t rows = smaller(C_BLOCK, p.c - c);
      for (int64_t r = 0; r < p.n; ++r)
        for (int64_t k = 0; k < rows; ++k) x[r * C_BLOCK + k] = to_float(p.x[r * p.ldx + c + k]);
      for (int64_t r = 0; r < p.n; r += STREAM_TILE)
        stream_rows(smaller(STREAM_TILE, p.n - r), sums + r * ld, ld, x + r * C_BLOCK, p.w + c * p.ldw + first, p.ldw,
                    rows, columns);
    }
    for (int64_t i = 0; i < columns; i += PAIR) {
      float out[STREAM_ROWS * PAIR];
      for (int64_t r = 0; r < p.n; ++r) store_pair(out + r * PAIR, load_pair(sums + r * ld + i), p.w);
      p.put(0, p.n, first + i, smaller(PAIR, columns - i), out, PAIR);
    }
  }
}

template <class T>
void panel_in_out(const Product<T> &p, int64_t begin, int64_t end) {
  alignas(64) float panel[PANEL_C * PANEL], sums[PANEL_ROWS * PANEL], converted[TILE_ROWS * PANEL_C];
  for (int64_t row = 0; row < p.n; row += PANEL_ROWS)
    for (int64_t first = begin; first < end; first += PANEL) {
      const int64_t rows = smaller(PANEL_ROWS, p.n - row), columns = smaller(PANEL, end - first);
      if (p.c == 0) memset(sums, 0, sizeof sums);
      for (int64_t c = 0; c < p.c; c += PANEL_C) {
        const int64_t cn = smaller(PANEL_C, p.c - c);
        copy_rows(panel, PANEL, p.w + c * p.ldw + first, p.ldw, cn, columns);
        for (int64_t r = 0; r < rows; r += TILE_ROWS) {
          const int64_t rn = smaller(TILE_ROWS, rows - r);
          const T *x = p.x + (row + r) * p.ldx + c;
          copy_rows(converted, PANEL_C, x, p.ldx, rn, cn);
          multiply_add(static_cast<int>(rn), static_cast<int>(round_up(columns, W) / W), c ? FROM_C : FROM_ZERO,
                       sums + r * PANEL, PANEL, converted, PANEL_C, panel, PANEL, cn);
        }
      }
      p.put(row, rows, first, columns, sums, PANEL);
    }
}

}  // namespace

gt_status linear_cpu(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x, const gt_tensor *weight,
                     const gt_tensor *bias, gt_weight_layout layout) {
  with_float(x->dtype, [&](auto zero) {
    using T = decltype(zero);
    const int64_t n = x->shape[0], c = x->shape[1], f = y->shape[1];
    const Product<T> p{y, bias, static_cast<const T *>(x->data), static_cast<const T *>(weight->data), n, c, f,
                       x->stride[0], weight->stride[0], y->stride[0]};
    if (layout == GT_WEIGHT_OUT_IN) {
      parallel_for(stream, f, n * c, [&](int64_t begin, int64_t end) { multiply_out_in(p, begin, end); });
    } else {
      parallel_for(stream, (f + PANEL - 1) / PANEL, n * c * PANEL, [&](int64_t begin, int64_t end) {
        if (n <= STREAM_ROWS)
          stream_in_out(p, begin * PANEL, smaller(end * PANEL, f));
        else
          panel_in_out(p, begin * PANEL, smaller(end * PANEL, f));
      });
    }
  });
  return GT_OK;
}

}  // namespace gt::GT_ISA

#else

GT_DECLARE_OP(linear)

extern "C" gt_status gt_linear(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x,
                               const gt_tensor *weight, const gt_tensor *bias, gt_weight_layout layout) {
  gt::Check check("linear", stream);
  check.tensor("x", x, gt::FLOATS).rank("x", x, 2).last_contiguous("x", x);
  if (!check.ok()) return check.status();
  const int64_t n = x->shape[0], c = x->shape[1];
  const uint64_t f32_or_x = gt::F32 | gt::dtype_bit(x->dtype);
  check.tensor("y", y, f32_or_x).shape("y", y, {n, -1}).last_contiguous("y", y);
  check.require(layout == GT_WEIGHT_OUT_IN || layout == GT_WEIGHT_IN_OUT,
                "layout is %d, expected %d ([F, C]) or %d ([C, F])", layout, GT_WEIGHT_OUT_IN, GT_WEIGHT_IN_OUT);
  if (!check.ok()) return check.status();
  const int64_t f = y->shape[1];
  const bool out_in = layout == GT_WEIGHT_OUT_IN;
  check.tensor("weight", weight, gt::FLOATS).shape("weight", weight, {out_in ? f : c, out_in ? c : f});
  check.same_dtype("weight", weight, "x", x).last_contiguous("weight", weight);
  check.optional("bias", bias, f32_or_x).shape("bias", bias, {f}).contiguous("bias", bias);
  if (!check.ok() || gt::elements(*y) == 0) return check.status();
  return GT_RUN(linear, stream, y, x, weight, bias, layout);
}

#endif
