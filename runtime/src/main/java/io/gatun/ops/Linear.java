package io.gatun.ops;

import io.gatun.bindings.gatun.Gatun;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import org.jspecify.annotations.Nullable;

/// The matrix product with few rows, which reads the weights once. [io.gatun.runtime.Device#matmul] chooses between it
/// and the vendor's library. Also with the norm in front and the activation behind, as one node of a decode step.
public final class Linear {
    /// Most channels of [#normLinear] and its kin, without a norm and with one.
    public static final int MOST_CHANNELS = 16384;
    public static final int MOST_NORMED_CHANNELS = 8192;

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

    /// What lies between the matrices of an MLP: the op of [Elementwise] of that name.
    public enum MlpActivation {
        NONE(Gatun.GT_MLP_NONE()),
        GELU_ERF(Gatun.GT_MLP_GELU_ERF()),
        GELU_TANH(Gatun.GT_MLP_GELU_TANH()),
        QUICK_GELU(Gatun.GT_MLP_QUICK_GELU()),
        SILU(Gatun.GT_MLP_SILU()),
        RELU(Gatun.GT_MLP_RELU());

        private final int code;

        MlpActivation(int code) {
            this.code = code;
        }
    }

    /// Which norm a product's input goes through.
    public enum InputNormKind {
        NONE(Gatun.GT_NORM_NONE()),
        /// [Norm#layerNorm]
        LAYER(Gatun.GT_NORM_LAYER()),
        /// [Norm#rmsNorm], which has no bias
        RMS(Gatun.GT_NORM_RMS());

        private final int code;

        InputNormKind(int code) {
            this.code = code;
        }
    }

    /// What becomes of x before it is multiplied: `norm(x + residual)`, operands as in [Norm].
    ///
    /// @param residual    [N, C] or null
    /// @param residualOut [N, C] receives `x + residual`, may overlap neither; null: not wanted
    /// @param weight      [C] or null
    /// @param bias        [C] or null
    /// @param eps         >= 0
    public record InputNorm(InputNormKind kind, @Nullable Tensor residual, @Nullable Tensor residualOut,
            @Nullable Tensor weight, @Nullable Tensor bias, float eps) {
        /// x as it is.
        public static final InputNorm NONE = new InputNorm(InputNormKind.NONE, null, null, null, null, 0);
    }

    /// A product `y = n weight^T + bias` of the normalised input. y [N, F], weight [F, C] or [C, F], bias [F]; or, with
    /// 16-bit x, `y[n,f] = scale[f] sum_c x[n,c] w[f,c] + bias[f]` as [Fp8#linear] has it.
    ///
    /// @param weight x's dtype, or f8_e4m3 [F, C]
    /// @param scale  [F] f32 with f8_e4m3 weights, else null
    /// @param bias   [F] x's dtype or f32, with f8_e4m3 weights y's or f32; null: none
    public record Product(Tensor y, Tensor weight, @Nullable Tensor scale, @Nullable Tensor bias) {
        /// With weights of x's dtype.
        public Product(Tensor y, Tensor weight, @Nullable Tensor bias) {
            this(y, weight, null, bias);
        }
    }

    /// `y = activation(norm(x) weight^T + bias)` in one launch, with the bits of the ops one by one.
    ///
    /// On CUDA, in a captured graph, weights and parameters are read before the kernels in front have ended: no op of
    /// the graph may write them.
    ///
    /// @param x [N, C] f32, bf16 or f16; C at most [#MOST_CHANNELS], with a norm [#MOST_NORMED_CHANNELS]
    public static void normLinear(Stream stream, Tensor x, InputNorm norm, Product product, WeightLayout layout,
            MlpActivation activation) {
        normLinear(stream, x, norm, product, null, null, null, layout, activation);
    }

    /// `y = activation(norm(x) weight^T + bias) (norm(x) up^T + upBias)`, likewise: of weights f8_e4m3 [F, C], both
    /// with a scale [F] f32 for each column of their product, or of weights of x's dtype, both without.
    public static void normLinearGated(Stream stream, Tensor x, InputNorm norm, Product gate, Tensor up,
            @Nullable Tensor upScale, @Nullable Tensor upBias, WeightLayout layout, MlpActivation activation) {
        normLinear(stream, x, norm, gate, up, upScale, upBias, layout, activation);
    }

    private static void normLinear(Stream stream, Tensor x, InputNorm norm, Product p, @Nullable Tensor up,
            @Nullable Tensor upScale, @Nullable Tensor upBias, WeightLayout layout, MlpActivation activation) {
        stream.enter("norm_linear");
        try {
            stream.check(Gatun.gt_norm_linear(stream.descriptor(), p.y.on(stream), Tensor.on(norm.residualOut, stream),
                    x.on(stream), Tensor.on(norm.residual, stream), norm.kind.code, Tensor.on(norm.weight, stream),
                    Tensor.on(norm.bias, stream), norm.eps, p.weight.on(stream), Tensor.on(p.scale, stream),
                    Tensor.on(p.bias, stream), Tensor.on(up, stream), Tensor.on(upScale, stream),
                    Tensor.on(upBias, stream), layout.code, activation.code));
        } finally {
            stream.exit();
        }
    }

    /// Three products of one norm, likewise; their results have one dtype, each its own F.
    public static void normLinearQkv(Stream stream, Tensor x, InputNorm norm, Product q, Product k, Product v,
            WeightLayout layout) {
        stream.enter("norm_linear_qkv");
        try {
            stream.check(Gatun.gt_norm_linear_qkv(stream.descriptor(), q.y.on(stream), k.y.on(stream), v.y.on(stream),
                    Tensor.on(norm.residualOut, stream), x.on(stream), Tensor.on(norm.residual, stream),
                    norm.kind.code, Tensor.on(norm.weight, stream), Tensor.on(norm.bias, stream), norm.eps,
                    q.weight.on(stream), Tensor.on(q.scale, stream), Tensor.on(q.bias, stream), k.weight.on(stream),
                    Tensor.on(k.scale, stream), Tensor.on(k.bias, stream), v.weight.on(stream),
                    Tensor.on(v.scale, stream), Tensor.on(v.bias, stream), layout.code));
        } finally {
            stream.exit();
        }
    }
}
