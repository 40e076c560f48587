package io.gatun.runtime;

import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;

/// A few i32 values that kernels write and the host reads: pinned mapped memory on CUDA. How the ids of a decode step
/// reach the host without a copy command; what is read is counted as device to host.
public final class HostRecord {
    private final Tensor tensor;
    private final MemorySegment memory;

    HostRecord(Tensor tensor, MemorySegment memory) {
        this.tensor = tensor;
        this.memory = memory;
    }

    /// [n] i32, to be written by ops.
    public Tensor tensor() {
        return tensor;
    }

    /// The first `into.length` or fewer values, after the stream's work so far.
    public void read(Stream stream, int[] into, int count) {
        stream.enter("read");
        try {
            tensor.on(stream);
            tensor.device().synchronizeEntered(stream);
            MemorySegment.copy(memory, ValueLayout.JAVA_INT, 0, into, 0, count);
        } finally {
            stream.exit();
        }
        tensor.device().counters().countDeviceToHost(4L * count);
    }
}
