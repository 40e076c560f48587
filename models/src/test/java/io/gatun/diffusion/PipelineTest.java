package io.gatun.diffusion;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.models.GoldenCase;
import io.gatun.models.TestDevice;
import io.gatun.runtime.DType;
import io.gatun.runtime.GatunException;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.stream.Stream;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// Whole pipelines, from a directory to pixels, against what diffusers made of the same start.
@Tag("device")
class PipelineTest {
    static final GoldenCase DDPM = new GoldenCase("pipeline/ddpm_unet2d");
    static final GoldenCase STABLE_DIFFUSION = new GoldenCase("pipeline/stable_diffusion");
    private static final List<String> PROMPTS = List.of("a photo of the King of France", "My horse, my HORSE!");

    static ImageModel load(GoldenCase golden) {
        return load(pipeline(golden));
    }

    static ImageModel load(Path directory) {
        return ImageModel.load(directory, options());
    }

    private static ImageModel.Options options() {
        return ImageModel.Options.defaults().withDevice(TestDevice.NAME).withThreads(2).withDtype(DType.F32);
    }

    private static void assertClose(float[] expected, float[] actual, double tolerance, String what) {
        assertEquals(expected.length, actual.length, what);
        double worst = 0;
        for (int i = 0; i < expected.length; i++) {
            worst = Math.max(worst, Math.abs(expected[i] - actual[i]));
            assertTrue(Math.abs(expected[i] - actual[i]) <= tolerance, what + " on " + TestDevice.NAME + " at " + i
                    + ": expected " + expected[i] + ", was " + actual[i] + ", tolerance " + tolerance);
        }
        System.out.printf("%s on %s: largest difference %.1e%n", what, TestDevice.NAME, worst);
    }

    /// The last of [steps, ...].
    private static float[] last(float[] all, int steps) {
        return Arrays.copyOfRange(all, all.length / steps * (steps - 1), all.length);
    }

    @Test
    void sample_ddim_likeDiffusers() {
        try (ImageModel model = load(DDPM)) {
            Images images = model.sample(SampleConfig.builder().count(2).scheduler("ddim").steps(10)
                    .latents(DDPM.floats("init"), DDPM.shape("init")).keepRaw(true).build());
            assertClose(last(DDPM.floats("ddim_samples"), 10), images.raw().latents(), 1e-3, "ddim samples");
            assertClose(DDPM.floats("ddim_image"), images.raw().image(), 1e-4, "ddim image");
            assertEquals(16, images.height());
            assertEquals(List.of(), images.failed());
        }
    }

    @Test
    void sample_ddpmWithRecordedNoise_likeDiffusers() {
        try (ImageModel model = load(DDPM)) {
            Images images = model.sample(SampleConfig.builder().count(2).steps(10)
                    .latents(DDPM.floats("init"), DDPM.shape("init"))
                    .noise(DDPM.floats("noise"), DDPM.shape("noise")).keepRaw(true).build());
            assertClose(last(DDPM.floats("ddpm_samples"), 10), images.raw().latents(), 1e-3, "ddpm samples");
            assertClose(DDPM.floats("ddpm_image"), images.raw().image(), 1e-4, "ddpm image");
        }
    }

    private static void assertStableDiffusion(Path pipeline, String scheduler) {
        try (ImageModel model = load(pipeline)) {
            Images images = model.sample(SampleConfig.builder().prompts(PROMPTS).scheduler(scheduler).steps(6)
                    .guidance(7.5).latents(STABLE_DIFFUSION.floats("latents"), STABLE_DIFFUSION.shape("latents"))
                    .keepRaw(true).build());
            float[] latents = last(STABLE_DIFFUSION.floats(scheduler + ".latents"), 6);
            assertClose(latents, images.raw().latents(), 1e-3, scheduler + " latents");
            assertClose(STABLE_DIFFUSION.floats(scheduler + ".image"), images.raw().image(), 1e-4, scheduler);
        }
    }

    @Test
    void sample_stableDiffusionWithDdim_likeDiffusers() {
        assertStableDiffusion(pipeline(STABLE_DIFFUSION), "ddim");
    }

    /// The case was made with Euler's own spacing of steps, which the directory's file would override.
    @Test
    void sample_stableDiffusionWithEuler_likeDiffusers(@TempDir Path directory) throws IOException {
        Path copy = copyOf(pipeline(STABLE_DIFFUSION), directory);
        Path scheduler = copy.resolve("scheduler/scheduler_config.json");
        Files.writeString(scheduler, Files.readString(scheduler).replace("\"leading\"", "\"linspace\""));
        assertStableDiffusion(copy, "euler");
    }

    @Test
    void sample_imageIsTheSameAloneAndInABatch() {
        try (ImageModel model = load(DDPM)) {
            Images three = model.sample(SampleConfig.builder().seeds(5, 6, 7).steps(4).keepRaw(true).build());
            Images one = model.sample(SampleConfig.builder().seeds(6).steps(4).keepRaw(true).build());
            int n = one.raw().image().length;
            assertArrayEquals(one.raw().image(), Arrays.copyOfRange(three.raw().image(), n, 2 * n));
            assertTrue(!Arrays.equals(one.raw().image(), Arrays.copyOf(three.raw().image(), n)), "seeds matter");
        }
    }

