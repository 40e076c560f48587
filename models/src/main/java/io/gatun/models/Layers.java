package io.gatun.models;

import io.gatun.ops.ActivationKind;
import io.gatun.ops.Attention;
import io.gatun.ops.Attention.Mask;
import io.gatun.ops.Convolution;
import io.gatun.ops.Elementwise;
import io.gatun.ops.Embedding;
import io.gatun.ops.Image;
import io.gatun.ops.Image.Sinusoids;
import io.gatun.ops.Linear;
import io.gatun.ops.Linear.InputNorm;
import io.gatun.ops.Linear.InputNormKind;
import io.gatun.ops.Linear.MlpActivation;
import io.gatun.ops.Linear.Product;
import io.gatun.ops.Linear.WeightLayout;
import io.gatun.ops.Loss;
import io.gatun.ops.LossKind;
import io.gatun.ops.Norm;
import io.gatun.ops.Quantise;
import io.gatun.ops.Rope;
import io.gatun.ops.Softmax;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.GatunException;
import io.gatun.runtime.Plan;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import java.util.IdentityHashMap;
import java.util.Map;
import java.util.function.Consumer;
import java.util.function.Supplier;
import org.jspecify.annotations.Nullable;

/// The layers of a forward pass, one call each: a call makes the result's tensor, writes the op into the plan and
/// returns the result, so that a forward reads like the paper. Where a method has a twin ending in `Into`, that writes
/// into a tensor of the caller's, such as a slice of a wider one.
///
/// Images are [B, H, W, C] (H and W height and width), channels last; tokens are [B, T, C]. Linear layers work on the
/// last dimension of either.
///
/// What a call returns may be the memory of an operand that it says it changes; the caller goes on with the result. A
/// subclass that trains ([io.gatun.train.TapedLayers]) keeps both.
public class Layers {
    /// In channels: what a linear layer needs to be a kernel of our own in a decode step. Not a measured limit. Weights
    /// so small take no time on either way; ours saves nodes of the graph, which published language models are wide
    /// enough to get. What is narrower is a test's or a demo's, and stays with the vendor's library.
    private static final long FEWEST_CHANNELS = 384;

    private final Device device;
    private final Stream stream;
    private final Plan.Recorder plan;
    private final boolean rowwise;
    private final Map<Tensor, LowRank> adapters = new IdentityHashMap<>();
    private @Nullable QuantizedLinear quantized;

    public Layers(Device device, Stream stream, Plan.Recorder plan) {
        this(device, stream, plan, false);
    }

    /// @param rowwise whether [#linear] gives a row the same bits whatever other rows there are, as decode steps need
    public Layers(Device device, Stream stream, Plan.Recorder plan, boolean rowwise) {
        this.device = device;
        this.stream = stream;
        this.plan = plan;
        this.rowwise = rowwise;
    }

    public final Device device() {
        return device;
    }

    public final Stream stream() {
        return stream;
    }

    protected final Plan.Recorder plan() {
        return plan;
    }

    /// Writes one op of a layer down; all of them come here.
    protected void record(Runnable run, @Nullable Tensor... operands) {
        plan.op(run, operands);
    }

    /// A part of a network whose inner values need not be kept for its gradients, where the layers learn.
    ///
    /// @param body writes the part down; does the same each time, and changes nothing in place that
    ///     was there before
    public Branches block(Supplier<Branches> body) {
        return body.get();
    }

    /// A residual stream between two blocks: what runs past and what is still to be added to it, so that the next norm
    /// can add. Both [..., C]
    ///
    /// @param added null: nothing is left to add
    public record Branches(Tensor stream, @Nullable Tensor added) {}

    /// Their sum, and its layer normalisation.
    public final Residual layerNorm(Branches x, @Nullable Tensor weight, @Nullable Tensor bias, float eps) {
        return x.added == null ? new Residual(x.stream, layerNorm(x.stream, weight, bias, eps))
                : addLayerNorm(x.stream, x.added, weight, bias, eps);
    }

    /// Their sum, and its RMS normalisation.
    public final Residual rmsNorm(Branches x, @Nullable Tensor weight, float eps) {
        return x.added == null ? new Residual(x.stream, rmsNorm(x.stream, weight, eps))
                : addRmsNorm(x.stream, x.added, weight, eps);
    }

    private Residual normalise(Branches x, Prenorm norm) {
        return norm.kind == InputNormKind.RMS ? rmsNorm(x, norm.weight, norm.eps)
                : layerNorm(x, norm.weight, norm.bias, norm.eps);
    }

