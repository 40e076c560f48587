/* Softmax and log-softmax over the last dimension, and the cross-entropy of logits with its gradient. */
#ifndef GATUN_SOFTMAX_H
#define GATUN_SOFTMAX_H

#include "gatun/types.h"

#ifdef __cplusplus
extern "C" {
#endif

/* y = exp(x - m) / sum(exp(x - m)), m = max(x).
 * y, x: [..., C] f32|bf16|f16 (dtypes may differ), C contiguous, outer strides that collapse to one; y may be x.
 * A row of -inf gives zeros; a row with a NaN or +inf gives a NaN row. Errors: INVALID_ARGUMENT. Cost: x twice. */
GT_API gt_status gt_softmax(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x);

/* y = x - m - log(sum(exp(x - m))). As gt_softmax, but a row of -inf gives -inf. */
GT_API gt_status gt_log_softmax(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x);

/* Softmax cross-entropy and, in the same call, its gradient. With p = softmax(logits[n,:]), t = targets[n] and
 * e = label_smoothing, of each row that counts, that is targets[n] != ignore_index:
 *   row_losses[n] = -(1 - e) log p[t] - e / V sum_v log p[v];  loss = sum_n row_losses[n] / count
 *   dlogits[n,v]  = grad_scale / count * (p[v] - (1 - e) [v = t] - e / V)
 * Rows that do not count have loss 0 and gradient 0, and their logits are not read; if none counts the loss is 0.
 *
 * loss         [1] f32
 * row_losses   [N] f32 contiguous; NULL: not wanted
 * dlogits      [N, V] logits' dtype, V contiguous; may be logits itself; NULL: the loss alone
 * logits       [N, V] f32|bf16|f16, V contiguous, V >= 1
 * targets      [N] i32|i64 contiguous; a target outside 0 .. V-1 that is not ignore_index makes its row's loss and
 *              gradient, and so the mean, NaN. So does a row with NaN, with +inf, or of -inf alone
 * grad_scale   [1] f32, what the loss is multiplied with before it is differentiated; NULL: 1
 * workspace    u8 [n], 16-byte aligned, n from the query function; NULL where it answers 0
 * label_smoothing in 0 .. 1. The sum over rows is in f64. Errors: INVALID_ARGUMENT. Cost: logits twice (the second time
 * from a cache where a row fits), dlogits once. */
GT_API gt_status gt_cross_entropy(const gt_stream *stream, const gt_tensor *loss, const gt_tensor *row_losses,
                                  const gt_tensor *dlogits, const gt_tensor *logits, const gt_tensor *targets,
                                  int64_t ignore_index, float label_smoothing, const gt_tensor *grad_scale,
                                  const gt_tensor *workspace);

/* Bytes of workspace that gt_cross_entropy wants for these logits. */
GT_API gt_status gt_cross_entropy_workspace(const gt_stream *stream, const gt_tensor *logits, int64_t *bytes);

#ifdef __cplusplus
}
#endif
#endif
