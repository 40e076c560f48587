/* Noise: normal numbers on the device, images with noise added, and the tables that say how much.
 *
 * Images are [B, H, W, C], any strides, H W C < 2^31. Element e of an image is e = (c H + h) W + w, whatever the
 * strides. Normals are Philox4x32-10's (lib/philox.h) with key seeds[b,0] and counter (element e, step, sequence
 * seeds[b,1], of which the lowest 32 bits count): an image's noise depends neither on the layout nor on the other
 * images, and the random bits are the same on every device. seeds [B, 2] i64 contiguous.
 * Errors: INVALID_ARGUMENT for shape, dtype, stride or pointer. Cost: one read, one write. */
#ifndef GATUN_NOISE_H
#define GATUN_NOISE_H

#include "gatun/types.h"

#ifdef __cplusplus
extern "C" {
#endif

/* y = normals of step `step`.   y [B, H, W, C] f32|bf16|f16;  seeds [B, 2] i64 */
GT_API gt_status gt_normal(const gt_stream *stream, const gt_tensor *y, const gt_tensor *seeds, uint32_t step);

/* y = sqrt(a) x + sqrt(1 - a) noise, a = alphas_cumprod[timesteps[b]]: q(x_t | x_0) of Ho, Jain & Abbeel 2020 (arXiv
 * 2006.11239).  y, x [B, H, W, C] f32|bf16|f16, y may be x;  noise like x, or NULL: normals of `step` by seeds
 * alphas_cumprod [T] f32 contiguous;  timesteps [B] i32 contiguous, outside 0 .. T-1: a NaN image
 * seeds: NULL where noise is given */
GT_API gt_status gt_add_noise(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x, const gt_tensor *noise,
                              const gt_tensor *seeds, uint32_t step, const gt_tensor *alphas_cumprod,
                              const gt_tensor *timesteps);

/* y = sqrt(a) noise - sqrt(1 - a) x: the target of v-prediction, Salimans & Ho 2022 (arXiv 2202.00512). Operands as in
 * gt_add_noise. */
GT_API gt_status gt_velocity(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x, const gt_tensor *noise,
                             const gt_tensor *alphas_cumprod, const gt_tensor *timesteps);

/* How betas are spread over T training steps; from and to are beta_start and beta_end. */
typedef int32_t gt_beta_schedule;
enum {
  GT_BETAS_LINEAR = 0,        /* linspace(from, to) */
  GT_BETAS_SCALED_LINEAR = 1, /* linspace(sqrt(from), sqrt(to))^2 */
  GT_BETAS_COSINE = 2,        /* min(1 - a((t + 1) / T) / a(t / T), 0.999), a(x) = cos((x + 0.008) / 1.008 pi / 2)^2 */
  GT_BETAS_SIGMOID = 3,       /* sigmoid(linspace(-6, 6)) (to - from) + from */
  GT_BETAS_GIVEN = 4          /* the betas that are there */
};

/* betas by the formula, then alphas_cumprod[t] = product of 1 - betas[i], i <= t: factors in f32, multiplied in this
 * order in f64, each product rounded to f32, as torch.cumprod does. With zero_snr 1 the square roots of the products
 * are shifted and scaled so that the last is 0 and the first stays, and both tables follow from that (Lin et al. 2023,
 * arXiv 2305.08891).
 * betas, alphas_cumprod [T] f32 contiguous, T >= 1. GIVEN reads betas. Cost: sequential, one CUDA block.
 * Errors: with zero_snr also INVALID_ARGUMENT where T = 1 or the products do not fall; of GIVEN on CUDA, which the host
 * cannot see, such tables become NaN. */
GT_API gt_status gt_noise_schedule(const gt_stream *stream, const gt_tensor *betas, const gt_tensor *alphas_cumprod,
                                   gt_beta_schedule schedule, double from, double to, int32_t zero_snr);

#ifdef __cplusplus
}
#endif
#endif
