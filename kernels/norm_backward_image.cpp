// Gradients of group and batch normalisation of images: argument checks, dispatch, and the CPU twin of
// norm_backward_image.cu.
#include "gatun/norm_backward.h"

#include <utility>

#include "check.h"
#include "cpu/isa.h"
#include "norm_image_check.h"

#if defined(GT_ISA)
// Computes    gatun/norm_backward.h
// Mapping     as the forward norms: blocks of BLOCK_PIXELS pixels in strips of STRIP channels (channels last), or runs
//             of RUN_PIXELS pixels of one channel (channels first), split over threads. A first pass leaves sums per
//             block and channel; they are joined in the order of the blocks and become coefficients per channel, with
//             which a second pass makes the results
// Memory      x and dy (and u) twice, each result once. Where there are images for all threads a thread makes both
//             passes over its own, so that the second finds small ones in its cache; a batch norm needs all images
//             first. In f32 d of dx's formula waits in dx for the second pass, in place of being computed again
// Numerics    sums in f32 of PIXELS values, in f64 beyond. Every order depends on the shape and the layout alone
// Aliasing    results are written in the second pass only, vector by vector after all inputs of it are read
#include "cpu/norm_image.h"
#include "cpu/parallel.h"
#include "cpu/row.h"

namespace gt::GT_ISA {
namespace {

constexpr int64_t BLOCK_PIXELS = 128;
constexpr int64_t STRIP = 512;                   // channels: their sums and coefficients stay in the first cache
constexpr int64_t RUN_PIXELS = 4096;
constexpr int PIXELS = 4;                        // of a channel, summed in f32
constexpr int64_t PADDING = 16;                  // channels of a workspace row are a multiple: the widest vector
constexpr int64_t PIECE = 64;                    // channels that a thread joins at once
constexpr int64_t COST = 8, ACTIVATION_COST = 24;  // of an element, in the units of parallel_for

// Coefficients per channel: mean first; then factor and offset of z = (x - mean) * factor + offset, each with what
// rounding it to f32 lost. That error would be the same for all pixels, and grow with their number in a sum.
enum Coefficient { MEAN, FACTOR, OFFSET, FACTOR_LOST, OFFSET_LOST, BY_D, BY_X, CONSTANT, NUM_BACKWARD };
enum DoubleCoefficient { U_TO_DDY = MEAN + 1, X_TO_DDY, ONE_TO_DDY, U_TO_DX, DY_TO_DX, X_TO_DX, ONE_TO_DX, NUM_DOUBLE };

// How the pixels are cut, and where the workspace has what.
struct Cut {
  bool channels_last, is_batch;
  int64_t b, s, c, block, blocks, row, strip, strips;
  int sums, coefficients;
  double *joined;      // [b, sums, row]
  double *block_sums;  // [b, blocks, sums, row]
  float *coefficient;  // [b, coefficients, row]; of a batch norm one image's

  // num_groups 0: a batch norm.
  Cut(const gt_tensor &x, int64_t num_groups, int num_sums, int num_coefficients, void *workspace)
      : channels_last(is_channels_last(x, x)), is_batch(num_groups == 0), b(x.shape[0]), s(x.shape[1]), c(x.shape[2]),
        sums(num_sums), coefficients(num_coefficients) {
    block = channels_last ? BLOCK_PIXELS : RUN_PIXELS;
    blocks = (s + block - 1) / block;
    row = round_up(c, PADDING);
    strip = channels_last ? STRIP : 1;
    strips = (c + strip - 1) / strip;
    joined = static_cast<double *>(workspace);
    block_sums = joined + b * sums * row;
    coefficient = reinterpret_cast<float *>(block_sums + b * blocks * sums * row);
  }
  int64_t bytes() const {
    return row * (8 * b * sums + 8 * b * blocks * sums + 4 * (is_batch ? 1 : b) * coefficients);
  }
  int64_t pixels(int64_t i) const { return at_most(s - i * block, block); }
  float *coefficients_of(int64_t image, int64_t channel) const {
    return coefficient + (is_batch ? 0 : image * coefficients * row) + channel;
  }
  double *joined_of(int64_t image, int k) const { return joined + (image * sums + k) * row; }
};

// f(i, left) for the vectors of n elements, left W for all whole ones.
template <class F>
GT_INLINE void for_vectors(int64_t n, F &&f) {
  int64_t i = 0;
  for (; i + W <= n; i += W) f(i, int64_t{W});
  if (i < n) f(i, n - i);
}

// Images first .. first + count.
struct Some {
  int64_t first, count;
};

// f(stream, images): once with all images, or in each thread with its own images one by one.
template <class F>
void for_images(const gt_stream *stream, const Cut &p, int64_t cost, const F &f) {
  const int64_t threads = stream->num_threads;
  if (p.is_batch || p.b < threads || (p.b % threads != 0 && p.b < 4 * threads)) {
    if (p.b > 0) f(*stream, Some{0, p.b});
    return;
  }
  gt_stream alone = *stream;
  alone.num_threads = 1;
  parallel_for(stream, p.b, p.s * p.c * cost, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) f(alone, Some{b, 1});
  });
}

