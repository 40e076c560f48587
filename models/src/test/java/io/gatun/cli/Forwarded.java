package io.gatun.cli;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.io.SafetensorsFile;
import io.gatun.io.SafetensorsWriter;
import io.gatun.io.TensorSource;
import io.gatun.models.GoldenCase;
import io.gatun.models.TestDevice;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Set;

/// What `gatun forward` writes, for tests that compare it.
public final class Forwarded implements AutoCloseable {
    private final SafetensorsFile file;
    private final Path path;

    private Forwarded(Path path) {
        this.path = path;
        this.file = SafetensorsFile.open(path);
    }

    /// Runs the command on all inputs in a file; it must succeed.
    public static Forwarded run(Path model, Path inputs, String... options) {
        try {
            Path out = Files.createTempFile("forward", ".safetensors");
            List<String> arguments = new ArrayList<>(List.of("forward", "--model", model.toString(), "--inputs",
                    inputs.toString(), "--out", out.toString(), "--device", TestDevice.NAME));
            arguments.addAll(List.of(options));
            if (!arguments.contains("--threads")) {
                arguments.addAll(List.of("--threads", "2"));
            }
            Captured captured = Captured.run(arguments.toArray(String[]::new));
            assertEquals(0, captured.code(), captured.err());
            return new Forwarded(out);
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    /// Writes one tensor of a recorded case under another name.
    static Path renamed(Path folder, GoldenCase golden, String recorded, String name) {
        Path inputs = folder.resolve("inputs.safetensors");
        SafetensorsWriter.write(inputs, Map.of(name, TensorSource.of(golden.floats(recorded), golden.shape(recorded))),
                Map.of());
        return inputs;
    }

    Set<String> names() {
        return file.names();
    }

    public float[] floats(String name) {
        return file.floats(name);
    }

    long[] longs(String name) {
        return file.longs(name);
    }

    public long[] shape(String name) {
        return file.info(name).shape();
    }

    /// Each value within `tolerance * max(1, |expected|)` of the recorded one.
    void assertClose(GoldenCase golden, String name, String recorded, double tolerance) {
        assertEquals(Arrays.toString(golden.shape(recorded)), Arrays.toString(shape(name)), golden + " " + name);
        float[] expected = golden.floats(recorded);
        float[] actual = floats(name);
        for (int i = 0; i < expected.length; i++) {
            int at = i;
            assertTrue(Math.abs(actual[i] - expected[i]) <= tolerance * Math.max(1, Math.abs(expected[i])),
                    () -> "%s on %s, %s[%d] of %s: expected %s, actual %s, tolerance %s".formatted(golden,
                            TestDevice.NAME, name, at, Arrays.toString(shape(name)), expected[at], actual[at],
                            tolerance));
        }
    }

    /// Each value within `tolerance` of the recorded one.
    void assertWithin(GoldenCase golden, String name, String recorded, double tolerance) {
        float[] expected = golden.floats(recorded);
        float[] actual = floats(name);
        assertEquals(expected.length, actual.length, golden + " " + name);
        for (int i = 0; i < expected.length; i++) {
            int at = i;
            assertTrue(Math.abs(actual[i] - expected[i]) <= tolerance,
                    () -> "%s on %s, %s[%d]: expected %s, actual %s, tolerance %s".formatted(golden, TestDevice.NAME,
                            name, at, expected[at], actual[at], tolerance));
        }
    }

    @Override
    public void close() {
        file.close();
        try {
            Files.deleteIfExists(path);
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }
}
