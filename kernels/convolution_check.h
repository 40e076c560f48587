// What do convolutions, their transposes and the gradients of both ask of their arguments?
//
// A gradient has the operands of its op, some of them in other roles: the names are the caller's.
#pragma once

#include "check.h"
#include "gatun/convolution.h"

namespace gt {

// Operands as the op has them: y is what it computes from x and weight.
struct ConvolutionOperands {
  const char *y_name, *x_name, *weight_name;
  const gt_tensor *y, *x, *weight;
  bool weight_is_gradient;  // f32 is permitted too
};

// One side of the images, H or W. Of a transposed convolution pad_after is the output pad.
struct ConvolutionSide {
  const char *name;
  int64_t stride, pad_before, pad_after, dilation;
};

constexpr int64_t MAX_CONVOLUTION_SIZE = INT32_MAX;  // so that no product of two of them overflows

static inline void check_convolution_operands(Check &check, const ConvolutionOperands &o, int64_t groups) {
  check.tensor(o.x_name, o.x, FLOATS).rank(o.x_name, o.x, 4);
  check.tensor(o.weight_name, o.weight, FLOATS).rank(o.weight_name, o.weight, 4);
  if (!check.ok()) return;
  if (!o.weight_is_gradient || o.weight->dtype != GT_F32) check.same_dtype(o.weight_name, o.weight, o.x_name, o.x);
  check.tensor(o.y_name, o.y, FLOATS).same_dtype(o.y_name, o.y, o.x_name, o.x);
  if (!check.ok()) return;
  check.shape(o.y_name, o.y, {o.x->shape[0], -1, -1, -1});
  if (!check.ok()) return;
  check.require(groups >= 1 && o.x->shape[3] % groups == 0 && o.y->shape[3] % groups == 0,
                "groups is %lld, expected a divisor of %lld channels of %s and %lld of %s",
                static_cast<long long>(groups), static_cast<long long>(o.x->shape[3]), o.x_name,
                static_cast<long long>(o.y->shape[3]), o.y_name);
}

static inline void check_convolution_numbers(Check &check, const ConvolutionOperands &o, const ConvolutionSide &s,
                                             int dimension) {
  const struct {
    const char *what, *of;
    int64_t value;
    int least;
  } numbers[] = {{"size of ", o.x_name, o.x->shape[dimension], 0},
                 {"size of ", o.weight_name, o.weight->shape[dimension], 1},
                 {"stride", "", s.stride, 1},
                 {"pad", "", s.pad_before, 0},
                 {"pad", "", s.pad_after, 0},
                 {"dilation", "", s.dilation, 1}};
  for (const auto &[what, of, value, least] : numbers)
    check.require(value >= least && value <= MAX_CONVOLUTION_SIZE, "%s%s along %s is %lld, expected %d to 2^31 - 1",
                  what, of, s.name, static_cast<long long>(value), least);
}

static inline void check_convolution_size(Check &check, const ConvolutionOperands &o, const ConvolutionSide &s,
                                          int dimension, int64_t expected) {
  check.require(o.y->shape[dimension] == expected,
                "%s has size %lld along %s, expected %lld for %s of %lld and a kernel of %lld", o.y_name,
                static_cast<long long>(o.y->shape[dimension]), s.name, static_cast<long long>(expected),
                o.x_name, static_cast<long long>(o.x->shape[dimension]),
                static_cast<long long>(o.weight->shape[dimension]));
}

// Of gt_conv2d and its gradients.
static inline void check_convolution(Check &check, const ConvolutionOperands &o, const ConvolutionSide (&sides)[2],
                                     int64_t groups) {
  check_convolution_operands(check, o, groups);
  if (!check.ok()) return;
  check.shape(o.weight_name, o.weight, {o.y->shape[3], -1, -1, o.x->shape[3] / groups});
  for (int d = 1; d <= 2; ++d) {
    const ConvolutionSide &s = sides[d - 1];
    check_convolution_numbers(check, o, s, d);
    if (!check.ok()) return;
    const int64_t in = o.x->shape[d], taps = o.weight->shape[d];
    const int64_t room = in + s.pad_before + s.pad_after - s.dilation * (taps - 1) - 1;
    check.require(room >= 0, "a kernel of %lld with dilation %lld does not fit into %s of %lld with pads %lld and %lld",
                  static_cast<long long>(taps), static_cast<long long>(s.dilation), o.x_name,
                  static_cast<long long>(in), static_cast<long long>(s.pad_before),
                  static_cast<long long>(s.pad_after));
    check_convolution_size(check, o, s, d, room / s.stride + 1);
  }
}

// Of gt_conv_transpose2d and its gradients.
static inline void check_transposed_convolution(Check &check, const ConvolutionOperands &o,
                                                const ConvolutionSide (&sides)[2], int64_t groups) {
  check_convolution_operands(check, o, groups);
  if (!check.ok()) return;
  check.shape(o.weight_name, o.weight, {o.x->shape[3], -1, -1, o.y->shape[3] / groups});
  for (int d = 1; d <= 2; ++d) {
    const ConvolutionSide &s = sides[d - 1];
    check_convolution_numbers(check, o, s, d);
    if (!check.ok()) return;
    const int64_t in = o.x->shape[d];
    check.require(in >= 1, "%s is empty along %s, expected at least one row", o.x_name, s.name);
    check.require(s.pad_after < s.stride || s.pad_after < s.dilation,
                  "output pad along %s is %lld, expected less than the stride %lld or the dilation %lld", s.name,
                  static_cast<long long>(s.pad_after), static_cast<long long>(s.stride),
                  static_cast<long long>(s.dilation));
    const int64_t reach = s.dilation * (o.weight->shape[d] - 1) + 1;
    check_convolution_size(check, o, s, d, (in - 1) * s.stride - 2 * s.pad_before + reach + s.pad_after);
  }
}

}  // namespace gt