// f(image, block, c) for the blocks and strips of some images.
template <class F>
void for_blocks(const gt_stream *stream, const Cut &p, Some some, int64_t cost, const F &f) {
  parallel_for(stream, some.count * p.blocks * p.strips, p.block * at_most(p.strip, p.c) * cost,
               [&](int64_t begin, int64_t end) {
                 for (int64_t i = begin; i < end; ++i)
                   f(some.first + i / p.strips / p.blocks, i / p.strips % p.blocks, i % p.strips * p.strip);
               });
}

// The sums of one vector of channels, in f64.
struct Wide {
  vd low, high;

  GT_INLINE void add(Wide &to, vf v) {
    to.low += half_of<0>(v);
    to.high += half_of<1>(v);
  }
  GT_INLINE void add(double *to, vf v) {
    Wide w;
    memcpy(&w, to, sizeof w);
    add(w, v);
    memcpy(to, &w, sizeof w);
  }
};

// line(b, s, c) answers term(v, i, left, coefficient), which sets v[k] to the addends to sum k of elements i .. i +
// left of the contiguous run that begins there.
template <int SUMS, class Line>
void sum_blocks(const gt_stream *stream, const Cut &p, Some some, int64_t cost, const Line &line) {
  for_blocks(stream, p, some, cost, [&](int64_t image, int64_t block, int64_t c) {
    double *const sums = p.block_sums + (image * p.blocks + block) * SUMS * p.row + c;
    const float *const coefficients = p.coefficients_of(image, c);
    const int64_t row = p.row, n = at_most(p.c - c, p.strip), s = block * p.block, pixels = p.pixels(block);
    if (!p.channels_last) {
      Wide total[SUMS] = {};
      const auto term = line(image, s, c);
      const auto coefficient = [=](int k) { return broadcast(coefficients[k * row]); };
      for (int64_t i = 0; i < pixels; i += PIXELS * W) {
        vf v[SUMS] = {};
        for_vectors(at_most(pixels - i, PIXELS * W), [&](int64_t j, int64_t left) __attribute__((always_inline)) {
          vf addend[SUMS];
          term(addend, i + j, left, coefficient);
          for (int k = 0; k < SUMS; ++k) v[k] += addend[k];
        });
        for (int k = 0; k < SUMS; ++k) Wide::add(total[k], v[k]);
      }
      for (int k = 0; k < SUMS; ++k) {
        double lanes[W], sum = 0;
        memcpy(lanes, &total[k], sizeof lanes);
        for (const double lane : lanes) sum += lane;
        sums[k * row] = sum;
      }
      return;
    }
    for (int k = 0; k < SUMS; ++k) memset(sums + k * row, 0, static_cast<size_t>(round_up(n, W)) * sizeof(double));
    int64_t pixel = 0;
    for (; pixel + PIXELS <= pixels; pixel += PIXELS) {
      const auto line_of = [&](int64_t k) { return line(image, s + pixel + k, c); };
      const auto t0 = line_of(0), t1 = line_of(1), t2 = line_of(2), t3 = line_of(3);
      for_vectors(n, [=](int64_t i, int64_t left) __attribute__((always_inline)) {
        const auto coefficient = [=](int k) { return load(coefficients + k * row + i); };
        vf v[PIXELS][SUMS];
        t0(v[0], i, left, coefficient);
        t1(v[1], i, left, coefficient);
        t2(v[2], i, left, coefficient);
        t3(v[3], i, left, coefficient);
        for (int k = 0; k < SUMS; ++k) Wide::add(sums + k * row + i, (v[0][k] + v[1][k]) + (v[2][k] + v[3][k]));
      });
    }
    for (; pixel < pixels; ++pixel) {
      const auto term = line(image, s + pixel, c);
      for_vectors(n, [=](int64_t i, int64_t left) __attribute__((always_inline)) {
        vf v[SUMS];
        term(v, i, left, [=](int k) { return load(coefficients + k * row + i); });
        for (int k = 0; k < SUMS; ++k) Wide::add(sums + k * row + i, v[k]);
      });
    }
  });
}

