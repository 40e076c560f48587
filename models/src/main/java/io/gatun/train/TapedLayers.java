package io.gatun.train;

import io.gatun.models.Activation;
import io.gatun.models.Layers;
import io.gatun.ops.Attention.Mask;
import io.gatun.ops.Attention;
import io.gatun.ops.Elementwise;
import io.gatun.ops.Embedding;
import io.gatun.ops.Linear.WeightLayout;
import io.gatun.ops.Loss;
import io.gatun.ops.LossKind;
import io.gatun.ops.Norm;
import io.gatun.ops.Rope;
import io.gatun.ops.Softmax;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.Plan;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import java.util.List;
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
/// An op that has no gradient is refused where a trained value goes into it, not skipped. What no parameter and no
/// trained value goes into costs nothing.
public final class TapedLayers extends TapedImageLayers {
    private static final int VECTOR_BYTES = 16;

    public TapedLayers(Device device, Stream stream, Plan.Recorder plan, Parameters parameters) {
        this(device, stream, plan, parameters, false, null);
    }

    /// @param recomputes whether the values inside a [#block] are computed again for its gradients rather than kept
    /// @param lossScale  what the gradients are multiplied by, f32 [1]; null: 1
    public TapedLayers(Device device, Stream stream, Plan.Recorder plan, Parameters parameters, boolean recomputes,
            @Nullable Tensor lossScale) {
        super(device, stream, plan, parameters, recomputes, lossScale);
    }

    /// The gradient is written over the logits.
    @Override
    public Tensor crossEntropy(Tensor logits, Tensor targets, float smoothing) {
        if (!tapes(logits)) {
            return quietly(() -> super.crossEntropy(logits, targets, smoothing));
        }
        Tensor loss = allocate(DType.F32, 1);
        Tensor scratch = scratch(Softmax.crossEntropyWorkspaceBytes(stream(), logits));
        plan().op(() -> Softmax.crossEntropy(stream(), loss, null, logits, logits, targets, IGNORED, smoothing,
                lossScale(),
                scratch), loss, logits, targets, lossScale(), scratch);
        tape().changed(logits);
        return lossOf(loss, () -> tape().pass(logits, logits));
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
        plan().op(() -> Loss.loss(stream(), kind, loss, dx, x, target, weight, factor, lossScale(), scratch), loss,
                dx, x,
                target, weight, lossScale(), scratch);
        return lossOf(loss, () -> tape().pass(x, dx));
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
        plan().op(() -> Loss.klGaussian(stream(), loss, dMean, dLogvar, mean, logvar, factor, lossScale(), scratch),
                loss,
                dMean, dLogvar, mean, logvar, lossScale(), scratch);
        return lossOf(loss, () -> {
            tape().pass(mean, dMean);
            tape().pass(logvar, dLogvar);
        });
    }

    @Override
    public Tensor gaussian(Tensor mean, Tensor logvar, Tensor eps) {
        Tensor y = quietly(() -> super.gaussian(mean, logvar, eps));
        if (tapes(mean, logvar)) {
            entry("gaussian", y, list(mean, logvar), list(logvar), dy -> {
                tape().pass(mean, dy);
                tape().give(logvar, to -> Elementwise.gaussianBackward(stream(), to, dy, logvar, eps), dy, logvar, eps);
            });
        }
        return y;
    }

    /// Their rows begin at multiples of 16 bytes, whatever V is: products and the loss then move whole vectors, of them
    /// and of their gradients, which take their place.
    @Override
    public Tensor logits(Tensor x, Tensor weight) {
        if (!tapes(x, weight) || isAdapted(weight)) {
            return super.logits(x, weight);
        }
        long v = weight.size(0);
        long whole = VECTOR_BYTES / x.dtype().bytes();
        Tensor rows = allocate(x.dtype(), x.size(0), (v + whole - 1) / whole * whole);
        return tapedProduct(rows.slice(1, 0, v), x, weight, null, WeightLayout.OUT_IN);
    }

