package io.gatun.runtime;

import java.lang.foreign.MemorySegment;
import org.jspecify.annotations.Nullable;

/// How does another thread wait for what a CUDA stream was given, while the stream's own thread may capture or end it?
///
/// To wait for a stream that captures would spoil the capture. So the wait, the beginning and the end of a capture and
/// the stream's own end exclude each other, and during a capture the wait is for an event in front of it: what is
/// captured runs later, with operands that must be open then.
final class StreamWork {
    private final CudaRuntime cuda;
    private final MemorySegment stream;
    private @Nullable Capture capture;
    private boolean ended;

    /// @param before happens when the work in front of the capture has finished
    private record Capture(Thread thread, MemorySegment before) {}

    StreamWork(CudaRuntime cuda, MemorySegment stream) {
        this.cuda = cuda;
        this.stream = stream;
    }

    synchronized void beginCapture() {
        MemorySegment before = cuda.newEvent(false);
        try {
            cuda.record(before, stream);
        } catch (RuntimeException e) {
            cuda.destroyEvent(before);
            throw e;
        }
        capture = new Capture(Thread.currentThread(), before);
    }

    synchronized void endCapture() {
        Capture ending = capture;
        if (ending != null) {
            capture = null;
            cuda.destroyEvent(ending.before);
        }
    }

    /// Waits for the work so far; the thread that captures may not, and does not.
    synchronized void await() {
        Capture going = capture;
        if (ended || going != null && going.thread == Thread.currentThread()) {
            return;
        }
        cuda.makeCurrent();
        if (going != null) {
            cuda.awaitEvent(going.before);
        } else {
            cuda.synchronize(stream);
        }
    }

    /// The stream is about to end: nobody waits for it any more.
    synchronized void end() {
        ended = true;
    }
}