// Likewise, but term(i, left, coefficient) writes results.
template <class Line>
void apply_blocks(const gt_stream *stream, const Cut &p, Some some, int64_t cost, const Line &line) {
  for_blocks(stream, p, some, cost, [&](int64_t image, int64_t block, int64_t c) {
    const float *const coefficients = p.coefficients_of(image, c);
    const int64_t row = p.row, n = at_most(p.c - c, p.strip), s = block * p.block;
    if (!p.channels_last) {
      const auto term = line(image, s, c);
      for_vectors(p.pixels(block), [=](int64_t i, int64_t left) {
        term(i, left, [=](int k) { return broadcast(coefficients[k * row]); });
      });
      return;
    }
    for (int64_t pixel = 0; pixel < p.pixels(block); ++pixel) {
      const auto term = line(image, s + pixel, c);
      for_vectors(n, [=](int64_t i, int64_t left) {
        term(i, left, [=](int k) { return load(coefficients + k * row + i); });
      });
    }
  });
}

// Adds the blocks of each channel and sum.
void join_blocks(const gt_stream *stream, const Cut &p, Some some) {
  const int64_t pieces = (p.c + PIECE - 1) / PIECE;
  parallel_for(stream, some.count * p.sums * pieces, 2 * PIECE * p.blocks, [&](int64_t begin, int64_t end) {
    for (int64_t item = begin; item < end; ++item) {
      const int64_t k = item / pieces % p.sums, image = some.first + item / pieces / p.sums;
      const int64_t c = item % pieces * PIECE;
      const int64_t n = at_most(p.c - c, PIECE);
      double total[PIECE] = {};
      for (int64_t block = 0; block < p.blocks; ++block) {
        const double *const sums = p.block_sums + ((image * p.blocks + block) * p.sums + k) * p.row + c;
        for (int64_t i = 0; i < n; ++i) total[i] += sums[i];
      }
      memcpy(p.joined_of(image, static_cast<int>(k)) + c, total, static_cast<size_t>(n) * sizeof(double));
    }
  });
}

// out[c] = the sum over the images of what joined has of sum k.
void sum_images(const gt_stream *stream, const Cut &p, const gt_tensor *out, int k) {
  if (!out) return;
  float *const to = static_cast<float *>(out->data);
  parallel_for(stream, p.c, 2 * p.b, [&](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c) {
      double sum = 0;
      for (int64_t b = 0; b < p.b; ++b) sum += p.joined_of(b, k)[c];
      to[c] = static_cast<float>(sum);
    }
  });
}

struct Operands {
  const gt_tensor *dx, *dweight, *dbias, *dscale, *dshift, *dy, *x, *mean, *rstd, *weight, *bias, *scale, *shift;
  int64_t groups;  // 0: a batch norm

  double statistic(const gt_tensor *t, int64_t b, int64_t c) const {
    const int64_t at = groups == 0 ? c : b * groups + c / (x->shape[2] / groups);
    return static_cast<double>(static_cast<const float *>(t->data)[at]);
  }
  template <class T>
  double one_plus_scale(int64_t b, int64_t c) const {
    return scale ? 1 + parameter<T>(scale, b * scale->stride[0] + c, 0) : 1;
  }
};

// mean, factor and offset of all channels of some images.
template <class T>
void prepare(const gt_stream *stream, const Cut &p, const Operands &o, Some some) {
  parallel_for(stream, (p.is_batch ? 1 : some.count) * p.c, 8, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t c = i % p.c, b = some.first + i / p.c;
      float *const coefficients = p.coefficients_of(b, c);
      const double scale = o.one_plus_scale<T>(b, c);
      const double shift = o.shift ? parameter<T>(o.shift, b * o.shift->stride[0] + c, 0) : 0;
      const auto split = [&](int at, int lost, double value) {
        coefficients[at * p.row] = static_cast<float>(value);
        coefficients[lost * p.row] = static_cast<float>(value - static_cast<double>(coefficients[at * p.row]));
      };
      coefficients[MEAN * p.row] = static_cast<float>(o.statistic(o.mean, b, c));
      split(FACTOR, FACTOR_LOST, o.statistic(o.rstd, b, c) * parameter<T>(o.weight, c, 1) * scale);
      split(OFFSET, OFFSET_LOST, parameter<T>(o.bias, c, 0) * scale + shift);
    }
  });
}

