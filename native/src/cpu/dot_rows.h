// How does a thread multiply rows of x by weight rows [F, C]?
//
// Tiles of 4 dot products by 4, or of 1 by 8; a group of weight rows stays in the L1 cache while the rows of x pass by.
// Weights come from DRAM once per 64 rows of x, with prefetches one group ahead: pages of 4 KiB end the hardware's own.
// x is converted to f32 once per block and thread, and so is an e4m3 group of weights that more than one tile meets.
// Order of a sum: W lanes, each a chain of fused multiply-adds in ascending c, then folded. The chains of an output
// never depend on N, on its neighbours or on the threads.
//
// P says what is multiplied: types X and Weight, const X *x [n, c], const Weight *w [.., c], n, c, ldx, ldw, and
// put(row, rows, column, columns, sums, ld), which stores finished sums.
#pragma once

#include <type_traits>

#include "cpu/e4m3.h"
#include "cpu/tile.h"

namespace gt::GT_ISA {

constexpr int PAIR = 2 * W;                                 // elements per step
constexpr int DOT_ROWS = 4, DOT_COLUMNS = W == 16 ? 4 : 2;  // register tile
constexpr int ROW_COLUMNS = 8;  // with one row of x: more weights on their way, fewer sums of lanes than a tile has
constexpr int64_t C_STRETCH = 1024;      // elements per weight row and pass over more than DOT_ROWS rows: 16 KiB in L1
constexpr int64_t BLOCK_ROWS = 64;       // rows of x per read of the weights
constexpr int64_t X_FLOATS = 64 * 1024;  // x as f32: 256 KiB, in the L2 cache

GT_INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
GT_INLINE int64_t round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

// PAIR elements as two vectors, in whichever order is cheapest for the type: the same for x, weights and sums.
struct Pair {
  vf lo, hi;
};
GT_INLINE Pair load_pair(const float *p) { return {load(p), load(p + W)}; }
GT_INLINE Pair load_pair(const f16 *p) { return {load(p), load(p + W)}; }
template <class T>
GT_INLINE Pair load_pair(const T *p) {  // bf16, e4m3: even elements, odd elements
  Pair v;
  load_two(p, v.lo, v.hi);
  return v;
}
template <class T>
GT_INLINE Pair load_pair(const T *p, int64_t n) {
  if (n >= PAIR) return load_pair(p);
  T padded[PAIR] = {};
  for (int64_t i = 0; i < n; ++i) padded[i] = p[i];
  return load_pair(padded);
}

template <int... L>
GT_INLINE Pair even_and_odd(Pair v, std::integer_sequence<int, L...>) {
  return {__builtin_shufflevector(v.lo, v.hi, 2 * L...), __builtin_shufflevector(v.lo, v.hi, 2 * L + 1 ...)};
}
// Elements of x in the order of a pair of Weight.
template <class Weight, class X>
GT_INLINE Pair load_pair_as(const X *p, int64_t n) {
  const Pair v = load_pair(p, n);
  if constexpr (std::is_same_v<Weight, e4m3> && std::is_same_v<X, f16>)
    return even_and_odd(v, std::make_integer_sequence<int, W>{});
  else
    return v;
}

GT_INLINE void store_pair_as_is(float *p, Pair v) {
  store(p, v.lo);
  store(p + W, v.hi);
}

template <class T>
GT_INLINE void prefetch_pair(const T *p) {
  __builtin_prefetch(p);
  if (sizeof(T) * PAIR > 64) __builtin_prefetch(p + W);
}

// Weight rows to ask for: half of the next group each, so that two passes over a group keep the memory busy throughout.
template <class T>
struct Ahead {
  const T *first, *second;
};

// What a tile multiplies: rows of x by weight rows over `length` elements. X is P's, or float: x converted, in pairs,
// padded to whole pairs; likewise the weights, for which nothing is asked ahead.
template <class P, class X, class Weight>
struct Stretch {
  const X *x;
  const Weight *w;
  int64_t ldx, ldw, length;
  bool is_first, is_last;
  Ahead<typename P::Weight> ahead;
};

// Dot products of R rows with K rows; the sums wait in carry between two stretches.
template <int R, int K, class P, class X, class Weight>
GT_INLINE void dot_tile(const P &p, const Stretch<P, X, Weight> &s, int64_t row, int64_t column, vf *carry) {
  constexpr int A = (R * K + W - 1) / W * W;
  vf sum[A];
  for (int a = 0; a < A; ++a) sum[a] = !s.is_first && a < R * K ? carry[a] : vf{};
  const auto step = [&](int64_t i, int64_t left) __attribute__((always_inline)) {
    const int64_t left_w = std::is_same_v<Weight, typename P::Weight> ? left : PAIR;
    Pair rows[R];
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      if constexpr (std::is_same_v<X, typename P::X>)
        rows[r] = load_pair_as<typename P::Weight>(s.x + r * s.ldx + i, left);
      else
        rows[r] = load_pair(s.x + r * s.ldx + i);
    }
#pragma GCC unroll 8
    for (int k = 0; k < K; ++k) {
      const Pair weight = load_pair(s.w + k * s.ldw + i, left_w);
      if constexpr (std::is_same_v<Weight, typename P::Weight>)
        prefetch_pair((k < (K + 1) / 2 ? s.ahead.first : s.ahead.second) + k * s.ldw + i);
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r)
        sum[r * K + k] = fused(rows[r].hi, weight.hi, fused(rows[r].lo, weight.lo, sum[r * K + k]));
    }
  };
  int64_t i = 0;
  for (; i + PAIR <= s.length; i += PAIR) step(i, PAIR);
  if (i < s.length) step(i, s.length - i);
  if (!s.is_last) {
    for (int a = 0; a < R * K; ++a) carry[a] = sum[a];
    return;
  }
  float out[A];
  for (int a = 0; a < A; a += W) store(out + a, sum_lanes_of_each(sum + a));
  p.put(row, R, column, K, out, K);
}

