package io.gatun.bench;

/// Measures one case, in repeats that take turns with those of others.
interface CaseTimer extends AutoCloseable {
    /// Takes a repeat.
    void repeat(int index);

    /// Nanoseconds of a call, in each repeat.
    double[] nanos();

    /// In one repeat.
    int calls();

    /// Of the operands; more than one: they came from memory that no cache holds.
    int copies();

    @Override
    default void close() {}
}
