package io.gatun.runtime;

/// A point in a stream's work: [Device#record] sets it, another stream or the host waits for it. On the CPU, where ops
/// finish with their call, it has always happened.
public final class Event {
    private final long nanos;

    Event(long nanos) {
        this.nanos = nanos;
    }

    /// Waits until the work before the event has finished.
    public void synchronize() {
        // CPU ops are finished when they return; the CUDA device brings its own wait with it.
    }

    /// Milliseconds from an earlier event to this one.
    public double millisSince(Event earlier) {
        return (nanos - earlier.nanos) * 1e-6;
    }
}
