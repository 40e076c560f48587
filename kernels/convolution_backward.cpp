// Gradients of convolution and of its transpose: checks of arguments, dispatch, and the CPU twin of
// convolution_backward.cu.
//
// The gradient of an input is the other of the two ops, of an image of gradients with the same weight; those of the
// weights are one product, with the roles of x and dy exchanged.
#include "gatun/convolution.h"

#include "check.h"
#include "cpu/isa.h"

#if defined(GT_ISA)
// Computes    gatun/convolution.h, gt_conv2d_backward_weight
// Mapping     an implicit matrix product [outputs, pixels] x [pixels, taps x channels]: blocks of OUTPUTS by TERMS are
//             split over threads; PIXELS pixels of the sum at a time, dy is turned round and the pixels' patches are
//             gathered for the register tile
// Memory      dy once per TERMS terms, a patch once per OUTPUTS outputs; sums, panels and patches take 70 KiB
// Numerics    one chain of fused multiply-adds per element, in ascending (image, row, column), what lies outside of the
//             image included as 0: bits depend neither on blocks nor on threads
// Limits      a group with few terms (depthwise with one tap) fills one vector only
#include "cpu/parallel.h"
#include "cpu/row.h"
#include "cpu/tile.h"

namespace gt::GT_ISA {
namespace {

constexpr int64_t OUTPUTS = 8 * TILE_ROWS;  // of a block: a gathered patch serves so many
constexpr int64_t TERMS = 64;               // of a block
constexpr int64_t PIXELS = 128;             // of the sum at a time: patches of 32 KiB

GT_INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

struct Window {
  int64_t stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w;
};

// Neighbouring terms of a patch that are neighbouring channels of one tap.
struct Run {
  int64_t row, column, channel, length;  // row and column: of x, relative to that of the first tap
};

template <class T>
struct WeightGradient {
  const gt_tensor *dw, *dy, *x;
  Window window;
  int64_t inputs, outputs;  // channels of a group

  int64_t terms() const { return dw->shape[1] * dw->shape[2] * inputs; }

  // Of the terms from `first` on, `num` of them.
  int64_t find_runs(Run *runs, int64_t group, int64_t first, int64_t num) const {
    int64_t n = 0;
    for (int64_t k = first; k < first + num; k += runs[n - 1].length) {
      const int64_t tap = k / inputs, c = k % inputs;
      runs[n++] = {tap / dw->shape[2] * window.dilation_h, tap % dw->shape[2] * window.dilation_w, group * inputs + c,
                   smaller(inputs - c, first + num - k)};
    }
    return n;
  }

  struct Place {
    int64_t b, i, j;
  };
  void advance(Place &p) const {
    if (++p.j < dy->shape[2]) return;
    p.j = 0;
    if (++p.i < dy->shape[1]) return;
    p.i = 0;
    ++p.b;
  }

  // out[..] = the pixel's terms; up to W elements more are written.
  void gather(float *out, const Place &p, const Run *runs, int64_t num_runs) const {
    const T *image = static_cast<const T *>(x->data) + p.b * x->stride[0];
    const int64_t i = p.i * window.stride_h - window.pad_h, j = p.j * window.stride_w - window.pad_w;
    for (int64_t r = 0; r < num_runs; ++r) {
      const Run &run = runs[r];
      const int64_t h = i + run.row, w = j + run.column;
      const bool inside = h >= 0 && h < x->shape[1] && w >= 0 && w < x->shape[2];
      const T *from = image + h * x->stride[1] + w * x->stride[2] + run.channel * x->stride[3];
      if (!inside) {
        for (int64_t k = 0; k < run.length; k += W) store(out + k, vf{});
      } else if (x->stride[3] == 1) {
        for (int64_t k = 0; k < run.length; k += W) store(out + k, load_first(from + k, run.length - k));
      } else {
        for (int64_t k = 0; k < run.length; ++k) out[k] = to_float(from[k * x->stride[3]]);
      }
      out += run.length;
    }
  }

