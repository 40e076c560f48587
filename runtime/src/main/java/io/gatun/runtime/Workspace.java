package io.gatun.runtime;

import java.util.function.Consumer;

/// One slab of device memory from which the temporaries of a computation are placed, so that nothing is allocated on
/// the device during a step. The same code measures first and places then:
///
/// ```java
/// long bytes = Workspace.measure(device, w -> new Buffers(w, rows));
/// try (Workspace workspace = device.newWorkspace(bytes)) {
///     Buffers buffers = new Buffers(workspace, rows);
///     ...
///     workspace.reset();    // the buffers may not be used any more; the memory is placed anew
/// }
/// ```
///
/// One thread at a time. `close()` twice is fine.
public final class Workspace implements AutoCloseable {
    private static final long ALIGNMENT = 256;

    private final Device device;
    private final Leaks.Tracked tracked;
    private final long address;
    private final long bytes;
    private Lifetime lifetime;
    private long used;
    private boolean closed;

    Workspace(Device device, long bytes) {
        this.device = device;
        this.bytes = bytes;
        this.address = device.allocate(bytes);
        this.lifetime = new Lifetime(device, "workspace");
        this.tracked = Leaks.track(this, "workspace");
        tracked.bytes(bytes);
    }

    /// A workspace without memory, which only adds up.
    private Workspace(Device device) {
        this.device = device;
        this.bytes = Long.MAX_VALUE;
        this.address = 0;
        this.lifetime = new Lifetime(device, "measuring workspace");
        this.tracked = Leaks.untracked();
    }

    /// Bytes that `placement` allocates. The tensors it gets have no memory: it may build views, not run ops.
    public static long measure(Device device, Consumer<Workspace> placement) {
        try (Workspace workspace = new Workspace(device)) {
            placement.accept(workspace);
            return workspace.used;
        }
    }

    /// What [#allocate] takes of the slab for such a tensor.
    private static long bytes(DType dtype, long... shape) {
        return (Tensor.bytes(dtype, shape) + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    }

    /// Size of the slab.
    public long bytes() {
        return bytes;
    }

    /// A contiguous tensor of uncleared memory from the slab, aligned to 256 bytes.
    public Tensor allocate(DType dtype, long... shape) {
        long size = bytes(dtype, shape);
        if (size > bytes - used) {
            throw new IllegalStateException("workspace of %d bytes has %d left, %d wanted: the measure was wrong"
                    .formatted(bytes, bytes - used, size));
        }
        Tensor tensor = Tensor.contiguous(lifetime, address + used, dtype, shape);
        used += size;
        return tensor;
    }

    /// Ends all tensors placed so far and starts again at the beginning of the slab.
    public void reset() {
        if (!closed) {
            lifetime.close();
            lifetime = new Lifetime(device, "workspace");
            used = 0;
        }
    }

    @Override
    public void close() {
        if (!closed) {
            closed = true;
            lifetime.close();
            if (address != 0) {
                device.free(address, bytes);
            }
            tracked.closed();
        }
    }
}
