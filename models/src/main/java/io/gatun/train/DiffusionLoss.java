package io.gatun.train;

import io.gatun.diffusion.NoiseSchedule;
import io.gatun.models.ImageNetwork;
import io.gatun.models.Layers;
import io.gatun.ops.LossKind;
import io.gatun.runtime.DType;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import io.gatun.train.Recipe.PredictionType;
import org.jspecify.annotations.Nullable;

/// Predict what was added to a picture: the mean squared error over all elements, for each picture at a time step of
/// its own. Ho, Jain and Abbeel 2020, arXiv 2006.11239 (L_simple). [EdmLoss] is the one for continuous noise levels.
///
/// With a gamma, pictures have min-SNR weights: `min(snr, gamma)` of a predicted sample, over snr for noise, over snr +
/// 1 for v, where `snr = a / (1 - a)`. Hang et al. 2023, arXiv 2303.09556.
public final class DiffusionLoss {
    private final NoiseSchedule schedule;
    private final PredictionType prediction;
    private final double gamma;
    private final NoisyBatch batch;
    private final @Nullable Tensor weights;

    /// Where the noise comes from.
    public enum NoiseSource {
        /// From the host.
        GIVEN,
        /// Drawn on the device, by seeds.
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
        this.batch = new NoisyBatch(trainer, source, batch, size, channels, isLabelled);
        this.weights = gamma > 0 ? trainer.input(DType.F32, batch) : null;
    }

    /// Uploads pictures.
    ///
    /// @param pixels  [rows, H, W, C] of at most B, -1 to 1
    /// @param at      [rows], a time step for each, from 0
    /// @param classes [rows]; null where the network takes none
    public void setBatch(Stream stream, float[] pixels, int[] at, int @Nullable [] classes) {
        int rows = at.length;
        float[] levels = new float[rows];
        float[] timesteps = new float[rows];
        float[] factors = new float[rows];
        for (int i = 0; i < rows; i++) {
            levels[i] = schedule.alphasCumprod()[at[i]];
            timesteps[i] = at[i];
            factors[i] = (float) weight(levels[i]);
        }
        batch.set(stream, pixels, levels, timesteps, classes);
        if (weights != null) {
            weights.slice(0, 0, rows).copyFrom(stream, factors);
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
        batch.setNoise(stream, values);
    }

    /// Uploads what the noise is drawn from.
    ///
    /// @return [B, 2] i64: seed and sequence number of each picture
    Tensor seeds() {
        return batch.seeds();
    }

    /// Writes the loss of the first rows down; f32 [1].
    public Tensor of(Layers net, ImageNetwork network, int rows) {
        Tensor x = batch.images(rows);                                                          // [B, H, W, C]
        Tensor eps = batch.noise(net, rows);                                                    // [B, H, W, C]
        Tensor output = batch.predict(net, network, x, eps);                                    // [B, H, W, C]
        Tensor target = switch (prediction) {
            case EPSILON -> eps;
            case SAMPLE -> x;
            case V_PREDICTION -> batch.velocity(net, x, eps);
        };
        return net.loss(LossKind.MSE, output, target, weights == null ? null : weights.slice(0, 0, rows),
                (float) (1.0 / output.elements()));
    }
}
