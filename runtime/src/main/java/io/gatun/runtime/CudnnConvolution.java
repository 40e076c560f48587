package io.gatun.runtime;

import io.gatun.bindings.HostMemory;
import io.gatun.bindings.LibraryException;
import io.gatun.bindings.cudnn.Cudnn;
import io.gatun.bindings.cudnn.cudnnConvolutionBwdDataAlgoPerfStruct;
import io.gatun.bindings.cudnn.cudnnConvolutionBwdFilterAlgoPerfStruct;
import io.gatun.bindings.cudnn.cudnnConvolutionFwdAlgoPerfStruct;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.LinkedHashMap;
import java.util.Map;

/// Convolutions and their gradients by cuDNN's legacy API, for one stream: channels last, weights [F, kh, kw, C/groups]
/// contiguous, sums in f32 (f32 operands without TF32), neither bias nor activation. All is said of a plain convolution
/// of x to y: a transposed one is what cuDNN calls backward data, from y to x.
///
/// Descriptors and the algorithm are made once per shape of one image, and run for each image of a batch, so that an
/// image has the same bits alone and in a batch; in training, of which nobody asks that, once per shape of a batch.
/// Only implicit products are taken, which repeat their bits and need little workspace; it is shared with the matrix
/// products of the stream.
final class CudnnConvolution implements AutoCloseable {
    /// Plans kept: a U-Net and a decoder have about 100 shapes together for one size of images; enough for two sizes.
    private static final int MAX_PLANS = 256;
    /// Bytes; what kernels with 16-byte accesses ask for.
    private static final int ALIGNMENT = 16;
    private static final int MAX_ALGORITHMS = 16;
    private static final int IS_DETERMINISTIC = 1;
    /// `CUDNN_CONVOLUTION_BWD_DATA_ALGO_1`; number 0 adds in any order.
    private static final int BACKWARD_DATA_ALGO_1 = 1;
    /// `CUDNN_CONVOLUTION_BWD_FILTER_ALGO_1`; numbers 0 and 3 add in any order.
    private static final int BACKWARD_FILTER_ALGO_1 = 1;
    /// `CUDNN_STATUS_NOT_SUPPORTED` and its relatives.
    private static final int NOT_SUPPORTED = 3000;
    private static final int NOT_SUPPORTED_END = 4000;
    private static final int DIMS = 4;

    private final CudaRuntime cuda;
    private final MemorySegment stream;
    private final LibraryWorkspace workspace;
    private final Arena arena = Arena.ofShared();
    private final MemorySegment one;
    private final MemorySegment zero;
    private final Map<Shape, Plan> plans = new LinkedHashMap<>(16, 0.75f, true);
    private MemorySegment handle = MemorySegment.NULL;

    /// What is computed from the other two: y, x or the weight.
    enum Of { OUTPUT, INPUT, WEIGHT }

    /// Images [h, w, c] to [outH, outW, f]; the dtype as cuDNN's code.
    private record Shape(Of of, ConvolutionWindow window, long images, long h, long w, long c, long outH, long outW,
            long f, long kh, long kw, int type) {}

    /// Descriptors, of cuDNN's input, filter, output and convolution; NULL where it has no algorithm.
    private record Plan(MemorySegment input, MemorySegment filter, MemorySegment output, MemorySegment convolution,
            int algorithm) {}

    private static final Plan NONE = new Plan(MemorySegment.NULL, MemorySegment.NULL, MemorySegment.NULL,
            MemorySegment.NULL, 0);

    CudnnConvolution(CudaRuntime cuda, MemorySegment stream, LibraryWorkspace workspace) {
        this.cuda = cuda;
        this.stream = stream;
        this.workspace = workspace;
        one = arena.allocateFrom(ValueLayout.JAVA_FLOAT, 1);
        zero = arena.allocateFrom(ValueLayout.JAVA_FLOAT, 0);
    }

