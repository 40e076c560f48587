package io.gatun.runtime;

import io.gatun.bindings.HostMemory;
import io.gatun.bindings.Libraries;
import io.gatun.bindings.LibraryException;
import io.gatun.bindings.onednn.OneDnn;
import io.gatun.bindings.onednn.dnnl_exec_arg_t;
import io.gatun.ops.Linear.WeightLayout;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/// Matrix products with many rows, by oneDNN, for one stream. A primitive is made once per shape and kept; its memory
/// objects are pointed at the operands of each call.
///
/// Weights are read where and how they lie, except where a packed copy wins: f32 [C, F] whose rows are a multiple of a
/// page apart (GPT-2's c_fc), which oneDNN reads at half speed (121 against 237 GFLOP/s at 512 rows of 768x3072,
/// 2 cores with AVX-512). Such a weight is packed at its first use with many rows, if it is frozen, and counted as a
/// conversion.
final class OneDnnMatmul implements AutoCloseable {
    /// Primitives kept per stream; a prompt length of its own makes one per weight shape.
    private static final int MAX_PRIMITIVES = 128;
    private static final int ARGS = 5;
    private static final long PAGE_BYTES = 4096;
    private static final int MIN_ROWS_TO_PACK = 64;
    private static final int PACKED_FOR_ROWS = 512;

    private final Arena arena = Arena.ofShared();
    private final MemorySegment engine;
    private final MemorySegment stream;
    private final int threads;
    private final HostMemory.OpenMp openMp;
    private final TransferCounters counters;
    private final Map<Shape, Primitive> primitives = new LinkedHashMap<>(16, 0.75f, true);
    private final Map<PackedKey, Packed> packed = new HashMap<>();
    private final Map<Size, MemorySegment> packedLayouts = new HashMap<>();
    private long scratchpad;
    private long scratchpadBytes;
    private boolean closed;

    /// What a primitive is made for; dtypes as oneDNN codes, biasType 0 for none.
    private record Shape(long n, long c, long f, long strideX, long strideY, long strideW, WeightLayout layout,
            int type, int yType, int biasType, boolean packed) {}

    /// A weight: its address means something only while its memory lives, and views of several sizes may begin there.
    private record PackedKey(Lifetime lifetime, long address, long c, long f, long strideW) {}

    private record Packed(long address, long bytes) {}

    private record Size(long c, long f, int type) {}

    /// A primitive with its memory objects, or the knowledge that oneDNN has none for the shape.
    private record Primitive(MemorySegment handle, MemorySegment[] memories, MemorySegment args, int numArgs,
            long scratchpadBytes) {}

    private static final Primitive UNIMPLEMENTED =
            new Primitive(MemorySegment.NULL, new MemorySegment[0], MemorySegment.NULL, 0, 0);

    private OneDnnMatmul(int threads, TransferCounters counters) {
        this.threads = threads;
        this.counters = counters;
        this.openMp = new HostMemory.OpenMp(Libraries.oneDnn());
        MemorySegment out = arena.allocate(ValueLayout.ADDRESS);
        check("engine", OneDnn.dnnl_engine_create(out, OneDnn.dnnl_cpu(), 0));
        engine = out.get(ValueLayout.ADDRESS, 0);
        check("stream", OneDnn.dnnl_stream_create(out, engine, OneDnn.dnnl_stream_in_order()));
        stream = out.get(ValueLayout.ADDRESS, 0);
    }

    static OneDnnMatmul open(int threads, TransferCounters counters) {
        try {
            return new OneDnnMatmul(threads, counters);
        } catch (LibraryException e) {
            throw new GatunException(GatunException.Status.UNSUPPORTED, e.getMessage(), e);
        }
    }

