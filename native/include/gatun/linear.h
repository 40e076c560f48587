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

#ifdef __cplusplus
}
#endif
#endif
