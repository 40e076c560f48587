// A node of a decode step: argument checks, dispatch, and the CPU twin of linear_norm.cu.
#include "gatun/linear.h"

#include <utility>

#include "check.h"
#include "cpu/isa.h"
#include "gatun/fp8.h"

#if defined(GT_ISA)
// Computes    gatun/linear.h
// Mapping     the calling thread normalises as many rows as fit on its stack; the products are gt_linear's, over all
//             threads; the activation follows in place, by rows of y
// Memory      weights as in gt_linear, once per block of rows; a gate's other factor by slices of columns on the stack
// Numerics    every step has the code of the op it stands for
// Limits      192 KiB of stack beside gt_linear's
#include "cpu/mlp_activation.h"
#include "cpu/norm_row.h"
#include "cpu/parallel.h"

namespace gt::GT_ISA {

decltype(gt_linear) linear_cpu;
decltype(gt_linear_fp8) linear_fp8_cpu;

namespace {

constexpr int64_t ROW_BYTES = 128 << 10, UP_BYTES = 64 << 10;  // on the stack

GT_INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

// The norm in front, as both ops have it.
struct Before {
  const gt_tensor *residual_out, *x, *residual;
  gt_norm norm;
  const gt_tensor *weight, *bias;
  float eps;
};

// Rows `from` to `to` of t; columns likewise.
gt_tensor rows_between(const gt_tensor &t, int64_t from, int64_t to) {
  gt_tensor part = t;
  part.data = static_cast<char *>(t.data) + from * t.stride[0] * dtype_bytes(t.dtype);
  part.shape[0] = to - from;
  return part;
}
gt_tensor columns_between(const gt_tensor &t, int64_t from, int64_t to) {
  gt_tensor part = t;
  const int last = t.rank - 1;
  part.data = static_cast<char *>(t.data) + from * dtype_bytes(t.dtype);
  part.shape[last] = to - from;
  return part;
}

// Calls f(first row, n) for blocks of rows, n [rows, C] being their norm: on the stack, or x itself.
template <class F>
void for_normed_rows(const Before &b, F f) {
  if (b.norm == GT_NORM_NONE) return f(int64_t{0}, *b.x);
  alignas(64) char buffer[ROW_BYTES];
  const int64_t n = b.x->shape[0], c = b.x->shape[1], fit = ROW_BYTES / (c * dtype_bytes(b.x->dtype));
  for (int64_t first = 0; first < n; first += fit) {
    const int64_t rows = smaller(fit, n - first);
    with_float(b.x->dtype, [&](auto zero) {
      using T = decltype(zero);
      const auto at = [](const gt_tensor *t, int64_t row) {
        return t ? static_cast<T *>(t->data) + row * t->stride[0] : nullptr;
      };
      for (int64_t r = 0; r < rows; ++r) {
        const NormRow<T> row{reinterpret_cast<T *>(buffer) + r * c, at(b.residual_out, first + r), at(b.x, first + r),
                             at(b.residual, first + r), b.weight, b.bias, c};
        if (b.norm == GT_NORM_LAYER)
          layernorm_row(row, b.eps, nullptr, nullptr);
        else
          rmsnorm_row(row, b.eps, nullptr);
      }
    });
    f(first, gt_tensor{buffer, b.x->dtype, 2, {rows, c}, {c, 1}});
  }
}

// y = f(y), or f(y) up where there is an up; rows of whole vectors and a rest.
template <class Y, class F>
void apply_rows(const gt_stream *stream, const gt_tensor &y, const gt_tensor *up, F f) {
  parallel_for(stream, y.shape[0], y.shape[1] * 16, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      Y *const row = static_cast<Y *>(y.data) + r * y.stride[0];
      const Y *const other = up ? static_cast<const Y *>(up->data) + r * up->stride[0] : nullptr;
      for (int64_t i = 0; i < y.shape[1]; i += W) {
        const int64_t left = y.shape[1] - i;
        const vf v = f.of(load_up_to(row + i, left), vf{}, vf{}, 0);
        store_up_to(row + i, other ? v * load_up_to(other + i, left) : v, left);
      }
    }
  });
}

// scale: of e4m3 weights, else NULL.
void multiply(const gt_stream *stream, const gt_tensor &y, const gt_tensor &n, const gt_tensor *weight,
              const gt_tensor *scale, const gt_tensor *bias, gt_weight_layout layout) {
  if (scale) linear_fp8_cpu(stream, &y, &n, nullptr, weight, scale, bias);
  else linear_cpu(stream, &y, &n, weight, bias, layout);
}

struct Unchanged {
  GT_INLINE vf of(vf x, vf, vf, float) { return x; }
};

