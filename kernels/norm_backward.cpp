// Gradients of layer and RMS normalisation: argument checks, dispatch, and the CPU twin of norm_backward.cu.
#include "gatun/norm_backward.h"

#include <utility>

#include "check.h"
#include "cpu/isa.h"

#if defined(GT_ISA)
// Computes    gatun/norm_backward.h, one row at a time
// Mapping     chunks of rows are split over threads; each has its own sums of dy h and dy in the workspace, which are
//             then added in the order of the chunks, columns split over threads. A row is summed in W lanes which are
//             then folded. Every order depends on N and C alone
// Memory      dy and x come from DRAM once (the second pass over a row hits the cache), dx is written once
// Aliasing    dx is written in the second pass only, element by element after its inputs are read
#include "cpu/parallel.h"
#include "cpu/row.h"

namespace gt::GT_ISA {
namespace {

constexpr int64_t MAX_CHUNKS = 64;     // of rows: more than threads, and few sums to add at the end
constexpr int64_t MIN_ROWS = 8;        // of a chunk
constexpr int64_t PADDING = 16;        // columns of a workspace row are a multiple: the widest vector
constexpr int64_t PIECE = 64;          // columns that a thread adds up at once
constexpr int64_t COST = 4;            // of an element, in the units of parallel_for

// How the rows are cut, and what a chunk has in the workspace: sums of dy h, then of dy, `row` columns each.
struct Cut {
  int64_t n, c, chunk, chunks, row;

  explicit Cut(const gt_tensor &x) : n(rows_of(x).n), c(rows_of(x).c) {
    const int64_t even = (n + MAX_CHUNKS - 1) / MAX_CHUNKS;
    chunk = even < MIN_ROWS ? MIN_ROWS : even;
    chunks = (n + chunk - 1) / chunk;
    row = (c + PADDING - 1) / PADDING * PADDING;
  }
  int64_t bytes() const { return chunks * 2 * row * 4; }
};

// The operands of one row; weight and residual may be NULL. The sums are the chunk's, or NULL.
template <class T, class P>
struct Row {
  T *dx;
  const T *dy, *x, *residual;
  const P *weight;
  float mean, rstd, *weight_sums, *bias_sums;
  int64_t c;

  vf h(int64_t i, int64_t left) const { return (load_up_to(x + i, left) - mean) * rstd; }
  vf g(vf gradient, int64_t i, int64_t left) const {
    return weight ? gradient * load_up_to(weight + i, left) : gradient;
  }
};

// f(i, left) for the vectors of a row, left W for all whole ones.
template <class F>
GT_INLINE void for_vectors(int64_t c, F &&f) {
  int64_t i = 0;
  for (; i + W <= c; i += W) f(i, int64_t{W});
  if (i < c) f(i, c - i);
}

// Beyond C dy is 0, and so is what is added to any sum. HAS_MEAN: layer norm, else RMS norm, whose mean is 0. The row
// comes by value: a store to the sums could otherwise change what the compiler has read of it.
template <bool HAS_MEAN, class T, class P>
void backward_row(const Row<T, P> r) {
  vf sum{}, product{};
  for_vectors(r.c, [&](int64_t i, int64_t left) {
    const vf g = r.g(load_up_to(r.dy + i, left), i, left);
    if (HAS_MEAN) sum += g;
    product += g * r.h(i, left);
  });
  const float mean_g = HAS_MEAN ? sum_lanes(sum) / static_cast<float>(r.c) : 0;
  const float mean_gh = sum_lanes(product) / static_cast<float>(r.c);
  for_vectors(r.c, [&](int64_t i, int64_t left) {
    const vf dy = load_up_to(r.dy + i, left), h = r.h(i, left);
    if (r.weight_sums) store(r.weight_sums + i, load(r.weight_sums + i) + dy * h);
    if (HAS_MEAN && r.bias_sums) store(r.bias_sums + i, load(r.bias_sums + i) + dy);
    vf dx = (r.g(dy, i, left) - mean_g - h * mean_gh) * r.rstd;
    if (r.residual) dx += load_up_to(r.residual + i, left);
    store_up_to(r.dx + i, dx, left);
  });
}

// Calls f(T{}, P{}) with the C++ types of x and of the weight.
template <class F>
GT_INLINE void with_row_types(const gt_tensor &x, const gt_tensor *weight, F &&f) {
  with_float(x.dtype, [&](auto zero) {
    if (weight && weight->dtype != x.dtype)
      f(zero, float{});
    else
      f(zero, zero);
  });
}

struct Operands {
  const gt_tensor *dx, *dweight, *dbias, *dy, *x, *mean, *rstd, *weight, *residual, *workspace;
};

// out[c] = the sum of the chunks' column c, which lies at sums[c].
void add_chunks(const gt_stream *stream, const Cut &cut, const gt_tensor *out, const float *sums) {
  float *const to = static_cast<float *>(out->data);
  parallel_for(stream, (cut.c + PIECE - 1) / PIECE, cut.chunks * PIECE, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin * PIECE; i < end * PIECE && i < cut.c; i += W) {
      vf sum{};
      for (int64_t k = 0; k < cut.chunks; ++k) sum += load(sums + k * 2 * cut.row + i);
      store_up_to(to + i, sum, cut.c - i);
    }
  });
}

