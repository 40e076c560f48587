// Group and batch normalisation of images: argument checks, dispatch, and the CPU twin of norm_image.cu. Not in
// norm.cpp, whose unit of work is a row: here pixels share their statistics, and blocks of pixels are the unit.
#include "gatun/norm.h"

#include <utility>

#include "check.h"
#include "cpu/isa.h"
#include "norm_image_check.h"

#if defined(GT_ISA)
// Computes    gatun/norm.h
// Mapping     Channels last: blocks of block_pixels pixels are split over threads, each summed per channel in strips of
//             STRIP channels. Channels first: runs of RUN_PIXELS pixels of one channel. Both give a mean and a sum of
//             squared deviations per block and channel, which are joined in the order of the blocks, then over the
//             channels of a group: neither threads nor other images change an order.
// Memory      x twice, y once, past the caches where it is large. Images are taken IMAGES_ELEMENTS at a time, so that
//             the second pass finds small ones in the cache. The workspace has 16 bytes for a block of a channel.
// Numerics    Statistics are summed in f64, but for the deviations of ROWS values from one near them; of bf16, channels
//             last, for ROWS values themselves and their squares (Summing).
//             y = (x - mean) * a + d, where d carries what rounding the mean to f32 lost.
//             silu of bf16 takes a sigmoid within 2^-12, far inside its rounding. Channels last, the 2 W channels of
//             two vectors are then rounded with ties away from 0; channels left over, and channels first, to even.
// Limits      Values of a channel that lie more than 4e18 from those beside them may have squares beyond f32: then the
//             variance is Inf, or NaN
#include <math.h>

#include "cpu/channel_statistics.h"
#include "cpu/parallel.h"

namespace gt::GT_ISA {
namespace {

constexpr int64_t BLOCK_ROWS = 9;                 // times ROWS pixels: a thread's least share
constexpr int64_t MOST_BLOCKS = 128;              // of an image, about: those of large ones are larger
constexpr int64_t RUN_PIXELS = 4096;              // of one channel: a thread's least share, 16 KiB in f32
constexpr int64_t TOGETHER = 4;                   // vectors that are normalised, then stored
constexpr int64_t AHEAD = 8;                      // vectors ahead that lines of y are asked for, where it is cached
constexpr int64_t IMAGES_ELEMENTS = 1024 * 1024;  // 4 MiB in f32
constexpr int64_t PADDING = 16;                   // channels of a workspace row are a multiple: the widest vector
constexpr int64_t PIECE = 64;                     // channels joined by a thread at once
constexpr int64_t ACTIVATION_COST = 16;           // of an element, in the units of parallel_for

// How the pixels of an image are cut, and where the workspace has what.
struct Plan {
  bool channels_last;
  int64_t b, s, c, block, blocks, images, row;
  double *channel_mean, *channel_squares;  // [images, row]
  double *block_mean, *block_squares;      // [images, blocks, row]
  float *mean, *factor, *offset;           // [images, row]: y = (x - mean) * factor + offset

