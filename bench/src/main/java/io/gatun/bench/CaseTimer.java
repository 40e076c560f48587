package io.gatun.bench;

/// Measures one case, in repeats that take turns with those of others.
interface CaseTimer {
    /// Takes a repeat.
    void repeat(int index);

    /// Nanoseconds of a call, in each repeat.
    double[] nanos();

    /// Whether the operands came from memory that no cache holds.
    boolean isCold();
}
