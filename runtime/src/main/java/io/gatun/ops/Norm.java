package io.gatun.ops;

import static io.gatun.runtime.Tensor.on;

import io.gatun.bindings.gatun.Gatun;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import org.jspecify.annotations.Nullable;

/// Layer and RMS normalisation over the last dimension, with the residual addition fused; group and batch normalisation
/// of images. Statistics of rows in f32, two passes; those of images in f64, one pass over the deviations from a few
/// values' mean. A row or a group with a NaN becomes NaN.
public final class Norm {
    private Norm() {}

    /// `h = x + residual`; `y = (h - mean) * rstd * weight + bias`, `mean = sum(h) / C`,
    /// `rstd = 1 / sqrt(sum((h - mean)^2) / C + eps)`.
    ///
    /// Ba, Kiros and Hinton 2016, arXiv 1607.06450.
    ///
    /// @param y           [..., C], may be `x`
    /// @param residualOut [..., C] receives `h` rounded to x's dtype, may be `x` or `residual`; null: not wanted
    /// @param mean        [N] f32, N the product of the outer dimensions; null: not wanted
    /// @param rstd        [N] f32; null: not wanted
    /// @param x           [..., C] f32, bf16 or f16
    /// @param residual    [..., C] or null
    /// @param weight      [C] x's dtype or f32; null: 1
    /// @param bias        [C] likewise; null: 0
    /// @param eps         >= 0
    public static void layerNorm(Stream stream, Tensor y, @Nullable Tensor residualOut, @Nullable Tensor mean,
            @Nullable Tensor rstd, Tensor x, @Nullable Tensor residual, @Nullable Tensor weight,
            @Nullable Tensor bias, float eps) {
        stream.enter("layernorm");
        try {
            stream.check(Gatun.gt_layernorm(stream.descriptor(), y.on(stream), on(residualOut, stream),
                    on(mean, stream), on(rstd, stream), x.on(stream), on(residual, stream), on(weight, stream),
                    on(bias, stream), eps));
        } finally {
            stream.exit();
        }
    }

    /// Layer norm without a residual and without saved statistics.
    public static void layerNorm(Stream stream, Tensor y, Tensor x, @Nullable Tensor weight, @Nullable Tensor bias,
            float eps) {
        layerNorm(stream, y, null, null, null, x, null, weight, bias, eps);
    }

    /// `h = x + residual`; `y = round(h * rstd) * weight`, `rstd = 1 / sqrt(sum(h^2) / C + eps)`. The rounding to x's
    /// dtype before the weight is what Llama and T5 do.
    ///
    /// Zhang and Sennrich 2019, arXiv 1910.07467. Operands as in [#layerNorm].
    public static void rmsNorm(Stream stream, Tensor y, @Nullable Tensor residualOut, @Nullable Tensor rstd, Tensor x,
            @Nullable Tensor residual, @Nullable Tensor weight, float eps) {
        stream.enter("rmsnorm");
        try {
            stream.check(Gatun.gt_rmsnorm(stream.descriptor(), y.on(stream), on(residualOut, stream), on(rstd, stream),
                    x.on(stream), on(residual, stream), on(weight, stream), eps));
        } finally {
            stream.exit();
        }
    }

    /// RMS norm without a residual and without saved statistics.
    public static void rmsNorm(Stream stream, Tensor y, Tensor x, @Nullable Tensor weight, float eps) {
        rmsNorm(stream, y, null, null, x, null, weight, eps);
    }

    /// `h = (x - mean) * rstd * weight + bias` with the mean and variance of each image's group of C/G channels;
    /// `y = activation(h * (1 + scale) + shift)`. With `groups = C` this is instance normalisation (Ulyanov, Vedaldi
    /// and Lempitsky 2016, arXiv 1607.08022).
    ///
    /// Wu and He 2018, arXiv 1803.08494.
    ///
    /// @param y         [B, S, C], may be `x`
    /// @param mean      [B, G] f32; null: not wanted
    /// @param rstd      [B, G] f32; null: not wanted
    /// @param x         [B, S, C] f32, bf16 or f16, S the pixels; C or S contiguous
    /// @param weight    [C] x's dtype or f32; null: 1
    /// @param bias      [C] likewise; null: 0
    /// @param scale     [B, C] x's dtype; null, and shift too: none
    /// @param shift     [B, C] x's dtype
    /// @param groups    divides C
    /// @param eps       >= 0
    /// @param workspace u8 of [#groupNormWorkspaceBytes]; null where that is 0
    public static void groupNorm(Stream stream, Tensor y, @Nullable Tensor mean, @Nullable Tensor rstd, Tensor x,
            @Nullable Tensor weight, @Nullable Tensor bias, @Nullable Tensor scale, @Nullable Tensor shift, int groups,
            float eps, ActivationKind activation, @Nullable Tensor workspace) {
        stream.enter("groupnorm");
        try {
            stream.check(Gatun.gt_groupnorm(stream.descriptor(), y.on(stream), on(mean, stream), on(rstd, stream),
                    x.on(stream), on(weight, stream), on(bias, stream), on(scale, stream), on(shift, stream), groups,
                    eps, activation.code(), on(workspace, stream)));
        } finally {
            stream.exit();
        }
    }

