package io.gatun.train;

import io.gatun.models.ImageNetwork;
import io.gatun.models.Layers;
import io.gatun.ops.Elementwise;
import io.gatun.ops.LossKind;
import io.gatun.runtime.DType;
import io.gatun.runtime.GatunException;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import io.gatun.train.DiffusionLoss.NoiseSource;
import io.gatun.train.Recipe.PredictionType;
import org.jspecify.annotations.Nullable;

/// Denoise pictures of any noise level: the mean of `lambda |D(x + sigma noise; sigma) - x|^2`, `lambda = (sigma^2 +
/// s^2) / (sigma s)^2`, s = sigma_data. Karras et al. 2022, arXiv 2206.00364.
///
/// The denoiser D is the network F with its preconditioning, `D(y) = c_skip y + c_out F(c_in y, ln(sigma) / 4)`. As
/// lambda c_out^2 = 1, that is F's own mean squared error; and with `a = s^2 / (sigma^2 + s^2)` F sees `c_in y =
/// sqrt(a) x/s + sqrt(1 - a) noise` and is to give -v, `v = sqrt(a) noise - sqrt(1 - a) x/s`, or with v-prediction,
/// where c_out has the other sign, v. So it is [DiffusionLoss] with v on pictures of deviation 1.
public final class EdmLoss {
    /// At 1 there is no noise, at 0 no picture: the logarithm of sigma would be infinite.
    private static final float MAX_LEVEL = Math.nextDown(1f);
    private static final float MIN_LEVEL = Float.MIN_NORMAL;

    private final double sigmaData;
    private final PredictionType prediction;
    private final NoisyBatch batch;

    /// Makes the inputs of a batch.
    ///
    /// @param sigmaData  deviation of the pictures
    /// @param prediction EPSILON or V_PREDICTION
    /// @param batch      B
    /// @param size       H and W
    /// @param channels   C
    /// @param isLabelled whether the network takes classes
    /// @throws GatunException where SAMPLE is predicted: the preconditioning knows no such thing
    public EdmLoss(Trainer trainer, double sigmaData, PredictionType prediction, NoiseSource source, int batch,
            int size, int channels, boolean isLabelled) {
        if (prediction == PredictionType.SAMPLE) {
            throw GatunException.invalid("EDM predicts %s, expected EPSILON or V_PREDICTION", prediction);
        }
        this.sigmaData = sigmaData;
        this.prediction = prediction;
        this.batch = new NoisyBatch(trainer, source, batch, size, channels, isLabelled);
    }

    /// Uploads pictures.
    ///
    /// @param pixels  [rows, H, W, C] of at most B, -1 to 1
    /// @param sigmas  [rows], the deviation of each one's noise; rounded so that the level a is an f32 below 1
    /// @param classes [rows]; null where the network takes none
    public void setBatch(Stream stream, float[] pixels, double[] sigmas, int @Nullable [] classes) {
        int rows = sigmas.length;
        float[] levels = new float[rows];
        float[] told = new float[rows];
        for (int i = 0; i < rows; i++) {
            double ratio = sigmas[i] / sigmaData;
            levels[i] = Math.clamp((float) (1 / (1 + ratio * ratio)), MIN_LEVEL, MAX_LEVEL);
            // of the level as it was rounded, so that the network is told what it sees
            told[i] = (float) (Math.log(sigmaData * Math.sqrt((1.0 - levels[i]) / levels[i])) / 4);
        }
        batch.set(stream, pixels, levels, told, classes);
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
        Tensor x = scaled(net, batch.images(rows), (float) (1 / sigmaData));                    // [B, H, W, C]
        Tensor eps = batch.noise(net, rows);                                                    // [B, H, W, C]
        Tensor output = batch.predict(net, network, x, eps);                                    // [B, H, W, C]
        Tensor v = batch.velocity(net, x, eps);                                                 // [B, H, W, C]
        Tensor target = prediction == PredictionType.V_PREDICTION ? v : scaled(net, v, -1);
        return net.loss(LossKind.MSE, output, target, null, (float) (1.0 / output.elements()));
    }

    private static Tensor scaled(Layers net, Tensor x, float factor) {
        Tensor y = net.allocate(DType.F32, x.shape());
        net.op(stream -> Elementwise.scale(stream, y, x, factor), y, x);
        return y;
    }
}
