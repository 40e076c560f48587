package io.gatun.train;

import io.gatun.models.Activation;
import io.gatun.models.Layers;
import io.gatun.ops.ActivationKind;
import io.gatun.ops.Attention;
import io.gatun.ops.Attention.Mask;
import io.gatun.ops.Convolution.Geometry;
import io.gatun.ops.Convolution.Transposed;
import io.gatun.ops.Elementwise;
import io.gatun.ops.Embedding;
import io.gatun.ops.Image;
import io.gatun.ops.Linear.WeightLayout;
import io.gatun.ops.Loss;
import io.gatun.ops.LossKind;
import io.gatun.ops.Norm;
import io.gatun.ops.Reduce;
import io.gatun.ops.Rope;
import io.gatun.ops.Softmax;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.Plan;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.IdentityHashMap;
import java.util.List;
import java.util.Set;
import java.util.function.Consumer;
import java.util.function.Supplier;
import java.util.function.UnaryOperator;
import org.jspecify.annotations.Nullable;

/// Layers that learn: each call writes the forward op down as [Layers] does and leaves on a tape what writes its
/// gradients down; [#backward] unwinds the tape into the same plan. A model's forward is the same code in both.
///
/// ```java
/// Plan step = Plan.of(device, recorder -> {
///     TapedLayers net = new TapedLayers(device, stream, recorder, parameters);
///     net.meanSquaredError(model.forward(net, x), target);
///     net.backward();    // parameters' gradients
/// });
/// ```
///
/// An op that has no gradient is refused where a trained value goes into it, not skipped. What no parameter and no trained
/// value goes into costs nothing.
public class TapedLayers extends Layers {
    private final Tape tape;
    private final boolean recomputes;
    private final @Nullable Tensor lossScale;
    private final Set<Tensor> losses = Collections.newSetFromMap(new IdentityHashMap<>());
    /// Inside a layer's own code, which calls others.
    private boolean quiet;
    /// Values that will be computed again.
    private boolean untaped;
    /// Inside [#gradient].
    private boolean derives;
    private float momentum = 0.1f;
    private @Nullable Dropout dropout;
    /// Dropouts so far: each draws from numbers of its own.
    private int dropouts;

    public TapedLayers(Device device, Stream stream, Plan.Recorder plan, Parameters parameters) {
        this(device, stream, plan, parameters, false, null);
    }

    /// @param recomputes whether the values inside a [#block] are computed again for its gradients rather than kept
    /// @param lossScale  what the gradients are multiplied by, f32 [1]; null: 1
    public TapedLayers(Device device, Stream stream, Plan.Recorder plan, Parameters parameters, boolean recomputes,
            @Nullable Tensor lossScale) {
        super(device, stream, plan);
        this.tape = new Tape(stream, plan, parameters);
        this.recomputes = recomputes;
        this.lossScale = lossScale;
    }

    /// Writes the gradients of all parameters that went into the losses so far down.
    public final void backward() {
        tape.unwind();
    }

    /// `d sum(f(x)) / d x`, as a value that losses can be made of: their gradients go on through it, as the gradient
    /// penalty of a WGAN needs. Linear layers, convolutions, group and layer norm, ReLU, leaky ReLU and sums can be in
    /// f; other ops are refused by name.
    ///
    /// @param x contiguous
    /// @param f writes a computation down, of x and other values
    /// @return x's shape
    public final Tensor gradient(Tensor x, UnaryOperator<Tensor> f) {
        boolean before = derives;
        derives = true;
        try {
            return second().gradient(x, f);
        } finally {
            derives = before;
        }
    }

    private SecondOrder second() {
        return new SecondOrder(this, stream(), plan(), tape);
    }

    @Override
    protected void record(Runnable run, @Nullable Tensor... operands) {
        if (tapes(operands)) {
            throw new IllegalStateException("an op without a gradient reads or writes a trained value: "
                    + Arrays.toString(operands));
        }
        super.record(run, operands);
    }

    /// An op with a gradient of the caller's own.
    ///
    /// @param result   what the op writes whole
    /// @param operands what it reads
    /// @param run      starts the op
    /// @param backward starts the op that writes the gradient of an operand: which one, the gradient of the result, and
    ///     where to
    public final Tensor differentiable(Tensor result, List<Tensor> operands, Consumer<Stream> run, OwnGradient backward) {
        quietly(() -> op(run, all(result, operands)));
        if (!quiet && tape.wantsAny(operands.toArray(Tensor[]::new))) {
            tape.add("own op", List.of(result), Collections.unmodifiableList(new ArrayList<>(operands)), operands, () -> {
                Tensor dy = tape.requireGradient(result);
                for (int i = 0; i < operands.size(); i++) {
                    int which = i;
                    tape.give(operands.get(i), to -> backward.write(stream(), which, to, dy), all(dy, operands));
                }
            });
        }
        return result;
    }

