package io.gatun.runtime;

import io.gatun.bindings.HostMemory;
import io.gatun.bindings.Libraries;
import io.gatun.bindings.LibraryException;
import io.gatun.bindings.onednn.OneDnn;
import io.gatun.bindings.onednn.dnnl_exec_arg_t;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import org.jspecify.annotations.Nullable;

/// oneDNN for one stream: engine, scratchpad, and the calls that products and convolutions share.
final class OneDnnEngine implements AutoCloseable {
    private final Arena arena = Arena.ofShared();
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
        MemorySegment out = arena.allocate(ValueLayout.ADDRESS);
        check("engine", OneDnn.dnnl_engine_create(out, OneDnn.dnnl_cpu(), 0));
        engine = out.get(ValueLayout.ADDRESS, 0);
        check("stream", OneDnn.dnnl_stream_create(out, engine, OneDnn.dnnl_stream_in_order()));
        stream = out.get(ValueLayout.ADDRESS, 0);
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

    /// Runs a primitive on operands at these addresses.
    ///
    /// @param bias 0 where the primitive has none
    void execute(String what, OneDnnPrimitive primitive, long x, long weights, long y, long bias) {
        reserveScratchpad(primitive.scratchpadBytes());
        primitive.pointAt(x, weights, y, scratchpad, bias);
        check(what, OneDnn.dnnl_primitive_execute(primitive.handle(), stream, primitive.numArgs(), primitive.args()));
    }

    /// Copies between two layouts.
    void reorder(MemorySegment fromLayout, long from, MemorySegment toLayout, long to) {
        try (Arena scratch = Arena.ofConfined()) {
            MemorySegment out = scratch.allocate(ValueLayout.ADDRESS);
            check("reorder", OneDnn.dnnl_reorder_primitive_desc_create(out, fromLayout, engine, toLayout, engine,
                    MemorySegment.NULL));
            MemorySegment descriptor = out.get(ValueLayout.ADDRESS, 0);
            check("reorder", OneDnn.dnnl_primitive_create(out, descriptor));
            MemorySegment reorder = out.get(ValueLayout.ADDRESS, 0);
            MemorySegment source = newMemory(out, fromLayout, from);
            MemorySegment target = newMemory(out, toLayout, to);
            MemorySegment args = dnnl_exec_arg_t.allocateArray(2, scratch);
            OneDnnPrimitive.setArg(args, 0, OneDnn.DNNL_ARG_FROM(), source);
            OneDnnPrimitive.setArg(args, 1, OneDnn.DNNL_ARG_TO(), target);
            check("reorder", OneDnn.dnnl_primitive_execute(reorder, stream, 2, args));
            OneDnn.dnnl_memory_destroy(source);
            OneDnn.dnnl_memory_destroy(target);
            OneDnn.dnnl_primitive_destroy(reorder);
            OneDnn.dnnl_primitive_desc_destroy(descriptor);
        }
    }

    MemorySegment newMemory(MemorySegment out, MemorySegment layout, long address) {
        check("operand", OneDnn.dnnl_memory_create(out, layout, engine, MemorySegment.ofAddress(address)));
        return out.get(ValueLayout.ADDRESS, 0);
    }

    /// A layout with these strides; whoever asks destroys it.
    static MemorySegment describe(Arena scratch, int type, long[] dims, long[] strides) {
        MemorySegment out = scratch.allocate(ValueLayout.ADDRESS);
        check("descriptor", OneDnn.dnnl_memory_desc_create_with_strides(out, dims.length,
                scratch.allocateFrom(ValueLayout.JAVA_LONG, dims), type,
                scratch.allocateFrom(ValueLayout.JAVA_LONG, strides)));
        return out.get(ValueLayout.ADDRESS, 0);
    }

    /// A layout that the library shall choose.
    static MemorySegment describeAny(Arena scratch, int type, long... dims) {
        MemorySegment out = scratch.allocate(ValueLayout.ADDRESS);
        check("descriptor", OneDnn.dnnl_memory_desc_create_with_tag(out, dims.length,
                scratch.allocateFrom(ValueLayout.JAVA_LONG, dims), type, OneDnn.dnnl_format_tag_any()));
        return out.get(ValueLayout.ADDRESS, 0);
    }

    static MemorySegment copyOf(Arena scratch, MemorySegment layout) {
        MemorySegment out = scratch.allocate(ValueLayout.ADDRESS);
        check("descriptor", OneDnn.dnnl_memory_desc_clone(out, layout));
        return out.get(ValueLayout.ADDRESS, 0);
    }

    static void destroyLayouts(MemorySegment... layouts) {
        for (MemorySegment layout : layouts) {
            if (layout.address() != 0) {
                OneDnn.dnnl_memory_desc_destroy(layout);
            }
        }
    }

    /// Attributes of a primitive whose scratchpad comes with each call.
    static MemorySegment newAttributes(Arena scratch) {
        MemorySegment out = scratch.allocate(ValueLayout.ADDRESS);
        check("attributes", OneDnn.dnnl_primitive_attr_create(out));
        MemorySegment attributes = out.get(ValueLayout.ADDRESS, 0);
        check("attributes", OneDnn.dnnl_primitive_attr_set_scratchpad_mode(attributes,
                OneDnn.dnnl_scratchpad_mode_user()));
        return attributes;
    }

    private void reserveScratchpad(long bytes) {
        if (bytes > scratchpadBytes) {
            HostMemory.free(scratchpad);
            scratchpad = HostMemory.allocate(bytes);
            scratchpadBytes = scratchpad == 0 ? 0 : bytes;
            if (scratchpad == 0) {
                throw new OutOfDeviceMemoryException(("no memory for %,d bytes of oneDNN"
                        + " scratch").formatted(bytes), bytes);
            }
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
            HostMemory.free(scratchpad);
            OneDnn.dnnl_stream_destroy(stream);
            OneDnn.dnnl_engine_destroy(engine);
            arena.close();
        }
    }
}