void activate(const gt_stream *stream, const gt_tensor &y, const gt_tensor *up, gt_mlp_activation activation) {
  if (activation == GT_MLP_NONE && !up) return;
  with_float(y.dtype, [&](auto zero) {
    using Y = decltype(zero);
    switch (activation) {
      case GT_MLP_GELU_ERF: return apply_rows<Y>(stream, y, up, GeluErf());
      case GT_MLP_GELU_TANH: return apply_rows<Y>(stream, y, up, GeluTanh());
      case GT_MLP_QUICK_GELU: return apply_rows<Y>(stream, y, up, QuickGelu());
      case GT_MLP_SILU: return apply_rows<Y>(stream, y, up, Silu());
      case GT_MLP_RELU: return apply_rows<Y>(stream, y, up, Relu());
      default: return apply_rows<Y>(stream, y, up, Unchanged());
    }
  });
}

}  // namespace

gt_status norm_linear_cpu(const gt_stream *stream, const gt_tensor *y, const gt_tensor *residual_out,
                          const gt_tensor *x, const gt_tensor *residual, gt_norm norm, const gt_tensor *norm_weight,
                          const gt_tensor *norm_bias, float eps, const gt_tensor *weight,
                          const gt_tensor *weight_scale, const gt_tensor *bias, const gt_tensor *up,
                          const gt_tensor *up_scale, const gt_tensor *up_bias, gt_weight_layout layout,
                          gt_mlp_activation activation) {
  const Before before{residual_out, x, residual, norm, norm_weight, norm_bias, eps};
  for_normed_rows(before, [&](int64_t first, const gt_tensor &n) {
    const int64_t f = y->shape[1];
    const gt_tensor rows = rows_between(*y, first, first + n.shape[0]);
    if (!up) {
      multiply(stream, rows, n, weight, weight_scale, bias, layout);
      return activate(stream, rows, nullptr, activation);
    }
    alignas(64) char buffer[UP_BYTES];
    const int64_t bytes = dtype_bytes(y->dtype), num_rows = smaller(n.shape[0], 16);  // some, where x itself is long
    const int64_t slice = UP_BYTES / (num_rows * bytes) / 64 * 64;
    for (int64_t r = 0; r < n.shape[0]; r += num_rows) {
      const int64_t last_row = smaller(r + num_rows, n.shape[0]);
      const gt_tensor some = rows_between(n, r, last_row), some_y = rows_between(rows, r, last_row);
      for (int64_t column = 0; column < f; column += slice) {
        const int64_t end = smaller(column + slice, f);
        const auto part = [&](const gt_tensor *w) {
          return layout == GT_WEIGHT_OUT_IN ? rows_between(*w, column, end) : columns_between(*w, column, end);
        };
        gt_tensor vectors[4];
        const auto vector_part = [&](int i, const gt_tensor *v) -> const gt_tensor * {
          if (v) vectors[i] = columns_between(*v, column, end);
          return v ? &vectors[i] : nullptr;
        };
        const gt_tensor gate = columns_between(some_y, column, end), w[] = {part(weight), part(up)};
        const gt_tensor other{buffer, y->dtype, 2, {last_row - r, end - column}, {end - column, 1}};
        multiply(stream, gate, some, &w[0], vector_part(0, weight_scale), vector_part(1, bias), layout);
        multiply(stream, other, some, &w[1], vector_part(2, up_scale), vector_part(3, up_bias), layout);
        activate(stream, gate, &other, activation);
      }
    }
  });
  return GT_OK;
}

gt_status norm_linear_qkv_cpu(const gt_stream *stream, const gt_tensor *q, const gt_tensor *k, const gt_tensor *v,
                              const gt_tensor *residual_out, const gt_tensor *x, const gt_tensor *residual,
                              gt_norm norm, const gt_tensor *norm_weight, const gt_tensor *norm_bias, float eps,
                              const gt_tensor *q_weight, const gt_tensor *q_scale, const gt_tensor *q_bias,
                              const gt_tensor *k_weight, const gt_tensor *k_scale, const gt_tensor *k_bias,
                              const gt_tensor *v_weight, const gt_tensor *v_scale, const gt_tensor *v_bias,
                              gt_weight_layout layout) {
  const gt_tensor *const operands[3][4] = {
      {q, q_weight, q_scale, q_bias}, {k, k_weight, k_scale, k_bias}, {v, v_weight, v_scale, v_bias}};
  const Before before{residual_out, x, residual, norm, norm_weight, norm_bias, eps};
  for_normed_rows(before, [&](int64_t first, const gt_tensor &n) {
    for (const auto &[y, weight, scale, bias] : operands) {
      const gt_tensor rows = rows_between(*y, first, first + n.shape[0]);
      multiply(stream, rows, n, weight, scale, bias, layout);
    }
  });
  return GT_OK;
}

}  // namespace gt::GT_ISA