    /// Does the product inside an op of the stream; false when oneDNN has no kernel for these dtypes on this CPU.
    boolean run(Tensor y, Tensor x, Tensor weight, @Nullable Tensor bias, WeightLayout layout) {
        Shape shape = new Shape(x.size(0), x.size(1), y.size(1), x.stride(0), y.stride(0), weight.stride(0), layout,
                typeOf(x.dtype()), typeOf(y.dtype()), bias == null ? 0 : typeOf(bias.dtype()), packs(x, weight,
                        layout));
        openMp.setThreads(threads); // primitives are planned for, and run on, the calling thread's team
        Primitive primitive = primitives.get(shape);
        if (primitive == null) {
            primitive = create(shape);
            primitives.put(shape, primitive);
            evictOldest();
        }
        if (primitive == UNIMPLEMENTED) {
            return false;
        }
        reserveScratchpad(primitive.scratchpadBytes);
        long weights = shape.packed ? packed(weight, packedLayout(shape)) : weight.address();
        long[] addresses = {x.address(), weights, y.address(), scratchpad, bias == null ? 0 : bias.address()};
        for (int i = 0; i < primitive.numArgs; i++) {
            check("operand", OneDnn.dnnl_memory_set_data_handle(primitive.memories[i],
                    MemorySegment.ofAddress(addresses[i])));
        }
        check("matmul", OneDnn.dnnl_primitive_execute(primitive.handle, stream, primitive.numArgs, primitive.args));
        return true;
    }

    private static boolean packs(Tensor x, Tensor weight, WeightLayout layout) {
        return weight.isFrozen() && layout == WeightLayout.IN_OUT && weight.dtype() == DType.F32
                && weight.stride(0) * weight.dtype().bytes() % PAGE_BYTES == 0 && x.size(0) >= MIN_ROWS_TO_PACK;
    }

    /// The address of the packed copy of a weight, made at the first call.
    private long packed(Tensor weight, MemorySegment layout) {
        PackedKey key = new PackedKey(weight.lifetime(), weight.address(), weight.size(0), weight.size(1),
                weight.stride(0));
        Packed copy = packed.get(key);
        if (copy == null) {
            packed.entrySet().removeIf(entry -> !entry.getKey().lifetime.isOpen() && free(entry.getValue()));
            copy = pack(weight, layout);
            packed.put(key, copy);
        }
        return copy.address;
    }

    private Packed pack(Tensor weight, MemorySegment layout) {
        long bytes = OneDnn.dnnl_memory_desc_get_size(layout);
        long address = HostMemory.allocate(bytes);
        if (address == 0) {
            throw new OutOfDeviceMemoryException("no memory for %,d bytes of packed weights".formatted(bytes), bytes);
        }
        try (Arena scratch = Arena.ofConfined()) {
            MemorySegment out = scratch.allocate(ValueLayout.ADDRESS);
            MemorySegment plain = describe(scratch, out, typeOf(weight.dtype()), weight.size(0), weight.size(1),
                    weight.stride(0), 1);
            check("reorder", OneDnn.dnnl_reorder_primitive_desc_create(out, plain, engine, layout, engine,
                    MemorySegment.NULL));
            MemorySegment descriptor = out.get(ValueLayout.ADDRESS, 0);
            check("reorder", OneDnn.dnnl_primitive_create(out, descriptor));
            MemorySegment reorder = out.get(ValueLayout.ADDRESS, 0);
            MemorySegment from = memory(out, plain, weight.address());
            MemorySegment to = memory(out, layout, address);
            MemorySegment args = dnnl_exec_arg_t.allocateArray(2, scratch);
            setArg(args, 0, OneDnn.DNNL_ARG_FROM(), from);
            setArg(args, 1, OneDnn.DNNL_ARG_TO(), to);
            check("reorder", OneDnn.dnnl_primitive_execute(reorder, stream, 2, args));
            OneDnn.dnnl_memory_destroy(from);
            OneDnn.dnnl_memory_destroy(to);
            OneDnn.dnnl_primitive_destroy(reorder);
            OneDnn.dnnl_primitive_desc_destroy(descriptor);
            OneDnn.dnnl_memory_desc_destroy(plain);
        }
        counters.countConversion(bytes);
        counters.countAllocation(bytes);
        return new Packed(address, bytes);
    }

    private boolean free(Packed copy) {
        HostMemory.free(copy.address);
        counters.countFree(copy.bytes);
        return true;
    }