    /// A norm in front of linear layers.
    public record Prenorm(InputNormKind kind, @Nullable Tensor weight, @Nullable Tensor bias, float eps) {
        public static Prenorm layer(@Nullable Tensor weight, @Nullable Tensor bias, float eps) {
            return new Prenorm(InputNormKind.LAYER, weight, bias, eps);
        }

        public static Prenorm rms(@Nullable Tensor weight, float eps) {
            return new Prenorm(InputNormKind.RMS, weight, null, eps);
        }
    }

    /// A linear layer: weight [F, C] or [C, F], bias [F] or null.
    public record Matrix(Tensor weight, @Nullable Tensor bias) {}

    /// A sum, and what a linear layer made of its norm.
    public record Projected(Tensor sum, Tensor y) {}

    /// A sum, and queries, keys and values made of its norm.
    public record ProjectedQkv(Tensor sum, Tensor q, Tensor k, Tensor v) {}

    /// The sum of x, and `activation(norm(sum) weight + bias)`: one launch in decode steps on devices with graphs.
    ///
    /// @param activation null: none
    public final Projected normLinear(Branches x, Prenorm norm, Matrix m, WeightLayout layout,
            @Nullable Activation activation) {
        MlpActivation fused = activation == null ? MlpActivation.NONE : activation.ofMlp();
        if (fused != null && fusesNorm(x, m)) {
            Tensor sum = sumOf(x);
            Product p = product(x.stream, m, layout);
            InputNorm in = inputNorm(x, norm, sum);
            record(() -> Linear.normLinear(stream, rows(x.stream), in, p, layoutOf(m.weight, layout), fused), sum,
                    p.y(), x.stream, x.added);
            return new Projected(sum, p.y());
        }
        Residual r = normalise(x, norm);
        return new Projected(r.sum, activation == null ? linear(r.normed, m.weight, m.bias, layout)
                : linearActivation(r.normed, m.weight, m.bias, layout, activation));
    }

    /// The sum of x, and `silu(norm(sum) gate^T) (norm(sum) up^T)`, likewise. Weights [F, C]
    public final Projected normSwiglu(Branches x, Prenorm norm, Matrix gate, Matrix up) {
        if (fusesNorm(x, gate, up)) {
            Tensor sum = sumOf(x);
            Product p = product(x.stream, gate, WeightLayout.OUT_IN);
            InputNorm in = inputNorm(x, norm, sum);
            Tensor upScale = scaleOf(up.weight);
            record(() -> Linear.normLinearGated(stream, rows(x.stream), in, p, up.weight, upScale, up.bias,
                    WeightLayout.OUT_IN, MlpActivation.SILU), sum, p.y(), x.stream, x.added);
            return new Projected(sum, p.y());
        }
        Residual r = normalise(x, norm);
        share(r.normed, gate);
        return new Projected(r.sum, swiglu(linear(r.normed, gate.weight, gate.bias),
                linear(r.normed, up.weight, up.bias)));
    }

    /// The sum of x, and three linear layers of its norm, likewise. Weights [F, C]
    public final ProjectedQkv normLinearQkv(Branches x, Prenorm norm, Matrix q, Matrix k, Matrix v) {
        if (fusesNorm(x, q, k, v)) {
            Tensor sum = sumOf(x);
            Product toQ = product(x.stream, q, WeightLayout.OUT_IN);
            Product toK = product(x.stream, k, WeightLayout.OUT_IN);
            Product toV = product(x.stream, v, WeightLayout.OUT_IN);
            InputNorm in = inputNorm(x, norm, sum);
            record(() -> Linear.normLinearQkv(stream, rows(x.stream), in, toQ, toK, toV, WeightLayout.OUT_IN), sum,
                    toQ.y(), toK.y(), toV.y(), x.stream, x.added);
            return new ProjectedQkv(sum, toQ.y(), toK.y(), toV.y());
        }
        Residual r = normalise(x, norm);
        share(r.normed, q);
        return new ProjectedQkv(r.sum, linear(r.normed, q.weight, q.bias), linear(r.normed, k.weight, k.bias),
                linear(r.normed, v.weight, v.bias));
    }

    /// `logits = norm(x) weight^T`, weight the model's head, a row's bits the same whatever other rows there are; in
    /// decode steps on devices with graphs one launch. logits [N, V] f32
    public final void normHead(CausalModel model, Tensor logits, Branches x, Prenorm norm) {
        if (fuses(x.stream, Linear.MOST_NORMED_CHANNELS)) {
            InputNorm in = inputNorm(x, norm, null);
            Product p = new Product(logits, model.headWeight(), null);
            record(() -> Linear.normLinear(stream, rows(x.stream), in, p, WeightLayout.OUT_IN, MlpActivation.NONE),
                    logits, x.stream, x.added);
            return;
        }
        Tensor hidden = normalise(x, norm).normed;
        record(() -> model.head(stream, logits, hidden), logits, hidden);
    }

