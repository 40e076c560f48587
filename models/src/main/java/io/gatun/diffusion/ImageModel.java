package io.gatun.diffusion;

import io.gatun.models.ConfigFile;
import io.gatun.models.ModelLoader;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.GatunException;
import io.gatun.runtime.Shapes;
import io.gatun.runtime.Stream;
import io.gatun.runtime.TransferCounters;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.concurrent.locks.ReentrantLock;
import java.util.function.IntConsumer;
import org.jspecify.annotations.Nullable;

/// A model that draws, loaded from a directory as diffusers wrote it: DDPM-style pipelines, latent diffusion, DiT,
/// Stable Diffusion 1, 2 and XL; and the generators of GANs and VAEs.
///
/// ```java
/// try (ImageModel model = ImageModel.load(Path.of("models/ddpm-cifar10-32"))) {
///     Images images = model.sample(SampleConfig.builder().count(4).steps(50).seed(7).build());
///     images.writePng(Path.of("grid.png"));
/// }
/// ```
///
/// Thread safe: calls run one after the other. `close()` may come from any thread at any time; it waits for the drawing
/// that runs, which [SampleConfig.Builder#cancelledWhen] ends early.
public final class ImageModel implements AutoCloseable {
    private final ReentrantLock lock = new ReentrantLock(true);
    private final Device device;
    private final Stream stream;
    private final Pipeline pipeline;
    private boolean closed;

    /// What makes the images.
    public enum Kind {
        DIFFUSION,
        VAE,
        GAN
    }

    /// How to load.
    ///
    /// @param device   `auto`, `cpu`, `cuda`, `cuda:N`
    /// @param dtype    to compute in; null: as the checkpoints are stored
    /// @param threads  CPU threads; 0: all cores
    /// @param progress told the number of weights of a network loaded so far
    public record Options(String device, @Nullable DType dtype, int threads, IntConsumer progress) {
        public static Options defaults() {
            return new Options("auto", null, 0, count -> {});
        }

        public Options withDevice(String value) {
            return new Options(value, dtype, threads, progress);
        }

        public Options withDtype(@Nullable DType value) {
            return new Options(device, value, threads, progress);
        }

        public Options withThreads(int value) {
            return new Options(device, dtype, value, progress);
        }

        public Options withProgress(IntConsumer value) {
            return new Options(device, dtype, threads, value);
        }
    }

    private ImageModel(Device device, Stream stream, Pipeline pipeline) {
        this.device = device;
        this.stream = stream;
        this.pipeline = pipeline;
    }

    /// Loads on the best device, in the checkpoints' dtype.
    ///
    /// @throws GatunException when something in the directory is missing, damaged or not supported; says what
    public static ImageModel load(Path directory) {
        return load(directory, Options.defaults());
    }

    /// As [#load(Path)].
    public static ImageModel load(Path directory, Options options) {
        ModelLoader.requireDirectory(directory);
        Device device = Device.open(options.device(), new Device.Options(options.threads()));
        try {
            Stream stream = device.newStream();
            return new ImageModel(device, stream, open(device, stream, directory, options, null));
        } catch (RuntimeException e) {
            device.close();
            throw e;
        }
    }

    /// What loading a directory and drawing would need. Reads configs only.
    public static MemoryEstimate estimate(Path directory, Options options, SampleConfig config) {
        ModelLoader.requireDirectory(directory);
        try (Device device = Device.open(options.device(), new Device.Options(options.threads()));
                Shapes shapes = new Shapes(device);
                Pipeline pipeline = open(device, device.newStream(), directory, options, shapes)) {
            return pipeline.memory(config);
        }
    }

    /// @param shapes null: load the weights
    private static Pipeline open(Device device, Stream stream, Path directory, Options options,
            @Nullable Shapes shapes) {
        PipelineFiles files = PipelineFiles.find(directory);
        if (files != null) {
            return new DiffusionPipeline(device, stream,
                    DiffusionParts.open(device, stream, files, options, shapes));
        }
        ConfigFile config = config(directory);
        if (config.has("_class_name")) {
            return new DiffusionPipeline(device, stream,
                    DiffusionParts.openNetwork(device, stream, directory, options, shapes));
        }
        return GeneratorPipeline.open(device, stream, directory, config, options, shapes);
    }

    /// What a directory holds, by its configs alone.
    ///
    /// @throws GatunException when it is nothing that draws
    public static Kind kindOf(Path directory) {
        ModelLoader.requireDirectory(directory);
        if (PipelineFiles.find(directory) != null) {
            return Kind.DIFFUSION;
        }
        ConfigFile config = config(directory);
        return config.has("_class_name") ? Kind.DIFFUSION : GeneratorPipeline.kindOf(config);
    }

    private static ConfigFile config(Path directory) {
        if (!Files.exists(directory.resolve("config.json"))) {
            throw GatunException.invalid("%s: neither model_index.json nor config.json: expected the directory of a"
                    + " diffusers pipeline or network, or of a generator", directory);
        }
        return ConfigFile.read(directory.resolve("config.json"));
    }

    public Kind kind() {
        return pipeline.kind();
    }

    /// Classes that can be asked for; 0 where the model takes none. Of a model that was trained to be guided the last
    /// means none.
    public int classes() {
        return pipeline.classes();
    }

    /// Denoising steps where a request does not say them; 0: the model draws in one pass.
    public int defaultSteps() {
        return pipeline.defaultSteps();
    }

    /// Guidance where a request does not say it; 1: none.
    public double defaultGuidance() {
        return pipeline.defaultGuidance();
    }

    /// Draws. Each image depends on its own seed, prompt and class alone.
    ///
    /// @throws GatunException when the settings do not suit the model, the device has not enough memory, or the drawing
    ///     is cancelled
    public Images sample(SampleConfig config) {
        lock.lock();
        try {
            requireOpen();
            return pipeline.sample(config);
        } finally {
            lock.unlock();
        }
    }

    /// What [#sample] needs.
    public MemoryEstimate memory(SampleConfig config) {
        lock.lock();
        try {
            requireOpen();
            return pipeline.memory(config);
        } finally {
            lock.unlock();
        }
    }

    /// One line about the device.
    public String deviceDescription() {
        return device.description();
    }

    /// What the device moved, allocated and launched so far.
    public TransferCounters.Snapshot counters() {
        return device.counters().snapshot();
    }

    private void requireOpen() {
        if (closed) {
            throw new IllegalStateException("the model is closed");
        }
    }

    @Override
    public void close() {
        lock.lock();
        try {
            if (!closed) {
                closed = true;
                try (device; stream; pipeline) {
                    // in this order: the pipeline, the stream, the device
                }
            }
        } finally {
            lock.unlock();
        }
    }
}
