// Do the convolutions of CUDA and their gradients give what the CPU gives, and the same bits for an image whatever
// surrounds it?
#include "family_test.h"

namespace {

using namespace test;

struct Shape {
  int64_t b, h, w, c, f, kh, kw;
};
struct Window {
  int64_t stride_h, stride_w, pad_top, pad_bottom, pad_left, pad_right, dilation_h, dilation_w, groups;
};
// Of a transposed one pad_top and pad_left are the pads, pad_bottom and pad_right the output pads.
struct Layout {
  bool channels_last;  // x, y and weight; else the order of torch, as permuted views
  int64_t pad, offset;  // elements behind a pixel, and before the first
  gt_dtype bias;        // 0: none
  gt_activation activation;
};
constexpr Layout LAYOUTS[] = {
    {true, 0, 0, 0, GT_ACTIVATION_NONE},
    {true, 8, 0, GT_F32, GT_ACTIVATION_SILU},
    {true, 3, 1, GT_BF16, GT_ACTIVATION_RELU},
    {false, 0, 0, GT_F32, GT_ACTIVATION_TANH},
};

int64_t size_of(int64_t in, int64_t taps, int64_t stride, int64_t before, int64_t after, int64_t dilation, bool up) {
  return up ? (in - 1) * stride - 2 * before + dilation * (taps - 1) + after + 1
            : (in + before + after - dilation * (taps - 1) - 1) / stride + 1;
}

// [N, H, W, C] in either order of memory, `pad` elements behind each pixel or each row of channels first.
struct Images {
  int64_t n, h, w, c, pad;
  bool last;
  Rows rows;

  Images(gt_dtype dtype, int64_t n_, int64_t h_, int64_t w_, int64_t c_, const Layout &l)
      : n(n_), h(h_), w(w_), c(c_), pad(l.pad), last(l.channels_last),
        rows(dtype, last ? n * h * w : n * c * h, last ? c : w, l.pad, l.offset) {}
  gt_tensor tensor() const {
    const int64_t row = (last ? c : w) + pad;
    return last ? rows.view({n, h, w, c}, {h * w * row, w * row, row, 1})
                : rows.view({n, h, w, c}, {c * h * row, row, 1, h * row});
  }
};

struct Case {
  Window g;
  Layout layout;
  bool up;
  Images y, x, weight;
  Rows bias;