    private boolean fuses(Tensor x, long mostChannels) {
        return rowwise && x.rank() == 2 && fuses(device, x.size(1), mostChannels);
    }

    /// Whether a decode step's linear layer of C channels is one launch with what surrounds it. On the CPU the ops one
    /// by one are as fast, and fewer channels are the vendor's library's.
    static boolean fuses(Device device, long c, long mostChannels) {
        return device.prefersGraphs() && c >= FEWEST_CHANNELS && c <= mostChannels;
    }

    private boolean fusesNorm(Branches x, Matrix... matrices) {
        for (Matrix m : matrices) {
            if (adapters.containsKey(m.weight)) {
                return false;
            }
        }
        return fuses(x.stream, Linear.MOST_NORMED_CHANNELS);
    }

    private Tensor sumOf(Branches x) {
        return x.added == null ? x.stream : plan.allocate(x.stream.dtype(), x.stream.shape());
    }

    private static InputNorm inputNorm(Branches x, Prenorm norm, @Nullable Tensor sum) {
        return new InputNorm(norm.kind, x.added, x.added == null ? null : sum, norm.weight, norm.bias, norm.eps);
    }

    private Product product(Tensor x, Matrix m, WeightLayout layout) {
        long f = m.weight.size(layout == WeightLayout.OUT_IN ? 0 : 1);
        return productInto(plan.allocate(x.dtype(), x.size(0), f), m.weight, m.bias, layout);
    }

    private Product productInto(Tensor y, Tensor weight, @Nullable Tensor bias, WeightLayout layout) {
        return QuantizedLinear.takes(weight)
                ? new Product(y, QuantizedLinear.matrix(weight, layout), scaleOf(weight), bias)
                : new Product(y, weight, bias);
    }

    /// Null where the weight is not e4m3.
    private @Nullable Tensor scaleOf(Tensor weight) {
        return quantized == null ? null : quantized.scaleOf(weight);
    }

    /// What [#productInto] made of the weight.
    private static WeightLayout layoutOf(Tensor weight, WeightLayout layout) {
        return QuantizedLinear.takes(weight) ? WeightLayout.OUT_IN : layout;
    }

    /// Keeps a result's memory to the end of the plan.
    public final Tensor keep(Tensor x) {
        return plan.keep(x);
    }

    /// A temporary of uncleared memory.
    public Tensor allocate(DType dtype, long... shape) {
        return plan.allocate(dtype, shape);
    }

    /// Writes any other op down; `operands` are all tensors it reads or writes.
    public void op(Consumer<Stream> run, @Nullable Tensor... operands) {
        record(() -> run.accept(stream), operands);
    }

    /// `y = x weight^T + bias`, the same for an image whatever others there are. x [B, ..., C], weight [F, C], bias
    /// [F]; [B, ..., F]
    public final Tensor linear(Tensor x, Tensor weight, @Nullable Tensor bias) {
        return linear(x, weight, bias, WeightLayout.OUT_IN);
    }

    /// As above, weight [F, C] or [C, F] by `layout`; plus what an adapter of the weight adds.
    public final Tensor linear(Tensor x, Tensor weight, @Nullable Tensor bias, WeightLayout layout) {
        Tensor y = product(x, weight, bias, layout);
        LowRank a = adapters.get(weight);
        return a == null ? y : add(y, product(scale(product(x, a.down, null, WeightLayout.OUT_IN), a.scale), a.up, null,
                WeightLayout.OUT_IN));
    }

    /// What is added to a linear layer: `scale up (down x)`. Hu et al. 2021, arXiv 2106.09685.
    ///
    /// @param down [r, C]
    /// @param up   [F, r]
    public record LowRank(Tensor down, Tensor up, float scale) {}

    /// From now on, adds to the linear layers of these weights.
    public final void adapt(Map<Tensor, LowRank> byWeight) {
        adapters.putAll(byWeight);
    }

    protected final boolean isAdapted(Tensor weight) {
        return adapters.containsKey(weight);
    }

    /// From now on, multiplies by weights in e4m3.
    ///
    /// @param scales [F] f32 of each weight
    final void scaleWeights(Map<Tensor, Tensor> scales) {
        quantized = new QuantizedLinear(this, scales);
    }

    /// Where many rows are multiplied in e4m3: quantises them once for the matrices.
    private void share(Tensor x, Matrix first) {
        if (quantized != null && !rowwise && QuantizedLinear.takes(first.weight)) {
            quantized.share(x);
        }
    }