    /// Whether cuDNN is worth asking, for operands that [fit][ConvolutionWindow#fits]: it pads both sides alike, and
    /// wants aligned, contiguous memory.
    ///
    /// @param window a plain one
    static boolean suits(Tensor x, Tensor y, Tensor weight, ConvolutionWindow window) {
        return outputs(x.size(1), weight.size(1), window.strideH(), window.padTop(), window.dilationH()) == y.size(1)
                && outputs(x.size(2), weight.size(2), window.strideW(), window.padLeft(), window.dilationW())
                == y.size(2)
                && weight.isContiguous() && isAligned(x) && isAligned(y) && weight.address() % ALIGNMENT == 0
                && x.elements() <= Integer.MAX_VALUE && y.elements() <= Integer.MAX_VALUE
                && weight.elements() <= Integer.MAX_VALUE;
    }

    private static long outputs(long in, long taps, int stride, int pad, int dilation) {
        return (in + 2L * pad - dilation * (taps - 1) - 1) / stride + 1;
    }

    private static boolean isAligned(Tensor images) {
        return images.address() % ALIGNMENT == 0
                && (images.size(0) == 1 || images.stride(0) * images.dtype().bytes() % ALIGNMENT == 0);
    }

    /// Gives the work to the stream, inside an op of it; false when cuDNN has no algorithm for the shape.
    ///
    /// @param together whether a batch may be one call
    boolean run(Stream caller, Of of, Tensor x, Tensor y, Tensor weight, ConvolutionWindow window, boolean together) {
        boolean whole = together && x.isContiguous() && y.isContiguous();
        if (!whole && of == Of.WEIGHT) {
            return false;
        }
        Shape shape = new Shape(of, window, whole ? x.size(0) : 1, x.size(1), x.size(2), x.size(3), y.size(1),
                y.size(2), y.size(3), weight.size(1), weight.size(2), typeOf(x.dtype()));
        Plan plan = plans.get(shape);
        if (plan == null) {
            WeightCopies.requireEager(caller);
            open();
            plan = newPlan(shape);
            plans.put(shape, plan);
            if (plans.size() > MAX_PLANS) {
                var oldest = plans.entrySet().iterator();
                destroy(oldest.next().getValue());
                oldest.remove();
            }
        }
        if (plan == NONE) {
            return false;
        }
        MemorySegment w = MemorySegment.ofAddress(weight.address());
        MemorySegment scratch = MemorySegment.ofAddress(workspace.address());
        for (long b = 0; b < x.size(0); b += shape.images) {
            run(of, plan, image(x, b), image(y, b), w, scratch);
        }
        return true;
    }

    private void run(Of of, Plan plan, MemorySegment x, MemorySegment y, MemorySegment w, MemorySegment scratch) {
        switch (of) {
            case OUTPUT -> check("cudnnConvolutionForward", Cudnn.cudnnConvolutionForward(handle, one, plan.input, x,
                    plan.filter, w, plan.convolution, plan.algorithm, scratch, LibraryWorkspace.BYTES, zero,
                    plan.output, y));
            case INPUT -> check("cudnnConvolutionBackwardData", Cudnn.cudnnConvolutionBackwardData(handle, one,
                    plan.filter, w, plan.output, y, plan.convolution, plan.algorithm, scratch, LibraryWorkspace.BYTES,
                    zero, plan.input, x));
            case WEIGHT -> check("cudnnConvolutionBackwardFilter", Cudnn.cudnnConvolutionBackwardFilter(handle, one,
                    plan.input, x, plan.output, y, plan.convolution, plan.algorithm, scratch, LibraryWorkspace.BYTES,
                    zero, plan.filter, w));
        }
    }

    private static MemorySegment image(Tensor images, long b) {
        return MemorySegment.ofAddress(images.address() + b * images.stride(0) * images.dtype().bytes());
    }

