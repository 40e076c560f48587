package io.gatun.models;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import io.gatun.io.SafetensorsFile;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.URISyntaxException;
import java.nio.file.Path;
import java.util.Objects;

/// One recorded case of a model: its checkpoint, its inputs and outputs, and how far an f32 implementation may be off.
///
/// @param name such as `gpt2/gpt2_tiny`
public record GoldenCase(String name) {
    public static final GoldenCase GPT2 = new GoldenCase("gpt2/gpt2_tiny");
    public static final GoldenCase LLAMA = new GoldenCase("llama/llama_tiny_llama3rope");

    /// No f32 result may be further off than this, whatever the case allows.
    private static final double LARGEST_TOLERANCE = 1e-4;

    /// A file or folder of the test resources.
    public static Path resource(String name) {
        try {
            return Path.of(Objects.requireNonNull(GoldenCase.class.getResource("/" + name), name).toURI());
        } catch (URISyntaxException e) {
            throw new IllegalStateException(e);
        }
    }

    /// The JSON in a file.
    public static JsonNode json(Path file) {
        try {
            return new ObjectMapper().readTree(file.toFile());
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    public Path directory() {
        return resource("golden/" + name);
    }

    /// The Hugging Face directory.
    public Path model() {
        return directory().resolve("model");
    }

    /// The largest difference that an f32 result may have.
    public double tolerance() {
        return Math.min(LARGEST_TOLERANCE,
                json(directory().resolve("case.json")).required("tolerance").required("fp32_hint").asDouble());
    }

    public float[] floats(String tensor) {
        try (SafetensorsFile io = SafetensorsFile.open(directory().resolve("io.safetensors"))) {
            return io.floats(tensor);
        }
    }

    /// Whether the case recorded it.
    public boolean has(String tensor) {
        try (SafetensorsFile io = SafetensorsFile.open(directory().resolve("io.safetensors"))) {
            return io.names().contains(tensor);
        }
    }

    public long[] longs(String tensor) {
        try (SafetensorsFile io = SafetensorsFile.open(directory().resolve("io.safetensors"))) {
            return io.longs(tensor);
        }
    }

    public long[] shape(String tensor) {
        try (SafetensorsFile io = SafetensorsFile.open(directory().resolve("io.safetensors"))) {
            return io.info(tensor).shape();
        }
    }

    /// The rows of an integer tensor [B, T].
    public int[][] ids(String tensor) {
        try (SafetensorsFile io = SafetensorsFile.open(directory().resolve("io.safetensors"))) {
            long[] shape = io.info(tensor).shape();
            long[] values = io.longs(tensor);
            int[][] rows = new int[(int) shape[0]][(int) shape[1]];
            for (int i = 0; i < values.length; i++) {
                rows[i / rows[0].length][i % rows[0].length] = Math.toIntExact(values[i]);
            }
            return rows;
        }
    }

    /// The prompts of the case.
    public int[][] prompts() {
        return ids("ids");
    }

    @Override
    public String toString() {
        return name;
    }
}