    /// Logits `x weight^T` of a vocabulary, for a loss. x [N, C], weight [V, C]; [N, V]
    public Tensor logits(Tensor x, Tensor weight) {
        return linear(x, weight, null);
    }

    /// [#linear] without an adapter.
    protected Tensor product(Tensor x, Tensor weight, @Nullable Tensor bias, WeightLayout layout) {
        Tensor y = plan.allocate(x.dtype(), withLast(x, weight.size(layout == WeightLayout.OUT_IN ? 0 : 1)));
        linearInto(y, x, weight, bias, layout);
        return y;
    }

    void linearInto(Tensor y, Tensor x, Tensor weight, @Nullable Tensor bias, WeightLayout layout) {
        if (fuses(x, Linear.MOST_CHANNELS)) {
            Product p = productInto(y, weight, bias, layout);
            record(() -> Linear.normLinear(stream, x, InputNorm.NONE, p, layoutOf(weight, layout),
                    MlpActivation.NONE), y, x, weight, bias);
            return;
        }
        if (quantized != null && QuantizedLinear.takes(weight)) {
            quantized.into(y, x, weight, bias, layout, rowwise);
            return;
        }
        if (rowwise) {
            Tensor in = rows(x);
            Tensor out = rows(y);
            record(() -> device.matmulRowwise(stream, out, in, weight, bias, layout), y, x, weight, bias);
            return;
        }
        boolean apart = device.matmulDependsOnRows() && x.rank() > 2 && x.size(0) > 1;
        for (long image = 0; image < (apart ? x.size(0) : 1); image++) {
            Tensor in = rows(apart ? x.slice(0, image, image + 1) : x);
            Tensor out = rows(apart ? y.slice(0, image, image + 1) : y);
            record(() -> device.matmul(stream, out, in, weight, bias, layout), y, x, weight, bias);
        }
    }

    /// `activation(x weight + bias)`, in one kernel where the device has one. Operands as in [#linear].
    public Tensor linearActivation(Tensor x, Tensor weight, @Nullable Tensor bias, WeightLayout layout,
            Activation activation) {
        if (activation != Activation.GELU_TANH || adapters.containsKey(weight)
                || QuantizedLinear.takes(weight)) {
            return activation(linear(x, weight, bias, layout), activation);
        }
        Tensor y = plan.allocate(x.dtype(), withLast(x, weight.size(layout == WeightLayout.OUT_IN ? 0 : 1)));
        Tensor in = rows(x);
        Tensor out = rows(y);
        record(() -> device.matmulGeluTanh(stream, out, in, weight, bias, layout, rowwise), y, x, weight, bias);
        return y;
    }

    /// As [#linear], for a few rows, one per image: a row has the same bits whatever other rows there are.
    public Tensor linearRowwise(Tensor x, Tensor weight, @Nullable Tensor bias) {
        Tensor y = plan.allocate(x.dtype(), withLast(x, weight.size(0)));
        Tensor in = rows(x);
        Tensor out = rows(y);
        record(() -> device.matmulRowwise(stream, out, in, weight, bias, WeightLayout.OUT_IN), y, x, weight, bias);
        return y;
    }

    /// A convolution. x [B, H, W, C], weight as the checkpoint has it: [F, C/groups, kh, kw]; [B, H', W', F]
    public Tensor conv(Tensor x, Tensor weight, @Nullable Tensor bias, Convolution.Geometry g) {
        Tensor y = plan.allocate(x.dtype(), x.size(0), g.outputHeight(x.size(1), weight.size(2)),
                g.outputWidth(x.size(2), weight.size(3)), weight.size(0));
        convInto(y, x, weight, bias, g, ActivationKind.NONE);
        return y;
    }

    /// Vendors' libraries want each image dense: one between wider rows is copied from and to.
    public void convInto(Tensor y, Tensor x, Tensor weight, @Nullable Tensor bias, Convolution.Geometry g,
            ActivationKind activation) {
        Tensor channelsLast = weight.permute(0, 2, 3, 1);
        Tensor in = dense(x);
        Tensor out = isDense(y) ? y : plan.allocate(y.dtype(), y.shape());
        record(() -> convolve(out, in, channelsLast, bias, g, activation), out, in, weight, bias);
        if (out != y) {
            copyInto(y, out);
        }
    }

    /// Starts a convolution of a batch.
    protected void convolve(Tensor y, Tensor x, Tensor weight, @Nullable Tensor bias, Convolution.Geometry g,
            ActivationKind activation) {
        device.convolution(stream, y, x, weight, bias, g, activation);
    }

