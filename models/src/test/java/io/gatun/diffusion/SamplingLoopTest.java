package io.gatun.diffusion;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.diffusion.SamplingLoop.Settings;
import io.gatun.models.TestDevice;
import io.gatun.ops.Elementwise;
import io.gatun.ops.Noise;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.DeviceArena;
import io.gatun.runtime.GatunException;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import io.gatun.runtime.TransferCounters.Snapshot;
import java.util.Arrays;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/// Does a loop keep its promises whatever the sampler is? With small models that are written down in a few ops.
@Tag("device")
class SamplingLoopTest {
    private static final int SIZE = 6;
    private static final int CHANNELS = 4;
    private static final int IMAGE = SIZE * SIZE * CHANNELS;
    private static final String SD =
            "\"beta_start\": 0.00085, \"beta_end\": 0.012, \"beta_schedule\": \"scaled_linear\"";

    private Device device;
    private Stream stream;
    private DeviceArena arena;

    @BeforeEach
    void open() {
        device = Device.open(TestDevice.NAME, new Device.Options(2));
        stream = device.newStream();
        arena = device.newArena("test");
    }

    @AfterEach
    void close() {
        arena.close();
        stream.close();
        device.close();
    }

    private static Trajectory trajectory(String className, String fields, int steps) {
        return SchedulerConfig.parse("{\"_class_name\": \"%s\", %s}".formatted(className, fields)).sampler()
                .trajectory(steps);
    }

    private static Settings settings(int images) {
        return Settings.of(images, SIZE, SIZE, CHANNELS, DType.F32);
    }

    /// tanh(x / 3): of all images by itself.
    private Denoiser network() {
        return (plan, in) -> {
            Tensor y = plan.allocate(DType.F32, in.sample().shape());
            plan.op(() -> Elementwise.scale(stream, y, in.sample(), 1 / 3f), y, in.sample());
            plan.op(() -> Elementwise.tanh(stream, y, y), y);
            return y;
        };
    }

    /// x / 2 unconditionally and x / 4 with a condition.
    private Denoiser conditionalNetwork(int images) {
        return (plan, in) -> {
            Tensor y = plan.allocate(DType.F32, in.sample().shape());
            plan.op(() -> Elementwise.scale(stream, y.slice(0, 0, images), in.sample().slice(0, 0, images), 1 / 2f), y,
                    in.sample());
            plan.op(() -> Elementwise.scale(stream, y.slice(0, images, 2L * images),
                    in.sample().slice(0, images, 2L * images), 1 / 4f), y, in.sample());
            return y;
        };
    }

    private float[] run(Trajectory trajectory, Settings settings, Denoiser denoiser, long... seeds) {
        try (SamplingLoop loop = SamplingLoop.of(stream, trajectory, settings, denoiser)) {
            loop.start(seeds);
            loop.run();
            return loop.sample().toFloats(stream);
        }
    }

    @ParameterizedTest
    @ValueSource(strings = {"DDPMScheduler", "EulerAncestralDiscreteScheduler", "KDPM2AncestralDiscreteScheduler",
        "LCMScheduler", "UniPCMultistepScheduler", "PNDMScheduler"})
    void run_imageIsTheSameAloneAndInABatch(String className) {
        Trajectory trajectory = trajectory(className, SD, 5);
        float[] together = run(trajectory, settings(3), network(), 7, 8, 7);
        assertArrayEquals(image(together, 0), image(together, 2), className + ": the same seed");
        assertFalse(Arrays.equals(image(together, 0), image(together, 1)), className + ": another seed");
        assertArrayEquals(image(together, 1), run(trajectory, settings(1), network(), 8), className + " alone");
        for (float x : together) {
            assertTrue(Float.isFinite(x), className);
        }
    }

    private static float[] image(float[] images, int b) {
        return Arrays.copyOfRange(images, b * IMAGE, (b + 1) * IMAGE);
    }

    /// Twice from one loop, and again from another.
    @Test
    void start_again() {
        Trajectory trajectory = trajectory("DDPMScheduler", SD, 4);
        float[] expected = run(trajectory, settings(2), network(), 1, 2);
        try (SamplingLoop loop = SamplingLoop.of(stream, trajectory, settings(2), network())) {
            for (int i = 0; i < 2; i++) {
                loop.start(1, 2);
                loop.run();
                assertArrayEquals(expected, loop.sample().toFloats(stream), "run " + i);
            }
            loop.step();
            assertArrayEquals(expected, loop.sample().toFloats(stream), "a step after the last");
        }
    }

