/* Scaled dot-product attention, computed block by block with a running maximum (Dao 2022, arXiv 2205.14135); the
 * score matrix is never stored.
 *
 * Common to all: q, k, v, y f32|bf16|f16 of one dtype, D contiguous and 1 <= D <= 512 (gt_attention_decode: 256), H a
 * multiple of G (query head h reads key/value head h / (H/G)). Sums in f32 in a fixed order: a row's bits do not depend
 * on the batch, on the other rows or on the number of threads. A row that sees no key gives zeros and lse = -inf.
 * lse = log(sum(exp(score))). workspace: u8 [n], n from the query function, NULL where it answers 0. */
#ifndef GATUN_ATTENTION_H
#define GATUN_ATTENTION_H

#include "gatun/rope.h"
#include "gatun/types.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef int32_t gt_mask;
enum {
  GT_MASK_NONE = 0,
  GT_MASK_CAUSAL = 1 /* key s is seen by query t when s <= t + (S - T): aligned at the bottom right */
};

/* y[b,t,h,:] = sum_s softmax_s(scale * q[b,t,h,:] . k[b,s,g,:] + bias[b,h,t,s]) v[b,s,g,:]
 *
 * y, q         [B, T, H, D] any outer strides
 * lse          [B, H, T] f32 contiguous; NULL: not wanted
 * k, v         [B, S, G, D] any outer strides
 * bias         [B or 1, H or 1, T, S] f32, any strides; NULL: none
 * key_lengths  [B] i32: batch b sees keys 0 .. key_lengths[b] - 1 only; NULL: all S
 * y may not overlap an input. Cost: 4 B H T S D flops, halved by GT_MASK_CAUSAL. */
GT_API gt_status gt_attention(const gt_stream *stream, const gt_tensor *y, const gt_tensor *lse, const gt_tensor *q,
                              const gt_tensor *k, const gt_tensor *v, const gt_tensor *bias,
                              const gt_tensor *key_lengths, float scale, gt_mask mask, const gt_tensor *workspace);

/* Bytes of workspace that gt_attention wants for these operands. */
GT_API gt_status gt_attention_workspace(const gt_stream *stream, const gt_tensor *q, const gt_tensor *k,
                                        int64_t *bytes);

/* The derivatives of gt_attention, with P = exp(scale q . k + bias - lse) where a query sees a key, else 0:
 *   dS[b,h,t,s]   = P[b,h,t,s] (dy[b,t,h,:] . v[b,s,g,:] - dy[b,t,h,:] . y[b,t,h,:])
 *   dq[b,t,h,:]   = scale sum_s dS[b,h,t,s] k[b,s,g,:]
 *   dk[b,s,g,:]   = scale sum_{h of g} sum_t dS[b,h,t,s] q[b,t,h,:]
 *   dv[b,s,g,:]   = sum_{h of g} sum_t P[b,h,t,s] dy[b,t,h,:]
 *   dbias[.,.,t,s] = sum over the batches and heads that share it of dS[b,h,t,s]
 *
 * dq, dy, y, q  [B, T, H, D] any outer strides; y is gt_attention's
 * dk, dv, k, v  [B, S, G, D] any outer strides
 * dbias         f32, the shape of bias, contiguous; NULL: not wanted
 * lse           [B, H, T] f32 contiguous: gt_attention's
 * bias, key_lengths, scale, mask  as there
 * workspace     u8 [n], n from the query function
 * Outputs are overwritten, and none may overlap another operand. A query that sees no key, and a key that no query
 * sees, have gradients of zero; what lies at keys from key_lengths on may be NaN. Any other NaN or infinity may reach
 * every gradient of its sequence and key/value head. Each sum has a fixed order, whatever the number of threads.
 * Cost: 10 B H T S D flops (CUDA: 10 or 14), halved by GT_MASK_CAUSAL. The CPU shares out pairs of a sequence and a
 * key/value head; those that share a dbias stay with one thread. */
GT_API gt_status gt_attention_backward(const gt_stream *stream, const gt_tensor *dq, const gt_tensor *dk,
                                       const gt_tensor *dv, const gt_tensor *dbias, const gt_tensor *dy,
                                       const gt_tensor *y, const gt_tensor *lse, const gt_tensor *q,
                                       const gt_tensor *k, const gt_tensor *v, const gt_tensor *bias,
                                       const gt_tensor *key_lengths, float scale, gt_mask mask,
                                       const gt_tensor *workspace);

/* Bytes of workspace that gt_attention_backward wants for these shapes; on the CPU more for more threads. */
GT_API gt_status gt_attention_backward_workspace(const gt_stream *stream, const gt_tensor *q, const gt_tensor *k,
                                                 int64_t *bytes);