    /// Starts a transposed convolution of a batch.
    protected void convolveTransposed(Tensor y, Tensor x, Tensor weight, @Nullable Tensor bias,
            Convolution.Transposed g, ActivationKind activation) {
        device.transposedConvolution(stream, y, x, weight, bias, g, activation);
    }

    /// x, or a copy where an image of it is not dense.
    protected final Tensor dense(Tensor x) {
        return isDense(x) ? x : copy(x);
    }

    /// Each image by itself; how far apart they are does not matter.
    private static boolean isDense(Tensor images) {
        return images.size(0) == 0 || images.select(0, 0).isContiguous();
    }

    /// A transposed convolution. x [B, H, W, C], weight [C, F/groups, kh, kw]; [B, H', W', F]
    public Tensor convTranspose(Tensor x, Tensor weight, @Nullable Tensor bias, Convolution.Transposed g,
            ActivationKind activation) {
        Tensor y = plan.allocate(x.dtype(), x.size(0), g.outputHeight(x.size(1), weight.size(2)),
                g.outputWidth(x.size(2), weight.size(3)), weight.size(1) * g.groups());
        Tensor channelsLast = weight.permute(0, 2, 3, 1);
        record(() -> convolveTransposed(y, x, channelsLast, bias, g, activation), y, x, weight,
                bias);
        return y;
    }

    /// Group normalisation over the pixels and channels of each group. x [B, ..., C], weight and bias [C]
    public Tensor groupNorm(Tensor x, @Nullable Tensor weight, @Nullable Tensor bias, int groups, float eps,
            ActivationKind activation) {
        return groupNorm(x, weight, bias, null, null, groups, eps, activation);
    }

    /// As above, with `h (1 + scale) + shift` before the activation. scale, shift [B, C]
    public Tensor groupNorm(Tensor x, @Nullable Tensor weight, @Nullable Tensor bias, @Nullable Tensor scale,
            @Nullable Tensor shift, int groups, float eps, ActivationKind activation) {
        Tensor y = plan.allocate(x.dtype(), x.shape());
        Tensor in = pixels(x);
        Tensor out = pixels(y);
        Tensor scratch = scratch(Norm.groupNormWorkspaceBytes(stream, in, groups));
        record(() -> Norm.groupNorm(stream, out, null, null, in, weight, bias, scale, shift, groups, eps, activation,
                scratch), y, x, weight, bias, scale, shift, scratch);
        return y;
    }

    /// Batch normalisation with given statistics. x [B, ..., C], the others [C]
    public Tensor batchNorm(Tensor x, Tensor mean, Tensor variance, @Nullable Tensor weight, @Nullable Tensor bias,
            float eps, ActivationKind activation) {
        Tensor y = plan.allocate(x.dtype(), x.shape());
        Tensor in = pixels(x);
        Tensor out = pixels(y);
        record(() -> Norm.batchNorm(stream, out, in, mean, variance, weight, bias, eps, activation), y, x, mean,
                variance, weight, bias);
        return y;
    }

    /// Layer normalisation over the last dimension. x [..., C]
    public Tensor layerNorm(Tensor x, @Nullable Tensor weight, @Nullable Tensor bias, float eps) {
        Tensor y = plan.allocate(x.dtype(), x.shape());
        record(() -> Norm.layerNorm(stream, y, x, weight, bias, eps), y, x, weight, bias);
        return y;
    }

    /// A sum and the same normalised. Both [..., C]
    public record Residual(Tensor sum, Tensor normed) {}

    /// `x + residual`, which may take x's memory, and its layer normalisation: one pass. x, residual [..., C]
    public Residual addLayerNorm(Tensor x, Tensor residual, @Nullable Tensor weight, @Nullable Tensor bias, float eps) {
        Tensor y = plan.allocate(x.dtype(), x.shape());
        record(() -> Norm.layerNorm(stream, y, x, null, null, x, residual, weight, bias, eps), y, x, residual, weight,
                bias);
        return new Residual(x, y);
    }

    /// RMS normalisation over the last dimension. x [..., C]
    public Tensor rmsNorm(Tensor x, @Nullable Tensor weight, float eps) {
        Tensor y = plan.allocate(x.dtype(), x.shape());
        record(() -> Norm.rmsNorm(stream, y, x, weight, eps), y, x, weight);
        return y;
    }

    /// `x + residual`, which may take x's memory, and its RMS normalisation: one pass. x, residual [..., C]
    public Residual addRmsNorm(Tensor x, Tensor residual, @Nullable Tensor weight, float eps) {
        Tensor y = plan.allocate(x.dtype(), x.shape());
        record(() -> Norm.rmsNorm(stream, y, x, null, x, residual, weight, eps), y, x, residual, weight);
        return new Residual(x, y);
    }

