package io.gatun.models;

import io.gatun.io.SafetensorsWriter;
import io.gatun.io.TensorSource;
import io.gatun.models.ModelDirectory.Weight;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.DeviceArena;
import io.gatun.runtime.Shapes;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Random;

/// Language models of one layer with random weights, so wide that norm and product are one kernel in decode steps on
/// devices with graphs.
public final class WideModel {
    /// V
    public static final int VOCABULARY = 40;
    private static final int WIDTH = 384;
    private static final String GPT2 = """
            {"model_type": "gpt2", "vocab_size": 40, "n_positions": 32, "n_embd": 384, "n_layer": 1, "n_head": 6,
             "n_inner": 48, "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5}""";
    private static final String LLAMA = """
            {"model_type": "llama", "vocab_size": 40, "max_position_embeddings": 32, "hidden_size": 384,
             "num_hidden_layers": 1, "num_attention_heads": 6, "num_key_value_heads": 2, "intermediate_size": 48,
             "hidden_act": "silu", "rms_norm_eps": 1e-5, "rope_theta": 10000}""";

    private WideModel() {}

    private static String config(LanguageFamily family) {
        return family == LanguageFamily.GPT2 ? GPT2 : LLAMA;
    }

    /// Norms near 1, products that keep the size of what they read; by their names in the checkpoint.
    public static Map<String, Weight> weights(LanguageFamily family) {
        Random random = new Random(1);
        Map<String, Weight> weights = new LinkedHashMap<>();
        try (Device device = Device.open("cpu"); Shapes shapes = new Shapes(device);
                DeviceArena arena = device.newArena("tables")) {
            family.build(ConfigFile.parse("config.json", config(family)), DType.F32,
                    WeightLoader.shapes(shapes, DType.F32), arena).weights().forEach(
                            (name, tensor) -> weights.put(family.prefix() + name,
                                    random(random, tensor.rank() == 1 && name.endsWith("weight") ? 1 : 0,
                                            tensor.rank() == 1 ? 0.1 : 1 / Math.sqrt(WIDTH), tensor.shape())));
        }
        return weights;
    }

    public static Weight random(Random random, double mean, double deviation, long... shape) {
        float[] values = new float[Math.toIntExact(Arrays.stream(shape).reduce(1, Math::multiplyExact))];
        for (int i = 0; i < values.length; i++) {
            values[i] = (float) (mean + deviation * random.nextGaussian());
        }
        return new Weight(values, shape);
    }

    /// Writes a directory.
    ///
    /// @param to does not exist
    public static Path write(Path to, LanguageFamily family, Map<String, Weight> weights) throws IOException {
        Files.createDirectory(to);
        ModelDirectory.writeText(to.resolve("config.json"), config(family));
        writeWeights(to.resolve("model.safetensors"), weights);
        return to;
    }

    public static void writeWeights(Path file, Map<String, Weight> weights) {
        Map<String, TensorSource> tensors = new LinkedHashMap<>();
        weights.forEach((name, weight) -> tensors.put(name, TensorSource.of(weight.values(), weight.shape())));
        SafetensorsWriter.write(file, tensors, Map.of());
    }
}
