package io.gatun.train;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;

import com.fasterxml.jackson.databind.JsonNode;
import io.gatun.io.Checkpoint;
import io.gatun.io.SafetensorsFile;
import io.gatun.models.CausalModel;
import io.gatun.models.ConfigFile;
import io.gatun.models.GoldenCase;
import io.gatun.models.LanguageFamily;
import io.gatun.models.TestDevice;
import io.gatun.models.WeightLoader;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.Tensor;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;

/// Does a GPT-2 that is trained here go the way that torch's went, step by step?
@Tag("device")
class Gpt2TrainingTest {
    private static final GoldenCase GOLDEN = new GoldenCase("train/gpt2_adamw");

    @Test
    void train_lossesGradientsAndWeights() {
        Run run = train(1, false, 0);
        JsonNode tolerance = GoldenCase.json(GOLDEN.directory().resolve("case.json")).required("tolerance");
        float[] losses = GOLDEN.floats("losses");
        float[] norms = GOLDEN.floats("grad_norms");
        for (int i = 0; i < losses.length; i++) {
            assertEquals(losses[i], run.losses[i], Math.abs(losses[i]) * 1e-4, "loss of step " + i);
            assertEquals(norms[i], run.norms[i], norms[i] * 1e-3, "gradient norm of step " + i);
        }
        run.firstGradients.forEach((name, gradient) ->
                assertArrayEquals(GOLDEN.floats("grad0." + name), gradient, 2e-5f, "gradient of " + name));
        run.weights.forEach((name, weights) -> assertArrayEquals(GOLDEN.floats("final." + name), weights,
                (float) tolerance.required("weights_hint").required(name).asDouble(), name));
        assertEquals(28, run.weights.size());
    }

    /// Values inside blocks are computed again: the same bits, those that dropout drops included.
    @Test
    void train_recomputed() {
        Run kept = train(1, false, 0.1f);
        Run again = train(1, true, 0.1f);
        kept.weights.forEach((name, weights) -> assertArrayEquals(weights, again.weights.get(name), name));
        assertArrayEquals(kept.losses, again.losses);
        assertFalse(Arrays.equals(kept.losses, train(1, false, 0).losses), "dropout drops nothing");
    }

    /// The mean gradient of the same batch twice is its gradient.
    @Test
    void train_accumulated() {
        Run twice = train(2, false, 0);
        float[] losses = GOLDEN.floats("losses");
        for (int i = 0; i < losses.length; i++) {
            assertEquals(losses[i], twice.losses[i], Math.abs(losses[i]) * 1e-4, "loss of step " + i);
        }
        float[] last = GOLDEN.floats("final.transformer.h.1.mlp.c_fc.weight");
        assertArrayEquals(last, twice.weights.get("transformer.h.1.mlp.c_fc.weight"), 1e-5f);
    }

    private record Run(float[] losses, float[] norms, Map<String, float[]> firstGradients,
            Map<String, float[]> weights) {}

    private static Run train(int accumulation, boolean recomputes, float dropout) {
        ConfigFile config = ConfigFile.read(GOLDEN.model().resolve("config.json"));
        long[] shape = GOLDEN.shape("ids");
        int steps = (int) shape[0];
        int b = (int) shape[1];
        int t = (int) shape[2];
        long[] ids = GOLDEN.longs("ids");
        Map<String, float[]> initial = new HashMap<>();
        try (Device device = Device.open(TestDevice.NAME)) {
            List<Parameters.Shape> shapes = Parameters.of(device, LanguageFamily.GPT2.prefix(),
                    loader -> LanguageFamily.GPT2.declare(config, loader));
            try (SafetensorsFile file = SafetensorsFile.open(GOLDEN.model().resolve("model.safetensors"))) {
                for (Parameters.Shape parameter : shapes) {
                    initial.put(parameter.name(), file.floats(parameter.name()));
                }
            }
            try (Trainer trainer = new Trainer(device, shapes, new UpdateRule.Adam(0.9f, 0.95f, 1e-8f, 0.1f, true),
                    GOLDEN.floats("lr"), new Trainer.Options(DType.F32, 1, accumulation, 0, recomputes, dropout, 7))) {
                trainer.set(initial);
                CausalModel model = LanguageFamily.GPT2.build(config, DType.F32, WeightLoader.trained(
                        trainer.parameters().weights(), trainer.arena(), trainer.stream(), DType.F32,
                        LanguageFamily.GPT2.prefixes()), trainer.arena());
                LanguageLoss loss = new LanguageLoss(trainer, b, t);
                trainer.loss(net -> loss.of(net, model));
                Run run = new Run(new float[steps], new float[steps], new HashMap<>(), new HashMap<>());
                for (int step = 0; step < steps; step++) {
                    loss.setBatch(trainer.stream(), Arrays.copyOfRange(ids, step * b * t, (step + 1) * b * t));
                    for (int pass = 0; pass < accumulation; pass++) {
                        assertEquals(pass == accumulation - 1, trainer.step(), "updated");
                    }
                    run.losses[step] = trainer.result().loss();
                    run.norms[step] = trainer.result().norm();
                    if (step == 0) {
                        trainer.parameters().all().forEach(p -> run.firstGradients.put(p.name(),
                                p.gradient().toFloats(trainer.stream())));
                    }
                }
                trainer.parameters().all().forEach(p -> run.weights.put(p.name(),
                        p.master().toFloats(trainer.stream())));
                return run;
            }
        }
    }
}
