package io.gatun.runtime;

import io.gatun.bindings.HostMemory;
import io.gatun.bindings.cudart.Cudart;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.Set;
import org.jspecify.annotations.Nullable;

/// The CUDA runtime for one device: calls of cudart whose failures are exceptions that name the call and its code.
///
/// After an error that ends the context (CUDA calls it sticky) the device is lost: every later call throws the same
/// [DeviceLostException] without asking CUDA again. Freeing goes on quietly then, so that closing works.
final class CudaRuntime {
    /// cudaError_t's after which the context does not work any more ("This leaves the process in an inconsistent
    /// state", CUDA Runtime API, "Data types used by CUDA Runtime"), uncorrectable errors of memory (214) and NVLink
    /// (220), and the one that is unknown.
    private static final Set<Integer> STICKY = Set.of(700, 702, 710, 714, 715, 716, 717, 718, 719, 721, 214, 220, 226,
            911, 999);

    private final int ordinal;
    private volatile @Nullable String lost;

    CudaRuntime(int ordinal) {
        this.ordinal = ordinal;
    }

    /// What a cudaError_t is called, and what it means.
    static String describe(int code) {
        return "%s (%d): %s".formatted(HostMemory.string(Cudart.cudaGetErrorName(code)), code,
                HostMemory.string(Cudart.cudaGetErrorString(code)));
    }

    boolean isLost() {
        return lost != null;
    }

    /// Throws if the device has been lost.
    void requireAlive() {
        String reason = lost;
        if (reason != null) {
            throw new DeviceLostException(reason);
        }
    }

    /// Makes this device the calling thread's current one; its context is created by the first call.
    void makeCurrent() {
        requireAlive();
        check("cudaSetDevice", Cudart.cudaSetDevice(ordinal));
    }

    /// Turns a failure of a call into an exception.
    void check(String call, int code) {
        if (code != Cudart.cudaSuccess()) {
            throw failure(call, code);
        }
    }

    GatunException failure(String call, int code) {
        int ignored = Cudart.cudaGetLastError(); // we report it; the next call must not
        String text = "cuda:%d: %s failed: %s".formatted(ordinal, call, describe(code));
        if (STICKY.contains(code)) {
            return lose(text);
        }
        if (code == Cudart.cudaErrorMemoryAllocation()) {
            return new OutOfDeviceMemoryException(text, 0);
        }
        return new GatunException(GatunException.Status.DEVICE_ERROR, text);
    }

    /// The device is lost for a reason that another library has reported.
    private DeviceLostException lose(String reason) {
        String message = reason + ". The device is lost for this process: close the models on it and start a new"
                + " process; -Dgatun.sync=true names the op";
        if (lost == null) {
            lost = message;
        }
        return new DeviceLostException(String.valueOf(lost));
    }

    /// The address of new device memory, or 0 when there is none.
    long malloc(long bytes) {
        try (Arena arena = Arena.ofConfined()) {
            MemorySegment out = arena.allocate(ValueLayout.ADDRESS);
            int code = Cudart.cudaMalloc(out, bytes);
            if (code == Cudart.cudaErrorMemoryAllocation()) {
                int ignored = Cudart.cudaGetLastError();
                return 0;
            }
            check("cudaMalloc", code);
            return out.get(ValueLayout.ADDRESS, 0).address();
        }
    }

    void free(long address) {
        release("cudaFree", lost != null ? 0 : Cudart.cudaFree(MemorySegment.ofAddress(address)));
    }

    /// Pinned host memory that the device can address.
    MemorySegment hostAlloc(long bytes) {
        try (Arena arena = Arena.ofConfined()) {
            MemorySegment out = arena.allocate(ValueLayout.ADDRESS);
            check("cudaHostAlloc", Cudart.cudaHostAlloc(out, bytes,
                    Cudart.cudaHostAllocMapped() | Cudart.cudaHostAllocPortable()));
            return HostMemory.view(out.get(ValueLayout.ADDRESS, 0).address(), bytes);
        }
    }

    /// Where the device sees pinned host memory.
    long devicePointer(MemorySegment pinned) {
        try (Arena arena = Arena.ofConfined()) {
            MemorySegment out = arena.allocate(ValueLayout.ADDRESS);
            check("cudaHostGetDevicePointer", Cudart.cudaHostGetDevicePointer(out, pinned, 0));
            return out.get(ValueLayout.ADDRESS, 0).address();
        }
    }

    void freeHost(MemorySegment pinned) {
        release("cudaFreeHost", lost != null ? 0 : Cudart.cudaFreeHost(pinned));
    }

    MemorySegment newStream() {
        try (Arena arena = Arena.ofConfined()) {
            MemorySegment out = arena.allocate(ValueLayout.ADDRESS);
            check("cudaStreamCreateWithFlags", Cudart.cudaStreamCreateWithFlags(out, Cudart.cudaStreamNonBlocking()));
            return out.get(ValueLayout.ADDRESS, 0);
        }
    }

    void destroyStream(MemorySegment stream) {
        release("cudaStreamDestroy", lost != null ? 0 : Cudart.cudaStreamDestroy(stream));
    }

    void synchronize(MemorySegment stream) {
        requireAlive();
        check("cudaStreamSynchronize", Cudart.cudaStreamSynchronize(stream));
    }

    void waitFor(MemorySegment stream, MemorySegment event) {
        check("cudaStreamWaitEvent", Cudart.cudaStreamWaitEvent(stream, event, 0));
    }

