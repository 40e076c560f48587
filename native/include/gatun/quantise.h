/* Vector quantisation: van den Oord, Vinyals & Kavukcuoglu 2017 (arXiv 1711.00937). The rows that ids choose are read
 * with gt_embedding.
 * Errors: INVALID_ARGUMENT for shape, dtype or pointer. */
#ifndef GATUN_QUANTISE_H
#define GATUN_QUANTISE_H

#include "gatun/types.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ids[n] = argmin_k sum_c (x[n,c] - codebook[k,c])^2, the lowest k among equals; a row with a NaN gives -1.
 * The distance is summed in f32 as it stands, without expanding the square.
 *
 * ids       [N] i32 contiguous
 * x         [N, C] f32|bf16|f16, C contiguous;  codebook [K, C] of x's dtype, C contiguous, K >= 1
 * Cost: 3 N K C flops. */
GT_API gt_status gt_nearest_code(const gt_stream *stream, const gt_tensor *ids, const gt_tensor *x,
                                 const gt_tensor *codebook);

#ifdef __cplusplus
}
#endif
#endif
