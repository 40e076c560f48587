package io.gatun.diffusion;

import io.gatun.models.ComponentLoader;
import io.gatun.models.ComponentLoader.Component;
import io.gatun.models.ConfigFile;
import io.gatun.models.ImageNetwork;
import io.gatun.models.ImageNetworkLoader;
import io.gatun.models.WeightLoader;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.GatunException;
import io.gatun.runtime.Shapes;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import org.jspecify.annotations.Nullable;

/// What a diffusion pipeline is made of, opened from a directory.
///
/// @param network   called once per step
/// @param dtype     the network's
/// @param coder     from samples to pixels
/// @param text      null: the network reads no text
/// @param scheduler scheduler_config.json
/// @param defaults  what is done when nothing else is asked for
/// @param xl        whether the network is told sizes too
/// @param zeroEmpty whether an absent negative prompt is zeros instead of an empty text
/// @param loaded    whether the weights have memory
/// @param release   frees the network's weights
record DiffusionParts(ImageNetwork network, DType dtype, LatentCoder coder, @Nullable TextEncoders text,
        SchedulerConfig scheduler, Defaults defaults, boolean xl, boolean zeroEmpty, boolean loaded, Runnable release)
        implements AutoCloseable {

    /// As the pipelines of diffusers have them.
    record Defaults(int steps, double guidance) {
        /// Those of the class of a pipeline, unless its index says what suits the model: `_num_inference_steps`,
        /// `_guidance_scale`, as `gatun train` writes them.
        static Defaults of(PipelineFiles files, int steps, double guidance) {
            return new Defaults(files.index().getInt("_num_inference_steps", 1, SampleConfig.MAX_STEPS, steps),
                    files.index().getNumber("_guidance_scale", guidance));
        }
    }

    /// Opens the directory of a pipeline.
    static DiffusionParts open(Device device, Stream stream, PipelineFiles files, ImageModel.Options options,
            @Nullable Shapes shapes) {
        String name = files.className();
        boolean isStable = name.startsWith("StableDiffusion");
        boolean isXl = name.startsWith("StableDiffusionXL");
        Opened opened = new Opened(device, stream, options, shapes);
        try {
            SchedulerConfig scheduler = SchedulerConfig.read(files.folder("scheduler"));
            DiffusionParts parts = switch (name) {
                case "DDPMPipeline", "DDIMPipeline", "PNDMPipeline" -> {
                    opened.network(files.folder("unet"));
                    opened.noCoder();
                    boolean isLong = name.startsWith("DDPM") && !scheduler.isEdm();
                    yield opened.parts(scheduler, Defaults.of(files, isLong ? 1000 : 50, 1), false, false);
                }
                case "LDMPipeline" -> {
                    opened.network(files.folder("unet"));
                    opened.coder(files, "vqvae");
                    yield opened.parts(scheduler, Defaults.of(files, 50, 1), false, false);
                }
                case "DiTPipeline" -> {
                    opened.network(files.folder("transformer"));
                    opened.coder(files, "vae");
                    yield opened.parts(scheduler, Defaults.of(files, 50, 4), false, false);
                }
                case "StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline", "StableDiffusionInpaintPipeline",
                        "StableDiffusionXLPipeline", "StableDiffusionXLImg2ImgPipeline",
                        "StableDiffusionXLInpaintPipeline" -> {
                    opened.text(files);
                    opened.network(files.folder("unet"));
                    opened.coder(files, "vae");
                    yield opened.parts(scheduler.withoutClipping(), Defaults.of(files, 50, isXl ? 5 : 7.5), isXl,
                            isXl && files.index().getBoolean("force_zeros_for_empty_prompt", true));
                }
                default -> throw files.index().wrong("_class_name", "a DDPM, DDIM, PNDM, LDM, DiT, StableDiffusion or"
                        + " StableDiffusionXL pipeline");
            };
            if (isStable && parts.network.inChannels() != parts.network.outChannels()) {
                throw GatunException.invalid("%s: the unet reads %d channels and predicts %d: networks made for"
                        + " inpainting or depth are not supported; an ordinary one inpaints too (--image, --mask)",
                        files.folder("unet"), parts.network.inChannels(), parts.network.outChannels());
            }
            return parts;
        } catch (RuntimeException e) {
            opened.close();
            throw e;
        }
    }

    /// Opens a directory with a network alone, which draws pixels; with its scheduler_config.json where that lies
    /// beside it, else as DDPM.
    static DiffusionParts openNetwork(Device device, Stream stream, Path directory, ImageModel.Options options,
            @Nullable Shapes shapes) {
        Opened opened = new Opened(device, stream, options, shapes);
        try {
            opened.network(directory);
            opened.noCoder();
            SchedulerConfig scheduler = Files.exists(directory.resolve("scheduler_config.json"))
                    ? SchedulerConfig.read(directory) : SchedulerConfig.parse("{\"_class_name\": \"DDPMScheduler\"}");
            return opened.parts(scheduler, new Defaults(1000, 1), false, false);
        } catch (RuntimeException e) {
            opened.close();
            throw e;
        }
    }

    /// What has been opened so far, so that a failure can close it.
    private static final class Opened implements AutoCloseable {
        private final Device device;
        private final Stream stream;
        private final ImageModel.Options options;
        private final @Nullable Shapes shapes;
        private @Nullable ImageNetwork network;
        private DType dtype = DType.F32;
        private Runnable release = () -> {};
        private @Nullable LatentCoder coder;
        private @Nullable TextEncoders text;

        Opened(Device device, Stream stream, ImageModel.Options options, @Nullable Shapes shapes) {
            this.device = device;
            this.stream = stream;
            this.options = options;
            this.shapes = shapes;
        }

        void network(Path folder) {
            if (shapes != null) {
                dtype = ComponentLoader.dtype(folder, options.dtype());
                network = ImageNetworkLoader.create(ConfigFile.read(folder.resolve("config.json")),
                        WeightLoader.shapes(shapes, dtype));
                return;
            }
            Component<ImageNetwork> component = ImageNetworkLoader.load(device, stream, folder, options.dtype(),
                    options.progress());
            network = component.network();
            dtype = component.dtype();
            release = component::close;
        }

        void noCoder() {
            coder = new LatentCoders.None(network.inChannels(), dtype);
        }

        void coder(PipelineFiles files, String name) {
            coder = LatentCoders.open(device, stream, files.folder(name), files.classOf(name), options, shapes);
        }

        void text(PipelineFiles files) {
            text = TextEncoders.open(device, stream, files, options, shapes);
        }

        DiffusionParts parts(SchedulerConfig scheduler, Defaults defaults, boolean xl, boolean zeroEmpty) {
            return new DiffusionParts(network, dtype, coder, text, scheduler, defaults, xl, zeroEmpty, shapes == null,
                    release);
        }

        @Override
        public void close() {
            closeAll(release, coder, text);
        }
    }

    private static void closeAll(Runnable release, @Nullable LatentCoder coder, @Nullable TextEncoders text) {
        AutoCloseableRunnable network = release::run;
        try (network; coder; text) {
            // each is closed, whatever becomes of the others
        }
    }

    /// Closes without a checked exception.
    private interface AutoCloseableRunnable extends AutoCloseable {
        @Override
        void close();
    }

    /// All weights, each once.
    List<Tensor> weights() {
        java.util.stream.Stream<Tensor> own = java.util.stream.Stream.concat(network.weights().values().stream(),
                coder.weights().values().stream());
        return java.util.stream.Stream.concat(own, text == null ? java.util.stream.Stream.empty()
                : text.weights().stream()).distinct().toList();
    }

    @Override
    public void close() {
        closeAll(release, coder, text);
    }
}
