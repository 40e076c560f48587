package io.gatun.ops;

import static io.gatun.runtime.Tensor.on;

import io.gatun.bindings.gatun.Gatun;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import org.jspecify.annotations.Nullable;

/// Layer and RMS normalisation over the last dimension, with the residual addition fused. Statistics in f32, two
/// passes; a row with a NaN gives a NaN row.
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
}