#else

GT_DECLARE_OP(norm_linear)
GT_DECLARE_OP(norm_linear_qkv)

namespace {

constexpr int64_t MOST_ROWS = 65535, MOST_CHANNELS = 16384, MOST_NORMED = 8192, MOST_COLUMNS = 1 << 30;

gt::Check check_rows(const char *op, const gt_stream *stream, const gt_tensor *residual_out, const gt_tensor *x,
                     const gt_tensor *residual, gt_norm norm, const gt_tensor *norm_weight, const gt_tensor *norm_bias,
                     float eps) {
  gt::Check check(op, stream);
  check.tensor("x", x, gt::FLOATS).rank("x", x, 2).last_contiguous("x", x);
  for (const auto &[name, t] : {std::pair{"residual", residual}, std::pair{"residual_out", residual_out}})
    check.optional(name, t, gt::FLOATS)
        .same_shape(name, t, "x", x)
        .same_dtype(name, t, "x", x)
        .last_contiguous(name, t);
  check.require(norm >= GT_NORM_NONE && norm <= GT_NORM_RMS, "norm is %d, expected a gt_norm from %d to %d", norm,
                GT_NORM_NONE, GT_NORM_RMS);
  if (!check.ok()) return check;
  const int64_t c = x->shape[1], most = norm == GT_NORM_NONE ? MOST_CHANNELS : MOST_NORMED;
  const uint64_t f32_or_x = gt::F32 | gt::dtype_bit(x->dtype);
  check.optional("norm_weight", norm_weight, f32_or_x).shape("norm_weight", norm_weight, {c});
  check.contiguous("norm_weight", norm_weight);
  check.optional("norm_bias", norm_bias, f32_or_x).shape("norm_bias", norm_bias, {c});
  check.contiguous("norm_bias", norm_bias);
  for (const auto &[name, t] : {std::pair{"residual", residual}, std::pair{"residual_out", residual_out},
                                std::pair{"norm_weight", norm_weight}, std::pair{"norm_bias", norm_bias}})
    check.require(norm != GT_NORM_NONE || !t, "%s without a norm, expected NULL", name);
  check.require(norm != GT_NORM_RMS || !norm_bias, "norm_bias with an RMS norm, expected NULL");
  check.require(norm == GT_NORM_NONE || c > 0, "x has no columns, expected C >= 1");
  check.require(c <= most, "x has %lld columns, expected at most %lld", static_cast<long long>(c),
                static_cast<long long>(most));
  check.require(x->shape[0] <= MOST_ROWS, "x has %lld rows, expected at most %lld", static_cast<long long>(x->shape[0]),
                static_cast<long long>(MOST_ROWS));
  check.require(eps >= 0, "eps is %g, expected >= 0", static_cast<double>(eps));
  return check;
}

struct Product {
  const char *y_name, *weight_name, *scale_name, *bias_name;
  const gt_tensor *y, *weight, *scale, *bias;
};

void check_product(gt::Check &check, const gt_tensor *x, const Product &p, gt_weight_layout layout) {
  if (!check.ok()) return;
  const int64_t n = x->shape[0], c = x->shape[1];
  const uint64_t f32_or_x = gt::F32 | gt::dtype_bit(x->dtype);
  check.tensor(p.y_name, p.y, f32_or_x).shape(p.y_name, p.y, {n, -1}).last_contiguous(p.y_name, p.y);
  check.require(layout == GT_WEIGHT_OUT_IN || layout == GT_WEIGHT_IN_OUT,
                "layout is %d, expected %d ([F, C]) or %d ([C, F])", layout, GT_WEIGHT_OUT_IN, GT_WEIGHT_IN_OUT);
  if (!check.ok()) return;
  const int64_t f = p.y->shape[1];
  const bool out_in = layout == GT_WEIGHT_OUT_IN;
  check.require(f <= MOST_COLUMNS, "%s has %lld columns, expected at most %lld", p.y_name, static_cast<long long>(f),
                static_cast<long long>(MOST_COLUMNS));
  const bool is_f8 = x->dtype != GT_F32 && p.weight && p.weight->dtype == GT_F8_E4M3;
  check.require(!is_f8 || out_in, "layout is %d, expected %d ([F, C]), since %s is f8_e4m3", layout, GT_WEIGHT_OUT_IN,
                p.weight_name);
  check.tensor(p.weight_name, p.weight, gt::dtype_bit(x->dtype) | (x->dtype == GT_F32 ? 0 : gt::F8));
  check.shape(p.weight_name, p.weight, {out_in ? f : c, out_in ? c : f}).last_contiguous(p.weight_name, p.weight);
  check.require(!is_f8 || p.scale, "%s is NULL, expected a tensor [F], since %s is f8_e4m3", p.scale_name,
                p.weight_name);
  check.require(is_f8 || !p.scale, "%s is given, expected NULL, since %s is not f8_e4m3", p.scale_name, p.weight_name);
  check.optional(p.scale_name, p.scale, gt::F32).shape(p.scale_name, p.scale, {f}).contiguous(p.scale_name, p.scale);
  check.optional(p.bias_name, p.bias, is_f8 ? gt::F32 | gt::dtype_bit(p.y->dtype) : f32_or_x);
  check.shape(p.bias_name, p.bias, {f}).contiguous(p.bias_name, p.bias);
}

}  // namespace

