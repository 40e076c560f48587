package io.gatun.train;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import io.gatun.diffusion.ImageModel;
import io.gatun.diffusion.Images;
import io.gatun.diffusion.SampleConfig;
import io.gatun.io.SafetensorsFile;
import io.gatun.models.ComponentLoader;
import io.gatun.models.TestDevice;
import io.gatun.models.classifier.ImageClassifier;
import io.gatun.models.vae.VqModel;
import io.gatun.runtime.Device;
import io.gatun.runtime.GatunException;
import io.gatun.runtime.Stream;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.Locale;
import java.util.Map;
import java.util.TreeMap;
import java.util.stream.IntStream;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/// Do the tasks on pictures learn, give the same bits again and when they are resumed, and write models that open?
@Tag("device")
class ImageTaskTest {
    private static final int STEPS = 4;

    /// A recipe of each task, as small as it can be.
    enum Kind {
        CLASSIFIER("'model': {'channels': [4], 'hidden_size': 8, 'image_size': 8}"),
        VAE("'model': {'decoder': 'conv', 'latent_size': 3, 'widths': [4, 4], 'image_size': 8, 'activation': 'silu'},"
                + " 'gradient_accumulation_steps': 2, 'beta': 0.5"),
        VQ_VAE("'model': {'sample_size': 8, 'in_channels': 1, 'out_channels': 1, 'block_out_channels': [4, 4],"
                + " 'norm_num_groups': 2, 'down_block_types': ['DownEncoderBlock2D', 'DownEncoderBlock2D'],"
                + " 'up_block_types': ['UpDecoderBlock2D', 'UpDecoderBlock2D'], 'latent_channels': 2,"
                + " 'num_vq_embeddings': 5, 'mid_block_add_attention': false}"),
        DIFFUSION("'model': {'sample_size': 8, 'in_channels': 1, 'out_channels': 1, 'block_out_channels': [4, 8],"
                + " 'norm_num_groups': 2, 'layers_per_block': 1, 'attention_head_dim': 4, 'num_class_embeds': 3,"
                + " 'down_block_types': ['DownBlock2D', 'AttnDownBlock2D'],"
                + " 'up_block_types': ['AttnUpBlock2D', 'UpBlock2D']}, 'ema_decay': 0.9, 'snr_gamma': 5,"
                + " 'prediction_type': 'v_prediction', 'class_dropout_prob': 0.2, 'num_inference_steps': 2,"
                + " 'guidance_scale': 2, 'scheduler': {'_class_name': 'DDIMScheduler', 'num_train_timesteps': 20,"
                + " 'beta_end': 0.3}");

        private final String fields;

        Kind(String fields) {
            this.fields = fields;
        }
    }

    @TempDir
    private Path folder;
    private Runs runs;

    @BeforeEach
    void writeData() throws IOException {
        runs = new Runs(TinyPictures.write(folder.resolve("data")));
    }

    private Recipe recipe(Kind kind, int steps, int seed, String more) {
        return Recipe.parse(folder.resolve("recipe.json"), ("{'task': '" + kind.name().toLowerCase(Locale.ROOT) + "', "
                + kind.fields + ", 'max_steps': " + steps + ", 'train_batch_size': 4, 'logging_steps': 1,"
                + " 'optimizer': {'learning_rate': 0.01}, 'seed': " + seed + more + "}").replace('\'', '"'));
    }

    private static double sum(float[] values) {
        double sum = 0;
        for (float value : values) {
            sum += value;
        }
        return sum;
    }

    /// With evaluations and samples on the way and another number of threads, which change nothing; and another seed
    /// gives other weights.
    @ParameterizedTest
    @EnumSource(Kind.class)
    void run_againAndResumedIsBitEqual(Kind kind) {
        Recipe recipe = recipe(kind, STEPS, 7, "");
        Path whole = folder.resolve("whole");
        runs.whole(recipe, whole);
        Map<String, float[]> expected = Runs.state(whole, STEPS);
        expected.forEach((name, squares) -> assertTrue(!name.startsWith("exp_avg_sq.") || name.endsWith("to_k.bias")
                || sum(squares) > 0, () -> name + ": no gradient"));
        Path again = folder.resolve("again");
        runs.run(recipe(kind, STEPS, 7, ", 'eval_steps': 2, 'sample_steps': 3"), again, false, 0, 2);
        Runs.assertEqualBits(expected, Runs.state(again, STEPS));
        assertEquals(kind != Kind.CLASSIFIER, Files.exists(again.resolve("samples/step-000003.png")));
        Path stopped = folder.resolve("stopped");
        runs.run(recipe, stopped, false, STEPS / 2, 1);
        runs.run(recipe, stopped, true, 0, 1);
        Runs.assertEqualBits(expected, Runs.state(stopped, STEPS));
        Path other = folder.resolve("other");
        runs.whole(recipe(kind, STEPS, 8, ""), other);
        expected.forEach((name, values) -> assertTrue(!name.startsWith("model.") || !name.endsWith("weight")
                || !Arrays.equals(values, Runs.state(other, STEPS).get(name)), name));
    }