  // panel[f][p] = dy of output first + f at pixel p, zeros up to whole vectors of pixels.
  void turn(float *panel, const T *const *pixels, int64_t num_pixels, int64_t first, int64_t num) const {
    const int64_t step = dy->stride[3];
    for (int64_t p = 0; p < num_pixels; p += W)
      for (int64_t f = 0; f < num; f += W) {
        const int64_t rows = smaller(W, num_pixels - p), columns = smaller(W, num - f);
        if (step == 1) {
          vf v[W];
          for (int64_t r = 0; r < W; ++r) v[r] = r < rows ? load_first(pixels[p + r] + first + f, columns) : vf{};
          transpose(v);
          for (int64_t c = 0; c < columns; ++c) store(panel + (f + c) * PIXELS + p, v[c]);
        } else {
          for (int64_t r = 0; r < rows; ++r)
            for (int64_t c = 0; c < columns; ++c)
              panel[(f + c) * PIXELS + p + r] = to_float(pixels[p + r][(first + f + c) * step]);
        }
      }
  }

  void put(int64_t output, int64_t first, int64_t num, const float *sums) const {
    for (int64_t k = 0; k < num; ++k) {
      const int64_t tap = (first + k) / inputs, c = (first + k) % inputs;
      const int64_t at = output * dw->stride[0] + tap / dw->shape[2] * dw->stride[1] +
                         tap % dw->shape[2] * dw->stride[2] + c * dw->stride[3];
      if (dw->dtype == GT_F32)
        static_cast<float *>(dw->data)[at] = sums[k];
      else
        from_float(sums[k], static_cast<T *>(dw->data) + at);
    }
  }

  // Outputs f, f + 1, .. of the group, terms k, k + 1, ..
  void block(int64_t group, int64_t f, int64_t num_outputs, int64_t k, int64_t num_terms) const {
    alignas(64) float sums[OUTPUTS * TERMS] = {}, panel[(OUTPUTS + W) * PIXELS], patches[PIXELS * TERMS + W];
    const T *pixels[PIXELS];
    Run runs[TERMS];
    const int64_t num_runs = find_runs(runs, group, k, num_terms), first = group * outputs + f;
    const int vectors = static_cast<int>((num_terms + W - 1) / W);
    if (num_terms % W != 0) memset(patches, 0, sizeof patches);
    Place place{0, 0, 0};
    for (int64_t left = dy->shape[0] * dy->shape[1] * dy->shape[2]; left > 0; left -= PIXELS) {
      const int64_t num = smaller(PIXELS, left);
      for (int64_t p = 0; p < num; ++p, advance(place)) {
        gather(patches + p * TERMS, place, runs, num_runs);
        pixels[p] = static_cast<const T *>(dy->data) + place.b * dy->stride[0] + place.i * dy->stride[1] +
                    place.j * dy->stride[2];
      }
      turn(panel, pixels, num, first, num_outputs);
      for (int64_t r = 0; r < num_outputs; r += TILE_ROWS)
        multiply_add(static_cast<int>(smaller(TILE_ROWS, num_outputs - r)), vectors, FROM_C, sums + r * TERMS, TERMS,
                     panel + r * PIXELS, PIXELS, patches, TERMS, num);
    }
    for (int64_t r = 0; r < num_outputs; ++r) put(first + r, k, num_terms, sums + r * TERMS);
  }