    /// The first convolution loads cuDNN, which takes seconds: not every model has one.
    private void open() {
        if (handle.address() == 0) {
            try (Arena temporary = Arena.ofConfined()) {
                MemorySegment out = temporary.allocate(ValueLayout.ADDRESS);
                check("cudnnCreate", Cudnn.cudnnCreate(out));
                MemorySegment created = out.get(ValueLayout.ADDRESS, 0);
                int status = Cudnn.cudnnSetStream(created, stream);
                if (status != Cudnn.CUDNN_STATUS_SUCCESS()) {
                    int ignored = Cudnn.cudnnDestroy(created);
                }
                check("cudnnSetStream", status);
                handle = created;
            } catch (LibraryException e) {
                throw new GatunException(GatunException.Status.UNSUPPORTED, e.getMessage(), e);
            }
        }
    }

    private Plan newPlan(Shape s) {
        ConvolutionWindow g = s.window;
        MemorySegment nothing = MemorySegment.NULL;
        Plan plan = NONE;
        try (Arena temporary = Arena.ofConfined()) {
            MemorySegment x = images(temporary, s.type, s.images, s.h, s.w, s.c);
            plan = new Plan(x, nothing, nothing, nothing, 0);
            plan = new Plan(x, nothing, images(temporary, s.type, s.images, s.outH, s.outW, s.f), nothing, 0);
            MemorySegment filter = filter(temporary, s);
            plan = new Plan(plan.input, filter, plan.output, nothing, 0);
            MemorySegment convolution = create(temporary, "cudnnCreateConvolutionDescriptor",
                    Cudnn::cudnnCreateConvolutionDescriptor);
            plan = new Plan(plan.input, filter, plan.output, convolution, 0);
            check("cudnnSetConvolutionNdDescriptor", Cudnn.cudnnSetConvolutionNdDescriptor(convolution, 2,
                    ints(temporary, g.padTop(), g.padLeft()), ints(temporary, g.strideH(), g.strideW()),
                    ints(temporary, g.dilationH(), g.dilationW()), Cudnn.CUDNN_CROSS_CORRELATION(),
                    Cudnn.CUDNN_DATA_FLOAT()));
            check("cudnnSetConvolutionGroupCount", Cudnn.cudnnSetConvolutionGroupCount(convolution, g.groups()));
            check("cudnnSetConvolutionMathType", Cudnn.cudnnSetConvolutionMathType(convolution,
                    s.type == Cudnn.CUDNN_DATA_FLOAT() ? Cudnn.CUDNN_FMA_MATH() : Cudnn.CUDNN_TENSOR_OP_MATH()));
            int algorithm = switch (s.of) {
                case OUTPUT -> forwardAlgorithm(temporary, plan);
                case INPUT -> backwardDataAlgorithm(temporary, plan);
                case WEIGHT -> backwardFilterAlgorithm(temporary, plan);
            };
            if (algorithm >= 0) {
                return new Plan(plan.input, filter, plan.output, convolution, algorithm);
            }
        } catch (RuntimeException e) {
            destroy(plan);
            throw e;
        }
        destroy(plan);
        return NONE;
    }

    private MemorySegment images(Arena temporary, int type, long number, long h, long w, long c) {
        MemorySegment descriptor = create(temporary, "cudnnCreateTensorDescriptor",
                Cudnn::cudnnCreateTensorDescriptor);
        int status = Cudnn.cudnnSetTensorNdDescriptor(descriptor, type, DIMS, ints(temporary, number, c, h, w),
                ints(temporary, h * w * c, 1, w * c, c));
        if (status != Cudnn.CUDNN_STATUS_SUCCESS()) {
            int ignored = Cudnn.cudnnDestroyTensorDescriptor(descriptor);
        }
        check("cudnnSetTensorNdDescriptor", status);
        return descriptor;
    }