    @Override
    protected Tensor product(Tensor x, Tensor weight, @Nullable Tensor bias, WeightLayout layout) {
        if (!tapes(x, weight, bias)) {
            return quietly(() -> super.product(x, weight, bias, layout));
        }
        return tapedProduct(allocate(x.dtype(), withLast(x, weight.size(layout == WeightLayout.OUT_IN ? 0 : 1))), x,
                weight, bias, layout);
    }

    private Tensor tapedProduct(Tensor y, Tensor x, Tensor weight, @Nullable Tensor bias, WeightLayout layout) {
        Tensor in = rows(x);
        Tensor out = rows(y);
        plan().op(() -> device().matmul(stream(), out, in, weight, bias, layout), y, x, weight, bias);
        entry("linear", y, list(x, weight, bias), list(x, weight), dy -> {
            Tensor dOut = rows(dy);
            tape().give(x, to -> device().matmul(stream(), rows(to), dOut, weight, null, turned(layout)), dy, weight);
            boolean outIn = layout == WeightLayout.OUT_IN;
            tape().give(weight, to -> device().matmulOuter(stream(), to, outIn ? dOut : in, outIn ? in : dOut), dy, x);
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
        return isQuiet() ? super.linearActivation(x, weight, bias, layout, activation)
                : activation(linear(x, weight, bias, layout), activation);
    }

    @Override
    public Tensor linearRowwise(Tensor x, Tensor weight, @Nullable Tensor bias) {
        return tapes(x, weight, bias) ? linear(x, weight, bias, WeightLayout.OUT_IN)
                : quietly(() -> super.linearRowwise(x, weight, bias));
    }

    @Override
    public Tensor layerNorm(Tensor x, @Nullable Tensor weight, @Nullable Tensor bias, float eps) {
        if (isQuiet()) {
            return quietly(() -> super.layerNorm(x, weight, bias, eps));
        }
        return normalised(x, null, weight, bias, eps, true).normed();
    }

    @Override
    public Residual addLayerNorm(Tensor x, Tensor residual, @Nullable Tensor weight, @Nullable Tensor bias, float eps) {
        if (isQuiet()) {
            return quietly(() -> super.addLayerNorm(x, residual, weight, bias, eps));
        }
        return normalised(x, residual, weight, bias, eps, true);
    }

    @Override
    public Tensor rmsNorm(Tensor x, @Nullable Tensor weight, float eps) {
        if (isQuiet()) {
            return quietly(() -> super.rmsNorm(x, weight, eps));
        }
        return normalised(x, null, weight, null, eps, false).normed();
    }

    @Override
    public Residual addRmsNorm(Tensor x, Tensor residual, @Nullable Tensor weight, float eps) {
        if (isQuiet()) {
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
        Tape.Entry entry = tape().add(name, results, operands, list(sum, weight), () -> {
            Tensor dSum = residual == null ? null : tape().gradient(sum);
            Tensor dy = tape().gradient(y);
            if (dy == null) {
                tape().pass(x, dSum);
                tape().pass(residual, dSum);
                return;
            }
            Tape.Slot dx = tape().slot(x);
            Tape.Slot dWeight = tape().slot(weight);
            Tape.Slot dBias = tape().slot(bias);
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
            tape().pass(residual, to);
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
        plan().op(() -> Attention.attention(stream(), y, lse, q, k, v, null, null, scale, mask, scratch), y, lse, q,
                k, v,
                scratch);
        entry("attention", y, list(q, k, v), list(q, k, v, y), dy -> {
            Tape.Slot dq = tape().slot(q);
            Tape.Slot dk = tape().slot(k);
            Tape.Slot dv = tape().slot(v);
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
        if (!isQuiet() && isLoss(a) && isLoss(b)) {
            addLoss(y);
        } else if (tapes(a, b)) {
            tape().changed(y.base() == a.base() || y.base() == b.base() ? y : null);
            entry("add", y, list(a, b), list(), dy -> {
                tape().pass(a, dy);
                tape().pass(b, dy);
            }).derivative(a, dy -> dy).derivative(b, dy -> dy);
        }
    }

    @Override
    public Tensor scale(Tensor x, float factor) {
        quietly(() -> super.scale(x, factor));
        if (factor != 1 && tapes(x)) {
            tape().changed(x);
            tape().add("scale", List.of(x), list(), list(), () ->
                    tape().rewrite(x, dx -> Elementwise.scale(stream(), dx, dx, factor)));
        }
        return x;
    }

    @Override
    public Tensor rope(Tensor x, Tensor positions, Tensor table, Rope.Pairing pairing) {
        if (isQuiet()) {
            return quietly(() -> super.rope(x, positions, table, pairing));
        }
        Tensor y = allocate(x.dtype(), x.shape());
        plan().op(() -> Rope.rope(stream(), y, x, positions, table, pairing), y, x, positions, table);
        if (tapes(x)) {
            entry("rope", y, list(x), list(), dy -> tape().give(x, to ->
                    Rope.ropeBackward(stream(), to, dy, positions, table, pairing), dy, positions, table));
        }
        return y;
    }

    @Override
    public void activationInto(Tensor y, Tensor x, Activation activation) {
        quietly(() -> super.activationInto(y, x, activation));
        if (tapes(x)) {
            entry(activation.toString(), y, list(x), list(x, y), dy ->
                    tape().give(x, to -> activation.backward(stream(), to, dy, x, y), dy, x, y))
                    .derivative(activation == Activation.RELU ? x : null, dy -> second().relu(dy, x, y));
        }
    }

    @Override
    public Tensor leakyRelu(Tensor x, float slope) {
        Tensor y = quietly(() -> super.leakyRelu(x, slope));
        if (tapes(x)) {
            entry("leaky relu", y, list(x), list(x), dy ->
                    tape().give(x, to -> Elementwise.leakyReluBackward(stream(), to, dy, x, slope), dy, x))
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
            entry("geglu", y, list(x), list(x), dy -> tape().give(x, to -> Elementwise.gegluBackward(stream(),
                    to.slice(last, f, 2 * f), to.slice(last, 0, f), dy, gate, value), dy, x));
        }
        return y;
    }

    @Override
    public Tensor swiglu(Tensor gate, Tensor up) {
        if (isQuiet()) {
            return quietly(() -> super.swiglu(gate, up));
        }
        Tensor y = allocate(gate.dtype(), gate.shape());
        plan().op(() -> Elementwise.swiglu(stream(), y, gate, up), y, gate, up);
        if (!tapes(gate, up)) {
            return y;
        }
        entry("swiglu", y, list(gate, up), list(gate, up), dy -> {
            Tape.Slot dGate = tape().slot(gate);
            Tape.Slot dUp = tape().slot(up);
            Tensor toGate = dGate == null ? allocate(gate.dtype(), gate.shape()) : dGate.target();
            Tensor toUp = dUp == null ? allocate(up.dtype(), up.shape()) : dUp.target();
            plan().op(() -> Elementwise.swigluBackward(stream(), toGate, toUp, dy, gate, up), toGate, toUp, dy, gate,
                    up);
            Tape.finish(dGate, dUp);
        });
        return y;
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
        if (tape().wants(table)) {
            Tensor scratch = scratch(Embedding.embeddingBackwardWorkspaceBytes(stream(), table, ids));
            tape().give(table, to -> Embedding.embeddingBackward(stream(), to, dy, ids, scratch), dy, ids, scratch);
        }
    }

    @Override
    public Tensor detached(Tensor x) {
        return quietly(() -> copy(x));
    }

    @Override
    public void copyInto(Tensor y, Tensor x) {
        quietly(() -> super.copyInto(y, x));
        if (tapes(x)) {
            entry("copy", y, list(x), list(), dy -> tape().pass(x, dy)).derivative(x, dy -> dy);
        }
    }

    @Override
    public void castInto(Tensor y, Tensor x) {
        quietly(() -> super.castInto(y, x));
        if (tapes(x)) {
            entry("cast", y, list(x), list(), dy -> tape().give(x, to -> Elementwise.cast(stream(), to, dy), dy));
        }
    }
}
