package io.gatun.train;

import io.gatun.diffusion.NoiseSchedule;
import io.gatun.models.ImageNetwork;
import io.gatun.models.Layers;
import io.gatun.ops.LossKind;
import io.gatun.ops.Noise;
import io.gatun.runtime.DType;
import io.gatun.runtime.GatunException;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import io.gatun.train.Recipe.PredictionType;
import org.jspecify.annotations.Nullable;

/// Predict what was added to a picture: the mean squared error over all elements, for each picture at a time step of
/// its own. Ho, Jain and Abbeel 2020, arXiv 2006.11239 (L_simple).
///
/// With a gamma, pictures have min-SNR weights: `min(snr, gamma)` of a predicted sample, over snr for noise, over snr +
/// 1 for v, where `snr = a / (1 - a)`. Hang et al. 2023, arXiv 2303.09556.
public final class DiffusionLoss {
    private final NoiseSchedule schedule;
    private final PredictionType prediction;
    private final double gamma;
    private final Tensor images;
    private final Tensor noise;
    private final @Nullable Tensor seeds;
    private final Tensor alphasCumprod;
    private final Tensor steps;
    private final Tensor timesteps;
    private final @Nullable Tensor weights;
    private final @Nullable Tensor labels;

    /// Where the noise comes from.
    public enum NoiseSource {
        /// [#setNoise]
        GIVEN,
        /// Drawn on the device, from [#setSeeds].
        DRAWN
    }

    /// Makes the inputs of a batch.
    ///
    /// @param gamma     of min-SNR weights; 0: pictures count alike
    /// @param batch     B
    /// @param size      H and W
    /// @param channels  C
    /// @param isLabelled whether the network takes classes
    public DiffusionLoss(Trainer trainer, NoiseSchedule schedule, PredictionType prediction, double gamma,
            NoiseSource source, int batch, int size, int channels, boolean isLabelled) {
        this.schedule = schedule;
        this.prediction = prediction;
        this.gamma = gamma;
        this.images = trainer.input(DType.F32, batch, size, size, channels);
        this.noise = trainer.input(DType.F32, batch, size, size, channels);
        this.seeds = source == NoiseSource.DRAWN ? trainer.input(DType.I64, batch, 2) : null;
        this.alphasCumprod = trainer.input(DType.F32, schedule.steps());
        this.steps = trainer.input(DType.I32, batch);
        this.timesteps = trainer.input(DType.F32, batch);
        this.weights = gamma > 0 ? trainer.input(DType.F32, batch) : null;
        this.labels = isLabelled ? trainer.input(DType.I32, batch) : null;
        alphasCumprod.copyFrom(trainer.stream(), schedule.alphasCumprod());
    }

    /// Uploads pictures.
    ///
    /// @param pixels  [rows, H, W, C] of at most B, -1 to 1
    /// @param at      [rows], a time step for each, from 0
    /// @param classes [rows]; null where the network takes none
    public void setBatch(Stream stream, float[] pixels, int[] at, int @Nullable [] classes) {
        int rows = at.length;
        images.slice(0, 0, rows).copyFrom(stream, pixels);
        steps.slice(0, 0, rows).copyFrom(stream, at);
        float[] floats = new float[rows];
        float[] factors = new float[rows];
        for (int i = 0; i < rows; i++) {
            floats[i] = at[i];
            factors[i] = (float) weight(schedule.alphasCumprod()[at[i]]);
        }
        timesteps.slice(0, 0, rows).copyFrom(stream, floats);
        if (weights != null) {
            weights.slice(0, 0, rows).copyFrom(stream, factors);
        }
        if (labels != null && classes != null) {
            labels.slice(0, 0, rows).copyFrom(stream, classes);
        } else if (labels != null || classes != null) {
            throw GatunException.invalid("%s, expected classes where the network takes them", classes == null
                    ? "no classes" : "classes for a network that takes none");
        }
    }

    /// The min-SNR weight where pictures have the share `sqrt(a)`.
    private double weight(double a) {
        double snr = a / (1 - a);
        return switch (prediction) {
            case SAMPLE -> Math.min(snr, gamma);
            case EPSILON -> snr > gamma ? gamma / snr : 1;
            case V_PREDICTION -> Math.min(snr, gamma) / (snr + 1);
        };
    }

    /// Uploads the noise.
    ///
    /// @param values [rows, H, W, C] standard normal
    public void setNoise(Stream stream, float[] values) {
        long rows = values.length / (images.elements() / images.size(0));
        noise.slice(0, 0, rows).copyFrom(stream, values);
    }

    /// Uploads what the noise is drawn from.
    ///
    /// @return [B, 2] i64: seed and sequence number of each picture
    Tensor seeds() {
        Tensor all = seeds;
        if (all == null) {
            throw new IllegalStateException("the noise is given");
        }
        return all;
    }

    /// Writes the loss of the first rows down; f32 [1].
    public Tensor of(Layers net, ImageNetwork network, int rows) {
        DType dtype = network.weights().values().iterator().next().dtype();
        Tensor x = images.slice(0, 0, rows);                                                    // [B, H, W, C]
        Tensor eps = noise.slice(0, 0, rows);                                                   // [B, H, W, C]
        Tensor at = steps.slice(0, 0, rows);                                                    // [B]
        if (seeds != null) {
            Tensor of = seeds.slice(0, 0, rows);
            net.op(stream -> Noise.normal(stream, eps, of, 0), eps, of);
        }
        Tensor noisy = net.allocate(DType.F32, x.shape());                                      // [B, H, W, C]
        net.op(stream -> Noise.addNoise(stream, noisy, x, eps, null, 0, alphasCumprod, at), noisy, x, eps, at);
        Tensor output = net.allocate(dtype, x.shape());                                         // [B, H, W, C]
        network.forward(net, output, new ImageNetwork.Inputs(net.cast(noisy, dtype), timesteps.slice(0, 0, rows), null,
                null, labels == null ? null : labels.slice(0, 0, rows), null, null, null));
        Tensor target = switch (prediction) {
            case EPSILON -> eps;
            case SAMPLE -> x;
            case V_PREDICTION -> velocity(net, x, eps, at);
        };
        return net.loss(LossKind.MSE, output, target, weights == null ? null : weights.slice(0, 0, rows),
                (float) (1.0 / output.elements()));
    }

    private Tensor velocity(Layers net, Tensor x, Tensor eps, Tensor at) {
        Tensor v = net.allocate(DType.F32, x.shape());
        net.op(stream -> Noise.velocity(stream, v, x, eps, alphasCumprod, at), v, x, eps, at);
        return v;
    }
}
