package io.gatun.diffusion;

import io.gatun.runtime.GatunException;
import java.awt.image.BufferedImage;
import java.util.Arrays;
import java.util.List;
import java.util.OptionalDouble;
import java.util.function.BooleanSupplier;
import java.util.function.Consumer;
import java.util.function.IntToDoubleFunction;
import org.jspecify.annotations.Nullable;

/// How to draw images. Names and meanings are those of Hugging Face diffusers.
///
/// ```java
/// SampleConfig config = SampleConfig.builder().prompt("a cat").steps(25).guidance(7.5).seed(7).build();
/// ```
///
/// An image's random numbers depend on its own seed alone, so it is the same alone and in any batch.
public final class SampleConfig {
    /// Images of one drawing.
    public static final int MAX_COUNT = 4096;
    static final int MAX_STEPS = 10_000;
    /// Of guidance: what a network says times more is noise.
    public static final double MAX_GUIDANCE = 100;
    private static final int MAX_SIZE = 1 << 16;

    private final Builder b;
    private final long[] seeds;

    private SampleConfig(Builder builder) {
        this.b = builder;
        int count = builder.count();
        if (count < 1 || count > MAX_COUNT) {
            throw GatunException.invalid("count is %d, expected 1 to %d images", count, MAX_COUNT);
        }
        if (builder.steps < 0 || builder.steps > MAX_STEPS) {
            throw GatunException.invalid("steps is %d, expected 1 to %d", builder.steps, MAX_STEPS);
        }
        require("eta", builder.eta, builder.eta >= 0 && builder.eta <= 1, "0 to 1");
        require("strength", builder.strength, builder.strength > 0 && builder.strength <= 1, "above 0, at most 1");
        require("guidance rescale", builder.guidanceRescale,
                builder.guidanceRescale >= 0 && builder.guidanceRescale <= 1, "0 to 1");
        for (int size : new int[] {builder.height, builder.width}) {
            require("image size", size, size >= 0 && size <= MAX_SIZE, "1 to " + MAX_SIZE);
        }
        perImage("prompts", builder.prompts.size(), count);
        perImage("negative prompts", builder.negativePrompts.size(), count);
        perImage("classes", builder.classes.length, count);
        if (builder.mask != null && builder.image == null) {
            throw GatunException.invalid("there is a mask and no image: give the image whose masked part is drawn");
        }
        this.seeds = builder.seeds.length == 0 ? new long[count] : builder.seeds.clone();
        for (int i = 0; builder.seeds.length == 0 && i < count; i++) {
            seeds[i] = builder.seed + i;
        }
        perImage("seeds", seeds.length, count);
    }

    /// Refuses a guidance that is no number from 0 to [#MAX_GUIDANCE].
    static void requireGuidance(double value) {
        require("guidance", value, value >= 0 && value <= MAX_GUIDANCE, "0 to %.0f".formatted(MAX_GUIDANCE));
    }

    private static void require(String what, double value, boolean valid, String expected) {
        if (!valid) {
            throw GatunException.invalid("%s is %s, expected %s", what, value, expected);
        }
    }

    private static void perImage(String what, int number, int count) {
        if (number > 1 && number != count) {
            throw GatunException.invalid("there are %d %s for %d images, expected one, or one for each", number, what,
                    count);
        }
    }

    public static Builder builder() {
        return new Builder();
    }

    /// The number of images.
    public int count() {
        return seeds.length;
    }

    /// Denoising steps; 0: the pipeline's default.
    public int steps() {
        return b.steps;
    }

    /// A scheduler's name or class, such as `ddim`; null: the model's own.
    public @Nullable String scheduler() {
        return b.scheduler;
    }

    /// DDIM's: 0 adds no noise, 1 as much as DDPM.
    public double eta() {
        return b.eta;
    }

    /// The seed of each image.
    public long[] seeds() {
        return seeds.clone();
    }

    /// The class of each image; empty: none.
    public int[] classes() {
        return b.classes.clone();
    }

    public List<String> prompts() {
        return b.prompts;
    }

    public List<String> negativePrompts() {
        return b.negativePrompts;
    }

    /// Classifier-free guidance at a step; null: the pipeline's default.
    public @Nullable IntToDoubleFunction guidance() {
        return b.guidance;
    }

    public double guidanceRescale() {
        return b.guidanceRescale;
    }

    /// Pixels; 0: the model's own size.
    public int height() {
        return b.height;
    }