    /// Attention with H heads side by side in the last dimension. q [B, T, H D], k and v [B, S, G D]; [B, T, H D]
    ///
    /// @param scale of the scores, usually 1 / sqrt(D)
    public final Tensor attention(Tensor q, Tensor k, Tensor v, int heads, int kvHeads, float scale, Mask mask) {
        return attention(heads(q, heads), heads(k, kvHeads), heads(v, kvHeads), scale, mask)
                .reshape(q.size(0), q.size(1), q.size(2));
    }

    /// Attention. q [B, T, H, D], k and v [B, S, G, D]; [B, T, H, D]
    ///
    /// @param scale of the scores, usually 1 / sqrt(D)
    public Tensor attention(Tensor q, Tensor k, Tensor v, float scale, Mask mask) {
        Tensor y = plan.allocate(q.dtype(), q.shape());
        Tensor scratch = scratch(Attention.workspaceBytes(stream, q, k));
        record(() -> Attention.attention(stream, y, null, q, k, v, null, null, scale, mask, scratch), y, q, k, v,
                scratch);
        return y;
    }

    /// `a + b`, of one shape.
    public Tensor add(Tensor a, Tensor b) {
        Tensor y = plan.allocate(a.dtype(), a.shape());
        addInto(y, a, b);
        return y;
    }

    public void addInto(Tensor y, Tensor a, Tensor b) {
        record(() -> Elementwise.add(stream, y, a, b), y, a, b);
    }

    /// `x[b, ..., c] + perImage[b, c]`, in x's memory. x [B, H, W, C], perImage [B, C]
    public Tensor addPerImage(Tensor x, Tensor perImage) {
        Tensor wide = broadcast(perImage, x);
        record(() -> Elementwise.add(stream, x, x, wide), x, perImage);
        return x;
    }

    /// x; a subclass that trains drops elements, where it was told to.
    public Tensor dropout(Tensor x) {
        return x;
    }

    /// `factor x`, in x's memory; x itself for factor 1.
    public Tensor scale(Tensor x, float factor) {
        if (factor != 1) {
            record(() -> Elementwise.scale(stream, x, x, factor), x);
        }
        return x;
    }

    /// Rotary embedding of [N, H, D], in x's memory; operands as in [Rope#rope].
    public Tensor rope(Tensor x, Tensor positions, Tensor table, Rope.Pairing pairing) {
        record(() -> Rope.rope(stream, x, x, positions, table, pairing), x, positions, table);
        return x;
    }

    /// `x (1 + scale) + shift`. x [B, T, C], scale and shift [B, C]. Peebles and Xie 2022
    public Tensor modulate(Tensor x, Tensor scale, Tensor shift) {
        Tensor y = plan.allocate(x.dtype(), x.shape());
        Tensor wideScale = broadcast(scale, x);
        Tensor wideShift = broadcast(shift, x);
        record(() -> Elementwise.modulate(stream, y, x, wideScale, wideShift), y, x, scale, shift);
        return y;
    }

    /// `x + gate h`. x and h [B, T, C], gate [B, C]
    public Tensor addGated(Tensor x, Tensor gate, Tensor h) {
        Tensor y = plan.allocate(x.dtype(), x.shape());
        Tensor wide = broadcast(gate, x);
        record(() -> Elementwise.addGated(stream, y, x, wide, h), y, x, gate, h);
        return y;
    }

    /// An activation of config.json.
    public final Tensor activation(Tensor x, Activation activation) {
        Tensor y = plan.allocate(x.dtype(), x.shape());
        activationInto(y, x, activation);
        return y;
    }

    public void activationInto(Tensor y, Tensor x, Activation activation) {
        record(() -> activation.apply(stream, y, x), y, x);
    }

    /// `max(x, 0) + slope min(x, 0)`
    public Tensor leakyRelu(Tensor x, float slope) {
        Tensor y = plan.allocate(x.dtype(), x.shape());
        record(() -> Elementwise.leakyRelu(stream, y, x, slope), y, x);
        return y;
    }

    public Tensor silu(Tensor x) {
        return activation(x, Activation.SILU);
    }

    /// `value geluErf(gate)`, value the first and gate the second half of the last dimension. x [..., 2F]; [..., F]
    public Tensor geglu(Tensor x) {
        int last = x.rank() - 1;
        long f = x.size(last) / 2;
        Tensor y = plan.allocate(x.dtype(), withLast(x, f));
        Tensor value = x.slice(last, 0, f);
        Tensor gate = x.slice(last, f, 2 * f);
        record(() -> Elementwise.geglu(stream, y, gate, value), y, x);
        return y;
    }

