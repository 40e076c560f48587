package io.gatun.ops;

import io.gatun.ops.cases.SamplingCases.Params;
import io.gatun.runtime.DType;
import io.gatun.runtime.Tensor;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/// Do the penalties and filters keep exactly the ids that Hugging Face transformers keeps, with the same logits? The
/// recorded processors that have no kernel (typical-p, epsilon, eta, no-repeat-ngram and the chain that contains it)
/// are not run.
@Tag("device")
class GoldenSamplingTest {
    @ParameterizedTest
    @ValueSource(strings = {"temperature_0.7", "temperature_1.3", "top_k_1", "top_k_5", "top_k_40", "top_p_0.5",
        "top_p_0.9", "min_p_0.05", "min_p_0.2", "repetition_penalty_1.3", "presence_0.6_frequency_0.3"})
    void processLogits(String processor) {
        try (Golden golden = new Golden("sampling/processors")) {
            Tensor logits = golden.floats("logits." + processor);
            long b = logits.size(0);
            long[] ids = golden.file().longs("ids." + processor);
            long length = ids.length / b;
            // the penalties of the last processor are for generated ids only
            long prompt = processor.startsWith("presence") ? 0 : length;
            Params params = params(processor);
            try (var arena = logits.device().newArena("params")) {
                Tensor rows = arena.allocate(DType.F32, b, Sampling.FIELDS);
                double[] values = Params.rows(params, params);
                float[] settings = new float[values.length];
                for (int i = 0; i < settings.length; i++) {
                    settings[i] = (float) values[i];
                }
                rows.copyFrom(golden.stream(), settings);
                Sampling.processLogits(golden.stream(), logits, golden.ints(ids, b, length),
                        golden.ints(new long[] {length, length}, b), golden.ints(new long[] {prompt, prompt}, b), rows);
            }
            golden.check("expected." + processor, logits);
        }
    }

    private static Params params(String processor) {
        double value = Double.parseDouble(processor.substring(processor.lastIndexOf('_') + 1));
        return switch (processor.substring(0, processor.indexOf('_'))) {
            case "temperature" -> Params.temperature(value);
            case "top" -> processor.startsWith("top_k") ? Params.topK((int) value) : Params.topP(value);
            case "min" -> Params.minP(value);
            case "repetition" -> Params.repetition(value);
            default -> new Params(1, 0, 1, 0, 1, 0.6, 0.3);
        };
    }
}
