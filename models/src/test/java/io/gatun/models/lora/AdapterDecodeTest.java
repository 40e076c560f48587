package io.gatun.models.lora;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.generate.GenerationConfig;
import io.gatun.generate.GenerationResult;
import io.gatun.generate.LanguageModel;
import io.gatun.generate.TokenLogprob;
import io.gatun.io.SafetensorsWriter;
import io.gatun.io.TensorSource;
import io.gatun.models.ConfigFile;
import io.gatun.models.LanguageFamily;
import io.gatun.models.ModelDirectory;
import io.gatun.models.TestDevice;
import io.gatun.models.WeightLoader;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.DeviceArena;
import io.gatun.runtime.Shapes;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/// Does an adapter act in decode steps so wide that norm and product are one kernel where no adapter changes a weight?
@Tag("device")
class AdapterDecodeTest {
    private static final int V = 40;
    private static final int RANK = 2;
    private static final float TOLERANCE = 5e-5f;
    private static final String GPT2 = """
            {"model_type": "gpt2", "vocab_size": 40, "n_positions": 32, "n_embd": 384, "n_layer": 1, "n_head": 6,
             "n_inner": 48, "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5}""";
    private static final String LLAMA = """
            {"model_type": "llama", "vocab_size": 40, "max_position_embeddings": 32, "hidden_size": 384,
             "num_hidden_layers": 1, "num_attention_heads": 6, "num_key_value_heads": 2, "intermediate_size": 48,
             "hidden_act": "silu", "rms_norm_eps": 1e-5, "rope_theta": 10000}""";

    @TempDir
    private Path directory;

    private record Weight(float[] values, long... shape) {}

    /// The targets are one of each way that a product of a decode step goes: after a norm, after a norm with an
    /// activation, alone, one of queries, keys and values, one of a gated pair.
    @ParameterizedTest
    @CsvSource({"GPT2, c_attn", "GPT2, c_fc", "GPT2, c_proj", "LLAMA, k_proj", "LLAMA, up_proj"})
    void decode_equalsMergedWeights(LanguageFamily family, String target) throws IOException {
        String config = family == LanguageFamily.GPT2 ? GPT2 : LLAMA;
        Map<String, Weight> weights = randomWeights(family, config);
        Path base = write("base", config, weights);
        Path adapter = writeAdapter(target, family == LanguageFamily.GPT2, weights);
        LoraAdapter read = LoraAdapter.read(adapter);
        Map<String, Weight> merged = new LinkedHashMap<>();
        weights.forEach((name, weight) -> merged.put(name, new Weight(
                read.merged(name.replaceFirst("\\.weight$", ""), weight.values, 1), weight.shape)));

        GenerationResult plain = generate(base, Map.of());
        GenerationResult adapted = generate(base, Map.of("a", adapter));
        GenerationResult expected = generate(write("merged", config, merged), Map.of());
        assertArrayEquals(expected.ids(), adapted.ids());
        float change = 0;
        for (int step = 0; step < adapted.ids().length; step++) {
            float[] of = logprobs(adapted, step);
            assertArrayEquals(logprobs(expected, step), of, TOLERANCE, family + ", " + target + ", token " + step);
            change = Math.max(change, Math.abs(logprobs(plain, step)[0] - of[0]));
        }
        assertTrue(change > 100 * TOLERANCE, "the adapter changes nothing that shows: " + change);
    }

    private static GenerationResult generate(Path model, Map<String, Path> adapters) {
        GenerationConfig config = GenerationConfig.builder().maxNewTokens(4).ignoreEos(true).logprobs(V)
                .adapter(adapters.isEmpty() ? null : "a").build();
        try (LanguageModel loaded = LanguageModel.load(model, LanguageModel.Options.defaults()
                .withDevice(TestDevice.NAME).withThreads(1).withMaxBatch(1).withAdapters(adapters))) {
            return loaded.generate(new int[] {3, 1}, config);
        }
    }

    /// By id.
    private static float[] logprobs(GenerationResult result, int step) {
        List<TokenLogprob.Alternative> all = result.logprobs().get(step).top();
        assertEquals(V, all.size());
        float[] byId = new float[V];
        all.forEach(one -> byId[one.id()] = one.logprob());
        return byId;
    }

    /// Norms near 1, products that keep the size of what they read.
    private static Map<String, Weight> randomWeights(LanguageFamily family, String config) {
        Random random = new Random(1);
        Map<String, Weight> weights = new LinkedHashMap<>();
        try (Device device = Device.open("cpu"); Shapes shapes = new Shapes(device);
                DeviceArena arena = device.newArena("tables")) {
            family.build(ConfigFile.parse("config.json", config), DType.F32, WeightLoader.shapes(shapes, DType.F32),
                    arena).weights().forEach((name, tensor) -> weights.put(family.prefix() + name,
                    random(random, tensor.rank() == 1 && name.endsWith("weight") ? 1 : 0,
                            tensor.rank() == 1 ? 0.1 : 1 / Math.sqrt(384), tensor.shape())));
        }
        return weights;
    }

    private static Weight random(Random random, double mean, double deviation, long... shape) {
        float[] values = new float[Math.toIntExact(Arrays.stream(shape).reduce(1, Math::multiplyExact))];
        for (int i = 0; i < values.length; i++) {
            values[i] = (float) (mean + deviation * random.nextGaussian());
        }
        return new Weight(values, shape);
    }

    private Path writeAdapter(String target, boolean fanInFanOut, Map<String, Weight> weights) throws IOException {
        Random random = new Random(2);
        Map<String, Weight> matrices = new LinkedHashMap<>();
        weights.forEach((name, weight) -> {
            String module = name.replaceFirst("\\.weight$", "");
            if (module.endsWith("." + target) && weight.shape.length == 2) {
                long in = weight.shape[fanInFanOut ? 0 : 1];
                long out = weight.shape[fanInFanOut ? 1 : 0];
                List<String> names = LoraAdapter.tensorNames(module);
                matrices.put(names.get(0), random(random, 0, 1 / Math.sqrt(in), RANK, in));
                matrices.put(names.get(1), random(random, 0, 1, out, RANK));
            }
        });
        Path to = Files.createDirectory(directory.resolve("adapter"));
        ModelDirectory.writeText(to.resolve("adapter_config.json"), """
                {"peft_type": "LORA", "r": %d, "lora_alpha": 4, "target_modules": ["%s"], "fan_in_fan_out": %s}"""
                .formatted(RANK, target, fanInFanOut));
        writeWeights(to.resolve("adapter_model.safetensors"), matrices);
        return to;
    }

    private Path write(String name, String config, Map<String, Weight> weights) throws IOException {
        Path to = Files.createDirectory(directory.resolve(name));
        ModelDirectory.writeText(to.resolve("config.json"), config);
        writeWeights(to.resolve("model.safetensors"), weights);
        return to;
    }

    private static void writeWeights(Path file, Map<String, Weight> weights) {
        Map<String, TensorSource> tensors = new LinkedHashMap<>();
        weights.forEach((name, weight) -> tensors.put(name, TensorSource.of(weight.values, weight.shape)));
        SafetensorsWriter.write(file, tensors, Map.of());
    }
}
