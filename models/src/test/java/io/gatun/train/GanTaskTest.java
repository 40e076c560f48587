package io.gatun.train;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.diffusion.ImageModel;
import io.gatun.diffusion.Images;
import io.gatun.diffusion.SampleConfig;
import io.gatun.io.SafetensorsFile;
import io.gatun.models.TestDevice;
import io.gatun.models.gan.DcganConfig;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.GatunException;
import io.gatun.train.data.BatchOrder;
import io.gatun.train.data.ImageSet;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Random;
import javax.imageio.ImageIO;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.function.Executable;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/// Do GANs train from recipes to the same bits each time, also when they were stopped, and into models that draw?
@Tag("device")
class GanTaskTest {
    private static final int NUM_PICTURES = 30;
    private static final String MODEL = """
            {"latent_size": 4, "channels": [4, 4], "image_channels": 1}""";
    private static final String CLASSES = """
            {"latent_size": 4, "num_class_embeds": 3, "channels": [4, 4], "image_channels": 1}""";

    @TempDir
    private Path folder;

    @BeforeEach
    void writePictures() throws IOException {
        byte[] pixels = new byte[NUM_PICTURES * 16 * 16];
        new Random(3).nextBytes(pixels);
        Files.createDirectory(folder.resolve("data"));
        Files.write(folder.resolve("data/train-images-idx3-ubyte"), ByteBuffer.allocate(16 + pixels.length)
                .putInt(0x803).putInt(NUM_PICTURES).putInt(16).putInt(16).put(pixels).array());
        writeLabels(1);
    }

    /// 0, 1, .., numClasses - 1, 0, ..
    private void writeLabels(int numClasses) throws IOException {
        ByteBuffer labels = ByteBuffer.allocate(8 + NUM_PICTURES).putInt(0x801).putInt(NUM_PICTURES);
        for (int i = 0; i < NUM_PICTURES; i++) {
            labels.put((byte) (i % numClasses));
        }
        Files.write(folder.resolve("data/train-labels-idx1-ubyte"), labels.array());
    }

    private Recipe recipe(String more) {
        return recipeOf(MODEL, more);
    }

    private Recipe recipeOf(String model, String more) {
        return Recipe.parse(folder.resolve("gan.json"), """
                {"task": "gan", "model": %s, "max_steps": 4, "train_batch_size": 4, "seed": 5,
                 "optimizer": {"name": "adam", "learning_rate": 2e-3, "betas": [0.5, 0.9]}%s}
                """.formatted(model, more.replace('\'', '"')));
    }

    private TrainingTask open(Recipe recipe) {
        return TrainingTasks.open(new TrainingTask.Request(recipe, folder.resolve("data"), folder, TestDevice.NAME, 1));
    }

    /// @param stopAt step after which the run is stopped and goes on anew; 0: none
    /// @return the bytes of the model's weights
    private byte[] trained(String name, Recipe recipe, int stopAt) throws IOException {
        Path root = folder.resolve(name);
        Runs runs = new Runs(folder.resolve("data"));
        if (stopAt > 0) {
            runs.run(recipe, root, false, stopAt, 1);
        }
        runs.run(recipe, root, stopAt > 0, 0, 1);
        return Files.readAllBytes(root.resolve("model/model.safetensors"));
    }

    @Test
    void run_twiceAndResumedIsBitEqual() throws IOException {
        Recipe recipe = recipe(", 'loss': 'wgan_gp', 'n_critic': 2, 'eval_steps': 3, 'sample_steps': 1");
        byte[] whole = trained("whole", recipe, 0);
        assertArrayEquals(whole, trained("again", recipe, 0));
        assertArrayEquals(whole, trained("resumed", recipe, 2));
        assertFalse(Arrays.equals(whole, trained("other", recipe(", 'loss': 'bce'"), 0)));
    }

    /// Batch norms in both networks, an average of the weights, several passes a step; evaluations and samples change
    /// nothing.
    @Test
    void run_resumedWithRunningStatisticsIsBitEqual() throws IOException {
        String settings = ", 'loss': 'wgan', 'n_critic': 2, 'gradient_accumulation_steps': 2, 'ema_decay': 0.5,"
                + " 'discriminator_optimizer': {'name': 'rmsprop', 'learning_rate': 1e-3}";
        assertArrayEquals(trained("whole", recipe(settings + ", 'eval_steps': 1, 'sample_steps': 1"), 0),
                trained("resumed", recipe(settings), 3));
    }

    /// Several passes a step, each with the classes of its own pictures.
    @Test
    void run_withClassesResumedIsBitEqual() throws IOException {
        writeLabels(3);
        Recipe recipe = recipeOf(CLASSES, ", 'n_critic': 2, 'gradient_accumulation_steps': 2, 'eval_steps': 3,"
                + " 'sample_steps': 1");
        byte[] whole = trained("whole", recipe, 0);
        assertArrayEquals(whole, trained("resumed", recipe, 2));
        writeLabels(2);
        assertFalse(Arrays.equals(whole, trained("other", recipe, 0)));
    }

