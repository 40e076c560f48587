/* Matrix product with few rows: the decode step, where the weights are read once and memory bandwidth is the limit.
 * Products with many rows go to oneDNN or cublasLt. */
#ifndef GATUN_LINEAR_H
#define GATUN_LINEAR_H

#include "gatun/types.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef int32_t gt_weight_layout;
enum {
  GT_WEIGHT_OUT_IN = 0, /* weight [F, C]: torch Linear */
  GT_WEIGHT_IN_OUT = 1  /* weight [C, F]: GPT-2's Conv1D */
};

/* y[n,f] = sum_c x[n,c] * w[f,c] + bias[f]
 *
 * y       [N, F] f32, or x's dtype; F contiguous
 * x       [N, C] f32|bf16|f16, C contiguous
 * weight  [F, C] or [C, F] by layout, x's dtype, rows contiguous
 * bias    [F] x's dtype or f32, contiguous; NULL: none
 * Sum in f32 in an order that depends on C and layout alone: row n has the same bits for any N and any number of
 * threads. y may not overlap an input. Errors: INVALID_ARGUMENT. Cost: one read of weight up to 16 rows of x, and per
 * some 64 to 128 rows beyond. */
GT_API gt_status gt_linear(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x, const gt_tensor *weight,
                           const gt_tensor *bias, gt_weight_layout layout);

typedef int32_t gt_norm;
enum {
  GT_NORM_NONE = 0,
  GT_NORM_LAYER = 1, /* gt_layernorm */
  GT_NORM_RMS = 2    /* gt_rmsnorm */
};

/* What lies between the matrices of an MLP: the op of gatun/elementwise.h of that name. */
typedef int32_t gt_mlp_activation;
enum {
  GT_MLP_NONE = 0,
  GT_MLP_GELU_ERF = 1,
  GT_MLP_GELU_TANH = 2,
  GT_MLP_QUICK_GELU = 3,
  GT_MLP_SILU = 4,
  GT_MLP_RELU = 5
};

/* A node of a decode step: norm, matrix product and activation in one launch, with the bits of the ops one by one.
 *
 * s = x + residual (s = x where residual is NULL), rounded to x's dtype
 * n = norm(s) as gt_layernorm or gt_rmsnorm has it, n = x for GT_NORM_NONE
 * y = activation(n weight^T + bias), or with `up`: activation(n weight^T + bias) * (n up^T + up_bias); products rounded
 *     to y's dtype before the activation and before they are multiplied
 *
 * y            [N, F] f32, or x's dtype; F contiguous
 * residual_out [N, C] receives s; NULL: not wanted. May not overlap x or residual
 * x            [N, C] f32|bf16|f16, C contiguous; N at most 65535, C at most 16384, with a norm 1 to 8192
 * residual     [N, C] or NULL;  norm_weight, norm_bias  [C] x's dtype or f32, contiguous, or NULL. Without a norm
 *              these, residual and residual_out are NULL; RMS norm has no norm_bias. eps >= 0
 * weight, up   [F, C] or [C, F] by layout, x's dtype or f8_e4m3, rows contiguous; up NULL: no gate
 * bias, up_bias  [F] x's dtype or f32, contiguous; NULL: none
 * weight_scale, up_scale  NULL. But weight and up may both be f8_e4m3 [F, C] where x is 16-bit: then [F] f32,
 *              contiguous; a product is gt_linear_fp8's, scaled by columns, and a bias has y's dtype or f32
 * A row has the same bits for any N and any number of threads. y may not overlap an input.
 * On CUDA, in a captured graph, weights, their scales, biases and the norm's parameters are read before the kernels in
 * front have ended: no op of the graph may write them.
 * Errors: INVALID_ARGUMENT. Cost: one read of the weights for as many rows as fit in an SM's shared memory, 16 at most:
 * 16-bit [F, C] on sm_90 behind an RMS norm, with a gate, 16 up to C = 5632, 9 of 8192 (f32: 8 of 4096, 4 of 8192);
 * without a norm, gate and activation 16 of any C. */
GT_API gt_status gt_norm_linear(const gt_stream *stream, const gt_tensor *y, const gt_tensor *residual_out,
                                const gt_tensor *x, const gt_tensor *residual, gt_norm norm,
                                const gt_tensor *norm_weight, const gt_tensor *norm_bias, float eps,
                                const gt_tensor *weight, const gt_tensor *weight_scale, const gt_tensor *bias,
                                const gt_tensor *up, const gt_tensor *up_scale, const gt_tensor *up_bias,
                                gt_weight_layout layout, gt_mlp_activation activation);

/* Three products of one norm: q = n q_weight^T + q_bias, likewise k and v. Operands as in gt_norm_linear, q, k, v as y,
 * of one dtype; each has its own F. */
GT_API gt_status gt_norm_linear_qkv(const gt_stream *stream, const gt_tensor *q, const gt_tensor *k, const gt_tensor *v,
                                    const gt_tensor *residual_out, const gt_tensor *x, const gt_tensor *residual,
                                    gt_norm norm, const gt_tensor *norm_weight, const gt_tensor *norm_bias, float eps,
                                    const gt_tensor *q_weight, const gt_tensor *q_scale, const gt_tensor *q_bias,
                                    const gt_tensor *k_weight, const gt_tensor *k_scale, const gt_tensor *k_bias,
                                    const gt_tensor *v_weight, const gt_tensor *v_scale, const gt_tensor *v_bias,
                                    gt_weight_layout layout);

#ifdef __cplusplus
}
#endif
#endif
