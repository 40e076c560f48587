package io.gatun.runtime;

import io.gatun.bindings.onednn.OneDnn;
import java.lang.foreign.MemorySegment;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Objects;
import org.jspecify.annotations.Nullable;

/// Gradients of convolutions by oneDNN, for one stream: f32 and bf16, images channels last and dense, whole batches.
///
/// All is said of a plain convolution of x [B, H, W, C] to y [B, H', W', F] with a weight [F, kh, kw, C/groups]; of a
/// transposed one x and y are exchanged.
///
/// - The gradient of x is one primitive where strides are 1. With strides oneDNN's kernel gives other bits for other
///   numbers of threads: each image is a call of its own on one thread.
/// - The gradient of the weight is cut into parts, each a call of its own on one thread, because oneDNN would cut the
///   batch by the number of threads. A part has some of the images, and the parts are added in their order; or, where
///   weights outweigh images, some of the outputs, of which dy is copied. Measured on 2 cores with AVX-512, both are as
///   fast as oneDNN's own cut: 5.3 against 5.5 ms at 16 x 32x32 with 64 channels, 4.7 against 4.8 ms at 16 x 8x8 with
///   256.
final class OneDnnGradients implements AutoCloseable {
    /// Plans kept per stream: those of a U-Net are about 50 for one size of images.
    private static final int MAX_PLANS = 128;
    /// Parts of a batch: enough for 8 threads, and few enough that adding them does not show.
    private static final int MOST_PARTS = 8;
    /// Below so many parts of a batch the outputs are cut.
    private static final int FEW_PARTS = 4;
    /// Outputs of a part: where 64 are too many for two parts and more, 32. Narrower ones read x too often.
    private static final int WIDE_PART = 64;
    private static final int NARROW_PART = 32;
    private static final int F32_BYTES = 4;
    private static final int ALIGNMENT = 64;

    private final OneDnnEngine engine;
    private final OneDnnPackedWeights packed;
    private final OneDnnPrimitive.Cache<Shape> whole = new OneDnnPrimitive.Cache<>(MAX_PLANS);
    private final Map<Shape, Parts> parts = new LinkedHashMap<>(16, 0.75f, true);

    private enum Of { INPUT, WEIGHT }

    /// What is planned: a plain convolution, the strides of its weight or of that's gradient.
    private record Shape(Of of, ConvolutionWindow window, long images, long h, long w, long c, long outH, long outW,
            long f, long kh, long kw, long strideF, long strideH, long strideW, long strideC, int type) {
        static Shape of(Of of, ConvolutionWindow window, Tensor x, Tensor y, Tensor weight) {
            return new Shape(of, window, x.size(0), x.size(1), x.size(2), x.size(3), y.size(1), y.size(2), y.size(3),
                    weight.size(1), weight.size(2), weight.stride(0), weight.stride(1), weight.stride(2),
                    weight.stride(3), OneDnnEngine.typeOf("convolution", x));
        }

        Shape cut(long numImages, long outputs) {
            return new Shape(of, window, numImages, h, w, c, outH, outW, outputs, kh, kw, strideF, strideH, strideW,
                    strideC, type);
        }

        private boolean isStrided() {
            return window.strideH() > 1 || window.strideW() > 1;
        }

        /// `[groups,] F/groups, C/groups, kh, kw`
        long[] weightDims() {
            int g = window.groups();
            return g == 1 ? new long[] {f, c, kh, kw} : new long[] {g, f / g, c / g, kh, kw};
        }

        long[] weightStrides() {
            int g = window.groups();
            return g == 1 ? new long[] {strideF, strideC, strideH, strideW}
                    : new long[] {f / g * strideF, strideF, strideC, strideH, strideW};
        }

        /// Outputs of a part, or 0: the images are cut.
        long partWidth() {
            long wide = f % WIDE_PART == 0 && f >= 2 * WIDE_PART ? WIDE_PART : NARROW_PART;
            long taps = c * kh * kw;
            boolean cuts = numParts() < FEW_PARTS || numParts() * taps > images * outH * outW;
            return cuts && window.groups() == 1 && f % wide == 0 && f >= 2 * wide ? wide : 0;
        }

        /// Of the batch, all of one size.
        long numParts() {
            long number = Math.min(MOST_PARTS, images);
            while (images % number != 0) {
                number--;
            }
            return number;
        }
    }