    public int width() {
        return b.width;
    }

    /// The picture to start from; null: noise.
    public @Nullable BufferedImage image() {
        return b.image;
    }

    /// White where the picture is drawn anew; null: everywhere.
    public @Nullable BufferedImage mask() {
        return b.mask;
    }

    /// How much of the noise schedule is applied to the picture: 1 forgets it.
    public double strength() {
        return b.strength;
    }

    /// The start, N(0, 1) values [count, C, h, w] of samples in place of seeded ones; null: by seed.
    public float @Nullable [] latents() {
        return b.latents;
    }

    /// The noise of each call, or of each that draws some, [calls, count, C, h, w] in place of seeded one; null: by
    /// seed.
    public float @Nullable [] noise() {
        return b.noise;
    }

    /// Whether [Images#raw] is wanted.
    public boolean keepsRaw() {
        return b.keepRaw;
    }

    /// The mu of a flow's dynamic shifting; empty: not given.
    public OptionalDouble shift() {
        return b.shift;
    }

    /// Throws where latents were given in another shape than [wanted].
    void checkLatents(int... wanted) {
        check("latents", b.latents, b.latentsShape, wanted);
    }

    /// Sets of noise that were given.
    long noiseSets() {
        return b.noiseShape.length == 0 ? 0 : b.noiseShape[0];
    }

    /// As [#checkLatents].
    void checkNoise(int... wanted) {
        check("noise", b.noise, b.noiseShape, wanted);
    }

    private static void check(String what, float @Nullable [] values, long[] shape, int... wanted) {
        long elements = 1;
        boolean fits = shape.length == wanted.length;
        for (int i = 0; i < wanted.length; i++) {
            elements *= wanted[i];
            fits = fits && shape[i] == wanted[i];
        }
        if (values != null && (!fits || values.length != elements)) {
            throw GatunException.invalid("%s are %s with %d numbers, expected %s", what, Arrays.toString(shape),
                    values.length, Arrays.toString(wanted));
        }
    }

    Progress progress() {
        return b.progress;
    }

    int previewEvery() {
        return b.previewEvery;
    }

    @Nullable Consumer<Preview> preview() {
        return b.preview;
    }

    @Nullable BooleanSupplier cancelled() {
        return b.cancelled;
    }

    /// Told how far a drawing is.
    @FunctionalInterface
    public interface Progress {
        /// @param done calls of the network that were started; with [Builder#cancelledWhen] at most two of them are not
        ///             finished
        /// @param all  calls that there will be
        void calls(int done, int all);
    }

    /// What a preview shows: the sample as it is after a step, [count, C, H, W], with what noise is left. Making one
    /// copies it to the host.
    ///
    /// @param call  calls of the network so far
    /// @param calls calls that there will be
    public record Preview(int call, int calls, float[] sample, long[] shape) {}

    /// Collects settings; [#build] checks them.
    public static final class Builder {
        private int count;
        private int steps;
        private @Nullable String scheduler;
        private double eta;
        private long seed;
        private long[] seeds = {};
        private int[] classes = {};
        private List<String> prompts = List.of();
        private List<String> negativePrompts = List.of();
        private @Nullable IntToDoubleFunction guidance;
        private double guidanceRescale;
        private int height;
        private int width;
        private @Nullable BufferedImage image;
        private @Nullable BufferedImage mask;
        private double strength = 0.8;
        private float @Nullable [] latents;
        private float @Nullable [] noise;
        private boolean keepRaw;
        private Progress progress = (done, all) -> {};
        private OptionalDouble shift = OptionalDouble.empty();
        private long[] latentsShape = {};
        private long[] noiseShape = {};
        private int previewEvery;
        private @Nullable Consumer<Preview> preview;
        private @Nullable BooleanSupplier cancelled;

        private Builder() {}

        private int count() {
            return count != 0 ? count : Math.max(1, Math.max(seeds.length, Math.max(prompts.size(), classes.length)));
        }

        /// Images, at most [#MAX_COUNT]; by default as many as there are seeds, prompts or classes.
        public Builder count(int value) {
            if (value < 1 || value > MAX_COUNT) {
                throw GatunException.invalid("count is %d, expected 1 to %d images", value, MAX_COUNT);
            }
            count = value;
            return this;
        }

