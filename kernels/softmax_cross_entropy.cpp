// Softmax cross-entropy and its gradient: argument checks, dispatch, and the CPU twin of softmax_cross_entropy.cu.
#include "gatun/softmax.h"

#include "check.h"
#include "cpu/isa.h"

#if defined(GT_ISA)
// Computes    gatun/softmax.h: the number of rows that count, then row by row the loss and the gradient, then the mean
// Types       exponentials in f32; sums of a row in f32 over SUM_BLOCK elements, then in f64, as is the sum over rows
// Mapping     rows are split over threads; a row is summed in W lanes per block: the order depends on V alone
// Memory      logits twice: a block's maximum and its exponentials find it in the first cache, the gradient finds a row
//             that fits the second there. The losses of the rows lie in row_losses or in the workspace
// Aliasing    a row's statistics and target logit are read before its gradient is written, element by element
#include <math.h>

#include "cpu/math.h"
#include "cpu/parallel.h"
#include "cpu/row.h"

namespace gt::GT_ISA {
namespace {

constexpr int64_t SUM_BLOCK = 1024;  // elements: 4 KiB of f32
constexpr int64_t ROW_COST = 24;     // of an element, in the units of parallel_for

struct Statistics {
  float offset;  // the maximum; 0 where that is -inf, which keeps -inf - offset from being NaN
  double sum;    // of exp(x - offset): 0 for a row of -inf, NaN if the row holds NaN or +inf, else >= 1
  double total;  // of x
};

template <class X>
Statistics statistics_of(const X *x, int64_t v) {
  float largest = -INF;
  Statistics s{0, 0, 0};
  for (int64_t begin = 0; begin < v; begin += SUM_BLOCK) {
    const int64_t end = v - begin < SUM_BLOCK ? v : begin + SUM_BLOCK;
    vf lanes = broadcast(-INF);
    for (int64_t i = begin; i < end; i += W) lanes = vmax(lanes, load_up_to(x + i, end - i, -INF));
    const float block_largest = max_lanes(lanes);
    if (block_largest > largest) {
      s.sum *= exp(static_cast<double>(largest - block_largest));
      largest = s.offset = block_largest;
    }
    vf sum{}, total{};
    int64_t i = begin;
    for (; i + W <= end; i += W) {
      const vf value = load(x + i);
      sum += vexp(value - s.offset);
      total += value;
    }
    if (i < end) {
      sum += vexp(load_part(x + i, end - i, -INF) - s.offset);
      total += load_part(x + i, end - i);
    }
    s.sum += static_cast<double>(sum_lanes(sum));
    s.total += static_cast<double>(sum_lanes(total));
  }
  return s;
}

// What all rows share. factor: grad_scale over the number of rows that count.
struct Weights {
  double smoothing, factor;
};

// The loss of a row that counts; its gradient goes to dx unless that is NULL.
template <class X>
float row_loss(X *dx, const X *x, int64_t v, int64_t target, const Weights &weights) {
  if (target < 0 || target >= v) {
    if (dx) fill_row(dx, __builtin_nanf(""), v);
    return __builtin_nanf("");
  }
  const Statistics s = statistics_of(x, v);
  const double offset = static_cast<double>(s.offset), e = weights.smoothing;
  const float hit = to_float(x[target]);
  double loss = log(s.sum);
  if (e < 1) loss += (1 - e) * (offset - static_cast<double>(hit));
  if (e > 0) loss += e * (offset - s.total / static_cast<double>(v));
  if (dx) {
    const float scale = static_cast<float>(weights.factor / s.sum);
    const float uniform = static_cast<float>(weights.factor * e / static_cast<double>(v));
    for (int64_t i = 0; i < v; i += W)
      store_up_to(dx + i, vexp(load_up_to(x + i, v - i) - s.offset) * scale - uniform, v - i);
    const double p = static_cast<double>(vexp(broadcast(hit - s.offset))[0]) / s.sum;
    from_float(static_cast<float>(weights.factor * (p - (1 - e) - e / static_cast<double>(v))), dx + target);
  }
  return static_cast<float>(loss);
}

GT_INLINE int64_t integer_at(const gt_tensor &t, int64_t n) {
  return t.dtype == GT_I64 ? static_cast<const int64_t *>(t.data)[n] : static_cast<const int32_t *>(t.data)[n];
}

}  // namespace

gt_status cross_entropy_cpu(const gt_stream *stream, const gt_tensor *loss, const gt_tensor *row_losses,
                            const gt_tensor *dlogits, const gt_tensor *logits, const gt_tensor *targets,
                            int64_t ignore_index, float label_smoothing, const gt_tensor *grad_scale,
                            const gt_tensor *workspace) {
  const int64_t n = logits->shape[0], v = logits->shape[1];
  int64_t count = 0;
  for (int64_t i = 0; i < n; ++i) count += integer_at(*targets, i) != ignore_index;
  const double scale = grad_scale ? static_cast<double>(*static_cast<const float *>(grad_scale->data)) : 1;
  const Weights weights{static_cast<double>(label_smoothing), scale / static_cast<double>(count)};
  float *losses = row_losses ? static_cast<float *>(row_losses->data) : nullptr;
  if (!losses && n > 0) losses = static_cast<float *>(workspace->data);
  with_float(logits->dtype, [&](auto zero) {
    using X = decltype(zero);
    parallel_for(stream, n, v * ROW_COST, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        X *dx = dlogits ? static_cast<X *>(dlogits->data) + i * dlogits->stride[0] : nullptr;
        const int64_t target = integer_at(*targets, i);
        if (target == ignore_index) {
          losses[i] = 0;
          if (dx) memset(dx, 0, static_cast<size_t>(v) * sizeof(X));
        } else {
          losses[i] = row_loss(dx, static_cast<const X *>(logits->data) + i * logits->stride[0], v, target, weights);
        }
      }
    });
  });
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += static_cast<double>(losses[i]);
  *static_cast<float *>(loss->data) = count ? static_cast<float>(sum / static_cast<double>(count)) : 0;
  return GT_OK;
}

}  // namespace gt::GT_ISA

