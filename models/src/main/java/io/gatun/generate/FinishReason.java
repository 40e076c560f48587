package io.gatun.generate;

/// Why a sequence ended.
public enum FinishReason {
    /// An end token or a stop string.
    STOP,
    /// The requested number of tokens, or the model's context, was reached.
    LENGTH,
    CANCELLED,
    DEADLINE
}