  // images_at_once: 0 for as many as a cache holds.
  Plan(const gt_tensor &x, bool last, void *workspace, int64_t images_at_once = 0)
      : channels_last(last), b(x.shape[0]), s(x.shape[1]), c(x.shape[2]) {
    block = last ? block_pixels(s) : RUN_PIXELS;
    blocks = (s + block - 1) / block;
    images = at_most(b, images_at_once > 0 ? images_at_once : 1 + IMAGES_ELEMENTS / (s * c));
    row = round_up(c, PADDING);
    channel_mean = static_cast<double *>(workspace);
    channel_squares = channel_mean + images * row;
    block_mean = channel_squares + images * row;
    block_squares = block_mean + images * blocks * row;
    mean = reinterpret_cast<float *>(block_squares + images * blocks * row);
    factor = mean + images * row;
    offset = factor + images * row;
  }
  int64_t bytes() const { return images * row * (2 * 8 + 2 * 8 * blocks + 3 * 4); }
  int64_t pixels(int64_t i) const { return at_most(s - i * block, block); }
  // ROWS parts of an odd number of pixels: those of an even one may lie a multiple of 4 KiB apart, where all want the
  // same few places of the first cache.
  static int64_t block_pixels(int64_t s) {
    const int64_t part = s / MOST_BLOCKS / ROWS | 1;
    return ROWS * (part > BLOCK_ROWS ? part : BLOCK_ROWS);
  }
};

// The blocks of some images from first on.
template <class T>
void block_statistics(const gt_stream *stream, const Plan &p, const Image<const T> &x, int64_t first, int64_t images,
                      bool in_pairs) {
  const int64_t strips = p.channels_last ? (p.c + STRIP - 1) / STRIP : p.c;
  const int64_t strip = p.channels_last ? at_most(round_up((p.c + strips - 1) / strips, W), STRIP) : 1;
  parallel_for(stream, images * p.blocks * strips, p.block * strip, [&](int64_t begin, int64_t end) {
    for (int64_t item = begin; item < end; ++item) {
      const int64_t c = item % strips * strip, block = item / strips % p.blocks, image = item / strips / p.blocks;
      if (c >= p.c) continue;
      const int64_t at = (image * p.blocks + block) * p.row + c;
      const T *data = x.at(first + image, block * p.block, c);
      if (p.channels_last)
        channel_statistics(p.block_mean + at, p.block_squares + at, data, x.stride_s, p.pixels(block),
                           at_most(p.c - c, strip), in_pairs);
      else
        run_statistics(p.block_mean + at, p.block_squares + at, data, p.pixels(block));
    }
  });
}

// Joins the blocks of W/2 channels. Lanes beyond C have what the workspace held, and nobody reads them.
GT_INLINE void join_blocks(const Plan &p, int64_t image, int64_t c) {
  const double *means = p.block_mean + image * p.blocks * p.row + c;
  const double *squares = p.block_squares + image * p.blocks * p.row + c;
  vd sum{};
  for (int64_t i = 0; i < p.blocks; ++i) sum += load_doubles(means + i * p.row) * static_cast<double>(p.pixels(i));
  const vd mean = sum / static_cast<double>(p.s);
  vd square{};
  for (int64_t i = 0; i < p.blocks; ++i) {
    const vd d = load_doubles(means + i * p.row) - mean;
    square += load_doubles(squares + i * p.row) + d * d * static_cast<double>(p.pixels(i));
  }
  memcpy(p.channel_mean + image * p.row + c, &mean, sizeof mean);
  memcpy(p.channel_squares + image * p.row + c, &square, sizeof square);
}

void join_all_blocks(const gt_stream *stream, const Plan &p, int64_t images) {
  const int64_t pieces = (p.c + PIECE - 1) / PIECE;
  parallel_for(stream, images * pieces, 4 * PIECE * p.blocks, [&](int64_t begin, int64_t end) {
    for (int64_t item = begin; item < end; ++item)
      for (int64_t c = item % pieces * PIECE; c < at_most(p.c, (item % pieces + 1) * PIECE); c += W / 2)
        join_blocks(p, item / pieces, c);
  });
}

struct Affine {
  const gt_tensor *mean, *rstd, *weight, *bias, *scale, *shift;
  int64_t groups;
  float eps;
};

// The statistics of group g of image b, number image in the workspace, and the coefficients of its channels.
template <class T>
void finish_group(const Plan &p, const Affine &a, int64_t b, int64_t image, int64_t g) {
  const int64_t width = p.c / a.groups, begin = g * width, end = begin + width;
  const double *means = p.channel_mean + image * p.row, *squares = p.channel_squares + image * p.row;
  double sum = 0, square = 0;
  for (int64_t c = begin; c < end; ++c) sum += means[c];
  const double mean = sum / static_cast<double>(width);
  for (int64_t c = begin; c < end; ++c)
    square += squares[c] + (means[c] - mean) * (means[c] - mean) * static_cast<double>(p.s);
  const double variance = square / (static_cast<double>(width) * static_cast<double>(p.s));
  const double rstd = 1 / sqrt(variance + static_cast<double>(a.eps));
  const float rounded = static_cast<float>(mean);
  if (a.mean) static_cast<float *>(a.mean->data)[b * a.groups + g] = rounded;
  if (a.rstd) static_cast<float *>(a.rstd->data)[b * a.groups + g] = static_cast<float>(rstd);
  const double lost = mean - static_cast<double>(rounded);
  for (int64_t c = begin; c < end; ++c) {
    double factor = rstd * parameter<T>(a.weight, c, 1), offset = parameter<T>(a.bias, c, 0);
    if (a.scale) {
      const double scale = 1 + parameter<T>(a.scale, a.scale->stride[0] * b + c, 0);
      factor *= scale;
      offset = offset * scale + parameter<T>(a.shift, a.shift->stride[0] * b + c, 0);
    }
    p.mean[image * p.row + c] = rounded;
    p.factor[image * p.row + c] = static_cast<float>(factor);
    p.offset[image * p.row + c] = static_cast<float>(offset - lost * factor);
  }
}

struct Batch {
  const gt_tensor *mean, *rstd, *running_mean, *running_var, *weight, *bias;
  float momentum, eps;
};

// The statistics of channel c over all images, and its coefficients, in the workspace's first image.
template <class T>
void finish_channel(const Plan &p, const Batch &o, int64_t c) {
  const double images = static_cast<double>(p.b), n = images * static_cast<double>(p.s);
  double sum = 0, square = 0;
  for (int64_t b = 0; b < p.b; ++b) sum += p.channel_mean[b * p.row + c];
  const double mean = sum / images;
  for (int64_t b = 0; b < p.b; ++b) {
    const double d = p.channel_mean[b * p.row + c] - mean;
    square += p.channel_squares[b * p.row + c] + d * d * static_cast<double>(p.s);
  }
  const double rstd = 1 / sqrt(square / n + static_cast<double>(o.eps));
  const float rounded = static_cast<float>(mean);
  const auto at = [c](const gt_tensor *t) { return static_cast<float *>(t->data) + c; };
  const auto update = [&](const gt_tensor *running, double value) {
    const double momentum = static_cast<double>(o.momentum);
    if (!running) return;
    *at(running) = static_cast<float>((1 - momentum) * static_cast<double>(*at(running)) + momentum * value);
  };
  *at(o.mean) = rounded;
  *at(o.rstd) = static_cast<float>(rstd);
  update(o.running_mean, mean);
  update(o.running_var, square / (n - 1));
  const double factor = rstd * parameter<T>(o.weight, c, 1);
  p.mean[c] = rounded;
  p.factor[c] = static_cast<float>(factor);
  p.offset[c] = static_cast<float>(parameter<T>(o.bias, c, 0) - (mean - static_cast<double>(rounded)) * factor);
}

// What silu wants its argument multiplied by: see vsilu_log2.
template <gt_activation A>
constexpr float UNIT = A == GT_ACTIVATION_SILU ? -LOG2_E : 1;

// The activation of t / UNIT, which is then rounded to T.
template <gt_activation A, class T>
GT_INLINE vf activate_scaled(vf t) {
  if constexpr (A == GT_ACTIVATION_SILU) return std::is_same_v<T, bf16> ? vsilu_coarse_log2(t) : vsilu_log2(t);
  return activate(t, A);
}

// Coefficients of a strip, of TWOS apart.
struct Coefficients {
  alignas(64) float mean[STRIP], factor[STRIP], offset[STRIP];

