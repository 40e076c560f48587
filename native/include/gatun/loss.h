/* Losses with their gradients in one pass: sums over elements, a weight per sample, scaled as the caller likes.
 *
 * loss[0] is summed in f64; any number of threads gives the same bits. Gradients are those of grad_scale * loss.
 * loss [1] f32;  grad_scale [1] f32 on the device, NULL: 1;  factor: 1 / n for a mean
 * workspace: u8 [bytes], 16-byte aligned, from the query function, NULL where it answers 0
 * Errors: INVALID_ARGUMENT for shape, dtype, stride, pointer or kind. Cost: one read of each input, one write of each
 * gradient. */
#ifndef GATUN_LOSS_H
#define GATUN_LOSS_H

#include "gatun/types.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef int32_t gt_loss_kind;
enum {
  GT_LOSS_MSE = 0,             /* l = (x - t)^2 */
  GT_LOSS_BCE_WITH_LOGITS = 1, /* l = max(x, 0) - x t + log(1 + exp(-|x|)) */
  GT_LOSS_HINGE = 2,           /* l = max(0, 1 - t x) */
  GT_LOSS_LINEAR = 3           /* l = t x: a critic's mean, t = 1 or -1 */
};

/* loss[0] = factor * sum_b weight[b] sum_i l(x[b,i], target[b,i]);   dx = grad_scale factor weight[b] l'(x)
 * dx     [B, ...] x's dtype, or NULL; may be x.  x [B, ...] f32|bf16|f16.  target [B, ...] x's dtype or f32
 * weight [B] f32 or NULL.  x, dx, target, weight: any strides, 0 too but for dx. No elements: loss 0 */
GT_API gt_status gt_loss(const gt_stream *stream, const gt_tensor *loss, const gt_tensor *dx, const gt_tensor *x,
                         const gt_tensor *target, const gt_tensor *weight, gt_loss_kind kind, float factor,
                         const gt_tensor *grad_scale, const gt_tensor *workspace);

/* Divergence of a diagonal Gaussian from the standard one, Kingma & Welling 2013 (arXiv 1312.6114):
 * loss[0] = factor * sum -(1 + logvar - mean^2 - exp(logvar)) / 2
 * dmean = grad_scale factor mean;  dlogvar = grad_scale factor (exp(logvar) - 1) / 2
 * mean, logvar, dmean, dlogvar: [...] f32|bf16|f16, one dtype, any strides; dmean and dlogvar NULL: not wanted */
GT_API gt_status gt_kl_gaussian(const gt_stream *stream, const gt_tensor *loss, const gt_tensor *dmean,
                                const gt_tensor *dlogvar, const gt_tensor *mean, const gt_tensor *logvar, float factor,
                                const gt_tensor *grad_scale, const gt_tensor *workspace);

/* Bytes of workspace that either wants for this x, or mean. */
GT_API gt_status gt_loss_workspace(const gt_stream *stream, const gt_tensor *x, int64_t *bytes);

#ifdef __cplusplus
}
#endif
#endif