    /// The gradient of an op of a caller's own.
    @FunctionalInterface
    public interface OwnGradient {
        /// @param operand number of the operand
        /// @param dx      receives the loss's derivative by the operand
        /// @param dy      the loss's derivative by the result
        void write(Stream stream, int operand, Tensor dx, Tensor dy);
    }

    private static Tensor[] all(Tensor first, List<Tensor> others) {
        List<Tensor> list = new ArrayList<>(others);
        list.addFirst(first);
        return list.toArray(Tensor[]::new);
    }

    final Tape tape() {
        return tape;
    }

    /// Whether an op on these leaves an entry.
    final boolean tapes(@Nullable Tensor... operands) {
        if (quiet || untaped) {
            return false;
        }
        for (Tensor operand : operands) {
            if (operand != null && isLoss(operand)) {
                throw new IllegalStateException("a loss can only be added to others: give it its factor when it is made");
            }
        }
        return tape.wantsAny(operands);
    }

    /// Whether a tensor is a loss whose gradients are on the tape, or a sum of such.
    public final boolean isLoss(Tensor x) {
        return losses.contains(x.base());
    }

    /// A loss's gradients are computed with it, since nothing but the loss scale is applied to them.
    private Tensor lossOf(Tensor loss, Runnable backward) {
        losses.add(loss.base());
        tape.root(backward);
        return loss;
    }

    /// The gradient is written over the logits.
    @Override
    public Tensor crossEntropy(Tensor logits, Tensor targets, float smoothing) {
        if (!tapes(logits)) {
            return quietly(() -> super.crossEntropy(logits, targets, smoothing));
        }
        Tensor loss = allocate(DType.F32, 1);
        Tensor scratch = scratch(Softmax.crossEntropyWorkspaceBytes(stream(), logits));
        plan().op(() -> Softmax.crossEntropy(stream(), loss, null, logits, logits, targets, IGNORED, smoothing, lossScale,
                scratch), loss, logits, targets, lossScale, scratch);
        tape.changed(logits);
        return lossOf(loss, () -> tape.pass(logits, logits));
    }

    @Override
    public Tensor loss(LossKind kind, Tensor x, Tensor target, @Nullable Tensor weight, float factor) {
        if (!tapes(x)) {
            return quietly(() -> super.loss(kind, x, target, weight, factor));
        }
        if (tapes(target)) {
            throw new IllegalStateException("a loss has no gradient by its target");
        }
        Tensor loss = allocate(DType.F32, 1);
        Tensor dx = allocate(x.dtype(), x.shape());
        Tensor scratch = scratch(Loss.lossWorkspaceBytes(stream(), x));
        plan().op(() -> Loss.loss(stream(), kind, loss, dx, x, target, weight, factor, lossScale, scratch), loss, dx, x,
                target, weight, lossScale, scratch);
        return lossOf(loss, () -> tape.pass(x, dx));
    }

    @Override
    public Tensor klGaussian(Tensor mean, Tensor logvar, float factor) {
        if (!tapes(mean, logvar)) {
            return quietly(() -> super.klGaussian(mean, logvar, factor));
        }
        Tensor loss = allocate(DType.F32, 1);
        Tensor dMean = allocate(mean.dtype(), mean.shape());
        Tensor dLogvar = allocate(mean.dtype(), mean.shape());
        Tensor scratch = scratch(Loss.lossWorkspaceBytes(stream(), mean));
        plan().op(() -> Loss.klGaussian(stream(), loss, dMean, dLogvar, mean, logvar, factor, lossScale, scratch), loss,
                dMean, dLogvar, mean, logvar, lossScale, scratch);
        return lossOf(loss, () -> {
            tape.pass(mean, dMean);
            tape.pass(logvar, dLogvar);
        });
    }

    @Override
    public Tensor gaussian(Tensor mean, Tensor logvar, Tensor eps) {
        Tensor y = quietly(() -> super.gaussian(mean, logvar, eps));
        if (tapes(mean, logvar)) {
            entry("gaussian", y, list(mean, logvar), list(logvar), dy -> {
                tape.pass(mean, dy);
                tape.give(logvar, to -> Elementwise.gaussianBackward(stream(), to, dy, logvar, eps), dy, logvar, eps);
            });
        }
        return y;
    }

    final <T> T quietly(Supplier<T> work) {
        boolean before = quiet;
        quiet = true;
        try {
            return work.get();
        } finally {
            quiet = before;
        }
    }