    /// `silu(gate) up`, in gate's memory. [..., F]
    public Tensor swiglu(Tensor gate, Tensor up) {
        record(() -> Elementwise.swiglu(stream, gate, gate, up), gate, up);
        return gate;
    }

    /// Nearest neighbour to another size. x [B, H, W, C]; [B, height, width, C]
    public Tensor upsample(Tensor x, long height, long width) {
        Tensor y = plan.allocate(x.dtype(), x.size(0), height, width, x.size(3));
        record(() -> Image.upsampleNearest(stream, y, x), y, x);
        return y;
    }

    /// Means over windows of `size` x `size`. x [B, H, W, C]; [B, H / size, W / size, C]
    public Tensor averagePool(Tensor x, int size) {
        Tensor y = plan.allocate(x.dtype(), x.size(0), x.size(1) / size, x.size(2) / size, x.size(3));
        record(() -> Image.averagePool(stream, y, x, size), y, x);
        return y;
    }

    /// Largest values of windows of `size` x `size`. x [B, H, W, C]; [B, H / size, W / size, C]
    public Tensor maxPool(Tensor x, int size) {
        Tensor y = plan.allocate(x.dtype(), x.size(0), x.size(1) / size, x.size(2) / size, x.size(3));
        record(() -> Image.maxPool(stream, y, x, size), y, x);
        return y;
    }

    /// Rows of a table. ids [N] i32 or i64, table [V, C]; [N, C]
    public final Tensor embedding(Tensor ids, Tensor table) {
        return embedding(ids, table, null, null);
    }

    /// Rows of a table and of a table of positions, added. positions [N] i32, positionTable [M, C]
    public Tensor embedding(Tensor ids, Tensor table, @Nullable Tensor positions, @Nullable Tensor positionTable) {
        Tensor y = plan.allocate(table.dtype(), ids.size(0), table.size(1));
        record(() -> Embedding.embedding(stream, y, ids, table, positions, positionTable), y, ids, table, positions,
                positionTable);
        return y;
    }

    /// Sinusoids of time steps; see [Image#timestepEmbedding]. [B, width]
    public Tensor timestepEmbedding(DType dtype, long images, long width, Tensor timesteps, @Nullable Tensor counter,
            Sinusoids order, float shift) {
        Tensor y = plan.allocate(dtype, images, width);
        record(() -> Image.timestepEmbedding(stream, y, timesteps, counter, order, shift), y, timesteps, counter);
        return y;
    }

    /// Mean cross-entropy of the softmax of each row, over the rows whose target is not [#IGNORED]. A subclass that
    /// trains overwrites the logits.
    ///
    /// @param logits    [N, V]
    /// @param targets   [N] i32 or i64
    /// @param smoothing share of the target that all classes get alike
    /// @return f32 [1]
    public Tensor crossEntropy(Tensor logits, Tensor targets, float smoothing) {
        Tensor loss = plan.allocate(DType.F32, 1);
        Tensor scratch = scratch(Softmax.crossEntropyWorkspaceBytes(stream, logits));
        record(() -> Softmax.crossEntropy(stream, loss, null, null, logits, targets, IGNORED, smoothing, null, scratch),
                loss, logits, targets, scratch);
        return loss;
    }

    /// The target of a row that does not count.
    public static final int IGNORED = -100;

    /// `mean((x - target)^2)` over all elements; f32 [1]
    public final Tensor meanSquaredError(Tensor x, Tensor target) {
        return loss(LossKind.MSE, x, target, null, (float) (1.0 / Math.max(1, x.elements())));
    }

    /// `factor sum_b weight[b] sum l(x[b], target[b])`; see [Loss]. x [B, ...], target x's shape, weight f32 [B] or
    /// null: 1; f32 [1]
    public Tensor loss(LossKind kind, Tensor x, Tensor target, @Nullable Tensor weight, float factor) {
        Tensor loss = plan.allocate(DType.F32, 1);
        Tensor scratch = scratch(Loss.lossWorkspaceBytes(stream, x));
        record(() -> Loss.loss(stream, kind, loss, null, x, target, weight, factor, null, scratch), loss, x, target,
                weight, scratch);
        return loss;
    }

    /// `factor` times the Kullback-Leibler divergence of Gaussians from the standard one; f32 [1]
    public Tensor klGaussian(Tensor mean, Tensor logvar, float factor) {
        Tensor loss = plan.allocate(DType.F32, 1);
        Tensor scratch = scratch(Loss.lossWorkspaceBytes(stream, mean));
        record(() -> Loss.klGaussian(stream, loss, null, null, mean, logvar, factor, null, scratch), loss, mean, logvar,
                scratch);
        return loss;
    }

