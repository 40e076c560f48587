package io.gatun.diffusion;

import io.gatun.diffusion.ImageModel.Kind;
import io.gatun.models.ComponentLoader;
import io.gatun.models.ComponentLoader.Component;
import io.gatun.models.ConfigFile;
import io.gatun.models.ImageNetwork;
import io.gatun.models.ImageNetworkLoader;
import io.gatun.models.Layers;
import io.gatun.models.WeightLoader;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.DeviceArena;
import io.gatun.runtime.GatunException;
import io.gatun.runtime.Plan;
import io.gatun.runtime.Shapes;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Arrays;
import java.util.List;
import java.util.function.IntToDoubleFunction;
import java.util.stream.IntStream;
import java.util.stream.Stream.Builder;
import org.jspecify.annotations.Nullable;

/// A denoising network with what stands around it: what it is told (nothing, a class, a text), the sampler, and what turns
/// samples into pixels. All diffusion pipelines are this one with other parts.
final class DiffusionPipeline implements Pipeline {
    private final Device device;
    private final Stream stream;
    private final Parts parts;

    /// @param network   called once per step
    /// @param dtype     the network's
    /// @param coder     from samples to pixels
    /// @param text      null: the network reads no text
    /// @param scheduler scheduler_config.json
    /// @param defaults  what is done when nothing else is asked for
    /// @param xl        whether the network is told sizes too
    /// @param zeroEmpty whether an absent negative prompt is zeros instead of an empty text
    /// @param release   frees the network's weights
    private record Parts(ImageNetwork network, DType dtype, LatentCoder coder, @Nullable TextEncoders text,
            SchedulerConfig scheduler, Defaults defaults, boolean xl, boolean zeroEmpty, Runnable release) {}

    /// As the pipelines of diffusers have them.
    private record Defaults(int steps, double guidance) {}

    private DiffusionPipeline(Device device, Stream stream, Parts parts) {
        this.device = device;
        this.stream = stream;
        this.parts = parts;
    }

