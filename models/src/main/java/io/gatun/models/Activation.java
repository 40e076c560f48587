package io.gatun.models;

import io.gatun.ops.ActivationKind;
import io.gatun.ops.Elementwise;
import io.gatun.ops.Linear.MlpActivation;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import org.jspecify.annotations.Nullable;

/// Activation functions by the names that config.json uses. A name that is not here is an error, not a guess: the exact
/// and the tanh form of GELU differ by more than a model's rounding.
public enum Activation {
    GELU_ERF(Elementwise::geluErf, Elementwise::geluErfBackward, Kept.INPUT, "gelu"),
    GELU_TANH(Elementwise::geluTanh, Elementwise::geluTanhBackward, Kept.INPUT, "gelu_new", "gelu_pytorch_tanh",
            "gelu_fast"),
    QUICK_GELU(Elementwise::quickGelu, Elementwise::quickGeluBackward, Kept.INPUT, "quick_gelu"),
    SILU(Elementwise::silu, Elementwise::siluBackward, Kept.INPUT, "silu", "swish"),
    RELU(Elementwise::relu, Elementwise::reluBackward, Kept.INPUT, "relu"),
    TANH(Elementwise::tanh, Elementwise::tanhBackward, Kept.RESULT, "tanh"),
    SIGMOID(Elementwise::sigmoid, Elementwise::sigmoidBackward, Kept.RESULT, "sigmoid");

    private final Forward forward;
    private final Backward backward;
    private final Kept kept;
    private final String[] names;

    private interface Forward {
        void run(Stream stream, Tensor y, Tensor x);
    }

    private interface Backward {
        void run(Stream stream, Tensor dx, Tensor dy, Tensor kept);
    }

    /// What the gradient is computed from.
    private enum Kept { INPUT, RESULT }

    Activation(Forward forward, Backward backward, Kept kept, String... names) {
        this.forward = forward;
        this.backward = backward;
        this.kept = kept;
        this.names = names;
    }

    /// `y = f(x)`, elementwise; `y` may be `x`.
    public void apply(Stream stream, Tensor y, Tensor x) {
        forward.run(stream, y, x);
    }

    /// The gradient: `dx = dy f'(x)`, where y = f(x); `dx` may be `dy`.
    public void backward(Stream stream, Tensor dx, Tensor dy, Tensor x, Tensor y) {
        backward.run(stream, dx, dy, kept == Kept.INPUT ? x : y);
    }

    /// The activation that an op can apply to its result.
    public static Activation of(ActivationKind kind) {
        return switch (kind) {
            case SILU -> SILU;
            case RELU -> RELU;
            case TANH -> TANH;
            case NONE -> throw new IllegalArgumentException("no activation");
        };
    }

    /// The same, for an op that multiplies first; null: that op does not have it.
    @Nullable MlpActivation ofMlp() {
        return switch (this) {
            case GELU_ERF -> MlpActivation.GELU_ERF;
            case GELU_TANH -> MlpActivation.GELU_TANH;
            case QUICK_GELU -> MlpActivation.QUICK_GELU;
            case SILU -> MlpActivation.SILU;
            case RELU -> MlpActivation.RELU;
            case TANH, SIGMOID -> null;
        };
    }

    /// The activation that a field of a config names.
    public static Activation parse(ConfigFile config, String field) {
        String name = config.requireString(field);
        StringBuilder known = new StringBuilder();
        for (Activation activation : values()) {
            for (String candidate : activation.names) {
                if (candidate.equals(name)) {
                    return activation;
                }
                known.append(known.isEmpty() ? "" : ", ").append(candidate);
            }
        }
        throw config.wrong(field, "one of " + known);
    }
}
