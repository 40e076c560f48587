package io.gatun.ops;

import static io.gatun.runtime.Tensor.on;

import io.gatun.bindings.gatun.Gatun;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import org.jspecify.annotations.Nullable;

/// Optimisers: one launch updates all parameters, which lie in flat slabs, one after the other.
///
/// Slabs are [n] contiguous f32; `low` (bf16 or f16) receives the updated parameters rounded, null where the model
/// computes with `param` itself. The first `decayed` elements have weight decay. State begins as zeros. Formulas are
/// torch's, in f32, `g = grad * clipping / lossScale`. What changes from step to step is read on the device, so that a
/// captured step can be replayed:
///
/// - `step` [1] i32: t, how many updates there were before this one
/// - `rates` [steps] f32: the learning rate is `rates[min(t, steps - 1)]`
/// - `norm` [1] f32 of [#gradientNorm], or null: `clipping = min(1, maxNorm / (norm + 1e-6))`; with a maxNorm of
///   infinity 1. A norm that is not finite: nothing is updated
/// - `lossScale` [1] f32, or null: the gradient is that of `lossScale * loss`
public final class Optimizer {
    private Optimizer() {}

    /// AdamW (Loshchilov and Hutter 2017, arXiv 1711.05101), or Adam (Kingma and Ba 2014, arXiv 1412.6980) where
    /// `decoupled` is false and the decay joins the gradient:
    /// `p *= 1 - rate weightDecay`, or `g += weightDecay p`; `m = beta1 m + (1 - beta1) g`;
    /// `v = beta2 v + (1 - beta2) g^2`;
    /// `p -= rate / (1 - beta1^(t+1)) m / (sqrt(v) / sqrt(1 - beta2^(t+1)) + eps)`.
    ///
    /// @param param [n] updated
    /// @param low   [n] bf16 or f16 receives it rounded; null: not wanted
    /// @param grad  [n]
    /// @param m     [n] updated
    /// @param v     [n] updated
    public static void adamw(Stream stream, Tensor param, @Nullable Tensor low, Tensor grad, Tensor m, Tensor v,
            Tensor rates, Tensor step, @Nullable Tensor norm, float maxNorm, @Nullable Tensor lossScale, double beta1,
            double beta2, double eps, double weightDecay, long decayed, boolean decoupled) {
        stream.enter("adamw");
        try {
            stream.check(Gatun.gt_adamw(stream.descriptor(), param.on(stream), on(low, stream), m.on(stream),
                    v.on(stream), grad.on(stream), rates.on(stream), step.on(stream), on(norm, stream), maxNorm,
                    on(lossScale, stream), beta1, beta2, eps, weightDecay, decayed, decoupled ? 1 : 0));
        } finally {
            stream.exit();
        }
    }

    /// Stochastic gradient descent as torch.optim.SGD without dampening: `g += weightDecay p`; `b = momentum b + g`;
    /// `p -= rate (nesterov ? g + momentum b : b)`, and without momentum `p -= rate g`.
    ///
    /// @param momentumBuffer [n] updated; null where momentum is 0
    public static void sgd(Stream stream, Tensor param, @Nullable Tensor low, Tensor grad,
            @Nullable Tensor momentumBuffer, Tensor rates, Tensor step, @Nullable Tensor norm, float maxNorm,
            @Nullable Tensor lossScale, double momentum, boolean nesterov, double weightDecay, long decayed) {
        stream.enter("sgd");
        try {
            stream.check(Gatun.gt_sgd(stream.descriptor(), param.on(stream), on(low, stream),
                    on(momentumBuffer, stream), grad.on(stream), rates.on(stream), step.on(stream), on(norm, stream),
                    maxNorm, on(lossScale, stream), momentum, nesterov ? 1 : 0, weightDecay, decayed));
        } finally {
            stream.exit();
        }
    }