  // Takes the means into the offsets, unless one is so far from 0 that rounding it there would show in bf16.
  bool drop_means(int64_t c) {
    constexpr float FAR = 8;  // times 2^-24 is what is lost of y
    bool all_near = true;
    for (int64_t i = 0; i < c; ++i) all_near &= __builtin_fabsf(mean[i] * factor[i]) <= FAR;
    for (int64_t i = 0; all_near && i < c; ++i) {
      offset[i] -= mean[i] * factor[i];
      mean[i] = 0;
    }
    return all_near;
  }
};

// Times unit, and NaNs with the low bits that join_two wants.
template <class T>
void set_coefficients(float *to, const float *from, int64_t c, float unit) {
  int64_t i = 0;
  if constexpr (TWOS<T>)
    for (; i + 2 * W <= c; i += 2 * W)
      for (int64_t k = 0; k < W; ++k) {
        to[i + k] = from[i + 2 * k];
        to[i + W + k] = from[i + 2 * k + 1];
      }
  for (; i < c; ++i) to[i] = from[i];
  for (i = 0; i < c; ++i) to[i] = to[i] == to[i] ? unit * to[i] : __builtin_nanf("");
}

template <bool STREAM, class T>
GT_INLINE void put(T *y, vf v) {
  STREAM ? store_streaming(y, v) : store(y, v);
}

// R pixels of 2 W channels, whose coefficients begin at i. CENTRED: their means are not 0.
template <gt_activation A, bool STREAM, bool CENTRED, int R>
GT_INLINE void normalise_two(bf16 *y, int64_t y_stride, const bf16 *x, int64_t x_stride, int64_t i,
                             const Coefficients &a) {
  constexpr Ties TIES = A == GT_ACTIVATION_SILU ? AWAY : EVEN;
  const vf mean[2] = {load(a.mean + i), load(a.mean + i + W)};
  const vf factor[2] = {load(a.factor + i), load(a.factor + i + W)};
  const vf offset[2] = {load(a.offset + i), load(a.offset + i + W)};
  vu bits[R];
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) {
    vf even, odd;
    load_two(x + r * x_stride, even, odd);
    if (CENTRED) {
      even -= mean[0];
      odd -= mean[1];
    }
    even = activate_scaled<A, bf16>(even * factor[0] + offset[0]);
    odd = activate_scaled<A, bf16>(odd * factor[1] + offset[1]);
    bits[r] = join_two<TIES>(even, odd);
  }
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) {
    if (STREAM)
      store_streaming(static_cast<void *>(y + r * y_stride), bits[r]);
    else
      memcpy(y + r * y_stride, &bits[r], sizeof bits[r]);
  }
}

