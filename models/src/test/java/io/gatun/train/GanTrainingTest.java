package io.gatun.train;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;

import com.fasterxml.jackson.databind.JsonNode;
import io.gatun.io.SafetensorsFile;
import io.gatun.models.GoldenCase;
import io.gatun.models.Layers;
import io.gatun.models.TestDevice;
import io.gatun.models.gan.DcganConfig;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.Plan;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;

/// Does each kind of GAN that is trained here go the way that torch's went, step by step?
@Tag("device")
class GanTrainingTest {
    private static final double LOSS_TOLERANCE = 1e-4;
    private static final int LATENTS = 16;
    private static final int IMAGE_SIZE = 16;
    private static final Trainer.Options OPTIONS = Trainer.Options.defaults();

    @Test
    void step_bce() {
        check("train/gan_bce", Recipe.GanLoss.BCE, 0, adam(0.5f, 0.999f), 1e-3f);
    }

    @Test
    void step_lsgan() {
        check("train/gan_lsgan", Recipe.GanLoss.LSGAN, 0, adam(0.5f, 0.999f), 1e-3f);
    }

    @Test
    void step_wganClipped() {
        check("train/gan_wgan", Recipe.GanLoss.WGAN, 0, new UpdateRule.RmsProp(0.99f, 1e-8f, 0, 0), 5e-4f);
    }

    @Test
    void step_wganWithGradientPenalty() {
        check("train/gan_wgan_gp", Recipe.GanLoss.WGAN_GP, 10, adam(0, 0.9f), 1e-3f);
    }

    @Test
    void step_bceWithClasses() {
        check("train/gan_classes_bce", Recipe.GanLoss.BCE, 0, adam(0.5f, 0.999f), 1e-3f);
    }

    @Test
    void step_wganWithClassesAndGradientPenalty() {
        check("train/gan_classes_wgan_gp", Recipe.GanLoss.WGAN_GP, 10, adam(0, 0.9f), 1e-3f);
    }

    private static UpdateRule adam(float beta1, float beta2) {
        return new UpdateRule.Adam(beta1, beta2, 1e-8f, 0, false);
    }

    private static void check(String name, Recipe.GanLoss loss, float lambda, UpdateRule rule, float rate) {
        GoldenCase golden = new GoldenCase(name);
        JsonNode tolerance = GoldenCase.json(golden.directory().resolve("case.json")).required("tolerance");
        long[] rows = golden.longs("batch_index");
        int batch = (int) golden.shape("batch_index")[1];
        float[] lossD = golden.floats("loss_D");
        float[] lossG = golden.floats("loss_G");
        int numClasses = (int) golden.shape("final.D.5.weight")[0];
        numClasses = numClasses == 1 ? 0 : numClasses;
        DcganConfig network = new DcganConfig(LATENTS, numClasses, List.of(16, 8), 1, 1e-5f);
        float[] rates = new float[lossD.length];
        Arrays.fill(rates, rate);
        UpdateRule ruleD = loss == Recipe.GanLoss.WGAN ? new UpdateRule.Clipped(rule, 0.1f) : rule;
        try (Device device = Device.open(TestDevice.NAME); GanGame game = new GanGame(device,
                new GanGame.Design(network, network, lambda == 0 ? 0 : 4, loss, lambda), batch, false,
                new GanGame.Player(rule, rates, OPTIONS), new GanGame.Player(ruleD, rates, OPTIONS))) {
            try (SafetensorsFile file = SafetensorsFile.open(golden.model().resolve("initial.safetensors"))) {
                tensors(game).forEach((to, tensor) -> tensor.copyFrom(game.generator().stream(),
                        file.floats(recorded(to))));
            }
            for (int step = 0; step < lossD.length; step++) {
                game.setReal(pictures(golden.floats("real"), Arrays.copyOfRange(rows, step * batch,
                        (step + 1) * batch)));
                game.setNoise(ofStep(golden.floats("z"), step, lossD.length));
                if (numClasses > 0) {
                    game.setClasses(Arrays.stream(golden.longs("labels"), step * batch, (step + 1) * batch)
                            .mapToInt(Math::toIntExact).toArray());
                }
                if (lambda != 0) {
                    game.setMix(ofStep(golden.floats("alpha"), step, lossD.length));
                }
                game.discriminator().step();
                game.generator().step();
                assertClose(lossD[step], game.discriminator().result().loss(), "loss_D of step " + step);
                assertClose(lossG[step], game.generator().result().loss(), "loss_G of step " + step);
                if (lambda != 0) {
                    assertClose(golden.floats("gradient_penalty")[step], game.gradientPenalty(),
                            "gradient_penalty of step " + step);
                }
            }
            Map<String, Tensor> tensors = tensors(game);
            assertEquals(tolerance.required("weights_hint").size(), tensors.size());
            tensors.forEach((of, tensor) -> assertArrayEquals(golden.floats("final." + recorded(of)),
                    tensor.toFloats(game.generator().stream()),
                    (float) tolerance.required("weights_hint").required(recorded(of)).asDouble(), of));
            assertArrayEquals(golden.floats("image_eval"), drawn(device, game, golden.floats("z_eval"), numClasses),
                    (float) tolerance.required("image_hint").asDouble());
        }
    }

    private static void assertClose(float expected, float found, String what) {
        assertEquals(expected, found, Math.abs(expected) * LOSS_TOLERANCE, what);
    }

    private static Map<String, Tensor> tensors(GanGame game) {
        Map<String, Tensor> all = new LinkedHashMap<>();
        game.generator().parameters().all().forEach(p -> all.put(p.name(), p.master()));
        game.discriminator().parameters().all().forEach(p -> all.put(p.name(), p.master()));
        all.putAll(game.generatorStatistics().byName());
        all.putAll(game.discriminatorStatistics().byName());
        return all;
    }

    private static String recorded(String name) {
        return name.replace(GanGame.GENERATOR, "G.").replace(GanGame.DISCRIMINATOR, "D.");
    }

    private static float[] ofStep(float[] all, int step, int steps) {
        int length = all.length / steps;
        return Arrays.copyOfRange(all, step * length, (step + 1) * length);
    }

    /// Of one channel, so that [C, H, W] is [H, W, C].
    private static float[] pictures(float[] all, long[] chosen) {
        int length = IMAGE_SIZE * IMAGE_SIZE;
        float[] batch = new float[chosen.length * length];
        for (int i = 0; i < chosen.length; i++) {
            System.arraycopy(all, (int) chosen[i] * length, batch, i * length, length);
        }
        return batch;
    }

    /// What the generator draws with its running statistics, of the classes in turn.
    private static float[] drawn(Device device, GanGame game, float[] z, int numClasses) {
        Stream stream = game.generator().stream();
        int width = LATENTS + numClasses;
        float[] rows = new float[z.length / LATENTS * width];
        for (int i = 0; i < z.length / LATENTS; i++) {
            System.arraycopy(z, i * LATENTS, rows, i * width, LATENTS);
            if (numClasses > 0) {
                rows[i * width + LATENTS + i] = 1;
            }
        }
        Tensor latents = game.generator().input(DType.F32, z.length / LATENTS, width);
        latents.copyFrom(stream, rows);
        Tensor[] images = new Tensor[1];
        try (Plan plan = Plan.of(device, recorder ->
                images[0] = recorder.keep(game.g().forward(new Layers(device, stream, recorder), latents)))) {
            plan.run();
            return images[0].toFloats(stream);
        }
    }
}