    /// Calls, and for the gradient of a weight what is copied before and after them. Null calls: oneDNN has no good
    /// kernel.
    private record Parts(@Nullable OneDnnCalls calls, OneDnnPackedWeights.@Nullable Form form, long scratchBytes,
            long weightBytes, @Nullable OneDnnReorder takeOutputs, @Nullable OneDnnReorder put,
            @Nullable OneDnnReorder add) {
        static final Parts NONE = new Parts(null, null, 0, 0, null, null, null);

        Parts with(@Nullable OneDnnReorder take, @Nullable OneDnnReorder first, @Nullable OneDnnReorder next) {
            return new Parts(calls, form, scratchBytes, weightBytes, take, first, next);
        }

        void close() {
            if (calls != null) {
                calls.close();
            }
            if (form != null) {
                form.release();
            }
            for (OneDnnReorder reorder : new OneDnnReorder[] {takeOutputs, put, add}) {
                if (reorder != null) {
                    reorder.close();
                }
            }
        }
    }

    OneDnnGradients(OneDnnEngine engine, OneDnnPackedWeights packed) {
        this.engine = engine;
        this.packed = packed;
    }

    /// Writes the gradient of x inside an op of the stream; false when oneDNN has no good kernel for it on this CPU.
    boolean input(Stream stream, Tensor dx, Tensor dy, Tensor weight, ConvolutionWindow window) {
        Shape shape = Shape.of(Of.INPUT, window, dx, dy, weight);
        if (!shape.isStrided() && dx.isContiguous() && dy.isContiguous()) {
            engine.enterTeam();
            OneDnnPrimitive primitive = whole.get(shape, this::createWhole);
            if (primitive == OneDnnPrimitive.UNIMPLEMENTED) {
                return false;
            }
            engine.execute("gradient of a convolution", primitive, dy.address(),
                    packed.addressOfOnlyCopy(weight, Objects.requireNonNull(primitive.weights())), dx.address(), 0);
            return true;
        }
        Parts plan = plan(shape);
        if (plan.calls == null) {
            return false;
        }
        long weights = packed.addressOfOnlyCopy(weight, Objects.requireNonNull(plan.form));
        long scratch = engine.reserve(plan.scratchBytes * plan.calls.calls());
        for (int i = 0; i < plan.calls.calls(); i++) {
            plan.calls.pointAt(i, image(dy, i), weights, image(dx, i), scratch + i * plan.scratchBytes);
        }
        plan.calls.run(stream);
        return true;
    }

    /// Writes the gradient of the weight, likewise.
    ///
    /// @param dweight f32
    boolean weight(Stream stream, Tensor dweight, Tensor dy, Tensor x, ConvolutionWindow window) {
        Shape shape = Shape.of(Of.WEIGHT, window, x, dy, dweight);
        if (!x.isContiguous() || !dy.isContiguous() || shape.partWidth() == 0 && shape.numParts() == 1) {
            return false;
        }
        Parts plan = plan(shape);
        if (plan.calls == null) {
            return false;
        }
        int number = plan.calls.calls();
        long width = shape.partWidth();
        long copyBytes = width == 0 ? 0 : aligned(shape.images * shape.outH * shape.outW * width * dy.dtype().bytes());
        long perPart = plan.scratchBytes + plan.weightBytes + copyBytes;
        long memory = engine.reserve(perPart * number);
        for (int i = 0; i < number; i++) {
            long own = memory + i * perPart;
            long sums = own + plan.scratchBytes;
            if (width > 0) {
                Objects.requireNonNull(plan.takeOutputs).run(dy.address() + i * width * dy.dtype().bytes(),
                        sums + plan.weightBytes);
                plan.calls.pointAt(i, x.address(), sums + plan.weightBytes, sums, own);
            } else {
                long images = shape.images / number;
                plan.calls.pointAt(i, image(x, i * images), image(dy, i * images), sums, own);
            }
        }
        plan.calls.run(stream);
        for (int i = 0; i < number; i++) {
            OneDnnReorder reorder = i == 0 || width > 0 ? plan.put : plan.add;
            Objects.requireNonNull(reorder).run(memory + i * perPart + plan.scratchBytes,
                    dweight.address() + i * width * shape.strideF * F32_BYTES);
        }
        return true;
    }