extern "C" gt_status gt_norm_linear(const gt_stream *stream, const gt_tensor *y, const gt_tensor *residual_out,
                                    const gt_tensor *x, const gt_tensor *residual, gt_norm norm,
                                    const gt_tensor *norm_weight, const gt_tensor *norm_bias, float eps,
                                    const gt_tensor *weight, const gt_tensor *weight_scale, const gt_tensor *bias,
                                    const gt_tensor *up, const gt_tensor *up_scale, const gt_tensor *up_bias,
                                    gt_weight_layout layout, gt_mlp_activation activation) {
  gt::Check check =
      check_rows("norm_linear", stream, residual_out, x, residual, norm, norm_weight, norm_bias, eps);
  check_product(check, x, {"y", "weight", "weight_scale", "bias", y, weight, weight_scale, bias}, layout);
  if (up) {
    check_product(check, x, {"y", "up", "up_scale", "up_bias", y, up, up_scale, up_bias}, layout);
    check.same_dtype("up", up, "weight", weight);
  }
  for (const auto &[name, t] : {std::pair{"up_scale", up_scale}, std::pair{"up_bias", up_bias}})
    check.require(up || !t, "%s without up, expected NULL", name);
  check.require(activation >= GT_MLP_NONE && activation <= GT_MLP_RELU,
                "activation is %d, expected a gt_mlp_activation from %d to %d", activation, GT_MLP_NONE, GT_MLP_RELU);
  if (!check.ok() || x->shape[0] == 0) return check.status();
  check.require(y->shape[1] > 0, "y has no columns, expected F >= 1");
  if (!check.ok()) return check.status();
  return GT_RUN(norm_linear, stream, y, residual_out, x, residual, norm, norm_weight, norm_bias, eps, weight,
                weight_scale, bias, up, up_scale, up_bias, layout, activation);
}

extern "C" gt_status gt_norm_linear_qkv(const gt_stream *stream, const gt_tensor *q, const gt_tensor *k,
                                        const gt_tensor *v, const gt_tensor *residual_out, const gt_tensor *x,
                                        const gt_tensor *residual, gt_norm norm, const gt_tensor *norm_weight,
                                        const gt_tensor *norm_bias, float eps, const gt_tensor *q_weight,
                                        const gt_tensor *q_scale, const gt_tensor *q_bias, const gt_tensor *k_weight,
                                        const gt_tensor *k_scale, const gt_tensor *k_bias, const gt_tensor *v_weight,
                                        const gt_tensor *v_scale, const gt_tensor *v_bias, gt_weight_layout layout) {
  gt::Check check =
      check_rows("norm_linear_qkv", stream, residual_out, x, residual, norm, norm_weight, norm_bias, eps);
  check_product(check, x, {"q", "q_weight", "q_scale", "q_bias", q, q_weight, q_scale, q_bias}, layout);
  check_product(check, x, {"k", "k_weight", "k_scale", "k_bias", k, k_weight, k_scale, k_bias}, layout);
  check_product(check, x, {"v", "v_weight", "v_scale", "v_bias", v, v_weight, v_scale, v_bias}, layout);
  check.same_dtype("k", k, "q", q).same_dtype("v", v, "q", q);
  check.same_dtype("k_weight", k_weight, "q_weight", q_weight).same_dtype("v_weight", v_weight, "q_weight", q_weight);
  if (!check.ok() || x->shape[0] == 0) return check.status();
  check.require(q->shape[1] > 0 && k->shape[1] > 0 && v->shape[1] > 0, "q, k or v has no columns, expected F >= 1");
  if (!check.ok()) return check.status();
  return GT_RUN(norm_linear_qkv, stream, q, k, v, residual_out, x, residual, norm, norm_weight, norm_bias, eps,
                q_weight, q_scale, q_bias, k_weight, k_scale, k_bias, v_weight, v_scale, v_bias, layout);
}

#endif