template <bool HAS_MEAN>
gt_status backward(const gt_stream *stream, const Operands &o) {
  const Cut cut(*o.x);
  float *const sums = o.dweight || o.dbias ? static_cast<float *>(o.workspace ? o.workspace->data : nullptr) : nullptr;
  with_row_types(*o.x, o.weight, [&](auto zero, auto parameter_zero) {
    using T = decltype(zero);
    using P = decltype(parameter_zero);
    const auto at = [](const gt_tensor *t, int64_t n) {
      return t ? static_cast<T *>(t->data) + n * rows_of(*t).stride : nullptr;
    };
    const P *const weight = o.weight ? static_cast<const P *>(o.weight->data) : nullptr;
    const auto statistic = [](const gt_tensor *t, int64_t n) { return t ? static_cast<const float *>(t->data)[n] : 0; };
    parallel_for(stream, cut.chunks, cut.chunk * cut.c * COST, [&](int64_t begin, int64_t end) {
      for (int64_t k = begin; k < end; ++k) {
        float *const weight_sums = o.dweight ? sums + k * 2 * cut.row : nullptr;
        float *const bias_sums = o.dbias ? sums + (k * 2 + 1) * cut.row : nullptr;
        if (weight_sums) fill_row(weight_sums, 0, cut.row);
        if (bias_sums) fill_row(bias_sums, 0, cut.row);
        for (int64_t n = k * cut.chunk; n < (k + 1) * cut.chunk && n < cut.n; ++n)
          backward_row<HAS_MEAN>(Row<T, P>{at(o.dx, n), at(o.dy, n), at(o.x, n), at(o.residual, n), weight,
                                           statistic(o.mean, n), statistic(o.rstd, n), weight_sums, bias_sums, cut.c});
      }
    });
  });
  if (o.dweight) add_chunks(stream, cut, o.dweight, sums);
  if (o.dbias) add_chunks(stream, cut, o.dbias, sums + cut.row);
  return GT_OK;
}

}  // namespace

gt_status layernorm_backward_cpu(const gt_stream *stream, const gt_tensor *dx, const gt_tensor *dweight,
                                 const gt_tensor *dbias, const gt_tensor *dy, const gt_tensor *x, const gt_tensor *mean,
                                 const gt_tensor *rstd, const gt_tensor *weight, const gt_tensor *residual,
                                 const gt_tensor *workspace) {
  return backward<true>(stream, {dx, dweight, dbias, dy, x, mean, rstd, weight, residual, workspace});
}

gt_status rmsnorm_backward_cpu(const gt_stream *stream, const gt_tensor *dx, const gt_tensor *dweight,
                               const gt_tensor *dy, const gt_tensor *x, const gt_tensor *rstd, const gt_tensor *weight,
                               const gt_tensor *residual, const gt_tensor *workspace) {
  return backward<false>(stream, {dx, dweight, nullptr, dy, x, nullptr, rstd, weight, residual, workspace});
}

gt_status layernorm_backward_workspace_cpu(const gt_stream *, const gt_tensor *x, int64_t *bytes) {
  *bytes = Cut(*x).bytes();
  return GT_OK;
}

gt_status rmsnorm_backward_workspace_cpu(const gt_stream *, const gt_tensor *x, int64_t *bytes) {
  *bytes = Cut(*x).bytes();
  return GT_OK;
}

}  // namespace gt::GT_ISA

#else

GT_DECLARE_OP(layernorm_backward)
GT_DECLARE_OP(layernorm_backward_workspace)
GT_DECLARE_OP(rmsnorm_backward)
GT_DECLARE_OP(rmsnorm_backward_workspace)