    private static long image(Tensor images, long b) {
        return images.address() + b * images.stride(0) * images.dtype().bytes();
    }

    private static long aligned(long bytes) {
        return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    }

    private Parts plan(Shape shape) {
        Parts plan = parts.get(shape);
        if (plan == null) {
            engine.enterTeam(1);
            try {
                plan = shape.of == Of.INPUT ? createInput(shape) : createWeight(shape);
            } finally {
                engine.enterTeam();
            }
            parts.put(shape, plan);
            if (parts.size() > MAX_PLANS) {
                var oldest = parts.entrySet().iterator();
                oldest.next().getValue().close();
                oldest.remove();
            }
        }
        return plan;
    }

    private OneDnnPrimitive createWhole(Shape s) {
        try (OneDnnScratch scratch = new OneDnnScratch()) {
            MemorySegment x = x(scratch, s);
            MemorySegment y = y(scratch, s);
            MemorySegment descriptor = describe(scratch, s, x, y);
            return descriptor == null ? OneDnnPrimitive.UNIMPLEMENTED
                    : OneDnnPrimitive.ofInputGradient(engine, scratch, descriptor, x, y,
                            packed.hold(s.weightDims(), s.weightStrides(), OneDnnPrimitive.weightsLayout(descriptor)));
        }
    }

    private Parts createInput(Shape s) {
        try (OneDnnScratch scratch = new OneDnnScratch()) {
            Shape one = s.cut(1, s.f);
            MemorySegment x = x(scratch, one);
            MemorySegment y = y(scratch, one);
            MemorySegment descriptor = describe(scratch, one, x, y);
            if (descriptor == null) {
                return Parts.NONE;
            }
            MemorySegment w = OneDnnPrimitive.weightsLayout(descriptor);
            MemorySegment pad = OneDnnPrimitive.scratchpadLayout(descriptor);
            int[] kinds = {OneDnn.DNNL_ARG_DIFF_DST(), OneDnn.DNNL_ARG_WEIGHTS(), OneDnn.DNNL_ARG_DIFF_SRC(),
                OneDnn.DNNL_ARG_SCRATCHPAD()};
            OneDnnPackedWeights.Form form = packed.hold(s.weightDims(), s.weightStrides(), w);
            try {
                return new Parts(new OneDnnCalls(engine, descriptor, Math.toIntExact(s.images), kinds,
                        new MemorySegment[] {y, w, x, pad}), form, padBytes(pad), 0, null, null, null);
            } catch (RuntimeException e) {
                form.release();
                throw e;
            }
        }
    }

    private Parts createWeight(Shape s) {
        try (OneDnnScratch scratch = new OneDnnScratch()) {
            long width = s.partWidth();
            long number = width > 0 ? s.f / width : s.numParts();
            Shape part = width > 0 ? s.cut(s.images, width) : s.cut(s.images / number, s.f);
            MemorySegment x = x(scratch, part);
            MemorySegment y = y(scratch, part);
            MemorySegment descriptor = describe(scratch, part, x, y);
            if (descriptor == null) {
                return Parts.NONE;
            }
            MemorySegment w = OneDnn.dnnl_primitive_desc_query_md(descriptor, OneDnn.dnnl_query_diff_weights_md(), 0);
            MemorySegment pad = OneDnnPrimitive.scratchpadLayout(descriptor);
            int[] kinds = {OneDnn.DNNL_ARG_SRC(), OneDnn.DNNL_ARG_DIFF_DST(), OneDnn.DNNL_ARG_DIFF_WEIGHTS(),
                OneDnn.DNNL_ARG_SCRATCHPAD()};
            MemorySegment target = scratch.layout(OneDnn.dnnl_f32(), part.weightDims(), part.weightStrides());
            OneDnnCalls calls = new OneDnnCalls(engine, descriptor, Math.toIntExact(number), kinds,
                    new MemorySegment[] {x, y, w, pad});
            Parts plan = new Parts(calls, null, padBytes(pad), aligned(OneDnn.dnnl_memory_desc_get_size(w)), null,
                    null, null);
            engine.enterTeam();
            try {
                plan = plan.with(null, new OneDnnReorder(engine, w, target, false), null);
                return width > 0
                        ? plan.with(new OneDnnReorder(engine, outputs(scratch, s, width), y, false), plan.put, null)
                        : plan.with(null, plan.put, new OneDnnReorder(engine, w, target, true));
            } catch (RuntimeException e) {
                plan.close();
                throw e;
            }
        }
    }