  Case(gt_dtype dtype, const Shape &s, const Window &g_, const Layout &l, bool up_)
      : g(g_), layout(l), up(up_),
        y(dtype, s.b, size_of(s.h, s.kh, g.stride_h, g.pad_top, g.pad_bottom, g.dilation_h, up),
          size_of(s.w, s.kw, g.stride_w, g.pad_left, g.pad_right, g.dilation_w, up), s.f, l),
        x(dtype, s.b, s.h, s.w, s.c, l),
        weight(dtype, up ? s.c : s.f, s.kh, s.kw, (up ? s.f : s.c) / g.groups, l),
        bias(l.bias == GT_F32 ? GT_F32 : dtype, 1, s.f, 0, l.offset) {
    fill_uniform(x.rows, 1);
    fill_uniform(weight.rows, 2);
    fill_uniform(bias, 3);
  }
  gt_status run(const gt_stream &stream) const {
    const gt_tensor yt = y.tensor(), xt = x.tensor(), wt = weight.tensor(), bt = bias.vector();
    const gt_tensor *b = layout.bias ? &bt : nullptr;
    return up ? gt_conv_transpose2d(&stream, &yt, &xt, &wt, b, g.stride_h, g.stride_w, g.pad_top, g.pad_left,
                                    g.pad_bottom, g.pad_right, g.dilation_h, g.dilation_w, g.groups, layout.activation)
              : gt_conv2d(&stream, &yt, &xt, &wt, b, g.stride_h, g.stride_w, g.pad_top, g.pad_bottom, g.pad_left,
                          g.pad_right, g.dilation_h, g.dilation_w, g.groups, layout.activation);
  }
  std::vector<const Rows *> outputs() const { return {&y.rows}; }
  std::vector<const Rows *> operands() const { return {&y.rows, &x.rows, &weight.rows, &bias}; }
};

// Two orders of summing products of at most 4 each in f32; 16-bit results are rounded once more on either side.
Tolerance tolerance(const Shape &s) { return {1, 8.0 * static_cast<double>(s.c * s.kh * s.kw) * 0x1p-24}; }

void check(gt_dtype dtype, const Shape &s, const Window &g, const Layout &l, bool up, float x_00 = 1) {
  char text[160];
  snprintf(text, sizeof text, "%s %s B %d %dx%d C %d F %d kernel %dx%d groups %d %s pad %d",
           up ? "transposed" : "conv2d", name_of(dtype), static_cast<int>(s.b), static_cast<int>(s.h),
           static_cast<int>(s.w), static_cast<int>(s.c), static_cast<int>(s.f), static_cast<int>(s.kh),
           static_cast<int>(s.kw), static_cast<int>(g.groups), l.channels_last ? "channels last" : "channels first",
           static_cast<int>(l.pad));
  const auto make = [&] {
    Case c(dtype, s, g, l, up);
    if (s.b > 0 && s.c > 0) c.x.rows.set(0, 0, x_00);
    return c;
  };
  check_against_cpu(text, make, tolerance(s));
}

constexpr Window ONE = {1, 1, 0, 0, 0, 0, 1, 1, 1}, SAME = {1, 1, 1, 1, 1, 1, 1, 1, 1},
                 DOWN = {2, 2, 0, 1, 0, 1, 1, 1, 1};

Window with_groups(Window g, int64_t groups) {
  g.groups = groups;
  return g;
}

void check_shapes() {
  const struct {
    Shape shape;
    Window window;
  } plain[] = {
      {{2, 3, 5, 7, 9, 1, 1}, ONE},          {{1, 5, 4, 8, 70, 3, 3}, SAME},
      {{2, 9, 8, 40, 5, 3, 3}, SAME},        {{1, 9, 6, 3, 6, 3, 3}, DOWN},
      {{1, 6, 5, 16, 8, 4, 4}, {2, 2, 1, 1, 1, 1, 1, 1, 1}},
      {{1, 6, 7, 5, 3, 3, 2}, {2, 1, 1, 0, 2, 3, 1, 2, 1}},
      {{1, 5, 4, 48, 6, 3, 3}, with_groups(SAME, 3)}, {{1, 5, 4, 9, 9, 3, 3}, with_groups(SAME, 9)},
      {{0, 4, 4, 3, 2, 3, 3}, SAME},         {{1, 4, 4, 0, 2, 3, 3}, SAME},
  },
    transposed[] = {
      {{2, 3, 4, 8, 3, 4, 4}, {2, 2, 1, 0, 1, 0, 1, 1, 1}}, {{1, 2, 3, 33, 35, 3, 3}, {3, 2, 0, 2, 1, 0, 1, 1, 1}},
      {{2, 1, 1, 6, 4, 4, 4}, ONE},                         {{1, 3, 3, 4, 2, 2, 2}, {3, 3, 0, 0, 0, 0, 1, 1, 1}},
      {{1, 4, 3, 2, 3, 3, 3}, {2, 3, 1, 0, 2, 1, 4, 2, 1}}, {{1, 3, 4, 16, 4, 3, 3}, {2, 1, 1, 0, 1, 0, 1, 1, 2}},
      {{1, 2, 2, 0, 3, 3, 3}, ONE},
  };
  for (const gt_dtype dtype : FLOATS)
    for (Layout l : LAYOUTS) {
      if (l.bias && l.bias != GT_F32) l.bias = dtype;
      for (const auto &p : plain) check(dtype, p.shape, p.window, l, false);
      for (const auto &p : transposed) check(dtype, p.shape, p.window, l, true);
    }
}

void check_special_values() {
  for (const gt_dtype dtype : FLOATS)
    for (const float value : {NAN, INFINITY}) {
      check(dtype, {2, 4, 5, 8, 9, 3, 3}, SAME, LAYOUTS[0], false, value);
      check(dtype, {2, 3, 4, 8, 3, 4, 4}, {2, 2, 1, 0, 1, 0, 1, 1, 1}, LAYOUTS[3], true, value);
    }
}

// Bits of image `i` of n, wherever it lies.
std::string bits_of(const Case &c, int64_t image) {
  std::string all;
  c.y.rows.append_to(all);
  const size_t bytes = all.size() / static_cast<size_t>(c.y.n);
  return all.substr(static_cast<size_t>(image) * bytes, bytes);
}

// The last image of three, alone, unaligned.
void check_images_are_independent() {
  for (const gt_dtype dtype : FLOATS)
    for (const bool up : {false, true}) {
      const Shape three = {3, 5, 5, 40, 9, 3, 3}, one = {1, 5, 5, 40, 9, 3, 3};
      const Case all(dtype, three, ONE, LAYOUTS[0], up);
      const Case alone(dtype, one, ONE, {true, 3, 1, 0, GT_ACTIVATION_NONE}, up);
      for (int64_t i = 0; i < 25; ++i)
        for (int64_t k = 0; k < 40; ++k) alone.x.rows.set(i, k, all.x.rows.get(50 + i, k));
      for (int64_t i = 0; i < alone.weight.rows.n(); ++i)
        for (int64_t k = 0; k < alone.weight.rows.c(); ++k) alone.weight.rows.set(i, k, all.weight.rows.get(i, k));
      expect(all.run(cuda("fwd")) == GT_OK && alone.run(cuda("rev")) == GT_OK, "%s", gt_last_error());
      expect(bits_of(all, 2) == bits_of(alone, 0), "%s %s: image 2 of 3 has other bits than alone",
             up ? "transposed" : "conv2d", name_of(dtype));
    }
}

// The gradients of a case: of x and of weight, from dy.
struct Gradients {
  Case c;
  Images dx, dw;
  bool of_weight;
  Rows workspace;

