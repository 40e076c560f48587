package io.gatun.runtime;

/// A recorded sequence of ops that is started as one: a CUDA graph, or on the CPU the recorded calls themselves. The
/// operands are those of the recording; what changes between launches is read from device memory.
public final class Graph implements AutoCloseable {
    private final Stream stream;
    private final Runnable launch;
    private final Runnable release;
    private boolean closed;

    Graph(Stream stream, Runnable launch, Runnable release) {
        this.stream = stream;
        this.launch = launch;
        this.release = release;
    }

    /// Starts the recorded work on the stream it was captured from.
    public synchronized void launch() {
        if (closed) {
            throw new IllegalStateException("the graph is closed");
        }
        launch.run();
    }

    public Stream stream() {
        return stream;
    }

    /// Frees the recording; twice is fine, and from any thread.
    @Override
    public synchronized void close() {
        if (!closed) {
            closed = true;
            release.run();
        }
    }
}