    @Test
    void sample_guidanceMayChangeFromStepToStep() {
        double[] scales = {1, 7.5, 3};
        try (ImageModel model = load(STABLE_DIFFUSION)) {
            SampleConfig.Builder settings = SampleConfig.builder().prompt("a cat").scheduler("ddim").steps(3);
            byte[] none = model.sample(settings.guidance(1).build()).rgb();
            byte[] varied = model.sample(settings.guidance(step -> scales[step]).build()).rgb();
            byte[] negative = model.sample(settings.negativePrompts(List.of("a horse")).build()).rgb();
            assertTrue(!Arrays.equals(none, varied) && !Arrays.equals(varied, negative));
        }
    }

    @Test
    void sample_previewShowsEachStep() {
        try (ImageModel model = load(DDPM)) {
            List<Integer> seen = new ArrayList<>();
            Images images = model.sample(SampleConfig.builder().scheduler("ddim").steps(4).keepRaw(true)
                    .preview(2, preview -> {
                        seen.add(preview.call());
                        assertArrayEquals(new long[] {1, 3, 16, 16}, preview.shape());
                        if (preview.call() == 4) {
                            seen.add(Arrays.hashCode(preview.sample()));
                        }
                    }).build());
            assertEquals(List.of(2, 4, Arrays.hashCode(images.raw().latents())), seen);
        }
    }

    /// The plan against what the device really gave, in the middle of a loop and afterwards.
    @Test
    void memory_isWhatDrawingTakes() {
        for (GoldenCase golden : List.of(DDPM, STABLE_DIFFUSION)) {
            SampleConfig.Builder settings = SampleConfig.builder().count(4).steps(2).scheduler("ddim");
            if (golden == STABLE_DIFFUSION) {
                settings.prompt("a cat");
            }
            MemoryEstimate before = ImageModel.estimate(pipeline(golden), options(), settings.build());
            try (ImageModel model = load(golden)) {
                long[] loop = new long[1];
                model.sample(settings.progress((done, all) -> loop[0] = model.counters().allocatedBytes()).build());
                assertTrue(loop[0] <= 1.05 * before.peakBytes() + (1 << 20),
                        loop[0] + " bytes in the loop, planned were " + before);
                MemoryEstimate loaded = model.memory(settings.build());
                assertEquals(before.parameters(), loaded.parameters());
                assertEquals(before.peakBytes(), loaded.peakBytes());
            }
        }
    }

    @Test
    void sample_cancelledBetweenSteps() {
        try (ImageModel model = load(DDPM)) {
            int[] seen = new int[1];
            GatunException e = assertThrows(GatunException.class, () -> model.sample(SampleConfig.builder().steps(50)
                    .progress((done, all) -> seen[0] = done).cancelledWhen(() -> seen[0] >= 2).build()));
            assertEquals(GatunException.Status.CANCELLED, e.status());
            assertTrue(seen[0] < 50);
            assertEquals(1, model.sample(SampleConfig.builder().steps(2).build()).count(), "it can be used again");
        }
    }

    @Test
    void sample_wrongRequestsSayWhatIsExpected() {
        try (ImageModel model = load(DDPM)) {
            refuse(model, SampleConfig.builder().prompt("a cat").build(), "takes no prompt");
            refuse(model, SampleConfig.builder().classes(3).build(), "takes no class");
            refuse(model, SampleConfig.builder().steps(1001).build(), "at most the model's 1000");
            refuse(model, SampleConfig.builder().size(15, 16).build(), "multiples of 2");
            refuse(model, SampleConfig.builder().scheduler("magic").build(), "magic");
        }
        try (ImageModel model = load(STABLE_DIFFUSION)) {
            refuse(model, SampleConfig.builder().build(), "needs a prompt");
            refuse(model, SampleConfig.builder().prompt("a").scheduler("ddim").size(12, 15).build(), "a multiple of 2");
            refuse(model, SampleConfig.builder().prompt("a").scheduler("ddim").guidance(step -> 7 - 8 * step).build(),
                    "guidance is -1.0, expected 0 to 100");
        }
    }

    private static void refuse(ImageModel model, SampleConfig config, String message) {
        GatunException e = assertThrows(GatunException.class, () -> model.sample(config));
        assertEquals(GatunException.Status.INVALID_ARGUMENT, e.status());
        assertTrue(e.getMessage().contains(message), e.getMessage());
    }

    @Test
    void close_freesEverythingAndLaterCallsThrow() {
        ImageModel model = load(DDPM);
        model.close();
        model.close();
        assertEquals(0, model.counters().allocatedBytes());
        assertThrows(IllegalStateException.class, () -> model.sample(SampleConfig.builder().steps(1).build()));
    }

    static Path pipeline(GoldenCase golden) {
        return golden.directory().resolve("pipeline");
    }

    /// A copy of a folder that a test may damage.
    static Path copyOf(Path from, Path into) throws IOException {
        try (Stream<Path> files = Files.walk(from)) {
            for (Path file : files.toList()) {
                Files.copy(file, into.resolve(from.relativize(file).toString()), StandardCopyOption.REPLACE_EXISTING);
            }
        }
        return into;
    }
}
