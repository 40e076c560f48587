package io.gatun.generate;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.models.GoldenCase;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Set;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/// Do the host's logits processors keep exactly the ids that transformers keeps, with the same logits? The recorded
/// epsilon and eta cutoffs are not offered here.
@Tag("device")
class GoldenProcessorsTest {
    private static final GoldenCase CASE = new GoldenCase("sampling/processors");

    @ParameterizedTest
    @ValueSource(strings = {"temperature_0.7", "temperature_1.3", "top_k_1", "top_k_5", "top_k_40", "top_p_0.5",
        "top_p_0.9", "min_p_0.05", "min_p_0.2", "typical_p_0.2", "typical_p_0.9", "repetition_penalty_1.3",
        "no_repeat_ngram_2", "no_repeat_ngram_3", "presence_0.6_frequency_0.3", "chain"})
    void process_likeTransformers(String name) {
        float[] logits = CASE.floats("logits." + name);
        float[] expected = CASE.floats("expected." + name);
        int[][] ids = CASE.ids("ids." + name);
        int v = logits.length / ids.length;
        for (int b = 0; b < ids.length; b++) {
            float[] row = Arrays.copyOfRange(logits, b * v, (b + 1) * v);
            LogitsProcessors.process(row, past(ids[b], name.startsWith("presence")), config(name), Set.of());
            for (int id = 0; id < v; id++) {
                float e = expected[b * v + id];
                String what = "%s row %d id %d".formatted(name, b, id);
                assertEquals(Float.isFinite(e), Float.isFinite(row[id]), what + " kept");
                assertTrue(e == row[id] || Math.abs(e - row[id]) <= CASE.tolerance(),
                        what + ": expected " + e + ", actual " + row[id]);
            }
        }
    }

    /// With the end token forbidden until enough ids are there, and forced at the end.
    @Test
    void process_endTokens() {
        GenerationConfig config = GenerationConfig.builder().minNewTokens(2).forcedEos(4).build();
        Sequence sequence = new Sequence(0, new int[] {1}, (id, logprob) -> false, new int[0], 4);
        for (int generated = 0; generated < 4; generated++) {
            float[] row = {0, 1, 2, 3, 4, 5};
            LogitsProcessors.process(row, sequence, config, Set.of(2, 5));
            List<Integer> kept = new ArrayList<>();
            for (int id = 0; id < row.length; id++) {
                if (Float.isFinite(row[id])) {
                    kept.add(id);
                }
            }
            assertEquals(generated < 2 ? List.of(0, 1, 3, 4) : generated < 3 ? List.of(0, 1, 2, 3, 4, 5) : List.of(4),
                    kept, "after " + generated);
            sequence.append(0);
        }
    }

    /// A model may have an end token that its vocabulary does not hold.
    @Test
    void process_endTokenOutOfRange() {
        float[] row = {0, 1, 2};
        LogitsProcessors.process(row, past(new int[] {1}, false), GenerationConfig.builder().minNewTokens(2).build(),
                Set.of(-1, 2, 3));
        assertEquals(Arrays.toString(new float[] {0, 1, Float.NEGATIVE_INFINITY}), Arrays.toString(row));
    }

    @Test
    void process_badWords() {
        GenerationConfig config = GenerationConfig.builder()
                .badWords(List.of(new int[] {0}, new int[] {3, 1}, new int[] {9, 9, 9, 2})).build();
        float[] row = {0, 1, 2, 3};
        LogitsProcessors.process(row, past(new int[] {2, 3}, false), config, Set.of());
        assertEquals("[-Infinity, -Infinity, 2.0, 3.0]", Arrays.toString(row));
        float[] other = {0, 1, 2, 3};
        LogitsProcessors.process(other, past(new int[] {3, 2}, false), config, Set.of());
        assertEquals("[-Infinity, 1.0, 2.0, 3.0]", Arrays.toString(other));
    }

    @Test
    void logprob_bestFirst() {
        double[] logp = LogitsProcessors.logSoftmax(new float[] {1, 3, 2, 1000});
        TokenLogprob logprob = LogitsProcessors.logprob(logp, 0, 3);
        assertEquals(-999, logprob.logprob(), 1e-3);
        assertEquals(List.of(3, 1, 2), logprob.top().stream().map(TokenLogprob.Alternative::id).toList());
        assertEquals(0, logprob.top().getFirst().logprob(), 1e-9);
    }

    private static Sequence past(int[] ids, boolean isOutput) {
        int[] prompt = isOutput ? new int[0] : ids;
        Sequence sequence = new Sequence(0, prompt, (id, logprob) -> false, new int[0], 100);
        for (int i = prompt.length; i < ids.length; i++) {
            sequence.append(ids[i]);
        }
        return sequence;
    }

    private static GenerationConfig config(String name) {
        GenerationConfig.Builder config = GenerationConfig.builder().temperature(1);
        if (name.equals("chain")) {
            return config.repetitionPenalty(1.2f).noRepeatNgramSize(2).temperature(0.8f).topK(20).topP(0.85f)
                    .minP(0.02f).build();
        }
        float value = Float.parseFloat(name.substring(name.lastIndexOf('_') + 1));
        return switch (name.substring(0, name.lastIndexOf('_'))) {
            case "temperature" -> config.temperature(value).build();
            case "top_k" -> config.topK((int) value).build();
            case "top_p" -> config.topP(value).build();
            case "min_p" -> config.minP(value).build();
            case "typical_p" -> config.typicalP(value).build();
            case "repetition_penalty" -> config.repetitionPenalty(value).build();
            case "no_repeat_ngram" -> config.noRepeatNgramSize((int) value).build();
            default -> config.presencePenalty(0.6f).frequencyPenalty(0.3f).build();
        };
    }
}