    /// In bf16 and f16 the loss is near that in f32.
    @ParameterizedTest
    @EnumSource(Kind.class)
    void run_inHalfPrecision(Kind kind) {
        Map<String, Double> expected = runs.whole(recipe(kind, 2, 1, ""), folder.resolve("f32"));
        for (String dtype : new String[] {"bf16", "f16"}) {
            Map<String, Double> found = runs.whole(recipe(kind, 2, 1, ", 'dtype': '" + dtype + "'"),
                    folder.resolve(dtype));
            assertEquals(expected.get("eval_loss"), found.get("eval_loss"), 0.1 * expected.get("eval_loss"), dtype);
            assertEquals(expected.get("loss"), found.get("loss"), 0.1 * expected.get("loss"), dtype);
        }
    }

    @Test
    void classifier_learnsAndOpens() {
        Map<String, Double> figures = runs.whole(recipe(Kind.CLASSIFIER, 20, 1, ""), folder.resolve("run"));
        assertEquals(1.0, figures.get("eval_accuracy"));
        assertTrue(figures.get("eval_loss") < 0.2, figures::toString);
        assertTrue(figures.get("loss") < 0.2, figures::toString);
        try (Device device = Device.open(TestDevice.NAME); Stream stream = device.newStream();
                var model = ComponentLoader.load(device, stream, folder.resolve("run/model"), null,
                        ImageClassifier.FAMILY, count -> {})) {
            assertEquals(2, model.network().config().classes());
        }
    }

    @Test
    void vae_learnsAndOpens() {
        Map<String, Double> first = runs.whole(recipe(Kind.VAE, 1, 1, ""), folder.resolve("first"));
        Map<String, Double> last = runs.whole(recipe(Kind.VAE, 30, 1, ""), folder.resolve("run"));
        assertTrue(last.get("eval_negative_elbo") < 0.85 * first.get("eval_negative_elbo"), () -> first + " " + last);
        assertEquals(last.get("eval_negative_elbo"), last.get("eval_reconstruction") + last.get("eval_kl"), 1e-6);
        assertEquals(last.get("eval_loss"), last.get("eval_reconstruction") + 0.5 * last.get("eval_kl"), 1e-6);
        try (ImageModel model = ImageModel.load(folder.resolve("run/model"),
                ImageModel.Options.defaults().withDevice(TestDevice.NAME))) {
            Images images = model.sample(SampleConfig.builder().count(2).seed(1).build());
            assertEquals(ImageModel.Kind.VAE, model.kind());
            assertEquals(TinyPictures.SIZE, images.height());
            assertTrue(images.failed().isEmpty());
        }
    }

    @Test
    void diffusion_learnsAndOpens() {
        assumeTrue(TestDevice.isCpu(), "slow elsewhere, where the golden training is enough");
        Map<String, Double> first = runs.whole(recipe(Kind.DIFFUSION, 1, 1, ""), folder.resolve("first"));
        Map<String, Double> last = runs.whole(recipe(Kind.DIFFUSION, 300, 1, ""), folder.resolve("run"));
        assertTrue(last.get("eval_loss") < 0.9 * first.get("eval_loss"), () -> first + " " + last);
        assertEquals("DDIMScheduler", assertDrawsClasses(folder.resolve("run/model"), 10).scheduler());
    }

