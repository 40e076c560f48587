package io.gatun.train;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.models.ConfigFile;
import io.gatun.models.GoldenCase;
import io.gatun.models.ImageNetwork;
import io.gatun.models.ImageNetworkLoader;
import io.gatun.models.TestDevice;
import io.gatun.models.WeightLoader;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.GatunException;
import io.gatun.train.DiffusionLoss.NoiseSource;
import io.gatun.train.Recipe.PredictionType;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/// Does a denoiser of EDM that is trained here go the way that torch's went, which computed the loss as the paper has
/// it? `make_edm.py` beside the case recorded that.
@Tag("device")
class EdmLossTest {
    private static final GoldenTraining NETWORK = new GoldenTraining(new GoldenCase("train/unet_lsimple"),
            "diffusion_pytorch_model.safetensors");
    private static final GoldenTraining EDM = new GoldenTraining(new GoldenCase("train/unet_edm"), "");

    @ParameterizedTest
    @EnumSource(names = {"EPSILON", "V_PREDICTION"})
    void train_likeTorch(PredictionType prediction) {
        String name = prediction.name().toLowerCase(Locale.ROOT);
        double sigmaData = GoldenCase.json(EDM.golden().directory().resolve("case.json")).required("sigma_data")
                .required(name).asDouble();
        int batch = (int) EDM.golden().shape("sigmas")[1];
        float[] sigmas = EDM.golden().floats("sigmas");
        float[] expected = EDM.golden().floats("losses." + name);
        try (Device device = Device.open(TestDevice.NAME); Trainer trainer = trainer(device)) {
            ImageNetwork network = network(trainer);
            EdmLoss loss = new EdmLoss(trainer, sigmaData, prediction, NoiseSource.GIVEN, batch, 8, 3, false);
            trainer.loss(net -> loss.of(net, network, batch));
            for (int step = 0; step < expected.length; step++) {
                int at = step * batch;
                double[] chosen = IntStream.range(at, at + batch).mapToDouble(i -> sigmas[i]).toArray();
                loss.setBatch(trainer.stream(), GoldenTraining.channelsLast(EDM.images(step), 3, 64), chosen, null);
                loss.setNoise(trainer.stream(), GoldenTraining.channelsLast(EDM.ofStep("noise", step, expected.length),
                        3, 64));
                trainer.step();
                assertEquals(expected[step], trainer.result().loss(), 1e-4 * expected[step], "loss of step " + step);
            }
            loss.setBatch(trainer.stream(), new float[batch * 3 * 64], new double[] {0, 1e-30, 1e30}, null);
            trainer.step();
            assertTrue(Float.isFinite(trainer.result().loss()), "no noise, and nothing but noise");
            assertThrows(GatunException.class, () -> new EdmLoss(trainer, sigmaData, PredictionType.SAMPLE,
                    NoiseSource.GIVEN, batch, 8, 3, false));
        }
    }

    private static Trainer trainer(Device device) {
        List<Parameters.Shape> shapes = Parameters.of(device, "", loader -> ImageNetworkLoader.create(config(),
                loader)).stream().map(shape -> new Parameters.Shape(shape.name(), shape.shape(), true)).toList();
        float[] rates = new float[EDM.golden().floats("losses.epsilon").length];
        Arrays.fill(rates, 1e-3f);
        Trainer trainer = new Trainer(device, shapes, UpdateRule.Adam.decoupled(0.01f), rates,
                Trainer.Options.defaults());
        trainer.set(NETWORK.initial(shapes));
        return trainer;
    }

    private static ImageNetwork network(Trainer trainer) {
        return ImageNetworkLoader.create(config(), WeightLoader.trained(trainer.parameters().weights(),
                trainer.arena(), trainer.stream(), DType.F32, List.of("")));
    }

    private static ConfigFile config() {
        return ConfigFile.read(NETWORK.golden().model().resolve("config.json"));
    }
}
