/* Rotary position embedding (Su et al. 2021, arXiv 2104.09864). The angles come from a table on the device, so every
 * scaling rule (default, linear, dynamic, yarn, llama3) is a different inv_freq and attention_factor, not a kernel. */
#ifndef GATUN_ROPE_H
#define GATUN_ROPE_H

#include "gatun/types.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef int32_t gt_rope_pairing;
enum {
  GT_ROPE_HALF = 0,       /* pairs (x[i], x[i + R/2]): Hugging Face */
  GT_ROPE_INTERLEAVED = 1 /* pairs (x[2i], x[2i + 1]): GPT-J, Meta */
};

/* table[p, 0, i] = cos(a) * attention_factor, table[p, 1, i] = sin(a) * attention_factor,
 * a = (first_position + p) * inv_freq[i] rounded to f32, as transformers computes it.
 * table [M, 2, R/2] f32 contiguous;  inv_freq [R/2] f32 contiguous */
GT_API gt_status gt_rope_table(const gt_stream *stream, const gt_tensor *table, const gt_tensor *inv_freq,
                               int64_t first_position, float attention_factor);

/* For each pair (a, b) of the first R elements: y = (a cos - b sin, b cos + a sin); elements from R on are copied.
 * y, x       [N, H, D] f32|bf16|f16, D contiguous, R <= D; y may be x
 * positions  [N] i32, row of the table; a negative one copies the row unchanged, one beyond the table gives a NaN row
 * table      [M, 2, R/2] f32 contiguous
 * Errors: INVALID_ARGUMENT for shape, dtype, pairing. Cost: one read, one write. */
GT_API gt_status gt_rope(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x, const gt_tensor *positions,
                         const gt_tensor *table, gt_rope_pairing pairing);

/* The gradient of gt_rope: for each pair (a, b) of the first R elements of dy, dx = (a cos + b sin, b cos - a sin);
 * elements from R on are copied. Operands, positions and errors as there, dx for y and dy for x; dx may be dy. */
GT_API gt_status gt_rope_backward(const gt_stream *stream, const gt_tensor *dx, const gt_tensor *dy,
                                  const gt_tensor *positions, const gt_tensor *table, gt_rope_pairing pairing);

#ifdef __cplusplus
}
#endif
#endif
