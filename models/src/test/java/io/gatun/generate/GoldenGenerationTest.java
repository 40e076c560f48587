package io.gatun.generate;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.generate.LanguageModel.Options;
import io.gatun.models.Forward;
import io.gatun.models.GoldenCase;
import io.gatun.models.KvCache;
import io.gatun.models.ModelLoader;
import io.gatun.models.TestDevice;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import java.util.Arrays;
import java.util.List;
import java.util.stream.Stream;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/// Does generation choose the ids that transformers chose, and is a step with the key/value cache the same as the whole
/// sequence anew?
@Tag("device")
class GoldenGenerationTest {
    private static final int STEPS = 24;

    static Stream<GoldenCase> cases() {
        return Stream.of(GoldenCase.GPT2, GoldenCase.LLAMA);
    }

    @ParameterizedTest
    @MethodSource("cases")
    void generate_greedyIds(GoldenCase golden) {
        int[][] prompts = golden.prompts();
        int[][] expected = golden.ids("greedy_tokens");
        GenerationConfig config = GenerationConfig.builder().maxNewTokens(STEPS).ignoreEos(true).build();
        try (LanguageModel model = Small.load(golden.model())) {
            for (int b = 0; b < prompts.length; b++) {
                GenerationResult result = model.generate(prompts[b], config);
                assertArrayEquals(expected[b], result.ids(), golden + " row " + b);
                assertEquals(prompts[b].length, result.promptTokens());
                assertEquals(FinishReason.LENGTH, result.finishReason());
                assertEquals(STEPS - 1, result.timings().steps());
            }
            List<GenerationResult> together = model.generateAll(List.of(prompts), config);
            for (int b = 0; b < prompts.length; b++) {
                assertArrayEquals(expected[b], together.get(b).ids(), golden + " row " + b + " of a batch");
            }
        }
    }

    /// The logits of every step, against the recorded ones and against the whole sequence without a past.
    @ParameterizedTest
    @MethodSource("cases")
    void step_logitsEqualFullForward(GoldenCase golden) {
        int[][] prompts = golden.prompts();
        int[][] expectedIds = golden.ids("greedy_tokens");
        float[] recorded = golden.floats("greedy_step_logits");
        int b = prompts.length;
        int v = recorded.length / (b * STEPS);
        GenerationConfig config = GenerationConfig.greedy();
        try (Device device = Device.open(TestDevice.NAME, new Device.Options(2));
                io.gatun.runtime.Stream stream = device.newStream();
                ModelLoader.Result model = ModelLoader.load(device, stream, golden.model(), DType.F32, n -> {});
                KvCache cache = new KvCache(device, model.network().config(), 8);
                DecodeState state = new DecodeState(device, stream, model.network(), cache, b)) {
            for (int slot = 0; slot < b; slot++) {
                int length = prompts[slot].length + STEPS;
                model.network().reserve(stream, length);
                state.prefill(slot, new Sequence(slot, prompts[slot], (id, logprob) -> false,
                        cache.allocate(KvCache.pagesFor(length)), STEPS), config);
            }
            int[] ids = new int[b];
            for (int step = 0; step < STEPS; step++) {
                if (step > 0) {
                    state.forward(b);
                }
                float[] logits = state.downloadLogits(b);
                for (int slot = 0; slot < b; slot++) {
                    String what = "%s row %d step %d".formatted(golden, slot, step);
                    float[] actual = Arrays.copyOfRange(logits, slot * v, (slot + 1) * v);
                    int at = (slot * STEPS + step) * v;
                    assertClose(what + " recorded", Arrays.copyOfRange(recorded, at, at + v), actual,
                            golden.tolerance());
                    if (step % 6 == 5) {
                        int n = prompts[slot].length;
                        int[] extended = Arrays.copyOf(prompts[slot], n + step);
                        System.arraycopy(expectedIds[slot], 0, extended, n, step);
                        float[] whole = Forward.logits(golden.model(), extended);
                        assertClose(what + " whole", Arrays.copyOfRange(whole, whole.length - v, whole.length), actual,
                                golden.tolerance());
                    }
                }
                state.choose(b);
                state.readRecord(ids, b);
                for (int slot = 0; slot < b; slot++) {
                    assertEquals(expectedIds[slot][step], ids[slot]);
                }
            }
        }
    }

    /// Up to the last position that the model has: the last id is chosen but never run.
    @ParameterizedTest
    @MethodSource("cases")
    void generate_untilContextIsFull(GoldenCase golden) {
        try (LanguageModel model = Small.load(golden.model())) {
            int context = model.config().contextLength();
            int[] prompt = new int[context - 3];
            for (int i = 0; i < prompt.length; i++) {
                prompt[i] = (i * 7 + 3) % 250;
            }
            GenerationConfig config = GenerationConfig.builder().maxNewTokens(50).ignoreEos(true).build();
            GenerationResult result = model.generate(prompt, config);
            assertEquals(4, result.ids().length);
            assertEquals(FinishReason.LENGTH, result.finishReason());
            int[] full = Arrays.copyOf(prompt, context);
            System.arraycopy(result.ids(), 0, full, prompt.length, 3);
            float[] logits = Forward.logits(golden.model(), full);
            int v = model.config().vocabSize();
            float[] last = Arrays.copyOfRange(logits, logits.length - v, logits.length);
            float best = last[result.ids()[3]];
            for (float other : last) {
                assertTrue(best >= other - 2 * golden.tolerance(), "not the largest logit");
            }
            assertEquals(1, model.generate(full, config).ids().length);
        }
    }

    private static void assertClose(String what, float[] expected, float[] actual, double tolerance) {
        for (int i = 0; i < expected.length; i++) {
            int at = i;
            assertTrue(Math.abs(expected[i] - actual[i]) <= tolerance, () -> "%s: [%d] expected %s, actual %s"
                    .formatted(what, at, expected[at], actual[at]));
        }
    }
}