    private MemorySegment memory(MemorySegment out, MemorySegment layout, long address) {
        check("operand", OneDnn.dnnl_memory_create(out, layout, engine, MemorySegment.ofAddress(address)));
        return out.get(ValueLayout.ADDRESS, 0);
    }

    private static void setArg(MemorySegment args, int index, int kind, MemorySegment memory) {
        MemorySegment arg = dnnl_exec_arg_t.asSlice(args, index);
        dnnl_exec_arg_t.arg(arg, kind);
        dnnl_exec_arg_t.memory(arg, memory);
    }

    private Primitive create(Shape s) {
        try (Arena scratch = Arena.ofConfined()) {
            MemorySegment out = scratch.allocate(ValueLayout.ADDRESS);
            MemorySegment x = describe(scratch, out, s.type, s.n, s.c, s.strideX, 1);
            MemorySegment w = s.packed ? copyOf(out, packedLayout(s))
                    : s.layout == WeightLayout.IN_OUT ? describe(scratch, out, s.type, s.c, s.f, s.strideW, 1)
                    : describe(scratch, out, s.type, s.c, s.f, 1, s.strideW);
            MemorySegment y = describe(scratch, out, s.yType, s.n, s.f, s.strideY, 1);
            MemorySegment b = s.biasType == 0 ? MemorySegment.NULL : describe(scratch, out, s.biasType, 1, s.f, s.f, 1);
            check("attributes", OneDnn.dnnl_primitive_attr_create(out));
            MemorySegment attributes = out.get(ValueLayout.ADDRESS, 0);
            check("attributes", OneDnn.dnnl_primitive_attr_set_scratchpad_mode(attributes,
                    OneDnn.dnnl_scratchpad_mode_user()));
            int status = OneDnn.dnnl_matmul_primitive_desc_create(out, engine, x, w, b, y, attributes);
            OneDnn.dnnl_primitive_attr_destroy(attributes);
            Primitive primitive = UNIMPLEMENTED;
            if (status != OneDnn.dnnl_unimplemented()) {
                check("matmul " + s, status);
                MemorySegment descriptor = out.get(ValueLayout.ADDRESS, 0);
                MemorySegment pad = OneDnn.dnnl_primitive_desc_query_md(descriptor, OneDnn.dnnl_query_scratchpad_md(),
                        0);
                check("matmul " + s, OneDnn.dnnl_primitive_create(out, descriptor));
                MemorySegment handle = out.get(ValueLayout.ADDRESS, 0);
                primitive = bind(handle, out, x, w, y, pad, b);
                OneDnn.dnnl_primitive_desc_destroy(descriptor);
            }
            for (MemorySegment md : new MemorySegment[] {x, w, y, b}) {
                if (md.address() != 0) {
                    OneDnn.dnnl_memory_desc_destroy(md);
                }
            }
            return primitive;
        }
    }

    private Primitive bind(MemorySegment handle, MemorySegment out, MemorySegment x, MemorySegment w, MemorySegment y,
            MemorySegment pad, MemorySegment b) {
        MemorySegment[] descriptors = {x, w, y, pad, b};
        int[] kinds = {OneDnn.DNNL_ARG_SRC(), OneDnn.DNNL_ARG_WEIGHTS(), OneDnn.DNNL_ARG_DST(),
            OneDnn.DNNL_ARG_SCRATCHPAD(), OneDnn.DNNL_ARG_BIAS()};
        int numArgs = b.address() == 0 ? ARGS - 1 : ARGS;
        long bytes = dnnl_exec_arg_t.sizeof() * ARGS;
        MemorySegment args = HostMemory.view(HostMemory.allocate(bytes), bytes);
        MemorySegment[] memories = new MemorySegment[numArgs];
        for (int i = 0; i < numArgs; i++) {
            memories[i] = memory(out, descriptors[i], 0);
            setArg(args, i, kinds[i], memories[i]);
        }
        return new Primitive(handle, memories, args, numArgs, OneDnn.dnnl_memory_desc_get_size(pad));
    }

