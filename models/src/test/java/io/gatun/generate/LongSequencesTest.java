package io.gatun.generate;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;

import com.fasterxml.jackson.databind.node.ObjectNode;
import io.gatun.models.Forward;
import io.gatun.models.GoldenCase;
import io.gatun.models.ModelDirectory;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/// Are sequences right that are longer than a pass, and longer than what a model was trained with?
///
/// The ids are transformers' (5.18, float64): the Llama case's weights with other `rope_parameters`, greedy, prompt
/// `[(7 i + 3) % 250 for i in range(n)]`, a fresh model for each prompt (transformers' dynamic frequencies remember the
/// longest sequence). The smallest margins between the two best logits are 0.017 (dynamic), 0.022 (yarn), 0.0037
/// (linear).
@Tag("device")
class LongSequencesTest {
    @TempDir
    private Path directory;

    private final ModelDirectory llama = ModelDirectory.of(GoldenCase.LLAMA);

    private static int[] prompt(int length) {
        return IntStream.range(0, length).map(i -> (7 * i + 3) % 250).toArray();
    }

    private LanguageModel load(String ropeType, double factor, int context) {
        ObjectNode rope = llama.config().putObject("rope_parameters");
        rope.put("rope_type", ropeType).put("rope_theta", 10000.0).put("factor", factor);
        if (ropeType.equals("yarn")) {
            rope.put("original_max_position_embeddings", 16);
        }
        llama.config().put("max_position_embeddings", context);
        return Small.load(llama.write(directory), 2);
    }

    private static void assertContinues(LanguageModel model, int promptLength, int... expected) {
        GenerationConfig config = GenerationConfig.builder().maxNewTokens(expected.length).ignoreEos(true).build();
        assertArrayEquals(expected, model.generate(prompt(promptLength), config).ids());
        List<GenerationResult> together = model.generateAll(List.of(prompt(3), prompt(promptLength)), config);
        assertArrayEquals(expected, together.get(1).ids(), "in a batch");
    }

    /// Decoding across the trained context, and a prompt that lies beyond it from the start.
    @Test
    void generate_dynamicRope() {
        try (LanguageModel model = load("dynamic", 4, 24)) {
            assertEquals(96, model.config().contextLength());
            assertContinues(model, 20, 24, 31, 39, 162, 89, 62, 238, 238, 234, 147, 1, 84, 170, 158, 149, 167, 86, 90,
                    56, 197, 83, 87, 33, 210);
            assertContinues(model, 40, 58, 96, 256, 167, 87, 29, 255, 100, 60, 24, 37, 28, 35, 121, 30, 14, 72, 53, 189,
                    108, 254, 120, 96, 197);
            assertContinues(model, 20, 24, 31, 39, 162, 89, 62, 238, 238, 234, 147, 1, 84, 170, 158, 149, 167, 86, 90,
                    56, 197, 83, 87, 33, 210);
        }
    }

    @Test
    void generate_yarnRope() {
        try (LanguageModel model = load("yarn", 4, 96)) {
            assertContinues(model, 20, 162, 162, 162, 162, 152, 179, 99, 238, 234, 198, 158, 256, 73, 84, 62, 141, 14,
                    256, 21, 167, 115, 65, 104, 243);
            assertContinues(model, 40, 147, 126, 4, 37, 71, 159, 3, 84, 72, 199, 208, 58, 75, 189, 141, 141, 102, 23,
                    37, 84, 120, 236, 37, 60);
        }
    }

    @Test
    void generate_linearRope() {
        try (LanguageModel model = load("linear", 2.5, 96)) {
            assertContinues(model, 20, 28, 100, 100, 100, 124, 173, 141, 141, 141, 141, 141, 141, 141, 9, 146, 85, 167,
                    242, 89, 71, 58, 177, 85, 36);
            assertContinues(model, 40, 17, 87, 173, 72, 147, 51, 128, 147, 52, 68, 98, 14, 61, 169, 174, 37, 49, 41, 68,
                    198, 35, 111, 72, 147);
        }
    }

    /// A prompt is run in passes of 512 rows: with one row over, with none, and with several passes.
    @ParameterizedTest
    @ValueSource(ints = {511, 512, 513, 1100})
    void prefill_severalPasses(int length) {
        llama.config().put("max_position_embeddings", 1200);
        Path written = llama.write(directory);
        try (LanguageModel model = Small.load(written, 1)) {
            GenerationResult result = model.generate(prompt(length),
                    GenerationConfig.builder().maxNewTokens(2).ignoreEos(true).logprobs(0).build());
            int[] whole = Arrays.copyOf(prompt(length), length + 1);
            whole[length] = result.ids()[0];
            float[] logits = Forward.logits(written, whole);
            int v = model.config().vocabSize();
            for (int i = 0; i < 2; i++) {
                double[] expected = LogitsProcessors.logSoftmax(
                        Arrays.copyOfRange(logits, (length - 1 + i) * v, (length + i) * v));
                assertEquals(expected[result.ids()[i]], result.logprobs().get(i).logprob(), 1e-4);
            }
        }
    }
}