    /// Dimensions [F, C/groups, kh, kw]; the channel lies innermost.
    private MemorySegment filter(Arena temporary, Shape s) {
        MemorySegment descriptor = create(temporary, "cudnnCreateFilterDescriptor",
                Cudnn::cudnnCreateFilterDescriptor);
        int status = Cudnn.cudnnSetFilterNdDescriptor(descriptor, s.type, Cudnn.CUDNN_TENSOR_NHWC(), DIMS,
                ints(temporary, s.f, s.c / s.window.groups(), s.kh, s.kw));
        if (status != Cudnn.CUDNN_STATUS_SUCCESS()) {
            int ignored = Cudnn.cudnnDestroyFilterDescriptor(descriptor);
        }
        check("cudnnSetFilterNdDescriptor", status);
        return descriptor;
    }

    private interface Create {
        int into(MemorySegment out);
    }

    private MemorySegment create(Arena temporary, String call, Create create) {
        MemorySegment out = temporary.allocate(ValueLayout.ADDRESS);
        check(call, create.into(out));
        return out.get(ValueLayout.ADDRESS, 0);
    }

    private static MemorySegment ints(Arena temporary, long... values) {
        MemorySegment array = temporary.allocate(ValueLayout.JAVA_INT, values.length);
        for (int i = 0; i < values.length; i++) {
            array.setAtIndex(ValueLayout.JAVA_INT, i, Math.toIntExact(values[i]));
        }
        return array;
    }

    /// The best of the implicit products; -1 where there is none.
    private int forwardAlgorithm(Arena temporary, Plan plan) {
        MemorySegment results = cudnnConvolutionFwdAlgoPerfStruct.allocateArray(MAX_ALGORITHMS, temporary);
        MemorySegment count = temporary.allocate(ValueLayout.JAVA_INT);
        int status = Cudnn.cudnnGetConvolutionForwardAlgorithm_v7(handle, plan.input, plan.filter, plan.convolution,
                plan.output, MAX_ALGORITHMS, count, results);
        if (!isSupported("cudnnGetConvolutionForwardAlgorithm_v7", status)) {
            return -1;
        }
        for (int i = 0; i < count.get(ValueLayout.JAVA_INT, 0); i++) {
            MemorySegment r = cudnnConvolutionFwdAlgoPerfStruct.asSlice(results, i);
            int algorithm = cudnnConvolutionFwdAlgoPerfStruct.algo(r);
            if (cudnnConvolutionFwdAlgoPerfStruct.status(r) == Cudnn.CUDNN_STATUS_SUCCESS()
                    && cudnnConvolutionFwdAlgoPerfStruct.determinism(r) == IS_DETERMINISTIC
                    && cudnnConvolutionFwdAlgoPerfStruct.memory(r) <= LibraryWorkspace.BYTES
                    && (algorithm == Cudnn.CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM()
                            || algorithm == Cudnn.CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_GEMM())) {
                return algorithm;
            }
        }
        return -1;
    }

    private int backwardDataAlgorithm(Arena temporary, Plan plan) {
        MemorySegment results = cudnnConvolutionBwdDataAlgoPerfStruct.allocateArray(MAX_ALGORITHMS, temporary);
        MemorySegment count = temporary.allocate(ValueLayout.JAVA_INT);
        int status = Cudnn.cudnnGetConvolutionBackwardDataAlgorithm_v7(handle, plan.filter, plan.output,
                plan.convolution, plan.input, MAX_ALGORITHMS, count, results);
        if (!isSupported("cudnnGetConvolutionBackwardDataAlgorithm_v7", status)) {
            return -1;
        }
        for (int i = 0; i < count.get(ValueLayout.JAVA_INT, 0); i++) {
            MemorySegment r = cudnnConvolutionBwdDataAlgoPerfStruct.asSlice(results, i);
            if (cudnnConvolutionBwdDataAlgoPerfStruct.status(r) == Cudnn.CUDNN_STATUS_SUCCESS()
                    && cudnnConvolutionBwdDataAlgoPerfStruct.determinism(r) == IS_DETERMINISTIC
                    && cudnnConvolutionBwdDataAlgoPerfStruct.memory(r) <= LibraryWorkspace.BYTES
                    && cudnnConvolutionBwdDataAlgoPerfStruct.algo(r) == BACKWARD_DATA_ALGO_1) {
                return BACKWARD_DATA_ALGO_1;
            }
        }
        return -1;
    }

