// Layer and RMS normalisation: argument checks, dispatch, and the CPU twin of norm.cu.
#include "gatun/norm.h"

#include <utility>

#include "check.h"
#include "cpu/isa.h"

#if defined(GT_ISA)
// Computes    gatun/norm.h, one row at a time, statistics in two passes
// Mapping     rows are split over threads; a row is summed in W lanes which are then folded: the order depends on C
// Memory      x and residual come from DRAM once (the later passes hit the cache); y is written once
// Aliasing    y and residual_out are written in the last pass only, element by element after their inputs are read
#include "cpu/norm_row.h"
#include "cpu/parallel.h"

namespace gt::GT_ISA {
namespace {

template <class T>
struct Rowwise {
  const gt_tensor *y, *residual_out, *x, *residual, *weight, *bias;

  static T *at(const gt_tensor *t, int64_t n) {
    return t ? static_cast<T *>(t->data) + n * rows_of(*t).stride : nullptr;
  }
  NormRow<T> row(int64_t n) const {
    return {at(y, n), at(residual_out, n), at(x, n), at(residual, n), weight, bias, rows_of(*x).c};
  }
};

GT_INLINE float *float_at(const gt_tensor *t, int64_t n) { return t ? static_cast<float *>(t->data) + n : nullptr; }

}  // namespace

gt_status layernorm_cpu(const gt_stream *stream, const gt_tensor *y, const gt_tensor *residual_out,
                        const gt_tensor *mean, const gt_tensor *rstd, const gt_tensor *x, const gt_tensor *residual,
                        const gt_tensor *weight, const gt_tensor *bias, float eps) {
  with_float(x->dtype, [&](auto zero) {
    const Rowwise<decltype(zero)> rows{y, residual_out, x, residual, weight, bias};
    parallel_for(stream, rows_of(*x).n, rows_of(*x).c, [&](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n) layernorm_row(rows.row(n), eps, float_at(mean, n), float_at(rstd, n));
    });
  });
  return GT_OK;
}

gt_status rmsnorm_cpu(const gt_stream *stream, const gt_tensor *y, const gt_tensor *residual_out,
                      const gt_tensor *rstd, const gt_tensor *x, const gt_tensor *residual, const gt_tensor *weight,
                      float eps) {
  with_float(x->dtype, [&](auto zero) {
    const Rowwise<decltype(zero)> rows{y, residual_out, x, residual, weight, nullptr};
    parallel_for(stream, rows_of(*x).n, rows_of(*x).c, [&](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n) rmsnorm_row(rows.row(n), eps, float_at(rstd, n));
    });
  });
  return GT_OK;
}

}  // namespace gt::GT_ISA

#else

GT_DECLARE_OP(layernorm)
GT_DECLARE_OP(rmsnorm)

namespace {

gt::Check check_norm(const char *op, const gt_stream *stream, const gt_tensor *y, const gt_tensor *residual_out,
                     const gt_tensor *x, const gt_tensor *residual, const gt_tensor *weight, float eps) {
  gt::Check check(op, stream);
  check.tensor("x", x, gt::FLOATS).rows("x", x).tensor("y", y, gt::FLOATS).rows("y", y);
  check.same_shape("y", y, "x", x).same_dtype("y", y, "x", x);
  for (const auto &[name, t] : {std::pair{"residual", residual}, std::pair{"residual_out", residual_out}})
    check.optional(name, t, gt::FLOATS).same_shape(name, t, "x", x).same_dtype(name, t, "x", x).rows(name, t);
  if (!check.ok()) return check;
  const int64_t c = x->shape[x->rank - 1];
  check.require(c > 0, "x has no columns, expected C >= 1");
  check.optional("weight", weight, gt::F32 | gt::dtype_bit(x->dtype)).shape("weight", weight, {c});
  check.contiguous("weight", weight);
  check.require(eps >= 0, "eps is %g, expected >= 0", static_cast<double>(eps));
  return check;
}

void check_statistic(gt::Check &check, const char *name, const gt_tensor *t, const gt_tensor *x) {
  if (check.ok() && t) check.tensor(name, t, gt::F32).shape(name, t, {gt::rows_of(*x).n}).contiguous(name, t);
}

}  // namespace

extern "C" gt_status gt_layernorm(const gt_stream *stream, const gt_tensor *y, const gt_tensor *residual_out,
                                  const gt_tensor *mean, const gt_tensor *rstd, const gt_tensor *x,
                                  const gt_tensor *residual, const gt_tensor *weight, const gt_tensor *bias,
                                  float eps) {
  gt::Check check = check_norm("layernorm", stream, y, residual_out, x, residual, weight, eps);
  check_statistic(check, "mean", mean, x);
  check_statistic(check, "rstd", rstd, x);
  if (check.ok() && bias)
    check.tensor("bias", bias, gt::F32 | gt::dtype_bit(x->dtype))
        .shape("bias", bias, {x->shape[x->rank - 1]})
        .contiguous("bias", bias);
  if (!check.ok()) return check.status();
  return GT_RUN(layernorm, stream, y, residual_out, mean, rstd, x, residual, weight, bias, eps);
}

extern "C" gt_status gt_rmsnorm(const gt_stream *stream, const gt_tensor *y, const gt_tensor *residual_out,
                                const gt_tensor *rstd, const gt_tensor *x, const gt_tensor *residual,
                                const gt_tensor *weight, float eps) {
  gt::Check check = check_norm("rmsnorm", stream, y, residual_out, x, residual, weight, eps);
  check_statistic(check, "rstd", rstd, x);
  if (!check.ok()) return check.status();
  return GT_RUN(rmsnorm, stream, y, residual_out, rstd, x, residual, weight, eps);
}

#endif
