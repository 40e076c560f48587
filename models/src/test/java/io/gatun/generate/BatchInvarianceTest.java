package io.gatun.generate;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.generate.LanguageModel.Options;
import io.gatun.models.GoldenCase;
import io.gatun.models.KvCache;
import io.gatun.models.ModelLoader;
import io.gatun.models.TestDevice;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.stream.Stream;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/// Does a prompt get the same ids with the same seed whatever else runs beside it, on whatever number of threads?
@Tag("device")
class BatchInvarianceTest {
    private static final int NEW_TOKENS = 12;

    static Stream<GoldenCase> cases() {
        return Stream.of(GoldenCase.GPT2, GoldenCase.LLAMA);
    }

    private static Options options(int threads, int maxBatch) {
        return Options.defaults().withDevice(TestDevice.NAME).withDtype(DType.F32).withThreads(threads)
                .withMaxBatch(maxBatch);
    }

    /// Nine prompts of different lengths, on both sides of the switch between kernels for few and for many rows.
    private static List<int[]> prompts() {
        Random random = new Random(7);
        List<int[]> prompts = new ArrayList<>();
        for (int length : new int[] {5, 1, 2, 17, 16, 33, 8, 40, 3}) {
            prompts.add(random.ints(length, 3, 250).toArray());
        }
        return prompts;
    }

    private static Map<String, GenerationConfig> settings() {
        Map<String, GenerationConfig> settings = new LinkedHashMap<>();
        settings.put("greedy", builder().build());
        settings.put("greedy with penalties", builder().repetitionPenalty(1.3f).presencePenalty(0.4f).build());
        settings.put("temperature", builder().temperature(1.1f).seed(5).build());
        settings.put("top-k, top-p, penalties", builder().temperature(0.9f).topK(40).topP(0.9f).seed(-3)
                .repetitionPenalty(1.2f).presencePenalty(0.5f).frequencyPenalty(0.25f).build());
        settings.put("min-p", builder().temperature(1.5f).minP(0.02f).seed(1L << 40).build());
        settings.put("on the host", builder().temperature(1).typicalP(0.9f).noRepeatNgramSize(3).seed(9).build());
        return settings;
    }

    private static GenerationConfig.Builder builder() {
        return GenerationConfig.builder().maxNewTokens(NEW_TOKENS).ignoreEos(true);
    }

    @ParameterizedTest
    @MethodSource("cases")
    void generate_sameIdsAloneAndInBatch(GoldenCase golden) {
        List<int[]> prompts = prompts();
        Map<String, List<int[]>> alone = new LinkedHashMap<>();
        for (int threads = 1; threads <= 2; threads++) {
            try (LanguageModel model = LanguageModel.load(golden.model(), options(threads, 16))) {
                for (Map.Entry<String, GenerationConfig> setting : settings().entrySet()) {
                    List<int[]> ids = prompts.stream().map(p -> model.generate(p, setting.getValue()).ids()).toList();
                    List<int[]> expected = alone.computeIfAbsent(setting.getKey(), key -> ids);
                    List<GenerationResult> together = model.generateAll(prompts, setting.getValue());
                    for (int i = 0; i < prompts.size(); i++) {
                        String what = "%s %s prompt %d threads %d".formatted(golden, setting.getKey(), i, threads);
                        assertArrayEquals(expected.get(i), ids.get(i), what + " alone");
                        assertArrayEquals(expected.get(i), together.get(i).ids(), what + " in a batch");
                    }
                }
            }
        }
        assertFalse(Arrays.equals(alone.get("greedy").get(0), alone.get("temperature").get(0)), "sampling is greedy");
    }

    /// A batch that does not fit is cut; where it is cut does not matter.
    @ParameterizedTest
    @MethodSource("cases")
    void generate_sameIdsHoweverBatchIsCut(GoldenCase golden) {
        GenerationConfig config = settings().get("top-k, top-p, penalties");
        List<GenerationResult> expected;
        try (LanguageModel model = LanguageModel.load(golden.model(), options(2, 16))) {
            expected = model.generateAll(prompts(), config);
        }
        for (int maxBatch : new int[] {1, 4}) {
            try (LanguageModel model = LanguageModel.load(golden.model(), options(1, maxBatch))) {
                List<GenerationResult> cut = model.generateAll(prompts(), config);
                for (int i = 0; i < cut.size(); i++) {
                    assertArrayEquals(expected.get(i).ids(), cut.get(i).ids(), golden + " prompt " + i);
                }
            }
        }
    }

