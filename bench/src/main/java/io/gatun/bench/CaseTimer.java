package io.gatun.bench;

/// Measures one case, in repeats that take turns with those of others.
interface CaseTimer extends AutoCloseable {
    /// Takes a repeat.
    void repeat();

    /// Nanoseconds of a call, in each repeat so far.
    double[] nanos();

    /// In one repeat.
    int calls();

    /// Of the operands.
    int copies();

    /// Whether each call finds its operands in memory, in no cache.
    boolean isCold();

    @Override
    default void close() {}
}