    private static MemorySegment describe(Arena scratch, MemorySegment out, int type, long rows, long columns,
            long rowStride, long columnStride) {
        MemorySegment dims = scratch.allocateFrom(ValueLayout.JAVA_LONG, rows, columns);
        MemorySegment strides = scratch.allocateFrom(ValueLayout.JAVA_LONG, rowStride, columnStride);
        check("descriptor", OneDnn.dnnl_memory_desc_create_with_strides(out, 2, dims, type, strides));
        return out.get(ValueLayout.ADDRESS, 0);
    }

    /// The layout of packed weights: what the library chooses for [#PACKED_FOR_ROWS] rows, used for any number of them.
    private MemorySegment packedLayout(Shape s) {
        return packedLayouts.computeIfAbsent(new Size(s.c, s.f, s.type), size -> {
            try (Arena scratch = Arena.ofConfined()) {
                MemorySegment out = scratch.allocate(ValueLayout.ADDRESS);
                MemorySegment x = describe(scratch, out, s.type, PACKED_FOR_ROWS, s.c, s.c, 1);
                MemorySegment y = describe(scratch, out, s.type, PACKED_FOR_ROWS, s.f, s.f, 1);
                check("descriptor", OneDnn.dnnl_memory_desc_create_with_tag(out, 2,
                        scratch.allocateFrom(ValueLayout.JAVA_LONG, s.c, s.f), s.type, OneDnn.dnnl_format_tag_any()));
                MemorySegment any = out.get(ValueLayout.ADDRESS, 0);
                check("matmul", OneDnn.dnnl_matmul_primitive_desc_create(out, engine, x, any, MemorySegment.NULL, y,
                        MemorySegment.NULL));
                MemorySegment descriptor = out.get(ValueLayout.ADDRESS, 0);
                MemorySegment layout = copyOf(out, OneDnn.dnnl_primitive_desc_query_md(descriptor,
                        OneDnn.dnnl_query_weights_md(), 0));
                OneDnn.dnnl_primitive_desc_destroy(descriptor);
                for (MemorySegment md : new MemorySegment[] {x, y, any}) {
                    OneDnn.dnnl_memory_desc_destroy(md);
                }
                return layout;
            }
        });
    }

    private static MemorySegment copyOf(MemorySegment out, MemorySegment descriptor) {
        check("descriptor", OneDnn.dnnl_memory_desc_clone(out, descriptor));
        return out.get(ValueLayout.ADDRESS, 0);
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

    private void evictOldest() {
        if (primitives.size() > MAX_PRIMITIVES) {
            var oldest = primitives.entrySet().iterator();
            destroy(oldest.next().getValue());
            oldest.remove();
        }
    }

    private static void destroy(Primitive primitive) {
        if (primitive != UNIMPLEMENTED) {
            OneDnn.dnnl_primitive_destroy(primitive.handle);
            for (MemorySegment memory : primitive.memories) {
                OneDnn.dnnl_memory_destroy(memory);
            }
            HostMemory.free(primitive.args.address());
        }
    }

    @Override
    public void close() {
        if (!closed) {
            closed = true;
            primitives.values().forEach(OneDnnMatmul::destroy);
            primitives.clear();
            packed.values().forEach(this::free);
            packed.clear();
            packedLayouts.values().forEach(OneDnn::dnnl_memory_desc_destroy);
            HostMemory.free(scratchpad);
            OneDnn.dnnl_stream_destroy(stream);
            OneDnn.dnnl_engine_destroy(engine);
            arena.close();
        }
    }

    private static int typeOf(DType dtype) {
        return switch (dtype) {
            case F32 -> OneDnn.dnnl_f32();
            case BF16 -> OneDnn.dnnl_bf16();
            case F16 -> OneDnn.dnnl_f16();
            default -> throw GatunException.invalid("matmul of %s, expected f32, bf16 or f16", dtype);
        };
    }

    private static void check(String what, int status) {
        if (status == OneDnn.dnnl_out_of_memory()) {
            throw new OutOfDeviceMemoryException("oneDNN has no memory for its " + what, 0);
        }
        if (status != OneDnn.dnnl_success()) {
            throw new GatunException(GatunException.Status.INTERNAL,
                    "oneDNN refused its " + what + " with status " + status);
        }
    }
}
