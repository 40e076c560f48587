/* From logits to the next id: penalties and filters in the order of Hugging Face transformers, then argmax or a draw.
 *
 * The state of a batch of sequences lives on the device, so a decode step needs no copy to it:
 * tokens          [B, M] i32: prompt and generated ids of each sequence
 * lengths         [B] i32: how many of them are set;  prompt_lengths [B] i32: how many are prompt
 * params          [B, GT_SAMPLING_FIELDS] f32: one row of settings per sequence, fields below
 * All contiguous. A row with lengths[b] <= 0 is idle and untouched. */
#ifndef GATUN_SAMPLING_H
#define GATUN_SAMPLING_H

#include "gatun/types.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
  GT_SAMPLING_TEMPERATURE = 0,        /* 0: argmax; else logits are divided by it */
  GT_SAMPLING_TOP_K = 1,              /* 0: off; keeps the k largest (prob descending, id ascending) */
  GT_SAMPLING_TOP_P = 2,              /* 1: off; keeps the shortest prefix whose probability reaches p */
  GT_SAMPLING_MIN_P = 3,              /* 0: off; keeps p_i >= min_p * max p */
  GT_SAMPLING_REPETITION_PENALTY = 4, /* 1: off; once per distinct id of prompt and output: l > 0 ? l / r : l * r */
  GT_SAMPLING_PRESENCE_PENALTY = 5,   /* 0: off; subtracted once from each generated id */
  GT_SAMPLING_FREQUENCY_PENALTY = 6,  /* 0: off; subtracted per occurrence of a generated id */
  GT_SAMPLING_RESERVED = 7,
  GT_SAMPLING_FIELDS = 8
};

/* ids[b] = lowest index of the largest logits[b,:].   ids [B] i32;  logits [B, V] f32|bf16|f16, V contiguous
 * A row with a NaN gives -1. */
GT_API gt_status gt_argmax(const gt_stream *stream, const gt_tensor *ids, const gt_tensor *logits);

/* Applies to logits, in place: repetition, then frequency and presence penalty, temperature (where > 0), top-k, top-p,
 * min-p. Removed logits become -inf. Each filter sees the distribution its predecessors left. With temperature 0 only
 * the penalties are applied.
 * logits [B, V] f32, V contiguous. Errors: INVALID_ARGUMENT for shape or dtype. */
GT_API gt_status gt_process_logits(const gt_stream *stream, const gt_tensor *logits, const gt_tensor *tokens,
                                   const gt_tensor *lengths, const gt_tensor *prompt_lengths,
                                   const gt_tensor *params);

/* Chooses one id per row and advances the state:
 *   id = argmax of logits where temperature is 0, else drawn from softmax(logits) by inverting its cumulative sum in
 *        id order at u, u uniform in (0, 1] from Philox4x32-10 with key seeds[b,0] and counter (element 0,
 *        step lengths[b] - prompt_lengths[b], sequence seeds[b,1])
 *   tokens[b, lengths[b]] = id;  ids[b] = id;  positions[b] = lengths[b];  lengths[b] += 1;  record[b] = id
 * A row whose logits hold a NaN or no finite value, or whose tokens are full, becomes idle: ids[b] = -1,
 * positions[b] = -1, lengths[b] = -lengths[b], record[b] = -(fault), one of the codes below. An idle row (positions[b]
 * < 0 or lengths[b] <= 0) leaves all as it is.
 * ids, positions, record  [B] i32;  logits [B, V] f32;  seeds [B, 2] i64 */
enum {
  GT_FAULT_NAN = 2,      /* the logits held a NaN */
  GT_FAULT_NO_TOKEN = 3, /* every logit was -inf */
  GT_FAULT_FULL = 4      /* lengths[b] had reached M */
};
GT_API gt_status gt_sample(const gt_stream *stream, const gt_tensor *ids, const gt_tensor *positions,
                           const gt_tensor *record, const gt_tensor *tokens, const gt_tensor *lengths,
                           const gt_tensor *prompt_lengths, const gt_tensor *logits, const gt_tensor *params,
                           const gt_tensor *seeds);

/* gt_process_logits, then gt_sample of the same rows, in one launch: the bits are those of the two in turn.
 * logits  [B, V] f32, V contiguous; the rest as there */
GT_API gt_status gt_choose(const gt_stream *stream, const gt_tensor *ids, const gt_tensor *positions,
                           const gt_tensor *record, const gt_tensor *tokens, const gt_tensor *lengths,
                           const gt_tensor *prompt_lengths, const gt_tensor *logits, const gt_tensor *params,
                           const gt_tensor *seeds);

#ifdef __cplusplus
}
#endif
#endif
