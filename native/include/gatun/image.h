/* What image models need beside convolutions: resampling, the embedding of a time step, and 8-bit pixels.
 *
 * Images are [B, H, W, C] (H and W height and width), any strides. Errors: INVALID_ARGUMENT for shape, dtype or
 * pointer. Cost: one read, one write. */
#ifndef GATUN_IMAGE_H
#define GATUN_IMAGE_H

#include "gatun/types.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Nearest neighbour: y[b,i,j,c] = x[b, i H / H', j W / W', c], the divisions rounded down. H' = 2 H doubles the image.
 * y [B, H', W', C], x [B, H, W, C] of one dtype f32|bf16|f16. y may not overlap x. */
GT_API gt_status gt_upsample_nearest(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x);

/* Mean over windows of `size` x `size`, size rows and columns apart. y [B, H / size, W / size, C], x [B, H, W, C] of
 * one dtype f32|bf16|f16; what does not fill a window is left out. size >= 1. */
GT_API gt_status gt_average_pool(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x, int64_t size);

/* Maximum over windows of `size` x `size`, `stride` rows and columns apart, the first one beginning `pad` before x:
 * y[b,i,j,c] = max x[b, i s - p + u, j s - p + v, c], u, v < size, over what lies inside x. A NaN in a window gives
 * NaN. y [B, (H + 2 p - size) / s + 1, .. W likewise, C], x [B, H, W, C] of one dtype f32|bf16|f16. size, stride >= 1,
 * 0 <= pad <= size / 2. y may not overlap x. */
GT_API gt_status gt_max_pool(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x, int64_t size,
                             int64_t stride, int64_t pad);

/* Gradients of the above: dx [B, H, W, C], of the shape and dtype of the op's x; dy of its y. dx may not overlap an
 * input. Sums in f32, rows of dy in ascending order, rounded once.
 *
 * upsample_nearest: the sum of dy over the pixels that show a pixel of x; 0 where none does.
 * average_pool: dy / size^2 of the window that a pixel lies in; 0 where it lies in none.
 * max_pool: the sum of dy over the windows whose maximum the pixel is: of equal ones the first in (u, v), of NaNs the
 * last, as torch has it. x is the op's x. Cost: size^2 reads of x per window. */
GT_API gt_status gt_upsample_nearest_backward(const gt_stream *stream, const gt_tensor *dx, const gt_tensor *dy);
GT_API gt_status gt_average_pool_backward(const gt_stream *stream, const gt_tensor *dx, const gt_tensor *dy,
                                          int64_t size);
GT_API gt_status gt_max_pool_backward(const gt_stream *stream, const gt_tensor *dx, const gt_tensor *dy,
                                      const gt_tensor *x, int64_t size, int64_t stride, int64_t pad);

/* Sinusoids of a time step t = timesteps[b], or timesteps[counter[0]] for every b where a counter is given:
 * angle[i] = t * exp(-ln(10000) i / (E/2 - shift)), i = 0 .. E/2 - 1
 * y[b] = sin(angle), cos(angle); with flip cos(angle), sin(angle). Of an odd E the last element is 0.
 * The frequencies are rounded to f32 before the product and the product is f32, as diffusers does.
 *
 * y          [B, E] f32|bf16|f16, any strides
 * timesteps  [B] f32 contiguous; with a counter [n] for any n >= 1
 * counter    [1] i32, 0 <= counter[0] < n (else the row is NaN); NULL: none
 * flip       0 or 1: cosines first ("flip_sin_to_cos").  shift: "downscale_freq_shift", 0 or 1; E/2 > shift */
GT_API gt_status gt_timestep_embedding(const gt_stream *stream, const gt_tensor *y, const gt_tensor *timesteps,
                                       const gt_tensor *counter, int32_t flip, float shift);

/* 8-bit pixels: y = round(255 clamp(x * scale + offset, 0, 1)), ties to even; NaN gives 0. With x in [-1, 1] scale and
 * offset are 0.5. One channel of x fills all three of y.
 * y [B, H, W, 3] u8 contiguous, x [B, H, W, 1 or 3] f32|bf16|f16 */
GT_API gt_status gt_rgb8(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x, float scale, float offset);

#ifdef __cplusplus
}
#endif
#endif
