package io.gatun.runtime;

import java.lang.foreign.MemorySegment;
import org.jspecify.annotations.Nullable;

/// Pinned host memory through which one stream's copies go: two halves that take turns, each with the event after which
/// it may be written again. CUDA reads pinned memory when the copy runs, not when it is asked for.
final class PinnedStaging {
    private static final long HALF = 1L << 20;

    private final CudaRuntime cuda;
    private final MemorySegment stream;
    private @Nullable MemorySegment memory;
    private final MemorySegment[] done = new MemorySegment[2];
    private final boolean[] pending = new boolean[2];
    private int half;
    private long used;

    PinnedStaging(CudaRuntime cuda, MemorySegment stream) {
        this.cuda = cuda;
        this.stream = stream;
    }

    private MemorySegment memory() {
        MemorySegment existing = memory;
        if (existing == null) {
            existing = cuda.hostAlloc(2 * HALF);
            memory = existing;
        }
        for (int i = 0; i < done.length; i++) {
            if (done[i] == null) {
                done[i] = cuda.newEvent(false);
            }
        }
        return existing;
    }

    /// Queues a copy to the device. `from` may be changed as soon as this returns.
    void upload(long to, MemorySegment from) {
        final long alignment = 16;
        MemorySegment pinned = memory();
        long position = 0;
        while (position < from.byteSize()) {
            if (used == HALF) {
                turn();
            }
            long size = Math.min(from.byteSize() - position, HALF - used);
            MemorySegment piece = pinned.asSlice(half * HALF + used, size);
            piece.copyFrom(from.asSlice(position, size));
            cuda.copyToDevice(to + position, piece, stream);
            pending[half] = true;
            position += size;
            used = Math.min(HALF, (used + size + alignment - 1) / alignment * alignment);
        }
    }

    /// The other half: written again once the copies from it have run.
    private void turn() {
        cuda.record(done[half], stream);
        half ^= 1;
        used = 0;
        if (pending[half]) {
            cuda.awaitEvent(done[half]);
            pending[half] = false;
        }
    }

    /// Copies from the device and waits for it.
    void download(MemorySegment to, long from) {
        MemorySegment pinned = memory();
        for (long position = 0; position < to.byteSize(); position += 2 * HALF) {
            long size = Math.min(to.byteSize() - position, 2 * HALF);
            MemorySegment piece = pinned.asSlice(0, size);
            cuda.copyToHost(piece, from + position, stream); // runs when what was uploaded has left the buffer
            cuda.synchronize(stream);
            pending[0] = pending[1] = false;
            used = 0;
            to.asSlice(position, size).copyFrom(piece);
        }
    }

    /// No work uses the memory any more.
    void close() {
        for (MemorySegment event : done) {
            if (event != null) {
                cuda.destroyEvent(event);
            }
        }
        MemorySegment existing = memory;
        if (existing != null) {
            cuda.freeHost(existing);
            memory = null;
        }
    }
}
