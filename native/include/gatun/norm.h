/* Layer normalisation and RMS normalisation over the last dimension, with the residual addition fused.
 *
 * Common to all: x, residual, residual_out, y: [..., C] of one dtype f32|bf16|f16, C contiguous, outer strides that
 * collapse to one row stride; weight, bias: [C] contiguous, x's dtype or f32. y may be x. residual_out may be x or
 * residual. Statistics in f32, two passes. A row with a NaN gives a NaN row. C = 0 is refused.
 * Errors: INVALID_ARGUMENT for shape, dtype, stride, NULL where not allowed, eps < 0. Cost: one read, one write. */
#ifndef GATUN_NORM_H
#define GATUN_NORM_H

#include "gatun/types.h"

#ifdef __cplusplus
extern "C" {
#endif

/* h = x + residual (h = x where residual is NULL), rounded to x's dtype
 * mean = sum(h) / C;  rstd = 1 / sqrt(sum((h - mean)^2) / C + eps)
 * y = (h - mean) * rstd * weight + bias           Ba, Kiros & Hinton 2016 (arXiv 1607.06450)
 *
 * y            [..., C]
 * residual_out [..., C] receives h; NULL: not wanted
 * mean, rstd   [N] f32 contiguous, N = product of the outer dimensions; NULL: not wanted
 * residual     [..., C] or NULL;  weight, bias [C] or NULL (1 and 0) */
GT_API gt_status gt_layernorm(const gt_stream *stream, const gt_tensor *y, const gt_tensor *residual_out,
                              const gt_tensor *mean, const gt_tensor *rstd, const gt_tensor *x,
                              const gt_tensor *residual, const gt_tensor *weight, const gt_tensor *bias, float eps);

/* h = x + residual (h = x where residual is NULL), rounded to x's dtype
 * rstd = 1 / sqrt(sum(h^2) / C + eps)
 * y = round(h * rstd) * weight: rounded to x's dtype before the weight, as Llama and T5 do
 *                                                  Zhang & Sennrich 2019 (arXiv 1910.07467)
 * Operands as in gt_layernorm. */
GT_API gt_status gt_rmsnorm(const gt_stream *stream, const gt_tensor *y, const gt_tensor *residual_out,
                            const gt_tensor *rstd, const gt_tensor *x, const gt_tensor *residual,
                            const gt_tensor *weight, float eps);

#ifdef __cplusplus
}
#endif
#endif
