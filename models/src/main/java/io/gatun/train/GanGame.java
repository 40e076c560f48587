package io.gatun.train;

import io.gatun.models.Layers;
import io.gatun.models.WeightLoader;
import io.gatun.models.gan.Dcgan;
import io.gatun.models.gan.DcganConfig;
import io.gatun.models.gan.Discriminator;
import io.gatun.models.gan.LatentDecoder;
import io.gatun.ops.Elementwise;
import io.gatun.ops.LossKind;
import io.gatun.ops.Noise;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.Tensor;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/// A generator and a discriminator that learn against each other, each with its trainer, on one stream.
///
/// ```java
/// game.setReal(images);
/// game.setSeeds(seeds);
/// game.discriminator().step();    // D on real pictures and on G(z), a pass each; D's update
/// game.generator().step();        // the new D on the same G(z); G's update
/// ```
///
/// with y for what D says of a picture and means over the batch, they minimise
///
///     bce      -log sigmoid(y_real) - log(1 - sigmoid(y_fake))      -log sigmoid(y_fake)
///     lsgan    ((y_real - 1)^2 + y_fake^2) / 2                      (y_fake - 1)^2 / 2
///     wgan     y_fake - y_real                                      -y_fake
///     wgan_gp  y_fake - y_real + lambda (|dy/dx| - 1)^2             -y_fake
///
/// the last at x = a real + (1 - a) fake, with an `a` per picture. With classes, real and generated pictures of a place
/// in the batch have the same one, and y is what D says of that. In wgan, D's weights are cut to a range after
/// each update. Each pass of D moves its running statistics; those of G move in G's own updates.
final class GanGame implements AutoCloseable {
    static final String GENERATOR = "generator.";
    static final String DISCRIMINATOR = "discriminator.";
    /// A gradient of 0 has no direction; this keeps it finite.
    private static final float TINY = 1e-30f;
    private static final float MOMENTUM = 0.1f;

    private final Design design;
    private final int batch;
    private final Trainer generator;
    private final Trainer discriminator;
    private final RunningStatistics generatorStatistics;
    private final RunningStatistics discriminatorStatistics;
    private final Dcgan g;
    private final Discriminator d;
    private final Tensor real;
    private final Tensor noise;
    private final Tensor z;
    private final @Nullable Tensor classes;
    private final @Nullable Tensor seeds;
    private final Tensor mix;
    private final Tensor penalty;
    private final Tensor targets;

    /// What the networks are and what they play.
    ///
    /// @param generator     config
    /// @param discriminator config of the generator that it mirrors
    /// @param groups        of the discriminator's norms; 0: batch norms
    /// @param lambda        of the gradient penalty; 0: none
    record Design(DcganConfig generator, DcganConfig discriminator, int groups, Recipe.GanLoss loss, float lambda) {
        void declareGenerator(WeightLoader loader) {
            var unused = new Dcgan(generator, loader);
        }

        void declareDiscriminator(WeightLoader loader) {
            var unused = new Discriminator(discriminator, groups, loader);
        }
    }

    /// How a network learns.
    ///
    /// @param rates of each of its updates
    record Player(UpdateRule rule, float[] rates, Trainer.Options options) {}

