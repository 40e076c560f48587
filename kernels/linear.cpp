// Matrix product with few rows: argument checks, dispatch, and the CPU twin of linear.cu.
#include "gatun/linear.h"

#include "check.h"
#include "cpu/isa.h"

#if defined(GT_ISA)
// Computes    gatun/linear.h
// Mapping     threads own ranges of outputs. [F, C]: cpu/dot_rows.h. [C, F]: 8 weight rows at a time are added into
//             sums that stay in L1; with more than 16 rows of x, panels of 64 columns are packed and multiplied by
//             register tiles
// Memory      weights come from DRAM once per 64 ([C, F]: 16, then 128) rows of x, with prefetches one group ahead:
//             pages of 4 KiB end the hardware's own
// Numerics    [F, C]: W lanes, each a chain of fused multiply-adds in ascending c, then folded. [C, F]: one chain in
//             ascending c. The chains of an output never depend on N, on its neighbours or on the threads
// Limits      280 KiB of stack. bf16 and f16 with C > 8192 and 8 rows convert x again for every group of columns
#include "cpu/dot_rows.h"
#include "cpu/parallel.h"
#include "cpu/tile.h"

namespace gt::GT_ISA {
namespace {

constexpr int STREAM_TILE = W == 16 ? 8 : 4;  // rows of x in the register tile for weights [C, F]
constexpr int64_t STREAM_ROWS = 16;       // most rows of x that stream weights [C, F]
constexpr int64_t C_BLOCK = 8;            // weight rows [C, F] per pass over the sums
constexpr int64_t SUM_FLOATS = 8 * 1024;  // sums of a slice of columns: 32 KiB, in the L1 cache
constexpr int64_t PANEL = 64, PANEL_C = 256, PANEL_ROWS = 128;

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
struct Product {
  using X = T;
  using Weight = T;
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
