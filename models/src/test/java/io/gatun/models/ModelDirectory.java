package io.gatun.models;

import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import io.gatun.io.SafetensorsFile;
import io.gatun.io.SafetensorsWriter;
import io.gatun.io.TensorSource;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.function.UnaryOperator;

/// A checkpoint in memory that tests change and write: other names, other weights, other fields.
public final class ModelDirectory {
    private static final ObjectMapper MAPPER = new ObjectMapper();

    /// A tensor to write.
    public record Weight(float[] values, long... shape) {}

    private final ObjectNode config;
    private final String baseName;
    private Map<String, Weight> weights = new TreeMap<>();

    private ModelDirectory(ObjectNode config, String baseName) {
        this.config = config;
        this.baseName = baseName;
    }

    /// The checkpoint of a recorded case.
    public static ModelDirectory of(GoldenCase source) {
        ObjectNode config = (ObjectNode) GoldenCase.json(source.model().resolve("config.json"));
        ModelDirectory copy = new ModelDirectory(config,
                config.has("_class_name") ? "diffusion_pytorch_model" : "model");
        try (SafetensorsFile file = SafetensorsFile.open(source.model().resolve(copy.baseName + ".safetensors"))) {
            for (String name : file.names()) {
                copy.weights.put(name, new Weight(file.floats(name), file.info(name).shape()));
            }
        }
        return copy;
    }

    /// The config, to change.
    public ObjectNode config() {
        return config;
    }

    public Weight weight(String name) {
        return weights.get(name);
    }

    public ModelDirectory with(String name, float[] values, long... shape) {
        weights.put(name, new Weight(values, shape));
        return this;
    }

    public ModelDirectory without(String name) {
        if (weights.remove(name) == null) {
            throw new IllegalArgumentException(name);
        }
        return this;
    }

    /// Gives every weight another name.
    public ModelDirectory rename(UnaryOperator<String> rule) {
        Map<String, Weight> renamed = new TreeMap<>();
        weights.forEach((name, weight) -> renamed.put(rule.apply(name), weight));
        weights = renamed;
        return this;
    }

    /// Writes config.json and the weights in one file.
    public Path write(Path directory) {
        writeConfig(directory);
        writeWeights(directory.resolve(baseName + ".safetensors"), weights);
        return directory;
    }

    /// Writes config.json, an index, and so many shards.
    public Path writeShards(Path directory, int shards) {
        writeConfig(directory);
        ObjectNode index = MAPPER.createObjectNode();
        ObjectNode map = index.putObject("weight_map");
        index.putObject("metadata").put("total_size", 0);
        List<Map<String, Weight>> parts = new ArrayList<>();
        for (int i = 0; i < shards; i++) {
            parts.add(new LinkedHashMap<>());
        }
        int next = 0;
        for (Map.Entry<String, Weight> entry : weights.entrySet()) {
            int shard = next++ % shards;
            parts.get(shard).put(entry.getKey(), entry.getValue());
            map.put(entry.getKey(), shardName(shard, shards));
        }
        for (int i = 0; i < shards; i++) {
            writeWeights(directory.resolve(shardName(i, shards)), parts.get(i));
        }
        writeText(directory.resolve(baseName + ".safetensors.index.json"), index.toString());
        return directory;
    }

    private String shardName(int shard, int shards) {
        return "%s-%05d-of-%05d.safetensors".formatted(baseName, shard + 1, shards);
    }

    private void writeConfig(Path directory) {
        writeText(directory.resolve("config.json"), config.toPrettyString());
    }

    private static void writeWeights(Path file, Map<String, Weight> weights) {
        Map<String, TensorSource> tensors = new LinkedHashMap<>();
        weights.forEach((name, weight) -> tensors.put(name, TensorSource.of(weight.values, weight.shape)));
        SafetensorsWriter.write(file, tensors, Map.of("format", "pt"));
    }

    /// Writes a text file.
    public static void writeText(Path file, String text) {
        try {
            Files.writeString(file, text);
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }
}
