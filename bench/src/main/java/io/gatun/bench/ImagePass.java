package io.gatun.bench;

import io.gatun.models.ComponentLoader;
import io.gatun.models.ComponentLoader.Component;
import io.gatun.models.ConfigFile;
import io.gatun.models.ImageNetwork;
import io.gatun.models.ImageNetwork.Inputs;
import io.gatun.models.ImageNetwork.Labels;
import io.gatun.models.ImageNetworkLoader;
import io.gatun.models.Layers;
import io.gatun.models.WeightLoader;
import io.gatun.models.vae.AutoencoderKl;
import io.gatun.ops.Elementwise;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.DeviceArena;
import io.gatun.runtime.GatunException;
import io.gatun.runtime.Shapes;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import java.nio.file.Path;
import java.util.Deque;
import java.util.List;
import java.util.SplittableRandom;
import java.util.function.Consumer;

/// What is timed of an image network: one call of a denoising network, or the decoding of latents by an AutoencoderKL,
/// on random inputs of the size that the config names.
///
/// @param recorder writes the pass down
record ImagePass(Consumer<Layers> recorder) {
    private static final String AUTOENCODER = "AutoencoderKL";
    private static final int TEXT_LENGTH = 77;

    /// Whether the directory holds an autoencoder rather than a denoising network.
    static boolean isAutoencoder(Path directory) {
        return ComponentLoader.className(ConfigFile.read(directory.resolve("config.json"))).equals(AUTOENCODER);
    }

    /// Asks the config before anything is loaded.
    ///
    /// @throws GatunException when the network has no size of its own or needs classes
    static void requireSuitable(Path directory) {
        if (isAutoencoder(directory)) {
            return;
        }
        try (Device device = Device.open("cpu"); Shapes shapes = new Shapes(device)) {
            ImageNetwork network = ImageNetworkLoader.create(ConfigFile.read(directory.resolve("config.json")),
                    WeightLoader.shapes(shapes, DType.F32));
            if (network.sampleSize().isEmpty()) {
                throw GatunException.invalid("%s: the network's config has no sample_size, expected one", directory);
            }
            if (network.classLabels() != Labels.NONE) {
                throw GatunException.invalid("%s: the network takes class labels, expected one without", directory);
            }
        }
    }

    /// @param arena  owns inputs and results
    /// @param opened is told what closes the network
    static ImagePass open(Device device, Stream stream, Path directory, DType dtype, int batch, DeviceArena arena,
            Deque<Runnable> opened) {
        return isAutoencoder(directory) ? decoding(device, stream, directory, dtype, batch, arena, opened)
                : denoising(device, stream, directory, dtype, batch, arena, opened);
    }

    private static ImagePass decoding(Device device, Stream stream, Path directory, DType dtype, int batch,
            DeviceArena arena, Deque<Runnable> opened) {
        Component<AutoencoderKl> loaded = ComponentLoader.load(device, stream, directory, dtype, AutoencoderKl.FAMILY,
                count -> {});
        opened.push(loaded::close);
        AutoencoderKl vae = loaded.network();
        long side = vae.config().sampleSize();
        long small = side / vae.config().shape().reduction();
        Tensor z = random(arena, stream, 1, dtype, batch, small, small, vae.config().shape().latentChannels());
        Tensor image = arena.allocate(DType.F32, batch, side, side, vae.config().shape().outChannels());
        return new ImagePass(net -> {
            for (int b = 0; b < batch; b++) {
                net.castInto(image.slice(0, b, b + 1), vae.decode(net, z.slice(0, b, b + 1)));
            }
        });
    }

    private static ImagePass denoising(Device device, Stream stream, Path directory, DType dtype, int batch,
            DeviceArena arena, Deque<Runnable> opened) {
        Component<ImageNetwork> loaded = ImageNetworkLoader.load(device, stream, directory, dtype, count -> {});
        opened.push(loaded::close);
        ImageNetwork network = loaded.network();
        List<Integer> size = network.sampleSize();
        Tensor times = arena.allocate(DType.F32, batch);
        Elementwise.fill(stream, times, 500);
        Tensor sample = random(arena, stream, 1, dtype, batch, size.get(0), size.get(1), network.inChannels());
        Inputs plain = Inputs.of(sample, times);
        Inputs in = network.encoderDim() == 0 ? plain
                : plain.withText(random(arena, stream, 2, dtype, batch, TEXT_LENGTH, network.encoderDim()));
        Tensor out = arena.allocate(dtype, batch, size.get(0), size.get(1), network.outChannels());
        return new ImagePass(net -> network.forward(net, out, in));
    }

    private static Tensor random(DeviceArena arena, Stream stream, long seed, DType dtype, long... shape) {
        Tensor f32 = arena.allocate(DType.F32, shape);
        SplittableRandom random = new SplittableRandom(seed);
        float[] values = new float[Math.toIntExact(f32.elements())];
        for (int i = 0; i < values.length; i++) {
            values[i] = (float) random.nextGaussian();
        }
        f32.copyFrom(stream, values);
        Tensor tensor = arena.allocate(dtype, shape);
        Elementwise.cast(stream, tensor, f32);
        return tensor;
    }
}