        public Builder steps(int value) {
            if (value < 1) {
                throw GatunException.invalid("steps is %d, expected 1 to %d", value, MAX_STEPS);
            }
            steps = value;
            return this;
        }

        public Builder scheduler(@Nullable String name) {
            scheduler = name;
            return this;
        }

        public Builder eta(double value) {
            eta = value;
            return this;
        }

        /// Image i has seed `value + i`.
        public Builder seed(long value) {
            seed = value;
            return this;
        }

        /// One seed per image.
        public Builder seeds(long... values) {
            seeds = values.clone();
            return this;
        }

        /// One class for all images, or one for each.
        public Builder classes(int... values) {
            classes = values.clone();
            return this;
        }

        public Builder prompt(String text) {
            return prompts(List.of(text));
        }

        /// One prompt for all images, or one for each.
        public Builder prompts(List<String> texts) {
            prompts = List.copyOf(texts);
            return this;
        }

        /// What the images should not show; one for all, or one for each.
        public Builder negativePrompts(List<String> texts) {
            negativePrompts = List.copyOf(texts);
            return this;
        }

        /// Classifier-free guidance, 0 to 100: `u + value (c - u)`. 1 or less: none.
        public Builder guidance(double value) {
            requireGuidance(value);
            return guidance(step -> value);
        }

        /// Guidance that changes from step to step, counted from 0; each 0 to 100.
        public Builder guidance(IntToDoubleFunction byStep) {
            guidance = byStep;
            return this;
        }

        /// Lin et al. 2023 (arXiv 2305.08891): how far the guided output takes back the standard deviation it had.
        public Builder guidanceRescale(double value) {
            guidanceRescale = value;
            return this;
        }

        public Builder size(int newHeight, int newWidth) {
            height = newHeight;
            width = newWidth;
            return this;
        }

        /// The picture to start from, and how much of the noise schedule is applied to it.
        public Builder image(BufferedImage picture, double howMuch) {
            image = picture;
            strength = howMuch;
            return this;
        }

        /// White where [#image] is drawn anew.
        public Builder mask(@Nullable BufferedImage picture) {
            mask = picture;
            return this;
        }

        /// See [SampleConfig#latents()]. For a generator [count, Z].
        public Builder latents(float[] values, long... shape) {
            latents = values;
            latentsShape = shape.clone();
            return this;
        }

        /// See [SampleConfig#noise()].
        public Builder noise(float[] values, long... shape) {
            noise = values;
            noiseShape = shape.clone();
            return this;
        }

        /// The mu of a flow's dynamic shifting, where scheduler_config.json asks for it.
        public Builder shift(double mu) {
            shift = OptionalDouble.of(mu);
            return this;
        }

        /// Also returns the numbers behind the pictures.
        public Builder keepRaw(boolean value) {
            keepRaw = value;
            return this;
        }

        /// Told how far the drawing is, on the thread that draws.
        public Builder progress(Progress listener) {
            progress = listener;
            return this;
        }

        /// Shows the sample after every `every` steps; each costs a copy to the host.
        public Builder preview(int every, Consumer<Preview> listener) {
            if (every < 1) {
                throw GatunException.invalid("a preview every %d steps, expected 1 or more", every);
            }
            previewEvery = every;
            preview = listener;
            return this;
        }

        /// Asked between calls of the network, which the host then does not let run ahead by more than two; true ends
        /// the drawing with a [GatunException] of status CANCELLED.
        public Builder cancelledWhen(BooleanSupplier condition) {
            cancelled = condition;
            return this;
        }

        public SampleConfig build() {
            return new SampleConfig(copy());
        }

        private Builder copy() {
            Builder c = new Builder();
            c.count = count;
            c.steps = steps;
            c.scheduler = scheduler;
            c.eta = eta;
            c.seed = seed;
            c.seeds = seeds;
            c.classes = classes;
            c.prompts = prompts;
            c.negativePrompts = negativePrompts;
            c.guidance = guidance;
            c.guidanceRescale = guidanceRescale;
            c.height = height;
            c.width = width;
            c.image = image;
            c.mask = mask;
            c.strength = strength;
            c.latents = latents;
            c.latentsShape = latentsShape;
            c.noiseShape = noiseShape;
            c.shift = shift;
            c.noise = noise;
            c.keepRaw = keepRaw;
            c.progress = progress;
            c.previewEvery = previewEvery;
            c.preview = preview;
            c.cancelled = cancelled;
            return c;
        }
    }
}