    /// From the second call on a step is one launch where the device has graphs; nothing is copied or allocated.
    @Test
    void run_staysOnTheDevice() {
        Trajectory trajectory = trajectory("DDPMScheduler", "\"thresholding\": true", 6);
        try (SamplingLoop loop = SamplingLoop.of(stream, trajectory, settings(2), network())) {
            loop.start(1, 2);
            loop.step();
            loop.step();
            Snapshot before = device.counters().snapshot();
            for (int i = 2; i < trajectory.calls(); i++) {
                loop.step();
            }
            Snapshot moved = device.counters().snapshot().since(before);
            assertEquals(0, moved.hostToDevice());
            assertEquals(0, moved.deviceToHost());
            assertEquals(0, moved.allocations());
            assertEquals(0, moved.conversions());
            int opsOfAStep = 2 + 2; // the model's, the statistics and the step
            assertEquals(4L * (device.prefersGraphs() ? 1 : opsOfAStep), moved.launches());
        }
    }

    /// Noise that was drawn and then given makes the same images: normals of step i + 1 in call i.
    @Test
    void recordedNoise_equalsDrawnNoise() {
        Trajectory trajectory = trajectory("EulerAncestralDiscreteScheduler", SD, 4);
        float[] expected = run(trajectory, settings(2), network(), 11, 12);
        try (SamplingLoop loop = SamplingLoop.of(stream, trajectory, settings(2).withRecordedNoise(), network())) {
            Tensor seeds = arena.allocate(DType.I64, 2, 2);
            seeds.copyFrom(stream, 11, 0, 12, 0);
            for (int call = 0; call < trajectory.calls(); call++) {
                Noise.normal(stream, loop.noise().select(0, call), seeds, call + 1);
            }
            loop.start(11, 12);
            loop.run();
            assertArrayEquals(expected, loop.sample().toFloats(stream));
        }
    }

    /// u + w (c - u) with u = x / 2 and c = x / 4 is x (1/2 - w/4).
    @Test
    void guidance_mixesTheHalves() {
        Trajectory trajectory = trajectory("EulerDiscreteScheduler", SD, 3);
        float w = 3;
        Denoiser mixed = (plan, in) -> {
            Tensor y = plan.allocate(DType.F32, in.sample().shape());
            plan.op(() -> Elementwise.scale(stream, y, in.sample(), 0.5f - w / 4), y, in.sample());
            return y;
        };
        float[] expected = run(trajectory, settings(2), mixed, 3, 4);
        float[] actual = run(trajectory, settings(2).withGuidance(Guidance.of(w)), conditionalNetwork(2), 3, 4);
        assertClose(expected, actual, 1e-6);
        // w of 1 only in the last call
        Guidance late = new Guidance(call -> call == 2 ? 1 : w, 0);
        float[] changing = run(trajectory, settings(2).withGuidance(late), conditionalNetwork(2), 3, 4);
        assertFalse(Arrays.equals(actual, changing));
    }

    /// Rescaled wholly, e = x (1/2 - w/4) gets the deviation of c = x / 4 back, so it becomes c, but for its sign.
    @Test
    void guidance_rescaled() {
        Trajectory trajectory = trajectory("EulerDiscreteScheduler", SD, 3);
        Denoiser conditional = (plan, in) -> {
            Tensor y = plan.allocate(DType.F32, in.sample().shape());
            plan.op(() -> Elementwise.scale(stream, y, in.sample(), -1 / 4f), y, in.sample());
            return y;
        };
        float[] expected = run(trajectory, settings(2), conditional, 3, 4);
        Guidance guidance = new Guidance(call -> 7.5, 1);
        assertClose(expected, run(trajectory, settings(2).withGuidance(guidance), conditionalNetwork(2), 3, 4), 1e-5);
    }

    private static void assertClose(float[] expected, float[] actual, double relative) {
        double largest = 1;
        for (float e : expected) {
            largest = Math.max(largest, Math.abs(e));
        }
        for (int i = 0; i < expected.length; i++) {
            assertEquals(expected[i], actual[i], relative * largest, "[" + i + "]");
        }
    }

