package io.gatun.runtime;

import io.gatun.bindings.HostMemory;
import java.lang.foreign.MemorySegment;
import java.util.Arrays;
import java.util.NavigableMap;
import java.util.concurrent.ConcurrentSkipListMap;
import java.util.function.Consumer;

/// What a tensor depends on: while it is open the memory is there. It also owns the descriptors (`gt_tensor`) of the
/// tensors that live in it, which are native memory without a Java scope, because a scope check on every operand of
/// every op would cost more than the call.
///
/// Closing waits until no stream of the device is inside an op: a stream announces itself before it looks at
/// `open`, and closing clears `open` before it looks at the streams, so one of them sees the other.
final class Lifetime {
    private static final int SLAB_DESCRIPTORS = 64;

    private final Device device;
    private final String name;
    private final NavigableMap<Long, MemorySegment> files = new ConcurrentSkipListMap<>();
    private volatile boolean open;
    private boolean measuring;
    private long[] slabs = new long[4];
    private int numSlabs;
    private int used = SLAB_DESCRIPTORS;

    Lifetime(Device device, String name) {
        this(device, name, false);
    }

    private Lifetime(Device device, String name, boolean measuring) {
        this.device = device;
        this.name = name;
        this.measuring = measuring;
        this.open = !measuring;
    }

    /// A lifetime of tensors without memory: they have shapes and views, and every use throws.
    static Lifetime measuring(Device device) {
        return new Lifetime(device, "measuring workspace", true);
    }

    Device device() {
        return device;
    }

    boolean isOpen() {
        return open;
    }

    void requireOpen() {
        if (!open) {
            throw new IllegalStateException(name + (measuring ? ": its tensors have no memory, only shapes"
                    : " is closed: its tensors cannot be used any more"));
        }
    }

    /// As [#requireOpen], for what looks at descriptors alone, which tensors without memory have too.
    void requireShapes() {
        if (!measuring) {
            requireOpen();
        }
    }

    /// Memory for a `gt_tensor`, filled before anybody can end the lifetime.
    synchronized MemorySegment newDescriptor(long bytes, Consumer<MemorySegment> fill) {
        requireShapes();
        if (used == SLAB_DESCRIPTORS) {
            long slab = HostMemory.allocate(SLAB_DESCRIPTORS * bytes);
            if (slab == 0) {
                throw new OutOfDeviceMemoryException("no host memory for tensor descriptors", SLAB_DESCRIPTORS * bytes);
            }
            if (numSlabs == slabs.length) {
                slabs = Arrays.copyOf(slabs, 2 * numSlabs);
            }
            slabs[numSlabs++] = slab;
            used = 0;
        }
        MemorySegment descriptor = HostMemory.view(slabs[numSlabs - 1] + used++ * bytes, bytes);
        fill.accept(descriptor);
        return descriptor;
    }

    /// Tensors look at this part of a mapped file.
    void looksAt(MemorySegment file) {
        files.put(file.address(), file);
    }

    /// Tells the kernel that this memory is not needed for now, if a mapped file lies there: its pages leave this
    /// process and are read again when they are touched. Other memory stays as it is.
    void letGoOfFile(long address, long bytes) {
        var found = files.floorEntry(address);
        if (found != null && address + bytes <= found.getKey() + found.getValue().byteSize()) {
            found.getValue().asSlice(address - found.getKey(), bytes).unload();
        }
    }

    /// Ends the lifetime; true for the call that did it. When this returns no op uses the memory any more.
    boolean close() {
        return close(true);
    }

    /// As [#close], for memory that goes on to be used by the same streams in their order: work on the device that
    /// still uses it is not waited for.
    boolean closeInOrder() {
        return close(false);
    }

    private boolean close(boolean memoryEnds) {
        synchronized (this) {
            if (!open && !measuring) {
                return false;
            }
            open = false;
            measuring = false;
        }
        if (memoryEnds) {
            device.awaitIdleStreams();
        } else {
            device.awaitIdleCallers();
        }
        synchronized (this) {
            for (int i = 0; i < numSlabs; i++) {
                HostMemory.free(slabs[i]);
            }
            numSlabs = 0;
        }
        return true;
    }
}
