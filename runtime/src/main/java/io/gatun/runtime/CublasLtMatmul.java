package io.gatun.runtime;

import io.gatun.bindings.HostMemory;
import io.gatun.bindings.LibraryException;
import io.gatun.bindings.cublaslt.CublasLt;
import io.gatun.bindings.cublaslt.cublasLtMatmulAlgo_t;
import io.gatun.bindings.cublaslt.cublasLtMatmulHeuristicResult_t;
import io.gatun.ops.Linear.WeightLayout;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/// Matrix products by cuBLASLt, for one stream: `y = x w + bias`, optionally followed by tanh-GELU, sums in f32.
///
/// cuBLASLt counts columns first. A row-major [r, c] is its [c, r], so it is asked for `y' = w' x'`: F rows, N columns,
/// C summed. The algorithm is chosen once per [Kind], not per number of rows but for a representative one, without
/// splitting the sum: so a row has the same bits for any number of rows of equal alignment. Where columns are summed,
/// as gradients of weights are, results are small and sums long: the algorithm is the shape's own and may split the
/// sum, with the parts added in their order.
///
/// Of e4m3 operands: `y = xScale weightScale (x w) + bias` with scales that are vectors; the weight is cuBLASLt's
/// transposed A. Fast accumulation is left off: then tensor cores' sums are moved to f32 registers now and then.
final class CublasLtMatmul implements AutoCloseable {
    /// Rows that an algorithm is chosen for: those of decode steps, and of a prompt.
    private static final long FEW_ROWS = 64;
    private static final long MANY_ROWS = 512;
    /// `CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE`: parts go to the workspace in f32 and are added by a second kernel.
    private static final int PARTS_IN_ORDER = 2;
    /// Plans kept; a prompt length of its own makes one per shape of weight.
    private static final int MAX_PLANS = 256;
    /// Bytes; what the kernels with 16-byte accesses ask for.
    private static final int ALIGNMENT = 16;
    /// 12.9: the first with scales of e4m3 operands that are vectors.
    private static final long FIRST_WITH_SCALE_VECTORS = 12_09_00;

    private final CudaRuntime cuda;
    private final LibraryWorkspace workspace;
    private final Arena arena = Arena.ofShared();
    private final MemorySegment handle;
    private final MemorySegment one;
    private final MemorySegment zero;
    private final MemorySegment attribute;
    private final boolean hasScaleVectors = CublasLt.cublasLtGetVersion() >= FIRST_WITH_SCALE_VECTORS;
    private final Map<Kind, Algorithm> algorithms = new HashMap<>();
    private final Map<Shape, Plan> plans = new LinkedHashMap<>(16, 0.75f, true);

    /// What an algorithm is chosen for; `rows` of y, dtypes as CUDA codes, `columns` where x lies [C, N].
    private record Kind(long rows, boolean columns, long c, long f, int type, int yType, WeightLayout layout,
            boolean hasBias, boolean fusesGelu, Aligned aligned) {
        boolean isFp8() {
            return type == CublasLt.CUDA_R_8F_E4M3();
        }
    }

    /// Which operands lie as the fastest kernels want them. What is not aligned costs an operand its wide accesses, so
    /// each is told apart: the logits of an odd vocabulary must not slow down how its weight is read.
    ///
    /// @param y    with its bias
    /// @param bias true where there is none
    private record Aligned(boolean w, boolean x, boolean y, boolean bias) {
        static final Aligned ALL = new Aligned(true, true, true, true);
    }

    private record Shape(Kind kind, long n, long strideX, long strideW, long strideY) {}

    /// @param algo `cublasLtMatmulAlgo_t`; null where cuBLASLt has none
    private record Algorithm(@Nullable MemorySegment algo) {}

    private record Plan(MemorySegment description, MemorySegment w, MemorySegment x, MemorySegment y,
            @Nullable MemorySegment algo) {
        Plan withoutAlgo() {
            return new Plan(description, w, x, y, null);
        }
    }