    private static Images assertDrawsClasses(Path directory, int steps) {
        try (ImageModel model = ImageModel.load(directory, ImageModel.Options.defaults()
                .withDevice(TestDevice.NAME))) {
            Images images = model.sample(SampleConfig.builder().count(16)
                    .classes(IntStream.range(0, 16).map(i -> i % 2).toArray()).guidance(2).steps(steps).build());
            assertTrue(images.failed().isEmpty());
            int right = 0;
            for (int i = 0; i < images.count(); i++) {
                right += isBrighterLeft(images, i) == (i % 2 == 0) ? 1 : 0;
            }
            assertTrue(right >= 13, "16 pictures, of the class that was asked for: " + right);
            return images;
        }
    }

    /// The recipe of DIFFUSION with EDM's noise.
    private Recipe edm(int steps) {
        String json = recipe(Kind.DIFFUSION, steps, 1, "").text().json().replaceFirst("\"snr_gamma\": 5,", "")
                .replaceFirst("\"scheduler\": \\{[^}]*}", "\"scheduler\": {\"_class_name\": \"EDMEulerScheduler\","
                        + " \"sigma_data\": 0.8, \"sigma_max\": 20}, \"p_mean\": -0.5");
        return Recipe.parse(folder.resolve("recipe.json"), json);
    }

    @Test
    void edm_resumedIsBitEqual() {
        runs.whole(edm(STEPS), folder.resolve("whole"));
        runs.run(edm(STEPS), folder.resolve("stopped"), false, STEPS / 2, 1);
        runs.run(edm(STEPS), folder.resolve("stopped"), true, 0, 1);
        Runs.assertEqualBits(Runs.state(folder.resolve("whole"), STEPS),
                Runs.state(folder.resolve("stopped"), STEPS));
    }

    @Test
    void edm_learnsAndOpens() {
        assumeTrue(TestDevice.isCpu(), "slow elsewhere, where the golden training is enough");
        Map<String, Double> first = runs.whole(edm(1), folder.resolve("first"));
        Map<String, Double> last = runs.whole(edm(300), folder.resolve("run"));
        assertTrue(last.get("eval_loss") < 0.7 * first.get("eval_loss"), () -> first + " " + last);
        Images images = assertDrawsClasses(folder.resolve("run/model"), 20);
        assertEquals("EDMEulerScheduler", images.scheduler());
    }

    /// Rows of the table of classes that no picture had get no gradient: those of the classes where nearly all are
    /// dropped, that of none where none is.
    @Test
    void diffusion_dropsClasses() {
        for (boolean drops : new boolean[] {true, false}) {
            Path root = folder.resolve("drops-" + drops);
            String json = recipe(Kind.DIFFUSION, STEPS, 1, "").text().json().replace("\"class_dropout_prob\": 0.2",
                    "\"class_dropout_prob\": " + (drops ? 0.99999 : 0.00001));
            runs.whole(Recipe.parse(folder.resolve("recipe.json"), json), root);
            float[] squares = Runs.state(root, STEPS).get("exp_avg_sq.class_embedding.weight");
            int width = squares.length / 3;
            for (int row = 0; row < 3; row++) {
                double found = sum(Arrays.copyOfRange(squares, row * width, (row + 1) * width));
                assertEquals(drops == (row == 2), found > 0, "row " + row + ", drops " + drops);
            }
        }
    }

    private static boolean isBrighterLeft(Images images, int index) {
        int pixels = images.height() * images.width();
        int difference = 0;
        for (int p = 0; p < pixels; p++) {
            int value = images.rgb()[(index * pixels + p) * 3] & 0xff;
            difference += p % images.width() < images.width() / 2 ? value : -value;
        }
        return difference > 0;
    }

    @Test
    void vqVae_learnsAndOpens() {
        assumeTrue(TestDevice.isCpu(), "slow elsewhere, where the gradients' test is enough");
        Map<String, Double> first = runs.whole(recipe(Kind.VQ_VAE, 1, 1, ""), folder.resolve("first"));
        Map<String, Double> last = runs.whole(recipe(Kind.VQ_VAE, 100, 1, ""), folder.resolve("run"));
        assertTrue(last.get("eval_reconstruction") < 0.8 * first.get("eval_reconstruction"), () -> first + " " + last);
        double perplexity = last.get("eval_code_perplexity");
        assertTrue(perplexity >= 1 && perplexity <= 5, last::toString);
        try (Device device = Device.open(TestDevice.NAME); Stream stream = device.newStream();
                var model = ComponentLoader.load(device, stream, folder.resolve("run/model"), null, VqModel.FAMILY,
                        count -> {})) {
            assertEquals(5, model.network().config().numCodes());
        }
    }