    /// Each pass of the generator has the noise and the classes of the discriminator's pass of the same number: a step
    /// of two passes is the one that is played by hand.
    @Test
    void step_passesHaveTheirClasses() throws IOException {
        writeLabels(3);
        Path directory = Files.createDirectory(folder.resolve("stepped"));
        try (TrainingTask task = open(recipeOf(CLASSES, ", 'gradient_accumulation_steps': 2"))) {
            task.step();
            task.writeModel(directory);
        }
        DcganConfig network = new DcganConfig(4, 3, List.of(4, 4), 1, 1e-5f);
        GanGame.Player player = new GanGame.Player(new UpdateRule.Adam(0.5f, 0.9f, 1e-8f, 0, false),
                new float[] {2e-3f}, new Trainer.Options(DType.F32, 0, 2, 0, false, 0, 5));
        ImageSet pictures = ImageSet.open(folder.resolve("data"), ImageSet.Part.TRAIN, 16, 1);
        BatchOrder order = new BatchOrder(pictures.count(), 4, BatchOrder.Order.SHUFFLED, 5);
        int[][] batches = {order.next(), order.next()};
        try (Device device = Device.open(TestDevice.NAME, new Device.Options(1)); GanGame game = new GanGame(device,
                new GanGame.Design(network, network, 0, Recipe.GanLoss.BCE, 0), 4, true, player, player)) {
            Initialiser initialiser = new Initialiser(5);
            for (Trainer trainer : List.of(game.generator(), game.discriminator())) {
                trainer.set(initialiser.dcgan(trainer.parameters().all().stream().map(p -> new Parameters.Shape(
                        p.name(), p.master().shape(), p.decays())).toList()));
            }
            for (Trainer trainer : List.of(game.discriminator(), game.generator())) {
                for (int pass = 0; pass < 2; pass++) {
                    game.setReal(pictures.batch(batches[pass], -1, 1));
                    game.setClasses(pictures.batchLabels(batches[pass]));
                    game.setSeeds(new long[] {5, 4 * pass, 5, 4 * pass + 1, 5, 4 * pass + 2, 5, 4 * pass + 3});
                    trainer.step();
                }
            }
            try (SafetensorsFile file = SafetensorsFile.open(directory.resolve("model.safetensors"))) {
                for (Trainer trainer : List.of(game.generator(), game.discriminator())) {
                    trainer.parameters().all().forEach(p -> assertArrayEquals(p.master().toFloats(trainer.stream()),
                            file.floats(p.name()), p.name()));
                }
            }
        }
    }

    /// In narrow types, two loss scales in f16 among them.
    @ParameterizedTest
    @ValueSource(strings = {"bf16", "f16"})
    void run_narrowResumedIsBitEqual(String dtype) throws IOException {
        Recipe recipe = recipeOf(MODEL, ", 'n_critic': 2, 'dtype': '" + dtype + "'");
        byte[] whole = trained("whole", recipe, 0);
        assertArrayEquals(whole, trained("resumed", recipe, 2));
        try (TrainingTask task = open(recipe)) {
            task.step();
            task.step();
            assertTrue(task.figures().values().stream().allMatch(Double::isFinite), task.figures().toString());
        }
    }

    /// A generator that was told the class draws another picture of the same numbers for another class.
    @Test
    void writeModel_withClassesDrawsThem() throws IOException {
        writeLabels(3);
        Path directory = Files.createDirectory(folder.resolve("classes"));
        try (TrainingTask task = open(recipeOf(CLASSES, ", 'loss': 'wgan_gp', 'n_critic': 1"))) {
            task.step();
            assertTrue(task.figures().values().stream().allMatch(Double::isFinite), task.figures().toString());
            task.writeModel(directory);
        }
        try (ImageModel model = ImageModel.load(directory, ImageModel.Options.defaults().withDevice(
                TestDevice.NAME))) {
            assertEquals(3, model.classes());
            byte[] one = model.sample(SampleConfig.builder().seeds(7).classes(1).build()).rgb();
            byte[] two = model.sample(SampleConfig.builder().seeds(7).classes(2).build()).rgb();
            assertFalse(Arrays.equals(one, two));
            byte[] both = model.sample(SampleConfig.builder().seeds(7, 7).classes(1, 2).build()).rgb();
            assertArrayEquals(one, Arrays.copyOf(both, one.length));
            assertArrayEquals(two, Arrays.copyOfRange(both, one.length, both.length));
            float[] noise = {1, -1, 0.5f, 2};
            byte[] given = model.sample(SampleConfig.builder().classes(1).latents(noise, 1, 4).build()).rgb();
            byte[] other = model.sample(SampleConfig.builder().classes(0).latents(noise, 1, 4).build()).rgb();
            assertFalse(Arrays.equals(given, other));
            Images.Raw raw = model.sample(SampleConfig.builder().seeds(7).classes(2).keepRaw(true).build()).raw();
            assertArrayEquals(new long[] {1, 4}, raw.latentsShape());
            assertArrayEquals(two, model.sample(SampleConfig.builder().classes(2).latents(raw.latents(), 1, 4).build())
                    .rgb());
            assertRefused(() -> model.sample(SampleConfig.builder().build()), "needs a class", "0 to 2");
            assertRefused(() -> model.sample(SampleConfig.builder().classes(3).build()), "class is 3", "0 to 2");
        }
    }