// dx = d * BY_D + (x - mean) * BY_X + CONSTANT, from E(g) and E(g h).
void set_dx(const Cut &p, float *coefficients, double rstd, double scaled_weight, double mean_g, double mean_gh) {
  coefficients[BY_D * p.row] = static_cast<float>(rstd * scaled_weight);
  coefficients[BY_X * p.row] = static_cast<float>(-rstd * rstd * mean_gh);
  coefficients[CONSTANT * p.row] = static_cast<float>(-rstd * mean_g);
}

// From the sums of d and of d (x - mean) of a group's channels; leaves what dbias and dweight add up in their place.
template <class T>
void finish_group(const Cut &p, const Operands &o, int64_t b, int64_t group) {
  const int64_t width = p.c / o.groups, begin = group * width, end = begin + width;
  const double rstd = o.statistic(o.rstd, b, begin), n = static_cast<double>(width) * static_cast<double>(p.s);
  double *const d = p.joined_of(b, 0), *const dh = p.joined_of(b, 1);
  double sum = 0, product = 0;
  for (int64_t c = begin; c < end; ++c) {
    const double weight = parameter<T>(o.weight, c, 1), scale = o.one_plus_scale<T>(b, c);
    dh[c] *= rstd;
    sum += weight * scale * d[c];
    product += weight * scale * dh[c];
  }
  for (int64_t c = begin; c < end; ++c) {
    const double weight = parameter<T>(o.weight, c, 1), scale = o.one_plus_scale<T>(b, c);
    set_dx(p, p.coefficients_of(b, c), rstd, weight * scale, sum / n, product / n);
    const auto put = [&](const gt_tensor *t, double value) {
      if (t) from_float(static_cast<float>(value), static_cast<T *>(t->data) + b * t->stride[0] + c);
    };
    put(o.dscale, weight * dh[c] + parameter<T>(o.bias, c, 0) * d[c]);
    put(o.dshift, d[c]);
    d[c] *= scale;
    dh[c] *= scale;
  }
}

template <class T>
void finish_channel(const Cut &p, const Operands &o, int64_t c) {
  const double rstd = o.statistic(o.rstd, 0, c), n = static_cast<double>(p.b) * static_cast<double>(p.s);
  const double weight = parameter<T>(o.weight, c, 1);
  double sum = 0, product = 0;
  for (int64_t b = 0; b < p.b; ++b) {
    sum += p.joined_of(b, 0)[c];
    product += p.joined_of(b, 1)[c] *= rstd;
  }
  set_dx(p, p.coefficients_of(0, c), rstd, weight, weight * sum / n, weight * product / n);
}

// dy activation'(z), for h = x - mean.
template <gt_activation A, class C>
GT_INLINE vf activated(vf dy, vf h, const C &coefficient) {
  if (A == GT_ACTIVATION_NONE) return dy;
  const vf lost = h * coefficient(FACTOR_LOST) + coefficient(OFFSET_LOST);
  return dy * activation_derivative(h * coefficient(FACTOR) + coefficient(OFFSET) + lost, A);
}

template <gt_activation A, class T>
void backward(const gt_stream *all, const Cut &p, const Operands &o) {
  const Image<T> dx(*o.dx);
  const Image<const T> dy(*o.dy), x(*o.x);
  constexpr int64_t cost = A == GT_ACTIVATION_NONE ? COST : ACTIVATION_COST;
  constexpr bool KEEPS_D = A != GT_ACTIVATION_NONE && sizeof(T) == sizeof(float);
  for_images(all, p, 2 * cost, [&](const gt_stream &stream, Some some) {
    prepare<T>(&stream, p, o, some);
    sum_blocks<2>(&stream, p, some, cost, [=](int64_t b, int64_t s, int64_t c) {
      const T *const px = x.at(b, s, c), *const pdy = dy.at(b, s, c);
      T *const pdx = dx.at(b, s, c);
      return [=](vf(&v)[2], int64_t i, int64_t left, auto coefficient) __attribute__((always_inline)) {
        const vf h = load_up_to(px + i, left) - coefficient(MEAN);
        v[0] = activated<A>(load_up_to(pdy + i, left), h, coefficient);
        v[1] = v[0] * h;
        if (KEEPS_D) store_up_to(pdx + i, v[0], left);
      };
    });
    join_blocks(&stream, p, some);
    if (p.is_batch)
      parallel_for(&stream, p.c, 4 * p.b, [&](int64_t begin, int64_t end) {
        for (int64_t c = begin; c < end; ++c) finish_channel<T>(p, o, c);
      });
    else
      parallel_for(&stream, some.count * o.groups, 16 * p.c / o.groups, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) finish_group<T>(p, o, some.first + i / o.groups, i % o.groups);
      });
    apply_blocks(&stream, p, some, cost, [=](int64_t b, int64_t s, int64_t c) {
      const T *const px = x.at(b, s, c), *const pdy = dy.at(b, s, c);
      T *const pdx = dx.at(b, s, c);
      return [=](int64_t i, int64_t left, auto coefficient) __attribute__((always_inline)) {
        const vf h = load_up_to(px + i, left) - coefficient(MEAN);
        vf d;
        if constexpr (KEEPS_D)
          d = load_up_to(pdx + i, left);
        else
          d = activated<A>(load_up_to(pdy + i, left), h, coefficient);
        store_up_to(pdx + i, d * coefficient(BY_D) + h * coefficient(BY_X) + coefficient(CONSTANT), left);
      };
    });
  });
  sum_images(all, p, o.dbias, 0);
  sum_images(all, p, o.dweight, 1);
}