  void run(const gt_stream *stream) const {
    const int64_t groups = dw->shape[0] / outputs, term_blocks = (terms() + TERMS - 1) / TERMS;
    const int64_t output_blocks = (outputs + OUTPUTS - 1) / OUTPUTS;
    // of equal size, so that threads have equal work
    const int64_t height = ((outputs + output_blocks - 1) / output_blocks + TILE_ROWS - 1) / TILE_ROWS * TILE_ROWS;
    const int64_t pixels = dy->shape[0] * dy->shape[1] * dy->shape[2];
    parallel_for(stream, groups * output_blocks * term_blocks, height * TERMS * (pixels + 1),
                 [&](int64_t begin, int64_t end) {
                   for (int64_t n = begin; n < end; ++n) {
                     const int64_t k = n % term_blocks * TERMS, f = n / term_blocks % output_blocks * height;
                     if (f < outputs)
                       block(n / term_blocks / output_blocks, f, smaller(height, outputs - f), k,
                             smaller(TERMS, terms() - k));
                   }
                 });
  }
};

}  // namespace

gt_status conv2d_backward_weight_cpu(const gt_stream *stream, const gt_tensor *dweight, const gt_tensor *dy,
                                     const gt_tensor *x, int64_t stride_h, int64_t stride_w, int64_t pad_top, int64_t,
                                     int64_t pad_left, int64_t, int64_t dilation_h, int64_t dilation_w, int64_t groups,
                                     const gt_tensor *) {
  with_float(x->dtype, [&](auto zero) {
    const WeightGradient<decltype(zero)> gradient{dweight, dy, x,
                                                  {stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w},
                                                  dweight->shape[3], dweight->shape[0] / groups};
    gradient.run(stream);
  });
  return GT_OK;
}

gt_status conv2d_backward_weight_workspace_cpu(const gt_stream *, const gt_tensor *, const gt_tensor *, int64_t,
                                               int64_t *bytes) {
  *bytes = 0;
  return GT_OK;
}

}  // namespace gt::GT_ISA

#else

#include "convolution_check.h"

GT_DECLARE_OP(conv2d)
GT_DECLARE_OP(conv_transpose2d)
GT_DECLARE_OP(conv2d_backward_weight)
GT_DECLARE_OP(conv2d_backward_weight_workspace)

namespace {

void check_workspace(gt::Check &check, const gt_stream *stream, const gt_tensor *dweight, const gt_tensor *dy,
                     int64_t groups, const gt_tensor *workspace) {
  if (!check.ok()) return;
  check.optional("workspace", workspace, gt::dtype_bit(GT_U8)).rank("workspace", workspace, 1);
  check.contiguous("workspace", workspace);
  int64_t bytes = 0;
  if (!check.ok() || GT_RUN(conv2d_backward_weight_workspace, stream, dweight, dy, groups, &bytes)) return;
  check.require(bytes == 0 || (workspace && workspace->shape[0] >= bytes &&
                               reinterpret_cast<uintptr_t>(workspace->data) % 16 == 0),
                "workspace has %lld bytes, expected %lld, 16-byte aligned",
                static_cast<long long>(workspace ? workspace->shape[0] : 0), static_cast<long long>(bytes));
}

}  // namespace

extern "C" gt_status gt_conv2d_backward_input(const gt_stream *stream, const gt_tensor *dx, const gt_tensor *dy,
                                              const gt_tensor *weight, int64_t stride_h, int64_t stride_w,
                                              int64_t pad_top, int64_t pad_bottom, int64_t pad_left, int64_t pad_right,
                                              int64_t dilation_h, int64_t dilation_w, int64_t groups) {
  gt::Check check("conv2d_backward_input", stream);
  gt::check_convolution(check, {"dy", "dx", "weight", dy, dx, weight, false},
                        {{"H", stride_h, pad_top, pad_bottom, dilation_h},
                         {"W", stride_w, pad_left, pad_right, dilation_w}}, groups);
  if (!check.ok() || gt::elements(*dx) == 0) return check.status();
  return GT_RUN(conv_transpose2d, stream, dx, dy, weight, nullptr, stride_h, stride_w, pad_top, pad_left, 0, 0,
                dilation_h, dilation_w, groups, GT_ACTIVATION_NONE);
}