template <int K, class P, class X, class Weight>
GT_INLINE void dot_rows(int64_t rows, const P &p, const Stretch<P, X, Weight> &s, int64_t row, int64_t column,
                        vf *carry) {
  switch (rows) {
    case 1: return dot_tile<1, K>(p, s, row, column, carry);
    case 2: return dot_tile<2, K>(p, s, row, column, carry);
    case 3: return dot_tile<3, K>(p, s, row, column, carry);
    default: return dot_tile<4, K>(p, s, row, column, carry);
  }
}

// K e4m3 weight rows as f32 in pairs; the next K rows are asked for.
template <int K>
GT_INLINE void widen_rows(float *out, const e4m3 *w, int64_t ldw, int64_t length) {
  for (int k = 0; k < K; ++k)
    for (int64_t i = 0; i < length; i += PAIR) {
      store_pair_as_is(out + k * C_STRETCH + i, load_pair(w + k * ldw + i, length - i));
      prefetch_pair(w + (k + K) * ldw + i);
    }
}

// K weight rows, C_STRETCH elements of each at a time: they stay in the L1 cache while the rows of x pass by.
template <int K, class P, class X>
static void dot_columns(const P &p, int64_t row, int64_t rows, const X *x, int64_t ldx, int64_t column) {
  using Weight = typename P::Weight;
  vf carry[BLOCK_ROWS * K];
  const int64_t stretch = rows <= DOT_ROWS ? p.c : C_STRETCH;
  int64_t from = 0;
  do {  // once even if C = 0: y is the bias then
    const int64_t to = smaller(from + stretch, p.c);
    const Weight *here = p.w + column * p.ldw + from, *next = here + K * p.ldw;
    const bool is_first = from == 0, is_last = to >= p.c;
    if constexpr (std::is_same_v<Weight, e4m3>) {
      if (rows > DOT_ROWS) {
        alignas(64) float widened[K * C_STRETCH];
        widen_rows<K>(widened, here, p.ldw, to - from);
        for (int64_t r = 0; r < rows; r += DOT_ROWS) {
          const Stretch<P, X, float> s{x + r * ldx + from, widened, ldx, C_STRETCH, to - from, is_first, is_last, {}};
          dot_rows<K>(smaller(DOT_ROWS, rows - r), p, s, row + r, column, carry + r * K);
        }
        from = to;
        continue;
      }
    }
    for (int64_t r = 0; r < rows; r += DOT_ROWS) {
      const Ahead<Weight> ahead{r == 0 ? next : here, r == DOT_ROWS || rows <= DOT_ROWS ? next : here};
      const Stretch<P, X, Weight> s{x + r * ldx + from, here, ldx, p.ldw, to - from, is_first, is_last, ahead};
      dot_rows<K>(smaller(DOT_ROWS, rows - r), p, s, row + r, column, carry + r * K);
    }
    from = to;
  } while (from < p.c);
}

// The only row of a block.
template <int K, class P, class X>
static void dot_row(const P &p, int64_t row, const X *x, int64_t column) {
  const auto *here = p.w + column * p.ldw, *next = here + K * p.ldw;
  const Stretch<P, X, typename P::Weight> s{x, here, 0, p.ldw, p.c, true, true, {next, next}};
  dot_tile<1, K>(p, s, row, column, nullptr);
}

template <class P, class X>
static void dot_block(const P &p, int64_t row, int64_t rows, const X *x, int64_t ldx, int64_t begin, int64_t end) {
  int64_t column = begin;
  for (; rows == 1 && column + ROW_COLUMNS <= end; column += ROW_COLUMNS) dot_row<ROW_COLUMNS>(p, row, x, column);
  for (; column + DOT_COLUMNS <= end; column += DOT_COLUMNS)
    dot_columns<DOT_COLUMNS>(p, row, rows, x, ldx, column);
  for (; column < end; ++column) dot_columns<1>(p, row, rows, x, ldx, column);
}

// Columns begin .. end - 1 of the product.
template <class P>
static void multiply_out_in(const P &p, int64_t begin, int64_t end) {
  using X = typename P::X;
  const int64_t padded = round_up(p.c, PAIR), fit = X_FLOATS / (padded ? padded : 1);
  const bool convert = sizeof(X) < sizeof(float) && fit >= smaller(p.n, 8);
  const int64_t block = convert ? smaller(fit, BLOCK_ROWS) : BLOCK_ROWS;
  alignas(64) float converted[X_FLOATS];
  for (int64_t row = 0; row < p.n; row += block) {
    const int64_t rows = smaller(block, p.n - row);
    const X *x = p.x + row * p.ldx;
    if (!convert) {
      dot_block(p, row, rows, x, p.ldx, begin, end);
      continue;
    }
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t i = 0; i < p.c; i += PAIR)
        store_pair_as_is(converted + r * padded + i, load_pair_as<typename P::Weight>(x + r * p.ldx + i, p.c - i));
    dot_block(p, row, rows, converted, padded, begin, end);
  }
}

}  // namespace gt::GT_ISA
