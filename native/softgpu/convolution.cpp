// How is a convolution computed? Plainly: images as f32 with their padding, and loops over the filter.
#include "convolution.h"

#include <algorithm>
#include <vector>

namespace softgpu {

namespace {

int64_t volume(const Extent &e) { return e.d * e.h * e.w; }

Extent padded(const Geometry &g) {
  return {g.in.d + 2 * g.padding.d, g.in.h + 2 * g.padding.h, g.in.w + 2 * g.padding.w};
}

char *at(const Image &image, int64_t n, int64_t c, int64_t d, int64_t h, int64_t w) {
  const int64_t element =
      n * image.n_stride + c * image.c_stride + d * image.stride.d + h * image.stride.h + w * image.stride.w;
  return static_cast<char *>(image.data) + element * bytes_of(image.type);
}

void put(const Image &image, float alpha, float beta, int64_t n, int64_t c, int64_t d, int64_t h, int64_t w,
         float sum) {
  char *const p = at(image, n, c, d, h, w);
  float value = alpha * sum;
  if (beta != 0) value += beta * load(image.type, p);
  store(image.type, p, value);
}

float operand(const Convolution &conv, const Image &image, int64_t n, int64_t c, int64_t d, int64_t h, int64_t w) {
  const float x = load(image.type, at(image, n, c, d, h, w));
  return conv.has_tf32 && image.type == Type::F32 ? to_tf32(x) : x;
}

// One channel of x, with zeros around it.
void read_padded(const Convolution &conv, int64_t n, int64_t c, float *to) {
  const Geometry &g = conv.geometry;
  const Extent p = padded(g);
  std::fill_n(to, volume(p), 0.0f);
  for (int64_t d = 0; d < g.in.d; ++d)
    for (int64_t h = 0; h < g.in.h; ++h)
      for (int64_t w = 0; w < g.in.w; ++w)
        to[((d + g.padding.d) * p.h + h + g.padding.h) * p.w + w + g.padding.w] = operand(conv, conv.x, n, c, d, h, w);
}

// One channel of y, dense.
void read_output(const Convolution &conv, int64_t n, int64_t k, float *to) {
  const Extent &out = conv.geometry.out;
  for (int64_t d = 0; d < out.d; ++d)
    for (int64_t h = 0; h < out.h; ++h)
      for (int64_t w = 0; w < out.w; ++w) *to++ = operand(conv, conv.y, n, k, d, h, w);
}

// All weights between input channel c of a group and output channel k, as kernel.d x kernel.h x kernel.w;
// visit(weight's position, offset of the first padded input it meets).
template <class Visit>
void for_each_tap(const Geometry &g, Visit visit) {
  const Extent p = padded(g);
  for (int64_t d = 0; d < g.kernel.d; ++d)
    for (int64_t h = 0; h < g.kernel.h; ++h)
      for (int64_t w = 0; w < g.kernel.w; ++w) {
        const Extent weight =
            g.is_flipped ? Extent{g.kernel.d - 1 - d, g.kernel.h - 1 - h, g.kernel.w - 1 - w} : Extent{d, h, w};
        visit(weight, (d * g.dilation.d * p.h + h * g.dilation.h) * p.w + w * g.dilation.w);
      }
}

// visit(row of outputs, the first padded input of that row); both rows are out.w long, the second by steps of stride.w
template <class Visit>
void for_each_row(const Geometry &g, Visit visit) {
  const Extent p = padded(g);
  for (int64_t d = 0; d < g.out.d; ++d)
    for (int64_t h = 0; h < g.out.h; ++h)
      visit((d * g.out.h + h) * g.out.w, (d * g.stride.d * p.h + h * g.stride.h) * p.w);
}

}  // namespace

void convolve(const Convolution &conv) {
  const Geometry &g = conv.geometry;
  const int64_t channel = volume(padded(g));
  std::vector<float> in(static_cast<size_t>(g.c * channel)), sums(static_cast<size_t>(volume(g.out)));
  for (int64_t n = 0; n < g.n; ++n)
    for (int64_t group = 0; group < g.groups; ++group) {
      for (int64_t c = 0; c < g.c; ++c) read_padded(conv, n, group * g.c + c, in.data() + c * channel);
      for (int64_t k = group * g.k; k < (group + 1) * g.k; ++k) {
        std::fill(sums.begin(), sums.end(), 0.0f);
        for (int64_t c = 0; c < g.c; ++c)
          for_each_tap(g, [&](Extent tap, int64_t first) {
            const float weight = operand(conv, conv.w, k, c, tap.d, tap.h, tap.w);
            for_each_row(g, [&](int64_t out_row, int64_t in_row) {
              float *const s = sums.data() + out_row;
              const float *const x = in.data() + c * channel + first + in_row;
              for (int64_t w = 0; w < g.out.w; ++w) s[w] += weight * x[w * g.stride.w];
            });
          });
        const float *s = sums.data();
        for (int64_t d = 0; d < g.out.d; ++d)
          for (int64_t h = 0; h < g.out.h; ++h)
            for (int64_t w = 0; w < g.out.w; ++w) put(conv.y, conv.alpha, conv.beta, n, k, d, h, w, *s++);
      }
    }
}

void convolve_backward_data(const Convolution &conv) {
  const Geometry &g = conv.geometry;
  const Extent p = padded(g);
  const int64_t out_channel = volume(g.out);
  std::vector<float> sums(static_cast<size_t>(volume(p))), dy(static_cast<size_t>(g.k * out_channel));
  for (int64_t n = 0; n < g.n; ++n)
    for (int64_t group = 0; group < g.groups; ++group) {
      for (int64_t k = 0; k < g.k; ++k) read_output(conv, n, group * g.k + k, dy.data() + k * out_channel);
      for (int64_t c = 0; c < g.c; ++c) {
        std::fill(sums.begin(), sums.end(), 0.0f);
        for (int64_t i = 0; i < g.k; ++i) {
          const int64_t k = conv.is_backwards ? g.k - 1 - i : i;
          for_each_tap(g, [&](Extent tap, int64_t first) {
            const float weight = operand(conv, conv.w, group * g.k + k, c, tap.d, tap.h, tap.w);
            for_each_row(g, [&](int64_t out_row, int64_t in_row) {
              float *const s = sums.data() + first + in_row;
              const float *const y = dy.data() + k * out_channel + out_row;
              for (int64_t w = 0; w < g.out.w; ++w) s[w * g.stride.w] += weight * y[w];
            });
          });
        }
        for (int64_t d = 0; d < g.in.d; ++d)
          for (int64_t h = 0; h < g.in.h; ++h)
            for (int64_t w = 0; w < g.in.w; ++w)
              put(conv.x, conv.alpha, conv.beta, n, group * g.c + c, d, h, w,
                  sums[((d + g.padding.d) * p.h + h + g.padding.h) * p.w + w + g.padding.w]);
      }
    }
}

void convolve_backward_filter(const Convolution &conv) {
  const Geometry &g = conv.geometry;
  const int64_t in_channel = volume(padded(g)), out_channel = volume(g.out), taps = volume(g.kernel);
  std::vector<float> in(static_cast<size_t>(g.n * in_channel)), dy(static_cast<size_t>(g.n * g.k * out_channel));
  for (int64_t group = 0; group < g.groups; ++group) {
    for (int64_t n = 0; n < g.n; ++n)
      for (int64_t k = 0; k < g.k; ++k) read_output(conv, n, group * g.k + k, dy.data() + (n * g.k + k) * out_channel);
    for (int64_t c = 0; c < g.c; ++c) {
      for (int64_t n = 0; n < g.n; ++n) read_padded(conv, n, group * g.c + c, in.data() + n * in_channel);
      for (int64_t k = 0; k < g.k; ++k) {
        std::vector<float> sums(static_cast<size_t>(taps));
        for (int64_t i = 0; i < g.n; ++i) {
          const int64_t n = conv.is_backwards ? g.n - 1 - i : i;
          int64_t tap = 0;
          for_each_tap(g, [&](Extent, int64_t first) {
            for_each_row(g, [&](int64_t out_row, int64_t in_row) {
              const float *const x = in.data() + n * in_channel + first + in_row;
              const float *const y = dy.data() + (n * g.k + k) * out_channel + out_row;
              for (int64_t w = 0; w < g.out.w; ++w) sums[tap] += x[w * g.stride.w] * y[w];
            });
            ++tap;
          });
        }
        int64_t tap = 0;
        for_each_tap(g, [&](Extent at, int64_t) {
          put(conv.w, conv.alpha, conv.beta, group * g.k + k, c, at.d, at.h, at.w, sums[tap++]);
        });
      }
    }
  }
}

void sum_channels(const Image &from, const Image &to, const Extent &size, int64_t num_images, int64_t num_channels,
                  float alpha, float beta) {
  for (int64_t c = 0; c < num_channels; ++c) {
    float sum = 0;
    for (int64_t n = 0; n < num_images; ++n)
      for (int64_t d = 0; d < size.d; ++d)
        for (int64_t h = 0; h < size.h; ++h)
          for (int64_t w = 0; w < size.w; ++w) sum += load(from.type, at(from, n, c, d, h, w));
    put(to, alpha, beta, 0, c, 0, 0, 0, sum);
  }
}

}  // namespace softgpu