    final void quietly(Runnable work) {
        quietly(() -> {
            work.run();
            return true;
        });
    }

    /// Leaves an entry for a result that goes on from the operands.
    final Tape.Entry entry(String op, Tensor result, List<@Nullable Tensor> operands, List<@Nullable Tensor> saved,
            Consumer<Tensor> backward) {
        return tape.add(op, List.of(result), operands, saved, () -> backward.accept(tape.requireGradient(result)));
    }

    private static List<@Nullable Tensor> list(@Nullable Tensor... tensors) {
        return Arrays.asList(tensors);
    }

    @Override
    public Branches block(Supplier<Branches> body) {
        if (quiet || untaped || derives || !recomputes) {
            return body.get();
        }
        int first = dropouts;
        untaped = true;
        Branches y;
        try {
            y = body.get();
        } finally {
            untaped = false;
        }
        List<Tensor> results = y.added() == null ? List.of(y.stream()) : List.of(y.stream(), y.added());
        tape.add("block", results, List.of(), List.of(), () -> {
            Tensor dStream = tape.gradient(y.stream());
            Tensor dAdded = y.added() == null ? null : tape.gradient(y.added());
            tape.unwindInner(() -> {
                dropouts = first;
                Branches again = body.get();
                if (dStream != null) {
                    tape.pass(again.stream(), dStream);
                }
                if (dAdded != null) {
                    tape.pass(again.added(), dAdded);
                }
            });
        });
        return y;
    }

    @Override
    protected Tensor product(Tensor x, Tensor weight, @Nullable Tensor bias, WeightLayout layout) {
        if (!tapes(x, weight, bias)) {
            return quietly(() -> super.product(x, weight, bias, layout));
        }
        Tensor y = allocate(x.dtype(), withLast(x, weight.size(layout == WeightLayout.OUT_IN ? 0 : 1)));
        Tensor in = rows(x);
        Tensor out = rows(y);
        plan().op(() -> device().matmul(stream(), out, in, weight, bias, layout), y, x, weight, bias);
        entry("linear", y, list(x, weight, bias), list(x, weight), dy -> {
            Tensor dOut = rows(dy);
            tape.give(x, to -> device().matmul(stream(), rows(to), dOut, weight, null, turned(layout)), dy, weight);
            boolean outIn = layout == WeightLayout.OUT_IN;
            tape.give(weight, to -> device().matmulOuter(stream(), to, outIn ? dOut : in, outIn ? in : dOut), dy, x);
            giveColumnSums(bias, dy);
        }).derivative(x, dy -> product(dy, weight, null, turned(layout)));
        return y;
    }

    private static WeightLayout turned(WeightLayout layout) {
        return layout == WeightLayout.OUT_IN ? WeightLayout.IN_OUT : WeightLayout.OUT_IN;
    }

    @Override
    public Tensor linearActivation(Tensor x, Tensor weight, @Nullable Tensor bias, WeightLayout layout,
            Activation activation) {
        return quiet ? super.linearActivation(x, weight, bias, layout, activation)
                : activation(linear(x, weight, bias, layout), activation);
    }

    @Override
    public Tensor linearRowwise(Tensor x, Tensor weight, @Nullable Tensor bias) {
        return tapes(x, weight, bias) ? linear(x, weight, bias, WeightLayout.OUT_IN)
                : quietly(() -> super.linearRowwise(x, weight, bias));
    }

    /// The sum of all rows, for a bias. dy [..., F]; [F]
    private void giveColumnSums(@Nullable Tensor bias, Tensor dy) {
        if (tape.wants(bias)) {
            Tensor rows = rows(dy);
            Tensor one = rows.strided(new long[] {1, rows.size(0), rows.size(1)},
                    new long[] {rows.size(0) * rows.stride(0), rows.stride(0), 1});
            giveSums(bias, one, null);
        }
    }

    /// `sum_s a b` into a gradient [B, C] or [C]. a, b [B, S, C]
    private void giveSums(Tensor operand, Tensor a, @Nullable Tensor b) {
        Tensor scratch = scratch(Reduce.sumRowsWorkspaceBytes(stream(), a));
        tape.give(operand, to -> Reduce.sumRows(stream(), to.reshape(a.size(0), a.size(2)), a, b, scratch), a, b,
                scratch);
    }

    @Override
    protected void convolve(Tensor y, Tensor x, Tensor weight, @Nullable Tensor bias, Geometry g,
            ActivationKind activation) {
        device().trainingConvolution(stream(), y, x, weight, bias, g, activation);
    }

    @Override
    protected void convolveTransposed(Tensor y, Tensor x, Tensor weight, @Nullable Tensor bias, Transposed g,
            ActivationKind activation) {
        device().trainingTransposedConvolution(stream(), y, x, weight, bias, g, activation);
    }