    /// Bytes of workspace that [#groupNorm] wants for this x; with 0 it takes null.
    public static long groupNormWorkspaceBytes(Stream stream, Tensor x, int groups) {
        return WorkspaceQuery.bytes(stream, "groupnorm_workspace",
                bytes -> Gatun.gt_groupnorm_workspace(stream.descriptor(), x.shapeOn(stream), groups, bytes));
    }

    /// `y = activation((x - mean) / sqrt(variance + eps) * weight + bias)` with given statistics, per channel.
    ///
    /// Ioffe and Szegedy 2015, arXiv 1502.03167.
    ///
    /// @param y        [B, S, C], may be `x`
    /// @param x        [B, S, C] f32, bf16 or f16; C or S contiguous
    /// @param mean     [C] x's dtype or f32
    /// @param variance [C] likewise
    /// @param weight   [C] likewise; null: 1
    /// @param bias     [C] likewise; null: 0
    public static void batchNorm(Stream stream, Tensor y, Tensor x, Tensor mean, Tensor variance,
            @Nullable Tensor weight, @Nullable Tensor bias, float eps, ActivationKind activation) {
        stream.enter("batchnorm");
        try {
            stream.check(Gatun.gt_batchnorm(stream.descriptor(), y.on(stream), x.on(stream), mean.on(stream),
                    variance.on(stream), on(weight, stream), on(bias, stream), eps, activation.code()));
        } finally {
            stream.exit();
        }
    }

    /// The gradients of [#layerNorm]. With `h = (x - mean) * rstd` and `g = dy * weight`, of each row:
    /// `dx = residual + rstd * (g - sum(g) / C - h * sum(g * h) / C)`; over all rows `dweight = sum(dy * h)` and
    /// `dbias = sum(dy)`. Outputs are overwritten.
    ///
    /// @param dx        [..., C], may be `dy` or `residual`
    /// @param dweight   [C] f32; null: not wanted
    /// @param dbias     [C] f32; null: not wanted
    /// @param dy        [..., C] x's dtype, the gradient of `y`
    /// @param x         [..., C] f32, bf16 or f16: what was normalised, so `residualOut` where there was a residual
    /// @param mean      [N] f32, from the forward op
    /// @param rstd      [N] f32, from the forward op
    /// @param weight    [C] x's dtype or f32; null: 1
    /// @param residual  [..., C] x's dtype: the gradient that reaches `x` past the norm; null: none
    /// @param workspace u8 of [#layerNormBackwardWorkspaceBytes]; null where that is 0 or neither dweight nor dbias is
    ///                  wanted
    public static void layerNormBackward(Stream stream, Tensor dx, @Nullable Tensor dweight, @Nullable Tensor dbias,
            Tensor dy, Tensor x, Tensor mean, Tensor rstd, @Nullable Tensor weight, @Nullable Tensor residual,
            @Nullable Tensor workspace) {
        stream.enter("layernorm_backward");
        try {
            stream.check(Gatun.gt_layernorm_backward(stream.descriptor(), dx.on(stream), on(dweight, stream),
                    on(dbias, stream), dy.on(stream), x.on(stream), mean.on(stream), rstd.on(stream),
                    on(weight, stream), on(residual, stream), on(workspace, stream)));
        } finally {
            stream.exit();
        }
    }

    /// Bytes of workspace that [#layerNormBackward] wants for this x where a parameter's gradient is wanted.
    public static long layerNormBackwardWorkspaceBytes(Stream stream, Tensor x) {
        return WorkspaceQuery.bytes(stream, "layernorm_backward_workspace",
                bytes -> Gatun.gt_layernorm_backward_workspace(stream.descriptor(), x.shapeOn(stream), bytes));
    }

    /// The gradients of [#rmsNorm]. With `h = x * rstd` and `g = dy * weight`, of each row:
    /// `dx = residual + rstd * (g - h * sum(g * h) / C)`; over all rows `dweight = sum(dy * h)`. The rounding before
    /// the weight counts as the identity. Operands as in [#layerNormBackward].
    public static void rmsNormBackward(Stream stream, Tensor dx, @Nullable Tensor dweight, Tensor dy, Tensor x,
            Tensor rstd, @Nullable Tensor weight, @Nullable Tensor residual, @Nullable Tensor workspace) {
        stream.enter("rmsnorm_backward");
        try {
            stream.check(Gatun.gt_rmsnorm_backward(stream.descriptor(), dx.on(stream), on(dweight, stream),
                    dy.on(stream), x.on(stream), rstd.on(stream), on(weight, stream), on(residual, stream),
                    on(workspace, stream)));
        } finally {
            stream.exit();
        }
    }