    /// Copies of one prompt are samples of their own; the first is what the prompt gives alone.
    @Test
    void generate_copiesDiffer() {
        GenerationConfig config = builder().temperature(1).seed(11).build();
        int[] prompt = {5, 6, 7};
        int[] other = {9, 9};
        try (LanguageModel model = LanguageModel.load(GoldenCase.LLAMA.model(), options(2, 8))) {
            List<GenerationResult> copies = model.generateAll(List.of(prompt, other, prompt, prompt), config);
            assertArrayEquals(model.generate(prompt, config).ids(), copies.get(0).ids());
            assertArrayEquals(model.generate(other, config).ids(), copies.get(1).ids());
            assertFalse(Arrays.equals(copies.get(0).ids(), copies.get(2).ids()));
            assertFalse(Arrays.equals(copies.get(2).ids(), copies.get(3).ids()));
            assertArrayEquals(copies.get(3).ids(),
                    model.generateAll(List.of(prompt, prompt, prompt), config).get(2).ids());
        }
    }

    /// Every seed draws its own numbers, the same ones each time.
    @Test
    void generate_seeds() {
        int[] prompt = {5, 6, 7};
        try (LanguageModel model = LanguageModel.load(GoldenCase.GPT2.model(), options(2, 2))) {
            List<String> seen = new ArrayList<>();
            for (long seed : new long[] {0, 1, -1, 1L << 32, Long.MIN_VALUE}) {
                GenerationConfig config = builder().temperature(1).seed(seed).build();
                String ids = Arrays.toString(model.generate(prompt, config).ids());
                assertEquals(ids, Arrays.toString(model.generate(prompt, config).ids()));
                assertFalse(seen.contains(ids), "seed " + seed);
                seen.add(ids);
            }
        }
    }

    /// The kernels' way and the host's way choose the same ids from the same draws. Log-probabilities force the host's.
    @ParameterizedTest
    @MethodSource("cases")
    void generate_deviceAgreesWithHost(GoldenCase golden) {
        try (LanguageModel model = LanguageModel.load(golden.model(), options(2, 16))) {
            for (Map.Entry<String, GenerationConfig> setting : settings().entrySet()) {
                GenerationConfig c = setting.getValue();
                if (LogitsProcessors.needsHost(c)) {
                    continue;
                }
                GenerationConfig onHost = builder().temperature(c.temperature()).topK(c.topK()).topP(c.topP())
                        .minP(c.minP()).repetitionPenalty(c.repetitionPenalty()).presencePenalty(c.presencePenalty())
                        .frequencyPenalty(c.frequencyPenalty()).seed(c.seed()).logprobs(0).build();
                assertTrue(LogitsProcessors.needsHost(onHost));
                List<GenerationResult> device = model.generateAll(prompts(), c);
                List<GenerationResult> host = model.generateAll(prompts(), onHost);
                for (int i = 0; i < device.size(); i++) {
                    assertArrayEquals(device.get(i).ids(), host.get(i).ids(),
                            "%s %s prompt %d".formatted(golden, setting.getKey(), i));
                }
            }
        }
    }

    /// The bits of a step's logits for one sequence in batches of all sizes, also where a product could take another
    /// kernel.
    @ParameterizedTest
    @MethodSource("cases")
    void step_sameBitsInAnyBatch(GoldenCase golden) {
        int[] prompt = golden.prompts()[0];
        int v = golden.floats("logits").length / (2 * prompt.length);
        float[] expected = null;
        for (int threads = 1; threads <= 2; threads++) {
            try (Device device = Device.open(TestDevice.NAME, new Device.Options(threads));
                    io.gatun.runtime.Stream stream = device.newStream();
                    ModelLoader.Result model = ModelLoader.load(device, stream, golden.model(), DType.F32, n -> {});
                    KvCache cache = new KvCache(device, model.network().config(), 40);
                    DecodeState state = new DecodeState(device, stream, model.network(), cache, 40)) {
                model.network().reserve(stream, 64);
                for (int slot = 0; slot < 40; slot++) {
                    int[] own = slot == 0 ? prompt : Arrays.copyOf(prompt, 1 + slot % prompt.length);
                    state.prefill(slot, new Sequence(slot, own, (id, logprob) -> false, cache.allocate(1), 4),
                            GenerationConfig.greedy());
                }
                for (int b : new int[] {1, 2, 3, 8, 16, 17, 33, 40}) {
                    state.setInput(0, 42, prompt.length);
                    state.forward(b);
                    float[] logits = Arrays.copyOf(state.downloadLogits(b), v);
                    expected = expected == null ? logits : expected;
                    assertArrayEquals(expected, logits, "%s batch %d threads %d".formatted(golden, b, threads));
                }
            }
        }
    }
}
