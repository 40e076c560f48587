package io.gatun.diffusion;

import io.gatun.ops.Diffusion;
import io.gatun.ops.Diffusion.LearnedVariance;
import io.gatun.ops.Elementwise;
import io.gatun.ops.Noise;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.DeviceArena;
import io.gatun.runtime.GatunException;
import io.gatun.runtime.Graph;
import io.gatun.runtime.Plan;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import org.jspecify.annotations.Nullable;

/// Runs a [Trajectory]: the one loop of all diffusion models. One step is the model's ops and [Diffusion#step],
/// captured as a graph where the device likes graphs; between the steps nothing is copied, allocated or waited for.
///
/// ```java
/// try (SamplingLoop loop = SamplingLoop.of(stream, trajectory, settings, denoiser)) {
///     loop.start(seeds);          // noise; or startFrom(image, seeds)
///     loop.run();
///     loop.sample();              // [B, H, W, C] f32
/// }
/// ```
///
/// A loop can be started again. It belongs to its stream's thread.
public final class SamplingLoop implements AutoCloseable {
    /// The step of Philox that the noise of the beginning has; that of call i is i + 1.
    private static final int FIRST_NOISE = 0;
    /// The noise of the known part of an image has the same seeds, but steps that no call has.
    private static final int KNOWN_NOISE = Integer.MIN_VALUE;

    private final Stream stream;
    private final Trajectory trajectory;
    private final DeviceArena arena;
    private final Tensor sample;
    private final Tensor input;
    private final Tensor table;
    private final Tensor timesteps;
    private final Tensor counter;
    private final Tensor seeds;
    private final @Nullable Tensor state;
    private final @Nullable Tensor statistics;
    private final @Nullable Tensor noise;
    private final @Nullable Tensor mask;
    private final @Nullable Tensor known;
    private final @Nullable Tensor knownNoise;
    private final @Nullable Plan plan;
    private @Nullable Graph graph;
    private boolean isWarm;

    /// @param images   B
    /// @param height   H of the sample, which is the latent image of a latent model
    /// @param width    W
    /// @param channels C
    /// @param dtype    of the model's input
    /// @param guidance null: the model runs on B images
    /// @param inpaints whether [#inpaint] will be used
    /// @param recorded whether the noise of the steps is given by [#noise] instead of drawn
    public record Settings(int images, int height, int width, int channels, DType dtype, @Nullable Guidance guidance,
            boolean inpaints, boolean recorded) {
        /// Without guidance, inpainting and recorded noise.
        public static Settings of(int images, int height, int width, int channels, DType dtype) {
            return new Settings(images, height, width, channels, dtype, null, false, false);
        }

        public Settings withGuidance(@Nullable Guidance value) {
            return new Settings(images, height, width, channels, dtype, value, inpaints, recorded);
        }

        public Settings withInpainting() {
            return new Settings(images, height, width, channels, dtype, guidance, true, recorded);
        }

        public Settings withRecordedNoise() {
            return new Settings(images, height, width, channels, dtype, guidance, inpaints, true);
        }

        private Tensor image(DeviceArena arena) {
            return arena.allocate(DType.F32, images, height, width, channels);
        }
    }

    private SamplingLoop(Stream stream, Trajectory trajectory, Settings settings, Denoiser denoiser) {
        this.stream = stream;
        this.trajectory = trajectory;
        Guidance guidance = settings.guidance;
        int calls = trajectory.calls();
        arena = stream.device().newArena("sampling loop");
        try {
            int inputs = guidance == null ? settings.images : 2 * settings.images;
            sample = settings.image(arena);
            input = arena.allocate(settings.dtype, inputs, settings.height, settings.width, settings.channels);
            table = arena.allocate(DType.F32, calls, Diffusion.FIELDS);
            timesteps = arena.allocate(DType.F32, calls);
            counter = arena.allocate(DType.I32, 2);
            seeds = arena.allocate(DType.I64, settings.images, 2);
            boolean measures = trajectory.thresholdRatio() > 0 || guidance != null && guidance.rescale() != 0;
            statistics = measures ? arena.allocate(DType.F32, settings.images, 2) : null;
            state = trajectory.slots() == 0 ? null : arena.allocate(DType.F32, trajectory.slots(), settings.images,
                    settings.height, settings.width, settings.channels);
            noise = settings.recorded ? arena.allocate(DType.F32, calls, settings.images, settings.height,
                    settings.width, settings.channels) : null;
            mask = settings.inpaints ? arena.allocate(DType.F32, settings.images, settings.height, settings.width, 1)
                    : null;
            known = settings.inpaints ? settings.image(arena) : null;
            knownNoise = settings.inpaints ? settings.image(arena) : null;
            table.copyFrom(stream, trajectory.table(guidance == null ? call -> 1 : guidance.scale(),
                    call -> guidance == null ? 0 : guidance.rescale()));
            timesteps.copyFrom(stream, trajectory.timesteps());
            plan = Plan.of(device(), recorder -> record(recorder, denoiser));
        } catch (RuntimeException e) {
            arena.close();
            throw e;
        }
    }

    /// Prepares a loop: allocates, and copies the tables to the device.
    public static SamplingLoop of(Stream stream, Trajectory trajectory, Settings settings, Denoiser denoiser) {
        return new SamplingLoop(stream, trajectory, settings, denoiser);
    }

    private Device device() {
        return stream.device();
    }

