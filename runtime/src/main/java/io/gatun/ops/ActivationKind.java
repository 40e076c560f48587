package io.gatun.ops;

import io.gatun.bindings.gatun.Gatun;

/// An activation that an op applies to its result before it is stored.
public enum ActivationKind {
    NONE(Gatun.GT_ACTIVATION_NONE()),
    /// `x sigmoid(x)`
    SILU(Gatun.GT_ACTIVATION_SILU()),
    /// `max(x, 0)`
    RELU(Gatun.GT_ACTIVATION_RELU()),
    TANH(Gatun.GT_ACTIVATION_TANH());

    private final int code;

    ActivationKind(int code) {
        this.code = code;
    }

    int code() {
        return code;
    }
}
