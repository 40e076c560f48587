package io.gatun.train;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import io.gatun.diffusion.NoiseSchedule;
import io.gatun.diffusion.SchedulerConfig;
import io.gatun.models.ConfigFile;
import io.gatun.models.GoldenCase;
import io.gatun.models.ImageNetwork;
import io.gatun.models.ImageNetworkLoader;
import io.gatun.models.Layers;
import io.gatun.models.TestDevice;
import io.gatun.models.WeightLoader;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.GatunException;
import io.gatun.runtime.Plan;
import io.gatun.runtime.Tensor;
import io.gatun.train.DiffusionLoss.NoiseSource;
import io.gatun.train.Recipe.PredictionType;
import java.util.List;
import java.util.Map;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;

/// Does a diffusion U-Net that is trained here go the way that torch's went, and are targets and weights those of the
/// papers?
@Tag("device")
class DiffusionLossTest {
    @Test
    void train_epsilon() {
        GoldenTraining golden = new GoldenTraining(new GoldenCase("train/unet_lsimple"),
                "diffusion_pytorch_model.safetensors");
        ConfigFile config = ConfigFile.read(golden.golden().model().resolve("config.json"));
        NoiseSchedule schedule = SchedulerConfig.parse("{\"_class_name\": \"DDPMScheduler\"}").noise();
        float[] losses = new float[golden.steps()];
        long[] timesteps = golden.golden().longs("timesteps");
        int batch = (int) golden.golden().shape("timesteps")[1];
        try (Device device = Device.open(TestDevice.NAME)) {
            List<Parameters.Shape> shapes = Parameters.of(device, "", loader ->
                    ImageNetworkLoader.create(config, loader)).stream().map(shape ->
                    new Parameters.Shape(shape.name(), shape.shape(), true)).toList();
            try (Trainer trainer = new Trainer(device, shapes, UpdateRule.Adam.decoupled(0.01f), golden.rates(1e-3),
                    Trainer.Options.defaults())) {
                trainer.set(golden.initial(shapes));
                ImageNetwork network = ImageNetworkLoader.create(config, WeightLoader.trained(
                        trainer.parameters().weights(), trainer.arena(), trainer.stream(), DType.F32, List.of("")));
                DiffusionLoss loss = new DiffusionLoss(trainer, schedule, PredictionType.EPSILON, 0, NoiseSource.GIVEN,
                        batch, 8, 3, false);
                trainer.loss(net -> loss.of(net, network, batch));
                for (int step = 0; step < losses.length; step++) {
                    int at = step * batch;
                    loss.setBatch(trainer.stream(), GoldenTraining.channelsLast(golden.images(step), 3, 64),
                            IntStream.range(0, batch).map(i -> (int) timesteps[at + i]).toArray(), null);
                    loss.setNoise(trainer.stream(), GoldenTraining.channelsLast(golden.ofStep("noise", step), 3, 64));
                    trainer.step();
                    losses[step] = trainer.result().loss();
                }
                golden.check(losses, trainer);
            }
        }
    }

    /// A network that predicts the same number everywhere, whatever it sees.
    private record Constant(Tensor value) implements ImageNetwork {
        @Override
        public Labels classLabels() {
            return Labels.NONE;
        }

        @Override
        public int inChannels() {
            return 1;
        }

        @Override
        public int outChannels() {
            return 1;
        }

        @Override
        public List<Integer> sampleSize() {
            return List.of(2, 2);
        }

        @Override
        public Map<String, Tensor> weights() {
            return Map.of("value", value);
        }

        @Override
        public void forward(Layers layers, Tensor prediction, Inputs inputs) {
            layers.copyInto(prediction, value.strided(prediction.shape(), new long[4]));
        }
    }

    @Test
    void targetsAndWeights_areThoseOfThePapers() {
        NoiseSchedule schedule = NoiseSchedule.linear(10);
        float[] x = {0.5f, -0.25f, 1, 0, -1, 0.75f, 0.125f, 0.25f};
        float[] eps = {1, -2, 0.5f, 0, 0.25f, 1.5f, -1, 2};
        int[] at = {2, 8};
        double prediction = 0.5;
        double gamma = 5;
        for (PredictionType type : PredictionType.values()) {
            for (double g : new double[] {0, gamma}) {
                double expected = 0;
                for (int i = 0; i < x.length; i++) {
                    double a = schedule.alphasCumprod()[at[i / 4]];
                    double snr = a / (1 - a);
                    double target = switch (type) {
                        case EPSILON -> eps[i];
                        case SAMPLE -> x[i];
                        case V_PREDICTION -> Math.sqrt(a) * eps[i] - Math.sqrt(1 - a) * x[i];
                    };
                    double weight = g == 0 ? 1 : Math.min(snr, g) / switch (type) {
                        case EPSILON -> snr;
                        case SAMPLE -> 1;
                        case V_PREDICTION -> snr + 1;
                    };
                    expected += weight * (prediction - target) * (prediction - target) / x.length;
                }
                assertEquals(expected, lossOf(schedule, type, g, x, eps, at, (float) prediction), expected * 1e-5,
                        type + ", gamma " + g);
            }
        }
    }

    private static float lossOf(NoiseSchedule schedule, PredictionType type, double gamma, float[] x, float[] eps,
            int[] at, float prediction) {
        try (Device device = Device.open(TestDevice.NAME); Trainer trainer = new Trainer(device,
                List.of(new Parameters.Shape("w", new long[] {1}, false)), UpdateRule.Adam.decoupled(0),
                new float[] {0}, Trainer.Options.defaults())) {
            Tensor value = trainer.input(DType.F32, 1);
            Tensor found = trainer.input(DType.F32, 1);
            value.copyFrom(trainer.stream(), prediction);
            DiffusionLoss loss = new DiffusionLoss(trainer, schedule, type, gamma, NoiseSource.GIVEN, 2, 2, 1, false);
            loss.setBatch(trainer.stream(), x, at, null);
            loss.setNoise(trainer.stream(), eps);
            assertThrows(GatunException.class, () -> loss.setBatch(trainer.stream(), x, at, new int[2]));
            try (Plan plan = Plan.of(device, recorder -> {
                Layers net = new Layers(device, trainer.stream(), recorder);
                net.copyInto(found, loss.of(net, new Constant(value), 2));
            })) {
                plan.run();
                return found.toFloats(trainer.stream())[0];
            }
        }
    }
}