    @Override
    public void convInto(Tensor y, Tensor x, Tensor weight, @Nullable Tensor bias, Geometry g,
            ActivationKind activation) {
        if (!tapes(x, weight, bias)) {
            quietly(() -> super.convInto(y, x, weight, bias, g, activation));
            return;
        }
        if (activation != ActivationKind.NONE) {
            Tensor h = allocate(y.dtype(), y.shape());
            convInto(h, x, weight, bias, g, ActivationKind.NONE);
            activationInto(y, h, Activation.of(activation));
            return;
        }
        quietly(() -> super.convInto(y, x, weight, bias, g, ActivationKind.NONE));
        Tensor channelsLast = weight.permute(0, 2, 3, 1);
        Tape.Entry entry = entry("convolution", y, list(x, weight, bias), list(x, weight), dy -> {
            Tensor dense = quietly(() -> dense(dy));
            tape.give(x, to -> device().convolutionInputGradient(stream(), to, dense, channelsLast, g), dense, weight);
            Tensor in = tape.wants(weight) ? quietly(() -> dense(x)) : x;
            tape.give(weight, to -> device().convolutionWeightGradient(stream(), to.permute(0, 2, 3, 1), dense, in, g),
                    dense, in);
            giveColumnSums(bias, dense);
        });
        Transposed turned = SecondOrder.turned(g, x, weight);
        if (turned != null) {
            entry.derivative(x, dy -> convTranspose(dy, weight, null, turned, ActivationKind.NONE));
        }
    }

    @Override
    public Tensor convTranspose(Tensor x, Tensor weight, @Nullable Tensor bias, Transposed g,
            ActivationKind activation) {
        if (!tapes(x, weight, bias)) {
            return quietly(() -> super.convTranspose(x, weight, bias, g, activation));
        }
        if (activation != ActivationKind.NONE) {
            return activation(convTranspose(x, weight, bias, g, ActivationKind.NONE), Activation.of(activation));
        }
        Tensor y = quietly(() -> super.convTranspose(x, weight, bias, g, ActivationKind.NONE));
        Tensor channelsLast = weight.permute(0, 2, 3, 1);
        entry("transposed convolution", y, list(x, weight, bias), list(x, weight), dy -> {
            tape.give(x, to -> device().transposedConvolutionInputGradient(stream(), to, dy, channelsLast, g), dy, weight);
            tape.give(weight, to -> device().transposedConvolutionWeightGradient(stream(), to.permute(0, 2, 3, 1), dy, x,
                    g), dy, x);
            giveColumnSums(bias, dy);
        }).derivative(x, dy -> conv(dy, weight, null, SecondOrder.turned(g)));
        return y;
    }

    @Override
    public Tensor groupNorm(Tensor x, @Nullable Tensor weight, @Nullable Tensor bias, @Nullable Tensor scale,
            @Nullable Tensor shift, int groups, float eps, ActivationKind activation) {
        if (!tapes(x, weight, bias, scale, shift)) {
            return quietly(() -> super.groupNorm(x, weight, bias, scale, shift, groups, eps, activation));
        }
        Tensor y = allocate(x.dtype(), x.shape());
        Tensor mean = allocate(DType.F32, x.size(0), groups);
        Tensor rstd = allocate(DType.F32, x.size(0), groups);
        Tensor in = pixels(x);
        Tensor out = pixels(y);
        Tensor scratch = scratch(Norm.groupNormWorkspaceBytes(stream(), in, groups));
        plan().op(() -> Norm.groupNorm(stream(), out, mean, rstd, in, weight, bias, scale, shift, groups, eps, activation,
                scratch), y, mean, rstd, x, weight, bias, scale, shift, scratch);
        List<@Nullable Tensor> operands = list(x, weight, bias, scale, shift);
        Tape.Entry entry = entry("group norm", y, operands, operands, dy -> {
            Tensor dOut = pixels(dy);
            Tape.Slot dx = tape.slot(x);
            Tape.Slot dWeight = tape.slot(weight);
            Tape.Slot dBias = tape.slot(bias);
            Tape.Slot dScale = tape.slot(scale);
            Tape.Slot dShift = tape.slot(shift);
            Tensor to = dx == null ? allocate(x.dtype(), x.shape()) : dx.target();
            Tensor toPixels = pixels(to);
            Tensor again = scratch(Norm.groupNormBackwardWorkspaceBytes(stream(), in, groups));
            plan().op(() -> Norm.groupNormBackward(stream(), toPixels, Tape.target(dWeight), Tape.target(dBias),
                    Tape.target(dScale), Tape.target(dShift), dOut, in, mean, rstd, weight, bias, scale, shift, groups,
                    activation, again), to, Tape.target(dWeight), Tape.target(dBias), Tape.target(dScale),
                    Tape.target(dShift), dy, x, mean, rstd, weight, bias, scale, shift, again);
            Tape.finish(dx, dWeight, dBias, dScale, dShift);
        });
        if (scale == null && shift == null && activation == ActivationKind.NONE) {
            entry.derivative(x, dy -> second().groupNorm(dy, x, mean, rstd, weight, groups));
        }
        return y;
    }

