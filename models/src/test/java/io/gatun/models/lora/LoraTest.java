package io.gatun.models.lora;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.generate.GenerationConfig;
import io.gatun.generate.LanguageModel;
import io.gatun.models.CausalModel;
import io.gatun.models.ConfigFile;
import io.gatun.models.FullForward;
import io.gatun.models.GoldenCase;
import io.gatun.models.LanguageFamily;
import io.gatun.models.ModelLoader;
import io.gatun.models.TestDevice;
import io.gatun.models.WeightLoader;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.DeviceArena;
import io.gatun.runtime.GatunException;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/// Do adapters written by PEFT do here what they do there?
@Tag("device")
class LoraTest {
    private static final GoldenCase GOLDEN = new GoldenCase("train/lora_gpt2");
    private static final float TOLERANCE = 2e-5f;
    private static final Path FINAL = GOLDEN.directory().resolve("adapter_final");
    private static final Path INITIAL = GOLDEN.directory().resolve("adapter_init");

    @Test
    void forward_ofSelectedAdapter() {
        int[][] ids = firstBatch();
        try (Device device = Device.open(TestDevice.NAME); Stream stream = device.newStream();
                ModelLoader.Result model = ModelLoader.load(device, stream, GOLDEN.model(), DType.F32, count -> {})) {
            AdaptedModel adapted = new AdaptedModel(model.network(), model.arena(), stream,
                    Map.of("final", LoraAdapter.read(FINAL), "initial", LoraAdapter.read(INITIAL)));
            for (int b = 0; b < ids.length; b++) {
                float[] base = row("logits_base", b);
                float[] trained = row("logits_final", b);
                float[] without = FullForward.run(device, stream, model.network(), ids[b]).get("logits");
                assertArrayEquals(base, without, TOLERANCE);
                adapted.select(stream, "final");
                assertArrayEquals(trained, logits(device, stream, adapted, ids[b]), TOLERANCE);
                adapted.select(stream, "initial");
                assertArrayEquals(base, logits(device, stream, adapted, ids[b]), TOLERANCE);
                adapted.select(stream, null);
                assertArrayEquals(without, logits(device, stream, adapted, ids[b]));
            }
        }
    }

    /// Merged weights give the same as adapters beside them, and taking out gives the old weights.
    @Test
    void merged_equalsUnmerged() {
        LoraAdapter adapter = LoraAdapter.read(FINAL);
        ConfigFile config = ConfigFile.read(GOLDEN.model().resolve("config.json"));
        try (Device device = Device.open(TestDevice.NAME); Stream stream = device.newStream();
                DeviceArena arena = device.newArena("merged");
                ModelLoader.Result model = ModelLoader.load(device, stream, GOLDEN.model(), DType.F32, count -> {})) {
            Map<String, Tensor> merged = new LinkedHashMap<>();
            model.network().weights().forEach((name, weight) -> {
                float[] before = weight.toFloats(stream);
                String module = name.replaceFirst("\\.weight$", "");
                float[] after = adapter.merged(module, before, 1);
                assertEquals(!adapter.modules().containsKey(module), Arrays.equals(before, after), name);
                assertArrayEquals(before, adapter.merged(module, after, -1), 1e-6f, name);
                Tensor tensor = arena.allocate(DType.F32, weight.shape());
                tensor.copyFrom(stream, after);
                merged.put(name, tensor);
            });
            CausalModel network = LanguageFamily.GPT2.build(config, DType.F32, WeightLoader.trained(merged, arena,
                    stream,
                    DType.F32, LanguageFamily.GPT2.prefixes()), arena);
            int[][] ids = firstBatch();
            assertArrayEquals(row("logits_final", 0), logits(device, stream, network, ids[0]), TOLERANCE);
        }
    }

    @Test
    void generate_swapsAdaptersBetweenRequests() {
        int[] prompt = Arrays.copyOf(firstBatch()[0], 6);
        GenerationConfig.Builder settings = GenerationConfig.builder().maxNewTokens(8).ignoreEos(true);
        LanguageModel.Options options = LanguageModel.Options.defaults().withDevice(TestDevice.NAME)
                .withDtype(DType.F32).withMaxBatch(2);
        List<int[]> alone = new ArrayList<>();
        for (Map<String, Path> one : List.of(Map.<String, Path>of(), Map.of("a", FINAL))) {
            try (LanguageModel model = LanguageModel.load(GOLDEN.model(), options.withAdapters(one))) {
                alone.add(model.generate(prompt, settings.adapter(one.isEmpty() ? null : "a").build()).ids());
            }
        }
        assertTrue(!Arrays.equals(alone.get(0), alone.get(1)), "the adapter changes nothing");
        try (LanguageModel model = LanguageModel.load(GOLDEN.model(),
                options.withAdapters(Map.of("a", FINAL, "b", INITIAL)))) {
            for (int round = 0; round < 2; round++) {
                assertArrayEquals(alone.get(0), model.generate(prompt, settings.adapter(null).build()).ids());
                assertArrayEquals(alone.get(1), model.generate(prompt, settings.adapter("a").build()).ids());
                assertArrayEquals(alone.get(0), model.generate(prompt, settings.adapter("b").build()).ids());
            }
            GatunException unknown = assertThrows(GatunException.class,
                    () -> model.generate(prompt, settings.adapter("c").build()));
            assertTrue(unknown.getMessage().startsWith("adapter is 'c',"
                    + " expected one that the model was loaded with: ["),
                    unknown.getMessage());
        }
    }

