package io.gatun.models;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.runtime.DType;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.stream.Stream;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.MethodSource;

/// Do GPT-2 and Llama compute what Hugging Face transformers computes, layer by layer?
@Tag("device")
class GoldenForwardTest {
    static Stream<GoldenCase> cases() {
        return Stream.of(GoldenCase.GPT2, GoldenCase.LLAMA);
    }

    @ParameterizedTest
    @MethodSource("cases")
    void forward_f32(GoldenCase golden) {
        int[][] prompts = golden.prompts();
        for (int b = 0; b < prompts.length; b++) {
            Map<String, float[]> outputs = Forward.run(golden.model(), DType.F32, prompts[b]);
            for (String name : List.of("hidden.0_embeddings", "hidden.1_block0_out", "hidden.2_block1_out",
                    "hidden.3_block2_out", "hidden.4_block3_out", "hidden.final_norm", "logits")) {
                float[] expected = row(golden.floats(name), b, prompts.length);
                assertClose(golden + " row " + b + " " + name, expected, outputs.get(name), golden.tolerance());
            }
            assertEquals(7, outputs.size(), "outputs " + outputs.keySet());
        }
    }

    /// The limit is twice the error that torch makes in the same dtype, and the choice agrees where the margin is
    /// larger than both errors together.
    @ParameterizedTest
    @CsvSource({"gpt2/gpt2_tiny, BF16, 0.14941, 13", "gpt2/gpt2_tiny, F16, 0.014256, 30",
        "llama/llama_tiny_llama3rope, BF16, 0.71459, 0", "llama/llama_tiny_llama3rope, F16, 0.044634, 25"})
    void forward_halfPrecision(String name, DType dtype, double torchError, int leastDecided) {
        GoldenCase golden = new GoldenCase(name);
        int[][] prompts = golden.prompts();
        int decided = 0;
        for (int b = 0; b < prompts.length; b++) {
            float[] expected = row(golden.floats("logits"), b, prompts.length);
            float[] actual = Forward.run(golden.model(), dtype, prompts[b]).get("logits");
            assertClose(golden + " " + dtype + " row " + b, expected, actual, 2 * torchError);
            int v = expected.length / prompts[b].length;
            for (int t = 0; t < prompts[b].length; t++) {
                float[] reference = Arrays.copyOfRange(expected, t * v, (t + 1) * v);
                float[] sorted = reference.clone();
                Arrays.sort(sorted);
                if (sorted[v - 1] - sorted[v - 2] > 4 * torchError) {
                    decided++;
                    assertEquals(argmax(reference), argmax(Arrays.copyOfRange(actual, t * v, (t + 1) * v)),
                            golden + " " + dtype + " row " + b + " position " + t);
                }
            }
        }
        assertTrue(decided >= leastDecided, "only " + decided + " choices were decided");
    }

    /// Causal: what comes later does not change what came before. Lengths on both sides of every switch of kernels.
    @Test
    void forward_prefixesAgree() {
        for (GoldenCase golden : cases().toList()) {
            int[] whole = golden.prompts()[0];
            float[] all = Forward.logits(golden.model(), whole);
            int v = all.length / whole.length;
            for (int length : new int[] {1, 2, 3, 15, 16, 17}) {
                float[] prefix = Forward.logits(golden.model(), Arrays.copyOf(whole, length));
                assertClose(golden + " length " + length, Arrays.copyOf(all, length * v), prefix, golden.tolerance());
            }
        }
    }

    static float[] row(float[] values, int row, int rows) {
        int n = values.length / rows;
        return Arrays.copyOfRange(values, row * n, (row + 1) * n);
    }

    static int argmax(float[] values) {
        int best = 0;
        for (int i = 1; i < values.length; i++) {
            best = values[i] > values[best] ? i : best;
        }
        return best;
    }

    static void assertClose(String what, float[] expected, float[] actual, double tolerance) {
        assertEquals(expected.length, actual.length, what);
        for (int i = 0; i < expected.length; i++) {
            float e = expected[i];
            float a = actual[i];
            assertTrue(Math.abs(e - a) <= tolerance,
                    () -> "%s: expected %s, actual %s, tolerance %s".formatted(what, e, a, tolerance));
        }
    }
}
