// Rotary position embedding: argument checks, dispatch, and the CPU twin of rope.cu.
#include "gatun/rope.h"

#include "check.h"
#include "cpu/isa.h"

#if defined(GT_ISA)
// Computes    gatun/rope.h
// Mapping     rows n are split over threads; the heads of a row share its line of the table
// Memory      x once, y once; a table row is 4 R bytes and stays in the first cache for all heads
// Aliasing    both elements of a pair are read before either is written, so y may be x
#include <math.h>

#include "cpu/parallel.h"
#include "cpu/row.h"

namespace gt::GT_ISA {
namespace {

// By the angle (turn = 1) or back (turn = -1), which is the gradient.
template <class T>
void rotate_half(T *y, const T *x, const float *cosines, const float *sines, int64_t half, float turn) {
  for (int64_t i = 0; i < half; i += W) {
    const int64_t left = half - i;
    const vf c = load_up_to(cosines + i, left), s = load_up_to(sines + i, left) * turn;
    const vf a = load_up_to(x + i, left), b = load_up_to(x + half + i, left);
    store_up_to(y + i, a * c - b * s, left);
    store_up_to(y + half + i, b * c + a * s, left);
  }
}

template <class T>
void rotate_interleaved(T *y, const T *x, const float *cosines, const float *sines, int64_t half, float turn) {
  for (int64_t i = 0; i < half; ++i) {
    const float a = to_float(x[2 * i]), b = to_float(x[2 * i + 1]);
    const float sine = sines[i] * turn;
    from_float(a * cosines[i] - b * sine, y + 2 * i);
    from_float(b * cosines[i] + a * sine, y + 2 * i + 1);
  }
}

template <class T>
void copy(T *y, const T *x, int64_t n) {
  if (y != x) memcpy(y, x, static_cast<size_t>(n) * sizeof(T));
}

template <class T>
void rope_row(const gt_tensor &y, const gt_tensor &x, int64_t n, int64_t position, const gt_tensor &table,
              gt_rope_pairing pairing, float turn) {
  const int64_t half = table.shape[2], d = x.shape[2];
  const float *cosines = static_cast<const float *>(table.data) + position * 2 * half;
  for (int64_t h = 0; h < x.shape[1]; ++h) {
    T *out = static_cast<T *>(y.data) + n * y.stride[0] + h * y.stride[1];
    const T *in = static_cast<const T *>(x.data) + n * x.stride[0] + h * x.stride[1];
    if (position < 0) {
      copy(out, in, d);
    } else if (position >= table.shape[0]) {
      fill_row(out, __builtin_nanf(""), d);
    } else {
      if (pairing == GT_ROPE_HALF)
        rotate_half(out, in, cosines, cosines + half, half, turn);
      else
        rotate_interleaved(out, in, cosines, cosines + half, half, turn);
      copy(out + 2 * half, in + 2 * half, d - 2 * half);
    }
  }
}

void rope_rows(const gt_stream *stream, const gt_tensor &y, const gt_tensor &x, const gt_tensor &positions,
               const gt_tensor &table, gt_rope_pairing pairing, float turn) {
  const int32_t *position = static_cast<const int32_t *>(positions.data);
  with_float(x.dtype, [&](auto zero) {
    parallel_for(stream, x.shape[0], x.shape[1] * x.shape[2] * 2, [&](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n)
        rope_row<decltype(zero)>(y, x, n, position[n], table, pairing, turn);
    });
  });
}

}  // namespace

gt_status rope_table_cpu(const gt_stream *stream, const gt_tensor *table, const gt_tensor *inv_freq,
                         int64_t first_position, float attention_factor) {
  const int64_t half = table->shape[2];
  const float *frequencies = static_cast<const float *>(inv_freq->data);
  parallel_for(stream, table->shape[0], half * 64, [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p) {
      float *cosines = static_cast<float *>(table->data) + p * 2 * half;
      for (int64_t i = 0; i < half; ++i) {
        const float angle = static_cast<float>(first_position + p) * frequencies[i];
        cosines[i] = cosf(angle) * attention_factor;
        cosines[half + i] = sinf(angle) * attention_factor;
      }
    }
  });
  return GT_OK;
}

