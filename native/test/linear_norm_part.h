// Does CUDA's gt_norm_linear give what the CPU's gives, in any layout, and the same bits for a row whatever surrounds
// it?
#pragma once

#include "family_test.h"
#include "gatun/fp8.h"
#include "lib/block_room.h"
#include "simt/resident.h"

namespace norm_linear {

using namespace test;

struct Shape {
  int64_t n, c, f;
};
// pad and offset in elements: 0 and 8 keep rows of a multiple of 8 aligned, 1 aligns no row but the first.
struct Layout {
  gt_norm norm;
  gt_weight_layout weight;
  int64_t pad;
  gt_mlp_activation activation;
  bool is_gated, has_residual, has_bias, y_is_f32, is_qkv, is_f8 = false;
};
constexpr Layout LAYOUTS[] = {
    {GT_NORM_LAYER, GT_WEIGHT_IN_OUT, 0, GT_MLP_GELU_TANH, false, true, true, false, false},
    {GT_NORM_RMS, GT_WEIGHT_OUT_IN, 0, GT_MLP_SILU, true, true, false, false, false},
    {GT_NORM_RMS, GT_WEIGHT_OUT_IN, 8, GT_MLP_NONE, false, true, false, false, true},
    {GT_NORM_NONE, GT_WEIGHT_IN_OUT, 8, GT_MLP_NONE, false, false, true, false, false},
    {GT_NORM_LAYER, GT_WEIGHT_OUT_IN, 1, GT_MLP_GELU_ERF, true, false, true, true, false},
    {GT_NORM_NONE, GT_WEIGHT_OUT_IN, 1, GT_MLP_QUICK_GELU, false, false, false, true, false},
    {GT_NORM_LAYER, GT_WEIGHT_IN_OUT, 8, GT_MLP_RELU, false, true, true, true, true},
    {GT_NORM_LAYER, GT_WEIGHT_OUT_IN, 0, GT_MLP_GELU_TANH, false, true, true, false, false, true},
    {GT_NORM_RMS, GT_WEIGHT_OUT_IN, 16, GT_MLP_SILU, true, true, false, false, false, true},
    {GT_NORM_RMS, GT_WEIGHT_OUT_IN, 1, GT_MLP_NONE, false, true, true, true, true, true},
    {GT_NORM_NONE, GT_WEIGHT_OUT_IN, 16, GT_MLP_NONE, false, false, true, false, false, true},
};

struct Case {
  Shape shape;
  Layout layout;
  Rows y[3], residual_out, x, residual, norm_weight, norm_bias, weight[3], scale[3], bias[3];

