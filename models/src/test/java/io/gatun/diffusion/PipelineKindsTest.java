package io.gatun.diffusion;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.models.GoldenCase;
import io.gatun.runtime.GatunException;
import java.awt.image.BufferedImage;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// Every other kind of pipeline, from a directory to pixels, against what diffusers made of the same noise.
@Tag("device")
class PipelineKindsTest {
    private static final GoldenCase DIT = new GoldenCase("pipeline/dit");
    private static final GoldenCase LDM = new GoldenCase("pipeline/ldm");
    private static final GoldenCase CLASSES = new GoldenCase("pipeline/class_unet2d");
    private static final GoldenCase XL = new GoldenCase("pipeline/stable_diffusion_xl");
    private static final GoldenCase IMAGE_TO_IMAGE = new GoldenCase("pipeline/image_to_image");
    private static final List<String> PROMPTS = List.of("a photo of the King of France", "My horse, my HORSE!");
    /// Of a pixel in [0, 1].
    private static final double TOLERANCE = 1e-3;
    private static final int SIDE = 16;

    @TempDir
    private Path directory;

    private static SampleConfig.Builder start(GoldenCase golden) {
        return SampleConfig.builder().count(2).steps(3).latents(golden.floats("latents"), golden.shape("latents"))
                .keepRaw(true);
    }

    private static void assertImages(GoldenCase golden, String name, ImageModel model, SampleConfig config) {
        float[] expected = golden.floats(name);
        float[] actual = model.sample(config).raw().image();
        assertEquals(expected.length, actual.length, name);
        assertEquals(0, difference(expected, actual), TOLERANCE, name + ": largest difference");
    }

    /// The largest between two pixels.
    private static double difference(float[] a, float[] b) {
        return IntStream.range(0, a.length).mapToDouble(i -> Math.abs(a[i] - b[i])).max().orElseThrow();
    }

    @Test
    void sample_ditGuidedByClasses_likeDiffusers() {
        try (ImageModel model = PipelineTest.load(DIT)) {
            for (String scheduler : List.of("ddim", "dpm++")) {
                assertImages(DIT, scheduler, model, start(DIT).scheduler(scheduler).classes(3, 999).guidance(4)
                        .build());
            }
            assertImages(DIT, "ddim", model, start(DIT).classes(3, 999).build());
            assertImages(DIT, "unguided", model, start(DIT).classes(3, 999).guidance(1).build());
            refuse(model, SampleConfig.builder().classes(1000).build(), "class is 1000, expected 0 to 999");
            refuse(model, SampleConfig.builder().build(),
                    "needs a class: pass --class N, in a program classes(N), 0 to");
        }
    }

    @Test
    void sample_latentDiffusionWithCodebook_likeDiffusers() {
        try (ImageModel model = PipelineTest.load(LDM)) {
            assertImages(LDM, "ddim", model, start(LDM).build());
        }
    }

    /// A network alone, with its scheduler's file beside it.
    @Test
    void sample_networkToldClasses_likeDiffusers() {
        try (ImageModel model = PipelineTest.load(CLASSES)) {
            assertImages(CLASSES, "ddim", model, start(CLASSES).classes(1, 4).guidance(1).build());
            refuse(model, SampleConfig.builder().classes(5).build(), "class is 5, expected 0 to 4");
            refuse(model, SampleConfig.builder().classes(5).guidance(2).build(),
                    "class is 5, expected 0 to 3, or 4 for none");
        }
    }

