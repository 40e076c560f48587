package io.gatun.train;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;

import com.fasterxml.jackson.databind.JsonNode;
import io.gatun.io.SafetensorsFile;
import io.gatun.models.GoldenCase;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/// A training that torch did: what it began with, the loss of every step, and the weights at its end.
///
/// @param file of the weights that it began with
record GoldenTraining(GoldenCase golden, String file) {
    private static final double LOSS_TOLERANCE = 1e-4;

    int steps() {
        return golden.floats("losses").length;
    }

    /// A learning rate for each step.
    float[] rates(double rate) {
        float[] rates = new float[steps()];
        Arrays.fill(rates, (float) rate);
        return rates;
    }

    Map<String, float[]> initial(List<Parameters.Shape> shapes) {
        Map<String, float[]> values = new HashMap<>();
        try (SafetensorsFile weights = SafetensorsFile.open(golden.model().resolve(file))) {
            shapes.forEach(shape -> values.put(shape.name(), weights.floats(shape.name())));
            assertEquals(weights.names().size(), shapes.size(), "every weight is a parameter");
        }
        return values;
    }

    /// The pictures of a step, each [C, H, W].
    float[] images(int step) {
        float[] all = golden.floats("images");
        int length = (int) (all.length / golden.shape("images")[0]);
        int batch = (int) golden.shape("batch_index")[1];
        long[] chosen = golden.longs("batch_index");
        float[] images = new float[batch * length];
        for (int i = 0; i < batch; i++) {
            System.arraycopy(all, (int) chosen[step * batch + i] * length, images, i * length, length);
        }
        return images;
    }

    /// Part `step` of a tensor that has one for each.
    float[] ofStep(String tensor, int step) {
        return ofStep(tensor, step, steps());
    }

    /// As [#ofStep(String, int)], of so many steps.
    float[] ofStep(String tensor, int step, int steps) {
        float[] all = golden.floats(tensor);
        int length = all.length / steps;
        return Arrays.copyOfRange(all, step * length, (step + 1) * length);
    }

    /// [B, C, H, W] as [B, H, W, C].
    static float[] channelsLast(float[] x, int channels, int pixels) {
        float[] y = new float[x.length];
        for (int i = 0; i < x.length; i++) {
            int image = i / (channels * pixels);
            int channel = i / pixels % channels;
            y[(image * pixels + i % pixels) * channels + channel] = x[i];
        }
        return y;
    }

    void check(float[] losses, Trainer trainer) {
        float[] expected = golden.floats("losses");
        for (int i = 0; i < expected.length; i++) {
            assertEquals(expected[i], losses[i], Math.abs(expected[i]) * LOSS_TOLERANCE, "loss of step " + i);
        }
        JsonNode hints = GoldenCase.json(golden.directory().resolve("case.json")).required("tolerance")
                .required("weights_hint");
        for (Parameters.Parameter p : trainer.parameters().all()) {
            assertArrayEquals(golden.floats("final." + p.name()), p.master().toFloats(trainer.stream()),
                    (float) hints.required(p.name()).asDouble(), p.name());
        }
    }
}
