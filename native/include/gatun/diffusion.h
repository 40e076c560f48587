/* One step of any diffusion sampler in one launch.
 *
 * Once the model's output is known, every sampler is a linear combination of the noisy sample, the output, the denoised
 * sample that it predicts, earlier ones of these, and noise. A call of the model has a row in a table of coefficients,
 * made on the host when the loop begins; a counter on the device says which row is next. So a captured step can be
 * launched again and again, and nothing moves between host and device inside the loop.
 *
 * Images are [B, H, W, C], any strides, B >= 1, 1 <= H W C < 2^31; noise is that of gatun/noise.h. Errors:
 * INVALID_ARGUMENT for shape, dtype, stride or pointer. */
#ifndef GATUN_DIFFUSION_H
#define GATUN_DIFFUSION_H

#include "gatun/types.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What the columns of a table [N, GT_DIFFUSION_FIELDS] f32 mean; a row per call of the model. */
enum {
  GT_DIFFUSION_GUIDANCE = 0,        /* w */
  GT_DIFFUSION_RESCALE = 1,         /* phi, 0: the standard deviation is not rescaled */
  GT_DIFFUSION_DENOISED_X = 2,      /* what x ... */
  GT_DIFFUSION_DENOISED_OUTPUT = 3, /* ... and e contribute to the denoised sample d */
  GT_DIFFUSION_CLIP = 4,            /* d is cut to [-clip, clip]; inf: it is not */
  GT_DIFFUSION_INPUT = 5,           /* the model's input of this call is this times x */
  GT_DIFFUSION_MIN_LOG = 6,         /* learned range: the logarithms of the smallest ... */
  GT_DIFFUSION_MAX_LOG = 7,         /* ... and of the largest variance */
  GT_DIFFUSION_KNOWN = 8,           /* inpainting: of the known image after the step ... */
  GT_DIFFUSION_KNOWN_NOISE = 9,     /* ... and of its noise */
  /* 10 and 11 are kept */
  GT_DIFFUSION_UPDATE = 12,         /* then for each target x, S_0 .. S_4 its coefficients of the sources below */
  GT_DIFFUSION_SLOTS = 5,           /* the most slots of state */
  GT_DIFFUSION_SOURCES = 9,         /* x, e, d, noise, S_0 .. S_4 */
  GT_DIFFUSION_FIELDS = 66          /* UPDATE + (1 + SLOTS) SOURCES */
};

/* What the model's second half of channels v says about the noise. Nichol & Dhariwal 2021 (arXiv 2102.09672). */
typedef int32_t gt_learned_variance;
enum {
  GT_VARIANCE_NONE = 0,
  GT_VARIANCE_VALUE = 1, /* noise is multiplied by sqrt(v) */
  GT_VARIANCE_RANGE = 2  /* by exp((f max_log + (1 - f) min_log) / 2), f = (v + 1) / 2 */
};

/* One step. With row = table[counter[0]], u and c the first and last B images of an output of 2 B (Ho & Salimans 2022,
 * arXiv 2207.12598), and statistics from gt_diffusion_statistics:
 *   e = u + w (c - u);  e = output where it has B images;  e = e * statistics[b,0]
 *   d = DENOISED_X x + DENOISED_OUTPUT e, cut to [-clip, clip];  where statistics[b,1] = s > 0 cut to [-s, s], over s
 *   target = sum of the row's coefficients times x, e, d, noise, S_j;  a source of coefficient 0 is not read, and an
 *            S_j whose coefficients are all 0 keeps its value
 *   x = mask x + (1 - mask) (KNOWN known + KNOWN_NOISE known_noise)       where there is a mask
 *   input = table[counter[0] + 1][INPUT] x, where that row exists;  counter[0] += 1
 * Noise is noise[counter[0]] where given, else Philox's at step counter[0] + 1; where no coefficient asks for it, it is
 * neither read nor drawn. With counter[0] outside 0 .. N-1 nothing happens.
 *
 * sample      [B, H, W, C] f32: x, replaced
 * state       [K, B, H, W, C] f32: S_0 .. S_K-1, K <= GT_DIFFUSION_SLOTS; NULL: K = 0
 * input       [B or 2 B, H, W, C] f32|bf16|f16; of 2 B both halves get the same; NULL: not wanted
 * counter     [2] i32: the number of the call, and 0
 * output      [B or 2 B, H, W, C] f32|bf16|f16.  variance: like output, of 2 B the last B are used; NULL with NONE
 * statistics  [B, 2] f32 contiguous or NULL: 1 and 0
 * table       [N, GT_DIFFUSION_FIELDS] f32 contiguous
 * noise       [N, B, H, W, C] f32 or NULL;  seeds or NULL. Where a row asks for noise and both are NULL, x becomes NaN
 * mask        [B, H, W, 1 or C] f32, 1 where the sample is made, 0 where it is known; NULL: no inpainting
 * known, known_noise  [B, H, W, C] f32; NULL without a mask
 * The written operands overlap nothing. Cost: each operand that the row asks for once. */
GT_API gt_status gt_diffusion_step(const gt_stream *stream, const gt_tensor *sample, const gt_tensor *state,
                                   const gt_tensor *input, const gt_tensor *counter, const gt_tensor *output,
                                   const gt_tensor *variance, const gt_tensor *statistics, const gt_tensor *table,
                                   const gt_tensor *noise, const gt_tensor *seeds, const gt_tensor *mask,
                                   const gt_tensor *known, const gt_tensor *known_noise,
                                   gt_learned_variance learned_variance);

/* The input of the first call: input = table[counter[0]][INPUT] x. Operands as in gt_diffusion_step; counter[0] outside
 * 0 .. N-1 gives NaN. */
GT_API gt_status gt_diffusion_input(const gt_stream *stream, const gt_tensor *input, const gt_tensor *sample,
                                    const gt_tensor *table, const gt_tensor *counter);

/* What a step needs to know of whole images:
 *   statistics[b,0] = phi std(c) / std(e) + 1 - phi;  1 where phi is 0 or the output has B images
 *                     (Lin et al. 2023, arXiv 2305.08891; standard deviations over n - 1)
 *   statistics[b,1] = min(max(quantile(|d|, ratio), 1), largest);  0 where ratio is 0
 *                     (Saharia et al. 2022, arXiv 2205.11487; d before it is cut; linear between neighbours, the rank
 *                     ratio * (n - 1) rounded to f32, as torch.quantile does; NaN where a d is NaN)
 * statistics [B, 2] f32 contiguous; the others as in gt_diffusion_step. 0 <= ratio <= 1, largest >= 1; H W C <= 2^24.
 * Bits depend on the image alone. Cost: about 3 reads for the first, 6 for the second. */
GT_API gt_status gt_diffusion_statistics(const gt_stream *stream, const gt_tensor *statistics, const gt_tensor *sample,
                                         const gt_tensor *output, const gt_tensor *table, const gt_tensor *counter,
                                         float ratio, float largest);

#ifdef __cplusplus
}
#endif
#endif
