package io.gatun.ops;

import io.gatun.bindings.gatun.Gatun;

/// What [Loss#loss] says of a prediction x and a target t.
public enum LossKind {
    /// `(x - t)^2`.
    MSE(Gatun.GT_LOSS_MSE()),
    /// `max(x, 0) - x t + log(1 + exp(-|x|))`: the binary cross-entropy of sigmoid(x).
    BCE_WITH_LOGITS(Gatun.GT_LOSS_BCE_WITH_LOGITS()),
    /// `max(0, 1 - t x)`, t = 1 or -1.
    HINGE(Gatun.GT_LOSS_HINGE()),
    /// `t x`, t = 1 or -1: the mean of a critic.
    LINEAR(Gatun.GT_LOSS_LINEAR());

    private final int code;

    LossKind(int code) {
        this.code = code;
    }

    int code() {
        return code;
    }
}
