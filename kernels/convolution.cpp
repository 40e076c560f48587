// Convolution and its transpose: argument checks, dispatch, and the CPU twin of convolution.cu.
#include "gatun/convolution.h"

#include "check.h"
#include "cpu/isa.h"

#if defined(GT_ISA)
// Computes    gatun/convolution.h
// Mapping     an implicit matrix product [pixels, taps x channels] x [taps x channels, outputs]: blocks of PIXELS by
//             COLUMNS are split over threads; DEPTH terms of the sum at a time, a panel of weights is packed and six
//             pixels' patches are gathered for the register tile. The phases of a transposed convolution (see
//             convolution_axis.h) are products of their own
// Memory      a weight is packed once per PIXELS pixels, a patch gathered once per COLUMNS outputs, both into the cache
// Numerics    one chain of fused multiply-adds per output, in ascending (tap row, tap column, channel), what lies
//             outside of the image included as 0: bits depend neither on the other pixels nor on the threads
// Limits      180 KiB of stack. A group with few outputs (depthwise) fills one vector only
#include "convolution_axis.h"
#include "cpu/activation.h"
#include "cpu/parallel.h"
#include "cpu/row.h"
#include "cpu/tile.h"

namespace gt::GT_ISA {
namespace {

constexpr int64_t PIXELS = 64 * TILE_ROWS;  // per packed panel of weights; their sums take 96 KiB
constexpr int64_t COLUMNS = 64;             // outputs per panel
constexpr int64_t DEPTH = 256;              // terms per panel: 64 KiB, in the L2 cache

GT_INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

// One phase. The weight of output f of the group, tap (u, v) and channel c lies at w_f f + w_u u + w_v v + w_c c behind
// the group's first.
template <class T>
struct Product {
  const gt_tensor *y, *x, *bias;
  ConvolutionAxis rows, columns;
  const T *weight;
  int64_t w_group, w_f, w_u, w_v, w_c;
  int64_t inputs, outputs;  // channels of a group
  gt_activation activation;

  int64_t pixels() const { return y->shape[0] * rows.outs * columns.outs; }
  int64_t depth() const { return rows.taps * columns.taps * inputs; }

  // panel[k - from][f - first] for k in [from, to) and the next `num` outputs, zeros up to whole vectors.
  void pack(float *panel, int64_t group, int64_t first, int64_t num, int64_t from, int64_t to) const {
    const int64_t padded = (num + W - 1) / W * W;
    int64_t tap = from / inputs, c = from % inputs;
    for (int64_t k = from; k < to; ++k) {
      const int64_t u = rows.first_tap + tap / columns.taps * rows.tap_step;
      const int64_t v = columns.first_tap + tap % columns.taps * columns.tap_step;
      const T *w = weight + group * w_group + first * w_f + u * w_u + v * w_v + c * w_c;
      float *out = panel + (k - from) * COLUMNS;
      if (w_f == 1) {
        for (int64_t f = 0; f < num; f += W) store(out + f, load_first(w + f, num - f));
      } else {
        for (int64_t f = 0; f < num; ++f) out[f] = to_float(w[f * w_f]);
        for (int64_t f = num; f < padded; ++f) out[f] = 0;
      }
      if (++c == inputs) {
        c = 0;
        ++tap;
      }
    }
  }

  // out[k - from] for k in [from, to): what the pixel meets; up to W elements more are written.
  void gather(float *out, int64_t pixel, int64_t group, int64_t from, int64_t to) const {
    const int64_t n = pixel % columns.outs, m = pixel / columns.outs % rows.outs;
    const T *image = static_cast<const T *>(x->data) + pixel / (columns.outs * rows.outs) * x->stride[0] +
                     group * inputs * x->stride[3];
    const int64_t first_i = rows.first_in + m * rows.in_step, first_j = columns.first_in + n * columns.in_step;
    int64_t c = from % inputs, tu = from / inputs / columns.taps, tv = from / inputs % columns.taps;
    while (from < to) {
      const int64_t length = smaller(inputs - c, to - from);
      const int64_t i = first_i + tu * rows.tap_in, j = first_j + tv * columns.tap_in;
      const bool inside = i >= 0 && i < rows.ins && j >= 0 && j < columns.ins;
      const T *p = image + i * x->stride[1] + j * x->stride[2] + c * x->stride[3];
      if (!inside) {
        for (int64_t k = 0; k < length; k += W) store(out + k, vf{});
      } else if (x->stride[3] == 1) {
        for (int64_t k = 0; k < length; k += W) store(out + k, load_first(p + k, length - k));
      } else {
        for (int64_t k = 0; k < length; ++k) out[k] = to_float(p[k * x->stride[3]]);
      }
      out += length;
      from += length;
      c = 0;
      if (++tv == columns.taps) {
        tv = 0;
        ++tu;
      }
    }
  }