    /// Opens the directory of a pipeline.
    static DiffusionPipeline open(Device device, Stream stream, PipelineFiles files, ImageModel.Options options,
            @Nullable Shapes shapes) {
        String name = files.className();
        boolean isStable = name.startsWith("StableDiffusion");
        boolean isXl = name.startsWith("StableDiffusionXL");
        Opened opened = new Opened(device, stream, options, shapes);
        try {
            SchedulerConfig scheduler = SchedulerConfig.read(files.folder("scheduler"));
            Parts parts = switch (name) {
                case "DDPMPipeline", "DDIMPipeline", "PNDMPipeline" -> {
                    opened.network(files.folder("unet"));
                    opened.noCoder();
                    yield opened.parts(scheduler, new Defaults(name.startsWith("DDPM") ? 1000 : 50, 1), false, false);
                }
                case "LDMPipeline" -> {
                    opened.network(files.folder("unet"));
                    opened.coder(files, "vqvae");
                    yield opened.parts(scheduler, new Defaults(50, 1), false, false);
                }
                case "DiTPipeline" -> {
                    opened.network(files.folder("transformer"));
                    opened.coder(files, "vae");
                    yield opened.parts(scheduler, new Defaults(50, 4), false, false);
                }
                case "StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline", "StableDiffusionInpaintPipeline",
                        "StableDiffusionXLPipeline", "StableDiffusionXLImg2ImgPipeline",
                        "StableDiffusionXLInpaintPipeline" -> {
                    opened.text(files);
                    opened.network(files.folder("unet"));
                    opened.coder(files, "vae");
                    yield opened.parts(scheduler.withoutClipping(), new Defaults(50, isXl ? 5 : 7.5), isXl,
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
            return new DiffusionPipeline(device, stream, parts);
        } catch (RuntimeException e) {
            opened.close();
            throw e;
        }
    }

    /// Opens a directory with a network alone, which draws pixels; with its scheduler_config.json where that lies beside
    /// it, else as DDPM.
    static DiffusionPipeline openNetwork(Device device, Stream stream, Path directory, ImageModel.Options options,
            @Nullable Shapes shapes) {
        Opened opened = new Opened(device, stream, options, shapes);
        try {
            opened.network(directory);
            opened.noCoder();
            SchedulerConfig scheduler = Files.exists(directory.resolve("scheduler_config.json"))
                    ? SchedulerConfig.read(directory) : SchedulerConfig.parse("{\"_class_name\": \"DDPMScheduler\"}");
            return new DiffusionPipeline(device, stream, opened.parts(scheduler, new Defaults(1000, 1), false, false));
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

        Parts parts(SchedulerConfig scheduler, Defaults defaults, boolean xl, boolean zeroEmpty) {
            return new Parts(network, dtype, coder, text, scheduler, defaults, xl, zeroEmpty, release);
        }

        @Override
        public void close() {
            release.run();
            if (coder != null) {
                coder.close();
            }
            if (text != null) {
                text.close();
            }
        }
    }

    @Override
    public Kind kind() {
        return Kind.DIFFUSION;
    }

    @Override
    public Images sample(SampleConfig config) {
        Request request = request(config);
        long start = System.nanoTime();
        try (DeviceArena arena = device.newArena("drawing")) {
            Conditions conditions = Conditions.encode(this, arena, request);
            stream.synchronize();
            long encoded = System.nanoTime();
            try (SamplingLoop loop = SamplingLoop.of(stream, request.trajectory, request.settings(parts.dtype),
                    (plan, in) -> denoise(plan, in, conditions))) {
                LoopStart.begin(device, stream, parts.coder, loop, request);
                run(loop, config);
                stream.synchronize();
                long denoised = System.nanoTime();
                try (PixelDecoder decoder = new PixelDecoder(device, stream, parts.coder, request.count(),
                        request.height, request.width, loop.sample().size(3))) {
                    return decoder.decode(loop.sample(), config, request.trajectory.calls(), request.schedulerClass,
                            conditions.firstNonfinite(device, stream),
                            new long[] {start, encoded, denoised});
                }
            }
        }
    }

    private void run(SamplingLoop loop, SampleConfig config) {
        int calls = loop.trajectory().calls();
        for (int call = 0; call < calls; call++) {
            if (config.cancelled().getAsBoolean()) {
                throw new GatunException(GatunException.Status.CANCELLED,
                        "cancelled after %d of %d steps".formatted(call, calls), null);
            }
            loop.step();
            config.progress().accept(call + 1);
            if (config.preview() != null && (call + 1) % config.previewEvery() == 0) {
                config.preview().accept(LoopStart.preview(device, stream, loop, call + 1, calls));
            }
        }
    }

    private Tensor denoise(Plan.Recorder plan, Denoiser.Inputs in, Conditions conditions) {
        Tensor x = in.sample();
        Layers net = new Layers(device, stream, plan);
        Tensor output = plan.allocate(parts.dtype, x.size(0), x.size(1), x.size(2), parts.network.outChannels());
        parts.network.forward(net, output, new ImageNetwork.Inputs(x, in.timesteps(), in.counter(),
                conditions.states(), conditions.classes(), conditions.pooled(), conditions.timeIds(), null));
        return output;
    }

    /// A request as this pipeline understands it.
    ///
    /// @param height   of the sample
    /// @param width    of the sample
    /// @param guidance null: the network runs once per image
    record Request(SampleConfig config, Trajectory trajectory, String schedulerClass, int height, int width,
            int channels, @Nullable Guidance guidance) {
        int count() {
            return config.count();
        }

        /// Images that the network sees in a call.
        int rows() {
            return guidance == null ? count() : 2 * count();
        }

        SamplingLoop.Settings settings(DType dtype) {
            SamplingLoop.Settings settings = SamplingLoop.Settings.of(count(), height, width, channels, dtype)
                    .withGuidance(guidance);
            settings = config.mask() == null ? settings : settings.withInpainting();
            return config.noise() == null ? settings : settings.withRecordedNoise();
        }
    }

    private Request request(SampleConfig config) {
        boolean takesText = parts.text != null;
        boolean takesClass = parts.network.numClasses() > 0;
        if (takesText && config.prompts().isEmpty()) {
            throw GatunException.invalid("the model needs a prompt: pass --prompt TEXT");
        }
        if (!takesText && !(config.prompts().isEmpty() && config.negativePrompts().isEmpty())) {
            throw GatunException.invalid("the model takes no prompt: it draws %s",
                    takesClass ? "a class (--class N)" : "whatever it was trained on");
        }
        if (!takesClass && config.classes().length > 0) {
            throw GatunException.invalid("the model takes no class: it draws %s",
                    takesText ? "what a prompt says (--prompt TEXT)" : "whatever it was trained on");
        }
        if (takesClass && config.classes().length == 0) {
            throw GatunException.invalid("the model needs a class: pass --class N, 0 to %d",
                    parts.network.numClasses() - 1);
        }
        for (int id : config.classes()) {
            if (id < 0 || id >= parts.network.numClasses()) {
                throw GatunException.invalid("class is %d, expected 0 to %d", id, parts.network.numClasses() - 1);
            }
        }
        SchedulerConfig scheduler = config.scheduler() == null ? parts.scheduler
                : parts.scheduler.withClass(SchedulerNames.classOf(config.scheduler()));
        int steps = config.steps() == 0 ? parts.defaults.steps : config.steps();
        Trajectory trajectory = scheduler.sampler().trajectory(SamplingOptions.steps(steps).withEta(config.eta())
                .withStrength(config.image() == null || config.mask() != null && config.strength() == 1 ? 1
                        : config.strength()));
        int reduction = parts.coder.reduction();
        return new Request(config, trajectory, scheduler.className(), side(config.height(), 0, reduction, "height"),
                side(config.width(), 1, reduction, "width"), parts.network.inChannels(),
                guidance(config, takesText || takesClass, trajectory.calls()));
    }

    /// Height or width of the sample.
    private int side(int pixels, int index, int reduction, String name) {
        if (pixels != 0) {
            if (pixels % reduction != 0) {
                throw GatunException.invalid("%s is %d, expected a multiple of %d", name, pixels, reduction);
            }
            return pixels / reduction;
        }
        List<Integer> own = parts.network.sampleSize();
        if (own.isEmpty()) {
            throw GatunException.invalid("the model's config has no sample_size: pass --height and --width");
        }
        return own.get(Math.min(index, own.size() - 1));
    }

    /// Null where no call is guided: then the network runs once per image.
    private @Nullable Guidance guidance(SampleConfig config, boolean isConditional, int calls) {
        IntToDoubleFunction asked = config.guidance();
        if (!isConditional && asked != null) {
            throw GatunException.invalid("the model takes neither prompt nor class, so there is nothing to guide it");
        }
        IntToDoubleFunction scale = asked != null ? asked : call -> parts.defaults.guidance;
        boolean isGuided = isConditional && IntStream.range(0, calls).anyMatch(call -> scale.applyAsDouble(call) > 1);
        return isGuided ? new Guidance(scale, config.guidanceRescale()) : null;
    }

    @Override
    public MemoryEstimate memory(SampleConfig config) {
        Request request = request(config);
        Builder<Tensor> all = java.util.stream.Stream.builder();
        parts.network.weights().values().forEach(all);
        parts.coder.weights().values().forEach(all);
        if (parts.text != null) {
            parts.text.weights().forEach(all);
        }
        List<Tensor> weights = all.build().distinct().toList();
        long weightBytes = weights.stream().mapToLong(t -> t.elements() * t.dtype().bytes()).sum();
        long one = activations(request, 1);
        long each = activations(request, 2) - one;
        long wanted = config.count() == 1 ? one : activations(request, config.count());
        long free = device.memoryFree();
        long left = free - weightBytes - one;
        return new MemoryEstimate(weights.stream().mapToLong(Tensor::elements).sum(), weightBytes, wanted,
                config.count(), left < 0 ? 0 : 1 + left / Math.max(1, each), free);
    }

    /// Bytes that a loop of `count` images, or decoding its result, takes beside the weights.
    private long activations(Request request, int count) {
        int rows = request.guidance == null ? count : 2 * count;
        long image = (long) request.height * request.width * request.channels;
        long loop = image * count * Float.BYTES * (1 + request.trajectory.slots())
                + image * rows * parts.dtype.bytes();
        try (Shapes shapes = new Shapes(device)) {
            Conditions conditions = Conditions.shapes(this, shapes, request, rows);
            Denoiser.Inputs in = new Denoiser.Inputs(
                    shapes.of(parts.dtype, rows, request.height, request.width, request.channels),
                    shapes.of(DType.F32, request.trajectory.calls()), shapes.of(DType.I32, 1));
            long denoising = Plan.measure(device, plan -> denoise(plan, in, conditions));
            long decoding = PixelDecoder.measure(device, stream, parts.coder, shapes, count, request.height,
                    request.width, request.channels);
            return loop + Math.max(denoising, decoding);
        }
    }

    ImageNetwork network() {
        return parts.network;
    }

    DType dtype() {
        return parts.dtype;
    }

    @Nullable TextEncoders text() {
        return parts.text;
    }

    boolean isXl() {
        return parts.xl;
    }

    boolean emptyIsZero() {
        return parts.zeroEmpty;
    }

    int reduction() {
        return parts.coder.reduction();
    }

    Device device() {
        return device;
    }

    Stream stream() {
        return stream;
    }

    static Duration between(long from, long to) {
        return Duration.ofNanos(to - from);
    }

    /// `values`, or its only element for every image.
    static <T> T at(List<T> values, int image) {
        return values.get(values.size() == 1 ? 0 : image);
    }

    static int at(int[] values, int image) {
        return values[values.length == 1 ? 0 : image];
    }

    /// Floats on the device, in the arena.
    static Tensor upload(DeviceArena arena, Stream stream, float[] values, long... shape) {
        Tensor tensor = arena.allocate(DType.F32, shape);
        if (values.length != tensor.elements()) {
            throw GatunException.invalid("%d numbers for %s, expected %d", values.length, Arrays.toString(shape),
                    tensor.elements());
        }
        tensor.copyFrom(stream, values);
        return tensor;
    }

    @Override
    public void close() {
        parts.release.run();
        parts.coder.close();
        if (parts.text != null) {
            parts.text.close();
        }
    }
}
