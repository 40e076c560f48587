// Do CUDA's gt_quantize_rows and gt_linear_fp8 give what the CPU's give, and the same bits for a row whatever surrounds
// it?
#include "family_test.h"

namespace {

using namespace test;

constexpr gt_dtype F8 = GT_F8_E4M3;

// Strides in elements: pad 16 and offset 0 keep rows of a multiple of 16 aligned, 1 aligns no row but the first.
struct Gaps {
  int64_t pad, offset;
};

struct Quantize {
  Rows y, scale, x;

  Quantize(gt_dtype dtype, int64_t n, int64_t c, Gaps gaps)
      : y(F8, n, c, gaps.pad, gaps.offset), scale(GT_F32, 1, n, 0, gaps.offset), x(dtype, n, c, gaps.pad, gaps.offset) {
    fill_uniform(x, 1);
    for (int64_t r = 1; r < n; r += 4)  // sizes from f32's least to its largest, for f16 fewer
      for (int64_t i = 0; i < c; ++i) x.set(r, i, std::ldexp(x.get(r, i), static_cast<int>(r * 37 % 250) - 125));
  }
  gt_status run(const gt_stream &stream) const {
    const gt_tensor yt = y.tensor(), st = scale.vector(), xt = x.tensor();
    return gt_quantize_rows(&stream, &yt, &st, &xt);
  }
  std::vector<const Rows *> outputs() const { return {&y, &scale}; }
  std::vector<const Rows *> operands() const { return {&y, &scale, &x}; }
};

void check_quantize(gt_dtype dtype, int64_t n, int64_t c, Gaps gaps, float x_10 = 1,
                    std::initializer_list<const char *> orders = ORDERS) {
  char text[128];
  snprintf(text, sizeof text, "quantize_rows %s N %d C %d pad %d x[1, 0] %g", name_of(dtype), static_cast<int>(n),
           static_cast<int>(c), static_cast<int>(gaps.pad), x_10);
  const auto make = [&] {
    Quantize q(dtype, n, c, gaps);
    if (n > 1 && c > 0 && x_10 != 1) q.x.set(1, 0, x_10);
    return q;
  };
  check_against_cpu(text, make, {0, 0}, orders);  // exact
}

void check_quantize_shapes() {
  for (const gt_dtype dtype : FLOATS) {
    for (const Gaps gaps : {Gaps{0, 0}, {16, 0}, {1, 1}}) {
      for (const int64_t c : {1, 8, 33, 264, 1000, 1024, 1048}) check_quantize(dtype, 5, c, gaps);
      check_quantize(dtype, 70, 40, gaps);
      check_quantize(dtype, 0, 8, gaps);
      check_quantize(dtype, 3, 0, gaps);
      for (const float x : {NAN, INFINITY, -INFINITY}) {
        check_quantize(dtype, 3, 40, gaps, x);
        check_quantize(dtype, 2, 1032, gaps, x);
      }
    }
    if (IS_INSTRUMENTED) continue;
    check_quantize(dtype, 9, 136, {0, 0}, 1, SEEDS);
    check_quantize(dtype, 2, 2056, {0, 0}, 1, SEEDS);
    check_quantize(dtype, 2, 16384 + 40, {0, 0});  // more than a block keeps
    check_quantize(dtype, 2, 16384 + 41, {1, 1}, NAN);
  }
}

// Quotients at middles between codes and beside them, by divisors of any size; those near 2^23, 3 * 2^22 and 2^24 come
// nearest to where a quotient could be rounded the other way.
void check_quotients() {
  const int64_t n = IS_INSTRUMENTED ? 40 : 2200, c = 32;
  Quantize on_cuda(GT_F32, n, c, {0, 0}), on_cpu(GT_F32, n, c, {0, 0});
  simt::Draw draw{12345};
  const auto up_to = [&](int below) { return static_cast<int>(draw.next() % static_cast<uint64_t>(below)); };
  for (int64_t r = 0; r < n; ++r) {
    const int mantissas[] = {(1 << 23) + up_to(40), (3 << 22) + up_to(40), (1 << 24) - 1 - up_to(40),
                             (1 << 23) + up_to(1 << 23)};
    const float scale = std::ldexp(static_cast<float>(mantissas[r % 4]), static_cast<int>(r % 220) - 128);
    for (int64_t i = 0; i < c; ++i) {
      const int halvings = up_to(13);
      const float middle = halvings < 8 ? std::ldexp(17.0f + 2 * static_cast<float>(up_to(7)), 4 - halvings)
                                        : std::ldexp(1.0f + 2 * static_cast<float>(up_to(8)), -10);
      float x = i == 0 ? 448 * scale : middle * scale;
      if (i % 3 > 0) x = std::nextafter(x, i % 3 == 1 ? 0.0f : 1e38f);
      on_cuda.x.set(r, i, x);
      on_cpu.x.set(r, i, x);
    }
  }
  expect(on_cuda.run(cuda("fwd")) == GT_OK && on_cpu.run(cpu(1)) == GT_OK, "%s", gt_last_error());
  const std::string codes = difference(on_cuda.y, on_cpu.y, {0, 0});
  expect(codes.empty(), "quantize_rows near middles: y%s", codes.c_str());
}

enum class Bias { NONE, LIKE_Y, F32 };

struct Shape {
  int64_t n, c, f;
};
struct Layout {
  Gaps gaps;
  Bias bias;
  bool y_is_f32;
};
constexpr Layout LAYOUTS[] = {{{0, 0}, Bias::NONE, false}, {{16, 0}, Bias::LIKE_Y, true}, {{1, 1}, Bias::F32, false}};

struct Case {
  Shape shape;
  Layout layout;
  Rows y, x, x_scale, weight, weight_scale, bias;