  float bias_at(int64_t f) const {
    if (!bias) return 0;
    return bias->dtype == GT_F32 ? static_cast<const float *>(bias->data)[f]
                                 : to_float(static_cast<const T *>(bias->data)[f]);
  }

  void put(int64_t pixel, int64_t f, int64_t num, const float *sums, const float *biases) const {
    const int64_t n = pixel % columns.outs, m = pixel / columns.outs % rows.outs;
    T *out = static_cast<T *>(y->data) + pixel / (columns.outs * rows.outs) * y->stride[0] +
             (rows.first_out + m * rows.out_step) * y->stride[1] +
             (columns.first_out + n * columns.out_step) * y->stride[2] + f * y->stride[3];
    for (int64_t i = 0; i < num; i += W) {
      const vf v = activate(load(sums + i) + load(biases + i), activation);
      if (y->stride[3] == 1) {
        store_up_to(out + i, v, num - i);
      } else {
        for (int64_t k = 0; k < smaller(W, num - i); ++k) from_float(v[k], out + (i + k) * y->stride[3]);
      }
    }
  }

  // The next num_pixels pixels and num outputs, which are f, f + 1, .. of their group.
  void block(int64_t pixel, int64_t num_pixels, int64_t group, int64_t f, int64_t num) const {
    alignas(64) float panel[DEPTH * COLUMNS], sums[PIXELS * COLUMNS], patches[TILE_ROWS * DEPTH + W];
    const int vectors = static_cast<int>((num + W - 1) / W);
    if (depth() == 0) memset(sums, 0, sizeof sums);
    for (int64_t from = 0; from < depth(); from += DEPTH) {
      const int64_t to = smaller(from + DEPTH, depth());
      pack(panel, group, f, num, from, to);
      for (int64_t p = 0; p < num_pixels; p += TILE_ROWS) {
        const int64_t tile = smaller(TILE_ROWS, num_pixels - p);
        for (int64_t r = 0; r < tile; ++r) gather(patches + r * DEPTH, pixel + p + r, group, from, to);
        multiply_add(static_cast<int>(tile), vectors, from ? FROM_C : FROM_ZERO, sums + p * COLUMNS, COLUMNS, patches,
                     DEPTH, panel, COLUMNS, to - from);
      }
    }
    float biases[COLUMNS];
    const int64_t first = group * outputs + f;
    for (int64_t i = 0; i < vectors * W; ++i) biases[i] = i < num ? bias_at(first + i) : 0;
    for (int64_t p = 0; p < num_pixels; ++p) put(pixel + p, first, num, sums + p * COLUMNS, biases);
  }

