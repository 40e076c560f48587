/* Optimisers: one launch updates all parameters, which lie in flat slabs, one after the other.
 *
 * Slabs are [n] contiguous; of f32 but for low, the parameters that the model computes with (bf16|f16), which receives
 * the updated ones rounded, or NULL where the model computes with param itself. The first `decayed` elements have
 * weight decay. State (m, v, momentum_buffer, square_average) begins as zeros.
 * What changes from step to step is read on the device, so that a captured step can be replayed:
 *   step       [1] i32, t: how many updates there were before this one
 *   rates      [steps] f32: the learning rate is rates[min(t, steps - 1)]
 *   norm       [1] f32 of gt_gradient_norm, or NULL: the gradient is scaled by min(1, max_norm / (norm + 1e-6)), as
 *              torch's clip_grad_norm_ does; INFINITY: no clipping. A norm that is not finite: nothing is updated
 *   loss_scale [1] f32 or NULL: the gradient is that of loss_scale * loss, and is divided by it
 * g = grad * clipping / loss_scale. Formulas are torch's, in f32; 1 - beta^(t+1) in f64.
 * Operands are different memory. An element's bits depend on its own inputs alone.
 * Errors: INVALID_ARGUMENT for shape, dtype, stride, pointer or a scalar out of range. */
#ifndef GATUN_OPTIMIZER_H
#define GATUN_OPTIMIZER_H

#include "gatun/types.h"

#ifdef __cplusplus
extern "C" {
#endif

/* decoupled 1: AdamW, Loshchilov & Hutter 2017 (arXiv 1711.05101); 0: Adam, Kingma & Ba 2014 (arXiv 1412.6980).
 * p = decoupled ? p (1 - rate weight_decay) : p;   g = decoupled ? g : g + weight_decay p
 * m = m + (1 - beta1) (g - m);   v = beta2 v + (1 - beta2) g^2
 * p = p - rate / (1 - beta1^(t+1)) m / (sqrt(v) / sqrt(1 - beta2^(t+1)) + eps)
 * param, m, v updated; low written; betas in [0, 1), eps > 0, weight_decay >= 0. Cost: 4 reads and 3 writes of f32. */
GT_API gt_status gt_adamw(const gt_stream *stream, const gt_tensor *param, const gt_tensor *low, const gt_tensor *m,
                          const gt_tensor *v, const gt_tensor *grad, const gt_tensor *rates, const gt_tensor *step,
                          const gt_tensor *norm, float max_norm, const gt_tensor *loss_scale, double beta1,
                          double beta2, double eps, double weight_decay, int64_t decayed, int32_t decoupled);

/* g = g + weight_decay p;   b = momentum b + g
 * p = p - rate (momentum ? nesterov ? g + momentum b : b : g)       torch.optim.SGD without dampening
 * momentum_buffer b: NULL where momentum is 0. nesterov 1 wants momentum. */
GT_API gt_status gt_sgd(const gt_stream *stream, const gt_tensor *param, const gt_tensor *low,
                        const gt_tensor *momentum_buffer, const gt_tensor *grad, const gt_tensor *rates,
                        const gt_tensor *step, const gt_tensor *norm, float max_norm, const gt_tensor *loss_scale,
                        double momentum, int32_t nesterov, double weight_decay, int64_t decayed);

/* g = g + weight_decay p;   s = alpha s + (1 - alpha) g^2;   u = g / (sqrt(s) + eps)
 * b = momentum b + u where there is momentum;   p = p - rate (momentum ? b : u)
 * Hinton 2012, as torch.optim.RMSprop;  square_average s;  momentum_buffer b: NULL where momentum is 0 */
GT_API gt_status gt_rmsprop(const gt_stream *stream, const gt_tensor *param, const gt_tensor *low,
                            const gt_tensor *square_average, const gt_tensor *momentum_buffer, const gt_tensor *grad,
                            const gt_tensor *rates, const gt_tensor *step, const gt_tensor *norm, float max_norm,
                            const gt_tensor *loss_scale, double alpha, double eps, double momentum,
                            double weight_decay, int64_t decayed);

/* norm[0] = sqrt(sum grad^2) / loss_scale, summed in f64.   norm [1] f32;  grad [n] f32 contiguous;
 * loss_scale [1] f32 or NULL;  workspace: u8 [bytes], from the query function, NULL where it answers 0 */
GT_API gt_status gt_gradient_norm(const gt_stream *stream, const gt_tensor *norm, const gt_tensor *grad,
                                  const gt_tensor *loss_scale, const gt_tensor *workspace);

/* Bytes of workspace that gt_gradient_norm wants for this grad. */
GT_API gt_status gt_gradient_norm_workspace(const gt_stream *stream, const gt_tensor *grad, int64_t *bytes);

/* After the update. Where norm is finite (or NULL): step += 1, good_steps += 1, and when that reaches growth_interval,
 * loss_scale *= growth (unless that overflows) and good_steps = 0. Else: loss_scale *= backoff, good_steps = 0, and the
 * step does not count. Micikevicius et al. 2017 (arXiv 1710.03740), torch.amp.GradScaler.
 * step [1] i32;  norm [1] f32 or NULL;  loss_scale [1] f32 and good_steps [1] i32, both or neither NULL */
GT_API gt_status gt_advance(const gt_stream *stream, const gt_tensor *step, const gt_tensor *norm,
                            const gt_tensor *loss_scale, const gt_tensor *good_steps, int32_t growth_interval,
                            float growth, float backoff);

/* average = average + (1 - d) (param - average), d = min(decay, (1 + t) / (10 + t)), t = step[0]; step NULL: d = decay
 * average [n] f32 contiguous, updated;  param [n] f32|bf16|f16 contiguous;  decay in [0, 1] */
GT_API gt_status gt_ema(const gt_stream *stream, const gt_tensor *average, const gt_tensor *param, double decay,
                        const gt_tensor *step);

#ifdef __cplusplus
}
#endif
#endif
