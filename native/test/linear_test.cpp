// Does CUDA's gt_linear give what the CPU's gives, and the same bits for a row whatever surrounds it?
#include "family_test.h"
#include "linear_norm_part.h"

namespace {

using namespace test;

enum class Bias { NONE, LIKE_X, F32 };

struct Shape {
  int64_t n, c, f;
};
// Strides in elements: pad 8 and offset 0 keep rows of a multiple of 8 aligned, 1 aligns no row but the first.
struct Layout {
  gt_weight_layout weight;
  int64_t pad, offset;
  Bias bias;
  bool y_is_f32;
};
constexpr Layout LAYOUTS[] = {
    {GT_WEIGHT_OUT_IN, 0, 0, Bias::NONE, false},  {GT_WEIGHT_IN_OUT, 0, 0, Bias::NONE, false},
    {GT_WEIGHT_OUT_IN, 8, 0, Bias::LIKE_X, true}, {GT_WEIGHT_IN_OUT, 8, 0, Bias::F32, true},
    {GT_WEIGHT_OUT_IN, 1, 1, Bias::F32, false},   {GT_WEIGHT_IN_OUT, 3, 1, Bias::LIKE_X, true},
};

struct Case {
  Shape shape;
  Layout layout;
  Rows y, x, weight, bias;

  Case(gt_dtype dtype, const Shape &s, const Layout &l)
      : shape(s), layout(l), y(l.y_is_f32 ? GT_F32 : dtype, s.n, s.f, 2 * l.pad, l.offset),
        x(dtype, s.n, s.c, l.pad, l.offset),
        weight(dtype, l.weight == GT_WEIGHT_OUT_IN ? s.f : s.c, l.weight == GT_WEIGHT_OUT_IN ? s.c : s.f, l.pad,
               l.offset),
        bias(l.bias == Bias::F32 ? GT_F32 : dtype, 1, s.f, 0, l.offset) {
    fill_uniform(x, 1);
    for (int64_t i = 0; i < s.f; ++i)
      for (int64_t k = 0; k < s.c; ++k)
        weight.set(l.weight == GT_WEIGHT_OUT_IN ? i : k, l.weight == GT_WEIGHT_OUT_IN ? k : i,
                   uniform(2, i * 65537 + k));
    fill_uniform(bias, 3);
  }
  gt_status run(const gt_stream &stream) const {
    const gt_tensor yt = y.tensor(), xt = x.tensor(), wt = weight.tensor(), bt = bias.vector();
    return gt_linear(&stream, &yt, &xt, &wt, layout.bias == Bias::NONE ? nullptr : &bt, layout.weight);
  }
  std::vector<const Rows *> outputs() const { return {&y}; }
  std::vector<const Rows *> operands() const { return {&y, &x, &weight, &bias}; }
};

std::string name(gt_dtype dtype, const Shape &s, const Layout &l) {
  char text[128];
  snprintf(text, sizeof text, "linear %s N %d C %d F %d %s pad %d", name_of(dtype), static_cast<int>(s.n),
           static_cast<int>(s.c), static_cast<int>(s.f), l.weight == GT_WEIGHT_OUT_IN ? "[F, C]" : "[C, F]",
           static_cast<int>(l.pad));
  return text;
}

// Two orders of summing C products of at most 4 each in f32; 16-bit results are rounded once more on either side.
Tolerance tolerance(const Shape &s) { return {1, 4.0 * static_cast<double>(s.c) * 0x1p-24}; }

void check(gt_dtype dtype, const Shape &s, const Layout &l, float x_00 = 1,
           std::initializer_list<const char *> orders = ORDERS) {
  const auto make = [&] {
    Case c(dtype, s, l);
    if (s.c > 0 && s.n > 0) c.x.set(0, 0, x_00);
    return c;
  };
  check_against_cpu(name(dtype, s, l), make, tolerance(s), orders);
}

void check_shapes() {
  const std::vector<Shape> shapes = {{1, 1, 1},     {1, 128, 8},   {1, 257, 33},   {2, 31, 64},  {3, 127, 127},
                                     {5, 1000, 31}, {16, 96, 257}, {17, 1032, 65}, {33, 64, 40}, {4, 0, 3}, {0, 8, 8}};
  for (const gt_dtype dtype : FLOATS)
    for (const Shape &s : shapes)
      for (const Layout &l : LAYOUTS)
        if (!IS_INSTRUMENTED || s.n * s.c * s.f < 70000) check(dtype, s, l);
}

void check_special_values() {
  for (const gt_dtype dtype : FLOATS)
    for (const Layout &l : LAYOUTS) {
      check(dtype, {2, 40, 70}, l, NAN);
      check(dtype, {2, 40, 70}, l, INFINITY);
    }
}

void check_seeds() {
  for (const gt_dtype dtype : {GT_F32, GT_BF16})
    for (const Layout &l : LAYOUTS)
      for (const Shape &s : {Shape{3, 127, 33}, {17, 640, 40}}) check(dtype, s, l, 1, SEEDS);
}

// Row `row` of the result, as bits.
std::string bits_of(const Case &c, int64_t row) {
  std::string all;
  c.y.append_to(all);
  const size_t bytes = all.size() / static_cast<size_t>(c.shape.n);
  return all.substr(static_cast<size_t>(row) * bytes, bytes);
}

// The same row alone, in any batch, unaligned, and with more columns behind it.
void check_rows_are_independent() {
  const int64_t columns = 40, channels = 296;
  for (const gt_dtype dtype : FLOATS)
    for (const gt_weight_layout weight : {GT_WEIGHT_OUT_IN, GT_WEIGHT_IN_OUT}) {
      std::string expected;
      for (const int64_t n : {1, 3, 8, 16, 19})
        for (const int64_t pad : {8, 1}) {
          const Case c(dtype, {n, channels, columns}, {weight, pad, pad % 8, Bias::LIKE_X, true});
          expect(c.run(cuda("fwd")) == GT_OK, "%s", gt_last_error());
          const std::string row = bits_of(c, 0);
          if (expected.empty()) expected = row;
          expect(row == expected, "linear %s: row 0 of %d has other bits, pad %d", name_of(dtype), static_cast<int>(n),
                 static_cast<int>(pad));
        }
      const Case more(dtype, {5, channels, columns + 93}, {weight, 0, 0, Bias::LIKE_X, true});
      expect(more.run(cuda("fwd")) == GT_OK, "%s", gt_last_error());
      expect(bits_of(more, 0).substr(0, expected.size()) == expected, "linear %s: more columns change the first",
             name_of(dtype));
      const Case last(dtype, {35, channels, columns}, {weight, 0, 0, Bias::LIKE_X, true}),
          alone(dtype, {1, channels, columns}, {weight, 8, 0, Bias::LIKE_X, true});
      for (int64_t k = 0; k < channels; ++k) alone.x.set(0, k, last.x.get(34, k));
      expect(last.run(cuda("fwd")) == GT_OK && alone.run(cuda("rev")) == GT_OK, "%s", gt_last_error());
      expect(bits_of(last, 34) == bits_of(alone, 0), "linear %s: row 34 of 35 has other bits than alone",
             name_of(dtype));
    }
}

}  // namespace

int main() {
  check_shapes();
  check_special_values();
  if (!IS_INSTRUMENTED) check_seeds();
  check_rows_are_independent();
  norm_linear::check_all();
  return summary();
}