    CublasLtMatmul(CudaRuntime cuda, LibraryWorkspace workspace) {
        this.cuda = cuda;
        this.workspace = workspace;
        one = arena.allocateFrom(ValueLayout.JAVA_FLOAT, 1);
        zero = arena.allocateFrom(ValueLayout.JAVA_FLOAT, 0);
        attribute = arena.allocate(ValueLayout.JAVA_LONG);
        MemorySegment out = arena.allocate(ValueLayout.ADDRESS);
        try {
            check("cublasLtCreate", CublasLt.cublasLtCreate(out));
        } catch (RuntimeException e) {
            arena.close();
            throw e;
        }
        handle = out.get(ValueLayout.ADDRESS, 0);
    }

    /// Whether cuBLASLt knows such operands: its sums have terms, its rows do not overlap.
    static boolean takes(Tensor x, Tensor weight) {
        return x.size(1) > 0 && hasRowsApart(x) && hasRowsApart(weight);
    }

    /// Whether cuBLASLt may have a product of such e4m3 operands: rows and pointers of whole 16 bytes, no bias but one
    /// of y's dtype (in f32 it has refused that so far). Operands that do not fit together are not taken either.
    static boolean takesFp8(Tensor y, Tensor x, Tensor xScale, Tensor weight, Tensor weightScale,
            @Nullable Tensor bias) {
        return isWhole(x) && isWhole(weight) && isWhole(y) && x.dtype() == DType.F8_E4M3
                && weight.dtype() == DType.F8_E4M3 && y.dtype().isFloat()
                && y.size(0) == x.size(0) && y.size(1) == weight.size(0) && x.size(1) == weight.size(1)
                && isVector(xScale, DType.F32, x.size(0)) && isVector(weightScale, DType.F32, y.size(1))
                && (bias == null || isVector(bias, y.dtype(), y.size(1)));
    }

    private static boolean isWhole(Tensor t) {
        return t.rank() == 2 && t.elements() > 0 && t.stride(1) == 1 && hasRowsApart(t) && isAligned(t)
                && t.size(1) * t.dtype().bytes() % ALIGNMENT == 0;
    }

    private static boolean isVector(Tensor t, DType dtype, long size) {
        return t.rank() == 1 && t.size(0) == size && t.dtype() == dtype && t.isContiguous() && isAligned(t);
    }

    private static boolean hasRowsApart(Tensor t) {
        return t.size(0) <= 1 || t.stride(0) >= t.size(1);
    }

    /// Gives the product to the stream; false when cuBLASLt has no algorithm for the operands. A bias has y's dtype.
    ///
    /// @param fewRows   whether the algorithm is one for decode steps, whatever the number of rows
    /// @param fusesGelu whether GELU is applied to the sum, with or without a bias
    boolean run(MemorySegment stream, Tensor y, Tensor x, Tensor weight, @Nullable Tensor bias, WeightLayout layout,
            boolean fewRows, boolean fusesGelu) {
        boolean hasAlignedBias = bias == null || isAligned(bias);
        Aligned aligned = new Aligned(isAligned(weight), isAligned(x), isAligned(y) && hasAlignedBias, hasAlignedBias);
        Kind kind = new Kind(fewRows ? FEW_ROWS : MANY_ROWS, false, x.size(1), y.size(1), typeOf(x.dtype()),
                typeOf(y.dtype()), layout, bias != null, fusesGelu, aligned);
        return run(stream, shape(kind, y, x, weight), y, x, weight, bias);
    }

    /// Gives `y[f,c] = sum_n a[n,f] b[n,c]` to the stream; false when cuBLASLt has no algorithm for the operands. It is
    /// a product of a's columns with the weight b, whose rows are summed.
    boolean runOuter(MemorySegment stream, Tensor y, Tensor a, Tensor b) {
        Kind kind = new Kind(a.size(1), true, a.size(0), y.size(1), typeOf(a.dtype()), typeOf(y.dtype()),
                WeightLayout.IN_OUT, false, false, new Aligned(isAligned(b), isAligned(a), isAligned(y), true));
        return run(stream, shape(kind, y, a, b), y, a, b, null);
    }

    /// Gives a product of operands that [#takesFp8] to the stream; false when cuBLASLt has no algorithm for them.
    boolean runFp8(MemorySegment stream, Tensor y, Tensor x, Tensor xScale, Tensor weight, Tensor weightScale,
            @Nullable Tensor bias) {
        if (!hasScaleVectors) {
            return false;
        }
        Kind kind = new Kind(MANY_ROWS, false, x.size(1), y.size(1), CublasLt.CUDA_R_8F_E4M3(), typeOf(y.dtype()),
                WeightLayout.OUT_IN, bias != null, false, Aligned.ALL);
        Shape shape = shape(kind, y, x, weight);
        setScales(plan(shape), weightScale.address(), xScale.address());
        return run(stream, shape, y, x, weight, bias);
    }

