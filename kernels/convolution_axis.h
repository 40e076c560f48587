// Which inputs does an output of a convolution meet, along the rows or the columns of an image?
//
// A transposed convolution with stride s is s convolutions of stride 1, one per phase: outputs that are s apart meet
// the same taps of the kernel, so no product with a zero between the inputs is ever computed. A plain one has one
// phase.
#pragma once

#include <stdint.h>

#if defined(__CUDACC__)
#define GT_HOST_DEVICE __host__ __device__
#else
#define GT_HOST_DEVICE
#endif

namespace gt {

// Output first_out + m out_step, m < outs, meets input first_in + m in_step + t tap_in, where that is inside 0 .. ins,
// through weight first_tap + t tap_step, t < taps.
struct ConvolutionAxis {
  int64_t first_out, out_step, outs;
  int64_t first_in, in_step, tap_in, ins;
  int64_t first_tap, tap_step, taps;
};

GT_HOST_DEVICE static inline ConvolutionAxis convolution_axis(int64_t outs, int64_t ins, int64_t taps, int64_t stride,
                                                              int64_t pad, int64_t dilation) {
  return {0, 1, outs, -pad, stride, dilation, ins, 0, 1, taps};
}

// Outputs phase, phase + stride, ..: weight u counts where phase + pad - u dilation is a multiple of stride.
GT_HOST_DEVICE static inline ConvolutionAxis transposed_axis(int64_t phase, int64_t outs, int64_t ins, int64_t taps,
                                                             int64_t stride, int64_t pad, int64_t dilation) {
  int64_t common = stride;
  for (int64_t rest = dilation; rest;) {
    const int64_t next = common % rest;
    common = rest;
    rest = next;
  }
  const int64_t tap_step = stride / common, tried = tap_step < taps ? tap_step : taps;
  int64_t first = 0;
  while (first < tried && (phase + pad - first * dilation) % stride) ++first;
  ConvolutionAxis axis{phase, stride, (outs - phase + stride - 1) / stride, 0, 1, -dilation / common, ins, first,
                       tap_step, 0};
  if (first < tried) {
    axis.first_in = (phase + pad - first * dilation) / stride;
    axis.taps = (taps - first + tap_step - 1) / tap_step;
  }
  return axis;
}

}  // namespace gt
