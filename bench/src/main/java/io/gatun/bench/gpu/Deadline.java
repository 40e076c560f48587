package io.gatun.bench.gpu;

import java.time.Duration;
import org.jspecify.annotations.Nullable;

/// When the suite must have ended: what does not fit before is left out, visibly.
///
/// @param minutes that it may take from its start on; null: as long as it needs
record Deadline(long startNanos, @Nullable Double minutes) {
    private static final Duration LEAST = Duration.ofSeconds(5);

    /// For how long something may run.
    ///
    /// @param isCut whether that is less than it was given, because the suite's time ends
    record Limit(Duration time, boolean isCut) {
        /// Whether it is too short to begin.
        boolean isOver() {
            return isCut && time.compareTo(LEAST) < 0;
        }
    }

    static Deadline inMinutes(@Nullable Double minutes) {
        return new Deadline(System.nanoTime(), minutes);
    }

    Limit limit(Duration given) {
        if (minutes == null) {
            return new Limit(given, false);
        }
        Duration left = Duration.ofMillis((long) (minutes * 60_000)).minusNanos(System.nanoTime() - startNanos);
        return left.compareTo(given) < 0 ? new Limit(left, true) : new Limit(given, false);
    }
}