    @Test
    void open_refusesDataWithoutTheClasses() throws IOException {
        writeLabels(3);
        refuses(recipeOf("{\"latent_size\": 4, \"num_class_embeds\": 2, \"channels\": [4, 4],"
                + " \"image_channels\": 1}", ""), "3 classes", "num_class_embeds");
    }

    @Test
    void figures_ofBothNetworks() {
        Recipe recipe = recipe(", 'loss': 'wgan_gp', 'n_critic': 1, 'max_grad_norm': 1");
        try (TrainingTask task = open(recipe)) {
            task.step();
            Map<String, Double> figures = task.figures();
            assertEquals("[loss, grad_norm, lr, discriminator_loss, discriminator_grad_norm, discriminator_lr,"
                    + " gradient_penalty]", figures.keySet().toString());
            assertTrue(figures.values().stream().allMatch(Double::isFinite), figures.toString());
            assertTrue(figures.get("gradient_penalty") > 0, figures.toString());
            Map<String, Double> evaluated = task.evaluate();
            assertEquals("[eval_discriminator_real, eval_discriminator_fake]", evaluated.keySet().toString());
            assertEquals(evaluated, task.evaluate());
        }
    }

    @Test
    void writeModel_isWhatSampleOpensAndTrainingGoesOnFrom() throws IOException {
        Path first = folder.resolve("first");
        Path second = folder.resolve("second");
        Files.createDirectory(first);
        Files.createDirectory(second);
        try (TrainingTask task = open(recipe(""))) {
            task.step();
            task.writeModel(first);
            task.sample(folder, "grid");
            assertTrue(ImageIO.read(folder.resolve("grid.png").toFile()).getWidth() >= 8 * 16);
        }
        try (ImageModel model = ImageModel.load(first, ImageModel.Options.defaults().withDevice(TestDevice.NAME))) {
            assertEquals(ImageModel.Kind.GAN, model.kind());
            Images images = model.sample(SampleConfig.builder().count(2).build());
            assertEquals(16, images.width());
        }
        try (SafetensorsFile file = SafetensorsFile.open(first.resolve("model.safetensors"))) {
            assertArrayEquals(new long[] {1}, file.longs("generator.1.num_batches_tracked"));
            assertArrayEquals(new long[] {3}, file.longs("discriminator.3.num_batches_tracked"));
        }
        Recipe on = Recipe.parse(folder.resolve("gan.json"), """
                {"task": "gan", "model": "first", "max_steps": 1, "optimizer": {"name": "sgd", "learning_rate": 0}}""");
        try (TrainingTask task = open(on)) {
            task.writeModel(second);
        }
        try (SafetensorsFile before = SafetensorsFile.open(first.resolve("model.safetensors"));
                SafetensorsFile after = SafetensorsFile.open(second.resolve("model.safetensors"))) {
            assertEquals(before.names(), after.names());
            for (String name : before.names()) {
                if (!name.endsWith("tracked")) {
                    assertArrayEquals(before.floats(name), after.floats(name), name);
                }
            }
        }
    }

    @Test
    void open_refusesWhatAGanIsNot() {
        refuses(", 'dropout': 0.1", "dropout is 0.1, expected 0");
        refuses(", 'loss': 'wgan_gp', 'discriminator': {'num_groups': 0}", "num_groups", "batch norms mix");
        refuses(", 'gradient_checkpointing': true", "gradient_checkpointing", "a DCGAN has no blocks");
        refuses(", 'discriminator': {'num_groups': 3}", "num_groups", "a divisor of the channels [4, 4]");
        refuses(", 'discriminator': {'channels': [8]}", "channels", "2 positive integers");
        refuses(", 'discriminator': {'norm_groups': 4}", "unknown field 'norm_groups'");
        refuses(Recipe.parse(folder.resolve("gan.json"), """
                {"task": "gan", "model": {"latent_size": 4, "chanels": [4]}, "max_steps": 1,
                 "optimizer": {"learning_rate": 0}}"""), "unknown field 'chanels'", "'channels'");
    }

    private void refuses(String more, String... parts) {
        refuses(recipe(more), parts);
    }

    private void refuses(Recipe recipe, String... parts) {
        assertRefused(() -> {
            try (TrainingTask task = open(recipe)) {
                task.step();
            }
        }, parts);
    }

    private static void assertRefused(Executable run, String... parts) {
        String message = String.valueOf(assertThrows(GatunException.class, run).getMessage());
        for (String part : parts) {
            assertTrue(message.contains(part), message);
        }
    }
}