gt_status run_backward(const gt_stream *stream, const Operands &o, gt_activation activation,
                       const gt_tensor *workspace) {
  const Cut p(*o.x, o.groups, 2, NUM_BACKWARD, workspace ? workspace->data : nullptr);
  with_float(o.x->dtype, [&](auto zero) {
    with_activation(activation, [&](auto a) { backward<a, decltype(zero)>(stream, p, o); });
  });
  return GT_OK;
}

// The sums are of u, u (x - mean), dy, dy (x - mean) and u dy; what dweight adds up is left in place of the first.
template <class T>
void finish_double(const Cut &p, const Operands &o, int64_t b, int64_t group) {
  const int64_t width = p.c / o.groups, begin = group * width, end = begin + width;
  const double rstd = o.statistic(o.rstd, b, begin), n = static_cast<double>(width) * static_cast<double>(p.s);
  double mean_u = 0, mean_uh = 0, mean_g = 0, mean_gh = 0, mean_ug = 0;
  for (int64_t c = begin; c < end; ++c) {
    const double weight = parameter<T>(o.weight, c, 1);
    mean_u += p.joined_of(b, 0)[c] / n;
    mean_uh += p.joined_of(b, 1)[c] * rstd / n;
    mean_g += weight * p.joined_of(b, 2)[c] / n;
    mean_gh += weight * p.joined_of(b, 3)[c] * rstd / n;
    mean_ug += weight * p.joined_of(b, 4)[c] / n;
  }
  const double k = mean_ug - mean_u * mean_g - mean_uh * mean_gh, square = rstd * rstd;
  for (int64_t c = begin; c < end; ++c) {
    const double weight = parameter<T>(o.weight, c, 1);
    float *const coefficients = p.coefficients_of(b, c);
    const auto set = [&](int at, double value) { coefficients[at * p.row] = static_cast<float>(value); };
    set(U_TO_DDY, weight * rstd);
    set(X_TO_DDY, -weight * square * mean_uh);
    set(ONE_TO_DDY, -weight * rstd * mean_u);
    set(U_TO_DX, -square * mean_gh);
    set(DY_TO_DX, -square * mean_uh * weight);
    set(X_TO_DX, -square * rstd * (k - 2 * mean_uh * mean_gh));
    set(ONE_TO_DX, square * (mean_gh * mean_u + mean_uh * mean_g));
    p.joined_of(b, 0)[c] = rstd * (p.joined_of(b, 4)[c] - mean_u * p.joined_of(b, 2)[c] -
                                   mean_uh * rstd * p.joined_of(b, 3)[c]);
  }
}

