package io.gatun.ops;

import io.gatun.bindings.gatun.Gatun;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import org.jspecify.annotations.Nullable;

/// Products of e4m3 numbers with an f32 scale for each row: an element stands for its number times its row's scale.
/// Micikevicius et al. 2022 (arXiv 2209.05433). The codes of NaN, which no op writes, count as 480 and -480.
public final class Fp8 {
    private Fp8() {}

    /// `scale[n] = max(max_c |x[n,c]|, 1e-30) / 448`, `y[n,c] = x[n,c] / scale[n]`, to nearest even, at most 448. A row
    /// with a NaN or an infinity gets scale NaN and y 0.
    ///
    /// @param y     [N, C] f8_e4m3
    /// @param scale [N] f32
    /// @param x     [N, C] f32, bf16 or f16
    public static void quantizeRows(Stream stream, Tensor y, Tensor scale, Tensor x) {
        stream.enter("quantize_rows");
        try {
            stream.check(Gatun.gt_quantize_rows(stream.descriptor(), y.on(stream), scale.on(stream), x.on(stream)));
        } finally {
            stream.exit();
        }
    }

    /// `y[n,f] = x_scale[n] weight_scale[f] sum_c x[n,c] w[f,c] + bias[f]`; a row has the same bits for any number of
    /// rows and threads. Reads the weights once per 16 rows of x on CUDA, per 64 on the CPU.
    ///
    /// @param y           [N, F] f32, bf16 or f16, for 16-bit x f32 or x's dtype; may not overlap an input
    /// @param x           [N, C] bf16 or f16, or f8_e4m3 with `xScale`
    /// @param xScale      [N] f32; null where x is 16-bit
    /// @param weight      [F, C] f8_e4m3
    /// @param weightScale [F] f32
    /// @param bias        [F] y's dtype or f32; null: none
    public static void linear(Stream stream, Tensor y, Tensor x, @Nullable Tensor xScale, Tensor weight,
            Tensor weightScale, @Nullable Tensor bias) {
        stream.enter("linear_fp8");
        try {
            stream.check(Gatun.gt_linear_fp8(stream.descriptor(), y.on(stream), x.on(stream), Tensor.on(xScale, stream),
                    weight.on(stream), weightScale.on(stream), Tensor.on(bias, stream)));
        } finally {
            stream.exit();
        }
    }
}
