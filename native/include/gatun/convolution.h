/* Two-dimensional convolution, its transpose and the gradients of both, as implicit matrix products: no buffer of
 * patches is ever made.
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

/* Gradient of gt_conv2d with respect to x: a transposed convolution of dy with the same weight.
 * dx[b,i,j,c] = sum_{u,v,f : i = i' sh - pt + u dh, j = j' sw - pl + v dw} dy[b,i',j',f] weight[f,u,v,c]
 *
 * dx [B, H, W, C], dy [B, H', W', F], weight [F, kh, kw, C/G] as in gt_conv2d. Cost: as gt_conv2d. */
GT_API gt_status gt_conv2d_backward_input(const gt_stream *stream, const gt_tensor *dx, const gt_tensor *dy,
                                          const gt_tensor *weight, int64_t stride_h, int64_t stride_w, int64_t pad_top,
                                          int64_t pad_bottom, int64_t pad_left, int64_t pad_right, int64_t dilation_h,
                                          int64_t dilation_w, int64_t groups);

/* Gradient of gt_conv2d with respect to weight:
 * dweight[f,u,v,c] = sum_{b,i,j} dy[b,i,j,f] x[b, i sh - pt + u dh, j sw - pl + v dw, g C/G + c]
 *
 * dweight    [F, kh, kw, C/G] f32 or x's dtype, any strides.  dy [B, H', W', F], x [B, H, W, C] as in gt_conv2d
 * workspace  u8 [n] contiguous, 16-byte aligned, n from the query function; NULL where it answers 0
 * Sums in f32 in an order that depends on the sizes alone. Cost: as gt_conv2d. */
GT_API gt_status gt_conv2d_backward_weight(const gt_stream *stream, const gt_tensor *dweight, const gt_tensor *dy,
                                           const gt_tensor *x, int64_t stride_h, int64_t stride_w, int64_t pad_top,
                                           int64_t pad_bottom, int64_t pad_left, int64_t pad_right, int64_t dilation_h,
                                           int64_t dilation_w, int64_t groups, const gt_tensor *workspace);

/* Bytes of workspace that gt_conv2d_backward_weight wants for this dweight and dy, and
 * gt_conv_transpose2d_backward_weight for this dweight and x in dy's place. */
GT_API gt_status gt_conv2d_backward_weight_workspace(const gt_stream *stream, const gt_tensor *dweight,
                                                     const gt_tensor *dy, int64_t groups, int64_t *bytes);

/* Gradient of gt_conv_transpose2d with respect to x: a convolution of dy with the same weight.
 * dx[b,i,j,c] = sum_{u,v,f} dy[b, i sh - ph + u dh, j sw - pw + v dw, f] weight[c,u,v,f]
 * where f runs over the outputs of c's group.
 *
 * dx [B, H, W, C], dy [B, H', W', F], weight [C, kh, kw, F/G] as in gt_conv_transpose2d. Cost: as the op. */
GT_API gt_status gt_conv_transpose2d_backward_input(const gt_stream *stream, const gt_tensor *dx, const gt_tensor *dy,
                                                    const gt_tensor *weight, int64_t stride_h, int64_t stride_w,
                                                    int64_t pad_h, int64_t pad_w, int64_t output_pad_h,
                                                    int64_t output_pad_w, int64_t dilation_h, int64_t dilation_w,
                                                    int64_t groups);

/* Gradient of gt_conv_transpose2d with respect to weight: gt_conv2d_backward_weight with x and dy exchanged.
 * dweight[c,u,v,f] = sum_{b,i,j} x[b,i,j,c] dy[b, i sh - ph + u dh, j sw - pw + v dw, f]
 *
 * dweight    [C, kh, kw, F/G] f32 or x's dtype, any strides.  dy [B, H', W', F], x [B, H, W, C] as in the op
 * workspace  as in gt_conv2d_backward_weight */
GT_API gt_status gt_conv_transpose2d_backward_weight(const gt_stream *stream, const gt_tensor *dweight,
                                                     const gt_tensor *dy, const gt_tensor *x, int64_t stride_h,
                                                     int64_t stride_w, int64_t pad_h, int64_t pad_w,
                                                     int64_t output_pad_h, int64_t output_pad_w, int64_t dilation_h,
                                                     int64_t dilation_w, int64_t groups, const gt_tensor *workspace);

#ifdef __cplusplus
}
#endif
#endif
