package io.gatun.runtime;

import java.lang.foreign.MemorySegment;
import org.jspecify.annotations.Nullable;

/// A point in a stream's work: [Device#record] sets it, another stream ([Stream#waitFor]) or the host waits for it. On
/// the CPU, where ops finish with their call, it has always happened.
public final class Event implements AutoCloseable {
    private final @Nullable CudaRuntime cuda;
    private final MemorySegment handle;
    private final long nanos;
    private boolean closed;

    /// On the CPU.
    Event(long nanos) {
        this.cuda = null;
        this.handle = MemorySegment.NULL;
        this.nanos = nanos;
    }

    /// Takes over a CUDA event.
    Event(CudaRuntime cuda, MemorySegment handle) {
        this.cuda = cuda;
        this.handle = handle;
        this.nanos = 0;
    }

    synchronized MemorySegment handle() {
        if (closed) {
            throw new IllegalStateException("the event is closed");
        }
        return handle;
    }

    /// Waits until the work before the event has finished; a thread that closes the event waits too.
    public synchronized void synchronize() {
        MemorySegment event = handle();
        if (cuda != null) {
            cuda.makeCurrent();
            cuda.awaitEvent(event);
        }
    }

    /// Milliseconds from an earlier event of the same device to this one; waits for both.
    public double millisSince(Event earlier) {
        if (cuda == null) {
            return (nanos - earlier.nanos) * 1e-6;
        }
        synchronize();
        return cuda.millisBetween(earlier.handle(), handle());
    }

    /// Frees the event; twice is fine.
    @Override
    public synchronized void close() {
        if (!closed) {
            closed = true;
            if (cuda != null) {
                cuda.destroyEvent(handle);
            }
        }
    }
}
