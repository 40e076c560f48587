/* Products of e4m3 numbers (OCP OFP8: 4 bits of exponent, 3 of mantissa, up to 448, no infinity) with an f32 scale for
 * each row: an element stands for its number times its row's scale. Micikevicius et al. 2022 (arXiv 2209.05433).
 * The codes of NaN, 0x7f and 0xff, which gt_quantize_rows never writes, count as 480 and -480.
 * Errors: INVALID_ARGUMENT for shape, dtype or pointer. */
#ifndef GATUN_FP8_H
#define GATUN_FP8_H

#include "gatun/types.h"

#ifdef __cplusplus
extern "C" {
#endif

/* scale[n] = max(max_c |x[n,c]|, 1e-30) / 448;  y[n,c] = e4m3(x[n,c] / scale[n]), both divisions in f32, rounded to
 * nearest even, at most 448. A row with a NaN or an infinity gets scale NaN and y 0.
 *
 * y      [N, C] f8_e4m3, C contiguous
 * scale  [N] f32 contiguous
 * x      [N, C] f32|bf16|f16, C contiguous
 * Neither may overlap x. Cost: one read of x, one write of y. */
GT_API gt_status gt_quantize_rows(const gt_stream *stream, const gt_tensor *y, const gt_tensor *scale,
                                  const gt_tensor *x);

/* y[n,f] = x_scale[n] weight_scale[f] sum_c x[n,c] weight[f,c] + bias[f]
 *
 * y             [N, F] f32|bf16|f16, for 16-bit x f32 or x's dtype; F contiguous
 * x             [N, C] bf16|f16 without x_scale, or f8_e4m3 with it; C contiguous
 * x_scale       [N] f32 contiguous; NULL: 1
 * weight        [F, C] f8_e4m3, C contiguous
 * weight_scale  [F] f32 contiguous
 * bias          [F] y's dtype or f32, contiguous; NULL: none
 * The sum is that of the exact products, in f32 in an order that depends on C alone; scales and bias follow in f32, in
 * the order weight_scale, x_scale, bias. Row n has the same bits for any N and any number of threads. y may not overlap
 * an input. Cost: one read of weight up to 16 rows of x, and per some 16 to 64 rows beyond. */
GT_API gt_status gt_linear_fp8(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x,
                               const gt_tensor *x_scale, const gt_tensor *weight, const gt_tensor *weight_scale,
                               const gt_tensor *bias);

#ifdef __cplusplus
}
#endif
#endif