    @Override
    public Tensor layerNorm(Tensor x, @Nullable Tensor weight, @Nullable Tensor bias, float eps) {
        if (quiet) {
            return quietly(() -> super.layerNorm(x, weight, bias, eps));
        }
        return normalised(x, null, weight, bias, eps, true).normed();
    }

    @Override
    public Residual addLayerNorm(Tensor x, Tensor residual, @Nullable Tensor weight, @Nullable Tensor bias, float eps) {
        if (quiet) {
            return quietly(() -> super.addLayerNorm(x, residual, weight, bias, eps));
        }
        return normalised(x, residual, weight, bias, eps, true);
    }

    @Override
    public Tensor rmsNorm(Tensor x, @Nullable Tensor weight, float eps) {
        if (quiet) {
            return quietly(() -> super.rmsNorm(x, weight, eps));
        }
        return normalised(x, null, weight, null, eps, false).normed();
    }

    @Override
    public Residual addRmsNorm(Tensor x, Tensor residual, @Nullable Tensor weight, float eps) {
        if (quiet) {
            return quietly(() -> super.addRmsNorm(x, residual, weight, eps));
        }
        return normalised(x, residual, weight, null, eps, false);
    }

    /// Layer norm (`centres`) or RMS norm of `x + residual`.
    private Residual normalised(Tensor x, @Nullable Tensor residual, @Nullable Tensor weight, @Nullable Tensor bias,
            float eps, boolean centres) {
        Tensor sum = residual == null ? x : allocate(x.dtype(), x.shape());
        Tensor sumOut = residual == null ? null : sum;
        Tensor y = allocate(x.dtype(), x.shape());
        long n = rows(x).size(0);
        Tensor mean = centres ? allocate(DType.F32, n) : null;
        Tensor rstd = allocate(DType.F32, n);
        plan().op(() -> {
            if (centres) {
                Norm.layerNorm(stream(), y, sumOut, mean, rstd, x, residual, weight, bias, eps);
            } else {
                Norm.rmsNorm(stream(), y, sumOut, rstd, x, residual, weight, eps);
            }
        }, y, sumOut, mean, rstd, x, residual, weight, bias);
        if (!tapes(x, residual, weight, bias)) {
            return new Residual(sum, y);
        }
        List<Tensor> results = residual == null ? List.of(y) : List.of(sum, y);
        List<@Nullable Tensor> operands = list(x, residual, weight, bias);
        String name = centres ? "layer norm" : "rms norm";
        Tape.Entry entry = tape.add(name, results, operands, list(sum, weight), () -> {
            Tensor dSum = residual == null ? null : tape.gradient(sum);
            Tensor dy = tape.gradient(y);
            if (dy == null) {
                tape.pass(x, dSum);
                tape.pass(residual, dSum);
                return;
            }
            Tape.Slot dx = tape.slot(x);
            Tape.Slot dWeight = tape.slot(weight);
            Tape.Slot dBias = tape.slot(bias);
            Tensor to = dx == null ? allocate(x.dtype(), x.shape()) : dx.target();
            Tensor scratch = scratch(centres ? Norm.layerNormBackwardWorkspaceBytes(stream(), x)
                    : Norm.rmsNormBackwardWorkspaceBytes(stream(), x));
            plan().op(() -> {
                if (centres) {
                    Norm.layerNormBackward(stream(), to, Tape.target(dWeight), Tape.target(dBias), dy, sum, mean, rstd,
                            weight, dSum, scratch);
                } else {
                    Norm.rmsNormBackward(stream(), to, Tape.target(dWeight), dy, sum, rstd, weight, dSum, scratch);
                }
            }, to, Tape.target(dWeight), Tape.target(dBias), dy, sum, mean, rstd, weight, dSum, scratch);
            tape.pass(residual, to);
            Tape.finish(dx, dWeight, dBias);
        });
        if (centres && residual == null) {
            long[] rowByRow = {n, 1, x.size(-1)};
            entry.derivative(x, dy -> second().groupNorm(dy.reshape(rowByRow), x.reshape(rowByRow), mean.reshape(n, 1),
                    rstd.reshape(n, 1), weight, 1).reshape(x.shape()));
        }
        return new Residual(sum, y);
    }

