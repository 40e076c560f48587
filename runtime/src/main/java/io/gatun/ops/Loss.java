package io.gatun.ops;

import static io.gatun.runtime.Tensor.on;

import io.gatun.bindings.gatun.Gatun;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import org.jspecify.annotations.Nullable;

/// Losses with their gradients in one pass. The loss is summed in f64, the same bits for any number of threads;
/// gradients are those of `gradScale * loss`. (Cross-entropy is [Softmax#crossEntropy].)
public final class Loss {
    private Loss() {}

    /// `loss = factor sum_b weight[b] sum_i l(x[b,i], target[b,i])`; `dx = gradScale factor weight[b] l'(x)`.
    ///
    /// @param loss      [1] f32
    /// @param dx        [B, ...] x's dtype, may be `x`; null: not wanted
    /// @param x         [B, ...] f32, bf16 or f16, any strides
    /// @param target    [B, ...] x's dtype or f32, any strides: with 0 one target for all
    /// @param weight    [B] f32, as min-SNR weighting has it; null: 1
    /// @param factor    1 / n for a mean
    /// @param gradScale [1] f32, the loss scale; null: 1
    /// @param workspace u8 of [#lossWorkspaceBytes]; null where that is 0
    public static void loss(Stream stream, LossKind kind, Tensor loss, @Nullable Tensor dx, Tensor x, Tensor target,
            @Nullable Tensor weight, float factor, @Nullable Tensor gradScale, @Nullable Tensor workspace) {
        stream.enter("loss");
        try {
            stream.check(Gatun.gt_loss(stream.descriptor(), loss.on(stream), on(dx, stream), x.on(stream),
                    target.on(stream), on(weight, stream), kind.code(), factor, on(gradScale, stream),
                    on(workspace, stream)));
        } finally {
            stream.exit();
        }
    }

    /// `loss = factor sum -(1 + logvar - mean^2 - exp(logvar)) / 2`: how far a diagonal Gaussian is from the standard
    /// one. `dmean = gradScale factor mean`, `dlogvar = gradScale factor (exp(logvar) - 1) / 2`. Kingma and Welling
    /// 2013, arXiv 1312.6114.
    ///
    /// @param loss      [1] f32
    /// @param dmean     like mean; null: not wanted
    /// @param dlogvar   like mean; null: not wanted
    /// @param mean      any shape and strides, f32, bf16 or f16
    /// @param logvar    like mean
    /// @param gradScale [1] f32; null: 1
    /// @param workspace u8 of [#lossWorkspaceBytes] for mean; null where that is 0
    public static void klGaussian(Stream stream, Tensor loss, @Nullable Tensor dmean, @Nullable Tensor dlogvar,
            Tensor mean, Tensor logvar, float factor, @Nullable Tensor gradScale, @Nullable Tensor workspace) {
        stream.enter("kl_gaussian");
        try {
            stream.check(Gatun.gt_kl_gaussian(stream.descriptor(), loss.on(stream), on(dmean, stream),
                    on(dlogvar, stream), mean.on(stream), logvar.on(stream), factor, on(gradScale, stream),
                    on(workspace, stream)));
        } finally {
            stream.exit();
        }
    }

    /// Bytes of workspace that a loss wants for this x; with 0 it takes null.
    public static long lossWorkspaceBytes(Stream stream, Tensor x) {
        return WorkspaceQuery.bytes(stream, "loss_workspace",
                bytes -> Gatun.gt_loss_workspace(stream.descriptor(), x.shapeOn(stream), bytes));
    }
}
