package io.gatun.bench;

import io.gatun.runtime.Event;
import io.gatun.runtime.Stream;

/// How long does a stream's work take on the device, not counting how long the host takes to ask for it?
final class QueuedTime {
    private QueuedTime() {}

    /// Nanoseconds of one of `calls` calls, between two events. One more call before them keeps the device busy while
    /// they are queued.
    static double nanos(Stream stream, int calls, Runnable call) {
        call.run();
        try (Event start = stream.device().record(stream)) {
            for (int i = 0; i < calls; i++) {
                call.run();
            }
            try (Event end = stream.device().record(stream)) {
                return end.millisSince(start) * 1e6 / calls;
            }
        }
    }
}