  void run(const gt_stream *stream) const {
    const int64_t panels = (outputs + COLUMNS - 1) / COLUMNS, groups = y->shape[3] / outputs;
    const int64_t columns_of_all = groups * panels;
    parallel_for(stream, (pixels() + PIXELS - 1) / PIXELS * columns_of_all, PIXELS * COLUMNS * depth(),
                 [&](int64_t begin, int64_t end) {
                   for (int64_t i = begin; i < end; ++i) {
                     const int64_t pixel = i / columns_of_all * PIXELS, f = i % panels * COLUMNS;
                     block(pixel, smaller(PIXELS, pixels() - pixel), i / panels % groups, f,
                           smaller(COLUMNS, outputs - f));
                   }
                 });
  }
};

}  // namespace

gt_status conv2d_cpu(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x, const gt_tensor *weight,
                     const gt_tensor *bias, int64_t stride_h, int64_t stride_w, int64_t pad_top, int64_t,
                     int64_t pad_left, int64_t, int64_t dilation_h, int64_t dilation_w, int64_t groups,
                     gt_activation activation) {
  with_float(x->dtype, [&](auto zero) {
    using T = decltype(zero);
    const int64_t outputs = y->shape[3] / groups, *w = weight->stride;
    const Product<T> p{y, x, bias,
                       convolution_axis(y->shape[1], x->shape[1], weight->shape[1], stride_h, pad_top, dilation_h),
                       convolution_axis(y->shape[2], x->shape[2], weight->shape[2], stride_w, pad_left, dilation_w),
                       static_cast<const T *>(weight->data), outputs * w[0], w[0], w[1], w[2], w[3],
                       x->shape[3] / groups, outputs, activation};
    p.run(stream);
  });
  return GT_OK;
}

gt_status conv_transpose2d_cpu(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x,
                               const gt_tensor *weight, const gt_tensor *bias, int64_t stride_h, int64_t stride_w,
                               int64_t pad_h, int64_t pad_w, int64_t, int64_t, int64_t dilation_h, int64_t dilation_w,
                               int64_t groups, gt_activation activation) {
  with_float(x->dtype, [&](auto zero) {
    using T = decltype(zero);
    const int64_t inputs = x->shape[3] / groups, *w = weight->stride;
    for (int64_t i = 0; i < smaller(stride_h, y->shape[1]); ++i)
      for (int64_t j = 0; j < smaller(stride_w, y->shape[2]); ++j) {
        const Product<T> p{
            y, x, bias,
            transposed_axis(i, y->shape[1], x->shape[1], weight->shape[1], stride_h, pad_h, dilation_h),
            transposed_axis(j, y->shape[2], x->shape[2], weight->shape[2], stride_w, pad_w, dilation_w),
            static_cast<const T *>(weight->data), inputs * w[0], w[3], w[1], w[2], w[0], inputs,
            y->shape[3] / groups, activation};
        p.run(stream);
      }
  });
  return GT_OK;
}

}  // namespace gt::GT_ISA

#else

#include "convolution_check.h"

GT_DECLARE_OP(conv2d)
GT_DECLARE_OP(conv_transpose2d)

namespace {

// What a forward op asks of its last arguments, once the others have passed.
void check_ending(gt::Check &check, const gt_tensor *y, const gt_tensor *bias, gt_activation activation) {
  if (!check.ok()) return;
  check.optional("bias", bias, gt::F32 | gt::dtype_bit(y->dtype)).shape("bias", bias, {y->shape[3]});
  check.contiguous("bias", bias);
  check.require(activation >= GT_ACTIVATION_NONE && activation <= GT_ACTIVATION_TANH,
                "activation is %d, expected %d to %d", activation, GT_ACTIVATION_NONE, GT_ACTIVATION_TANH);
}

}  // namespace

extern "C" gt_status gt_conv2d(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x,
                               const gt_tensor *weight, const gt_tensor *bias, int64_t stride_h, int64_t stride_w,
                               int64_t pad_top, int64_t pad_bottom, int64_t pad_left, int64_t pad_right,
                               int64_t dilation_h, int64_t dilation_w, int64_t groups, gt_activation activation) {
  gt::Check check("conv2d", stream);
  gt::check_convolution(check, {"y", "x", "weight", y, x, weight, false},
                        {{"H", stride_h, pad_top, pad_bottom, dilation_h},
                         {"W", stride_w, pad_left, pad_right, dilation_w}}, groups);
  check_ending(check, y, bias, activation);
  if (!check.ok() || gt::elements(*y) == 0) return check.status();
  return GT_RUN(conv2d, stream, y, x, weight, bias, stride_h, stride_w, pad_top, pad_bottom, pad_left, pad_right,
                dilation_h, dilation_w, groups, activation);
}

extern "C" gt_status gt_conv_transpose2d(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x,
                                         const gt_tensor *weight, const gt_tensor *bias, int64_t stride_h,
                                         int64_t stride_w, int64_t pad_h, int64_t pad_w, int64_t output_pad_h,
                                         int64_t output_pad_w, int64_t dilation_h, int64_t dilation_w, int64_t groups,
                                         gt_activation activation) {
  gt::Check check("conv_transpose2d", stream);
  gt::check_transposed_convolution(check, {"y", "x", "weight", y, x, weight, false},
                                   {{"H", stride_h, pad_h, output_pad_h, dilation_h},
                                    {"W", stride_w, pad_w, output_pad_w, dilation_w}}, groups);
  check_ending(check, y, bias, activation);
  if (!check.ok() || gt::elements(*y) == 0) return check.status();
  return GT_RUN(conv_transpose2d, stream, y, x, weight, bias, stride_h, stride_w, pad_h, pad_w, output_pad_h,
                output_pad_w, dilation_h, dilation_w, groups, activation);
}

#endif
