package io.gatun.diffusion;

import io.gatun.diffusion.ImageModel.Kind;
import io.gatun.models.ComponentLoader;
import io.gatun.models.ComponentLoader.Component;
import io.gatun.models.ComponentLoader.Family;
import io.gatun.models.ConfigFile;
import io.gatun.models.Layers;
import io.gatun.models.WeightLoader;
import io.gatun.models.gan.Dcgan;
import io.gatun.models.gan.DcganConfig;
import io.gatun.models.gan.LatentDecoder;
import io.gatun.models.gan.VaeDecoder;
import io.gatun.models.gan.VaeDecoderConfig;
import io.gatun.ops.Elementwise;
import io.gatun.ops.Noise;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.DeviceArena;
import io.gatun.runtime.GatunException;
import io.gatun.runtime.Shapes;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/// Pictures in one pass from random numbers: the generator of a GAN, or the decoder of a VAE.
final class GeneratorPipeline implements Pipeline {
    private final Device device;
    private final Stream stream;
    private final Kind kind;
    private final Generator generator;
    private final boolean isLoaded;

    private GeneratorPipeline(Device device, Stream stream, Kind kind, Generator generator, boolean isLoaded) {
        this.device = device;
        this.stream = stream;
        this.kind = kind;
        this.generator = generator;
        this.isLoaded = isLoaded;
    }

    /// @param shapes null: load the weights
    static Pipeline open(Device device, Stream stream, Path directory, ConfigFile config, ImageModel.Options options,
            @Nullable Shapes shapes) {
        Kind kind = kindOf(config);
        Generator generator = kind == Kind.GAN
                ? generator(device, stream, directory, config, Dcgan.FAMILY, options, shapes)
                : generator(device, stream, directory, config, VaeDecoder.FAMILY, options, shapes);
        return new GeneratorPipeline(device, stream, kind, generator, shapes == null);
    }

    /// What a config is of.
    static Kind kindOf(ConfigFile config) {
        return switch (config.requireString("model_type")) {
            case DcganConfig.MODEL_TYPE -> Kind.GAN;
            case VaeDecoderConfig.MODEL_TYPE -> Kind.VAE;
            default -> throw config.wrong("model_type", ("%s or %s, or a directory of diffusers (text comes from gatun"
                    + " generate)").formatted(DcganConfig.MODEL_TYPE, VaeDecoderConfig.MODEL_TYPE));
        };
    }

    private static <T extends LatentDecoder> Generator generator(Device device, Stream stream, Path directory,
            ConfigFile config, Family<T> family, ImageModel.Options options, @Nullable Shapes shapes) {
        if (shapes != null) {
            DType dtype = ComponentLoader.dtype(directory, options.dtype());
            return new Generator(family.create(config, WeightLoader.shapes(shapes, dtype)), dtype, () -> {});
        }
        Component<T> component = ComponentLoader.load(device, stream, directory, options.dtype(), family,
                options.progress());
        return new Generator(component.network(), component.dtype(), component::close);
    }

    /// The network as what decodes an "image" of one pixel with Z + K channels.
    private record Generator(LatentDecoder network, DType dtype, Runnable release) implements LatentCoder {
        @Override
        public int imageChannels() {
            return network.imageChannels();
        }

        @Override
        public int reduction() {
            return network.imageSize();
        }

        @Override
        public float pixelScale() {
            return network.pixelScale();
        }

        @Override
        public float pixelOffset() {
            return network.pixelOffset();
        }

        @Override
        public Map<String, Tensor> weights() {
            return network.weights();
        }

        @Override
        public Tensor decode(Layers net, Tensor latents) {
            return network.forward(net, latents.reshape(1, network.latentSize() + network.numClasses()));
        }

        @Override
        public Tensor encode(Layers net, Tensor pixels, @Nullable Tensor noise) {
            throw GatunException.invalid("the model makes pictures of numbers, it takes no picture");
        }

        @Override
        public void close() {
            release.run();
        }
    }

    @Override
    public Kind kind() {
        return kind;
    }