  static Rows matrix(gt_dtype dtype, const Shape &s, const Layout &l, int i) {
    const int64_t f = s.f + (l.is_qkv ? 3 * i : 0);
    if (l.is_f8) return Rows(GT_F8_E4M3, f, s.c, l.pad, l.pad);
    return l.weight == GT_WEIGHT_OUT_IN ? Rows(dtype, f, s.c, l.pad, l.pad) : Rows(dtype, s.c, f, l.pad, l.pad);
  }
  static Rows vector(gt_dtype dtype, const Shape &s, const Layout &l, int i) {
    return Rows(dtype, 1, s.f + (l.is_qkv ? 3 * i : 0), 0, l.pad);
  }
  static Rows result(gt_dtype dtype, const Shape &s, const Layout &l, int i) {
    return Rows(l.y_is_f32 ? GT_F32 : dtype, s.n, s.f + (l.is_qkv ? 3 * i : 0), l.pad, l.pad);
  }
  Case(gt_dtype dtype, const Shape &s, const Layout &l)
      : shape(s), layout(l), y{result(dtype, s, l, 0), result(dtype, s, l, 1), result(dtype, s, l, 2)},
        residual_out(dtype, s.n, s.c, 2 * l.pad, l.pad), x(dtype, s.n, s.c, l.pad, l.pad),
        residual(dtype, s.n, s.c, 0, l.pad), norm_weight(GT_F32, 1, s.c, 0, l.pad), norm_bias(dtype, 1, s.c, 0, l.pad),
        weight{matrix(dtype, s, l, 0), matrix(dtype, s, l, 1), matrix(dtype, s, l, 2)},
        scale{vector(GT_F32, s, l, 0), vector(GT_F32, s, l, 1), vector(GT_F32, s, l, 2)},
        bias{vector(l.is_f8 ? y[0].dtype() : dtype, s, l, 0), vector(GT_F32, s, l, 1),
             vector(l.is_f8 ? y[0].dtype() : dtype, s, l, 2)} {
    fill_uniform(x, 1);
    fill_uniform(residual, 2);
    fill_uniform(norm_weight, 3, 0.25f);
    fill_uniform(norm_bias, 4, 0.25f);
    for (int i = 0; i < 3; ++i) {
      const float size = 1 / std::sqrt(static_cast<float>(s.c + 1)), unit = l.is_f8 ? 0x1p-6f : 1;
      for (int64_t f = 0; f < y[i].c(); ++f)
        for (int64_t c = 0; c < s.c; ++c)
          weight[i].set(l.weight == GT_WEIGHT_OUT_IN ? f : c, l.weight == GT_WEIGHT_OUT_IN ? c : f,
                        size / unit * uniform(5 + i, f * 65537 + c));
      for (int64_t f = 0; f < y[i].c(); ++f) scale[i].set(0, f, unit * (1 + 0.25f * uniform(11 + i, f)));
      fill_uniform(bias[i], 8 + i);
    }
  }
  bool has_norm() const { return layout.norm != GT_NORM_NONE; }
  gt_status run(const gt_stream &stream) const {
    const Layout &l = layout;
    gt_tensor yt[3], wt[3], st[3], bt[3];
    const gt_tensor *b[3], *f8[3];
    for (int i = 0; i < 3; ++i) {
      yt[i] = y[i].tensor(), wt[i] = weight[i].tensor(), st[i] = scale[i].vector(), bt[i] = bias[i].vector();
      b[i] = l.has_bias ? &bt[i] : nullptr;
      f8[i] = l.is_f8 ? &st[i] : nullptr;
    }
    const gt_tensor out = residual_out.tensor(), xt = x.tensor(), rt = residual.tensor(), nw = norm_weight.vector(),
                    nb = norm_bias.vector();
    const gt_tensor *const r = l.has_residual ? &rt : nullptr, *const o = has_norm() ? &out : nullptr;
    const gt_tensor *const w = has_norm() ? &nw : nullptr, *const c = l.norm == GT_NORM_LAYER ? &nb : nullptr;
    const WrittenInFront in_front({&x, &residual, &residual_out, &y[0], &y[1], &y[2]});
    if (l.is_qkv)
      return gt_norm_linear_qkv(&stream, &yt[0], &yt[1], &yt[2], o, &xt, r, l.norm, w, c, 1e-5f, &wt[0], f8[0], b[0],
                                &wt[1], f8[1], b[1], &wt[2], f8[2], b[2], l.weight);
    const bool gated = l.is_gated;
    return gt_norm_linear(&stream, &yt[0], o, &xt, r, l.norm, w, c, 1e-5f, &wt[0], f8[0], b[0],
                          gated ? &wt[1] : nullptr, gated ? f8[1] : nullptr, gated ? b[1] : nullptr, l.weight,
                          l.activation);
  }
  std::vector<const Rows *> outputs() const {
    std::vector<const Rows *> all = {&y[0]};
    if (layout.is_qkv) all.insert(all.end(), {&y[1], &y[2]});
    if (has_norm()) all.push_back(&residual_out);
    return all;
  }
  std::vector<const Rows *> operands() const {
    return {&y[0], &y[1], &y[2], &residual_out, &x, &residual, &norm_weight, &norm_bias, &weight[0], &weight[1],
            &weight[2], &scale[0], &scale[1], &scale[2], &bias[0], &bias[1], &bias[2]};
  }
};

inline std::string name(gt_dtype dtype, const Shape &s, const Layout &l) {
  char text[160];
  const char *const layout = l.weight == GT_WEIGHT_OUT_IN ? "[F, C]" : "[C, F]";
  snprintf(text, sizeof text, "norm_linear %s N %d C %d F %d norm %d %s pad %d%s%s", name_of(dtype),
           static_cast<int>(s.n), static_cast<int>(s.c), static_cast<int>(s.f), l.norm, layout,
           static_cast<int>(l.pad), l.is_qkv ? " qkv" : l.is_gated ? " gated" : "", l.is_f8 ? " f8" : "");
  return text;
}

// A norm's result may be rounded the other way by one ulp of x's dtype, in each of C terms of at most 1 / sqrt(C).
inline Tolerance tolerance(gt_dtype dtype, const Shape &s) {
  return {4, 8 * unit_of(dtype) + 16.0 * static_cast<double>(s.c) * 0x1p-24};
}

inline void check(gt_dtype dtype, const Shape &s, const Layout &l, float x_00 = 1,
                  std::initializer_list<const char *> orders = ORDERS) {
  if (l.is_f8 && (dtype == GT_F32 || (IS_INSTRUMENTED && (dtype == GT_F16 || s.c > 128)))) return;
  const auto make = [&] {
    Case c(dtype, s, l);
    if (s.c > 0 && s.n > 0) c.x.set(0, 0, x_00);
    return c;
  };
  check_against_cpu(name(dtype, s, l), make, tolerance(dtype, s), orders);
}

inline void check_shapes() {
  const std::vector<Shape> shapes = {{1, 128, 32}, {1, 768, 48}, {2, 576, 40}, {1, 48, 24}, {3, 257, 33},
                                     {17, 384, 64}, {2, 31, 100}, {1, 1, 1}, {1, 1152, 8}, {2, 2304, 16}, {0, 8, 8}};
  for (const gt_dtype dtype : FLOATS)
    for (const Shape &s : shapes)
      for (const Layout &l : LAYOUTS)
        if (!IS_INSTRUMENTED || s.n * s.c * s.f < 12000) check(dtype, s, l);
  if (IS_INSTRUMENTED) return;
  for (const Shape &s : {Shape{1, 128, 272}, {1, 8192, 16}, {16, 4096, 64}, {1, 16384, 16}, {2, 32, 400}})
    for (const Layout &l : LAYOUTS)
      if (s.c <= 8192 || l.norm == GT_NORM_NONE) check(GT_BF16, s, l, 1, {"fwd"});
}

inline void check_special_values() {
  for (const gt_dtype dtype : {GT_F32, GT_BF16})
    for (const Layout &l : LAYOUTS) {
      check(dtype, {2, 40, 20}, l, NAN);
      if (l.norm == GT_NORM_LAYER) check(dtype, {2, 40, 20}, l, INFINITY);
    }
}

inline void check_seeds() {
  for (const Layout &l : LAYOUTS) check(GT_BF16, {3, 1152, 48}, l, 1, SEEDS);
}

// Row `row` of the first result, as bits.
inline std::string bits_of(const Case &c, int64_t row, size_t columns) {
  std::string all;
  c.y[0].append_to(all);
  const size_t bytes = all.size() / static_cast<size_t>(c.shape.n);
  return all.substr(static_cast<size_t>(row) * bytes, bytes / static_cast<size_t>(c.shape.f) * columns);
}

// The same row alone, in any batch, with other tiles, and unaligned.
inline void check_rows_are_independent() {
  for (const gt_dtype dtype : FLOATS)
    for (Layout l : LAYOUTS) {
      if (l.is_f8 && dtype == GT_F32) continue;
      std::string expected;
      for (const Shape &s : {Shape{1, 384, 32}, {5, 384, 32}, {19, 384, 32}, {1, 384, 200}, {1, 384, 35}}) {
        for (const int64_t pad : {l.is_f8 ? 16 : 8, 1}) {
          l.pad = pad;
          const Case c(dtype, s, l);
          expect(c.run(cuda("fwd")) == GT_OK, "%s", gt_last_error());
          const std::string row = bits_of(c, 0, 32);
          if (expected.empty()) expected = row;
          expect(row == expected, "%s: row 0 has other bits", name(dtype, s, l).c_str());
        }
      }
    }
}

// The same row among so many that they do not fit in shared memory.
inline void check_rows_that_do_not_fit(bool is_f8) {
  const Layout l = {GT_NORM_NONE, GT_WEIGHT_OUT_IN, 16, GT_MLP_NONE, false, false, true, false, false, is_f8};
  const Shape one = {1, 14336, 8}, many = {8, 14336, 8};
  check(GT_BF16, many, l, 1, {"fwd"});
  const Case alone(GT_BF16, one, l), among(GT_BF16, many, l);
  expect(alone.run(cuda("fwd")) == GT_OK && among.run(cuda("fwd")) == GT_OK, "%s", gt_last_error());
  expect(bits_of(alone, 0, 8) == bits_of(among, 0, 8), "%s: row 0 has other bits", name(GT_BF16, many, l).c_str());
}

// The bits of the product alone.
inline void check_against_product_alone(const Shape &s) {
  for (const Layout &l : {Layout{GT_NORM_NONE, GT_WEIGHT_IN_OUT, 8, GT_MLP_NONE, false, false, true, false, false},
                          {GT_NORM_NONE, GT_WEIGHT_OUT_IN, 8, GT_MLP_NONE, false, false, true, false, false},
                          {GT_NORM_NONE, GT_WEIGHT_OUT_IN, 16, GT_MLP_NONE, false, false, true, false, false, true}})
    for (const gt_dtype dtype : {GT_BF16, GT_F16}) {
      if (IS_INSTRUMENTED && dtype == GT_F16) continue;
      const Case fused(dtype, s, l), alone(dtype, s, l);
      const gt_tensor y = alone.y[0].tensor(), x = alone.x.tensor(), w = alone.weight[0].tensor(),
                      scale = alone.scale[0].vector(), b = alone.bias[0].vector();
      const gt_stream stream = cuda("fwd");
      expect((l.is_f8 ? gt_linear_fp8(&stream, &y, &x, nullptr, &w, &scale, &b)
                      : gt_linear(&stream, &y, &x, &w, &b, l.weight)) == GT_OK, "%s", gt_last_error());
      for (const char *order : {"fwd", "rev"}) {
        expect(fused.run(cuda(order)) == GT_OK, "%s", gt_last_error());
        for (const int64_t row : {int64_t{0}, s.n - 1})
          expect(bits_of(fused, row, 16) == bits_of(alone, row, 16), "%s: other bits than the product alone",
                 name(dtype, s, l).c_str());
      }
    }
}

// The same with more and with less room for weights on their way: from one slot, which waits for each stretch, to all.
inline void check_few_slots() {
  for (const gt_dtype dtype : {GT_BF16, GT_F32})
    for (const Layout &l : LAYOUTS) {
      if (l.is_f8 && dtype == GT_F32) continue;
      for (const Shape &s : {Shape{2, 1168, 24}, {1, 48, 800}}) {
        if (IS_INSTRUMENTED && (s.c * s.f > 30000 || l.is_f8)) continue;
        std::string expected;
        for (const int64_t bytes : {225, 130, 110, 90, 70, 60, 50}) {
          const int64_t before = simt::max_dynamic_bytes;
          simt::max_dynamic_bytes = bytes << 10;
          const Case c(dtype, s, l);
          const gt_status status = c.run(cuda("fwd"));
          simt::max_dynamic_bytes = before;
          expect(status == GT_OK, "%s", gt_last_error());
          std::string all;
          for (const Rows *const y : c.outputs()) y->append_to(all);
          if (expected.empty()) expected = all;
          expect(all == expected, "%s: other bits with %d KiB", name(dtype, s, l).c_str(), static_cast<int>(bytes));
        }
      }
    }
}

// Of 16-bit weights [F, C]: how often a block reads them follows from how many rows it keeps, and how many bytes an SM
// has on their way from its slots.
inline void check_block_room() {
  struct Expected {
    int64_t n, c, parameters, slots_wanted;
    int most_blocks;
    int64_t rows, slots;
    int sm_blocks;
  };
  for (const Expected &e :
       {Expected{1, 2048, 1, 100, 3, 1, 3, 3}, {1, 2048, 1, 1, 3, 1, 1, 3}, {1, 8192, 0, 100, 3, 1, 3, 3},
        {16, 2048, 1, 100, 3, 16, 2, 2}, {8, 4096, 1, 100, 3, 8, 8, 1}, {16, 4096, 1, 100, 3, 16, 4, 1},
        {16, 5120, 1, 100, 3, 16, 2, 1}, {16, 8192, 1, 100, 3, 9, 2, 1}, {1, 8192, 0, 100, 2, 1, 5, 2},
        {40, 768, 2, 100, 3, 16, 2, 3}, {16, 14336, 0, 100, 3, 6, 3, 1}, {3, 0, 0, 0, 3, 3, 0, 3},
        {16, 2304, 0, 0, 3, 16, 0, 2}, {16, 5632, 1, 100, 3, 16, 1, 1}}) {
    const gt::BlockWish wish = {std::min(e.n, int64_t{16}), 2 * e.c + 16, e.slots_wanted, 16 << 10,
                                (8 << 10) + 4 * e.parameters * e.c};
    const gt::BlockRoom r = gt::block_room(wish, 225 << 10, e.most_blocks);
    expect(r.rows == e.rows && r.slots == e.slots && r.sm_blocks == e.sm_blocks,
           "block_room, bf16, N %d C %d: %d rows, %d slots, %d blocks, expected %d, %d, %d", static_cast<int>(e.n),
           static_cast<int>(e.c), static_cast<int>(r.rows), static_cast<int>(r.slots), r.sm_blocks,
           static_cast<int>(e.rows), static_cast<int>(e.slots), e.sm_blocks);
  }
}

inline void check_all() {
  check_block_room();
  check_shapes();
  check_special_values();
  check_few_slots();
  check_against_product_alone({1, 3584, 16});
  if (!IS_INSTRUMENTED) {
    check_seeds();
    check_rows_are_independent();
    for (const bool is_f8 : {false, true}) check_rows_that_do_not_fit(is_f8);
    for (const Shape &s : {Shape{1, 16384, 16}, {16, 3584, 16}, {3, 960, 400}}) check_against_product_alone(s);
  }
}

}  // namespace norm_linear
