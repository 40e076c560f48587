// Products of e4m3 numbers with a scale for each row: argument checks, dispatch, and the CPU twin of fp8.cu.
#include "gatun/fp8.h"

#include "check.h"
#include "cpu/isa.h"

#if defined(GT_ISA)
// Computes    gatun/fp8.h
// Mapping     quantize_rows: threads own rows. linear_fp8: threads own ranges of outputs, tiles as in cpu/dot_rows.h
// Memory      quantize_rows reads a row twice, the second time from a cache. linear_fp8: weights come from DRAM once
//             per 64 rows of x; up to 4 rows of x meet them as they come, more meet them as f32 in the L1 cache
// Numerics    conversions are exact; sums as in cpu/dot_rows.h
// Limits      300 KiB of stack
#include "cpu/dot_rows.h"
#include "cpu/parallel.h"
#include "cpu/row.h"

namespace gt::GT_ISA {
namespace {

constexpr float LEAST = 1e-30f;  // of a row's largest magnitude, so that a row of zeros has a scale
constexpr int64_t QUANTIZE_COST = 2;

// The largest magnitude, as bits: those of non-negative floats are in the floats' order, infinity and NaNs above all.
template <class T>
int32_t largest_magnitude(const T *x, int64_t c) {
  vi largest = {};
  for (int64_t i = 0; i < c; i += W) {
    const vi magnitude = (vi)load_up_to(x + i, c - i) & 0x7fffffff;
    largest = magnitude > largest ? magnitude : largest;
  }
  int32_t all = 0;
  for (int i = 0; i < W; ++i) all = largest[i] > all ? largest[i] : all;
  return all;
}

template <class T>
float quantize_row(e4m3 *y, const T *x, int64_t c) {
  const int32_t bits = largest_magnitude(x, c);
  if (bits >= 0x7f800000) {
    memset(y, 0, static_cast<size_t>(c));
    return __builtin_nanf("");
  }
  float largest;
  memcpy(&largest, &bits, sizeof largest);
  const float scale = (largest > LEAST ? largest : LEAST) / E4M3_MAX;
  int64_t i = 0;
  for (; i + W <= c; i += W) store(y + i, load(x + i) / scale);
  if (i < c) {
    e4m3 rest[W];
    store(rest, load_part(x + i, c - i) / scale);
    memcpy(y + i, rest, static_cast<size_t>(c - i));
  }
  return scale;
}

template <class T>
struct Product {
  using X = T;
  using Weight = e4m3;
  const gt_tensor *y_tensor, *bias;
  const T *x;
  const e4m3 *w;
  const float *x_scale, *weight_scale;
  int64_t n, c, ldx, ldw, ldy;

  void put(int64_t row, int64_t rows, int64_t column, int64_t columns, const float *sums, int64_t ld) const {
    with_float(y_tensor->dtype, [&](auto zero) {
      put_as<decltype(zero)>(row, rows, column, columns, sums, ld);
    });
  }
  template <class Y>
  void put_as(int64_t row, int64_t rows, int64_t column, int64_t columns, const float *sums, int64_t ld) const {
    constexpr float UNIT = E4M3_LOADED_UNIT * (sizeof(T) == 1 ? E4M3_LOADED_UNIT : 1);
    Y *y = static_cast<Y *>(y_tensor->data) + row * ldy + column;
    for (int64_t k = 0; k < columns; ++k) {
      const float b = bias_at<Y>(column + k), scale = weight_scale[column + k] * UNIT;
      for (int64_t r = 0; r < rows; ++r)
        from_float(__builtin_fmaf(sums[r * ld + k] * scale, x_scale ? x_scale[row + r] : 1.0f, b), y + r * ldy + k);
    }
  }
  template <class Y>
  float bias_at(int64_t column) const {
    if (!bias) return 0;
    return bias->dtype == GT_F32 ? static_cast<const float *>(bias->data)[column]
                                 : to_float(static_cast<const Y *>(bias->data)[column]);
  }
};

template <class F>
GT_INLINE void with_x_type(gt_dtype dtype, F &&f) {
  if (dtype == GT_BF16)
    f(bf16{});
  else if (dtype == GT_F16)
    f(f16{});
  else
    f(e4m3{});
}

}  // namespace

gt_status quantize_rows_cpu(const gt_stream *stream, const gt_tensor *y, const gt_tensor *scale, const gt_tensor *x) {
  with_float(x->dtype, [&](auto zero) {
    using T = decltype(zero);
    const int64_t n = x->shape[0], c = x->shape[1];
    parallel_for(stream, n, c * QUANTIZE_COST, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i)
        static_cast<float *>(scale->data)[i] = quantize_row(static_cast<e4m3 *>(y->data) + i * y->stride[0],
                                                            static_cast<const T *>(x->data) + i * x->stride[0], c);
    });
  });
  return GT_OK;
}

