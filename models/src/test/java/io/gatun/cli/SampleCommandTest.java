package io.gatun.cli;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import io.gatun.io.SafetensorsFile;
import io.gatun.io.SafetensorsWriter;
import io.gatun.io.TensorSource;
import io.gatun.models.GoldenCase;
import io.gatun.models.TestDevice;
import java.awt.image.BufferedImage;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.attribute.PosixFilePermissions;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.stream.Stream;
import javax.imageio.ImageIO;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// `gatun sample`: pictures for good requests, one clear line for bad ones.
@Tag("device")
class SampleCommandTest {
    private static final GoldenCase DDPM = new GoldenCase("pipeline/ddpm_unet2d");
    private static final GoldenCase STABLE_DIFFUSION = new GoldenCase("pipeline/stable_diffusion");

    @TempDir
    private Path directory;

    private static Path pipeline(GoldenCase golden) {
        return golden.directory().resolve("pipeline");
    }

    private Captured sample(Path model, String... more) {
        List<String> args = new ArrayList<>(List.of("sample", "--device", TestDevice.NAME, "--threads", "1", "--dtype",
                "f32", "--model", model.toString(), "--out", directory.resolve("out.png").toString()));
        args.addAll(List.of(more));
        return Captured.run(new byte[0], args.toArray(String[]::new));
    }

    private void refuse(Captured run, int code, String... messages) {
        assertEquals(code, run.code(), run.err());
        List<String> lines = run.err().lines().filter(line -> !line.startsWith("gatun: memory:")).toList();
        assertEquals(1, lines.size(), run.err());
        for (String message : messages) {
            assertTrue(lines.getFirst().contains(message), lines.getFirst());
        }
    }

    private Path copyOf(GoldenCase golden) throws IOException {
        Path copy = directory.resolve("copy");
        try (Stream<Path> files = Files.walk(pipeline(golden))) {
            for (Path file : files.toList()) {
                Files.copy(file, copy.resolve(pipeline(golden).relativize(file).toString()),
                        StandardCopyOption.REPLACE_EXISTING);
            }
        }
        return copy;
    }

    @Test
    void sample_writesAGridAndAReport() throws IOException {
        Path raw = directory.resolve("raw.safetensors");
        Captured run = sample(pipeline(DDPM), "--count", "3", "--steps", "2", "--seed", "4", "--json", "--raw",
                raw.toString());
        assertEquals(0, run.code(), run.err());
        assertTrue(run.err().contains("gatun: memory: weights"), run.err());
        BufferedImage grid = ImageIO.read(directory.resolve("out.png").toFile());
        assertEquals(2 * 16 + 2, grid.getWidth());
        assertEquals(2 * 16 + 2, grid.getHeight());
        JsonNode report = new ObjectMapper().readTree(run.out());
        assertEquals("[4,5,6]", report.get("seeds").toString());
        assertEquals(2, report.get("calls").asInt());
        assertEquals("DDPMScheduler", report.get("scheduler").asText());
        assertTrue(report.get("timings_ms").get("denoising").asDouble() > 0);
        try (SafetensorsFile file = SafetensorsFile.open(raw)) {
            assertArrayEquals(new long[] {3, 3, 16, 16}, file.info("image").shape());
            float[] image = file.floats("image");
            int red = Math.round(image[0] * 255);
            assertEquals(red, grid.getRGB(0, 0) >> 16 & 0xff, 1);
        }
    }

    /// The file has a start and the noise of each call that draws some, as it was recorded.
    @Test
    void sample_startsFromGivenLatentsAndNoise() {
        Path io = DDPM.directory().resolve("io.safetensors");
        Path raw = directory.resolve("raw.safetensors");
        Captured run = sample(pipeline(DDPM), "--steps", "10", "--latents", io.toString(), "--raw", raw.toString());
        assertEquals(0, run.code(), run.err());
        try (SafetensorsFile file = SafetensorsFile.open(raw)) {
            assertArrayEquals(DDPM.floats("ddpm_image"), file.floats("image"), 1e-4f);
        }
        refuse(sample(pipeline(DDPM), "--scheduler", "ddim", "--steps", "10", "--latents", io.toString()), 2,
                "noise are [9, 2, 3, 16, 16]", "expected [10, 2, 3, 16, 16]");
        refuse(sample(pipeline(DDPM), "--steps", "10", "--count", "3", "--latents", io.toString()), 2,
                "init is [2, 3, 16, 16]", "expected [3, C, H, W]");
    }

    @Test
    void sample_imageToImageAndInpainting() throws IOException {
        BufferedImage picture = new BufferedImage(32, 32, BufferedImage.TYPE_INT_RGB);
        BufferedImage mask = new BufferedImage(32, 32, BufferedImage.TYPE_INT_RGB);
        for (int i = 0; i < 32 * 32; i++) {
            picture.setRGB(i % 32, i / 32, 0x4080c0);
            mask.setRGB(i % 32, i / 32, i % 32 < 16 ? 0xffffff : 0);
        }
        Path file = directory.resolve("picture.png");
        Path maskFile = directory.resolve("mask.png");
        ImageIO.write(picture, "png", file.toFile());
        ImageIO.write(mask, "png", maskFile.toFile());
        Captured run = sample(pipeline(DDPM), "--scheduler", "ddim", "--steps", "4", "--image", file.toString(),
                "--mask", maskFile.toString(), "--strength", "1");
        assertEquals(0, run.code(), run.err());
        BufferedImage result = ImageIO.read(directory.resolve("out.png").toFile());
        for (int y = 0; y < 16; y++) {
            assertEquals(0x4080c0, result.getRGB(15, y) & 0xffffff, "the known half stays");
        }
        assertEquals(0, sample(pipeline(DDPM), "--scheduler", "ddim", "--steps", "4", "--image", file.toString(),
                "--strength", "0.5").code());
    }