    private int backwardFilterAlgorithm(Arena temporary, Plan plan) {
        MemorySegment results = cudnnConvolutionBwdFilterAlgoPerfStruct.allocateArray(MAX_ALGORITHMS, temporary);
        MemorySegment count = temporary.allocate(ValueLayout.JAVA_INT);
        int status = Cudnn.cudnnGetConvolutionBackwardFilterAlgorithm_v7(handle, plan.input, plan.output,
                plan.convolution, plan.filter, MAX_ALGORITHMS, count, results);
        if (!isSupported("cudnnGetConvolutionBackwardFilterAlgorithm_v7", status)) {
            return -1;
        }
        for (int i = 0; i < count.get(ValueLayout.JAVA_INT, 0); i++) {
            MemorySegment r = cudnnConvolutionBwdFilterAlgoPerfStruct.asSlice(results, i);
            if (cudnnConvolutionBwdFilterAlgoPerfStruct.status(r) == Cudnn.CUDNN_STATUS_SUCCESS()
                    && cudnnConvolutionBwdFilterAlgoPerfStruct.determinism(r) == IS_DETERMINISTIC
                    && cudnnConvolutionBwdFilterAlgoPerfStruct.memory(r) <= LibraryWorkspace.BYTES
                    && cudnnConvolutionBwdFilterAlgoPerfStruct.algo(r) == BACKWARD_FILTER_ALGO_1) {
                return BACKWARD_FILTER_ALGO_1;
            }
        }
        return -1;
    }

    private boolean isSupported(String call, int status) {
        if (status >= NOT_SUPPORTED && status < NOT_SUPPORTED_END) {
            return false;
        }
        check(call, status);
        return true;
    }

    private static int typeOf(DType dtype) {
        return switch (dtype) {
            case F32 -> Cudnn.CUDNN_DATA_FLOAT();
            case BF16 -> Cudnn.CUDNN_DATA_BFLOAT16();
            case F16 -> Cudnn.CUDNN_DATA_HALF();
            default -> throw GatunException.invalid("convolution of %s, expected f32, bf16 or f16", dtype);
        };
    }

    private void check(String call, int status) {
        if (status != Cudnn.CUDNN_STATUS_SUCCESS()) {
            cuda.requireAlive();
            throw new GatunException(GatunException.Status.DEVICE_ERROR, "%s failed: %s (%d)".formatted(call,
                    HostMemory.string(Cudnn.cudnnGetErrorString(status)), status));
        }
    }

    private static void destroy(Plan plan) {
        int ignored = 0;
        for (MemorySegment images : new MemorySegment[] {plan.input, plan.output}) {
            if (images.address() != 0) {
                ignored |= Cudnn.cudnnDestroyTensorDescriptor(images);
            }
        }
        if (plan.filter.address() != 0) {
            ignored |= Cudnn.cudnnDestroyFilterDescriptor(plan.filter);
        }
        if (plan.convolution.address() != 0) {
            ignored |= Cudnn.cudnnDestroyConvolutionDescriptor(plan.convolution);
        }
    }

    /// The stream's work has finished.
    @Override
    public void close() {
        plans.values().forEach(CudnnConvolution::destroy);
        plans.clear();
        if (handle.address() != 0) {
            int ignored = Cudnn.cudnnDestroy(handle); // frees host memory also when the device has been lost
            handle = MemorySegment.NULL;
        }
        arena.close();
    }
}