    /// Null where oneDNN has no good kernel.
    private @Nullable MemorySegment describe(OneDnnScratch scratch, Shape s, MemorySegment x, MemorySegment y) {
        ConvolutionWindow g = s.window;
        MemorySegment strides = scratch.longs(g.strideH(), g.strideW());
        MemorySegment skipped = scratch.longs(g.dilationH() - 1, g.dilationW() - 1);
        MemorySegment before = scratch.longs(g.padTop(), g.padLeft());
        MemorySegment after = scratch.longs(g.padBottom(), g.padRight());
        MemorySegment out = scratch.newHandle();
        int direct = OneDnn.dnnl_convolution_direct();
        int status = OneDnn.dnnl_convolution_forward_primitive_desc_create(out, engine.handle(),
                OneDnn.dnnl_forward_training(), direct, x, scratch.anyLayout(s.type, s.weightDims()),
                MemorySegment.NULL, y, strides, skipped, before, after, MemorySegment.NULL);
        if (isRefused("convolution " + s, status)) {
            return null;
        }
        MemorySegment forward = scratch.ownDescriptor(out);
        MemorySegment attributes = scratch.attributes();
        status = s.of == Of.INPUT
                ? OneDnn.dnnl_convolution_backward_data_primitive_desc_create(out, engine.handle(), direct, x,
                        scratch.anyLayout(s.type, s.weightDims()), y, strides, skipped, before, after, forward,
                        attributes)
                : OneDnn.dnnl_convolution_backward_weights_primitive_desc_create(out, engine.handle(), direct, x,
                        scratch.anyLayout(OneDnn.dnnl_f32(), s.weightDims()), MemorySegment.NULL, y, strides, skipped,
                        before, after, forward, attributes);
        if (isRefused("gradient of convolution " + s, status)) {
            return null;
        }
        MemorySegment descriptor = scratch.ownDescriptor(out);
        long g0 = g.groups();
        return OneDnnConvolution.isGood(scratch, descriptor, s.c / g0, s.f / g0) ? descriptor : null;
    }

    private static boolean isRefused(String what, int status) {
        if (status == OneDnn.dnnl_unimplemented() || status == OneDnn.dnnl_invalid_arguments()) {
            return true;
        }
        OneDnnEngine.check(what, status);
        return false;
    }

    private static long padBytes(MemorySegment pad) {
        return aligned(OneDnn.dnnl_memory_desc_get_size(pad));
    }

    private static MemorySegment x(OneDnnScratch scratch, Shape s) {
        return OneDnnConvolution.images(scratch, s.type, s.images, s.h, s.w, s.c);
    }

    private static MemorySegment y(OneDnnScratch scratch, Shape s) {
        return OneDnnConvolution.images(scratch, s.type, s.images, s.outH, s.outW, s.f);
    }

    /// Some of y's outputs where they lie.
    private static MemorySegment outputs(OneDnnScratch scratch, Shape s, long width) {
        return scratch.layout(s.type, new long[] {s.images, width, s.outH, s.outW},
                new long[] {s.outH * s.outW * s.f, 1, s.outW * s.f, s.f});
    }

    @Override
    public void close() {
        parts.values().forEach(Parts::close);
        parts.clear();
        whole.close();
    }
}
