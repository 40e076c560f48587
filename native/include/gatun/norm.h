/* Layer normalisation and RMS normalisation over the last dimension, with the residual addition fused; group and batch
 * normalisation of images.
 *
 * Common to the first two: x, residual, residual_out, y: [..., C] of one dtype f32|bf16|f16, C contiguous, outer
 * strides that collapse to one row stride; weight, bias: [C] contiguous, x's dtype or f32. y may be x. residual_out may
 * be x or residual. Statistics in f32, two passes. A row with a NaN gives a NaN row. C = 0 is refused.
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

/* Of image b and group k, which has the C/G channels from k C/G on, over its S C/G elements:
 * mean = sum(x) / n;  rstd = 1 / sqrt(sum((x - mean)^2) / n + eps);  h = (x - mean) * rstd * weight[c] + bias[c]
 * y = activation(h * (1 + scale[b,c]) + shift[b,c])          Wu & He 2018 (arXiv 1803.08494)
 * With G = C this is instance normalisation (Ulyanov, Vedaldi & Lempitsky 2016, arXiv 1607.08022).
 *
 * y, x         [B, S, C] one dtype f32|bf16|f16, S the pixels; C contiguous (channels last) or S contiguous (channels
 *              first, a permuted view), and the other dimension at any stride. y may be x
 * mean, rstd   [B, G] f32 contiguous; NULL: not wanted
 * weight, bias [C] contiguous, x's dtype or f32; NULL: 1 and 0
 * scale, shift [B, C] x's dtype, C contiguous; both or neither NULL
 * groups       G, divides C.  workspace: u8 [n], n from the query function, NULL where it answers 0
 * A group with a NaN gives NaN. S = 0 and C = 0 are refused. A group's bits do not depend on the other images or on
 * the number of threads. Errors: INVALID_ARGUMENT. Cost: two reads (one from DRAM where the image fits the cache), one
 * write. */
GT_API gt_status gt_groupnorm(const gt_stream *stream, const gt_tensor *y, const gt_tensor *mean,
                              const gt_tensor *rstd, const gt_tensor *x, const gt_tensor *weight,
                              const gt_tensor *bias, const gt_tensor *scale, const gt_tensor *shift, int64_t groups,
                              float eps, gt_activation activation, const gt_tensor *workspace);

/* Bytes of workspace that gt_groupnorm wants for this x. */
GT_API gt_status gt_groupnorm_workspace(const gt_stream *stream, const gt_tensor *x, int64_t groups, int64_t *bytes);

/* Batch normalisation with given statistics, as at inference:
 * y = activation((x - mean[c]) / sqrt(var[c] + eps) * weight[c] + bias[c])      Ioffe & Szegedy 2015 (arXiv 1502.03167)
 *
 * y, x      [B, S, C] as in gt_groupnorm;  mean, var, weight, bias [C] contiguous, x's dtype or f32; weight, bias NULL:
 *           1 and 0. y may be x. Cost: one read, one write. */
GT_API gt_status gt_batchnorm(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x, const gt_tensor *mean,
                              const gt_tensor *var, const gt_tensor *weight, const gt_tensor *bias, float eps,
                              gt_activation activation);

/* Batch normalisation in training: over the n = B S values of each channel
 * mean = sum(x) / n;  var = sum((x - mean)^2) / n;  rstd = 1 / sqrt(var + eps)
 * y = activation((x - mean) * rstd * weight[c] + bias[c])
 * running_mean = (1 - momentum) running_mean + momentum mean;  running_var likewise with var n / (n - 1)
 *
 * y, x       [B, S, C] as in gt_groupnorm, n at least 2. y may be x
 * mean, rstd [C] f32 contiguous, for gt_batchnorm_backward
 * running_mean, running_var  [C] f32 contiguous, changed in place; NULL: not wanted
 * weight, bias [C] as in gt_groupnorm.  workspace: u8 [n], 16-byte aligned, n from the query function
 * Statistics as in gt_groupnorm. A NaN in a channel makes it NaN. Errors: INVALID_ARGUMENT. Cost: two reads, one
 * write. */
GT_API gt_status gt_batchnorm_train(const gt_stream *stream, const gt_tensor *y, const gt_tensor *mean,
                                    const gt_tensor *rstd, const gt_tensor *running_mean, const gt_tensor *running_var,
                                    const gt_tensor *x, const gt_tensor *weight, const gt_tensor *bias, float momentum,
                                    float eps, gt_activation activation, const gt_tensor *workspace);

/* Bytes of workspace that gt_batchnorm_train wants for this x. */
GT_API gt_status gt_batchnorm_train_workspace(const gt_stream *stream, const gt_tensor *x, int64_t *bytes);

#ifdef __cplusplus
}
#endif
#endif