template <class T>
void double_backward(const gt_stream *all, const Cut &p, const Operands &o, const gt_tensor &ddy_tensor,
                     const gt_tensor &u_tensor) {
  const Image<T> dx(*o.dx), ddy(ddy_tensor);
  const Image<const T> dy(*o.dy), x(*o.x), u(u_tensor);
  for_images(all, p, 2 * COST, [&](const gt_stream &stream, Some some) {
    parallel_for(&stream, some.count * p.c, 8, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t b = some.first + i / p.c, c = i % p.c;
        p.coefficients_of(b, c)[MEAN * p.row] = static_cast<float>(o.statistic(o.mean, b, c));
      }
    });
    sum_blocks<5>(&stream, p, some, COST, [=](int64_t b, int64_t s, int64_t c) {
      const T *const px = x.at(b, s, c), *const pdy = dy.at(b, s, c), *const pu = u.at(b, s, c);
      return [=](vf(&v)[5], int64_t i, int64_t left, auto coefficient) __attribute__((always_inline)) {
        const vf h = load_up_to(px + i, left) - coefficient(MEAN);
        v[0] = load_up_to(pu + i, left);
        v[1] = v[0] * h;
        v[2] = load_up_to(pdy + i, left);
        v[3] = v[2] * h;
        v[4] = v[0] * v[2];
      };
    });
    join_blocks(&stream, p, some);
    parallel_for(&stream, some.count * o.groups, 32 * p.c / o.groups, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) finish_double<T>(p, o, some.first + i / o.groups, i % o.groups);
    });
    apply_blocks(&stream, p, some, COST, [=](int64_t b, int64_t s, int64_t c) {
      const T *const px = x.at(b, s, c), *const pdy = dy.at(b, s, c), *const pu = u.at(b, s, c);
      T *const pddy = ddy.at(b, s, c), *const pdx = dx.at(b, s, c);
      return [=](int64_t i, int64_t left, auto coefficient) __attribute__((always_inline)) {
        const vf h = load_up_to(px + i, left) - coefficient(MEAN), d = load_up_to(pdy + i, left);
        const vf v = load_up_to(pu + i, left);
        store_up_to(pddy + i, v * coefficient(U_TO_DDY) + h * coefficient(X_TO_DDY) + coefficient(ONE_TO_DDY), left);
        store_up_to(pdx + i, v * coefficient(U_TO_DX) + d * coefficient(DY_TO_DX) + h * coefficient(X_TO_DX) +
                                 coefficient(ONE_TO_DX), left);
      };
    });
  });
  sum_images(all, p, o.dweight, 0);
}

gt_status workspace_of(const gt_tensor *x, int64_t groups, int sums, int coefficients, int64_t *bytes) {
  *bytes = x->shape[0] == 0 ? 0 : Cut(*x, groups, sums, coefficients, nullptr).bytes();
  return GT_OK;
}

}  // namespace

gt_status groupnorm_backward_cpu(const gt_stream *stream, const gt_tensor *dx, const gt_tensor *dweight,
                                 const gt_tensor *dbias, const gt_tensor *dscale, const gt_tensor *dshift,
                                 const gt_tensor *dy, const gt_tensor *x, const gt_tensor *mean, const gt_tensor *rstd,
                                 const gt_tensor *weight, const gt_tensor *bias, const gt_tensor *scale,
                                 const gt_tensor *shift, int64_t groups, gt_activation activation,
                                 const gt_tensor *workspace) {
  const Operands o = {dx,   dweight, dbias,  dscale, dshift, dy,    x,
                      mean, rstd,    weight, bias,   scale,  shift, groups};
  return run_backward(stream, o, activation, workspace);
}

gt_status groupnorm_backward_workspace_cpu(const gt_stream *, const gt_tensor *x, int64_t groups, int64_t *bytes) {
  return workspace_of(x, groups, 2, NUM_BACKWARD, bytes);
}

gt_status batchnorm_backward_cpu(const gt_stream *stream, const gt_tensor *dx, const gt_tensor *dweight,
                                 const gt_tensor *dbias, const gt_tensor *dy, const gt_tensor *x, const gt_tensor *mean,
                                 const gt_tensor *rstd, const gt_tensor *weight, const gt_tensor *bias,
                                 gt_activation activation, const gt_tensor *workspace) {
  const Operands o = {dx, dweight, dbias, nullptr, nullptr, dy, x, mean, rstd, weight, bias, nullptr, nullptr, 0};
  return run_backward(stream, o, activation, workspace);
}

gt_status batchnorm_backward_workspace_cpu(const gt_stream *, const gt_tensor *x, int64_t *bytes) {
  return workspace_of(x, 0, 2, NUM_BACKWARD, bytes);
}

gt_status groupnorm_double_backward_cpu(const gt_stream *stream, const gt_tensor *ddy, const gt_tensor *dx,
                                        const gt_tensor *dweight, const gt_tensor *u, const gt_tensor *dy,
                                        const gt_tensor *x, const gt_tensor *mean, const gt_tensor *rstd,
                                        const gt_tensor *weight, int64_t groups, const gt_tensor *workspace) {
  const Operands o = {dx,   dweight, nullptr, nullptr, nullptr, dy,      x,
                      mean, rstd,    weight,  nullptr, nullptr, nullptr, groups};
  const Cut p(*x, groups, 5, NUM_DOUBLE, workspace ? workspace->data : nullptr);
  with_float(x->dtype, [&](auto zero) { double_backward<decltype(zero)>(stream, p, o, *ddy, *u); });
  return GT_OK;
}

gt_status groupnorm_double_backward_workspace_cpu(const gt_stream *, const gt_tensor *x, int64_t groups,
                                                  int64_t *bytes) {
  return workspace_of(x, groups, 5, NUM_DOUBLE, bytes);
}

}  // namespace gt::GT_ISA

