package io.gatun.ops;

import io.gatun.bindings.gatun.Gatun;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import org.jspecify.annotations.Nullable;

/// The matrix product with few rows, which reads the weights once. [io.gatun.runtime.Device#matmul] chooses between it
/// and the vendor's library.
public final class Linear {
    private Linear() {}

    /// How a weight matrix lies in memory.
    public enum WeightLayout {
        /// [F, C]: torch's Linear.
        OUT_IN(Gatun.GT_WEIGHT_OUT_IN()),
        /// [C, F]: GPT-2's Conv1D.
        IN_OUT(Gatun.GT_WEIGHT_IN_OUT());

        private final int code;

        WeightLayout(int code) {
            this.code = code;
        }
    }

    /// `y[n,f] = sum_c x[n,c] w[f,c] + bias[f]`; a row has the same bits for any number of rows and threads.
    ///
    /// @param y      [N, F] x's dtype or f32, may not overlap an input
    /// @param x      [N, C] f32, bf16 or f16
    /// @param weight [F, C] or [C, F] by `layout`, x's dtype
    /// @param bias   [F] x's dtype or f32; null: none
    public static void linear(Stream stream, Tensor y, Tensor x, Tensor weight, @Nullable Tensor bias,
            WeightLayout layout) {
        stream.enter("linear");
        try {
            stream.check(Gatun.gt_linear(stream.descriptor(), y.on(stream), x.on(stream), weight.on(stream),
                    Tensor.on(bias, stream), layout.code));
        } finally {
            stream.exit();
        }
    }
}