    /// @param batch pictures of a pass
    /// @param draws whether the noise is drawn on the device, from [#setSeeds]; else it is that of [#setNoise]
    GanGame(Device device, Design design, int batch, boolean draws, Player generator, Player discriminator) {
        this.design = design;
        this.batch = batch;
        List<Parameters.Shape> ofG = Parameters.of(device, GENERATOR, design::declareGenerator);
        List<Parameters.Shape> ofD = Parameters.of(device, DISCRIMINATOR, design::declareDiscriminator);
        Trainer first = new Trainer(device, ofG, generator.rule, generator.rates, generator.options);
        this.generator = first;
        Trainer second = null;
        try {
            second = new Trainer(device, first.stream(), ofD, discriminator.rule, discriminator.rates,
                    discriminator.options);
            this.discriminator = second;
            DType dtype = generator.options.dtype();
            this.generatorStatistics = new RunningStatistics(device, first, GENERATOR, design::declareGenerator);
            this.discriminatorStatistics = new RunningStatistics(device, second, DISCRIMINATOR,
                    design::declareDiscriminator);
            this.g = generator(generatorStatistics.with(first.parameters().weights()), dtype);
            this.d = new Discriminator(design.discriminator, design.groups, WeightLoader.trained(
                    discriminatorStatistics.with(second.parameters().weights()), second.arena(), second.stream(), dtype,
                    List.of(DISCRIMINATOR)));
            DcganConfig c = design.generator;
            this.real = first.input(dtype, batch, c.imageSize(), c.imageSize(), c.imageChannels());
            this.noise = first.input(dtype, batch, c.latentSize());
            boolean hasClasses = c.numClasses() > 0;
            this.z = hasClasses ? first.input(dtype, batch, c.latentSize() + c.numClasses()) : noise;
            this.classes = hasClasses ? first.input(DType.F32, batch, c.numClasses()) : null;
            this.seeds = draws ? first.input(DType.I64, batch, 2) : null;
            this.mix = first.input(dtype, 2, batch);
            this.penalty = first.input(DType.F32, 1);
            this.targets = first.input(DType.F32, 3);
            targets.copyFrom(first.stream(), -1f, 0f, 1f);
            second.loss(this::discriminatorLoss);
            first.loss(this::generatorLoss);
        } catch (RuntimeException e) {
            try (first) {
                if (second != null) {
                    second.close();
                }
            }
            throw e;
        }
    }

    /// A generator of these weights and statistics.
    Dcgan generator(Map<String, Tensor> weights, DType dtype) {
        return new Dcgan(design.generator, WeightLoader.trained(weights, generator.arena(), generator.stream(), dtype,
                List.of(GENERATOR)));
    }

    Trainer generator() {
        return generator;
    }

    Trainer discriminator() {
        return discriminator;
    }

    RunningStatistics generatorStatistics() {
        return generatorStatistics;
    }

    RunningStatistics discriminatorStatistics() {
        return discriminatorStatistics;
    }

    /// The generator that learns.
    Dcgan g() {
        return g;
    }

    /// @param images [B, H, W, C], -1 to 1
    void setReal(float[] images) {
        real.copyFrom(generator.stream(), images);
    }

    /// @param values [B, Z], standard normal
    void setNoise(float[] values) {
        noise.copyFrom(generator.stream(), values);
    }

    /// @param values of the pictures, [B]; of networks with classes alone
    void setClasses(int[] values) {
        Tensor rows = classes;
        if (rows == null) {
            throw new IllegalStateException("the networks know no classes");
        }
        rows.copyFrom(generator.stream(), LatentDecoder.oneHot(values, design.generator.numClasses()));
    }

    /// @param values [B, 2]: seed and sequence number of each picture; see [Noise#normal]
    void setSeeds(long[] values) {
        Tensor all = seeds;
        if (all == null) {
            throw new IllegalStateException("the noise is given");
        }
        all.copyFrom(generator.stream(), values);
    }

    /// @param shares `a`, [B], 0 to 1; wgan_gp alone reads them
    void setMix(float[] shares) {
        float[] both = new float[2 * batch];
        for (int i = 0; i < batch; i++) {
            both[i] = shares[i];
            both[batch + i] = 1 - shares[i];
        }
        mix.copyFrom(generator.stream(), both);
    }

    /// What the last pass of the discriminator found, without lambda.
    float gradientPenalty() {
        return penalty.toFloats(generator.stream())[0] / design.lambda;
    }