// R pixels of c channels.
template <gt_activation A, bool STREAM, bool CENTRED, int R, class T>
GT_INLINE void normalise_pixels(T *y, int64_t y_stride, const T *x, int64_t x_stride, int64_t c,
                                const Coefficients &a) {
  int64_t i = 0;
  if constexpr (TWOS<T>)
    for (; i + 2 * W <= c; i += 2 * W) normalise_two<A, STREAM, CENTRED, R>(y + i, y_stride, x + i, x_stride, i, a);
  for (; i + W <= c; i += W) {
    const vf mean = load(a.mean + i), factor = load(a.factor + i), offset = load(a.offset + i);
    vf v[R];
    if (!STREAM)  // of bf16, these are the few channels left over: all others go without
      for (int r = 0; r < R; ++r) __builtin_prefetch(y + r * y_stride + i + AHEAD * W, 1);
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) v[r] = activate_scaled<A, T>((load(x + r * x_stride + i) - mean) * factor + offset);
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) put<STREAM>(y + r * y_stride + i, v[r]);
  }
  if (i == c) return;
  const int64_t left = c - i;
  const vf mean = load_part(a.mean + i, left), factor = load_part(a.factor + i, left);
  const vf offset = load_part(a.offset + i, left);
  for (int r = 0; r < R; ++r) {
    const vf h = (load_part(x + r * x_stride + i, left) - mean) * factor + offset;
    store_part(y + r * y_stride + i, activate_scaled<A, T>(h), left);
  }
}

// TOGETHER parts of the pixels go side by side, as in sum_channels.
template <gt_activation A, bool STREAM, bool CENTRED, class T>
void normalise_parts(T *y, int64_t y_stride, const T *x, int64_t x_stride, int64_t pixels, int64_t c,
                     const Coefficients &a) {
  const int64_t part = pixels / TOGETHER;
  for (int64_t p = 0; p < part; ++p)
    normalise_pixels<A, STREAM, CENTRED, TOGETHER>(y + p * y_stride, part * y_stride, x + p * x_stride,
                                                   part * x_stride, c, a);
  for (int64_t p = TOGETHER * part; p < pixels; ++p)
    normalise_pixels<A, STREAM, CENTRED, 1>(y + p * y_stride, 0, x + p * x_stride, 0, c, a);
}