gt_status linear_fp8_cpu(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x, const gt_tensor *x_scale,
                         const gt_tensor *weight, const gt_tensor *weight_scale, const gt_tensor *bias) {
  with_x_type(x->dtype, [&](auto zero) {
    using T = decltype(zero);
    const int64_t n = x->shape[0], c = x->shape[1];
    const Product<T> p{y, bias, static_cast<const T *>(x->data), static_cast<const e4m3 *>(weight->data),
                       x_scale ? static_cast<const float *>(x_scale->data) : nullptr,
                       static_cast<const float *>(weight_scale->data), n, c, x->stride[0], weight->stride[0],
                       y->stride[0]};
    parallel_for(stream, y->shape[1], n * c, [&](int64_t begin, int64_t end) { multiply_out_in(p, begin, end); });
  });
  return GT_OK;
}

}  // namespace gt::GT_ISA

#else

GT_DECLARE_OP(quantize_rows)
GT_DECLARE_OP(linear_fp8)

extern "C" gt_status gt_quantize_rows(const gt_stream *stream, const gt_tensor *y, const gt_tensor *scale,
                                      const gt_tensor *x) {
  gt::Check check("quantize_rows", stream);
  check.tensor("x", x, gt::FLOATS).rank("x", x, 2).last_contiguous("x", x);
  check.tensor("y", y, gt::F8).same_shape("y", y, "x", x).last_contiguous("y", y);
  if (!check.ok()) return check.status();
  check.tensor("scale", scale, gt::F32).shape("scale", scale, {x->shape[0]}).contiguous("scale", scale);
  if (!check.ok() || x->shape[0] == 0) return check.status();
  return GT_RUN(quantize_rows, stream, y, scale, x);
}

extern "C" gt_status gt_linear_fp8(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x,
                                   const gt_tensor *x_scale, const gt_tensor *weight, const gt_tensor *weight_scale,
                                   const gt_tensor *bias) {
  const uint64_t halves = gt::dtype_bit(GT_BF16) | gt::dtype_bit(GT_F16);
  gt::Check check("linear_fp8", stream);
  check.tensor("x", x, halves | gt::F8).rank("x", x, 2).last_contiguous("x", x);
  if (!check.ok()) return check.status();
  const int64_t n = x->shape[0], c = x->shape[1];
  const bool x_is_f8 = x->dtype == GT_F8_E4M3;
  check.require(!x_is_f8 || x_scale, "x_scale is NULL, expected a tensor [N], since x is f8_e4m3");
  check.require(x_is_f8 || !x_scale, "x_scale is given, expected NULL, since x is %s", gt::dtype_name(x->dtype));
  check.optional("x_scale", x_scale, gt::F32).shape("x_scale", x_scale, {n}).contiguous("x_scale", x_scale);
  check.tensor("y", y, gt::F32 | (x_is_f8 ? halves : gt::dtype_bit(x->dtype))).shape("y", y, {n, -1});
  check.last_contiguous("y", y);
  if (!check.ok()) return check.status();
  const int64_t f = y->shape[1];
  check.tensor("weight", weight, gt::F8).shape("weight", weight, {f, c}).last_contiguous("weight", weight);
  check.tensor("weight_scale", weight_scale, gt::F32).shape("weight_scale", weight_scale, {f});
  check.contiguous("weight_scale", weight_scale);
  check.optional("bias", bias, gt::F32 | gt::dtype_bit(y->dtype)).shape("bias", bias, {f}).contiguous("bias", bias);
  if (!check.ok() || gt::elements(*y) == 0) return check.status();
  return GT_RUN(linear_fp8, stream, y, x, x_scale, weight, weight_scale, bias);
}

#endif