    @Override
    public int classes() {
        return generator.network.numClasses();
    }

    @Override
    public int defaultSteps() {
        return 0;
    }

    @Override
    public double defaultGuidance() {
        return 1;
    }

    @Override
    public Images sample(SampleConfig config) {
        check(config);
        int count = config.count();
        long start = System.nanoTime();
        try (DeviceArena arena = device.newArena("drawing")) {
            Tensor all = arena.allocate(DType.F32, count, 1, 1, inputs());
            Tensor z = all.slice(3, 0, generator.network.latentSize());
            if (classes() > 0) {
                Tensor chosen = all.slice(3, generator.network.latentSize(), inputs());
                float[] rows = LatentDecoder.oneHot(ofEach(config.classes(), count), classes());
                Elementwise.copy(stream, chosen, HostImages.upload(arena, stream, rows, chosen.shape()));
            }
            float[] given = config.latents();
            if (given != null) {
                Elementwise.copy(stream, z, HostImages.upload(arena, stream, given, z.shape()));
            } else {
                long[] keys = new long[2 * count];
                for (int i = 0; i < count; i++) {
                    keys[2 * i] = config.seeds()[i];
                }
                Tensor seeds = arena.allocate(DType.I64, count, 2);
                seeds.copyFrom(stream, keys);
                Noise.normal(stream, z, seeds, 0);
            }
            try (PixelDecoder decoder = new PixelDecoder(device, stream, generator, count, 1, 1, inputs())) {
                long ready = System.nanoTime();
                Images images = decoder.decode(all, config, 1, null, null, new long[] {start, ready, ready});
                config.progress().calls(1, 1);
                return images.raw() == null ? images : images.withLatents(numbers(arena, z), z.size(0), z.size(3));
            }
        }
    }

    /// What [SampleConfig#latents()] takes.
    private float[] numbers(DeviceArena arena, Tensor z) {
        Tensor whole = arena.allocate(DType.F32, z.shape());
        Elementwise.copy(stream, whole, z);
        return whole.toFloats(stream);
    }

    /// Z + K
    private long inputs() {
        return generator.network.latentSize() + classes();
    }

    /// One for all, or one for each.
    private static int[] ofEach(int[] classes, int count) {
        int[] all = new int[count];
        Arrays.setAll(all, i -> classes[classes.length == 1 ? 0 : i]);
        return all;
    }

    private void check(SampleConfig config) {
        DrawRequest.checkConditions(config, false, classes(), false);
        if (config.guidance() != null || config.guidanceRescale() != 0) {
            throw GatunException.invalid("the model draws in one pass: it takes no guidance");
        }
        if (config.image() != null || config.scheduler() != null || config.noise() != null || config.steps() != 0
                || config.eta() != 0 || config.preview() != null) {
            throw GatunException.invalid("the model draws in one pass: it takes no picture, scheduler, steps, eta,"
                    + " noise or preview");
        }
        config.checkLatents(config.count(), generator.network.latentSize());
        int size = generator.network.imageSize();
        if (config.height() != 0 && config.height() != size || config.width() != 0 && config.width() != size) {
            throw GatunException.invalid("size is %d x %d, expected %d x %d, the only one of this model",
                    config.height(), config.width(), size, size);
        }
    }

    @Override
    public MemoryEstimate memory(SampleConfig config) {
        check(config);
        long parameters = generator.weights().values().stream().mapToLong(Tensor::elements).sum();
        long weightBytes = parameters * generator.dtype.bytes();
        boolean counted = isLoaded && !device.addressesHostMemory();
        return MemoryEstimate.of(parameters, weightBytes, this::activations, config.count(),
                device.memoryFree() + (counted ? weightBytes : 0));
    }

    private long activations(int count) {
        try (Shapes shapes = new Shapes(device)) {
            return PixelDecoder.measure(device, stream, generator, shapes, count, 1, 1, inputs())
                    + Float.BYTES * inputs() * count;
        }
    }

    @Override
    public void close() {
        generator.close();
    }
}
