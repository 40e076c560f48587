// What does a convolution compute, once cuDNN's descriptors have been read?
#pragma once

#include "number.h"

namespace softgpu {

// Depth, height, width; what a problem does not have is 1 (padding: 0).
struct Extent {
  int64_t d, h, w;
};

struct Geometry {
  int64_t n, groups;
  int64_t c, k;  // channels in and out, per group
  Extent in, kernel, out, padding, stride, dilation;
  bool is_flipped;  // CUDNN_CONVOLUTION: the filter is turned round
};

// [N, C, D, H, W], or a filter [K, C per group, D, H, W]; strides in elements.
struct Image {
  void *data;
  Type type;
  int64_t n_stride, c_stride;
  Extent stride;
};

struct Convolution {
  Geometry geometry;
  Image x, w, y;  // backward: their gradients take their places where they are written
  float alpha, beta;
  bool has_tf32;      // what is multiplied is rounded to TF32
  bool is_backwards;  // images in descending order: a run of an algorithm whose order is not fixed
};

// y = alpha * conv(x, w) + beta * y. One chain of multiply-adds per output, over c, then the filter's depth, height,
// width.
void convolve(const Convolution &convolution);

// x = alpha * (gradient of the input, from y and w) + beta * x
void convolve_backward_data(const Convolution &convolution);

// w = alpha * (gradient of the filter, from x and y) + beta * w
void convolve_backward_filter(const Convolution &convolution);

// to[c] = alpha * sum over n and positions of from[n, c, ...] + beta * to[c]
void sum_channels(const Image &from, const Image &to, const Extent &size, int64_t n, int64_t c, float alpha,
                  float beta);

}  // namespace softgpu
