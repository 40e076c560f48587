package io.gatun.runtime;

import io.gatun.bindings.HostMemory;
import io.gatun.bindings.Libraries;
import io.gatun.bindings.LibraryException;
import io.gatun.bindings.onednn.OneDnn;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import org.jspecify.annotations.Nullable;

/// oneDNN for one stream: engine, scratchpad, and the calls that products and convolutions share.
final class OneDnnEngine implements AutoCloseable {
    private final MemorySegment engine;
    private final MemorySegment stream;
    private final int threads;
    private final HostMemory.OpenMp openMp;
    private final TransferCounters counters;
    private long scratchpad;
    private long scratchpadBytes;
    private boolean closed;

    private OneDnnEngine(int threads, TransferCounters counters) {
        this.threads = threads;
        this.counters = counters;
        this.openMp = new HostMemory.OpenMp(Libraries.oneDnn());
        try (Arena scratch = Arena.ofConfined()) {
            MemorySegment out = scratch.allocate(ValueLayout.ADDRESS);
            check("engine", OneDnn.dnnl_engine_create(out, OneDnn.dnnl_cpu(), 0));
            engine = out.get(ValueLayout.ADDRESS, 0);
            int status = OneDnn.dnnl_stream_create(out, engine, OneDnn.dnnl_stream_in_order());
            if (status != OneDnn.dnnl_success()) {
                OneDnn.dnnl_engine_destroy(engine);
            }
            check("stream", status);
            stream = out.get(ValueLayout.ADDRESS, 0);
        }
    }

    /// Opens oneDNN's library.
    static void requireLibrary() {
        try {
            Libraries.oneDnn();
        } catch (LibraryException e) {
            throw new GatunException(GatunException.Status.UNSUPPORTED, e.getMessage(), e);
        }
    }

    static OneDnnEngine open(int threads, TransferCounters counters) {
        try {
            return new OneDnnEngine(threads, counters);
        } catch (LibraryException e) {
            throw new GatunException(GatunException.Status.UNSUPPORTED, e.getMessage(), e);
        }
    }

    MemorySegment handle() {
        return engine;
    }

    TransferCounters counters() {
        return counters;
    }

    /// Primitives are planned for, and run on, the calling thread's team.
    void enterTeam() {
        openMp.setThreads(threads);
    }

    /// As [#enterTeam()], with at most so many of its threads, and at least one.
    void enterTeam(long most) {
        openMp.setThreads(Math.toIntExact(Math.clamp(most, 1, threads)));
    }

    /// Runs a primitive on operands at these addresses.
    ///
    /// @param bias 0 where the primitive has none
    void execute(String what, OneDnnPrimitive primitive, long x, long weights, long y, long bias) {
        primitive.pointAt(x, weights, y, reserve(primitive.scratchpadBytes()), bias);
        execute(what, primitive.handle(), primitive.numArgs(), primitive.args());
    }

    /// Runs a primitive on arguments that point at their operands.
    void execute(String what, MemorySegment primitive, int numArgs, MemorySegment args) {
        check(what, OneDnn.dnnl_primitive_execute(primitive, stream, numArgs, args));
    }

    /// `dnnl_stream_t`
    MemorySegment stream() {
        return stream;
    }

    static void point(MemorySegment memory, long address) {
        check("operand", OneDnn.dnnl_memory_set_data_handle(memory, MemorySegment.ofAddress(address)));
    }

    MemorySegment newMemory(MemorySegment out, MemorySegment layout, long address) {
        check("operand", OneDnn.dnnl_memory_create(out, layout, engine, MemorySegment.ofAddress(address)));
        return out.get(ValueLayout.ADDRESS, 0);
    }

    /// The address of so many bytes, which hold until the next call.
    long reserve(long bytes) {
        if (bytes > scratchpadBytes) {
            freeScratchpad();
            scratchpad = HostMemory.allocate(bytes);
            if (scratchpad == 0) {
                throw new OutOfDeviceMemoryException(("no memory for %,d bytes of oneDNN"
                        + " scratch").formatted(bytes), bytes);
            }
            scratchpadBytes = bytes;
            counters.countAllocation(bytes);
        }
        return scratchpad;
    }

    private void freeScratchpad() {
        if (scratchpad != 0) {
            HostMemory.free(scratchpad);
            counters.countFree(scratchpadBytes);
            scratchpad = 0;
            scratchpadBytes = 0;
        }
    }

    /// @param op what the exception calls the operation
    static int typeOf(String op, DType dtype) {
        return switch (dtype) {
            case F32 -> OneDnn.dnnl_f32();
            case BF16 -> OneDnn.dnnl_bf16();
            case F16 -> OneDnn.dnnl_f16();
            default -> throw GatunException.invalid("%s of %s, expected f32, bf16 or f16", op, dtype);
        };
    }

    /// 0 for an operand that is left out.
    static int typeOf(String op, @Nullable Tensor tensor) {
        return tensor == null ? 0 : typeOf(op, tensor.dtype());
    }

    static void check(String what, int status) {
        if (status == OneDnn.dnnl_out_of_memory()) {
            throw new OutOfDeviceMemoryException("oneDNN has no memory for its " + what, 0);
        }
        if (status != OneDnn.dnnl_success()) {
            throw new GatunException(GatunException.Status.INTERNAL,
                    "oneDNN refused its " + what + " with status " + status);
        }
    }

    @Override
    public void close() {
        if (!closed) {
            closed = true;
            freeScratchpad();
            OneDnn.dnnl_stream_destroy(stream);
            OneDnn.dnnl_engine_destroy(engine);
        }
    }
}
