/* Softmax and log-softmax over the last dimension. */
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

#ifdef __cplusplus
}
#endif
#endif