    @Override
    public Tensor attention(Tensor q, Tensor k, Tensor v, float scale, Mask mask) {
        if (!tapes(q, k, v)) {
            return quietly(() -> super.attention(q, k, v, scale, mask));
        }
        Tensor y = allocate(q.dtype(), q.shape());
        Tensor lse = allocate(DType.F32, q.size(0), q.size(2), q.size(1));
        Tensor scratch = scratch(Attention.workspaceBytes(stream(), q, k));
        plan().op(() -> Attention.attention(stream(), y, lse, q, k, v, null, null, scale, mask, scratch), y, lse, q, k, v,
                scratch);
        entry("attention", y, list(q, k, v), list(q, k, v, y), dy -> {
            Tape.Slot dq = tape.slot(q);
            Tape.Slot dk = tape.slot(k);
            Tape.Slot dv = tape.slot(v);
            Tensor toQ = dq == null ? allocate(q.dtype(), q.shape()) : dq.target();
            Tensor toK = dk == null ? allocate(k.dtype(), k.shape()) : dk.target();
            Tensor toV = dv == null ? allocate(v.dtype(), v.shape()) : dv.target();
            Tensor again = scratch(Attention.attentionBackwardWorkspaceBytes(stream(), q, k));
            plan().op(() -> Attention.attentionBackward(stream(), toQ, toK, toV, null, dy, y, lse, q, k, v, null, null,
                    scale, mask, again), toQ, toK, toV, dy, y, lse, q, k, v, again);
            Tape.finish(dq, dk, dv);
        });
        return y;
    }

    @Override
    public void addInto(Tensor y, Tensor a, Tensor b) {
        quietly(() -> super.addInto(y, a, b));
        if (!quiet && isLoss(a) && isLoss(b)) {
            losses.add(y.base());
        } else if (tapes(a, b)) {
            tape.changed(y.base() == a.base() || y.base() == b.base() ? y : null);
            entry("add", y, list(a, b), list(), dy -> {
                tape.pass(a, dy);
                tape.pass(b, dy);
            }).derivative(a, dy -> dy).derivative(b, dy -> dy);
        }
    }

    @Override
    public Tensor addPerImage(Tensor x, Tensor perImage) {
        if (quiet) {
            return quietly(() -> super.addPerImage(x, perImage));
        }
        Tensor y = allocate(x.dtype(), x.shape());
        Tensor wide = broadcast(perImage, x);
        plan().op(() -> Elementwise.add(stream(), y, x, wide), y, x, perImage);
        if (tapes(x, perImage)) {
            entry("add per image", y, list(x, perImage), list(), dy -> {
                tape.pass(x, dy);
                if (tape.wants(perImage)) {
                    giveSums(perImage, pixels(dy), null);
                }
            });
        }
        return y;
    }

    /// What the dropouts of a network drop.
    ///
    /// @param probability of each element
    /// @param step        number of the training's step, i32 [1]: each draws anew
    public record Dropout(float probability, long seed, Tensor step) {}

    /// From now on, [#dropout] drops.
    public final void dropOut(Dropout settings) {
        dropout = settings;
    }

    @Override
    public Tensor dropout(Tensor x) {
        Dropout d = dropout;
        if (d == null || d.probability == 0) {
            return x;
        }
        int layer = dropouts++;
        Tensor y = allocate(x.dtype(), x.shape());
        plan().op(() -> Elementwise.dropout(stream(), y, x, d.probability, d.seed, d.step, layer), y, x, d.step);
        if (tapes(x)) {
            entry("dropout", y, list(x), list(), dy -> tape.give(x, to -> Elementwise.dropout(stream(), to, dy,
                    d.probability, d.seed, d.step, layer), dy, d.step));
        }
        return y;
    }

    @Override
    public Tensor scale(Tensor x, float factor) {
        quietly(() -> super.scale(x, factor));
        if (factor != 1 && tapes(x)) {
            tape.changed(x);
            tape.add("scale", List.of(x), list(), list(), () ->
                    tape.rewrite(x, dx -> Elementwise.scale(stream(), dx, dx, factor)));
        }
        return x;
    }

    @Override
    public Tensor rope(Tensor x, Tensor positions, Tensor table, Rope.Pairing pairing) {
        if (quiet) {
            return quietly(() -> super.rope(x, positions, table, pairing));
        }
        Tensor y = allocate(x.dtype(), x.shape());
        plan().op(() -> Rope.rope(stream(), y, x, positions, table, pairing), y, x, positions, table);
        if (tapes(x)) {
            entry("rope", y, list(x), list(), dy -> tape.give(x, to ->
                    Rope.ropeBackward(stream(), to, dy, positions, table, pairing), dy, positions, table));
        }
        return y;
    }

