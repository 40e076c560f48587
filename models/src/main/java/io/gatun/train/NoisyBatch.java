package io.gatun.train;

import io.gatun.models.ImageNetwork;
import io.gatun.models.Layers;
import io.gatun.ops.Noise;
import io.gatun.runtime.DType;
import io.gatun.runtime.GatunException;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import io.gatun.train.DiffusionLoss.NoiseSource;
import java.util.stream.IntStream;
import org.jspecify.annotations.Nullable;

/// A batch of pictures on the device, each with noise of its own level: what the losses of diffusion share. A picture x
/// of level a, from 0 to 1, is `sqrt(a) x + sqrt(1 - a) noise`.
final class NoisyBatch {
    private final Tensor images;
    private final Tensor noise;
    private final @Nullable Tensor seeds;
    private final Tensor levels;
    private final Tensor indices;
    private final Tensor timesteps;
    private final @Nullable Tensor labels;

    /// @param batch      B
    /// @param size       H and W
    /// @param channels   C
    /// @param isLabelled whether the network takes classes
    NoisyBatch(Trainer trainer, NoiseSource source, int batch, int size, int channels, boolean isLabelled) {
        this.images = trainer.input(DType.F32, batch, size, size, channels);
        this.noise = trainer.input(DType.F32, batch, size, size, channels);
        this.seeds = source == NoiseSource.DRAWN ? trainer.input(DType.I64, batch, 2) : null;
        this.levels = trainer.input(DType.F32, batch);
        this.indices = trainer.input(DType.I32, batch);
        this.timesteps = trainer.input(DType.F32, batch);
        this.labels = isLabelled ? trainer.input(DType.I32, batch) : null;
        indices.copyFrom(trainer.stream(), IntStream.range(0, batch).toArray());
    }

    /// Uploads pictures.
    ///
    /// @param pixels [rows, H, W, C] of at most B
    /// @param a      [rows], their levels
    /// @param told   [rows], what the network is told of them
    /// @param classes [rows]; null where the network takes none
    void set(Stream stream, float[] pixels, float[] a, float[] told, int @Nullable [] classes) {
        if ((labels == null) != (classes == null)) {
            throw GatunException.invalid("%s, expected classes where the network takes them", classes == null
                    ? "no classes" : "classes for a network that takes none");
        }
        int rows = a.length;
        images.slice(0, 0, rows).copyFrom(stream, pixels);
        levels.slice(0, 0, rows).copyFrom(stream, a);
        timesteps.slice(0, 0, rows).copyFrom(stream, told);
        if (labels != null && classes != null) {
            labels.slice(0, 0, rows).copyFrom(stream, classes);
        }
    }

    /// Uploads the noise, [rows, H, W, C].
    void setNoise(Stream stream, float[] values) {
        long rows = values.length / (images.elements() / images.size(0));
        noise.slice(0, 0, rows).copyFrom(stream, values);
    }

    /// What the noise is drawn from: seed and sequence number of each picture, [B, 2] i64.
    Tensor seeds() {
        Tensor all = seeds;
        if (all == null) {
            throw new IllegalStateException("the noise is given");
        }
        return all;
    }

    /// The pictures of the first rows, [rows, H, W, C] f32.
    Tensor images(int rows) {
        return images.slice(0, 0, rows);
    }

    /// Their noise, drawn where it is not given; likewise.
    Tensor noise(Layers net, int rows) {
        Tensor eps = noise.slice(0, 0, rows);
        if (seeds != null) {
            Tensor of = seeds.slice(0, 0, rows);
            net.op(stream -> Noise.normal(stream, eps, of, 0), eps, of);
        }
        return eps;
    }

    /// What the network says of pictures x with noise, [rows, H, W, C] in its dtype.
    Tensor predict(Layers net, ImageNetwork network, Tensor x, Tensor eps) {
        int rows = (int) x.size(0);
        DType dtype = network.weights().values().iterator().next().dtype();
        Tensor at = indices.slice(0, 0, rows);
        Tensor noisy = net.allocate(DType.F32, x.shape());                                      // [B, H, W, C]
        net.op(stream -> Noise.addNoise(stream, noisy, x, eps, null, 0, levels, at), noisy, x, eps, at);
        Tensor output = net.allocate(dtype, x.shape());                                         // [B, H, W, C]
        network.forward(net, output, new ImageNetwork.Inputs(net.cast(noisy, dtype), timesteps.slice(0, 0, rows), null,
                null, labels == null ? null : labels.slice(0, 0, rows), null, null, null));
        return output;
    }

    /// `sqrt(a) noise - sqrt(1 - a) x`, [rows, H, W, C] f32.
    Tensor velocity(Layers net, Tensor x, Tensor eps) {
        Tensor at = indices.slice(0, 0, x.size(0));
        Tensor v = net.allocate(DType.F32, x.shape());
        net.op(stream -> Noise.velocity(stream, v, x, eps, levels, at), v, x, eps, at);
        return v;
    }
}