    private void record(Plan.Recorder recorder, Denoiser denoiser) {
        var inputs = new Denoiser.Inputs(input, timesteps, counter.slice(0, 0, 1));
        Tensor whole = denoiser.record(recorder, inputs);
        long channels = sample.size(3);
        LearnedVariance learned = trajectory.learnedVariance();
        if (whole.rank() != 4 || whole.size(3) < (learned == LearnedVariance.NONE ? 1 : 2) * channels) {
            throw GatunException.invalid("the model's output is %s, expected [%d, %d, %d, %d or more]%s", whole,
                    input.size(0), input.size(1), input.size(2), channels,
                    learned == LearnedVariance.NONE ? "" : ": the sampler needs a variance of each channel");
        }
        Tensor output = whole.slice(3, 0, channels);
        Tensor variance = learned == LearnedVariance.NONE ? null : whole.slice(3, channels, 2 * channels);
        var operands = new Diffusion.Operands(sample, state, input, counter, output, variance, statistics, table, noise,
                seeds, mask, known, knownNoise, learned);
        Tensor measured = statistics;
        if (measured != null) {
            recorder.op(() -> Diffusion.statistics(stream, measured, sample, output, table, counter,
                    trajectory.thresholdRatio(), trajectory.largestThreshold()), output);
        }
        recorder.op(() -> Diffusion.step(stream, operands), output, variance);
    }

    /// Begins with noise: image b has that of `seeds[b]`, whatever the other images are.
    public void start(long... imageSeeds) {
        seed(imageSeeds);
        Noise.normal(stream, sample, seeds, FIRST_NOISE);
        scaleAndBegin();
    }

    /// Begins with given noise, which is scaled to the deviation that the sampler wants.
    ///
    /// @param initial [B, H, W, C] floats, standard normal
    public void startFromNoise(Tensor initial, long... imageSeeds) {
        seed(imageSeeds);
        Elementwise.cast(stream, sample, initial);
        scaleAndBegin();
    }

    /// Begins with an image that has as much noise as the first call expects: image-to-image, with a trajectory of a
    /// strength below 1.
    ///
    /// @param image [B, H, W, C] f32, in the scale of the model's samples
    public void startFromImage(Tensor image, long... imageSeeds) {
        seed(imageSeeds);
        Noise.normal(stream, sample, seeds, FIRST_NOISE);
        Elementwise.scale(stream, sample, sample, (float) trajectory.noiseLevel(0));
        try (DeviceArena scratch = device().newArena("image with noise")) {
            Tensor signal = scratch.allocate(DType.F32, image.shape());
            Elementwise.scale(stream, signal, image, (float) trajectory.signalLevel(0));
            Elementwise.add(stream, sample, sample, signal);
            stream.synchronize();
        }
        begin();
    }

    /// What the image is where it is not to be made. After [#start], before [#run].
    ///
    /// @param made  [B, H, W, 1] f32: 1 where the image is made, 0 where it is known
    /// @param image [B, H, W, C] f32
    public void inpaint(Tensor made, Tensor image) {
        Tensor ofKnown = known;
        if (ofKnown == null || mask == null || knownNoise == null) {
            throw GatunException.invalid("the loop was made without inpainting");
        }
        Elementwise.copy(stream, mask, made);
        Elementwise.copy(stream, ofKnown, image);
        Noise.normal(stream, knownNoise, seeds, KNOWN_NOISE);
    }

    /// The noise of the steps, [calls, B, H, W, C] f32, of a loop with recorded noise.
    public Tensor noise() {
        Tensor recorded = noise;
        if (recorded == null) {
            throw GatunException.invalid("the loop draws its noise, it was not made with recorded noise");
        }
        return recorded;
    }

    private void seed(long[] imageSeeds) {
        int images = (int) seeds.size(0);
        if (imageSeeds.length != images) {
            throw GatunException.invalid("%d seeds, expected one for each of %d images", imageSeeds.length, images);
        }
        long[] values = new long[2 * images];
        for (int b = 0; b < images; b++) {
            values[2 * b] = imageSeeds[b];
        }
        seeds.copyFrom(stream, values);
    }

    private void scaleAndBegin() {
        if (trajectory.initialDeviation() != 1) {
            Elementwise.scale(stream, sample, sample, (float) trajectory.initialDeviation());
        }
        begin();
    }

    private void begin() {
        counter.copyFrom(stream, 0, 0);
        Diffusion.input(stream, input, sample, table, counter);
    }

    /// Gives all calls of the model to the stream.
    public void run() {
        for (int i = 0; i < trajectory.calls(); i++) {
            step();
        }
    }

    /// Gives the next call of the model to the stream, and what becomes of the sample. A loop's first call is run op by
    /// op, because a capture must find every kernel loaded and every weight packed; from the second on it is one graph.
    public void step() {
        Plan ops = plan;
        if (ops == null) {
            throw new IllegalStateException("the loop is not complete");
        }
        if (!isWarm || !device().prefersGraphs()) {
            ops.run();
            isWarm = true;
            return;
        }
        Graph captured = graph;
        if (captured == null) {
            captured = device().capture(stream, ops::run);
            graph = captured;
        }
        captured.launch();
    }

    /// The images, [B, H, W, C] f32: noisy, until the loop has run.
    public Tensor sample() {
        return sample;
    }

    /// The model's next input, [B or 2 B, H, W, C].
    public Tensor input() {
        return input;
    }

    public Trajectory trajectory() {
        return trajectory;
    }

    /// Frees the loop's memory; twice is fine.
    @Override
    public void close() {
        Graph captured = graph;
        try (arena; plan; captured) {
            // the graph, the plan, the arena
        }
    }
}