#else

GT_DECLARE_OP(cross_entropy)

extern "C" gt_status gt_cross_entropy(const gt_stream *stream, const gt_tensor *loss, const gt_tensor *row_losses,
                                      const gt_tensor *dlogits, const gt_tensor *logits, const gt_tensor *targets,
                                      int64_t ignore_index, float label_smoothing, const gt_tensor *grad_scale,
                                      const gt_tensor *workspace) {
  gt::Check check("cross_entropy", stream);
  check.tensor("loss", loss, gt::F32).shape("loss", loss, {1});
  check.tensor("logits", logits, gt::FLOATS).rank("logits", logits, 2).last_contiguous("logits", logits);
  check.tensor("targets", targets, gt::I32 | gt::I64).optional("row_losses", row_losses, gt::F32);
  check.optional("dlogits", dlogits, gt::FLOATS).same_shape("dlogits", dlogits, "logits", logits);
  check.same_dtype("dlogits", dlogits, "logits", logits).last_contiguous("dlogits", dlogits);
  check.optional("grad_scale", grad_scale, gt::F32).shape("grad_scale", grad_scale, {1});
  if (!check.ok()) return check.status();
  const int64_t n = logits->shape[0];
  check.shape("targets", targets, {n}).contiguous("targets", targets);
  check.shape("row_losses", row_losses, {n}).contiguous("row_losses", row_losses);
  check.require(logits->shape[1] > 0, "logits has V = 0, expected at least 1");
  check.require(label_smoothing >= 0 && label_smoothing <= 1, "label_smoothing is %g, expected 0 to 1",
                static_cast<double>(label_smoothing));
  int64_t bytes = 0;
  if (!check.ok()) return check.status();
  if (const gt_status status = gt_cross_entropy_workspace(stream, logits, &bytes)) return status;
  check.workspace(workspace, bytes);
  if (!check.ok()) return check.status();
  return GT_RUN(cross_entropy, stream, loss, row_losses, dlogits, logits, targets, ignore_index, label_smoothing,
                grad_scale, workspace);
}

// The same on every device: 16 bytes for what all rows share, and a loss per row.
extern "C" gt_status gt_cross_entropy_workspace(const gt_stream *stream, const gt_tensor *logits, int64_t *bytes) {
  gt::Check check("cross_entropy_workspace", stream);
  check.tensor("logits", logits, gt::FLOATS).rank("logits", logits, 2);
  check.require(bytes, "bytes is NULL, expected where to put the result");
  check.elements_at_most("logits", logits, 0, INT64_MAX / 8);
  if (check.ok()) *bytes = logits->shape[0] == 0 ? 0 : 16 + 4 * logits->shape[0];
  return check.status();
}

#endif
