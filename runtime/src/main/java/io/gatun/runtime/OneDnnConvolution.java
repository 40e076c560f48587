package io.gatun.runtime;

import io.gatun.bindings.HostMemory;
import io.gatun.bindings.onednn.OneDnn;
import io.gatun.ops.ActivationKind;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.Objects;
import java.util.stream.LongStream;
import org.jspecify.annotations.Nullable;

/// Convolutions by oneDNN, for one stream: f32 and bf16, images channels last and dense, bias and activation fused.
///
/// A primitive is made once per shape of one image and run for each image of a batch, so that an image has the same
/// bits alone and in a batch; in training, of which nobody asks that, once per shape of a batch: small images are
/// faster together (0.3 against 2.6 ms at 64 x 28x28, 1 to 32 channels, on 2 cores). Weights are packed. oneDNN's
/// kernels for all of this are direct ones, which need a few KiB of scratch per thread and give the same bits for any
/// number of threads. Left to our kernel is what oneDNN would
/// do by a buffer of patches or by plain C++, and transposed convolutions with strides, whose bits depend on the number
/// of threads.
final class OneDnnConvolution implements AutoCloseable {
    /// Primitives kept per stream: a U-Net and a decoder have about 100 shapes together for one size of images; enough
    /// for two sizes.
    private static final int MAX_PRIMITIVES = 256;
    /// Bytes; direct kernels take 6 KiB per thread.
    private static final long MAX_SCRATCHPAD = 4L << 20;
    /// Channels in a tile of AMX. Behind a row that is no multiple of it its kernels may read what is not theirs.
    private static final int AMX_CHANNELS = 32;

    private final OneDnnEngine engine;
    private final OneDnnPackedWeights packed;
    private final OneDnnPrimitive.Cache<Shape> primitives = new OneDnnPrimitive.Cache<>(MAX_PRIMITIVES);

    /// What a primitive is made for: images [h, w, c] to [outH, outW, f], a weight with these strides; dtypes as oneDNN
    /// codes, biasType 0 for none.
    private record Shape(ConvolutionWindow window, ActivationKind activation, long images, long h, long w, long c,
            long outH, long outW, long f, long kh, long kw, long stride0, long stride1, long stride2, long stride3,
            int type, int biasType) {}

    OneDnnConvolution(OneDnnEngine engine, OneDnnPackedWeights packed) {
        this.engine = engine;
        this.packed = packed;
    }

    /// Whether oneDNN is worth asking, for operands that [fit][ConvolutionWindow#fits].
    static boolean suits(ConvolutionWindow window) {
        return !window.transposed() || window.strideH() == 1 && window.strideW() == 1;
    }

    /// oneDNN's ReLU makes 0 of a NaN.
    static boolean fuses(ActivationKind activation) {
        return activation != ActivationKind.RELU;
    }

    /// Does the convolution inside an op of the stream; false when oneDNN has no good kernel for it on this CPU.
    ///
    /// @param activation one that it [fuses][#fuses]
    /// @param together   whether a batch may be one call
    boolean run(Tensor y, Tensor x, Tensor weight, @Nullable Tensor bias, ConvolutionWindow window,
            ActivationKind activation, boolean together) {
        long images = together && x.isContiguous() && y.isContiguous() ? x.size(0) : 1;
        Shape shape = new Shape(window, activation, images, x.size(1), x.size(2), x.size(3), y.size(1), y.size(2),
                y.size(3), weight.size(1), weight.size(2), weight.stride(0), weight.stride(1), weight.stride(2),
                weight.stride(3), OneDnnEngine.typeOf("convolution", x), OneDnnEngine.typeOf("convolution", bias));
        engine.enterTeam();
        OneDnnPrimitive primitive = primitives.get(shape, this::create);
        if (primitive == OneDnnPrimitive.UNIMPLEMENTED) {
            return false;
        }
        long weights = packed.addressOfOnlyCopy(weight, Objects.requireNonNull(primitive.weights()));
        for (long b = 0; b < x.size(0); b += images) {
            engine.execute("convolution", primitive, x.address() + b * x.stride(0) * x.dtype().bytes(), weights,
                    y.address() + b * y.stride(0) * y.dtype().bytes(), bias == null ? 0 : bias.address());
        }
        return true;
    }

    /// `[groups,] F/groups, C/groups, kh, kw`
    private static long[] weightDims(Shape s) {
        int g = s.window.groups();
        return g == 1 ? new long[] {s.f, s.c, s.kh, s.kw} : new long[] {g, s.f / g, s.c / g, s.kh, s.kw};
    }

    private static long[] weightStrides(Shape s) {
        boolean transposed = s.window.transposed();
        int g = s.window.groups();
        long ofF = transposed ? s.stride3 : s.stride0;
        long ofC = transposed ? s.stride0 : s.stride3;
        return g == 1 ? new long[] {ofF, ofC, s.stride1, s.stride2}
                : new long[] {(transposed ? s.c : s.f) / g * s.stride0, ofF, ofC, s.stride1, s.stride2};
    }

