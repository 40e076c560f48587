package io.gatun.softgpu;

import io.gatun.runtime.CudaSearch;
import io.gatun.softgpu.bindings.Softgpu;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.Map;
import java.util.TreeMap;

/// The stand-ins for CUDA that this process uses, for tests: what they count, and how to make them fail.
///
/// Start the JVM with `-Dgatun.cuda.path=softgpu` (the stand-ins of this artifact's jar with classifier, or of a
/// folder) and open the device `cuda` as ever. The stand-ins belong to the process: tests that use this class may not
/// run at the same time. Devices opened before [#reset] must not be used after it.
public final class SoftGpu {
    /// What is counted; bytes, or how many there are now, or how many there were since [#clearCounters].
    public enum Counter {
        BYTES_TO_DEVICE(Softgpu.SOFTGPU_BYTES_H2D()),
        BYTES_TO_HOST(Softgpu.SOFTGPU_BYTES_D2H()),
        BYTES_ON_DEVICE(Softgpu.SOFTGPU_BYTES_D2D()),
        /// Of the bytes to the device and to the host those whose host side was not pinned.
        BYTES_PAGEABLE(Softgpu.SOFTGPU_BYTES_PAGEABLE()),
        COPIES_TO_DEVICE(Softgpu.SOFTGPU_COPIES_H2D()),
        COPIES_TO_HOST(Softgpu.SOFTGPU_COPIES_D2H()),
        LIVE_ALLOCATIONS(Softgpu.SOFTGPU_LIVE_ALLOCATIONS()),
        LIVE_BYTES(Softgpu.SOFTGPU_LIVE_BYTES()),
        PEAK_BYTES(Softgpu.SOFTGPU_PEAK_BYTES()),
        LIVE_PINNED(Softgpu.SOFTGPU_LIVE_PINNED()),
        LIVE_PINNED_BYTES(Softgpu.SOFTGPU_LIVE_PINNED_BYTES()),
        LIVE_STREAMS(Softgpu.SOFTGPU_LIVE_STREAMS()),
        LIVE_EVENTS(Softgpu.SOFTGPU_LIVE_EVENTS()),
        LIVE_GRAPHS(Softgpu.SOFTGPU_LIVE_GRAPHS()),
        LIVE_EXECUTABLE_GRAPHS(Softgpu.SOFTGPU_LIVE_EXECS()),
        /// Of cuBLASLt and cuDNN.
        LIVE_HANDLES(Softgpu.SOFTGPU_LIVE_HANDLES()),
        LIVE_DESCRIPTORS(Softgpu.SOFTGPU_LIVE_DESCRIPTORS()),
        /// Kernels, products and convolutions given to a stream, not through a graph.
        LAUNCHES(Softgpu.SOFTGPU_LAUNCHES()),
        GRAPH_LAUNCHES(Softgpu.SOFTGPU_GRAPH_LAUNCHES()),
        GRAPH_NODES(Softgpu.SOFTGPU_GRAPH_NODES()),
        RED_ZONE_HITS(Softgpu.SOFTGPU_RED_ZONE_HITS()),
        FREED_HITS(Softgpu.SOFTGPU_FREED_HITS());

        private final int code;

        Counter(int code) {
            this.code = code;
        }
    }

    private SoftGpu() {}

    /// @throws IllegalStateException when this process uses NVIDIA's libraries, or none
    public static SoftGpu attach() {
        SoftGpuLibrary.requirePresent(CudaSearch.folders());
        return new SoftGpu();
    }

    /// Ends everything: memory, streams, pending work, a lost device, faults, counters and settings.
    public void reset() {
        Softgpu.softgpu_reset();
    }

    /// Device memory; 8 GiB at first.
    public void setCapacity(long bytes) {
        Softgpu.softgpu_set_capacity(bytes);
    }

    /// Devices; 1 at first, 0 makes every call answer that there is none.
    public void setDeviceCount(int count) {
        Softgpu.softgpu_set_device_count(count);
    }

    /// 9.0 at first.
    public void setComputeCapability(int major, int minor) {
        Softgpu.softgpu_set_compute_capability(major, minor);
    }

    /// As cudaDriverGetVersion gives it: 13000 at first.
    public void setDriverVersion(int version) {
        Softgpu.softgpu_set_driver_version(version);
    }

    /// In which order streams run that no event orders: 0 lazily, 1 the last first, 2 and up random by seed.
    public void setStreamOrder(long seed) {
        Softgpu.softgpu_set_stream_order(seed);
    }

    /// Whether kernels, products and copies do nothing, so that what remains is the cost on the host.
    public void setKernelsEmpty(boolean empty) {
        Softgpu.softgpu_set_kernels_empty(empty ? 1 : 0);
    }

    /// Makes the nth use of a CUDA function from now (1: the next) return a code and do nothing.
    ///
    /// @param symbol such as `cudaMalloc`
    /// @param code   a cudaError_t, cublasStatus_t or cudnnStatus_t; one that ends a context loses the device
    public void fail(String symbol, long nthUse, int code) {
        try (Arena arena = Arena.ofConfined()) {
            int refused = Softgpu.softgpu_fail(arena.allocateFrom(symbol), nthUse, code);
            if (refused != 0) {
                throw new IllegalArgumentException(refused == 1 ? "no symbol " + symbol + ", expected one of "
                        + calls().keySet() : "use " + nthUse + ", expected 1 or more");
            }
        }
    }

    /// Makes the nth piece of work given to a stream from now lose the device with this cudaError_t when it runs.
    public void failWork(long nth, int code) {
        if (Softgpu.softgpu_fail_work(nth, code) != 0) {
            throw new IllegalArgumentException("work " + nth + ", expected 1 or more");
        }
    }

    /// Forgets faults that have not happened.
    public void clearFaults() {
        Softgpu.softgpu_clear_faults();
    }

    /// What the last fault was: block, thread, file and line of a kernel, or what a bad pointer points at.
    public String lastFault() {
        return string(Softgpu.softgpu_last_fault());
    }

    /// Looks for writes outside of allocations and to freed memory; returns how many blocks were damaged.
    public int check() {
        return Softgpu.softgpu_check();
    }

    public long counter(Counter counter) {
        return Softgpu.softgpu_counter(counter.code);
    }

    public void clearCounters() {
        Softgpu.softgpu_clear_counters();
    }

    /// How often each function was called since [#clearCounters].
    public Map<String, Long> calls() {
        Map<String, Long> calls = new TreeMap<>();
        for (int i = 0; i < Softgpu.softgpu_num_symbols(); i++) {
            calls.put(string(Softgpu.softgpu_symbol_name(i)), Softgpu.softgpu_symbol_calls(i));
        }
        return calls;
    }

    private static String string(MemorySegment pointer) {
        return pointer.reinterpret(Long.MAX_VALUE).getString(0);
    }
}