    /// A model directory is where another training can begin: after one step at a rate of 0, the weights are its.
    @ParameterizedTest
    @EnumSource(Kind.class)
    void open_goesOnFromADirectory(Kind kind) throws IOException {
        runs.whole(recipe(kind, 1, 1, ""), folder.resolve("run"));
        Map<String, float[]> before = weights(folder.resolve("run/model"));
        String json = recipe(kind, 1, 2, "").text().json().replaceFirst("\"model\": \\{[^}]*}",
                "\"model\": \"run/model\"").replace("0.01", "0");
        Recipe recipe = Recipe.parse(folder.resolve("recipe.json"), json);
        runs.whole(recipe, folder.resolve("next"));
        Runs.assertEqualBits(before, weights(folder.resolve("next/model")));
    }

    /// Of the only safetensors file in a folder.
    private static Map<String, float[]> weights(Path model) throws IOException {
        Map<String, float[]> weights = new TreeMap<>();
        try (var all = Files.walk(model); SafetensorsFile file = SafetensorsFile.open(all.filter(path ->
                path.toString().endsWith(".safetensors")).findAny().orElseThrow())) {
            file.names().forEach(name -> weights.put(name, file.floats(name)));
        }
        return weights;
    }

    @Test
    void open_refusesWhatDoesNotFit() {
        assertRefused(Kind.CLASSIFIER, "\"num_labels\": 1,", "num_labels");
        assertRefused(Kind.CLASSIFIER, "\"model_type\": \"gpt2\",", "gatun_classifier");
        for (Kind kind : Kind.values()) {
            assertRefused(kind, "\"image_siez\": 2,", "unknown field 'image_siez'; the nearest that exists is '");
        }
        assertRefused(Kind.DIFFUSION, "\"dropout\": 1,", "dropout");
        assertRefused(Kind.DIFFUSION, "\"num_class_embeds\": 2,", "num_class_embeds' is 2, expected 3");
        assertRefused(Kind.DIFFUSION, "\"num_class_embeds\": 1,", "the data have 2 classes, expected 1 to 1");
        assertRefused(Kind.DIFFUSION, "\"out_channels\": 3,", "out_channels");
        assertRefused(Kind.DIFFUSION, "\"_class_name\": \"DiTTransformer2DModel\",", "UNet2DModel");
        assertRefused(Kind.VAE, "\"image_size\": 4,", "do not fit into 4 x 4");
        assertRefused(Kind.VQ_VAE, "\"sample_size\": 9,", "a multiple of 2");
        for (String more : new String[] {", 'dropout': 0.1", ", 'gradient_checkpointing': true"}) {
            assertTrue(message(recipe(Kind.VAE, 1, 1, more)).startsWith("dropout is"));
        }
        assertSchedulerRefused("beta_end", "beta_edn", "unknown field 'beta_edn'; the nearest that exists is");
        assertSchedulerRefused("DDIMScheduler", "FlowMatchEulerDiscreteScheduler", "a scheduler of diffusion");
        assertSchedulerRefused("\"beta_end\"", "\"prediction_type\": \"sample\", \"beta_end\"", "v_prediction");
        assertTrue(message(recipe(Kind.VQ_VAE, 1, 1, ", 'reconstruction': 'bce'")).startsWith("reconstruction is bce"));
    }

    /// A field of the model's config that replaces the recipe's, or is there beside it.
    private void assertRefused(Kind kind, String field, String expected) {
        String name = field.substring(0, field.indexOf(':'));
        String json = recipe(kind, 1, 1, "").text().json().replaceFirst(name + ": [0-9]+,?", "")
                .replaceFirst("\"model\": \\{", "\"model\": {" + field);
        String found = message(Recipe.parse(folder.resolve("recipe.json"), json));
        assertTrue(found.contains(expected), found);
    }

    private void assertSchedulerRefused(String old, String replacement, String expected) {
        String json = recipe(Kind.DIFFUSION, 1, 1, "").text().json().replace(old, replacement);
        String found = message(Recipe.parse(folder.resolve("recipe.json"), json));
        assertTrue(found.contains(expected), found);
    }

    private String message(Recipe recipe) {
        return String.valueOf(assertThrows(GatunException.class,
                () -> runs.open(recipe, folder, 1).close()).getMessage());
    }
}