// y = activation((x - mean) * factor + offset): of pixels of c channels, coefficients per channel. STREAM: y is aligned
// to whole vectors, and goes past the caches.
template <gt_activation A, bool STREAM, class T>
void normalise_rows(T *y, int64_t y_stride, const T *x, int64_t x_stride, int64_t pixels, int64_t c, const float *mean,
                    const float *factor, const float *offset) {
  Coefficients a;
  set_coefficients<T>(a.mean, mean, c, 1);
  set_coefficients<T>(a.factor, factor, c, UNIT<A>);
  set_coefficients<T>(a.offset, offset, c, UNIT<A>);
  if constexpr (TWOS<T>)
    if (a.drop_means(c)) {
      normalise_parts<A, STREAM, false>(y, y_stride, x, x_stride, pixels, c, a);
      return;
    }
  normalise_parts<A, STREAM, true>(y, y_stride, x, x_stride, pixels, c, a);
}

// The same of n contiguous pixels of one channel.
template <gt_activation A, bool STREAM, class T>
void normalise_run(T *y, const T *x, int64_t n, float mean, float factor, float offset) {
  factor *= UNIT<A>;
  offset *= UNIT<A>;
  int64_t i = 0;
  for (; i + W <= n; i += W) {
    const vf v = activate_scaled<A, T>((load(x + i) - mean) * factor + offset);
    put<STREAM>(y + i, v);
  }
  if (i < n) store_part(y + i, activate_scaled<A, T>((load_part(x + i, n - i) - mean) * factor + offset), n - i);
}

// Every vector of y that starts a whole one lies on its boundary, and y is no x that the cache has already.
template <class T>
bool can_stream(const Plan &p, const Image<T> &y, const Image<const T> &x) {
  const auto is_whole = [](int64_t elements) { return elements * sizeof(T) % VECTOR_BYTES == 0; };
  const int64_t bytes = p.b * p.s * p.c * static_cast<int64_t>(sizeof(T));
  return bytes >= STREAM_BYTES && y.data != x.data && reinterpret_cast<uintptr_t>(y.data) % VECTOR_BYTES == 0 &&
         is_whole(y.stride_b) && is_whole(p.channels_last ? y.stride_s : y.stride_c);
}

// All pixels of some images from first on, the last first: the pass before ended there. coefficients(buffer, image, c,
// n, mean, factor, offset) points the last three at those of n channels from c on, in buffer where it makes them.
template <gt_activation A, bool STREAM, class T, class F>
void normalise_images(const gt_stream *stream, const Plan &p, const Image<T> &y, const Image<const T> &x,
                      int64_t first, int64_t images, const F &coefficients) {
  const int64_t strips = p.channels_last ? (p.c + STRIP - 1) / STRIP : p.c;
  const int64_t strip = p.channels_last ? STRIP : 1;
  const int64_t cost = p.block * at_most(strip, p.c) * (A == GT_ACTIVATION_NONE ? 1 : ACTIVATION_COST);
  parallel_for(stream, images * p.blocks * strips, cost, [&](int64_t begin, int64_t end) {
    for (int64_t item = end - 1; item >= begin; --item) {
      const int64_t c = item % strips * strip, block = item / strips % p.blocks, image = item / strips / p.blocks;
      const int64_t b = first + image, s = block * p.block, n = at_most(p.c - c, strip);
      float buffer[3 * STRIP];
      const float *mean = buffer, *factor = buffer + STRIP, *offset = buffer + 2 * STRIP;
      coefficients(buffer, image, c, n, mean, factor, offset);
      if (p.channels_last)
        normalise_rows<A, STREAM>(y.at(b, s, c), y.stride_s, x.at(b, s, c), x.stride_s, p.pixels(block), n, mean,
                                  factor, offset);
      else
        normalise_run<A, STREAM>(y.at(b, s, c), x.at(b, s, c), p.pixels(block), *mean, *factor, *offset);
    }
    if (STREAM) finish_streaming();
  });
}

