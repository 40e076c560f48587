/* Elementwise ops: arithmetic, activations, gated units, their gradients, dropout, casts, fills and strided copies.
 *
 * Common to all: operands have one shape unless a line says otherwise; any strides (0 broadcasts an input); y may be
 * the same tensor as an input, partial overlap is not allowed. Arithmetic is f32, rounded once to y's dtype (nearest
 * even). Errors: INVALID_ARGUMENT for shape, dtype or pointer. Cost: one read of each input, one write of y. */
#ifndef GATUN_ELEMENTWISE_H
#define GATUN_ELEMENTWISE_H

#include "gatun/types.h"

#ifdef __cplusplus
extern "C" {
#endif

/* y = a + b.   y, a, b: [...] f32|bf16|f16, one dtype */
GT_API gt_status gt_add(const gt_stream *stream, const gt_tensor *y, const gt_tensor *a, const gt_tensor *b);

/* y = a * b.   y, a, b: [...] f32|bf16|f16, one dtype */
GT_API gt_status gt_mul(const gt_stream *stream, const gt_tensor *y, const gt_tensor *a, const gt_tensor *b);

/* y = factor * x.   y, x: [...] f32|bf16|f16, one dtype */
GT_API gt_status gt_scale(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x, float factor);

/* y = x * (1 + erf(x / sqrt 2)) / 2.   The exact GELU (Hendrycks & Gimpel 2016); "gelu" in config.json */
GT_API gt_status gt_gelu_erf(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x);

/* y = x * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3))) / 2.   "gelu_new", "gelu_pytorch_tanh" */
GT_API gt_status gt_gelu_tanh(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x);

/* y = x * sigmoid(1.702 x).   "quick_gelu" */
GT_API gt_status gt_quick_gelu(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x);

/* y = x * sigmoid(x).   "silu", "swish" */
GT_API gt_status gt_silu(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x);

/* y = max(x, 0); NaN stays NaN */
GT_API gt_status gt_relu(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x);

/* y = x > 0 ? x : slope * x */
GT_API gt_status gt_leaky_relu(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x, float slope);

/* y = tanh(x) */
GT_API gt_status gt_tanh(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x);

/* y = 1 / (1 + exp(-x)) */
GT_API gt_status gt_sigmoid(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x);

/* y = silu(gate) * up.   Shazeer 2020 (arXiv 2002.05202) */
GT_API gt_status gt_swiglu(const gt_stream *stream, const gt_tensor *y, const gt_tensor *gate, const gt_tensor *up);

/* y = gelu_erf(gate) * up */
GT_API gt_status gt_geglu(const gt_stream *stream, const gt_tensor *y, const gt_tensor *gate, const gt_tensor *up);

/* y = gelu_tanh(gate) * up.   "gated-gelu" with gelu_new */
GT_API gt_status gt_geglu_tanh(const gt_stream *stream, const gt_tensor *y, const gt_tensor *gate,
                               const gt_tensor *up);

/* y = x * (1 + scale) + shift: adaptive layer norm's modulation. Peebles & Xie 2022 (arXiv 2212.09748)
 * y, x, scale, shift: [...] f32|bf16|f16, one dtype; scale and shift usually with stride 0 over the tokens */
GT_API gt_status gt_modulate(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x, const gt_tensor *scale,
                             const gt_tensor *shift);

/* y = x + gate * h: a gated residual.   y, x, gate, h: [...] f32|bf16|f16, one dtype */
GT_API gt_status gt_add_gated(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x, const gt_tensor *gate,
                              const gt_tensor *h);

/* y = mean + exp(clamp(logvar, -30, 20) / 2) * eps: a draw from a Gaussian by its log-variance, eps being a draw from
 * the standard one. Kingma & Welling 2013 (arXiv 1312.6114); the limits are those of latent diffusion
 * y, mean, logvar, eps: [...] f32|bf16|f16, one dtype */
GT_API gt_status gt_gaussian(const gt_stream *stream, const gt_tensor *y, const gt_tensor *mean,
                             const gt_tensor *logvar, const gt_tensor *eps);

/* y = min(max(x, low), high); NaN stays NaN.   low <= high */
GT_API gt_status gt_clamp(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x, float low, float high);

/* y = x / (1 - probability) where kept, else 0. Element e (row-major) is kept where the uniform of Philox4x32-10 with
 * key seed and counter (e, step[0], sequence layer) is above the probability (lib/philox.h): the same call on dy is the
 * backward pass. Srivastava et al. 2014
 * y, x: [...] f32|bf16|f16, one dtype, contiguous; y may be x;  probability in [0, 1];  step [1] i32 on the device */
GT_API gt_status gt_dropout(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x, float probability,
                            int64_t seed, const gt_tensor *step, int32_t layer);

/* y = x converted.   y, x: [...] any of f32|bf16|f16 */
GT_API gt_status gt_cast(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x);

/* y = value everywhere.   y: [...] f32|bf16|f16|i32|i64|u8; integers take the value truncated */
GT_API gt_status gt_fill(const gt_stream *stream, const gt_tensor *y, double value);

/* y = x, any strides on both sides: copies, permutes, and (into slices of y) concatenates. y may be x itself, with the
 * same strides; of any other overlap, also of a permutation in its place, the result is undefined.
 * y, x: [...] one dtype, any */
GT_API gt_status gt_copy(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x);

/* count[0] = how many elements of x are NaN or infinite.   x: [...] f32|bf16|f16; count: [1] i64 */
GT_API gt_status gt_count_nonfinite(const gt_stream *stream, const gt_tensor *count, const gt_tensor *x);

/* Gradients. dx = dy f'(x): operands of one shape and dtype, dx may be dy or x. At infinite x the derivative is that of
 * the formula, as in torch: NaN where it has 0 * Inf. */

/* dx = dy (Phi(x) + x phi(x)), Phi and phi the normal distribution and its density: of gt_gelu_erf */
GT_API gt_status gt_gelu_erf_backward(const gt_stream *stream, const gt_tensor *dx, const gt_tensor *dy,
                                      const gt_tensor *x);

/* dx = dy (s + x s (1 - s) 2 u'), s = sigmoid(2 u), u = sqrt(2/pi) (x + 0.044715 x^3): of gt_gelu_tanh */
GT_API gt_status gt_gelu_tanh_backward(const gt_stream *stream, const gt_tensor *dx, const gt_tensor *dy,
                                       const gt_tensor *x);

/* dx = dy (s + 1.702 x s (1 - s)), s = sigmoid(1.702 x) */
GT_API gt_status gt_quick_gelu_backward(const gt_stream *stream, const gt_tensor *dx, const gt_tensor *dy,
                                        const gt_tensor *x);

/* dx = dy (s + x s (1 - s)), s = sigmoid(x) */
GT_API gt_status gt_silu_backward(const gt_stream *stream, const gt_tensor *dx, const gt_tensor *dy,
                                  const gt_tensor *x);

/* dx = x <= 0 ? 0 : dy */
GT_API gt_status gt_relu_backward(const gt_stream *stream, const gt_tensor *dx, const gt_tensor *dy,
                                  const gt_tensor *x);

/* dx = x > 0 ? dy : slope * dy */
GT_API gt_status gt_leaky_relu_backward(const gt_stream *stream, const gt_tensor *dx, const gt_tensor *dy,
                                        const gt_tensor *x, float slope);

/* dx = dy (1 - y^2), y the result of gt_tanh */
GT_API gt_status gt_tanh_backward(const gt_stream *stream, const gt_tensor *dx, const gt_tensor *dy,
                                  const gt_tensor *y);

/* dx = dy y (1 - y), y the result of gt_sigmoid */
GT_API gt_status gt_sigmoid_backward(const gt_stream *stream, const gt_tensor *dx, const gt_tensor *dy,
                                     const gt_tensor *y);

/* dgate = dy up act'(gate), dup = dy act(gate), act the activation of gt_swiglu, gt_geglu or gt_geglu_tanh.
 * All [...] f32|bf16|f16, one dtype; dgate and dup may each be any one input, and are two tensors */
GT_API gt_status gt_swiglu_backward(const gt_stream *stream, const gt_tensor *dgate, const gt_tensor *dup,
                                    const gt_tensor *dy, const gt_tensor *gate, const gt_tensor *up);
GT_API gt_status gt_geglu_backward(const gt_stream *stream, const gt_tensor *dgate, const gt_tensor *dup,
                                   const gt_tensor *dy, const gt_tensor *gate, const gt_tensor *up);
GT_API gt_status gt_geglu_tanh_backward(const gt_stream *stream, const gt_tensor *dgate, const gt_tensor *dup,
                                        const gt_tensor *dy, const gt_tensor *gate, const gt_tensor *up);

/* dlogvar = dy eps exp(logvar / 2) / 2, and 0 where gt_gaussian clamps logvar. (dmean is dy, deps is not wanted.)
 * dlogvar, dy, logvar, eps: [...] f32|bf16|f16, one dtype */
GT_API gt_status gt_gaussian_backward(const gt_stream *stream, const gt_tensor *dlogvar, const gt_tensor *dy,
                                      const gt_tensor *logvar, const gt_tensor *eps);

#ifdef __cplusplus
}
#endif
#endif
