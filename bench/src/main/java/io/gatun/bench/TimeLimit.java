package io.gatun.bench;

import org.jspecify.annotations.Nullable;

/// How long something may take.
///
/// @param seconds null: as long as it needs
record TimeLimit(@Nullable Double seconds, long startNanos) {
    /// From now on.
    TimeLimit(@Nullable Double seconds) {
        this(seconds, System.nanoTime());
    }

    boolean isOver() {
        return seconds != null && (System.nanoTime() - startNanos) * 1e-9 > seconds;
    }
}
