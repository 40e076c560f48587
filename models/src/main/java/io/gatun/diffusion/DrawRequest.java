package io.gatun.diffusion;

import io.gatun.models.ImageNetwork;
import io.gatun.runtime.DType;
import io.gatun.runtime.GatunException;
import java.util.List;
import java.util.function.IntToDoubleFunction;
import java.util.stream.IntStream;
import org.jspecify.annotations.Nullable;

/// A request as a pipeline understands it, checked before anything is done.
///
/// @param height   of the sample
/// @param width    of the sample
/// @param channels of the sample
/// @param guidance null: the network runs once per image
record DrawRequest(SampleConfig config, Trajectory trajectory, String schedulerClass, int height, int width,
        int channels, @Nullable Guidance guidance) {
    private static final long MAX_PIXEL_BYTES = Integer.MAX_VALUE - 8;

    /// @throws GatunException when the settings do not suit the pipeline; says what is expected
    static DrawRequest of(DiffusionParts parts, SampleConfig config) {
        ImageNetwork network = parts.network();
        boolean takesText = parts.text() != null;
        checkConditions(config, takesText, network.numClasses(), isGuided(parts, config)
                && network.nullClass() < network.numClasses());
        SchedulerConfig scheduler = config.scheduler() == null ? parts.scheduler()
                : parts.scheduler().withClass(config.scheduler());
        if (config.eta() != 0 && !scheduler.className().startsWith("DDIM")) {
            throw GatunException.invalid("eta is %s, which %s does not know: expected 0, or the scheduler ddim",
                    config.eta(), scheduler.className());
        }
        if (config.image() != null && config.latents() != null) {
            throw GatunException.invalid("there are both a picture and latents to start from, expected one of them");
        }
        int steps = config.steps() == 0 ? parts.defaults().steps() : config.steps();
        SamplingOptions options = SamplingOptions.steps(steps).withEta(config.eta())
                .withStrength(config.image() == null ? 1 : config.strength());
        if (config.shift().isPresent()) {
            options = options.withShift(config.shift().getAsDouble());
        }
        Trajectory trajectory = scheduler.sampler().trajectory(options);
        int reduction = parts.coder().reduction();
        DrawRequest request = new DrawRequest(config, trajectory, scheduler.className(),
                side(network, config.height(), 0, reduction, "height"),
                side(network, config.width(), 1, reduction, "width"), network.inChannels(),
                guidance(parts, config, takesText || network.numClasses() > 0, trajectory.calls()));
        request.checkSizes(parts.coder());
        return request;
    }

    /// Refuses a prompt or class that the model does not take, and the lack of one that it needs.
    ///
    /// @param classes       that the model knows; 0: it takes none
    /// @param lastMeansNone whether the last of them is no class
    static void checkConditions(SampleConfig config, boolean takesText, int classes, boolean lastMeansNone) {
        boolean takesClass = classes > 0;
        if (takesText && config.prompts().isEmpty()) {
            throw GatunException.invalid("the model needs a prompt: pass --prompt TEXT, in a program prompt(TEXT)");
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
            throw GatunException.invalid("the model needs a class: pass --class N, in a program classes(N), %s",
                    range(classes, lastMeansNone));
        }
        for (int id : config.classes()) {
            if (id < 0 || id >= classes) {
                throw GatunException.invalid("class is %d, expected %s", id, range(classes, lastMeansNone));
            }
        }
    }

    private static String range(int classes, boolean lastMeansNone) {
        return lastMeansNone ? "0 to %d, or %d for none".formatted(classes - 2, classes - 1)
                : "0 to %d".formatted(classes - 1);
    }

    /// Whether the model was trained to be guided, or is asked to be.
    private static boolean isGuided(DiffusionParts parts, SampleConfig config) {
        IntToDoubleFunction asked = config.guidance();
        return parts.defaults().guidance() > 1 || asked != null && asked.applyAsDouble(0) > 1;
    }

    private void checkSizes(LatentCoder coder) {
        long pixels = 3L * height * coder.reduction() * width * coder.reduction();
        if (pixels > MAX_PIXEL_BYTES / count()) {
            throw GatunException.invalid("%d images of %d x %d are more than 2 GiB of pixels: draw fewer at a time",
                    count(), (long) height * coder.reduction(), (long) width * coder.reduction());
        }
        if (coder.imageChannels() != 1 && coder.imageChannels() != 3) {
            throw GatunException.invalid("the model makes images of %d channels, expected 1 or 3",
                    coder.imageChannels());
        }
        config.checkLatents(count(), channels, height, width);
        long draws = IntStream.range(0, trajectory.calls()).filter(trajectory::drawsNoise).count();
        config.checkNoise(config.noiseSets() == draws ? (int) draws : trajectory.calls(), count(), channels, height,
                width);
    }

    /// Height or width of the sample.
    private static int side(ImageNetwork network, int pixels, int index, int reduction, String name) {
        if (pixels != 0) {
            if (pixels % reduction != 0) {
                throw GatunException.invalid("%s is %d, expected a multiple of %d", name, pixels, reduction);
            }
            return pixels / reduction;
        }
        List<Integer> own = network.sampleSize();
        if (own.isEmpty()) {
            throw GatunException.invalid("the model's config has no sample_size: pass --height and --width, in a"
                    + " program size(HEIGHT, WIDTH)");
        }
        return own.get(Math.min(index, own.size() - 1));
    }

    /// Null where no call is guided: then the network runs once per image.
    private static @Nullable Guidance guidance(DiffusionParts parts, SampleConfig config, boolean isConditional,
            int calls) {
        IntToDoubleFunction asked = config.guidance();
        if (!isConditional && asked != null) {
            throw GatunException.invalid("the model takes neither prompt nor class, so there is nothing to guide it");
        }
        if (asked != null) {
            IntStream.range(0, calls).forEach(call -> SampleConfig.requireGuidance(asked.applyAsDouble(call)));
        }
        IntToDoubleFunction scale = asked != null ? asked : call -> parts.defaults().guidance();
        if (isConditional && IntStream.range(0, calls).anyMatch(call -> scale.applyAsDouble(call) > 1)) {
            return new Guidance(scale, config.guidanceRescale());
        }
        if (!config.negativePrompts().isEmpty() || config.guidanceRescale() != 0) {
            throw GatunException.invalid("a negative prompt and a guidance rescale work through guidance, which is off:"
                    + " expected a guidance above 1");
        }
        return null;
    }

    int count() {
        return config.count();
    }

    /// Images that the network sees in a call.
    int rows() {
        return guidance == null ? count() : 2 * count();
    }

    /// Whether the loop begins with the picture.
    boolean startsFromPicture() {
        return config.image() != null && config.strength() < 1;
    }

    SamplingLoop.Settings settings(DType dtype) {
        SamplingLoop.Settings settings = SamplingLoop.Settings.of(count(), height, width, channels, dtype)
                .withGuidance(guidance);
        settings = config.mask() == null ? settings : settings.withInpainting();
        return config.noise() == null ? settings : settings.withRecordedNoise();
    }
}
