/* Gradients of the normalisations of gatun/norm.h.
 *
 * Common: dy is the gradient of the norm's y. Every output is overwritten, nothing is added to it. Gradients of images
 * and rows have x's dtype; gradients of parameters are f32 [C] contiguous, NULL where not wanted. All arithmetic is in
 * f32 or wider; sums over rows or pixels go over chunks whose number depends on the shape alone, so that bits depend
 * neither on threads nor on the device's size. No rows give zero parameter gradients. workspace: u8 [n] 16-byte
 * aligned, n from the query function; NULL where that answers 0 or no gradient of a parameter is wanted.
 * Errors: INVALID_ARGUMENT for shape, dtype, stride, NULL where not allowed. */
#ifndef GATUN_NORM_BACKWARD_H
#define GATUN_NORM_BACKWARD_H

#include "gatun/types.h"

#ifdef __cplusplus
extern "C" {
#endif

/* With h = (x - mean) * rstd and g = dy * weight, of each row:
 * dx = residual + rstd * (g - sum(g) / C - h * sum(g * h) / C)
 * dweight = sum over rows of dy * h;  dbias = sum over rows of dy
 *
 * dx          [..., C], may be dy or residual
 * dweight, dbias  [C] f32 or NULL
 * dy, x       [..., C] of one dtype f32|bf16|f16, C contiguous, outer strides that collapse to one row stride. x is what
 *             was normalised: where gt_layernorm added a residual, its residual_out
 * mean, rstd  [N] f32 contiguous, as gt_layernorm gave them
 * weight      [C] contiguous, x's dtype or f32; NULL: 1
 * residual    [..., C] x's dtype: the gradient that reaches x past the norm; NULL: 0
 * A NaN in a row gives a NaN row of dx. Cost: two reads of dy and x (the second from a cache on the CPU), one write. */
GT_API gt_status gt_layernorm_backward(const gt_stream *stream, const gt_tensor *dx, const gt_tensor *dweight,
                                       const gt_tensor *dbias, const gt_tensor *dy, const gt_tensor *x,
                                       const gt_tensor *mean, const gt_tensor *rstd, const gt_tensor *weight,
                                       const gt_tensor *residual, const gt_tensor *workspace);

/* Bytes of workspace that gt_layernorm_backward wants for this x. */
GT_API gt_status gt_layernorm_backward_workspace(const gt_stream *stream, const gt_tensor *x, int64_t *bytes);

/* With h = x * rstd and g = dy * weight, of each row:
 * dx = residual + rstd * (g - h * sum(g * h) / C);  dweight = sum over rows of dy * h
 * The rounding of h before the weight counts as the identity. Operands as in gt_layernorm_backward. */
GT_API gt_status gt_rmsnorm_backward(const gt_stream *stream, const gt_tensor *dx, const gt_tensor *dweight,
                                     const gt_tensor *dy, const gt_tensor *x, const gt_tensor *rstd,
                                     const gt_tensor *weight, const gt_tensor *residual, const gt_tensor *workspace);

/* Bytes of workspace that gt_rmsnorm_backward wants for this x. */
GT_API gt_status gt_rmsnorm_backward_workspace(const gt_stream *stream, const gt_tensor *x, int64_t *bytes);

#ifdef __cplusplus
}
#endif
#endif
