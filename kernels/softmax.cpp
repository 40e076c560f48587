// Softmax and log-softmax over the last dimension: argument checks, dispatch, and the CPU twin of softmax.cu.
#include "gatun/softmax.h"

#include "check.h"
#include "cpu/isa.h"

#if defined(GT_ISA)
// Computes    gatun/softmax.h, one row at a time: maximum, sum of exponentials, result
// Types       exponentials in f32; their sum in f32 over SUM_BLOCK elements, then in f64
// Mapping     rows are split over threads; a row is summed in W lanes per block: the order depends on C alone
// Memory      x comes from DRAM once, the later passes hit the cache; y is written in the last, after x is read
#include <math.h>

#include "cpu/math.h"
#include "cpu/parallel.h"
#include "cpu/row.h"

namespace gt::GT_ISA {
namespace {

constexpr int64_t SUM_BLOCK = 1024;

struct Statistics {
  float offset;  // the maximum; 0 where that is -inf, which keeps -inf - offset from being NaN
  double sum;    // of exp(x - offset): 0 for a row of -inf, NaN if the row holds NaN or +inf, else >= 1
};

template <class X>
Statistics statistics_of(const X *x, int64_t c) {
  vf largest = broadcast(-INF);
  for (int64_t i = 0; i < c; i += W) largest = vmax(largest, load_up_to(x + i, c - i, -INF));
  const float m = max_lanes(largest);
  Statistics s{m == -INF ? 0 : m, 0};
  for (int64_t begin = 0; begin < c; begin += SUM_BLOCK) {
    const int64_t end = c - begin < SUM_BLOCK ? c : begin + SUM_BLOCK;
    vf sum{};
    for (int64_t i = begin; i < end; i += W) sum += vexp(load_up_to(x + i, end - i, -INF) - s.offset);
    s.sum += static_cast<double>(sum_lanes(sum));
  }
  return s;
}

struct Softmax {
  template <class Y, class X>
  static void row(Y *y, const X *x, int64_t c) {
    const Statistics s = statistics_of(x, c);
    const float factor = s.sum == 0 ? 0 : static_cast<float>(1 / s.sum);
    for (int64_t i = 0; i < c; i += W)
      store_up_to(y + i, vexp(load_up_to(x + i, c - i) - s.offset) * factor, c - i);
  }
};

struct LogSoftmax {
  template <class Y, class X>
  static void row(Y *y, const X *x, int64_t c) {
    const Statistics s = statistics_of(x, c);
    const float log_sum = s.sum == 0 ? 0 : logf(static_cast<float>(s.sum));
    for (int64_t i = 0; i < c; i += W)
      store_up_to(y + i, (load_up_to(x + i, c - i) - s.offset) - log_sum, c - i);
  }
};

template <class Op>
void for_rows(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x) {
  const Rows from = rows_of(*x), to = rows_of(*y);
  with_float(y->dtype, [&](auto y_zero) {
    with_float(x->dtype, [&](auto x_zero) {
      parallel_for(stream, from.n, from.c * 32, [&](int64_t begin, int64_t end) {
        for (int64_t n = begin; n < end; ++n)
          Op::row(static_cast<decltype(y_zero) *>(y->data) + n * to.stride,
                  static_cast<const decltype(x_zero) *>(x->data) + n * from.stride, from.c);
      });
    });
  });
}

}  // namespace

gt_status softmax_cpu(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x) {
  for_rows<Softmax>(stream, y, x);
  return GT_OK;
}

gt_status log_softmax_cpu(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x) {
  for_rows<LogSoftmax>(stream, y, x);
  return GT_OK;
}

}  // namespace gt::GT_ISA

#else

GT_DECLARE_OP(softmax)
GT_DECLARE_OP(log_softmax)

namespace {

gt::Check check_rowwise(const char *op, const gt_stream *stream, const gt_tensor *y, const gt_tensor *x) {
  gt::Check check(op, stream);
  check.tensor("x", x, gt::FLOATS).rows("x", x);
  return check.tensor("y", y, gt::FLOATS).same_shape("y", y, "x", x).rows("y", y);
}

}  // namespace

extern "C" gt_status gt_softmax(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x) {
  const gt::Check check = check_rowwise("softmax", stream, y, x);
  return check.ok() ? GT_RUN(softmax, stream, y, x) : check.status();
}

extern "C" gt_status gt_log_softmax(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x) {
  const gt::Check check = check_rowwise("log_softmax", stream, y, x);
  return check.ok() ? GT_RUN(log_softmax, stream, y, x) : check.status();
}

#endif
