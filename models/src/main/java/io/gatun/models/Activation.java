package io.gatun.models;

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
    },
    GELU_TANH("gelu_new", "gelu_pytorch_tanh", "gelu_fast") {
        @Override
        public void apply(Stream stream, Tensor y, Tensor x) {
            Elementwise.geluTanh(stream, y, x);
        }
    },
    QUICK_GELU("quick_gelu") {
        @Override
        public void apply(Stream stream, Tensor y, Tensor x) {
            Elementwise.quickGelu(stream, y, x);
        }
    },
    SILU("silu", "swish") {
        @Override
        public void apply(Stream stream, Tensor y, Tensor x) {
            Elementwise.silu(stream, y, x);
        }
    },
    RELU("relu") {
        @Override
        public void apply(Stream stream, Tensor y, Tensor x) {
            Elementwise.relu(stream, y, x);
        }
    };

    private final String[] names;

    Activation(String... names) {
        this.names = names;
    }

    /// `y = f(x)`, elementwise; `y` may be `x`.
    public abstract void apply(Stream stream, Tensor y, Tensor x);

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