    /// Bytes of workspace that [#rmsNormBackward] wants for this x where `dweight` is wanted.
    public static long rmsNormBackwardWorkspaceBytes(Stream stream, Tensor x) {
        return WorkspaceQuery.bytes(stream, "rmsnorm_backward_workspace",
                bytes -> Gatun.gt_rmsnorm_backward_workspace(stream.descriptor(), x.shapeOn(stream), bytes));
    }

    /// Batch norm in training: the mean and the variance of each channel over the batch, `n = B * S` values.
    /// `y = activation((x - mean) * rstd * weight + bias)`, `rstd = 1 / sqrt(variance + eps)`; the running statistics
    /// become `(1 - momentum) * running + momentum * found`, their variance with `n - 1` in place of `n`, as in torch.
    ///
    /// @param y           [B, S, C], may be `x`
    /// @param mean        [C] f32, written, for [#batchNormBackward]
    /// @param rstd        [C] f32, written
    /// @param runningMean [C] f32, changed in place; null: not wanted
    /// @param runningVar  [C] f32, changed in place; null: not wanted
    /// @param x           [B, S, C] f32, bf16 or f16; C or S contiguous; at least two values per channel
    /// @param weight      [C] x's dtype or f32; null: 1
    /// @param bias        [C] likewise; null: 0
    /// @param workspace   u8 of [#batchNormTrainWorkspaceBytes]
    public static void batchNormTrain(Stream stream, Tensor y, Tensor mean, Tensor rstd, @Nullable Tensor runningMean,
            @Nullable Tensor runningVar, Tensor x, @Nullable Tensor weight, @Nullable Tensor bias, float momentum,
            float eps, ActivationKind activation, @Nullable Tensor workspace) {
        stream.enter("batchnorm_train");
        try {
            stream.check(Gatun.gt_batchnorm_train(stream.descriptor(), y.on(stream), mean.on(stream), rstd.on(stream),
                    on(runningMean, stream), on(runningVar, stream), x.on(stream), on(weight, stream),
                    on(bias, stream), momentum, eps, activation.code(), on(workspace, stream)));
        } finally {
            stream.exit();
        }
    }

    /// Bytes of workspace that [#batchNormTrain] wants for this x.
    public static long batchNormTrainWorkspaceBytes(Stream stream, Tensor x) {
        return WorkspaceQuery.bytes(stream, "batchnorm_train_workspace",
                bytes -> Gatun.gt_batchnorm_train_workspace(stream.descriptor(), x.shapeOn(stream), bytes));
    }

    /// The gradients of [#groupNorm]. With `h = (x - mean) * rstd`, `z = (h * weight + bias) * (1 + scale) + shift`,
    /// `d = dy * activation'(z)` and `g = d * (1 + scale) * weight`, E a group's mean:
    /// `dx = rstd * (g - E(g) - h * E(g * h))`; `dweight = sum(d * (1 + scale) * h)` and `dbias = sum(d * (1 + scale))`
    /// over images and pixels; `dscale = sum(d * (h * weight + bias))` and `dshift = sum(d)` over pixels. Outputs are
    /// overwritten.
    ///
    /// @param dx        [B, S, C], may be `dy`
    /// @param dweight   [C] f32; null: not wanted
    /// @param dbias     [C] f32; null: not wanted
    /// @param dscale    [B, C] x's dtype; null: not wanted
    /// @param dshift    [B, C] x's dtype; null: not wanted
    /// @param dy        [B, S, C] x's dtype, the gradient of `y`
    /// @param x         [B, S, C] f32, bf16 or f16; C contiguous in all images, or S in all
    /// @param mean      [B, G] f32, from the forward op
    /// @param rstd      [B, G] f32, from the forward op
    /// @param weight    what the forward op had; so are bias, scale, shift, groups and activation
    /// @param workspace u8 of [#groupNormBackwardWorkspaceBytes]; null where that is 0
    public static void groupNormBackward(Stream stream, Tensor dx, @Nullable Tensor dweight, @Nullable Tensor dbias,
            @Nullable Tensor dscale, @Nullable Tensor dshift, Tensor dy, Tensor x, Tensor mean, Tensor rstd,
            @Nullable Tensor weight, @Nullable Tensor bias, @Nullable Tensor scale, @Nullable Tensor shift, int groups,
            ActivationKind activation, @Nullable Tensor workspace) {
        stream.enter("groupnorm_backward");
        try {
            stream.check(Gatun.gt_groupnorm_backward(stream.descriptor(), dx.on(stream), on(dweight, stream),
                    on(dbias, stream), on(dscale, stream), on(dshift, stream), dy.on(stream), x.on(stream),
                    mean.on(stream), rstd.on(stream), on(weight, stream), on(bias, stream), on(scale, stream),
                    on(shift, stream), groups, activation.code(), on(workspace, stream)));
        } finally {
            stream.exit();
        }
    }