template <class T, class F>
void normalise(const gt_stream *stream, const Plan &p, const Image<T> &y, const Image<const T> &x, int64_t first,
               int64_t images, gt_activation activation, const F &coefficients) {
  with_activation(activation, [&](auto a) {
    if (can_stream(p, y, x))
      normalise_images<a, true>(stream, p, y, x, first, images, coefficients);
    else
      normalise_images<a, false>(stream, p, y, x, first, images, coefficients);
  });
}

}  // namespace

gt_status groupnorm_cpu(const gt_stream *stream, const gt_tensor *y, const gt_tensor *mean, const gt_tensor *rstd,
                        const gt_tensor *x, const gt_tensor *weight, const gt_tensor *bias, const gt_tensor *scale,
                        const gt_tensor *shift, int64_t groups, float eps, gt_activation activation,
                        const gt_tensor *workspace) {
  const Plan p(*x, is_channels_last(*y, *x), workspace->data);
  const Affine affine{mean, rstd, weight, bias, scale, shift, groups, eps};
  with_float(x->dtype, [&](auto zero) {
    using T = decltype(zero);
    const Image<T> out(*y);
    const Image<const T> in(*x);
    for (int64_t first = 0; first < p.b; first += p.images) {
      const int64_t images = at_most(p.b - first, p.images);
      block_statistics<T>(stream, p, in, first, images, p.c / groups % 2 == 0);
      join_all_blocks(stream, p, images);
      parallel_for(stream, images * groups, 8 * p.c / groups, [&](int64_t begin, int64_t end) {
        for (int64_t item = begin; item < end; ++item)
          finish_group<T>(p, affine, first + item / groups, item / groups, item % groups);
      });
      normalise<T>(stream, p, out, in, first, images, activation,
                   [&](float *, int64_t image, int64_t c, int64_t, const float *&means, const float *&factors,
                       const float *&offsets) {
                     means = p.mean + image * p.row + c;
                     factors = p.factor + image * p.row + c;
                     offsets = p.offset + image * p.row + c;
                   });
    }
  });
  return GT_OK;
}

gt_status groupnorm_workspace_cpu(const gt_stream *, const gt_tensor *x, int64_t, int64_t *bytes) {
  *bytes = x->shape[0] == 0 ? 0 : Plan(*x, is_channels_last(*x, *x), nullptr).bytes();
  return GT_OK;
}

gt_status batchnorm_cpu(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x, const gt_tensor *mean,
                        const gt_tensor *var, const gt_tensor *weight, const gt_tensor *bias, float eps,
                        gt_activation activation) {
  const Plan p(*x, is_channels_last(*y, *x), nullptr);
  with_float(x->dtype, [&](auto zero) {
    using T = decltype(zero);
    normalise<T>(stream, p, Image<T>(*y), Image<const T>(*x), 0, p.b, activation,
                 [&](float *buffer, int64_t, int64_t c, int64_t n, const float *, const float *, const float *) {
                   for (int64_t i = 0; i < n; ++i) {
                     const double rstd = 1 / sqrt(parameter<T>(var, c + i, 0) + static_cast<double>(eps));
                     buffer[i] = static_cast<float>(parameter<T>(mean, c + i, 0));
                     buffer[STRIP + i] = static_cast<float>(rstd * parameter<T>(weight, c + i, 1));
                     buffer[2 * STRIP + i] = static_cast<float>(parameter<T>(bias, c + i, 0));
                   }
                 });
  });
  return GT_OK;
}

gt_status batchnorm_train_cpu(const gt_stream *stream, const gt_tensor *y, const gt_tensor *mean, const gt_tensor *rstd,
                              const gt_tensor *running_mean, const gt_tensor *running_var, const gt_tensor *x,
                              const gt_tensor *weight, const gt_tensor *bias, float momentum, float eps,
                              gt_activation activation, const gt_tensor *workspace) {
  const Plan p(*x, is_channels_last(*y, *x), workspace->data, x->shape[0]);
  const Batch batch{mean, rstd, running_mean, running_var, weight, bias, momentum, eps};
  with_float(x->dtype, [&](auto zero) {
    using T = decltype(zero);
    const Image<const T> in(*x);
    block_statistics<T>(stream, p, in, 0, p.b, false);
    join_all_blocks(stream, p, p.b);
    parallel_for(stream, p.c, 8 * p.b, [&](int64_t begin, int64_t end) {
      for (int64_t c = begin; c < end; ++c) finish_channel<T>(p, batch, c);
    });
    normalise<T>(stream, p, Image<T>(*y), in, 0, p.b, activation,
                 [&](float *, int64_t, int64_t c, int64_t, const float *&means, const float *&factors,
                     const float *&offsets) {
                   means = p.mean + c;
                   factors = p.factor + c;
                   offsets = p.offset + c;
                 });
  });
  return GT_OK;
}