    /// Device addresses; cuBLASLt wants some before it is asked for an algorithm.
    private void setScales(Plan plan, long w, long x) {
        set(plan.description, CublasLt.CUBLASLT_MATMUL_DESC_A_SCALE_POINTER(), w, Long.BYTES);
        set(plan.description, CublasLt.CUBLASLT_MATMUL_DESC_B_SCALE_POINTER(), x, Long.BYTES);
    }

    private static Shape shape(Kind kind, Tensor y, Tensor x, Tensor weight) {
        return new Shape(kind, y.size(0), rowStride(x), rowStride(weight), rowStride(y));
    }

    private Plan plan(Shape shape) {
        Plan plan = plans.get(shape);
        if (plan == null) {
            plan = newPlan(shape);
            plans.put(shape, plan);
            evictOldest();
        }
        return plan;
    }

    private boolean run(MemorySegment stream, Shape shape, Tensor y, Tensor x, Tensor weight, @Nullable Tensor bias) {
        Plan plan = plan(shape);
        if (plan.algo == null) {
            return false;
        }
        if (bias != null) {
            set(plan.description, CublasLt.CUBLASLT_MATMUL_DESC_BIAS_POINTER(), bias.address(), Long.BYTES);
        }
        long scratch = workspace.address();
        MemorySegment out = MemorySegment.ofAddress(y.address());
        int status = CublasLt.cublasLtMatmul(handle, plan.description, one,
                MemorySegment.ofAddress(weight.address()), plan.w, MemorySegment.ofAddress(x.address()), plan.x, zero,
                out, plan.y, out, plan.y, plan.algo, MemorySegment.ofAddress(scratch), LibraryWorkspace.BYTES,
                stream);
        if (isRefusal(shape.kind, status)) {
            plans.put(shape, plan.withoutAlgo()); // it would say so again
            return false;
        }
        check("cublasLtMatmul", status);
        return true;
    }

    private static boolean isAligned(Tensor t) {
        return t.address() % ALIGNMENT == 0
                && (t.rank() < 2 || rowStride(t) * t.dtype().bytes() % ALIGNMENT == 0);
    }

    /// cuBLASLt wants a leading dimension of at least a row, also where there is one row only.
    private static long rowStride(Tensor t) {
        return t.size(0) <= 1 ? Math.max(1, t.size(1)) : t.stride(0);
    }

    private Plan newPlan(Shape shape) {
        Kind kind = shape.kind;
        Algorithm algorithm = algorithms.get(kind);
        if (algorithm == null) {
            Shape typical = new Shape(kind, kind.rows, stride(kind.columns ? kind.rows : kind.c, kind.aligned.x),
                    stride(kind.layout == WeightLayout.OUT_IN ? kind.c : kind.f, kind.aligned.w),
                    stride(kind.f, kind.aligned.y));
            Plan asked = describe(typical, null);
            try {
                algorithm = new Algorithm(choose(kind, asked));
            } finally {
                destroy(asked);
            }
            algorithms.put(kind, algorithm);
        }
        return describe(shape, algorithm.algo);
    }

