/* Two-dimensional convolution and its transpose, as implicit matrix products: no buffer of patches is ever made.
 *
 * Common to both: operands f32|bf16|f16 of one dtype, any strides: [B, H, W, C] is the order of the dimensions, not of
 * the memory (channels last is the fast one; a channels-first image or weight is passed as a permuted view). Here H and
 * W are height and width. Sums in f32 in a fixed order: an image's bits do not depend on the others or on the number of
 * threads. bias [F] contiguous, x's dtype or f32, or NULL. y may not overlap an input. What lies outside x is 0.
 * Errors: INVALID_ARGUMENT for shape, dtype, pointer, a stride, dilation or group count below 1, a negative pad. */
#ifndef GATUN_CONVOLUTION_H
#define GATUN_CONVOLUTION_H

#include "gatun/types.h"

#ifdef __cplusplus
extern "C" {
#endif

/* y[b,i,j,f] = activation(bias[f] + sum_{u,v,c} x[b, i sh - pt + u dh, j sw - pl + v dw, g C/G + c] w[f,u,v,c])
 * where g = f / (F/G) is the group of f.
 *
 * y       [B, H', W', F]   H' = (H + pt + pb - dh (kh - 1) - 1) / sh + 1, W' likewise
 * x       [B, H, W, C]
 * weight  [F, kh, kw, C/G]  (torch keeps it [F, C/G, kh, kw])
 * Cost: 2 B H' W' F kh kw C/G flops. */
GT_API gt_status gt_conv2d(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x, const gt_tensor *weight,
                           const gt_tensor *bias, int64_t stride_h, int64_t stride_w, int64_t pad_top,
                           int64_t pad_bottom, int64_t pad_left, int64_t pad_right, int64_t dilation_h,
                           int64_t dilation_w, int64_t groups, gt_activation activation);

/* The transpose of gt_conv2d with x and y exchanged, plus bias:
 * y[b,i,j,f] = activation(bias[f] + sum_{u,v,c : i = i' sh - ph + u dh, j = j' sw - pw + v dw} x[b,i',j',c] w[c,u,v,f])
 * where c runs over the channels of f's group.
 *
 * y       [B, H', W', F]   H' = (H - 1) sh - 2 ph + dh (kh - 1) + oh + 1, W' likewise
 * x       [B, H, W, C]
 * weight  [C, kh, kw, F/G]  (torch keeps it [C, F/G, kh, kw])
 * output_pad_h, output_pad_w  oh, ow, below stride or dilation: rows and columns added at the bottom and the right
 * Cost: 2 B H W C kh kw F/G flops. */
GT_API gt_status gt_conv_transpose2d(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x,
                                     const gt_tensor *weight, const gt_tensor *bias, int64_t stride_h,
                                     int64_t stride_w, int64_t pad_h, int64_t pad_w, int64_t output_pad_h,
                                     int64_t output_pad_w, int64_t dilation_h, int64_t dilation_w, int64_t groups,
                                     gt_activation activation);

#ifdef __cplusplus
}
#endif
#endif
