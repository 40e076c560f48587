package io.gatun.cli;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import io.gatun.io.SafetensorsFile;
import io.gatun.io.SafetensorsWriter;
import io.gatun.io.TensorSource;
import io.gatun.models.GoldenCase;
import io.gatun.models.TestDevice;
import io.gatun.plot.ChartFile;
import io.gatun.runtime.GatunException;
import java.awt.image.BufferedImage;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;
import javax.imageio.ImageIO;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

/// Does `gatun schedule` print, draw and replay what a sampler does, and refuse what it cannot use in one line?
@Tag("device")
class ScheduleCommandTest {
    @TempDir
    private Path directory;

    private static String golden(String name) {
        return new GoldenCase("schedulers/" + name).model().resolve("scheduler_config.json").toString();
    }

    private String config(String json) throws IOException {
        Path file = directory.resolve("scheduler_config.json");
        Files.writeString(file, json);
        return file.toString();
    }

    @Test
    void table_ofDdim() {
        String printed = Captured.run("schedule", "--config", golden("00_DDIM"), "--steps", "4").out();
        String[] lines = printed.split("\\R");
        assertEquals("DDIMScheduler: 4 steps, 4 calls, init_noise_sigma 1", lines[0]);
        assertEquals("call timestep sigma alpha_cumprod", lines[1].strip().replaceAll(" +", " "));
        assertTrue(lines[2].matches("    0 +751 +\\d+\\.\\d+ +0\\.\\d+"), lines[2]);
        assertTrue(lines[6].matches("  end +0\\.0291\\d+ +0\\.99915"), lines[6]);
        assertEquals(7, lines.length, printed);
    }

    /// Against the recorded time steps and sigmas of diffusers.
    @ParameterizedTest
    @ValueSource(strings = {"01_Euler", "30_Euler", "33_Euler", "34_DPMpp2M", "41_UniPC", "46_FlowMatchEuler",
        "40_Heun"})
    void json_hasTheSigmasOfDiffusers(String name) throws IOException {
        GoldenCase recorded = new GoldenCase("schedulers/" + name);
        Captured result = Captured.run("schedule", "--config", recorded.model().toString(), "--steps", "10", "--json");
        JsonNode json = new ObjectMapper().readTree(result.out());
        assertNumbers(recorded.floats("timesteps"), json.required("timesteps"));
        assertNumbers(recorded.floats("sigmas"), json.required("sigmas"));
        assertEquals(recorded.floats("sigmas").length, json.required("alphas_cumprod").size());
    }

    private static void assertNumbers(float[] expected, JsonNode actual) {
        assertEquals(expected.length, actual.size());
        for (int i = 0; i < expected.length; i++) {
            assertEquals(expected[i], actual.get(i).asDouble(), 1e-6 * Math.max(1, Math.abs(expected[i])),
                    "[" + i + "]");
        }
    }

    /// Another sampler takes the fields that it knows, and its own defaults for the others.
    @ParameterizedTest
    @ValueSource(strings = {"EulerDiscreteScheduler", "EulerDiscrete", "euler", "Euler"})
    void scheduler_takesOverTheFields(String name) throws IOException {
        Captured result = Captured.run("schedule", "--config", golden("00_DDIM"), "--steps", "10", "--scheduler", name,
                "--json");
        JsonNode json = new ObjectMapper().readTree(result.out());
        assertEquals("EulerDiscreteScheduler", json.required("scheduler").asText());
        assertNumbers(new GoldenCase("schedulers/01_Euler").floats("sigmas"), json.required("sigmas"));
    }

    @Test
    void plot_isAPicture() throws IOException {
        assumeFonts();
        Path file = directory.resolve("plot.png");
        assertEquals(0, Captured.run("schedule", "--config", golden("01_Euler"), "--steps", "10", "--plot",
                file.toString()).code());
        BufferedImage image = ImageIO.read(file.toFile());
        assertEquals(900, image.getWidth());
        assertEquals(600, image.getHeight());
        Captured.run("schedule", "--config", golden("01_Euler"), "--steps", "3", "--plot", directory.toString())
                .assertFailed(2, "a folder, expected the name of a file to write");
    }

    private static void assumeFonts() {
        try {
            ChartFile.empty("", "", "");
        } catch (GatunException e) {
            assumeTrue(false, e.getMessage());
        }
    }