    /// Bytes of workspace that [#groupNormBackward] wants for this x.
    public static long groupNormBackwardWorkspaceBytes(Stream stream, Tensor x, int groups) {
        return WorkspaceQuery.bytes(stream, "groupnorm_backward_workspace",
                bytes -> Gatun.gt_groupnorm_backward_workspace(stream.descriptor(), x.shapeOn(stream), groups, bytes));
    }

    /// The gradients of [#batchNormTrain]: as [#groupNormBackward], E a channel's mean over the batch.
    ///
    /// @param mean      [C] f32, from the forward op
    /// @param rstd      [C] f32, from the forward op
    /// @param workspace u8 of [#batchNormBackwardWorkspaceBytes]; null where that is 0
    public static void batchNormBackward(Stream stream, Tensor dx, @Nullable Tensor dweight, @Nullable Tensor dbias,
            Tensor dy, Tensor x, Tensor mean, Tensor rstd, @Nullable Tensor weight, @Nullable Tensor bias,
            ActivationKind activation, @Nullable Tensor workspace) {
        stream.enter("batchnorm_backward");
        try {
            stream.check(Gatun.gt_batchnorm_backward(stream.descriptor(), dx.on(stream), on(dweight, stream),
                    on(dbias, stream), dy.on(stream), x.on(stream), mean.on(stream), rstd.on(stream),
                    on(weight, stream), on(bias, stream), activation.code(), on(workspace, stream)));
        } finally {
            stream.exit();
        }
    }

    /// Bytes of workspace that [#batchNormBackward] wants for this x.
    public static long batchNormBackwardWorkspaceBytes(Stream stream, Tensor x) {
        return WorkspaceQuery.bytes(stream, "batchnorm_backward_workspace",
                bytes -> Gatun.gt_batchnorm_backward_workspace(stream.descriptor(), x.shapeOn(stream), bytes));
    }

    /// The gradients of [#groupNormBackward]'s `dx`, without activation, scale and shift, as a gradient penalty needs
    /// them (Gulrajani et al. 2017, arXiv 1704.00028). With `g = dy * weight`, E a group's mean and
    /// `j = rstd * (u - E(u) - h * E(u * h))`: `ddy = weight * j`, `dweight = sum(dy * j)`, and
    /// `dx = -rstd^2 * (h * k + E(g * h) * (u - E(u) - h * E(u * h)) + E(u * h) * (g - E(g) - h * E(g * h)))` with
    /// `k = E(u * g) - E(u) * E(g) - E(u * h) * E(g * h)`. Rows [N, C] of layer norm are images [N, 1, C] in one group.
    ///
    /// @param ddy       [B, S, C], the gradient of `dy`; may be `u`
    /// @param dx        [B, S, C], the gradient of `x`; may be `dy`
    /// @param dweight   [C] f32; null: not wanted
    /// @param u         [B, S, C] x's dtype, the gradient of the gradient's `dx`
    /// @param dy        [B, S, C] x's dtype
    /// @param x         [B, S, C] f32, bf16 or f16; C contiguous in all images, or S in all
    /// @param mean      [B, G] f32, from the forward op
    /// @param rstd      [B, G] f32, from the forward op
    /// @param weight    [C] x's dtype or f32; null: 1
    /// @param workspace u8 of [#groupNormDoubleBackwardWorkspaceBytes]; null where that is 0
    public static void groupNormDoubleBackward(Stream stream, Tensor ddy, Tensor dx, @Nullable Tensor dweight, Tensor u,
            Tensor dy, Tensor x, Tensor mean, Tensor rstd, @Nullable Tensor weight, int groups,
            @Nullable Tensor workspace) {
        stream.enter("groupnorm_double_backward");
        try {
            stream.check(Gatun.gt_groupnorm_double_backward(stream.descriptor(), ddy.on(stream), dx.on(stream),
                    on(dweight, stream), u.on(stream), dy.on(stream), x.on(stream), mean.on(stream), rstd.on(stream),
                    on(weight, stream), groups, on(workspace, stream)));
        } finally {
            stream.exit();
        }
    }

    /// Bytes of workspace that [#groupNormDoubleBackward] wants for this x.
    public static long groupNormDoubleBackwardWorkspaceBytes(Stream stream, Tensor x, int groups) {
        return WorkspaceQuery.bytes(stream, "groupnorm_double_backward_workspace", bytes -> Gatun
                .gt_groupnorm_double_backward_workspace(stream.descriptor(), x.shapeOn(stream), groups, bytes));
    }
}