/* Ragged queries of B sequences against a paged key/value cache: prefill chunks and decode steps alike.
 * Query row n belongs to sequence b with query_start[b] <= n < query_start[b+1], stands at positions[n] of it and sees
 * the cached keys 0 .. positions[n]. A row with positions[n] < 0 is idle: zeros.
 *
 * y, q         [N, H, D] any outer strides
 * lse          [N, H] f32 contiguous; NULL: not wanted
 * k_pages, v_pages  [pages, G, P, D] contiguous, P = 64 positions a page
 * page_table   [B, max_pages] i32: page of position p of sequence b is page_table[b, p / P]
 * query_start  [B + 1] i32, ascending, from 0 to N;  positions [N] i32, of a sequence ascending by 1 or all negative
 * Cost: one read of each cached key and value per key/value head and tile of queries. */
GT_API gt_status gt_attention_paged(const gt_stream *stream, const gt_tensor *y, const gt_tensor *lse,
                                    const gt_tensor *q, const gt_tensor *k_pages, const gt_tensor *v_pages,
                                    const gt_tensor *page_table, const gt_tensor *query_start,
                                    const gt_tensor *positions, float scale, const gt_tensor *workspace);

/* Bytes of workspace that gt_attention_paged wants for N query rows and this page table. */
GT_API gt_status gt_attention_paged_workspace(const gt_stream *stream, const gt_tensor *q, const gt_tensor *page_table,
                                              int64_t *bytes);

/* Stores keys and values of ragged rows in their pages: row n goes to position positions[n] of its sequence.
 * k_pages, v_pages  [pages, G, P, D] contiguous, written;  k, v [N, G, D] of the same dtype, D contiguous
 * page_table, query_start, positions as in gt_attention_paged. Idle rows (position < 0) are skipped. */
GT_API gt_status gt_kv_append(const gt_stream *stream, const gt_tensor *k_pages, const gt_tensor *v_pages,
                              const gt_tensor *k, const gt_tensor *v, const gt_tensor *page_table,
                              const gt_tensor *query_start, const gt_tensor *positions);

/* The attention of a decode step in one launch: gt_rope of q and k, gt_kv_append and gt_attention_paged of one query
 * row per sequence, with the bits that these give in turn. Row n is of sequence n and stands at positions[n]:
 *   q', k'                      q and k rotated as gt_rope does, at that position; without rope_table as they are
 *   k_pages, v_pages            get k'[n] and v[n] at that position
 *   y[n], lse[n]                attention of q'[n] to the cached keys 0 .. positions[n], itself among them
 * A row with positions[n] < 0 is idle: it stores nothing and gives zeros and lse = -inf.
 *
 * y, q         [N, H, D] any outer strides, D <= 256
 * lse          [N, H] f32 contiguous; NULL: not wanted
 * k_pages, v_pages  [pages, G, P, D] contiguous, P = 64; a page that a row writes to is in no other row's reach
 * counters     [N, G] i32 contiguous: zeros before the first call, and again after each; for one call at a time
 * k, v         [N, G, D] any outer strides
 * page_table   [N, max_pages] i32: page of position p of row n is page_table[n, p / P];  positions [N] i32
 * rope_table   [M, 2, R/2] f32 contiguous, R <= D; NULL: no rotation;  pairing as in gt_rope
 * Outputs may not overlap inputs or each other. On the CPU positions and the entries of page_table that rows use are
 * checked; on CUDA they are trusted: every positions[n] < 64 max_pages, every such entry a page.
 * Errors: INVALID_ARGUMENT for shape, dtype, stride, pointer, pairing, a workspace that is too small; UNSUPPORTED on
 * CUDA for H > 65535 and for N, N H or 64 max_pages of 2^31 - 64 or more.
 * Cost: one read of each cached key and value. */
GT_API gt_status gt_attention_decode(const gt_stream *stream, const gt_tensor *y, const gt_tensor *lse,
                                     const gt_tensor *k_pages, const gt_tensor *v_pages, const gt_tensor *counters,
                                     const gt_tensor *q, const gt_tensor *k, const gt_tensor *v,
                                     const gt_tensor *page_table, const gt_tensor *positions,
                                     const gt_tensor *rope_table, gt_rope_pairing pairing, float scale,
                                     const gt_tensor *workspace);

/* Bytes of workspace that gt_attention_decode wants for these shapes. Reads no data. Errors: as there. */
GT_API gt_status gt_attention_decode_workspace(const gt_stream *stream, const gt_tensor *q, const gt_tensor *k,
                                               const gt_tensor *page_table, int64_t *bytes);

#ifdef __cplusplus
}
#endif
#endif
