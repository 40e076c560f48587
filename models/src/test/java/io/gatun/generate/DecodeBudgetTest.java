package io.gatun.generate;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.models.GoldenCase;
import io.gatun.runtime.TransferCounters.Snapshot;
import java.util.ArrayList;
import java.util.List;
import java.util.stream.Stream;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/// Does a decode step move 4 bytes per sequence to the host, and nothing else? Counted by the device, by taking the
/// difference between a short and a long generation.
@Tag("device")
class DecodeBudgetTest {
    private static final int SHORT = 5;
    private static final int LONG = 30;

    static Stream<GoldenCase> cases() {
        return Stream.of(GoldenCase.GPT2, GoldenCase.LLAMA);
    }

    @ParameterizedTest
    @MethodSource("cases")
    void step_copiesOnlyIds(GoldenCase golden) {
        try (LanguageModel model = Small.load(golden.model(), 8)) {
            for (int b : new int[] {1, 3, 8}) {
                for (float temperature : new float[] {0, 0.8f}) {
                    generate(model, b, LONG, temperature); // makes the plan for this batch size
                    Snapshot few = generate(model, b, SHORT, temperature);
                    Snapshot many = generate(model, b, LONG, temperature);
                    String what = "%s batch %d".formatted(golden, b);
                    assertEquals(4L * b * (LONG - SHORT), many.deviceToHost() - few.deviceToHost(), what);
                    assertEquals(0, many.hostToDevice() - few.hostToDevice(), what + " to the device");
                    assertEquals(0, many.allocations(), what + " allocations");
                    assertEquals(0, many.allocatedBytes(), what + " bytes allocated");
                    assertEquals(0, many.conversions(), what + " conversions");
                    assertTrue(many.launches() > few.launches(), what);
                }
            }
        }
    }

    /// With processing on the host the logits go there and back, and that is counted.
    @ParameterizedTest
    @MethodSource("cases")
    void step_hostProcessingIsCounted(GoldenCase golden) {
        try (LanguageModel model = Small.load(golden.model(), 2)) {
            long vocab = 4L * model.config().vocabSize();
            GenerationConfig.Builder config = GenerationConfig.builder().ignoreEos(true).noRepeatNgramSize(4);
            List<int[]> prompts = List.of(new int[] {1, 2}, new int[] {3});
            model.generateAll(prompts, config.maxNewTokens(LONG).build());
            Snapshot start = model.counters();
            model.generateAll(prompts, config.maxNewTokens(SHORT).build());
            Snapshot middle = model.counters();
            model.generateAll(prompts, config.maxNewTokens(LONG).build());
            Snapshot few = middle.since(start);
            Snapshot many = model.counters().since(middle);
            assertEquals(2 * (4 + vocab) * (LONG - SHORT), many.deviceToHost() - few.deviceToHost());
            assertEquals(2 * vocab * (LONG - SHORT), many.hostToDevice() - few.hostToDevice());
            assertEquals(0, many.allocations());
        }
    }

    private static Snapshot generate(LanguageModel model, int b, int maxNewTokens, float temperature) {
        List<int[]> prompts = new ArrayList<>();
        for (int i = 0; i < b; i++) {
            prompts.add(new int[] {1 + i, 2, 3});
        }
        Snapshot before = model.counters();
        model.generateAll(prompts, GenerationConfig.builder().maxNewTokens(maxNewTokens).ignoreEos(true)
                .temperature(temperature).build());
        return model.counters().since(before);
    }
}
