package io.gatun.models;

import io.gatun.ops.ActivationKind;
import io.gatun.ops.Elementwise;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;

/// Activation functions by the names that config.json uses. A name that is not here is an error, not a guess: the exact
/// and the tanh form of GELU differ by more than a model's rounding.
public enum Activation {
    GELU_ERF("gelu") {
        @Override
        public void apply(Stream stream, Tensor y, Tensor x) {
            Elementwise.geluErf(stream, y, x);
        }

        @Override
        public void backward(Stream stream, Tensor dx, Tensor dy, Tensor x, Tensor y) {
            Elementwise.geluErfBackward(stream, dx, dy, x);
        }
    },
    GELU_TANH("gelu_new", "gelu_pytorch_tanh", "gelu_fast") {
        @Override
        public void apply(Stream stream, Tensor y, Tensor x) {
            Elementwise.geluTanh(stream, y, x);
        }

        @Override
        public void backward(Stream stream, Tensor dx, Tensor dy, Tensor x, Tensor y) {
            Elementwise.geluTanhBackward(stream, dx, dy, x);
        }
    },
    QUICK_GELU("quick_gelu") {
        @Override
        public void apply(Stream stream, Tensor y, Tensor x) {
            Elementwise.quickGelu(stream, y, x);
        }

        @Override
        public void backward(Stream stream, Tensor dx, Tensor dy, Tensor x, Tensor y) {
            Elementwise.quickGeluBackward(stream, dx, dy, x);
        }
    },
    SILU("silu", "swish") {
        @Override
        public void apply(Stream stream, Tensor y, Tensor x) {
            Elementwise.silu(stream, y, x);
        }

        @Override
        public void backward(Stream stream, Tensor dx, Tensor dy, Tensor x, Tensor y) {
            Elementwise.siluBackward(stream, dx, dy, x);
        }
    },
    RELU("relu") {
        @Override
        public void apply(Stream stream, Tensor y, Tensor x) {
            Elementwise.relu(stream, y, x);
        }

        @Override
        public void backward(Stream stream, Tensor dx, Tensor dy, Tensor x, Tensor y) {
            Elementwise.reluBackward(stream, dx, dy, x);
        }
    },
    TANH("tanh") {
        @Override
        public void apply(Stream stream, Tensor y, Tensor x) {
            Elementwise.tanh(stream, y, x);
        }

        @Override
        public void backward(Stream stream, Tensor dx, Tensor dy, Tensor x, Tensor y) {
            Elementwise.tanhBackward(stream, dx, dy, y);
        }
    },
    SIGMOID("sigmoid") {
        @Override
        public void apply(Stream stream, Tensor y, Tensor x) {
            Elementwise.sigmoid(stream, y, x);
        }

        @Override
        public void backward(Stream stream, Tensor dx, Tensor dy, Tensor x, Tensor y) {
            Elementwise.sigmoidBackward(stream, dx, dy, y);
        }
    };

    private final String[] names;

    Activation(String... names) {
        this.names = names;
    }

    /// `y = f(x)`, elementwise; `y` may be `x`.
    public abstract void apply(Stream stream, Tensor y, Tensor x);

    /// The gradient: `dx = dy f'(x)`, where y = f(x); `dx` may be `dy`.
    public abstract void backward(Stream stream, Tensor dx, Tensor dy, Tensor x, Tensor y);

    /// The activation that an op can apply to its result.
    public static Activation of(ActivationKind kind) {
        return switch (kind) {
            case SILU -> SILU;
            case RELU -> RELU;
            case TANH -> TANH;
            case NONE -> throw new IllegalArgumentException("no activation");
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
