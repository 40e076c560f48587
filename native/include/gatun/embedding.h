/* Token and position embedding: rows of a table, gathered by id, and the gradient of the table. */
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

/* The gradient of the table: dtable[v,:] = sum over n with ids[n] = v of dy[n,:], 0 where no id is v.
 *
 * dtable     [V, C] f32, C contiguous; all of it is written
 * dy         [N, C] f32|bf16|f16, C contiguous
 * ids        [N] i32 or i64 contiguous; an id outside 0 .. V-1 adds to no row
 * workspace  u8 [n], 16-byte aligned, n from the query function; NULL where it answers 0
 * N and V below 2^31 - 2. Rows of dy are added in f32, in an order that ids alone decide: the same bits for any number
 * of threads. Errors: INVALID_ARGUMENT. Cost: one read of dy, one write of dtable. */
GT_API gt_status gt_embedding_backward(const gt_stream *stream, const gt_tensor *dtable, const gt_tensor *dy,
                                       const gt_tensor *ids, const gt_tensor *workspace);

/* Bytes of workspace that gt_embedding_backward wants for a table [V, C] and ids [N]. */
GT_API gt_status gt_embedding_backward_workspace(const gt_stream *stream, const gt_tensor *table, const gt_tensor *ids,
                                                 int64_t *bytes);

#ifdef __cplusplus
}
#endif
#endif