    /// With no negative prompt XL's states for guidance are zeros, where its index says so.
    @Test
    void sample_stableDiffusionXl_likeDiffusers() throws IOException {
        Path pipeline = PipelineTest.copyOf(PipelineTest.pipeline(XL), directory);
        for (String tokenizer : List.of("tokenizer", "tokenizer_2")) {
            PipelineTest.copyOf(PipelineTest.pipeline(PipelineTest.STABLE_DIFFUSION).resolve("tokenizer"),
                    Files.createDirectory(pipeline.resolve(tokenizer)));
        }
        try (ImageModel model = PipelineTest.load(pipeline)) {
            SampleConfig.Builder request = start(XL).prompts(PROMPTS).guidance(5);
            assertImages(XL, "zeros", model, request.build());
            assertImages(XL, "negative", model, request.negativePrompts(List.of("a cat", "a dog")).build());
        }
    }

    /// The pixels of [0, 255] in [1, 3, SIDE, SIDE].
    private static BufferedImage picture(float[] values) {
        BufferedImage picture = new BufferedImage(SIDE, SIDE, BufferedImage.TYPE_INT_RGB);
        int plane = SIDE * SIDE;
        for (int i = 0; i < plane; i++) {
            picture.setRGB(i % SIDE, i / SIDE,
                    (int) values[i] << 16 | (int) values[plane + i] << 8 | (int) values[2 * plane + i]);
        }
        return picture;
    }

    @Test
    void sample_imageToImage_likeDiffusers() throws IOException {
        Path pipeline = PipelineTest.copyOf(PipelineTest.pipeline(PipelineTest.STABLE_DIFFUSION), directory);
        Path index = pipeline.resolve("model_index.json");
        Files.writeString(index, Files.readString(index).replace("\"StableDiffusionPipeline\"",
                "\"StableDiffusionImg2ImgPipeline\""));
        BufferedImage picture = picture(IMAGE_TO_IMAGE.floats("picture"));
        try (ImageModel model = PipelineTest.load(pipeline)) {
            SampleConfig.Builder request = SampleConfig.builder().prompt(PROMPTS.getFirst()).scheduler("ddim").steps(6)
                    .guidance(7.5).seed(21).image(picture, 0.5).keepRaw(true);
            assertImages(IMAGE_TO_IMAGE, "ddim", model, request.build());
            float[] once = model.sample(request.build()).raw().image();
            float[] again = model.sample(request.build()).raw().image();
            assertArrayEquals(once, again, "the same seed");
            float[] other = model.sample(request.seed(22).build()).raw().image();
            assertTrue(difference(once, other) > 0.01, "another seed draws other latents");
        }
    }

    /// One step of a hundred changes little; all of them leave nothing of the picture.
    @Test
    void sample_strengthSaysHowMuchOfThePictureStays() {
        float[] grey = new float[3 * SIDE * SIDE];
        Arrays.fill(grey, 128);
        float[] ramp = new float[grey.length];
        for (int i = 0; i < ramp.length; i++) {
            ramp[i] = i % SIDE * 16;
        }
        try (ImageModel model = PipelineTest.load(PipelineTest.DDPM)) {
            SampleConfig.Builder request = SampleConfig.builder().scheduler("ddim").steps(100).seed(3).keepRaw(true);
            for (float[] start : List.of(grey, ramp)) {
                float[] near = model.sample(request.image(picture(start), 0.01).build()).raw().image();
                double worst = IntStream.range(0, near.length).mapToDouble(i -> Math.abs(near[i] - start[i] / 255))
                        .max().orElseThrow();
                assertTrue(worst < 0.15, "strength 0.01 moves a pixel by " + worst);
            }
            request.steps(4);
            float[] fromGrey = model.sample(request.image(picture(grey), 1).build()).raw().image();
            float[] fromRamp = model.sample(request.image(picture(ramp), 1).build()).raw().image();
            assertArrayEquals(fromGrey, fromRamp, "strength 1 forgets the picture");
        }
    }

    private static void refuse(ImageModel model, SampleConfig config, String message) {
        GatunException e = assertThrows(GatunException.class, () -> model.sample(config));
        assertEquals(GatunException.Status.INVALID_ARGUMENT, e.status());
        assertTrue(e.getMessage().contains(message), e.getMessage());
    }
}