    @Override
    public Tensor modulate(Tensor x, Tensor scale, Tensor shift) {
        Tensor y = quietly(() -> super.modulate(x, scale, shift));
        if (tapes(x, scale, shift)) {
            entry("modulate", y, list(x, scale, shift), list(x, scale), dy -> {
                Tensor wide = broadcast(scale, x);
                Tensor zero = allocate(x.dtype(), 1);
                plan().op(() -> Elementwise.fill(stream(), zero, 0), zero);
                Tensor nothing = zero.strided(x.shape(), new long[x.rank()]);
                tape.give(x, to -> Elementwise.modulate(stream(), to, dy, wide, nothing), dy, scale, zero);
                if (tape.wants(scale)) {
                    giveSums(scale, pixels(dy), pixels(x));
                }
                if (tape.wants(shift)) {
                    giveSums(shift, pixels(dy), null);
                }
            });
        }
        return y;
    }

    @Override
    public Tensor addGated(Tensor x, Tensor gate, Tensor h) {
        Tensor y = quietly(() -> super.addGated(x, gate, h));
        if (tapes(x, gate, h)) {
            entry("add gated", y, list(x, gate, h), list(gate, h), dy -> {
                tape.pass(x, dy);
                Tensor wide = broadcast(gate, dy);
                tape.give(h, to -> Elementwise.mul(stream(), to, dy, wide), dy, gate);
                if (tape.wants(gate)) {
                    giveSums(gate, pixels(dy), pixels(h));
                }
            });
        }
        return y;
    }

    @Override
    public void activationInto(Tensor y, Tensor x, Activation activation) {
        quietly(() -> super.activationInto(y, x, activation));
        if (tapes(x)) {
            entry(activation.toString(), y, list(x), list(x, y), dy ->
                    tape.give(x, to -> activation.backward(stream(), to, dy, x, y), dy, x, y))
                    .derivative(activation == Activation.RELU ? x : null, dy -> second().relu(dy, x, y));
        }
    }

    @Override
    public Tensor leakyRelu(Tensor x, float slope) {
        Tensor y = quietly(() -> super.leakyRelu(x, slope));
        if (tapes(x)) {
            entry("leaky relu", y, list(x), list(x), dy ->
                    tape.give(x, to -> Elementwise.leakyReluBackward(stream(), to, dy, x, slope), dy, x))
                    .derivative(x, dy -> second().leakyRelu(dy, x, slope));
        }
        return y;
    }

    @Override
    public Tensor geglu(Tensor x) {
        Tensor y = quietly(() -> super.geglu(x));
        if (tapes(x)) {
            int last = x.rank() - 1;
            long f = y.size(last);
            Tensor value = x.slice(last, 0, f);
            Tensor gate = x.slice(last, f, 2 * f);
            entry("geglu", y, list(x), list(x), dy -> tape.give(x, to -> Elementwise.gegluBackward(stream(),
                    to.slice(last, f, 2 * f), to.slice(last, 0, f), dy, gate, value), dy, x));
        }
        return y;
    }

    @Override
    public Tensor swiglu(Tensor gate, Tensor up) {
        if (quiet) {
            return quietly(() -> super.swiglu(gate, up));
        }
        Tensor y = allocate(gate.dtype(), gate.shape());
        plan().op(() -> Elementwise.swiglu(stream(), y, gate, up), y, gate, up);
        if (!tapes(gate, up)) {
            return y;
        }
        entry("swiglu", y, list(gate, up), list(gate, up), dy -> {
            Tape.Slot dGate = tape.slot(gate);
            Tape.Slot dUp = tape.slot(up);
            Tensor toGate = dGate == null ? allocate(gate.dtype(), gate.shape()) : dGate.target();
            Tensor toUp = dUp == null ? allocate(up.dtype(), up.shape()) : dUp.target();
            plan().op(() -> Elementwise.swigluBackward(stream(), toGate, toUp, dy, gate, up), toGate, toUp, dy, gate, up);
            Tape.finish(dGate, dUp);
        });
        return y;
    }

    @Override
    public Tensor upsample(Tensor x, long height, long width) {
        Tensor y = quietly(() -> super.upsample(x, height, width));
        if (tapes(x)) {
            entry("upsample", y, list(x), list(), dy ->
                    tape.give(x, to -> Image.upsampleNearestBackward(stream(), to, dy), dy));
        }
        return y;
    }

