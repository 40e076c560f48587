package io.gatun.runtime;

import java.util.ArrayDeque;
import java.util.Deque;
import java.util.NavigableMap;
import java.util.TreeMap;

/// Device memory that has been freed and is kept for the next allocation of about its size: `cudaMalloc` and `cudaFree`
/// synchronise the device and take milliseconds. Blocks come in size classes (multiples of 512 bytes, of 2 MiB from
/// 1 MiB on); a cached block serves a request of at least 7/8 of its size. What is cached is given back before an
/// allocation fails, and when the device is closed.
final class CudaPool {
    private static final long SMALL = 512;
    private static final long LARGE_FROM = 1L << 20;
    private static final long LARGE = 2L << 20;

    private final CudaRuntime cuda;
    private final TransferCounters counters;
    private final NavigableMap<Long, Deque<Long>> free = new TreeMap<>();
    private long cachedBytes;

    CudaPool(CudaRuntime cuda, TransferCounters counters) {
        this.cuda = cuda;
        this.counters = counters;
    }

    /// What an allocation of so many bytes takes.
    static long blockBytes(long bytes) {
        long unit = bytes < LARGE_FROM ? SMALL : LARGE;
        return bytes > Long.MAX_VALUE - unit ? Long.MAX_VALUE : Math.max(unit, (bytes + unit - 1) / unit * unit);
    }

    /// A block of [#blockBytes] or a little more; 0 when there is no memory.
    synchronized Block allocate(long bytes) {
        long wanted = blockBytes(bytes);
        var fitting = free.ceilingEntry(wanted);
        if (fitting != null && fitting.getKey() - wanted <= fitting.getKey() / 8) {
            long size = fitting.getKey();
            long address = fitting.getValue().pop();
            if (fitting.getValue().isEmpty()) {
                free.remove(size);
            }
            cachedBytes -= size;
            counters.countReuse(size);
            return new Block(address, size);
        }
        long address = cuda.malloc(wanted);
        if (address == 0 && cachedBytes > 0) {
            trim();
            address = cuda.malloc(wanted);
        }
        if (address != 0) {
            counters.countAllocation(wanted);
        }
        return new Block(address, wanted);
    }

    /// Takes a block back that no work on the device uses any more.
    synchronized void free(Block block) {
        free.computeIfAbsent(block.bytes, size -> new ArrayDeque<>()).push(block.address);
        cachedBytes += block.bytes;
        counters.countFree(block.bytes);
    }

    /// Gives everything that is cached back to CUDA.
    synchronized void trim() {
        free.forEach((size, addresses) -> addresses.forEach(cuda::free));
        free.clear();
        cachedBytes = 0;
    }

    synchronized long cachedBytes() {
        return cachedBytes;
    }

    /// @param address 0: no memory
    record Block(long address, long bytes) {}
}