    @Test
    void sample_badRequests() throws IOException {
        refuse(sample(pipeline(DDPM), "--steps", "0"), 2, "steps is 0, expected 1 to");
        refuse(sample(pipeline(DDPM), "--count", "1000000000"), 2, "--count is 1000000000, expected 1 to 4096 images");
        for (String guidance : List.of("-5", "1e30", "NaN")) {
            refuse(sample(pipeline(STABLE_DIFFUSION), "--prompt", "a", "--guidance", guidance), 2, "guidance is ",
                    "expected 0 to 100");
        }
        refuse(sample(pipeline(DDPM), "--steps", "1001"), 2, "steps is 1001", "1000 training steps");
        refuse(sample(pipeline(DDPM), "--height", "15", "--steps", "1"), 2, "15 x 16, expected multiples of 2");
        refuse(sample(pipeline(DDPM), "--prompt", "a cat"), 2, "takes no prompt");
        refuse(sample(pipeline(DDPM), "--class", "1"), 2, "takes no class");
        refuse(sample(pipeline(DDPM), "--guidance", "3"), 2, "nothing to guide");
        refuse(sample(pipeline(DDPM), "--strength", "0.5"), 2, "no --image");
        refuse(sample(GoldenCase.LLAMA.model()), 2, "model_type", "expected gatun_dcgan or gatun_vae");
        refuse(sample(pipeline(DDPM), "--kind", "gan", "--steps", "1"), 2, "--kind is gan", "diffusion model");
        refuse(sample(pipeline(DDPM), "--scheduler", "magic"), 2, "scheduler 'magic' is unknown, expected one of");
        refuse(sample(pipeline(DDPM), "--image", directory.resolve("none.png").toString()), 2, "no such file");
        refuse(sample(pipeline(STABLE_DIFFUSION), "--scheduler", "ddim"), 2, "needs a prompt");
        refuse(sample(pipeline(STABLE_DIFFUSION), "--scheduler", "ddim", "--prompt", "a", "--width", "15"), 2,
                "width is 15, expected a multiple of 2");
        refuse(sample(directory.resolve("nowhere")), 2, "no directory");
        refuse(sample(directory), 2, "neither model_index.json nor config.json");
    }

    @Test
    void sample_brokenPipelines() throws IOException {
        Path copy = copyOf(DDPM);
        Path index = copy.resolve("model_index.json");
        String text = Files.readString(index);
        Files.writeString(index, text.replace("\"unet\"", "\"net\""));
        refuse(sample(copy), 2, "component 'unet' is missing");
        Files.writeString(index, text.replace("DDPMPipeline", "MagicPipeline"));
        refuse(sample(copy), 2, "_class_name", "MagicPipeline");
        Files.writeString(index, text);
        Path scheduler = copy.resolve("scheduler/scheduler_config.json");
        String settings = Files.readString(scheduler);
        Files.writeString(scheduler, settings.replace("DDPMScheduler", "MagicScheduler"));
        refuse(sample(copy), 2, "MagicScheduler", "expected one of");
        Files.writeString(scheduler, settings.replace("\"epsilon\"", "\"magic\""));
        refuse(sample(copy), 2, "prediction_type", "magic");
        Files.delete(scheduler);
        Files.delete(scheduler.getParent());
        refuse(sample(copy), 2, "names the component 'scheduler'", "no folder");
    }

    @Test
    void sample_nanIsReportedOncePerImage() {
        float[] latents = DDPM.floats("init");
        latents[latents.length - 1] = Float.NaN;
        Path file = directory.resolve("latents.safetensors");
        SafetensorsWriter.write(file, Map.of("latents", TensorSource.of(latents, DDPM.shape("init"))), Map.of());
        Captured run = sample(pipeline(DDPM), "--scheduler", "ddim", "--steps", "2", "--latents", file.toString());
        assertEquals(1, run.code());
        List<String> reports = run.err().lines().filter(line -> line.contains("NaN was")).toList();
        assertEquals(1, reports.size(), run.err());
        assertTrue(reports.getFirst().contains("image 1 "), run.err());
        assertTrue(reports.getFirst().contains("the latents that were given"), run.err());
        assertTrue(Files.exists(directory.resolve("out.png")));
    }

    @Test
    void sample_pathsThatCannotBeWritten() throws IOException {
        Path taken = directory.resolve("out.png");
        Files.createDirectories(taken.resolve("not empty"));
        refuse(sample(pipeline(DDPM), "--steps", "1"), 2, "it is a folder");
        Path locked = Files.createDirectory(directory.resolve("locked"),
                PosixFilePermissions.asFileAttribute(PosixFilePermissions.fromString("r-x------")));
        if (!Files.isWritable(locked)) { // root may write there
            refuse(Captured.run("sample", "--model", pipeline(DDPM).toString(), "--out",
                    locked.resolve("x.png").toString()), 2, "cannot write", "permission denied");
        }
        for (String wrong : List.of("no/folder/x.png", "x.jpg")) {
            refuse(Captured.run("sample", "--model", pipeline(DDPM).toString(), "--out",
                    directory.resolve(wrong).toString()), 2, wrong.endsWith("png") ? "there is no folder" : ".png");
        }
    }
}