#else

GT_DECLARE_OP(groupnorm_backward)
GT_DECLARE_OP(groupnorm_backward_workspace)
GT_DECLARE_OP(batchnorm_backward)
GT_DECLARE_OP(batchnorm_backward_workspace)
GT_DECLARE_OP(groupnorm_double_backward)
GT_DECLARE_OP(groupnorm_double_backward_workspace)

namespace {

using Named = std::pair<const char *, const gt_tensor *>;

// x and the others have one shape, dtype and layout.
gt::Check check_images(const char *op, const gt_stream *stream, const gt_tensor *x,
                       std::initializer_list<Named> others) {
  gt::Check check(op, stream);
  check.tensor("x", x, gt::FLOATS).rank("x", x, 3);
  for (const auto &[name, t] : others)
    check.tensor(name, t, gt::FLOATS).same_shape(name, t, "x", x).same_dtype(name, t, "x", x);
  if (!check.ok()) return check;
  check.require(x->shape[1] > 0 && x->shape[2] > 0, "x has %lld pixels and %lld channels, expected at least 1",
                static_cast<long long>(x->shape[1]), static_cast<long long>(x->shape[2]));
  if (!check.ok()) return check;
  const bool last = gt::is_channels_last(*x, *x);
  gt::check_layout(check, "x", x, last);
  for (const auto &[name, t] : others) gt::check_layout(check, name, t, last);
  return check;
}

void check_f32(gt::Check &check, std::initializer_list<Named> tensors, int64_t c) {
  for (const auto &[name, t] : tensors)
    check.optional(name, t, gt::F32).shape(name, t, {c}).contiguous(name, t);
}

void check_statistics(gt::Check &check, std::initializer_list<Named> tensors, const gt_tensor *x, int64_t groups) {
  if (!check.ok()) return;
  for (const auto &[name, t] : tensors) {
    check.tensor(name, t, gt::F32).contiguous(name, t);
    if (groups > 0)
      check.shape(name, t, {x->shape[0], groups});
    else
      check.shape(name, t, {x->shape[2]});
  }
}

void check_activation(gt::Check &check, gt_activation activation) {
  check.require(activation >= GT_ACTIVATION_NONE && activation <= GT_ACTIVATION_TANH,
                "activation is %d, expected a gt_activation from %d to %d", activation, GT_ACTIVATION_NONE,
                GT_ACTIVATION_TANH);
}

gt::Check check_query(const char *op, const gt_stream *stream, const gt_tensor *x, const int64_t *bytes) {
  gt::Check check(op, stream);
  check.tensor("x", x, gt::FLOATS).rank("x", x, 3);
  check.require(bytes, "bytes is NULL, expected where to put the result");
  if (!check.ok()) return check;
  check.require(x->shape[1] > 0 && x->shape[2] > 0, "x has no pixels or no channels, expected at least 1");
  check.elements_at_most("x", x, 0, gt::MOST_ELEMENTS);
  return check;
}

}  // namespace

extern "C" gt_status gt_groupnorm_backward(const gt_stream *stream, const gt_tensor *dx, const gt_tensor *dweight,
                                           const gt_tensor *dbias, const gt_tensor *dscale, const gt_tensor *dshift,
                                           const gt_tensor *dy, const gt_tensor *x, const gt_tensor *mean,
                                           const gt_tensor *rstd, const gt_tensor *weight, const gt_tensor *bias,
                                           const gt_tensor *scale, const gt_tensor *shift, int64_t groups,
                                           gt_activation activation, const gt_tensor *workspace) {
  gt::Check check = check_images("groupnorm_backward", stream, x, {{"dx", dx}, {"dy", dy}});
  gt::check_groups(check, x, groups);
  check_statistics(check, {{"mean", mean}, {"rstd", rstd}}, x, groups);
  if (!check.ok()) return check.status();
  check_f32(check, {{"dweight", dweight}, {"dbias", dbias}}, x->shape[2]);
  if (weight) gt::check_parameter(check, "weight", weight, x);
  if (bias) gt::check_parameter(check, "bias", bias, x);
  check.require(!scale == !shift, "%s is NULL, but %s is not: expected both or neither", scale ? "shift" : "scale",
                scale ? "scale" : "shift");
  check.require(scale || (!dscale && !dshift), "scale is NULL, but %s is not: expected both or neither",
                dscale ? "dscale" : "dshift");
  for (const auto &[name, t] : {Named{"scale", scale}, Named{"shift", shift}, Named{"dscale", dscale},
                                Named{"dshift", dshift}})
    check.optional(name, t, gt::FLOATS).shape(name, t, {x->shape[0], x->shape[2]}).same_dtype(name, t, "x", x)
        .last_contiguous(name, t);
  check_activation(check, activation);
  if (!check.ok()) return check.status();
  int64_t bytes = 0;
  if (const gt_status status = gt_groupnorm_backward_workspace(stream, x, groups, &bytes)) return status;
  check.workspace(workspace, bytes);
  if (!check.ok()) return check.status();
  return GT_RUN(groupnorm_backward, stream, dx, dweight, dbias, dscale, dshift, dy, x, mean, rstd, weight, bias, scale,
                shift, groups, activation, workspace);
}