  static Images weights(gt_dtype dtype, const Case &c, const Layout &l) {
    return Images(dtype, c.weight.n, c.weight.h, c.weight.w, c.weight.c, l);
  }
  Gradients(gt_dtype dtype, const Shape &s, const Window &g, const Layout &l, bool up, bool of_weight_,
            gt_dtype dw_dtype)
      : c(dtype, s, g, l, up), dx(dtype, c.x.n, c.x.h, c.x.w, c.x.c, l), dw(weights(dw_dtype, c, l)),
        of_weight(of_weight_), workspace(GT_U8, 1, workspace_bytes()) {
    fill_uniform(c.y.rows, 4);
  }
  int64_t workspace_bytes() const {
    const gt_stream stream = cuda("fwd");
    const gt_tensor dwt = dw.tensor(), images = c.up ? c.x.tensor() : c.y.tensor();
    int64_t bytes = 0;
    expect(gt_conv2d_backward_weight_workspace(&stream, &dwt, &images, c.g.groups, &bytes) == GT_OK, "%s",
           gt_last_error());
    return bytes;
  }
  gt_status run(const gt_stream &stream) const {
    const gt_tensor dy = c.y.tensor(), x = c.x.tensor(), w = c.weight.tensor(), dxt = dx.tensor(), dwt = dw.tensor(),
                    space = workspace.vector();
    const gt_tensor *ws = workspace.c() > 0 ? &space : nullptr;
    const Window &g = c.g;
    if (c.up)
      return of_weight ? gt_conv_transpose2d_backward_weight(&stream, &dwt, &dy, &x, g.stride_h, g.stride_w, g.pad_top,
                                                             g.pad_left, g.pad_bottom, g.pad_right, g.dilation_h,
                                                             g.dilation_w, g.groups, ws)
                       : gt_conv_transpose2d_backward_input(&stream, &dxt, &dy, &w, g.stride_h, g.stride_w, g.pad_top,
                                                            g.pad_left, g.pad_bottom, g.pad_right, g.dilation_h,
                                                            g.dilation_w, g.groups);
    return of_weight ? gt_conv2d_backward_weight(&stream, &dwt, &dy, &x, g.stride_h, g.stride_w, g.pad_top,
                                                 g.pad_bottom, g.pad_left, g.pad_right, g.dilation_h, g.dilation_w,
                                                 g.groups, ws)
                     : gt_conv2d_backward_input(&stream, &dxt, &dy, &w, g.stride_h, g.stride_w, g.pad_top,
                                                g.pad_bottom, g.pad_left, g.pad_right, g.dilation_h, g.dilation_w,
                                                g.groups);
  }
  std::vector<const Rows *> outputs() const { return {of_weight ? &dw.rows : &dx.rows}; }
  std::vector<const Rows *> operands() const { return {&c.y.rows, &c.x.rows, &c.weight.rows, &dx.rows, &dw.rows}; }
};

void check_gradients(gt_dtype dtype, const Shape &s, const Window &g, const Layout &l, bool up, gt_dtype dw_dtype,
                     std::initializer_list<const char *> orders = ORDERS) {
  for (const bool of_weight : {false, true}) {
    char text[160];
    snprintf(text, sizeof text, "gradient of %s of %s %s B %d %dx%d C %d F %d groups %d %s pad %d",
             of_weight ? "weight" : "x", up ? "transposed" : "conv2d", name_of(dtype), static_cast<int>(s.b),
             static_cast<int>(s.h), static_cast<int>(s.w), static_cast<int>(s.c), static_cast<int>(s.f),
             static_cast<int>(g.groups), l.channels_last ? "channels last" : "channels first", static_cast<int>(l.pad));
    const auto make = [&] { return Gradients(dtype, s, g, l, up, of_weight, dw_dtype); };
    const Gradients sized = make();
    const int64_t terms = of_weight ? s.b * std::max(s.h * s.w, sized.c.y.h * sized.c.y.w) : s.f * s.kh * s.kw;
    check_against_cpu(text, make, {1, 8.0 * static_cast<double>(terms) * 0x1p-24}, orders);
  }
}

void check_gradient_shapes() {
  const struct {
    Shape shape;
    Window window;
    bool up;
  } cases[] = {
      {{2, 3, 5, 7, 9, 1, 1}, ONE, false},
      {{2, 5, 6, 16, 24, 3, 3}, SAME, false},
      {{1, 9, 6, 3, 70, 3, 3}, DOWN, false},
      {{1, 6, 7, 5, 3, 3, 2}, {2, 1, 1, 0, 2, 3, 1, 2, 1}, false},
      {{1, 5, 4, 48, 6, 3, 3}, with_groups(SAME, 3), false},
      {{1, 5, 4, 9, 9, 3, 3}, with_groups(SAME, 9), false},
      {{0, 4, 4, 3, 2, 3, 3}, SAME, false},
      {{2, 3, 4, 8, 16, 4, 4}, {2, 2, 1, 0, 1, 0, 1, 1, 1}, true},
      {{1, 2, 3, 33, 35, 3, 3}, {3, 2, 0, 2, 1, 0, 1, 1, 1}, true},
      {{1, 3, 4, 16, 4, 3, 3}, {2, 1, 1, 0, 1, 0, 1, 1, 2}, true},
  };
  const Layout layouts[] = {LAYOUTS[0], LAYOUTS[2], LAYOUTS[3]};
  for (const gt_dtype dtype : FLOATS)
    for (const Layout &l : layouts)
      for (const auto &c : cases)
        if (!IS_INSTRUMENTED || &l == &layouts[c.up ? 1 : 0] || dtype == GT_BF16)
          check_gradients(dtype, c.shape, c.window, l, c.up, l.channels_last ? GT_F32 : dtype);
  // several parts of the pixels
  for (const gt_dtype dtype : FLOATS)
    check_gradients(dtype, {2, 23, 25, 8, 8, 3, 3}, SAME, LAYOUTS[0], false, GT_F32);
  if (!IS_INSTRUMENTED)
    for (const gt_dtype dtype : FLOATS)
      check_gradients(dtype, {2, 5, 6, 16, 24, 3, 3}, SAME, LAYOUTS[0], false, GT_F32, SEEDS);
}

}  // namespace

int main() {
  check_shapes();
  check_gradient_shapes();
  check_special_values();
  check_images_are_independent();
  return summary();
}