    private static long stride(long n, boolean aligned) {
        return aligned ? (n + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT : n;
    }

    private Plan describe(Shape shape, @Nullable MemorySegment algo) {
        Kind kind = shape.kind;
        boolean outIn = kind.layout == WeightLayout.OUT_IN;
        MemorySegment nothing = MemorySegment.NULL;
        Plan plan = new Plan(newDescription(), nothing, nothing, nothing, algo);
        try {
            set(plan.description, CublasLt.CUBLASLT_MATMUL_DESC_TRANSA(),
                    outIn ? CublasLt.CUBLAS_OP_T() : CublasLt.CUBLAS_OP_N(), Integer.BYTES);
            set(plan.description, CublasLt.CUBLASLT_MATMUL_DESC_TRANSB(),
                    kind.columns ? CublasLt.CUBLAS_OP_T() : CublasLt.CUBLAS_OP_N(), Integer.BYTES);
            int epilogue = kind.fusesGelu
                    ? kind.hasBias ? CublasLt.CUBLASLT_EPILOGUE_GELU_BIAS() : CublasLt.CUBLASLT_EPILOGUE_GELU()
                    : kind.hasBias ? CublasLt.CUBLASLT_EPILOGUE_BIAS() : CublasLt.CUBLASLT_EPILOGUE_DEFAULT();
            set(plan.description, CublasLt.CUBLASLT_MATMUL_DESC_EPILOGUE(), epilogue, Integer.BYTES);
            if (kind.hasBias) {
                set(plan.description, CublasLt.CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE(), kind.yType, Integer.BYTES);
                // by the address cuBLASLt knows how the bias is aligned, also when it is asked for an algorithm
                set(plan.description, CublasLt.CUBLASLT_MATMUL_DESC_BIAS_POINTER(),
                        workspace.address() + (kind.aligned.bias ? 0 : elementBytes(kind.yType)), Long.BYTES);
            }
            if (kind.isFp8()) {
                int mode = CublasLt.CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F();
                set(plan.description, CublasLt.CUBLASLT_MATMUL_DESC_A_SCALE_MODE(), mode, Integer.BYTES);
                set(plan.description, CublasLt.CUBLASLT_MATMUL_DESC_B_SCALE_MODE(), mode, Integer.BYTES);
                setScales(plan, workspace.address(), workspace.address());
            }
            plan = new Plan(plan.description, layout(kind.type, outIn ? kind.c : kind.f, outIn ? kind.f : kind.c,
                    shape.strideW), nothing, nothing, algo);
            plan = new Plan(plan.description, plan.w, layout(kind.type, kind.columns ? shape.n : kind.c,
                    kind.columns ? kind.c : shape.n, shape.strideX), nothing, algo);
            return new Plan(plan.description, plan.w, plan.x, layout(kind.yType, kind.f, shape.n, shape.strideY), algo);
        } catch (RuntimeException e) {
            destroy(plan);
            throw e;
        }
    }

    private MemorySegment newDescription() {
        try (Arena temporary = Arena.ofConfined()) {
            MemorySegment out = temporary.allocate(ValueLayout.ADDRESS);
            check("cublasLtMatmulDescCreate",
                    CublasLt.cublasLtMatmulDescCreate(out, CublasLt.CUBLAS_COMPUTE_32F(), CublasLt.CUDA_R_32F()));
            return out.get(ValueLayout.ADDRESS, 0);
        }
    }

    private MemorySegment layout(int type, long rows, long columns, long stride) {
        try (Arena temporary = Arena.ofConfined()) {
            MemorySegment out = temporary.allocate(ValueLayout.ADDRESS);
            check("cublasLtMatrixLayoutCreate",
                    CublasLt.cublasLtMatrixLayoutCreate(out, type, rows, columns, stride));
            return out.get(ValueLayout.ADDRESS, 0);
        }
    }

    private void set(MemorySegment description, int what, long value, long bytes) {
        attribute.set(ValueLayout.JAVA_LONG, 0, value); // little endian: the low bytes come first
        check("cublasLtMatmulDescSetAttribute",
                CublasLt.cublasLtMatmulDescSetAttribute(description, what, attribute, bytes));
    }

    /// The algorithm that cuBLASLt thinks fastest among those that split no sum, or split it in a fixed order; null
    /// where there is none.
    private @Nullable MemorySegment choose(Kind kind, Plan asked) {
        try (Arena temporary = Arena.ofConfined()) {
            MemorySegment out = temporary.allocate(ValueLayout.ADDRESS);
            check("cublasLtMatmulPreferenceCreate", CublasLt.cublasLtMatmulPreferenceCreate(out));
            MemorySegment preference = out.get(ValueLayout.ADDRESS, 0);
            try {
                prefer(preference, CublasLt.CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES(), LibraryWorkspace.BYTES,
                        Long.BYTES);
                prefer(preference, CublasLt.CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK(),
                        kind.columns ? PARTS_IN_ORDER : CublasLt.CUBLASLT_REDUCTION_SCHEME_NONE(), Integer.BYTES);
                align(preference, CublasLt.CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES(), kind.aligned.w, kind.type);
                align(preference, CublasLt.CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES(), kind.aligned.x, kind.type);
                align(preference, CublasLt.CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES(), kind.aligned.y, kind.yType);
                align(preference, CublasLt.CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES(), kind.aligned.y, kind.yType);
                MemorySegment result = cublasLtMatmulHeuristicResult_t.allocate(temporary);
                MemorySegment count = temporary.allocate(ValueLayout.JAVA_INT);
                int status = CublasLt.cublasLtMatmulAlgoGetHeuristic(handle, asked.description, asked.w, asked.x,
                        asked.y, asked.y, preference, 1, result, count);
                if (isRefusal(kind, status)
                        || status == CublasLt.CUBLAS_STATUS_SUCCESS() && count.get(ValueLayout.JAVA_INT, 0) == 0) {
                    return null;
                }
                check("cublasLtMatmulAlgoGetHeuristic", status);
                MemorySegment algo = cublasLtMatmulAlgo_t.allocate(arena);
                algo.copyFrom(cublasLtMatmulHeuristicResult_t.algo(result));
                return algo;
            } finally {
                int ignored = CublasLt.cublasLtMatmulPreferenceDestroy(preference);
            }
        }
    }

    /// Scales that are vectors are Hopper's alone: it is not said how, and whether before a product, a library for
    /// another GPU refuses them.
    private static boolean isRefusal(Kind kind, int status) {
        boolean isMismatch = status == CublasLt.CUBLAS_STATUS_ARCH_MISMATCH()
                || status == CublasLt.CUBLAS_STATUS_INVALID_VALUE();
        return status == CublasLt.CUBLAS_STATUS_NOT_SUPPORTED() || kind.isFp8() && isMismatch;
    }

    /// cuBLASLt has no algorithm for what is promised less than an element's alignment.
    private void align(MemorySegment preference, int operand, boolean aligned, int type) {
        prefer(preference, operand, aligned ? ALIGNMENT : elementBytes(type), Integer.BYTES);
    }

    private static int elementBytes(int type) {
        return type == CublasLt.CUDA_R_32F() ? Float.BYTES : Short.BYTES;
    }

    private void prefer(MemorySegment preference, int what, long value, long bytes) {
        attribute.set(ValueLayout.JAVA_LONG, 0, value);
        check("cublasLtMatmulPreferenceSetAttribute",
                CublasLt.cublasLtMatmulPreferenceSetAttribute(preference, what, attribute, bytes));
    }

    private void evictOldest() {
        if (plans.size() > MAX_PLANS) {
            var oldest = plans.entrySet().iterator();
            destroy(oldest.next().getValue());
            oldest.remove();
        }
    }

    private static int typeOf(DType dtype) {
        return switch (dtype) {
            case F32 -> CublasLt.CUDA_R_32F();
            case BF16 -> CublasLt.CUDA_R_16BF();
            case F16 -> CublasLt.CUDA_R_16F();
            default -> throw GatunException.invalid("matmul of %s, expected f32, bf16 or f16", dtype);
        };
    }

    private void check(String call, int status) {
        if (status != CublasLt.CUBLAS_STATUS_SUCCESS()) {
            cuda.requireAlive();
            throw new GatunException(GatunException.Status.DEVICE_ERROR, "%s failed: %s (%d)".formatted(call,
                    HostMemory.string(CublasLt.cublasLtGetStatusName(status)), status));
        }
    }

    private static void destroy(Plan plan) {
        for (MemorySegment layout : new MemorySegment[] {plan.w, plan.x, plan.y}) {
            if (layout.address() != 0) {
                int ignored = CublasLt.cublasLtMatrixLayoutDestroy(layout);
            }
        }
        int ignored = CublasLt.cublasLtMatmulDescDestroy(plan.description);
    }

    /// cuBLASLt's version, such as `13.1.1`.
    static String version() {
        try {
            long version = CublasLt.cublasLtGetVersion();
            return "%d.%d.%d".formatted(version / 10000, version / 100 % 100, version % 100);
        } catch (LibraryException e) {
            return "missing";
        }
    }

    /// The stream's work has finished.
    @Override
    public void close() {
        plans.values().forEach(CublasLtMatmul::destroy);
        plans.clear();
        int ignored = CublasLt.cublasLtDestroy(handle); // frees host memory also when the device has been lost
        arena.close();
    }
}
