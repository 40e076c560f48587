package io.gatun.models.lora;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.generate.GenerationConfig;
import io.gatun.generate.GenerationResult;
import io.gatun.generate.LanguageModel;
import io.gatun.generate.TokenLogprob;
import io.gatun.models.LanguageFamily;
import io.gatun.models.ModelDirectory;
import io.gatun.models.ModelDirectory.Weight;
import io.gatun.models.TestDevice;
import io.gatun.models.WideModel;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
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
    private static final int RANK = 2;
    private static final float TOLERANCE = 5e-5f;

    @TempDir
    private Path directory;

    /// The targets are one of each way that a product of a decode step goes: after a norm, after a norm with an
    /// activation, alone, one of queries, keys and values, one of a gated pair.
    @ParameterizedTest
    @CsvSource({"GPT2, c_attn", "GPT2, c_fc", "GPT2, c_proj", "LLAMA, k_proj", "LLAMA, up_proj"})
    void decode_equalsMergedWeights(LanguageFamily family, String target) throws IOException {
        Map<String, Weight> weights = WideModel.weights(family);
        Path base = WideModel.write(directory.resolve("base"), family, weights);
        Path adapter = writeAdapter(target, family == LanguageFamily.GPT2, weights);
        LoraAdapter read = LoraAdapter.read(adapter);
        Map<String, Weight> merged = new LinkedHashMap<>();
        weights.forEach((name, weight) -> merged.put(name, new Weight(
                read.merged(name.replaceFirst("\\.weight$", ""), weight.values(), 1), weight.shape())));

        GenerationResult plain = generate(base, Map.of());
        GenerationResult adapted = generate(base, Map.of("a", adapter));
        GenerationResult expected = generate(WideModel.write(directory.resolve("merged"), family, merged), Map.of());
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
        GenerationConfig config = GenerationConfig.builder().maxNewTokens(4).ignoreEos(true)
                .logprobs(WideModel.VOCABULARY).adapter(adapters.isEmpty() ? null : "a").build();
        try (LanguageModel loaded = LanguageModel.load(model, LanguageModel.Options.defaults()
                .withDevice(TestDevice.NAME).withThreads(1).withMaxBatch(1).withAdapters(adapters))) {
            return loaded.generate(new int[] {3, 1}, config);
        }
    }

    /// By id.
    private static float[] logprobs(GenerationResult result, int step) {
        List<TokenLogprob.Alternative> all = result.logprobs().get(step).top();
        assertEquals(WideModel.VOCABULARY, all.size());
        float[] byId = new float[WideModel.VOCABULARY];
        all.forEach(one -> byId[one.id()] = one.logprob());
        return byId;
    }

    private Path writeAdapter(String target, boolean fanInFanOut, Map<String, Weight> weights) throws IOException {
        Random random = new Random(2);
        Map<String, Weight> matrices = new LinkedHashMap<>();
        weights.forEach((name, weight) -> {
            String module = name.replaceFirst("\\.weight$", "");
            if (module.endsWith("." + target) && weight.shape().length == 2) {
                long in = weight.shape()[fanInFanOut ? 0 : 1];
                long out = weight.shape()[fanInFanOut ? 1 : 0];
                List<String> names = LoraAdapter.tensorNames(module);
                matrices.put(names.get(0), WideModel.random(random, 0, 1 / Math.sqrt(in), RANK, in));
                matrices.put(names.get(1), WideModel.random(random, 0, 1, out, RANK));
            }
        });
        Path to = Files.createDirectory(directory.resolve("adapter"));
        ModelDirectory.writeText(to.resolve("adapter_config.json"), """
                {"peft_type": "LORA", "r": %d, "lora_alpha": 4, "target_modules": ["%s"], "fan_in_fan_out": %s}"""
                .formatted(RANK, target, fanInFanOut));
        WideModel.writeWeights(to.resolve("adapter_model.safetensors"), matrices);
        return to;
    }
}
