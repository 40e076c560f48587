// Do the ops of gatun/image.h in CUDA, on the emulator, give what the CPU gives?
#include "family_test.h"

namespace {

using namespace test;

constexpr Tolerance EXACT = {0, 0}, ONE_ULP = {1, 1e-7};

// [B, H, W, C]: channels last with a gap after each pixel, or channels first.
struct Layout {
  const char *name;
  bool channels_last;
  int64_t pad, offset;
};
const Layout layouts[] = {
    {"aligned", true, 0, 0},
    {"a gap after each pixel", true, 8, 0},
    {"unaligned", true, 1, 1},
    {"channels first", false, 0, 0},
};

struct Size {
  int64_t b, h, w, c, new_h, new_w;
};

// What an op does with y [B, H', W', C] and x [B, H, W, C].
using Run = gt_status (*)(const gt_stream *, const gt_tensor *y, const gt_tensor *x);

struct Case {
  Run op;
  const Layout &layout;
  Size size;
  Rows x, y;

  Case(Run run, gt_dtype dtype, const Size &s, const Layout &l)
      : op(run), layout(l), size(s), x(image(dtype, s.h, s.w)), y(image(dtype, s.new_h, s.new_w)) {
    fill_uniform(x, 1);
    x.set(x.n() - 1, x.c() - 1, NAN);
    x.set(0, 0, INFINITY);
  }
  Rows image(gt_dtype dtype, int64_t h, int64_t w) const {
    return {dtype, size.b * (layout.channels_last ? h * w : size.c), layout.channels_last ? size.c : h * w, layout.pad,
            layout.offset};
  }
  gt_tensor tensor(const Rows &rows, int64_t h, int64_t w) const {
    const int64_t stride = (rows.at(1, 0) - rows.at(0, 0)) / bytes_of(rows.dtype());
    return layout.channels_last
               ? rows.view({size.b, h, w, size.c}, {h * w * stride, w * stride, stride, 1})
               : rows.view({size.b, h, w, size.c}, {size.c * stride, w, 1, stride});
  }
  gt_status run(const gt_stream &stream) const {
    const gt_tensor tx = tensor(x, size.h, size.w), ty = tensor(y, size.new_h, size.new_w);
    return op(&stream, &ty, &tx);
  }
  std::vector<const Rows *> outputs() const { return {&y}; }
  std::vector<const Rows *> operands() const { return {&x, &y}; }
};

void check_resampling() {
  const auto check = [](const char *op, Run run, gt_dtype dtype, const Size &size, Tolerance tolerance) {
    for (const Layout &l : layouts) {
      const std::string shape = " [" + std::to_string(size.b) + ", " + std::to_string(size.h) + ", " +
                                std::to_string(size.w) + ", " + std::to_string(size.c) + "] to " +
                                std::to_string(size.new_h) + " x " + std::to_string(size.new_w) + ", ";
      check_against_cpu(std::string(op) + " " + name_of(dtype) + shape + l.name,
                        [&] { return Case(run, dtype, size, l); }, tolerance);
    }
  };
  const Run pool = [](const gt_stream *s, const gt_tensor *y, const gt_tensor *x) {
    return gt_average_pool(s, y, x, 2);
  };
  for (const gt_dtype dtype : FLOATS)
    for (const int64_t c : {1, 3, 8, 33, 64}) {
      check("upsample_nearest", gt_upsample_nearest, dtype, {2, 3, 5, c, 6, 10}, EXACT);
      check("upsample_nearest", gt_upsample_nearest, dtype, {1, 5, 7, c, 9, 3}, EXACT);
      check("average_pool", pool, dtype, {2, 5, 7, c, 2, 3}, ONE_ULP);
    }
}

// The gradient of max_pool: dx from dy and x, whose values are few so that many are equal.
struct MaxCase : Case {
  int64_t window, step, pad;
  Rows value;

