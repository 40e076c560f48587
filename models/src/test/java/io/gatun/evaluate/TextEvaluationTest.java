package io.gatun.evaluate;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import io.gatun.models.FullForward;
import io.gatun.models.GoldenCase;
import io.gatun.models.ModelLoader;
import io.gatun.models.TestDevice;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.GatunException;
import io.gatun.runtime.Stream;
import java.util.Arrays;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;

/// Are the nats of a text the sum over its tokens, each given those before it in its window?
@Tag("device")
class TextEvaluationTest {
    @Test
    void of_sumsOverWindows() {
        int[] ids = new int[23];
        Arrays.setAll(ids, i -> 3 + 7 * i % 50);
        try (Device device = Device.open(TestDevice.NAME); Stream stream = device.newStream();
                ModelLoader.Result model = ModelLoader.load(device, stream, GoldenCase.GPT2.model(), DType.F32,
                        count -> {})) {
            for (int length : new int[] {5, 11, 22, 30}) { // the last window shorter, whole, the only one, too long
                double expected = 0;
                for (int from = 0; from < ids.length - 1; from += length) {
                    int to = Math.min(from + length, ids.length - 1);
                    float[] logits = FullForward.run(device, stream, model.network(), Arrays.copyOfRange(ids, from, to))
                            .get("logits");
                    int v = logits.length / (to - from);
                    for (int i = from; i < to; i++) {
                        expected -= logProbability(logits, (i - from) * v, v, ids[i + 1]);
                    }
                }
                TextEvaluation.Result result = TextEvaluation.of(device, stream, model.network(), ids, length,
                        (done, all) -> {});
                assertEquals(expected, result.nats(), expected * 1e-5, "length " + length);
                assertEquals(22, result.predicted());
                assertEquals(Math.exp(result.nats() / 22), result.perplexity(), 1e-9);
                assertEquals(result.nats() / 22 * 23 / 46 / Math.log(2), result.bitsPerByte(23, 46), 1e-9);
            }
            assertThrows(GatunException.class, () -> TextEvaluation.of(device, stream, model.network(),
                    new int[] {1}, 5, (done, all) -> {}));
            assertThrows(GatunException.class, () -> TextEvaluation.of(device, stream, model.network(),
                    new int[] {1, 1 << 20}, 5, (done, all) -> {}));
            assertThrows(GatunException.class, () -> TextEvaluation.of(device, stream, model.network(), ids, 1 << 20,
                    (done, all) -> {}));
        }
    }

    private static double logProbability(float[] logits, int at, int v, int id) {
        double sum = 0;
        for (int k = 0; k < v; k++) {
            sum += Math.exp(logits[at + k]);
        }
        return logits[at + id] - Math.log(sum);
    }
}
