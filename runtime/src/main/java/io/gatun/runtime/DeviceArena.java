package io.gatun.runtime;

import io.gatun.bindings.HostMemory;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.ArrayList;
import java.util.List;

/// Owns device memory, as [Arena] owns host memory: tensors are allocated from it and end with it.
///
/// `close()` frees everything, may be called from any thread, twice is fine; it waits for an op that is running. A use
/// of a tensor after close throws. An arena that is never closed is reported by [Leaks] when asked for.
public final class DeviceArena implements AutoCloseable {
    private static final long ALIGNMENT = 256;

    private final Device device;
    private final Lifetime lifetime;
    private final Leaks.Tracked tracked;
    private final List<Block> blocks = new ArrayList<>();
    private final List<Device.Mapped> records = new ArrayList<>();
    private final List<Runnable> adopted = new ArrayList<>();
    private long bytes;
    private long slab;
    private long slabLeft;

    private record Block(long address, long bytes) {}

    DeviceArena(Device device, String name) {
        this.device = device;
        this.lifetime = new Lifetime(device, name);
        this.tracked = Leaks.track(this, name);
    }

    public Device device() {
        return device;
    }

    /// Bytes of device memory that this arena holds.
    public synchronized long bytes() {
        return bytes;
    }

    public boolean isOpen() {
        return lifetime.isOpen();
    }

    /// Gets memory for several tensors in one piece; [#allocate] takes from it as far as it reaches.
    ///
    /// @throws OutOfDeviceMemoryException when the device has not enough memory
    public synchronized void reserve(long size) {
        if (size < 0) {
            throw GatunException.invalid("%d bytes to reserve, expected 0 or more", size);
        }
        lifetime.requireOpen();
        slab = newBlock(size);
        slabLeft = size;
    }

    /// What [#allocate] takes of reserved memory for such a tensor.
    public static long bytesFor(DType dtype, long... shape) {
        long size = Tensor.bytes(dtype, shape);
        return size > Long.MAX_VALUE - ALIGNMENT ? Long.MAX_VALUE : (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    }

    /// A contiguous tensor of uncleared memory, aligned to 256 bytes.
    ///
    /// @throws OutOfDeviceMemoryException when the device has not enough memory
    public synchronized Tensor allocate(DType dtype, long... shape) {
        lifetime.requireOpen();
        long size = bytesFor(dtype, shape);
        long address;
        if (size <= slabLeft) {
            address = slab;
            slab += size;
            slabLeft -= size;
        } else {
            address = newBlock(Tensor.bytes(dtype, shape));
        }
        return Tensor.contiguous(lifetime, address, dtype, shape);
    }

    private long newBlock(long size) {
        long address = device.allocate(size);
        blocks.add(new Block(address, size));
        bytes += size;
        tracked.bytes(bytes);
        return address;
    }

    /// Values that ops write and the host reads without a copy command.
    public synchronized HostRecord allocateRecord(int n) {
        lifetime.requireOpen();
        Device.Mapped mapped = device.allocateMapped(Tensor.bytes(DType.I32, n));
        records.add(mapped);
        mapped.memory().fill((byte) 0);
        return new HostRecord(Tensor.contiguous(lifetime, mapped.address(), DType.I32, n), mapped.memory());
    }

    /// A tensor over host memory that the device can address, such as a mapped file, without a copy: only where
    /// [Device#addressesHostMemory()]. The memory must stay valid until this arena is closed; [#adopt] its release.
    public synchronized Tensor view(MemorySegment memory, DType dtype, long... shape) {
        lifetime.requireOpen();
        if (!device.addressesHostMemory() || !memory.isNative()) {
            throw GatunException.invalid("view: expected native memory and a device that addresses it, found %s on %s",
                    memory.isNative() ? "native memory" : "heap memory", device);
        }
        long size = Tensor.bytes(dtype, shape);
        if (memory.byteSize() != size || memory.address() % dtype.bytes() != 0) {
            throw GatunException.invalid("view: %d bytes at address mod %d = %d, expected %d bytes, aligned",
                    memory.byteSize(), dtype.bytes(), memory.address() % dtype.bytes(), size);
        }
        if (memory.isMapped() && size > 0) {
            lifetime.looksAt(memory);
        }
        return Tensor.contiguous(lifetime, memory.address(), dtype, shape);
    }

    /// Takes over the release of host memory that tensors of this arena look at: `release` runs once, when this arena
    /// is closed and no op uses the memory any more, on the thread that closes.
    public synchronized void adopt(Runnable release) {
        lifetime.requireOpen();
        adopted.add(release);
    }

    @Override
    public void close() {
        if (!lifetime.close()) {
            return;
        }
        Endings endings = new Endings();
        synchronized (this) {
            for (Block block : blocks) {
                endings.attempt(() -> device.free(block.address, block.bytes));
            }
            for (Device.Mapped record : records) {
                endings.attempt(() -> device.freeMapped(record));
            }
            for (Runnable release : adopted) {
                endings.attempt(release);
            }
            blocks.clear();
            records.clear();
            slabLeft = 0;
            adopted.clear();
            bytes = 0;
        }
        tracked.closed();
        endings.rethrow();
    }
}
