package io.gatun.runtime;

/// One slab of device memory from which the temporaries of a computation are placed, so that nothing is allocated on
/// the device during a step. Measure first, then place:
///
/// ```java
/// long bytes = Workspace.bytes(DType.F32, n, c) + Workspace.bytes(DType.F32, n, v);
/// try (Workspace workspace = device.newWorkspace(bytes)) {
///     Tensor hidden = workspace.allocate(DType.F32, n, c);
///     ...
///     workspace.reset();    // hidden and the others may not be used any more; the memory is placed anew
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

    /// What [#allocate] takes of the slab for such a tensor.
    public static long bytes(DType dtype, long... shape) {
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
            device.free(address, bytes);
            tracked.closed();
        }
    }
}
