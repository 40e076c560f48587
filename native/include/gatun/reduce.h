/* Sums: over the rows of matrices, as the gradient of a bias or of a broadcast operand needs them, and over everything.
 *
 * Rows are summed in f32 in chunks whose size S decides, and the chunks in order; gt_sum in f64. Any number of threads
 * gives the same bits; strides may change them.
 * workspace: u8 [bytes], 16-byte aligned, from the query function, NULL where it answers 0.
 * Errors: INVALID_ARGUMENT for shape, dtype, stride or pointer. Cost: one read. */
#ifndef GATUN_REDUCE_H
#define GATUN_REDUCE_H

#include "gatun/types.h"

#ifdef __cplusplus
extern "C" {
#endif

/* y[b,c] = sum_s a[b,s,c] * b[b,s,c]; b NULL: 1. No rows: 0.
 * y [B, C] f32 or a's dtype, C contiguous, overlaps no input
 * a, b [B, S, C] f32|bf16|f16, one dtype, C contiguous, S and B at any stride */
GT_API gt_status gt_sum_rows(const gt_stream *stream, const gt_tensor *y, const gt_tensor *a, const gt_tensor *b,
                             const gt_tensor *workspace);

/* Bytes of workspace that gt_sum_rows wants for this a. */
GT_API gt_status gt_sum_rows_workspace(const gt_stream *stream, const gt_tensor *a, int64_t *bytes);

/* y[0] = factor * sum(x).   y [1] f32;  x [...] f32|bf16|f16, contiguous */
GT_API gt_status gt_sum(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x, float factor,
                        const gt_tensor *workspace);

/* Bytes of workspace that gt_sum wants for this x. */
GT_API gt_status gt_sum_workspace(const gt_stream *stream, const gt_tensor *x, int64_t *bytes);

#ifdef __cplusplus
}
#endif
#endif
