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
 * dy, x       [..., C] of one dtype f32|bf16|f16, C contiguous, outer strides that collapse to one row stride. x is
 *             what was normalised: where gt_layernorm added a residual, its residual_out
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

/* With h = (x - mean) * rstd, a = 1 + scale[b,c] (1 where scale is NULL), z = (h * weight[c] + bias[c]) * a +
 * shift[b,c] and d = dy * activation'(z), of image b and group k over its n = S C/G elements, with
 * g = d * a * weight[c]:
 * dx = rstd * (g - sum(g) / n - h * sum(g * h) / n)
 * dweight[c] = sum over b, s of d * a * h;  dbias[c] = sum over b, s of d * a
 * dscale[b,c] = sum over s of d * (h * weight[c] + bias[c]);  dshift[b,c] = sum over s of d
 *
 * dx           [B, S, C], may be dy
 * dweight, dbias  [C] f32 or NULL;  dscale, dshift [B, C] x's dtype, C contiguous, or NULL; only where scale is there
 * dy, x        [B, S, C] one dtype f32|bf16|f16; all images with C contiguous, or all with S contiguous
 * mean, rstd   [B, G] f32 contiguous, as gt_groupnorm gave them
 * weight, bias, scale, shift, groups, activation  what gt_groupnorm had
 * Here workspace is always wanted. A few pixels are summed in f32, all else in f64. The derivative of relu is 0
 * at 0. A NaN makes its group of dx NaN. Cost: two reads of dy and x, one write. */
GT_API gt_status gt_groupnorm_backward(const gt_stream *stream, const gt_tensor *dx, const gt_tensor *dweight,
                                       const gt_tensor *dbias, const gt_tensor *dscale, const gt_tensor *dshift,
                                       const gt_tensor *dy, const gt_tensor *x, const gt_tensor *mean,
                                       const gt_tensor *rstd, const gt_tensor *weight, const gt_tensor *bias,
                                       const gt_tensor *scale, const gt_tensor *shift, int64_t groups,
                                       gt_activation activation, const gt_tensor *workspace);

/* Bytes of workspace that gt_groupnorm_backward wants for this x. */
GT_API gt_status gt_groupnorm_backward_workspace(const gt_stream *stream, const gt_tensor *x, int64_t groups,
                                                 int64_t *bytes);

/* As gt_groupnorm_backward, with the statistics of a channel over all images, n = B S, and without scale and shift.
 * mean, rstd  [C] f32 contiguous, as gt_batchnorm_train gave them */
GT_API gt_status gt_batchnorm_backward(const gt_stream *stream, const gt_tensor *dx, const gt_tensor *dweight,
                                       const gt_tensor *dbias, const gt_tensor *dy, const gt_tensor *x,
                                       const gt_tensor *mean, const gt_tensor *rstd, const gt_tensor *weight,
                                       const gt_tensor *bias, gt_activation activation, const gt_tensor *workspace);

/* Bytes of workspace that gt_batchnorm_backward wants for this x. */
GT_API gt_status gt_batchnorm_backward_workspace(const gt_stream *stream, const gt_tensor *x, int64_t *bytes);

/* The gradients of gt_groupnorm_backward's dx (no activation, no scale), as a gradient penalty needs them. u is the
 * gradient of that dx; with g = dy * weight[c] and E(v) the mean of v over a group:
 * j = rstd * (u - E(u) - h E(u h));  ddy = weight[c] * j;  dweight[c] = sum over b, s of dy * j
 * dx = -rstd^2 * (h K + E(g h) (u - E(u) - h E(u h)) + E(u h) (g - E(g) - h E(g h))),
 * K = E(u g) - E(u) E(g) - E(u h) E(g h)
 *
 * ddy, dx   [B, S, C] x's dtype: the gradients of dy and of x. ddy may be u or dy, dx too, but not one tensor
 * dweight   [C] f32 or NULL
 * u, dy, x  [B, S, C] as above.  mean, rstd, weight, groups, workspace as in gt_groupnorm_backward
 * Rows [N, C] of layer norm are images [N, 1, C] in one group. Cost: two reads of u, dy and x, two writes. */
GT_API gt_status gt_groupnorm_double_backward(const gt_stream *stream, const gt_tensor *ddy, const gt_tensor *dx,
                                              const gt_tensor *dweight, const gt_tensor *u, const gt_tensor *dy,
                                              const gt_tensor *x, const gt_tensor *mean, const gt_tensor *rstd,
                                              const gt_tensor *weight, int64_t groups, const gt_tensor *workspace);

/* Bytes of workspace that gt_groupnorm_double_backward wants for this x. */
GT_API gt_status gt_groupnorm_double_backward_workspace(const gt_stream *stream, const gt_tensor *x, int64_t groups,
                                                        int64_t *bytes);

#ifdef __cplusplus
}
#endif
#endif
