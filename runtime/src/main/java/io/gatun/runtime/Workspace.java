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
    private final boolean measuring;
    private Lifetime lifetime;
    private long used;
    private long peak;
    private boolean closed;

    Workspace(Device device, long bytes) {
        if (bytes < 0) {
            throw GatunException.invalid("workspace of %d bytes, expected 0 or more", bytes);
        }
        this.device = device;
        this.bytes = bytes;
        this.address = device.allocate(bytes);
        this.measuring = false;
        this.lifetime = newLifetime();
        this.tracked = Leaks.track(this, "workspace");
        tracked.bytes(bytes);
    }

    /// A workspace without memory, which only adds up.
    private Workspace(Device device) {
        this.device = device;
        this.bytes = Long.MAX_VALUE;
        this.address = ALIGNMENT; // queries refuse NULL
        this.measuring = true;
        this.lifetime = newLifetime();
        this.tracked = Leaks.untracked();
    }

    private Lifetime newLifetime() {
        return measuring ? Lifetime.measuring(device) : new Lifetime(device, "workspace");
    }

    /// Bytes that `placement` allocates, the most between two resets. The tensors it gets have no memory: it may build
    /// views, not run ops.
    public static long measure(Device device, Consumer<Workspace> placement) {
        try (Workspace workspace = new Workspace(device)) {
            placement.accept(workspace);
            return workspace.peak;
        }
    }

    /// What [#allocate] takes of the slab for such a tensor.
    private static long bytes(DType dtype, long... shape) {
        long bytes = Tensor.bytes(dtype, shape);
        return bytes > Long.MAX_VALUE - ALIGNMENT ? Long.MAX_VALUE : (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    }

    boolean isMeasuring() {
        return measuring;
    }

    Device device() {
        return device;
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
        peak = Math.max(peak, used);
        return tensor;
    }

    /// Ends all tensors placed so far and starts again at the beginning of the slab.
    public void reset() {
        if (!closed) {
            lifetime.closeInOrder();
            lifetime = newLifetime();
            used = 0;
        }
    }

    @Override
    public void close() {
        if (!closed) {
            closed = true;
            if (!measuring) {
                lifetime.close();
                device.free(address, bytes);
            } else {
                lifetime.closeInOrder(); // no work has used what was only measured
            }
            tracked.closed();
        }
    }
}