extern "C" gt_status gt_groupnorm_backward_workspace(const gt_stream *stream, const gt_tensor *x, int64_t groups,
                                                     int64_t *bytes) {
  gt::Check check = check_query("groupnorm_backward_workspace", stream, x, bytes);
  gt::check_groups(check, x, groups);
  return check.ok() ? GT_RUN(groupnorm_backward_workspace, stream, x, groups, bytes) : check.status();
}

extern "C" gt_status gt_batchnorm_backward(const gt_stream *stream, const gt_tensor *dx, const gt_tensor *dweight,
                                           const gt_tensor *dbias, const gt_tensor *dy, const gt_tensor *x,
                                           const gt_tensor *mean, const gt_tensor *rstd, const gt_tensor *weight,
                                           const gt_tensor *bias, gt_activation activation,
                                           const gt_tensor *workspace) {
  gt::Check check = check_images("batchnorm_backward", stream, x, {{"dx", dx}, {"dy", dy}});
  check_statistics(check, {{"mean", mean}, {"rstd", rstd}}, x, 0);
  if (!check.ok()) return check.status();
  check_f32(check, {{"dweight", dweight}, {"dbias", dbias}}, x->shape[2]);
  if (weight) gt::check_parameter(check, "weight", weight, x);
  if (bias) gt::check_parameter(check, "bias", bias, x);
  check_activation(check, activation);
  if (!check.ok()) return check.status();
  int64_t bytes = 0;
  if (const gt_status status = gt_batchnorm_backward_workspace(stream, x, &bytes)) return status;
  check.workspace(workspace, bytes);
  if (!check.ok()) return check.status();
  return GT_RUN(batchnorm_backward, stream, dx, dweight, dbias, dy, x, mean, rstd, weight, bias, activation, workspace);
}

extern "C" gt_status gt_batchnorm_backward_workspace(const gt_stream *stream, const gt_tensor *x, int64_t *bytes) {
  const gt::Check check = check_query("batchnorm_backward_workspace", stream, x, bytes);
  return check.ok() ? GT_RUN(batchnorm_backward_workspace, stream, x, bytes) : check.status();
}

extern "C" gt_status gt_groupnorm_double_backward(const gt_stream *stream, const gt_tensor *ddy, const gt_tensor *dx,
                                                  const gt_tensor *dweight, const gt_tensor *u, const gt_tensor *dy,
                                                  const gt_tensor *x, const gt_tensor *mean, const gt_tensor *rstd,
                                                  const gt_tensor *weight, int64_t groups, const gt_tensor *workspace) {
  gt::Check check = check_images("groupnorm_double_backward", stream, x,
                                 {{"ddy", ddy}, {"dx", dx}, {"u", u}, {"dy", dy}});
  gt::check_groups(check, x, groups);
  check_statistics(check, {{"mean", mean}, {"rstd", rstd}}, x, groups);
  if (!check.ok()) return check.status();
  check_f32(check, {{"dweight", dweight}}, x->shape[2]);
  if (weight) gt::check_parameter(check, "weight", weight, x);
  if (!check.ok()) return check.status();
  int64_t bytes = 0;
  if (const gt_status status = gt_groupnorm_double_backward_workspace(stream, x, groups, &bytes)) return status;
  check.workspace(workspace, bytes);
  if (!check.ok()) return check.status();
  return GT_RUN(groupnorm_double_backward, stream, ddy, dx, dweight, u, dy, x, mean, rstd, weight, groups, workspace);
}

extern "C" gt_status gt_groupnorm_double_backward_workspace(const gt_stream *stream, const gt_tensor *x, int64_t groups,
                                                            int64_t *bytes) {
  gt::Check check = check_query("groupnorm_double_backward_workspace", stream, x, bytes);
  gt::check_groups(check, x, groups);
  return check.ok() ? GT_RUN(groupnorm_double_backward_workspace, stream, x, groups, bytes) : check.status();
}

#endif