    /// signal x image + noise x normals of step 0, as noisy as the first of the calls that are left.
    @ParameterizedTest
    @ValueSource(strings = {"DDIMScheduler", "EulerDiscreteScheduler", "DPMSolverMultistepScheduler",
        "FlowMatchEulerDiscreteScheduler"})
    void startFromImage_hasNoiseOfTheFirstCall(String className) {
        Sampler sampler = SchedulerConfig.parse("{\"_class_name\": \"%s\", %s}".formatted(className, SD)).sampler();
        Trajectory trajectory = sampler.trajectory(SamplingOptions.steps(10).withStrength(0.6));
        assertEquals(6, trajectory.calls());
        Tensor image = arena.allocate(DType.F32, 1, SIZE, SIZE, CHANNELS);
        Tensor normals = arena.allocate(DType.F32, 1, SIZE, SIZE, CHANNELS);
        Tensor seeds = arena.allocate(DType.I64, 1, 2);
        seeds.copyFrom(stream, 5, 0);
        Noise.normal(stream, normals, seeds, 0);
        float[] pixels = new float[IMAGE];
        Arrays.fill(pixels, 0.25f);
        image.copyFrom(stream, pixels);
        try (SamplingLoop loop = SamplingLoop.of(stream, trajectory, settings(1), network())) {
            loop.startFromImage(image, 5);
            float[] sample = loop.sample().toFloats(stream);
            float[] noise = normals.toFloats(stream);
            float[] input = loop.input().toFloats(stream);
            for (int i = 0; i < IMAGE; i++) {
                double expected = 0.25 * trajectory.signalLevel(0) + noise[i] * trajectory.noiseLevel(0);
                assertEquals(expected, sample[i], 1e-5, className);
                assertEquals(trajectory.inputScale(0) * sample[i], input[i], 1e-5, className);
            }
        }
    }

    /// Where the mask is 0 the image is the known one in the end; where it is 1 everywhere, it makes no difference.
    @Test
    void inpaint_keepsWhatIsKnown() {
        Trajectory trajectory = trajectory("EulerDiscreteScheduler", SD, 5);
        float[] without = run(trajectory, settings(1), network(), 6);
        float[] known = new float[IMAGE];
        for (int i = 0; i < IMAGE; i++) {
            known[i] = i / 100f;
        }
        Tensor image = arena.allocate(DType.F32, 1, SIZE, SIZE, CHANNELS);
        image.copyFrom(stream, known);
        Tensor mask = arena.allocate(DType.F32, 1, SIZE, SIZE, 1);
        float[] half = new float[SIZE * SIZE];
        Arrays.fill(half, SIZE * SIZE / 2, SIZE * SIZE, 1);
        float[] all = new float[SIZE * SIZE];
        Arrays.fill(all, 1);
        try (SamplingLoop loop = SamplingLoop.of(stream, trajectory, settings(1).withInpainting(), network())) {
            float[] result = inpainted(loop, mask, half, image);
            for (int i = 0; i < IMAGE / 2; i++) {
                assertEquals(known[i], result[i], "[" + i + "] is known");
            }
            assertFalse(Arrays.equals(Arrays.copyOfRange(known, IMAGE / 2, IMAGE),
                    Arrays.copyOfRange(result, IMAGE / 2, IMAGE)));
            assertArrayEquals(without, inpainted(loop, mask, all, image), "all of it is made");
        }
    }

    private float[] inpainted(SamplingLoop loop, Tensor mask, float[] made, Tensor image) {
        mask.copyFrom(stream, made);
        loop.start(6);
        loop.inpaint(mask, image);
        loop.run();
        return loop.sample().toFloats(stream);
    }

    /// A model in 16 bits sees a rounded sample; the sample itself stays in f32.
    @Test
    void input_hasTheModelsDtype() {
        Trajectory trajectory = trajectory("DDIMScheduler", SD, 2);
        Settings settings = Settings.of(1, SIZE, SIZE, CHANNELS, DType.BF16);
        Denoiser half = (plan, in) -> {
            Tensor y = plan.allocate(DType.BF16, in.sample().shape());
            plan.op(() -> Elementwise.tanh(stream, y, in.sample()), y, in.sample());
            return y;
        };
        try (SamplingLoop loop = SamplingLoop.of(stream, trajectory, settings, half)) {
            loop.start(1);
            assertEquals(DType.BF16, loop.input().dtype());
            loop.run();
            assertEquals(DType.F32, loop.sample().dtype());
        }
    }

    @Test
    void misuse_isRefused() {
        Trajectory learned = trajectory("DDPMScheduler", "\"variance_type\": \"learned_range\"", 3);
        GatunException e = assertThrows(GatunException.class,
                () -> SamplingLoop.of(stream, learned, settings(1), network()));
        assertTrue(e.getMessage().contains("[1, 6, 6, 4 or more]"), e.getMessage());
        SamplingLoop loop = SamplingLoop.of(stream, trajectory("DDIMScheduler", SD, 3), settings(2), network());
        assertThrows(GatunException.class, () -> loop.start(1));
        assertThrows(GatunException.class, loop::noise);
        assertThrows(GatunException.class, () -> loop.inpaint(loop.sample(), loop.sample()));
        loop.close();
        loop.close();
        assertThrows(IllegalStateException.class, () -> loop.start(1, 2));
    }
}