    private Tensor discriminatorLoss(TapedLayers net) {
        net.batchNormMomentum(0);
        Tensor fake = g.forward(net, input(net));
        net.batchNormMomentum(MOMENTUM);
        Tensor loss = net.add(judged(net, d.forward(net, real), true), judged(net, d.forward(net, fake), false));
        return design.lambda == 0 ? loss : net.add(loss, penalty(net, fake));
    }

    private Tensor generatorLoss(TapedLayers net) {
        return judged(net, d.forward(net, g.forward(net, input(net))), true);
    }

    /// [B, Z + K]
    private Tensor input(Layers net) {
        Tensor keys = seeds;
        if (keys != null) {
            Tensor pixels = noise.reshape(batch, 1, 1, noise.size(1));
            net.op(stream -> Noise.normal(stream, pixels, keys, 0), noise, keys);
        }
        if (classes != null) {
            net.castInto(z.slice(1, 0, noise.size(1)), noise);
            net.castInto(z.slice(1, noise.size(1), z.size(1)), classes);
        }
        return z;
    }

    /// The mean distance of what D says from what it says of real pictures, or of generated ones.
    ///
    /// @param said [B, 1] or [B, K]
    private Tensor judged(TapedLayers net, Tensor said, boolean asReal) {
        float mean = 1f / batch;
        Tensor y = said.reshape(said.elements());
        Tensor weight = classes == null ? null : classes.reshape(said.elements());
        return switch (design.loss) {
            case BCE -> net.loss(LossKind.BCE_WITH_LOGITS, y, target(asReal ? 1 : 0, y), weight, mean);
            case LSGAN -> net.loss(LossKind.MSE, y, target(asReal ? 1 : 0, y), weight, mean / 2);
            case WGAN, WGAN_GP -> net.loss(LossKind.LINEAR, y, target(asReal ? -1 : 1, y), weight, mean);
        };
    }

    /// @param value -1, 0 or 1
    private Tensor target(int value, Tensor like) {
        return targets.slice(0, value + 1, value + 2).strided(like.shape(), new long[] {0});
    }

    /// `lambda mean (|grad| - 1)^2`, as `lambda mean |grad - unit|^2` with `unit = grad / |grad|`. That has the
    /// same gradient with `unit` held fixed: it is the nearest point of the sphere, so moving along with the gradient
    /// changes the distance to second order only.
    private Tensor penalty(TapedLayers net, Tensor fake) {
        Tensor x = net.allocate(fake.dtype(), fake.shape());
        Tensor a = share(0, fake);
        Tensor rest = share(1, fake);
        net.op(stream -> Elementwise.mul(stream, x, real, a), x, real, a);
        net.op(stream -> Elementwise.addGated(stream, x, x, rest, fake), x, rest, fake);
        Tensor gradient = net.gradient(x, picture -> d.forward(net, picture), classes);
        long n = gradient.elements() / batch;
        Tensor rows = gradient.reshape(batch, n);
        Tensor unit = net.quietly(() -> net.scale(net.rmsNorm(rows, null, TINY), (float) (1 / Math.sqrt(n))));
        Tensor loss = net.loss(LossKind.MSE, rows, unit, null, design.lambda / batch);
        net.quietly(() -> net.copyInto(penalty, loss));
        return loss;
    }

    /// The factor of each picture, for all its pixels.
    private Tensor share(int which, Tensor images) {
        long[] stride = new long[images.rank()];
        stride[0] = 1;
        return mix.select(0, which).strided(images.shape(), stride);
    }

    /// Writes down what the discriminator says of real and of generated pictures as it sees them in training, by the
    /// statistics of each batch; those that run stay.
    ///
    /// @param said f32 [2, B, 1] or [2, B, K]
    void judge(TapedLayers net, Tensor said) {
        net.batchNormMomentum(0);
        net.castInto(said.select(0, 0), d.forward(net, real));
        net.castInto(said.select(0, 1), d.forward(net, g.forward(net, input(net))));
    }

    @Override
    public void close() {
        try (generator; discriminator) {
            // the discriminator's trainer ends first: its work is on the generator's stream
        }
    }
}
