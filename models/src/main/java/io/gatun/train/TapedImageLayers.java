package io.gatun.train;

import io.gatun.models.Activation;
import io.gatun.ops.ActivationKind;
import io.gatun.ops.Convolution.Geometry;
import io.gatun.ops.Convolution.Transposed;
import io.gatun.ops.Elementwise;
import io.gatun.ops.Image;
import io.gatun.ops.Norm;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.Plan;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import java.util.List;
import org.jspecify.annotations.Nullable;

/// The layers of image networks, with their gradients.
public abstract sealed class TapedImageLayers extends Taped permits TapedLayers {
    private float momentum = 0.1f;

    TapedImageLayers(Device device, Stream stream, Plan.Recorder plan, Parameters parameters, boolean recomputes,
            @Nullable Tensor lossScale) {
        super(device, stream, plan, parameters, recomputes, lossScale);
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
            tape().give(x, to -> device().convolutionInputGradient(stream(), to, dense, channelsLast, g), dense,
                    weight);
            Tensor in = tape().wants(weight) ? quietly(() -> dense(x)) : x;
            tape().give(weight, to -> device().convolutionWeightGradient(stream(), to.permute(0, 2, 3, 1), dense, in,
                    g),
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
            tape().give(x, to -> device().transposedConvolutionInputGradient(stream(), to, dy, channelsLast, g), dy,
                    weight);
            tape().give(weight, to -> device().transposedConvolutionWeightGradient(stream(), to.permute(0, 2, 3, 1),
                    dy, x,
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
        plan().op(() -> Norm.groupNorm(stream(), out, mean, rstd, in, weight, bias, scale, shift, groups, eps,
                activation,
                scratch), y, mean, rstd, x, weight, bias, scale, shift, scratch);
        List<@Nullable Tensor> operands = list(x, weight, bias, scale, shift);
        Tape.Entry entry = entry("group norm", y, operands, operands, dy -> {
            Tensor dOut = pixels(dy);
            Tape.Slot dx = tape().slot(x);
            Tape.Slot dWeight = tape().slot(weight);
            Tape.Slot dBias = tape().slot(bias);
            Tape.Slot dScale = tape().slot(scale);
            Tape.Slot dShift = tape().slot(shift);
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
    public Tensor addPerImage(Tensor x, Tensor perImage) {
        if (isQuiet()) {
            return quietly(() -> super.addPerImage(x, perImage));
        }
        Tensor y = allocate(x.dtype(), x.shape());
        Tensor wide = broadcast(perImage, x);
        plan().op(() -> Elementwise.add(stream(), y, x, wide), y, x, perImage);
        if (tapes(x, perImage)) {
            entry("add per image", y, list(x, perImage), list(), dy -> {
                tape().pass(x, dy);
                if (tape().wants(perImage)) {
                    giveSums(perImage, pixels(dy), null);
                }
            });
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
                tape().give(x, to -> Elementwise.modulate(stream(), to, dy, wide, nothing), dy, scale, zero);
                if (tape().wants(scale)) {
                    giveSums(scale, pixels(dy), pixels(x));
                }
                if (tape().wants(shift)) {
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
                tape().pass(x, dy);
                Tensor wide = broadcast(gate, dy);
                tape().give(h, to -> Elementwise.mul(stream(), to, dy, wide), dy, gate);
                if (tape().wants(gate)) {
                    giveSums(gate, pixels(dy), pixels(h));
                }
            });
        }
        return y;
    }

    @Override
    public Tensor upsample(Tensor x, long height, long width) {
        Tensor y = quietly(() -> super.upsample(x, height, width));
        if (tapes(x)) {
            entry("upsample", y, list(x), list(), dy ->
                    tape().give(x, to -> Image.upsampleNearestBackward(stream(), to, dy), dy));
        }
        return y;
    }

    @Override
    public Tensor averagePool(Tensor x, int size) {
        Tensor y = quietly(() -> super.averagePool(x, size));
        if (tapes(x)) {
            entry("average pool", y, list(x), list(), dy ->
                    tape().give(x, to -> Image.averagePoolBackward(stream(), to, dy, size), dy));
        }
        return y;
    }

    @Override
    public Tensor maxPool(Tensor x, int size) {
        Tensor y = quietly(() -> super.maxPool(x, size));
        if (tapes(x)) {
            entry("max pool", y, list(x), list(x), dy ->
                    tape().give(x, to -> Image.maxPoolBackward(stream(), to, dy, x, size), dy, x));
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
                moves ? runningVariance : null, in, weight, bias, share, eps, activation, scratch), y, mean, rstd, x,
                weight,
                bias, scratch);
        if (!tapes(x, weight, bias)) {
            return y;
        }
        entry("batch norm", y, list(x, weight, bias), list(x, weight, bias), dy -> {
            Tensor dOut = pixels(dy);
            Tape.Slot dx = tape().slot(x);
            Tape.Slot dWeight = tape().slot(weight);
            Tape.Slot dBias = tape().slot(bias);
            Tensor to = dx == null ? allocate(x.dtype(), x.shape()) : dx.target();
            Tensor toPixels = pixels(to);
            Tensor again = scratch(Norm.batchNormBackwardWorkspaceBytes(stream(), in));
            plan().op(() -> Norm.batchNormBackward(stream(), toPixels, Tape.target(dWeight), Tape.target(dBias), dOut,
                    in,
                    mean, rstd, weight, bias, activation, again), to, Tape.target(dWeight), Tape.target(dBias), dy, x,
                    mean,
                    rstd, weight, bias, again);
            Tape.finish(dx, dWeight, dBias);
        });
        return y;
    }

    /// What share of a batch's statistics the running ones of the batch norms that follow take: 0.1 at first; 0: they
    /// stay.
    public final void batchNormMomentum(float share) {
        momentum = share;
    }

    @Override
    public Tensor nearestCode(Tensor x, Tensor table) {
        return quietly(() -> super.nearestCode(x, table));
    }

    @Override
    public Tensor straightThrough(Tensor value, Tensor through) {
        Tensor y = detached(value);
        if (tapes(through)) {
            entry("straight through", y, list(through), list(), dy -> tape().pass(through, dy));
        }
        return y;
    }
}
