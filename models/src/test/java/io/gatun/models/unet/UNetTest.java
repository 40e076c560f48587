package io.gatun.models.unet;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.cli.Captured;
import io.gatun.cli.Forwarded;
import io.gatun.io.SafetensorsFile;
import io.gatun.io.SafetensorsWriter;
import io.gatun.io.TensorSource;
import io.gatun.models.GoldenCase;
import io.gatun.models.ModelDirectory;
import io.gatun.models.TestDevice;
import io.gatun.runtime.DType;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.Map;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

/// Do U-Nets compute what diffusers computes?
@Tag("device")
class UNetTest {
    private static final GoldenCase UNET2D = new GoldenCase("diffusers/unet2d");

    @TempDir
    private Path directory;

    /// @param shape [B, C, H, W]
    private record Prediction(float[] values, long[] shape) {}

    private static Prediction run(Path model, DType dtype, Path inputs) {
        return run(model, dtype, inputs, 2);
    }

    private static Prediction run(Path model, DType dtype, Path inputs, int threads) {
        try (Forwarded out = Forwarded.run(model, inputs, "--dtype", dtype.toString(), "--threads", "" + threads)) {
            return new Prediction(out.floats("sample_out"), out.shape("sample_out"));
        }
    }

    private static Path inputs(GoldenCase golden) {
        return golden.directory().resolve("io.safetensors");
    }

    private static void assertClose(GoldenCase golden, Prediction actual, double tolerance) {
        assertArrayEquals(golden.shape("sample_out"), actual.shape(), golden.name());
        float[] expected = golden.floats("sample_out");
        double worst = 0;
        for (int i = 0; i < expected.length; i++) {
            double error = Math.abs(expected[i] - actual.values()[i]);
            worst = error <= worst ? worst : error; // NaN is the worst
        }
        assertTrue(worst <= tolerance, "%s on %s: differs by %s, allowed %s".formatted(golden, TestDevice.NAME, worst,
                tolerance));
    }

    @ParameterizedTest
    @ValueSource(strings = {"diffusers/unet2d", "diffusers/unet2d_cond_sd15", "unet/sdxl", "unet/sd2", "unet/classes",
        "unet/scale_shift", "unet/odd_sizes", "unet/guidance", "unet/no_mid"})
    void forward_f32(String name) {
        GoldenCase golden = new GoldenCase(name);
        assertClose(golden, run(golden.model(), DType.F32, inputs(golden)), golden.tolerance());
    }

    /// The limit is twice the error that diffusers makes in bf16.
    @ParameterizedTest
    @CsvSource({"diffusers/unet2d, 0.0278", "diffusers/unet2d_cond_sd15, 0.0351", "unet/sdxl, 0.0382",
        "unet/sd2, 0.0561", "unet/scale_shift, 0.0258"})
    void forward_bf16(String name, double torchError) {
        GoldenCase golden = new GoldenCase(name);
        assertClose(golden, run(golden.model(), DType.BF16, inputs(golden)), 2 * torchError);
    }

    /// Before 2023 diffusers called the weights of its attention by other names.
    @Test
    void forward_oldAttentionNames() {
        ModelDirectory.of(UNET2D).rename(name -> name.replace(".to_q.", ".query.").replace(".to_k.", ".key.")
                .replace(".to_v.", ".value.").replace(".to_out.0.", ".proj_attn.")).write(directory);
        assertArrayEquals(run(UNET2D.model(), DType.F32, inputs(UNET2D)).values(),
                run(directory, DType.F32, inputs(UNET2D)).values());
    }

    @Test
    void forward_shards() {
        ModelDirectory.of(UNET2D).writeShards(directory, 3);
        assertArrayEquals(run(UNET2D.model(), DType.F32, inputs(UNET2D)).values(),
                run(directory, DType.F32, inputs(UNET2D)).values());
    }

    /// An image is the same alone and in a batch, for any number of threads.
    @ParameterizedTest
    @ValueSource(strings = {"diffusers/unet2d", "unet/sdxl"})
    void forward_alone(String name) {
        GoldenCase golden = new GoldenCase(name);
        float[] both = run(golden.model(), DType.F32, inputs(golden)).values();
        float[] second = run(golden.model(), DType.F32, secondImage(golden), 1).values();
        assertEquals(both.length, 2 * second.length);
        for (int i = 0; i < second.length; i++) {
            assertEquals(both[second.length + i], second[i], 1e-5, name + " element " + i);
        }
    }

    private Path secondImage(GoldenCase golden) {
        Path file = directory.resolve("second.safetensors");
        Map<String, TensorSource> tensors = new LinkedHashMap<>();
        try (SafetensorsFile io = SafetensorsFile.open(inputs(golden))) {
            for (String name : io.names()) {
                float[] values = io.floats(name);
                long[] shape = io.info(name).shape();
                int half = values.length / 2;
                float[] second = new float[half];
                System.arraycopy(values, half, second, 0, half);
                shape[0] = 1;
                tensors.put(name, TensorSource.of(second, shape));
            }
        }
        SafetensorsWriter.write(file, tensors, Map.of());
        return file;
    }

    @Test
    void forward_missingInput() {
        GoldenCase sdxl = new GoldenCase("unet/sdxl");
        GoldenCase classes = new GoldenCase("unet/classes");
        assertMessage("encoder_hidden_states are missing", sdxl.model(), inputs(sdxl), "encoder_hidden_states");
        assertMessage("time_ids are missing", sdxl.model(), inputs(sdxl), "time_ids");
        assertMessage("class_labels are missing", classes.model(), inputs(classes), "class_labels");
        assertMessage("has no tensor 'timesteps'", classes.model(), inputs(classes), "timesteps");
        assertMessage("has no tensor 'sample'", classes.model(), inputs(classes), "sample");
    }

    /// Runs without one of the tensors.
    private void assertMessage(String message, Path model, Path inputs, String without) {
        Path file = directory.resolve("less.safetensors");
        Map<String, TensorSource> tensors = new LinkedHashMap<>();
        try (SafetensorsFile io = SafetensorsFile.open(inputs)) {
            for (String name : io.names()) {
                if (!name.equals(without)) {
                    tensors.put(name, name.equals("class_labels")
                            ? TensorSource.of(io.longs(name), io.info(name).shape())
                            : TensorSource.of(io.floats(name), io.info(name).shape()));
                }
            }
        }
        SafetensorsWriter.write(file, tensors, Map.of());
        Captured.run("forward", "--device", TestDevice.NAME, "--model", model.toString(), "--inputs", file.toString(),
                "--out", directory.resolve("out.safetensors").toString()).assertFailed(2, message);
    }
}