    @Test
    void load_adapterOfAnotherModel() {
        try (Device device = Device.open(TestDevice.NAME); Stream stream = device.newStream();
                ModelLoader.Result model = ModelLoader.load(device, stream, GoldenCase.GPT2.model(), DType.F32,
                        count -> {})) {
            GatunException e = assertThrows(GatunException.class, () -> new AdaptedModel(model.network(), model.arena(),
                    stream, Map.of("a", LoraAdapter.read(FINAL))));
            assertTrue(e.getMessage().contains("is the adapter for another model?"), e.getMessage());
        }
    }

    @ParameterizedTest
    @CsvSource({"transformer.wte, wte", "lm_head, lm_head", "model.embed_tokens, embed_tokens"})
    void targets_outsideOfLayers(String module, String target) {
        LoraConfig config = LoraConfig.parse(ConfigFile.parse("adapter_config.json", """
                {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "%s"]}"""
                .formatted(target)));
        try (Device device = Device.open("cpu"); DeviceArena arena = device.newArena("weights")) {
            Tensor weight = arena.allocate(DType.F32, 2, 2);
            String layer = "model.layers.0.self_attn.q_proj";
            assertEquals(1, LoraAdapter.targets(config, Map.of(layer + ".weight", weight)).size());
            GatunException e = assertThrows(GatunException.class, () -> LoraAdapter.targets(config,
                    Map.of(layer + ".weight", weight, module + ".weight", weight)));
            assertTrue(e.getMessage().contains("name '" + module + "', expected matrices of layers alone"),
                    e.getMessage());
        }
    }

    @ParameterizedTest
    @CsvSource(delimiter = '|', value = {
        "transformer.h.0.attn.c_attn | true | 4 | 2",
        "transformer.h.1.attn.c_attn | true | 2 | 8",
        "transformer.h.0.mlp.c_fc    | false | 4 | 2"})
    void config_patterns(String module, boolean target, int rank, float scale) {
        LoraConfig config = LoraConfig.parse(ConfigFile.parse("adapter_config.json", """
                {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["c_attn", "c_proj"],
                 "rank_pattern": {"h.1.attn.c_attn": 2}, "alpha_pattern": {"1.attn.c_attn": 16}}"""));
        assertEquals(target, config.isTarget(module));
        assertEquals(rank, config.rankOf(module));
        assertEquals(scale, config.scaleOf(module));
    }

    @Test
    void config_regularExpressionAndRankStabilised() {
        LoraConfig config = LoraConfig.parse(ConfigFile.parse("adapter_config.json", """
                {"peft_type": "LORA", "r": 16, "lora_alpha": 8, "target_modules": ".*\\\\.h\\\\.0\\\\..*",
                        "use_rslora": true}"""));
        assertTrue(config.isTarget("transformer.h.0.mlp.c_fc"));
        assertTrue(!config.isTarget("transformer.h.1.mlp.c_fc"));
        assertEquals(2, config.scaleOf("transformer.h.0.mlp.c_fc"));
    }

    private static int[][] firstBatch() {
        long[] shape = GOLDEN.shape("ids");
        long[] ids = GOLDEN.longs("ids");
        int[][] rows = new int[(int) shape[1]][(int) shape[2]];
        for (int i = 0; i < shape[1] * shape[2]; i++) {
            rows[(int) (i / shape[2])][(int) (i % shape[2])] = (int) ids[i];
        }
        return rows;
    }

    private static float[] row(String name, int b) {
        float[] all = GOLDEN.floats(name);
        int n = all.length / (int) GOLDEN.shape(name)[0];
        return Arrays.copyOfRange(all, b * n, (b + 1) * n);
    }

    private static float[] logits(Device device, Stream stream, CausalModel model, int[] ids) {
        return FullForward.run(device, stream, model, ids).get("logits");
    }
}