namespace {

constexpr int64_t MOST_ELEMENTS = int64_t{1} << 48;  // the bytes of a workspace can be counted

struct Gradients {
  const gt_tensor *dweight, *dbias;
};

gt::Check check_rows(const char *op, const gt_stream *stream, const gt_tensor *dx, const gt_tensor *dy,
                     const gt_tensor *x, const gt_tensor *weight, const gt_tensor *residual, const Gradients &out) {
  gt::Check check(op, stream);
  check.tensor("x", x, gt::FLOATS).rows("x", x);
  for (const auto &[name, t] : {std::pair{"dx", dx}, std::pair{"dy", dy}})
    check.tensor(name, t, gt::FLOATS).rows(name, t).same_shape(name, t, "x", x).same_dtype(name, t, "x", x);
  if (residual)
    check.tensor("residual", residual, gt::FLOATS).rows("residual", residual).same_shape("residual", residual, "x", x)
        .same_dtype("residual", residual, "x", x);
  if (!check.ok()) return check;
  const int64_t c = x->shape[x->rank - 1];
  check.require(c > 0, "x has no columns, expected C >= 1");
  check.optional("weight", weight, gt::F32 | gt::dtype_bit(x->dtype)).shape("weight", weight, {c});
  check.contiguous("weight", weight);
  for (const auto &[name, t] : {std::pair{"dweight", out.dweight}, std::pair{"dbias", out.dbias}})
    check.optional(name, t, gt::F32).shape(name, t, {c}).contiguous(name, t);
  return check;
}

void check_statistic(gt::Check &check, const char *name, const gt_tensor *t, const gt_tensor *x) {
  if (check.ok()) check.tensor(name, t, gt::F32).shape(name, t, {gt::rows_of(*x).n}).contiguous(name, t);
}

using Query = gt_status (*)(const gt_stream *, const gt_tensor *, int64_t *);

void check_workspace(gt::Check &check, const gt_stream *stream, const gt_tensor *x, const gt_tensor *workspace,
                     const Gradients &out, Query query) {
  int64_t bytes = 0;
  if (check.ok() && (out.dweight || out.dbias)) check.require(query(stream, x, &bytes) == GT_OK, "no workspace fits x");
  check.workspace(workspace, bytes);
}

gt::Check check_query(const char *op, const gt_stream *stream, const gt_tensor *x, int64_t *bytes) {
  gt::Check check(op, stream);
  check.tensor("x", x, gt::FLOATS).rows("x", x).elements_at_most("x", x, 0, MOST_ELEMENTS);
  check.require(bytes, "bytes is NULL, expected where to put the result");
  return check;
}

}  // namespace

extern "C" gt_status gt_layernorm_backward(const gt_stream *stream, const gt_tensor *dx, const gt_tensor *dweight,
                                           const gt_tensor *dbias, const gt_tensor *dy, const gt_tensor *x,
                                           const gt_tensor *mean, const gt_tensor *rstd, const gt_tensor *weight,
                                           const gt_tensor *residual, const gt_tensor *workspace) {
  gt::Check check = check_rows("layernorm_backward", stream, dx, dy, x, weight, residual, {dweight, dbias});
  check_statistic(check, "mean", mean, x);
  check_statistic(check, "rstd", rstd, x);
  check_workspace(check, stream, x, workspace, {dweight, dbias}, gt_layernorm_backward_workspace);
  if (!check.ok()) return check.status();
  return GT_RUN(layernorm_backward, stream, dx, dweight, dbias, dy, x, mean, rstd, weight, residual, workspace);
}

extern "C" gt_status gt_layernorm_backward_workspace(const gt_stream *stream, const gt_tensor *x, int64_t *bytes) {
  const gt::Check check = check_query("layernorm_backward_workspace", stream, x, bytes);
  return check.ok() ? GT_RUN(layernorm_backward_workspace, stream, x, bytes) : check.status();
}

extern "C" gt_status gt_rmsnorm_backward(const gt_stream *stream, const gt_tensor *dx, const gt_tensor *dweight,
                                         const gt_tensor *dy, const gt_tensor *x, const gt_tensor *rstd,
                                         const gt_tensor *weight, const gt_tensor *residual,
                                         const gt_tensor *workspace) {
  gt::Check check = check_rows("rmsnorm_backward", stream, dx, dy, x, weight, residual, {dweight, nullptr});
  check_statistic(check, "rstd", rstd, x);
  check_workspace(check, stream, x, workspace, {dweight, nullptr}, gt_rmsnorm_backward_workspace);
  if (!check.ok()) return check.status();
  return GT_RUN(rmsnorm_backward, stream, dx, dweight, dy, x, rstd, weight, residual, workspace);
}

extern "C" gt_status gt_rmsnorm_backward_workspace(const gt_stream *stream, const gt_tensor *x, int64_t *bytes) {
  const gt::Check check = check_query("rmsnorm_backward_workspace", stream, x, bytes);
  return check.ok() ? GT_RUN(rmsnorm_backward_workspace, stream, x, bytes) : check.status();
}

#endif
