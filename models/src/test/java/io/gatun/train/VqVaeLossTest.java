package io.gatun.train;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;

import io.gatun.io.SafetensorsFile;
import io.gatun.models.ConfigFile;
import io.gatun.models.GoldenCase;
import io.gatun.models.TestDevice;
import io.gatun.models.WeightLoader;
import io.gatun.models.vae.VqModel;
import io.gatun.models.vae.VqModelConfig;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.Tensor;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;

/// Are the terms of the loss those that diffusers computes, and do their gradients go where they should: the decoder's
/// past the codebook to the encoder, the codebook's to the codes alone, the commitment to the encoder alone?
@Tag("device")
class VqVaeLossTest {
    private static final GoldenCase GOLDEN = new GoldenCase("diffusers/vqmodel");
    private static final double BETA = 0.5;

    @Test
    void of_termsAndGradients() {
        VqModelConfig config = VqModelConfig.parse(ConfigFile.read(GOLDEN.model().resolve("config.json")));
        float[] image = GOLDEN.floats("image");
        int pixels = 16 * 16;
        int e = config.codeWidth();
        try (Device device = Device.open(TestDevice.NAME)) {
            List<Parameters.Shape> shapes = Parameters.of(device, "", loader -> new VqModel(config, loader));
            try (Trainer trainer = new Trainer(device, shapes, UpdateRule.Adam.decoupled(0), new float[] {0},
                    Trainer.Options.defaults())) {
                trainer.set(initial(shapes));
                VqModel model = new VqModel(config, WeightLoader.trained(trainer.parameters().weights(),
                        trainer.arena(), trainer.stream(), DType.F32, List.of("")));
                Tensor images = trainer.input(DType.F32, 2, 16, 16, 3);
                Tensor terms = trainer.input(DType.F32, 3);
                images.copyFrom(trainer.stream(), GoldenTraining.channelsLast(image, 3, pixels));
                trainer.loss(net -> {
                    VqVaeLoss.Terms found = new VqVaeLoss(BETA).of(net, model, images);
                    net.quietly(() -> net.copyInto(terms.slice(0, 0, 1), found.reconstruction()));
                    net.quietly(() -> net.copyInto(terms.slice(0, 1, 2), found.codebook()));
                    net.quietly(() -> net.copyInto(terms.slice(0, 2, 3), found.commitment()));
                    return net.add(found.reconstruction(), net.add(found.codebook(), found.commitment()));
                });
                trainer.step();
                float[] found = terms.toFloats(trainer.stream());
                double distance = GOLDEN.floats("vq_loss")[0] / 1.25; // diffusers: distance + 0.25 distance
                assertEquals(squaredError(GOLDEN.floats("decoded"), image), found[0], 1e-4);
                assertEquals(distance, found[1], distance * 1e-4);
                assertEquals(BETA * distance, found[2], distance * 1e-4);

                float[] z = GoldenTraining.channelsLast(GOLDEN.floats("latents"), e, pixels);
                float[] codes = GoldenTraining.channelsLast(GOLDEN.floats("quantized"), e, pixels);
                long[] ids = GOLDEN.longs("indices");
                float[] ofCodebook = new float[config.numCodes() * e];
                float[] ofBias = new float[e];
                for (int i = 0; i < z.length; i++) {
                    ofCodebook[(int) ids[i / e] * e + i % e] += 2f / z.length * (codes[i] - z[i]);
                    ofBias[i % e] += (float) (2 * BETA / z.length * (z[i] - codes[i]));
                }
                assertArrayEquals(ofCodebook, gradient(trainer, "quantize.embedding.weight"), 2e-5f);
                float[] weight = trainer.parameters().get("post_quant_conv.weight").value().toFloats(trainer.stream());
                float[] through = gradient(trainer, "post_quant_conv.bias");
                for (int k = 0; k < weight.length; k++) {
                    ofBias[k % e] += weight[k] * through[k / e];
                }
                assertArrayEquals(ofBias, gradient(trainer, "quant_conv.bias"), 2e-5f);
            }
        }
    }

    private static Map<String, float[]> initial(List<Parameters.Shape> shapes) {
        Map<String, float[]> values = new TreeMap<>();
        try (SafetensorsFile file = SafetensorsFile.open(GOLDEN.model().resolve(
                "diffusion_pytorch_model.safetensors"))) {
            shapes.forEach(shape -> values.put(shape.name(), file.floats(shape.name())));
        }
        return values;
    }

    private static float[] gradient(Trainer trainer, String name) {
        return trainer.parameters().get(name).gradient().toFloats(trainer.stream());
    }

    private static double squaredError(float[] a, float[] b) {
        double sum = 0;
        for (int i = 0; i < a.length; i++) {
            sum += Math.pow((double) a[i] - b[i], 2);
        }
        return sum / a.length;
    }
}