    /// Noise, model outputs and time steps as recorded, for a sampler that draws noise in all calls but the last.
    @ParameterizedTest
    @ValueSource(strings = {"00_DDIM", "01_Euler", "28_DDIM", "40_Heun", "44_KDPM2"})
    void replay_givesTheRecordedSamples(String name) {
        GoldenCase recorded = new GoldenCase("schedulers/" + name);
        Path out = directory.resolve("out.safetensors");
        Captured result = Captured.run("schedule", "--config", recorded.model().toString(), "--steps", "10", "--device",
                TestDevice.NAME, "--replay", recorded.directory().resolve("io.safetensors").toString(), "--out",
                out.toString());
        assertEquals(0, result.code(), result::toString);
        float[] expected = recorded.floats("samples");
        try (SafetensorsFile written = SafetensorsFile.open(out)) {
            assertArrayEquals(recorded.shape("samples"), written.info("samples").shape());
            assertArrayEquals(recorded.floats("timesteps"), written.floats("timesteps"), 1e-3f);
            float[] actual = written.floats("samples");
            for (int i = 0; i < expected.length; i++) {
                assertEquals(expected[i], actual[i], 1e-5 * 20, name + " [" + i + "]");
            }
        }
    }

    /// Images of several channels keep their places, and the second half of the model's channels is its variance.
    @Test
    void replay_ofLearnedVariance() throws IOException {
        String config = config("""
                {"_class_name": "DDPMScheduler", "variance_type": "learned_range", "clip_sample": false}""");
        Path io = directory.resolve("io.safetensors");
        float[] init = new float[2 * 3 * 2 * 2];
        float[] outputs = new float[2 * 2 * init.length];
        for (int i = 0; i < init.length; i++) {
            init[i] = i;
        }
        SafetensorsWriter.write(io, Map.of("init", TensorSource.of(init, 2, 3, 2, 2),
                "model_outputs", TensorSource.of(outputs, 2, 2, 6, 2, 2),
                "noise", TensorSource.of(new float[init.length], 1, 2, 3, 2, 2)), Map.of());
        Path out = directory.resolve("out.safetensors");
        Captured result = Captured.run("schedule", "--config", config, "--steps", "2", "--device", TestDevice.NAME,
                "--replay", io.toString(), "--out", out.toString());
        assertEquals(0, result.code(), result::toString);
        try (SafetensorsFile written = SafetensorsFile.open(out)) {
            assertArrayEquals(new long[] {2, 2, 3, 2, 2}, written.info("samples").shape());
            float[] samples = written.floats("samples");
            for (int i = 1; i < init.length; i++) {
                assertEquals(i * samples[1], samples[i], 1e-5 * i * samples[1], "[" + i + "]");
            }
        }
    }

    @ParameterizedTest
    @CsvSource(delimiter = '|', value = {
        "{}|_class_name",
        "{\"_class_name\": \"NoSuchScheduler\"}|NoSuchScheduler",
        "{\"_class_name\": \"DDIMScheduler\", \"beta_schedule\": \"cubic\"}|beta_schedule",
        "{\"_class_name\": \"DDIMScheduler\", \"timestep_spacing\": 3}|timestep_spacing",
        "{\"_class_name\": \"DDIMScheduler\", \"num_train_timesteps\": 0}|num_train_timesteps",
        "{\"_class_name\": \"PNDMScheduler\", \"prediction_type\": \"sample\"}|prediction_type",
        "{\"_class_name\": \"DPMSolverMultistepScheduler\", \"algorithm_type\": \"dpmsolver\"}|final_sigmas_type",
        "{\"_class_name\": \"FlowMatchEulerDiscreteScheduler\", \"use_dynamic_shifting\": true}|shift",
        "{\"_class_name\": \"DDIMScheduler\", \"num_train_timesteps\": 4}|at most the model's 4",
        "{\"_class_name\": \"DDIMScheduler\"|not valid JSON"})
    void config_wrongValue(String json, String expected) throws IOException {
        Captured.run("schedule", "--config", config(json), "--steps", "10").assertFailed(2, expected);
    }

    @Test
    void arguments_wrong() throws IOException {
        String config = golden("00_DDIM");
        Captured.run("schedule", "--config", config, "--steps", "0").assertFailed(2, "steps is 0");
        Captured.run("schedule", "--config", config, "--steps", "x").assertFailed(2, "--steps");
        Captured.run("schedule", "--config", directory.resolve("none").toString(), "--steps", "3")
                .assertFailed(2, "no file", "none: expected a scheduler_config.json, or the folder that holds it");
        Captured.run("schedule", "--config", config, "--steps", "3", "--scheduler", "magic")
                .assertFailed(2, "DDIMScheduler (ddim)");
        Captured.run("schedule", "--config", config, "--steps", "3", "--replay", "a")
                .assertFailed(2, "--out is missing");
        Captured.run("schedule", "--config", config, "--steps", "3", "--eta", "2").assertFailed(2, "eta is 2");
        Path io = new GoldenCase("schedulers/00_DDIM").directory().resolve("io.safetensors");
        Captured.run("schedule", "--config", config, "--steps", "3", "--device", TestDevice.NAME, "--replay",
                io.toString(), "--out", directory.resolve("out").toString())
                .assertFailed(2, "model_outputs is [10, 16]");
    }
}