gt_status rope_cpu(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x, const gt_tensor *positions,
                   const gt_tensor *table, gt_rope_pairing pairing) {
  rope_rows(stream, *y, *x, *positions, *table, pairing, 1);
  return GT_OK;
}

gt_status rope_backward_cpu(const gt_stream *stream, const gt_tensor *dx, const gt_tensor *dy,
                            const gt_tensor *positions, const gt_tensor *table, gt_rope_pairing pairing) {
  rope_rows(stream, *dx, *dy, *positions, *table, pairing, -1);
  return GT_OK;
}

}  // namespace gt::GT_ISA

#else

GT_DECLARE_OP(rope_table)
GT_DECLARE_OP(rope)
GT_DECLARE_OP(rope_backward)

extern "C" gt_status gt_rope_table(const gt_stream *stream, const gt_tensor *table, const gt_tensor *inv_freq,
                                   int64_t first_position, float attention_factor) {
  gt::Check check("rope_table", stream);
  check.tensor("table", table, gt::F32).shape("table", table, {-1, 2, -1}).contiguous("table", table);
  check.tensor("inv_freq", inv_freq, gt::F32);
  if (check.ok()) check.shape("inv_freq", inv_freq, {table->shape[2]}).contiguous("inv_freq", inv_freq);
  return check.ok() ? GT_RUN(rope_table, stream, table, inv_freq, first_position, attention_factor) : check.status();
}

namespace {

// Of gt_rope and its gradient, which differ in what y and x are called.
gt::Check check_rope(const char *op, const gt_stream *stream, const char *y_name, const gt_tensor *y,
                     const char *x_name, const gt_tensor *x, const gt_tensor *positions, const gt_tensor *table,
                     gt_rope_pairing pairing) {
  gt::Check check(op, stream);
  check.tensor(x_name, x, gt::FLOATS).rank(x_name, x, 3).last_contiguous(x_name, x);
  check.tensor(y_name, y, gt::FLOATS).same_shape(y_name, y, x_name, x).same_dtype(y_name, y, x_name, x);
  check.last_contiguous(y_name, y).tensor("positions", positions, gt::I32);
  check.tensor("table", table, gt::F32).shape("table", table, {-1, 2, -1}).contiguous("table", table);
  if (check.ok()) {
    check.shape("positions", positions, {x->shape[0]}).contiguous("positions", positions);
    const long long rotated = 2 * table->shape[2], d = x->shape[2];
    check.require(rotated <= d, "table rotates %lld elements, but %s has D = %lld", rotated, x_name, d);
    check.require(pairing == GT_ROPE_HALF || pairing == GT_ROPE_INTERLEAVED, "pairing is %d, expected %d or %d",
                  pairing, GT_ROPE_HALF, GT_ROPE_INTERLEAVED);
  }
  return check;
}

}  // namespace

extern "C" gt_status gt_rope(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x,
                             const gt_tensor *positions, const gt_tensor *table, gt_rope_pairing pairing) {
  const gt::Check check = check_rope("rope", stream, "y", y, "x", x, positions, table, pairing);
  return check.ok() ? GT_RUN(rope, stream, y, x, positions, table, pairing) : check.status();
}

extern "C" gt_status gt_rope_backward(const gt_stream *stream, const gt_tensor *dx, const gt_tensor *dy,
                                      const gt_tensor *positions, const gt_tensor *table, gt_rope_pairing pairing) {
  const gt::Check check = check_rope("rope_backward", stream, "dx", dx, "dy", dy, positions, table, pairing);
  return check.ok() ? GT_RUN(rope_backward, stream, dx, dy, positions, table, pairing) : check.status();
}

#endif
