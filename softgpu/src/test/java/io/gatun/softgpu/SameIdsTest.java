package io.gatun.softgpu;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.generate.LanguageModel;
import io.gatun.models.FullForward;
import io.gatun.models.ModelLoader;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.Stream;
import java.util.Arrays;
import org.junit.jupiter.api.TestReporter;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/// Do the CPU and the CUDA path choose the same ids wherever the decision is clearer than rounding?
class SameIdsTest extends SoftGpuTest {
    private static final int TOKENS = 24;
    /// Far above what f32 sums of these sizes differ by.
    private static final float ROUNDING = 1e-4f;

    @ParameterizedTest
    @EnumSource
    void generate_asOnTheCpu(Models golden, TestReporter reporter) {
        int[] onCpu;
        int[] onCuda;
        try (LanguageModel model = golden.load("cpu", 1)) {
            onCpu = model.generate(Models.PROMPT, Models.greedy(TOKENS)).ids();
        }
        try (LanguageModel model = golden.load(1)) {
            onCuda = model.generate(Models.PROMPT, Models.greedy(TOKENS)).ids();
        }
        float[] margins = margins(golden, onCpu);
        float smallest = Float.POSITIVE_INFINITY;
        int compared = 0;
        while (compared < TOKENS && margins[compared] > ROUNDING) {
            assertEquals(onCpu[compared], onCuda[compared], golden + " token " + compared);
            smallest = Math.min(smallest, margins[compared++]);
        }
        reporter.publishEntry("%s: %d of %d ids compared, smallest margin %.4g".formatted(golden, compared, TOKENS,
                smallest));
        assertTrue(compared > TOKENS / 2, "a decision is closer than rounding after " + compared + " tokens");
    }

    /// By how much the best logit exceeds the second best at each new token, on the CPU.
    private static float[] margins(Models golden, int[] ids) {
        int[] all = Arrays.copyOf(Models.PROMPT, Models.PROMPT.length + ids.length);
        System.arraycopy(ids, 0, all, Models.PROMPT.length, ids.length);
        try (Device device = Device.open("cpu"); Stream stream = device.newStream();
                ModelLoader.Result model = ModelLoader.load(device, stream, golden.directory(), DType.F32, n -> {})) {
            float[] logits = FullForward.run(device, stream, model.network(), all).get("logits");
            int v = model.network().config().vocabSize();
            float[] margins = new float[ids.length];
            for (int i = 0; i < ids.length; i++) {
                int row = Models.PROMPT.length - 1 + i;
                float[] sorted = Arrays.copyOfRange(logits, row * v, (row + 1) * v);
                Arrays.sort(sorted);
                margins[i] = sorted[v - 1] - sorted[v - 2];
            }
            return margins;
        }
    }
}