extern "C" gt_status gt_conv_transpose2d_backward_input(const gt_stream *stream, const gt_tensor *dx,
                                                        const gt_tensor *dy, const gt_tensor *weight, int64_t stride_h,
                                                        int64_t stride_w, int64_t pad_h, int64_t pad_w,
                                                        int64_t output_pad_h, int64_t output_pad_w, int64_t dilation_h,
                                                        int64_t dilation_w, int64_t groups) {
  gt::Check check("conv_transpose2d_backward_input", stream);
  gt::check_transposed_convolution(check, {"dy", "dx", "weight", dy, dx, weight, false},
                                   {{"H", stride_h, pad_h, output_pad_h, dilation_h},
                                    {"W", stride_w, pad_w, output_pad_w, dilation_w}}, groups);
  if (!check.ok() || gt::elements(*dx) == 0) return check.status();
  return GT_RUN(conv2d, stream, dx, dy, weight, nullptr, stride_h, stride_w, pad_h, 0, pad_w, 0, dilation_h,
                dilation_w, groups, GT_ACTIVATION_NONE);
}

extern "C" gt_status gt_conv2d_backward_weight(const gt_stream *stream, const gt_tensor *dweight, const gt_tensor *dy,
                                               const gt_tensor *x, int64_t stride_h, int64_t stride_w, int64_t pad_top,
                                               int64_t pad_bottom, int64_t pad_left, int64_t pad_right,
                                               int64_t dilation_h, int64_t dilation_w, int64_t groups,
                                               const gt_tensor *workspace) {
  gt::Check check("conv2d_backward_weight", stream);
  gt::check_convolution(check, {"dy", "x", "dweight", dy, x, dweight, true},
                        {{"H", stride_h, pad_top, pad_bottom, dilation_h},
                         {"W", stride_w, pad_left, pad_right, dilation_w}}, groups);
  check_workspace(check, stream, dweight, dy, groups, workspace);
  if (!check.ok() || gt::elements(*dweight) == 0) return check.status();
  return GT_RUN(conv2d_backward_weight, stream, dweight, dy, x, stride_h, stride_w, pad_top, pad_bottom, pad_left,
                pad_right, dilation_h, dilation_w, groups, workspace);
}

extern "C" gt_status gt_conv_transpose2d_backward_weight(const gt_stream *stream, const gt_tensor *dweight,
                                                         const gt_tensor *dy, const gt_tensor *x, int64_t stride_h,
                                                         int64_t stride_w, int64_t pad_h, int64_t pad_w,
                                                         int64_t output_pad_h, int64_t output_pad_w,
                                                         int64_t dilation_h, int64_t dilation_w, int64_t groups,
                                                         const gt_tensor *workspace) {
  gt::Check check("conv_transpose2d_backward_weight", stream);
  gt::check_transposed_convolution(check, {"dy", "x", "dweight", dy, x, dweight, true},
                                   {{"H", stride_h, pad_h, output_pad_h, dilation_h},
                                    {"W", stride_w, pad_w, output_pad_w, dilation_w}}, groups);
  check_workspace(check, stream, dweight, x, groups, workspace);
  if (!check.ok() || gt::elements(*dweight) == 0) return check.status();
  return GT_RUN(conv2d_backward_weight, stream, dweight, x, dy, stride_h, stride_w, pad_h, 0, pad_w, 0, dilation_h,
                dilation_w, groups, workspace);
}

extern "C" gt_status gt_conv2d_backward_weight_workspace(const gt_stream *stream, const gt_tensor *dweight,
                                                         const gt_tensor *dy, int64_t groups, int64_t *bytes) {
  gt::Check check("conv2d_backward_weight_workspace", stream);
  check.tensor("dweight", dweight, gt::FLOATS).rank("dweight", dweight, 4);
  check.tensor("dy", dy, gt::FLOATS).rank("dy", dy, 4);
  check.require(bytes, "bytes is NULL, expected where to put the result");
  if (!check.ok()) return check.status();
  check.require(groups >= 1 && dweight->shape[0] % groups == 0, "groups is %lld, expected a divisor of %lld outputs",
                static_cast<long long>(groups), static_cast<long long>(dweight->shape[0]));
  return check.ok() ? GT_RUN(conv2d_backward_weight_workspace, stream, dweight, dy, groups, bytes) : check.status();
}

#endif