    /// `mean + exp(logvar / 2) eps`, all of one shape.
    public Tensor gaussian(Tensor mean, Tensor logvar, Tensor eps) {
        Tensor y = plan.allocate(mean.dtype(), mean.shape());
        record(() -> Elementwise.gaussian(stream, y, mean, logvar, eps), y, mean, logvar, eps);
        return y;
    }

    /// The nearest row of a table for each row, which has no gradient; see [Quantise#nearestCode]. x [N, C], table [K,
    /// C]; i32 [N]
    public Tensor nearestCode(Tensor x, Tensor table) {
        Tensor ids = plan.allocate(DType.I32, x.size(0));
        record(() -> Quantise.nearestCode(stream, ids, x, table), ids, x, table);
        return ids;
    }

    /// `value`, whose gradient goes to `through` instead, of the same shape: what a quantiser gives. Bengio, Leonard
    /// and Courville 2013, arXiv 1308.3432.
    public Tensor straightThrough(Tensor value, Tensor through) {
        return value;
    }

    /// x, through which no gradient goes.
    public Tensor detached(Tensor x) {
        return x;
    }

    /// A contiguous copy, of any strides.
    public Tensor copy(Tensor x) {
        Tensor y = plan.allocate(x.dtype(), x.shape());
        copyInto(y, x);
        return y;
    }

    public void copyInto(Tensor y, Tensor x) {
        record(() -> Elementwise.copy(stream, y, x), y, x);
    }

    /// The same values in another dtype; x itself where it has it.
    public Tensor cast(Tensor x, DType dtype) {
        if (x.dtype() == dtype) {
            return x;
        }
        Tensor y = plan.allocate(dtype, x.shape());
        record(() -> Elementwise.cast(stream, y, x), y, x);
        return y;
    }

    /// y = x in y's dtype; any strides.
    public void castInto(Tensor y, Tensor x) {
        record(() -> Elementwise.cast(stream, y, x), y, x);
    }

    /// Heads side by side: x [N, H, D] as [N, H D].
    public static Tensor flat(Tensor x) {
        return x.reshape(x.size(0), x.size(1) * x.size(2));
    }

    /// x [..., C] as [N, C] with one step from row to row; x may be a slice of wider rows.
    public static Tensor rows(Tensor x) {
        int last = x.rank() - 1;
        if (x.isContiguous()) {
            return x.reshape(x.elements() / Math.max(1, x.size(last)), x.size(last));
        }
        long step = x.stride(last - 1);
        long n = 1;
        for (int d = last - 1; d >= 0; d--) {
            if (x.size(d) > 1 && x.stride(d) != step * n || x.stride(last) != 1) {
                throw GatunException.invalid("%s: expected rows with one step between them, copy it first", x);
            }
            n *= x.size(d);
        }
        return x.strided(new long[] {n, x.size(last)}, new long[] {step, 1});
    }

    /// x [B, ..., C] as [B, S, C].
    public static Tensor pixels(Tensor x) {
        Tensor rows = rows(x);
        long s = x.size(0) == 0 ? 0 : rows.size(0) / x.size(0);
        return rows.strided(new long[] {x.size(0), s, rows.size(1)},
                new long[] {s * rows.stride(0), rows.stride(0), 1});
    }

    /// x [B, T, H D] as [B, T, H, D].
    private static Tensor heads(Tensor x, int heads) {
        long d = x.size(2) / heads;
        if (d * heads != x.size(2)) {
            throw GatunException.invalid("attention: %d heads do not divide the width of %s", heads, x);
        }
        return x.strided(new long[] {x.size(0), x.size(1), heads, d}, new long[] {x.stride(0), x.stride(1), d, 1});
    }

    /// perImage [B, C] as x's shape [B, ..., C], the same for all pixels or tokens of an image.
    protected static Tensor broadcast(Tensor perImage, Tensor x) {
        long[] stride = new long[x.rank()];
        stride[0] = perImage.stride(0);
        stride[x.rank() - 1] = 1;
        return perImage.strided(x.shape(), stride);
    }

    /// Scratch memory of an op; null where it wants none.
    protected final @Nullable Tensor scratch(long bytes) {
        return bytes == 0 ? null : plan.allocate(DType.U8, bytes);
    }

    protected static long[] withLast(Tensor x, long size) {
        long[] shape = x.shape();
        shape[shape.length - 1] = size;
        return shape;
    }
}
