package io.gatun.runtime;

import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.atomic.LongAdder;

/// Counts what moves between host and device, what is allocated and what is launched: freedom from copies is a number
/// here, not a claim. Counted on every device; on the CPU a "transfer" is a copy between the caller's memory and a
/// tensor, and weights mapped from a file count zero.
public final class TransferCounters {
    private final LongAdder hostToDevice = new LongAdder();
    private final LongAdder deviceToHost = new LongAdder();
    private final LongAdder conversions = new LongAdder();
    private final LongAdder allocations = new LongAdder();
    private final AtomicLong allocatedBytes = new AtomicLong();
    private final AtomicLong peakBytes = new AtomicLong();
    private final LongAdder launches = new LongAdder();

    TransferCounters() {}

    /// The counters at one moment.
    ///
    /// @param hostToDevice bytes copied to the device
    /// @param deviceToHost bytes copied from the device, and bytes read from records that kernels wrote
    /// @param conversions  bytes written by dtype conversions, realignment and packing of weights
    /// @param allocations  device allocations made
    /// @param allocatedBytes bytes of device memory in use
    /// @param launches     ops or graphs started
    public record Snapshot(long hostToDevice, long deviceToHost, long conversions, long allocations,
            long allocatedBytes, long launches) {
        /// What happened since an earlier snapshot; `allocatedBytes` is the growth.
        public Snapshot since(Snapshot earlier) {
            return new Snapshot(hostToDevice - earlier.hostToDevice, deviceToHost - earlier.deviceToHost,
                    conversions - earlier.conversions, allocations - earlier.allocations,
                    allocatedBytes - earlier.allocatedBytes, launches - earlier.launches);
        }
    }

    public Snapshot snapshot() {
        return new Snapshot(hostToDevice.sum(), deviceToHost.sum(), conversions.sum(), allocations.sum(),
                allocatedBytes.get(), launches.sum());
    }

    /// The most bytes of device memory that were in use at once so far.
    public long peakBytes() {
        return peakBytes.get();
    }

    void countHostToDevice(long bytes) {
        hostToDevice.add(bytes);
    }

    void countDeviceToHost(long bytes) {
        deviceToHost.add(bytes);
    }

    /// For classes that load or pack weights.
    public void countConversion(long bytes) {
        conversions.add(bytes);
    }

    void countAllocation(long bytes) {
        allocations.increment();
        countReuse(bytes);
    }

    /// Memory that had been freed is used again.
    void countReuse(long bytes) {
        long now = allocatedBytes.addAndGet(bytes);
        peakBytes.accumulateAndGet(now, Math::max);
    }

    void countFree(long bytes) {
        allocatedBytes.addAndGet(-bytes);
    }

    void countLaunch() {
        launches.increment();
    }
}