gt_status batchnorm_train_workspace_cpu(const gt_stream *, const gt_tensor *x, int64_t *bytes) {
  *bytes = Plan(*x, is_channels_last(*x, *x), nullptr, x->shape[0]).bytes();
  return GT_OK;
}

}  // namespace gt::GT_ISA

#else

GT_DECLARE_OP(groupnorm)
GT_DECLARE_OP(groupnorm_workspace)
GT_DECLARE_OP(batchnorm)
GT_DECLARE_OP(batchnorm_train)
GT_DECLARE_OP(batchnorm_train_workspace)

namespace {

gt::Check check_image(const char *op, const gt_stream *stream, const gt_tensor *y, const gt_tensor *x, float eps,
                      gt_activation activation) {
  gt::Check check(op, stream);
  check.tensor("x", x, gt::FLOATS).rank("x", x, 3).tensor("y", y, gt::FLOATS);
  check.same_shape("y", y, "x", x).same_dtype("y", y, "x", x);
  if (!check.ok()) return check;
  check.require(x->shape[1] > 0 && x->shape[2] > 0, "x has %lld pixels and %lld channels, expected at least 1",
                static_cast<long long>(x->shape[1]), static_cast<long long>(x->shape[2]));
  if (!check.ok()) return check;
  const bool last = gt::is_channels_last(*y, *x);
  gt::check_layout(check, "x", x, last);
  gt::check_layout(check, "y", y, last);
  check.require(eps >= 0, "eps is %g, expected >= 0", static_cast<double>(eps));
  check.require(activation >= GT_ACTIVATION_NONE && activation <= GT_ACTIVATION_TANH,
                "activation is %d, expected a gt_activation from %d to %d", activation, GT_ACTIVATION_NONE,
                GT_ACTIVATION_TANH);
  return check;
}

}  // namespace

extern "C" gt_status gt_groupnorm(const gt_stream *stream, const gt_tensor *y, const gt_tensor *mean,
                                  const gt_tensor *rstd, const gt_tensor *x, const gt_tensor *weight,
                                  const gt_tensor *bias, const gt_tensor *scale, const gt_tensor *shift,
                                  int64_t groups, float eps, gt_activation activation, const gt_tensor *workspace) {
  gt::Check check = check_image("groupnorm", stream, y, x, eps, activation);
  gt::check_groups(check, x, groups);
  if (!check.ok()) return check.status();
  const int64_t b = x->shape[0], c = x->shape[2];
  for (const auto &[name, t] : {std::pair{"mean", mean}, std::pair{"rstd", rstd}})
    check.optional(name, t, gt::F32).shape(name, t, {b, groups}).contiguous(name, t);
  if (weight) gt::check_parameter(check, "weight", weight, x);
  if (bias) gt::check_parameter(check, "bias", bias, x);
  check.require(!scale == !shift, "%s is NULL, but %s is not: expected both or neither", scale ? "shift" : "scale",
                scale ? "scale" : "shift");
  for (const auto &[name, t] : {std::pair{"scale", scale}, std::pair{"shift", shift}})
    check.optional(name, t, gt::FLOATS).shape(name, t, {b, c}).same_dtype(name, t, "x", x).last_contiguous(name, t);
  if (!check.ok()) return check.status();
  int64_t bytes = 0;
  if (const gt_status status = gt_groupnorm_workspace(stream, x, groups, &bytes)) return status;
  check.workspace(workspace, bytes);
  if (!check.ok() || b == 0) return check.status();
  return GT_RUN(groupnorm, stream, y, mean, rstd, x, weight, bias, scale, shift, groups, eps, activation, workspace);
}

