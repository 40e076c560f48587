/* Token and position embedding: rows of a table, gathered by id. */
#ifndef GATUN_EMBEDDING_H
#define GATUN_EMBEDDING_H

#include "gatun/types.h"

#ifdef __cplusplus
extern "C" {
#endif

/* y[n,:] = table[ids[n],:] + position_table[positions[n],:]
 *
 * y               [N, C] f32|bf16|f16, C contiguous
 * ids             [N] i32 or i64 contiguous; an id outside 0 .. V-1 gives a NaN row, so that the fault travels with
 *                 the row and the host sees it at the next record
 * table           [V, C] y's dtype, C contiguous
 * positions       [N] i32 contiguous, position_table [M, C] y's dtype: both or neither NULL; position outside
 *                 0 .. M-1 gives a NaN row
 * Sum in f32, rounded once. Errors: INVALID_ARGUMENT for shape or dtype. Cost: one or two reads, one write. */
GT_API gt_status gt_embedding(const gt_stream *stream, const gt_tensor *y, const gt_tensor *ids,
                              const gt_tensor *table, const gt_tensor *positions, const gt_tensor *position_table);

#ifdef __cplusplus
}
#endif
#endif