    void copyToDevice(long to, MemorySegment pinned, MemorySegment stream) {
        check("cudaMemcpyAsync", Cudart.cudaMemcpyAsync(MemorySegment.ofAddress(to), pinned, pinned.byteSize(),
                Cudart.cudaMemcpyHostToDevice(), stream));
    }

    void copyToHost(MemorySegment pinned, long from, MemorySegment stream) {
        check("cudaMemcpyAsync", Cudart.cudaMemcpyAsync(pinned, MemorySegment.ofAddress(from), pinned.byteSize(),
                Cudart.cudaMemcpyDeviceToHost(), stream));
    }

    MemorySegment newEvent(boolean timed) {
        try (Arena arena = Arena.ofConfined()) {
            MemorySegment out = arena.allocate(ValueLayout.ADDRESS);
            check("cudaEventCreateWithFlags", Cudart.cudaEventCreateWithFlags(out,
                    timed ? Cudart.cudaEventDefault() : Cudart.cudaEventDisableTiming()));
            return out.get(ValueLayout.ADDRESS, 0);
        }
    }

    void record(MemorySegment event, MemorySegment stream) {
        check("cudaEventRecord", Cudart.cudaEventRecord(event, stream));
    }

    void awaitEvent(MemorySegment event) {
        requireAlive();
        check("cudaEventSynchronize", Cudart.cudaEventSynchronize(event));
    }

    double millisBetween(MemorySegment start, MemorySegment end) {
        try (Arena arena = Arena.ofConfined()) {
            MemorySegment out = arena.allocate(ValueLayout.JAVA_FLOAT);
            check("cudaEventElapsedTime", Cudart.cudaEventElapsedTime(out, start, end));
            return out.get(ValueLayout.JAVA_FLOAT, 0);
        }
    }

    void destroyEvent(MemorySegment event) {
        release("cudaEventDestroy", lost != null ? 0 : Cudart.cudaEventDestroy(event));
    }

    /// Captures what `work` gives to the stream as an executable graph. Whatever `work` throws ends the capture.
    MemorySegment capture(MemorySegment stream, Runnable work) {
        check("cudaStreamBeginCapture", Cudart.cudaStreamBeginCapture(stream,
                Cudart.cudaStreamCaptureModeThreadLocal()));
        boolean isWhole = false;
        MemorySegment graph = MemorySegment.NULL;
        try (Arena arena = Arena.ofConfined()) {
            MemorySegment out = arena.allocate(ValueLayout.ADDRESS);
            int code;
            try {
                work.run();
                isWhole = true;
            } finally {
                code = Cudart.cudaStreamEndCapture(stream, out);
                graph = out.get(ValueLayout.ADDRESS, 0);
                if (code != Cudart.cudaSuccess()) {
                    int ignored = Cudart.cudaStreamEndCapture(stream, out); // the stream must not go on capturing
                    graph = out.get(ValueLayout.ADDRESS, 0);
                }
                if (!isWhole) {
                    int ignored = Cudart.cudaGetLastError(); // that the capture was broken off is no news
                }
            }
            check("cudaStreamEndCapture", code);
            check("cudaGraphInstantiate", Cudart.cudaGraphInstantiate(out, graph, 0));
            MemorySegment executable = out.get(ValueLayout.ADDRESS, 0);
            try {
                check("cudaGraphUpload", Cudart.cudaGraphUpload(executable, stream));
            } catch (RuntimeException e) {
                destroyGraph(executable);
                throw e;
            }
            return executable;
        } finally {
            if (graph.address() != 0) {
                release("cudaGraphDestroy", lost != null ? 0 : Cudart.cudaGraphDestroy(graph));
            }
        }
    }

    void launchGraph(MemorySegment executable, MemorySegment stream) {
        check("cudaGraphLaunch", Cudart.cudaGraphLaunch(executable, stream));
    }

    void destroyGraph(MemorySegment executable) {
        release("cudaGraphExecDestroy", lost != null ? 0 : Cudart.cudaGraphExecDestroy(executable));
    }

    /// Bytes that are free on the device, and all it has.
    long[] memory() {
        makeCurrent();
        try (Arena arena = Arena.ofConfined()) {
            MemorySegment out = arena.allocate(ValueLayout.JAVA_LONG, 2);
            check("cudaMemGetInfo", Cudart.cudaMemGetInfo(out, out.asSlice(Long.BYTES)));
            return out.toArray(ValueLayout.JAVA_LONG);
        }
    }

    int attribute(int attribute) {
        try (Arena arena = Arena.ofConfined()) {
            MemorySegment out = arena.allocate(ValueLayout.JAVA_INT);
            check("cudaDeviceGetAttribute", Cudart.cudaDeviceGetAttribute(out, attribute, ordinal));
            return out.get(ValueLayout.JAVA_INT, 0);
        }
    }

    /// Such as `0000:01:00.0`.
    String busId() {
        final int length = 32;
        try (Arena arena = Arena.ofConfined()) {
            MemorySegment out = arena.allocate(length);
            check("cudaDeviceGetPCIBusId", Cudart.cudaDeviceGetPCIBusId(out, length, ordinal));
            return out.getString(0);
        }
    }

    /// A failure to free something ends neither the closing nor the device.
    private void release(String call, int code) {
        if (code != Cudart.cudaSuccess()) {
            GatunException failure = failure(call, code);
            System.getLogger("io.gatun.runtime").log(System.Logger.Level.WARNING, failure.getMessage());
        }
    }
}