extern "C" gt_status gt_groupnorm_workspace(const gt_stream *stream, const gt_tensor *x, int64_t groups,
                                            int64_t *bytes) {
  gt::Check check("groupnorm_workspace", stream);
  check.tensor("x", x, gt::FLOATS).rank("x", x, 3);
  check.require(bytes, "bytes is NULL, expected where to put the result");
  gt::check_groups(check, x, groups);
  if (!check.ok()) return check.status();
  check.require(x->shape[1] > 0 && x->shape[2] > 0, "x has no pixels or no channels, expected at least 1");
  check.elements_at_most("x", x, 0, gt::MOST_ELEMENTS);
  if (!check.ok()) return check.status();
  return GT_RUN(groupnorm_workspace, stream, x, groups, bytes);
}

extern "C" gt_status gt_batchnorm(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x,
                                  const gt_tensor *mean, const gt_tensor *var, const gt_tensor *weight,
                                  const gt_tensor *bias, float eps, gt_activation activation) {
  gt::Check check = check_image("batchnorm", stream, y, x, eps, activation);
  gt::check_parameter(check, "mean", mean, x);
  gt::check_parameter(check, "var", var, x);
  if (weight) gt::check_parameter(check, "weight", weight, x);
  if (bias) gt::check_parameter(check, "bias", bias, x);
  if (!check.ok() || x->shape[0] == 0) return check.status();
  return GT_RUN(batchnorm, stream, y, x, mean, var, weight, bias, eps, activation);
}

extern "C" gt_status gt_batchnorm_train(const gt_stream *stream, const gt_tensor *y, const gt_tensor *mean,
                                        const gt_tensor *rstd, const gt_tensor *running_mean,
                                        const gt_tensor *running_var, const gt_tensor *x, const gt_tensor *weight,
                                        const gt_tensor *bias, float momentum, float eps, gt_activation activation,
                                        const gt_tensor *workspace) {
  gt::Check check = check_image("batchnorm_train", stream, y, x, eps, activation);
  if (!check.ok()) return check.status();
  for (const auto &[name, t] : {std::pair{"mean", mean}, std::pair{"rstd", rstd}})
    check.tensor(name, t, gt::F32).shape(name, t, {x->shape[2]}).contiguous(name, t);
  for (const auto &[name, t] : {std::pair{"running_mean", running_mean}, std::pair{"running_var", running_var}})
    check.optional(name, t, gt::F32).shape(name, t, {x->shape[2]}).contiguous(name, t);
  if (weight) gt::check_parameter(check, "weight", weight, x);
  if (bias) gt::check_parameter(check, "bias", bias, x);
  check.require(momentum >= 0 && momentum <= 1, "momentum is %g, expected 0 to 1", static_cast<double>(momentum));
  if (!check.ok()) return check.status();
  int64_t bytes = 0;
  if (const gt_status status = gt_batchnorm_train_workspace(stream, x, &bytes)) return status;
  check.workspace(workspace, bytes);
  if (!check.ok()) return check.status();
  return GT_RUN(batchnorm_train, stream, y, mean, rstd, running_mean, running_var, x, weight, bias, momentum, eps,
                activation, workspace);
}

extern "C" gt_status gt_batchnorm_train_workspace(const gt_stream *stream, const gt_tensor *x, int64_t *bytes) {
  gt::Check check("batchnorm_train_workspace", stream);
  check.tensor("x", x, gt::FLOATS).rank("x", x, 3).elements_at_most("x", x, 0, gt::MOST_ELEMENTS);
  check.require(bytes, "bytes is NULL, expected where to put the result");
  if (!check.ok()) return check.status();
  const int64_t values = x->shape[0] * x->shape[1];
  check.require(x->shape[2] > 0 && values > 1,
                "x has %lld values per channel and %lld channels, expected at least 2 and 1",
                static_cast<long long>(values), static_cast<long long>(x->shape[2]));
  if (!check.ok()) return check.status();
  return GT_RUN(batchnorm_train_workspace, stream, x, bytes);
}

#endif