    @Override
    public Tensor averagePool(Tensor x, int size) {
        Tensor y = quietly(() -> super.averagePool(x, size));
        if (tapes(x)) {
            entry("average pool", y, list(x), list(), dy ->
                    tape.give(x, to -> Image.averagePoolBackward(stream(), to, dy, size), dy));
        }
        return y;
    }

    @Override
    public Tensor maxPool(Tensor x, int size) {
        Tensor y = quietly(() -> super.maxPool(x, size));
        if (tapes(x)) {
            entry("max pool", y, list(x), list(x), dy ->
                    tape.give(x, to -> Image.maxPoolBackward(stream(), to, dy, x, size), dy, x));
        }
        return y;
    }

    /// Normalises by the statistics of the batch, and moves the running ones towards them ([#batchNormMomentum]).
    @Override
    public Tensor batchNorm(Tensor x, Tensor runningMean, Tensor runningVariance, @Nullable Tensor weight,
            @Nullable Tensor bias, float eps, ActivationKind activation) {
        Tensor y = allocate(x.dtype(), x.shape());
        Tensor mean = allocate(DType.F32, x.size(-1));
        Tensor rstd = allocate(DType.F32, x.size(-1));
        Tensor in = pixels(x);
        Tensor out = pixels(y);
        boolean moves = momentum != 0;
        Tensor scratch = scratch(Norm.batchNormTrainWorkspaceBytes(stream(), in));
        float share = momentum;
        plan().op(() -> Norm.batchNormTrain(stream(), out, mean, rstd, moves ? runningMean : null,
                moves ? runningVariance : null, in, weight, bias, share, eps, activation, scratch), y, mean, rstd, x, weight,
                bias, scratch);
        if (!tapes(x, weight, bias)) {
            return y;
        }
        entry("batch norm", y, list(x, weight, bias), list(x, weight, bias), dy -> {
            Tensor dOut = pixels(dy);
            Tape.Slot dx = tape.slot(x);
            Tape.Slot dWeight = tape.slot(weight);
            Tape.Slot dBias = tape.slot(bias);
            Tensor to = dx == null ? allocate(x.dtype(), x.shape()) : dx.target();
            Tensor toPixels = pixels(to);
            Tensor again = scratch(Norm.batchNormBackwardWorkspaceBytes(stream(), in));
            plan().op(() -> Norm.batchNormBackward(stream(), toPixels, Tape.target(dWeight), Tape.target(dBias), dOut, in,
                    mean, rstd, weight, bias, activation, again), to, Tape.target(dWeight), Tape.target(dBias), dy, x, mean,
                    rstd, weight, bias, again);
            Tape.finish(dx, dWeight, dBias);
        });
        return y;
    }

    /// What share of a batch's statistics the running ones of the batch norms that follow take: 0.1 at first; 0: they stay.
    public final void batchNormMomentum(float share) {
        momentum = share;
    }

    @Override
    public Tensor embedding(Tensor ids, Tensor table, @Nullable Tensor positions, @Nullable Tensor positionTable) {
        Tensor y = quietly(() -> super.embedding(ids, table, positions, positionTable));
        if (tapes(table, positionTable)) {
            entry("embedding", y, list(table, positionTable), list(), dy -> {
                giveRows(table, dy, ids);
                if (positionTable != null && positions != null) {
                    giveRows(positionTable, dy, positions);
                }
            });
        }
        return y;
    }

    private void giveRows(Tensor table, Tensor dy, Tensor ids) {
        if (tape.wants(table)) {
            Tensor scratch = scratch(Embedding.embeddingBackwardWorkspaceBytes(stream(), table, ids));
            tape.give(table, to -> Embedding.embeddingBackward(stream(), to, dy, ids, scratch), dy, ids, scratch);
        }
    }

    @Override
    public Tensor nearestCode(Tensor x, Tensor table) {
        return quietly(() -> super.nearestCode(x, table));
    }

    @Override
    public Tensor straightThrough(Tensor value, Tensor through) {
        Tensor y = detached(value);
        if (tapes(through)) {
            entry("straight through", y, list(through), list(), dy -> tape.pass(through, dy));
        }
        return y;
    }

    @Override
    public Tensor detached(Tensor x) {
        return quietly(() -> copy(x));
    }

    @Override
    public void copyInto(Tensor y, Tensor x) {
        quietly(() -> super.copyInto(y, x));
        if (tapes(x)) {
            entry("copy", y, list(x), list(), dy -> tape.pass(x, dy)).derivative(x, dy -> dy);
        }
    }

    @Override
    public void castInto(Tensor y, Tensor x) {
        quietly(() -> super.castInto(y, x));
        if (tapes(x)) {
            entry("cast", y, list(x), list(), dy -> tape.give(x, to -> Elementwise.cast(stream(), to, dy), dy));
        }
    }
}