    private OneDnnPrimitive create(Shape s) {
        try (OneDnnScratch scratch = new OneDnnScratch()) {
            MemorySegment x = images(scratch, s.type, s.images, s.h, s.w, s.c);
            MemorySegment w = scratch.anyLayout(s.type, weightDims(s));
            MemorySegment y = images(scratch, s.type, s.images, s.outH, s.outW, s.f);
            MemorySegment b = s.biasType == 0 ? MemorySegment.NULL
                    : scratch.layout(s.biasType, new long[] {s.f}, new long[] {1});
            MemorySegment attributes = scratch.attributes();
            appendActivation(scratch, attributes, s.activation);
            MemorySegment out = scratch.newHandle();
            int status = plan(scratch, out, s, x, w, b, y, attributes);
            if (status == OneDnn.dnnl_unimplemented() || status == OneDnn.dnnl_invalid_arguments()) {
                return OneDnnPrimitive.UNIMPLEMENTED;
            }
            OneDnnEngine.check("convolution " + s, status);
            MemorySegment descriptor = scratch.ownDescriptor(out);
            if (!isGood(scratch, descriptor, s.c / s.window.groups())) {
                return OneDnnPrimitive.UNIMPLEMENTED;
            }
            return OneDnnPrimitive.of(engine, scratch, "convolution " + s, descriptor, x, y, b,
                    packed.hold(weightDims(s), weightStrides(s), OneDnnPrimitive.weightsLayout(descriptor)));
        }
    }

    private int plan(OneDnnScratch scratch, MemorySegment out, Shape s, MemorySegment x, MemorySegment w,
            MemorySegment b, MemorySegment y, MemorySegment attributes) {
        ConvolutionWindow g = s.window;
        MemorySegment strides = scratch.longs(g.strideH(), g.strideW());
        MemorySegment skipped = scratch.longs(g.dilationH() - 1, g.dilationW() - 1);
        MemorySegment before = scratch.longs(g.padTop(), g.padLeft());
        MemorySegment after = scratch.longs(g.padBottom(), g.padRight());
        return g.transposed()
                ? OneDnn.dnnl_deconvolution_forward_primitive_desc_create(out, engine.handle(),
                        OneDnn.dnnl_forward_inference(), OneDnn.dnnl_deconvolution_direct(), x, w, b, y, strides,
                        skipped, before, after, attributes)
                : OneDnn.dnnl_convolution_forward_primitive_desc_create(out, engine.handle(),
                        OneDnn.dnnl_forward_inference(), OneDnn.dnnl_convolution_direct(), x, w, b, y, strides,
                        skipped, before, after, attributes);
    }

    private static void appendActivation(OneDnnScratch scratch, MemorySegment attributes, ActivationKind activation) {
        if (activation == ActivationKind.NONE) {
            return;
        }
        MemorySegment out = scratch.newHandle();
        OneDnnEngine.check("activation", OneDnn.dnnl_post_ops_create(out));
        MemorySegment postOps = scratch.own(out, OneDnn::dnnl_post_ops_destroy);
        boolean silu = activation == ActivationKind.SILU;
        OneDnnEngine.check("activation", OneDnn.dnnl_post_ops_append_eltwise(postOps,
                silu ? OneDnn.dnnl_eltwise_swish() : OneDnn.dnnl_eltwise_tanh(), silu ? 1 : 0, 0));
        OneDnnEngine.check("activation", OneDnn.dnnl_primitive_attr_set_post_ops(attributes, postOps));
    }

    /// Whether what oneDNN has chosen is a direct kernel, and stays within its operands.
    ///
    /// @param channels of a group, of all images that it reads
    static boolean isGood(OneDnnScratch scratch, MemorySegment descriptor, long... channels) {
        MemorySegment out = scratch.newHandle();
        OneDnnEngine.check("description", OneDnn.dnnl_primitive_desc_query(descriptor,
                OneDnn.dnnl_query_impl_info_str(), 0, out));
        String kernel = HostMemory.string(out.get(ValueLayout.ADDRESS, 0));
        boolean overreads = kernel.contains("amx")
                && LongStream.of(channels).anyMatch(number -> number % AMX_CHANNELS != 0);
        long bytes = OneDnn.dnnl_memory_desc_get_size(OneDnnPrimitive.scratchpadLayout(descriptor));
        return !kernel.contains("ref") && !kernel.contains("gemm") && !overreads && bytes <= MAX_SCRATCHPAD;
    }

    static MemorySegment images(OneDnnScratch scratch, int type, long number, long h, long w, long c) {
        return scratch.layout(type, new long[] {number, c, h, w}, new long[] {h * w * c, 1, w * c, c});
    }

    @Override
    public void close() {
        primitives.close();
    }
}
