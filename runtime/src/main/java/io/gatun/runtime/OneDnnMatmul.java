package io.gatun.runtime;

import io.gatun.bindings.onednn.OneDnn;
import io.gatun.ops.Linear.WeightLayout;
import java.lang.foreign.MemorySegment;
import org.jspecify.annotations.Nullable;

/// Matrix products with many rows, by oneDNN, for one stream. A primitive is made once per shape and kept.
///
/// Weights are read where and how they lie, except where a packed copy wins: f32 [C, F] whose rows are a multiple of a
/// page apart (GPT-2's c_fc), which oneDNN reads at half speed (121 against 237 GFLOP/s at 512 rows of 768x3072,
/// 2 cores with AVX-512). Such a weight is packed at its first use with many rows, if it is frozen.
final class OneDnnMatmul implements AutoCloseable {
    /// Primitives kept per stream; a prompt length of its own makes one per weight shape.
    private static final int MAX_PRIMITIVES = 128;
    private static final long PAGE_BYTES = 4096;
    private static final int MIN_ROWS_TO_PACK = 64;
    private static final int PACKED_FOR_ROWS = 512;
    /// Results that a thread must have for itself: where there are fewer, oneDNN 3.11 splits long sums over the threads
    /// (from 2048 terms on; measured with 1 to 64 threads), and the bits depend on their number.
    private static final long OUTER_ELEMENTS_PER_THREAD = 128 * 128;

    private final OneDnnEngine engine;
    private final OneDnnPackedWeights packed;
    private final OneDnnPrimitive.Cache<Shape> primitives = new OneDnnPrimitive.Cache<>(MAX_PRIMITIVES);

    /// What a primitive is made for; dtypes as oneDNN codes, biasType 0 for none, `columns` where x lies [C, N].
    private record Shape(boolean columns, long n, long c, long f, long strideX, long strideY, long strideW,
            WeightLayout layout, int type, int yType, int biasType, boolean packed) {}

    OneDnnMatmul(OneDnnEngine engine, OneDnnPackedWeights packed) {
        this.engine = engine;
        this.packed = packed;
    }

    /// Does the product inside an op of the stream; false when oneDNN has no kernel for these dtypes on this CPU.
    boolean run(Tensor y, Tensor x, Tensor weight, @Nullable Tensor bias, WeightLayout layout) {
        Shape shape = new Shape(false, x.size(0), x.size(1), y.size(1), x.stride(0), y.stride(0), weight.stride(0),
                layout, OneDnnEngine.typeOf("matmul", x), OneDnnEngine.typeOf("matmul", y),
                OneDnnEngine.typeOf("matmul", bias), packs(x, weight, layout));
        engine.enterTeam();
        return run(shape, y, x, weight, bias);
    }

    /// Does `y[f,c] = sum_n a[n,f] b[n,c]`, a product of a's columns with the weight b, inside an op of the stream;
    /// false when oneDNN has no kernel for these dtypes on this CPU.
    boolean runOuter(Tensor y, Tensor a, Tensor b) {
        Shape shape = new Shape(true, a.size(1), a.size(0), y.size(1), a.stride(0), y.stride(0), b.stride(0),
                WeightLayout.IN_OUT, OneDnnEngine.typeOf("matmulOuter", a), OneDnnEngine.typeOf("matmulOuter", y), 0,
                false);
        engine.enterTeam(y.elements() / OUTER_ELEMENTS_PER_THREAD);
        return run(shape, y, a, b, null);
    }

    private boolean run(Shape shape, Tensor y, Tensor x, Tensor weight, @Nullable Tensor bias) {
        OneDnnPrimitive primitive = primitives.get(shape, this::create);
        if (primitive == OneDnnPrimitive.UNIMPLEMENTED) {
            return false;
        }
        OneDnnPackedWeights.Form form = primitive.weights();
        long weights = form == null ? weight.address() : packed.addressOf(weight, form);
        engine.execute("matmul", primitive, x.address(), weights, y.address(), bias == null ? 0 : bias.address());
        return true;
    }

    private static boolean packs(Tensor x, Tensor weight, WeightLayout layout) {
        return weight.isFrozen() && layout == WeightLayout.IN_OUT && weight.dtype() == DType.F32
                && weight.stride(0) * weight.dtype().bytes() % PAGE_BYTES == 0 && x.size(0) >= MIN_ROWS_TO_PACK;
    }

    private OneDnnPrimitive create(Shape s) {
        try (OneDnnScratch scratch = new OneDnnScratch()) {
            MemorySegment out = scratch.newHandle();
            MemorySegment x = s.columns ? matrix(scratch, s.type, s.n, s.c, 1, s.strideX)
                    : matrix(scratch, s.type, s.n, s.c, s.strideX, 1);
            MemorySegment w = s.packed ? packedLayout(scratch, s)
                    : s.layout == WeightLayout.IN_OUT ? matrix(scratch, s.type, s.c, s.f, s.strideW, 1)
                    : matrix(scratch, s.type, s.c, s.f, 1, s.strideW);
            MemorySegment y = matrix(scratch, s.yType, s.n, s.f, s.strideY, 1);
            MemorySegment b = s.biasType == 0 ? MemorySegment.NULL : matrix(scratch, s.biasType, 1, s.f, s.f, 1);
            int status = OneDnn.dnnl_matmul_primitive_desc_create(out, engine.handle(), x, w, b, y,
                    scratch.attributes());
            if (status == OneDnn.dnnl_unimplemented()) {
                return OneDnnPrimitive.UNIMPLEMENTED;
            }
            OneDnnEngine.check("matmul " + s, status);
            MemorySegment descriptor = scratch.ownDescriptor(out);
            return OneDnnPrimitive.of(engine, scratch, "matmul " + s, descriptor, x, y, b, s.packed
                    ? packed.hold(new long[] {s.c, s.f}, new long[] {s.strideW, 1}, w) : null);
        }
    }

    private static MemorySegment matrix(OneDnnScratch scratch, int type, long rows, long columns, long rowStride,
            long columnStride) {
        return scratch.layout(type, new long[] {rows, columns}, new long[] {rowStride, columnStride});
    }

    /// The layout of packed weights: what the library chooses for [#PACKED_FOR_ROWS] rows, used for any number of them.
    private MemorySegment packedLayout(OneDnnScratch scratch, Shape s) {
        MemorySegment out = scratch.newHandle();
        MemorySegment x = matrix(scratch, s.type, PACKED_FOR_ROWS, s.c, s.c, 1);
        MemorySegment y = matrix(scratch, s.type, PACKED_FOR_ROWS, s.f, s.f, 1);
        OneDnnEngine.check("matmul", OneDnn.dnnl_matmul_primitive_desc_create(out, engine.handle(), x,
                scratch.anyLayout(s.type, s.c, s.f), MemorySegment.NULL, y, MemorySegment.NULL));
        return OneDnnPrimitive.weightsLayout(scratch.ownDescriptor(out));
    }

    @Override
    public void close() {
        primitives.close();
    }
}