    /// Hinton 2012, as torch.optim.RMSprop: `g += weightDecay p`; `s = alpha s + (1 - alpha) g^2`;
    /// `u = g / (sqrt(s) + eps)`; with momentum `b = momentum b + u`, `p -= rate b`, else `p -= rate u`.
    ///
    /// @param squareAverage  [n] updated
    /// @param momentumBuffer [n] updated; null where momentum is 0
    public static void rmsprop(Stream stream, Tensor param, @Nullable Tensor low, Tensor grad, Tensor squareAverage,
            @Nullable Tensor momentumBuffer, Tensor rates, Tensor step, @Nullable Tensor norm, float maxNorm,
            @Nullable Tensor lossScale, double alpha, double eps, double momentum, double weightDecay, long decayed) {
        stream.enter("rmsprop");
        try {
            stream.check(Gatun.gt_rmsprop(stream.descriptor(), param.on(stream), on(low, stream),
                    squareAverage.on(stream), on(momentumBuffer, stream), grad.on(stream), rates.on(stream),
                    step.on(stream), on(norm, stream), maxNorm, on(lossScale, stream), alpha, eps, momentum,
                    weightDecay, decayed));
        } finally {
            stream.exit();
        }
    }

    /// `norm = sqrt(sum grad^2) / lossScale`, summed in f64.
    ///
    /// @param norm      [1] f32
    /// @param workspace u8 of [#gradientNormWorkspaceBytes]; null where that is 0
    public static void gradientNorm(Stream stream, Tensor norm, Tensor grad, @Nullable Tensor lossScale,
            @Nullable Tensor workspace) {
        stream.enter("gradient_norm");
        try {
            stream.check(Gatun.gt_gradient_norm(stream.descriptor(), norm.on(stream), grad.on(stream),
                    on(lossScale, stream), on(workspace, stream)));
        } finally {
            stream.exit();
        }
    }

    /// Bytes of workspace that [#gradientNorm] wants for this grad; with 0 it takes null.
    public static long gradientNormWorkspaceBytes(Stream stream, Tensor grad) {
        return WorkspaceQuery.bytes(stream, "gradient_norm_workspace",
                bytes -> Gatun.gt_gradient_norm_workspace(stream.descriptor(), grad.shapeOn(stream), bytes));
    }

    /// After the update. Where the norm is finite (or null) `step += 1` and `goodSteps += 1`, and when that reaches the
    /// interval, `lossScale *= growth` (unless that overflows) and `goodSteps = 0`. Else `lossScale *= backoff`,
    /// `goodSteps = 0`, and the step does not count. Micikevicius et al. 2017, arXiv 1710.03740.
    ///
    /// @param step      [1] i32
    /// @param norm      [1] f32 or null
    /// @param lossScale [1] f32, null with goodSteps
    /// @param goodSteps [1] i32, null with lossScale
    public static void advance(Stream stream, Tensor step, @Nullable Tensor norm, @Nullable Tensor lossScale,
            @Nullable Tensor goodSteps, int growthInterval, float growth, float backoff) {
        stream.enter("advance");
        try {
            stream.check(Gatun.gt_advance(stream.descriptor(), step.on(stream), on(norm, stream),
                    on(lossScale, stream), on(goodSteps, stream), growthInterval, growth, backoff));
        } finally {
            stream.exit();
        }
    }

    /// `average += (1 - d) (param - average)`, `d = min(decay, (1 + t) / (10 + t))`: a young average follows faster.
    ///
    /// @param average [n] f32 contiguous, updated
    /// @param param   [n] f32, bf16 or f16 contiguous
    /// @param step    [1] i32, t; null: d = decay
    public static void ema(Stream stream, Tensor average, Tensor param, double decay, @Nullable Tensor step) {
        stream.enter("ema");
        try {
            stream.check(Gatun.gt_ema(stream.descriptor(), average.on(stream), param.on(stream), decay,
                    on(step, stream)));
        } finally {
            stream.exit();
        }
    }
}
