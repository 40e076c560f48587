package io.gatun.train;

import static org.junit.jupiter.api.Assertions.assertEquals;

import io.gatun.models.ConfigFile;
import io.gatun.models.GoldenCase;
import io.gatun.models.TestDevice;
import io.gatun.models.WeightLoader;
import io.gatun.models.gan.VaeDecoderConfig;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.Tensor;
import java.util.List;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;

/// Do VAEs that are trained here go the way that torch's went, step by step?
@Tag("device")
class VaeLossTest {
    @Test
    void train_mlp() {
        train("train/vae_mlp", 1e-3, "{'decoder': 'mlp', 'latent_size': 8, 'widths': [64], 'image_size': 28,"
                + " 'activation': 'relu'}");
    }

    @Test
    void train_convolutions() {
        train("train/vae_conv", 2e-3, "{'decoder': 'conv', 'latent_size': 5, 'widths': [12, 6], 'image_size': 16,"
                + " 'activation': 'silu'}");
    }

    private static void train(String name, double rate, String json) {
        GoldenTraining golden = new GoldenTraining(new GoldenCase(name), "initial.safetensors");
        VaeDecoderConfig config = VaeDecoderConfig.parse(ConfigFile.parse("config.json", json.replace('\'', '"')));
        float[] losses = new float[golden.steps()];
        try (Device device = Device.open(TestDevice.NAME)) {
            List<Parameters.Shape> shapes = Parameters.of(device, "", loader -> VaeLoss.Networks.load(config, loader));
            try (Trainer trainer = new Trainer(device, shapes, new UpdateRule.Adam(0.9f, 0.999f, 1e-8f, 0, false),
                    golden.rates(rate), Trainer.Options.defaults())) {
                trainer.set(golden.initial(shapes));
                VaeLoss.Networks networks = VaeLoss.Networks.load(config, WeightLoader.trained(
                        trainer.parameters().weights(), trainer.arena(), trainer.stream(), DType.F32, List.of("")));
                int batch = golden.ofStep("eps", 0).length / config.latentSize();
                Tensor images = trainer.input(DType.F32, batch, config.imageSize(), config.imageSize(), 1);
                Tensor eps = trainer.input(DType.F32, batch, config.latentSize());
                Tensor terms = trainer.input(DType.F32, 2);
                VaeLoss loss = new VaeLoss(Recipe.Reconstruction.BCE, 1);
                trainer.loss(net -> {
                    VaeLoss.Terms both = loss.of(net, networks, images, eps);
                    net.quietly(() -> net.copyInto(terms.slice(0, 0, 1), both.reconstruction()));
                    net.quietly(() -> net.copyInto(terms.slice(0, 1, 2), both.divergence()));
                    return net.add(both.reconstruction(), both.divergence());
                });
                for (int step = 0; step < losses.length; step++) {
                    images.copyFrom(trainer.stream(), golden.images(step));
                    eps.copyFrom(trainer.stream(), golden.ofStep("eps", step));
                    trainer.step();
                    losses[step] = trainer.result().loss();
                    float[] found = terms.toFloats(trainer.stream());
                    assertNear(golden.ofStep("recon", step)[0], found[0], "reconstruction", step);
                    assertNear(golden.ofStep("kl", step)[0], found[1], "divergence", step);
                }
                golden.check(losses, trainer);
            }
        }
    }

    private static void assertNear(float expected, float found, String what, int step) {
        assertEquals(expected, found, Math.abs(expected) * 1e-4, what + " of step " + step);
    }
}