  static gt_dtype y_dtype(gt_dtype x, const Layout &l) { return l.y_is_f32 ? GT_F32 : x == F8 ? GT_BF16 : x; }
  Case(gt_dtype dtype, const Shape &s, const Layout &l)
      : shape(s), layout(l), y(y_dtype(dtype, l), s.n, s.f, 2 * l.gaps.pad, l.gaps.offset),
        x(dtype, s.n, s.c, l.gaps.pad, l.gaps.offset), x_scale(GT_F32, 1, s.n, 0, l.gaps.offset),
        weight(F8, s.f, s.c, l.gaps.pad, l.gaps.offset), weight_scale(GT_F32, 1, s.f, 0, l.gaps.offset),
        bias(l.bias == Bias::F32 ? GT_F32 : y.dtype(), 1, s.f, 0, l.gaps.offset) {
    fill_uniform(x, 1, dtype == F8 ? 200 : 1);
    fill_uniform(weight, 2, 200);
    fill_uniform(bias, 3);
    for (int64_t i = 0; i < s.n; ++i) x_scale.set(0, i, 0.01f + 0.001f * uniform(4, i));
    for (int64_t i = 0; i < s.f; ++i) weight_scale.set(0, i, 0.01f + 0.001f * uniform(5, i));
  }
  gt_status run(const gt_stream &stream) const {
    const gt_tensor yt = y.tensor(), xt = x.tensor(), wt = weight.tensor(), bt = bias.vector(), st = x_scale.vector(),
                    wst = weight_scale.vector();
    return gt_linear_fp8(&stream, &yt, &xt, x.dtype() == F8 ? &st : nullptr, &wt, &wst,
                         layout.bias == Bias::NONE ? nullptr : &bt);
  }
  std::vector<const Rows *> outputs() const { return {&y}; }
  std::vector<const Rows *> operands() const { return {&y, &x, &x_scale, &weight, &weight_scale, &bias}; }
};

constexpr std::initializer_list<gt_dtype> X_TYPES = {GT_BF16, GT_F16, F8};

void check(gt_dtype dtype, const Shape &s, const Layout &l, float x_00 = 1,
           std::initializer_list<const char *> orders = ORDERS) {
  char text[128];
  snprintf(text, sizeof text, "linear_fp8 %s N %d C %d F %d pad %d", name_of(dtype), static_cast<int>(s.n),
           static_cast<int>(s.c), static_cast<int>(s.f), static_cast<int>(l.gaps.pad));
  const auto make = [&] {
    Case c(dtype, s, l);
    if (s.c > 0 && s.n > 0) c.x.set(0, 0, x_00);
    return c;
  };
  // Two orders of summing C products, most of them below 8, in f32; 16-bit ones are rounded once more on either side.
  check_against_cpu(text, make, {1, 8.0 * static_cast<double>(s.c) * 0x1p-24}, orders);
}

void check_shapes() {
  const std::vector<Shape> shapes = {{1, 1, 1},     {1, 64, 8},   {1, 257, 33},  {2, 640, 31},
                                     {3, 127, 65},  {5, 1000, 17}, {8, 192, 40}, {16, 128, 97},
                                     {17, 576, 33}, {33, 64, 40}, {4, 0, 3},     {0, 8, 8}};
  for (const gt_dtype dtype : X_TYPES)
    for (const Shape &s : shapes)
      for (const Layout &l : LAYOUTS)
        if (!IS_INSTRUMENTED || s.n * s.c * s.f < 70000) check(dtype, s, l);
}

void check_special_values() {
  for (const gt_dtype dtype : {GT_BF16, GT_F16})
    for (const Layout &l : LAYOUTS) {
      check(dtype, {2, 64, 40}, l, NAN);
      check(dtype, {9, 64, 40}, l, INFINITY);
    }
}

void check_seeds() {
  for (const gt_dtype dtype : X_TYPES)
    for (const Layout &l : LAYOUTS)
      for (const Shape &s : {Shape{3, 1088, 33}, {17, 640, 40}}) check(dtype, s, l, 1, SEEDS);
}

// The same row alone, in any batch, unaligned, and with more columns behind it.
void check_rows_are_independent() {
  const int64_t columns = 40, channels = 576;
  const auto row_of = [](const Case &c, int64_t row) {
    std::string all;
    c.y.append_to(all);
    const size_t bytes = all.size() / static_cast<size_t>(c.shape.n);
    return all.substr(static_cast<size_t>(row) * bytes, bytes);
  };
  for (const gt_dtype dtype : X_TYPES) {
    std::string expected;
    for (const int64_t n : {1, 5, 8, 9, 16, 19})
      for (const int64_t pad : {16, 1}) {
        const Case c(dtype, {n, channels, columns}, {{pad, pad % 16}, Bias::F32, true});
        expect(c.run(cuda("fwd")) == GT_OK, "%s", gt_last_error());
        const std::string row = row_of(c, 0);
        if (expected.empty()) expected = row;
        expect(row == expected, "linear_fp8 %s: row 0 of %d has other bits, pad %d", name_of(dtype),
               static_cast<int>(n), static_cast<int>(pad));
      }
    const Case more(dtype, {7, channels, columns + 61}, {{0, 0}, Bias::F32, true});
    expect(more.run(cuda("fwd")) == GT_OK, "%s", gt_last_error());
    expect(row_of(more, 0).substr(0, expected.size()) == expected, "linear_fp8 %s: more columns change the first",
           name_of(dtype));
    const Case last(dtype, {35, channels, columns}, {{0, 0}, Bias::F32, true}),
        alone(dtype, {1, channels, columns}, {{16, 0}, Bias::F32, true});
    for (int64_t k = 0; k < channels; ++k) alone.x.set(0, k, last.x.get(34, k));
    alone.x_scale.set(0, 0, last.x_scale.get(0, 34));
    expect(last.run(cuda("fwd")) == GT_OK && alone.run(cuda("rev")) == GT_OK, "%s", gt_last_error());
    expect(row_of(last, 34) == row_of(alone, 0), "linear_fp8 %s: row 34 of 35 has other bits than alone",
           name_of(dtype));
  }
}

}  // namespace

int main() {
  check_quantize_shapes();
  check_quotients();
  check_shapes();
  check_special_values();
  if (!IS_INSTRUMENTED) check_seeds();
  check_rows_are_independent();
  return summary();
}