  MaxCase(gt_dtype dtype, const Size &s, int64_t window_, int64_t step_, int64_t pad_, const Layout &l)
      : Case(nullptr, dtype, s, l), window(window_), step(step_), pad(pad_), value(image(dtype, s.new_h, s.new_w)) {
    for (int64_t r = 0; r < value.n(); ++r)
      for (int64_t i = 0; i < value.c(); ++i) value.set(r, i, std::floor(2 * uniform(3, r * 65537 + i)));
    if (value.n() > 0) value.set(0, 0, NAN);
  }
  gt_status run(const gt_stream &stream) const {
    const gt_tensor dy = tensor(x, size.h, size.w), dx = tensor(y, size.new_h, size.new_w),
                    tx = tensor(value, size.new_h, size.new_w);
    return gt_max_pool_backward(&stream, &dx, &dy, &tx, window, step, pad);
  }
  std::vector<const Rows *> operands() const { return {&x, &y, &value}; }
};

void check_pool_gradients() {
  const Run average = [](const gt_stream *s, const gt_tensor *dx, const gt_tensor *dy) {
    return gt_average_pool_backward(s, dx, dy, 2);
  };
  const Run max_pool = [](const gt_stream *s, const gt_tensor *y, const gt_tensor *x) {
    return gt_max_pool(s, y, x, 3, 2, 1);
  };
  for (const gt_dtype dtype : FLOATS)
    for (const int64_t c : {1, 8, 33})
      for (const Layout &l : layouts) {
        const std::string what = std::string(name_of(dtype)) + " C=" + std::to_string(c) + " " + l.name;
        const auto resamples = [&](const char *op, Run run, const Size &size) {
          check_against_cpu(op + what, [&] { return Case(run, dtype, size, l); }, EXACT);
        };
        resamples("upsample_nearest_backward ", gt_upsample_nearest_backward, {2, 6, 10, c, 3, 5});
        resamples("upsample_nearest_backward ", gt_upsample_nearest_backward, {1, 9, 3, c, 5, 7});
        resamples("average_pool_backward ", average, {2, 2, 3, c, 5, 7});
        resamples("max_pool ", max_pool, {2, 5, 7, c, 3, 4});
        check_against_cpu("max_pool_backward " + what, [&] { return MaxCase(dtype, {2, 3, 4, c, 5, 7}, 3, 2, 1, l); },
                          EXACT);
        check_against_cpu("max_pool_backward " + what, [&] { return MaxCase(dtype, {1, 2, 3, c, 5, 7}, 2, 2, 0, l); },
                          EXACT);
      }
}

struct TimestepCase {
  int32_t flip;
  float shift;
  bool has_counter;
  Rows y, timesteps, counter;

  TimestepCase(gt_dtype dtype, int64_t e, int32_t flip_, float shift_, int32_t step)
      : flip(flip_), shift(shift_), has_counter(step != INT32_MIN), y(dtype, 4, e, 3, 1), timesteps(GT_F32, 1, 4),
        counter(GT_I32, 1, 1) {
    const float steps[] = {0, 1, 37.5f, 999};
    for (int64_t i = 0; i < 4; ++i) timesteps.set(0, i, steps[i]);
    counter.integer_at<int32_t>(0, 0) = step;
  }
  gt_status run(const gt_stream &stream) const {
    const gt_tensor ty = y.tensor(), ttimesteps = timesteps.vector(), tcounter = counter.vector();
    return gt_timestep_embedding(&stream, &ty, &ttimesteps, has_counter ? &tcounter : nullptr, flip, shift);
  }
  std::vector<const Rows *> outputs() const { return {&y}; }
  std::vector<const Rows *> operands() const { return {&y, &timesteps, &counter}; }
};

void check_timesteps() {
  for (const gt_dtype dtype : FLOATS)
    for (const int64_t e : {4, 33, 320})
      for (const int32_t flip : {0, 1})
        for (const int32_t step : {INT32_MIN, 0, 3, 4, -1})
          check_against_cpu("timestep_embedding " + std::string(name_of(dtype)) + " E=" + std::to_string(e) +
                                " flip=" + std::to_string(flip) + " counter=" + std::to_string(step),
                            [&] { return TimestepCase(dtype, e, flip, static_cast<float>(flip), step); }, EXACT);
}

struct PixelCase {
  int64_t channels;
  Rows y, x;

  PixelCase(gt_dtype dtype, int64_t c) : channels(c), y(GT_U8, 1, 2 * 5 * 7 * 3), x(dtype, 2 * 5 * 7, c, 1, 1) {
    fill_uniform(x, 1);
    x.set(3, 0, NAN);
    x.set(4, 0, INFINITY);
  }
  gt_status run(const gt_stream &stream) const {
    const gt_tensor ty = y.view({2, 5, 7, 3}, {105, 21, 3, 1});
    const int64_t c = channels, stride = c + 1;
    const gt_tensor tx = x.view({2, 5, 7, c}, {35 * stride, 7 * stride, stride, 1});
    return gt_rgb8(&stream, &ty, &tx, 0.5f, 0.5f);
  }
  std::vector<const Rows *> outputs() const { return {&y}; }
  std::vector<const Rows *> operands() const { return {&y, &x}; }
};

void check_pixels() {
  for (const gt_dtype dtype : FLOATS)
    for (const int64_t c : {1, 3})
      check_against_cpu("rgb8 " + std::string(name_of(dtype)) + " of " + std::to_string(c),
                        [&] { return PixelCase(dtype, c); }, EXACT);
}

void check_empty_and_errors() {
  const Rows x(GT_F32, 4, 8), y(GT_F32, 16, 8);
  gt_tensor tx = x.view({1, 2, 2, 8}, {32, 16, 8, 1}), ty = y.view({1, 4, 4, 8}, {128, 32, 8, 1});
  const gt_stream stream = cuda("no such order");
  expect(gt_upsample_nearest(&stream, &ty, &tx) == GT_DEVICE_ERROR &&
             !strncmp(gt_last_error(), "upsample_nearest: ", 18),
         "a launch that fails: '%s'", gt_last_error());
  tx.shape[0] = ty.shape[0] = 0;  // nothing is launched: the order does not matter
  expect(gt_upsample_nearest(&stream, &ty, &tx) == GT_OK, "no images: %s", gt_last_error());
}

}  // namespace

int main() {
  check_resampling();
  check_pool_gradients();
  check_timesteps();
  check_pixels();
  check_empty_and_errors();
  return summary();
}
