package io.gatun.train;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.runtime.DType;
import io.gatun.runtime.GatunException;
import io.gatun.train.LearningRates.Schedule;
import io.gatun.train.Recipe.GanLoss;
import io.gatun.train.Recipe.PredictionType;
import io.gatun.train.Recipe.Reconstruction;
import io.gatun.train.Recipe.Vocabulary;
import io.gatun.train.TrainingSettings.LrScheduler;
import io.gatun.train.TrainingSettings.Optimizer;
import io.gatun.train.TrainingSettings.OptimizerName;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/// Are recipes read as written, and is what does not exist refused by name?
class RecipeTest {
    private static final String LEAST = "'max_steps': 10, 'optimizer': {'learning_rate': 1e-3}, 'model': {'x': 1}";

    @TempDir
    private Path folder;

    private Recipe parse(String json) {
        return Recipe.parse(folder.resolve("recipe.json"), json.replace('\'', '"'));
    }

    private Recipe parse(String task, String more) {
        return parse("{'task': '%s', %s%s}".formatted(task, LEAST, more.isEmpty() ? "" : ", " + more));
    }

    private void fails(String json, String... parts) {
        String message = assertThrows(GatunException.class, () -> parse(json), json).getMessage();
        assertTrue(message.startsWith(folder.resolve("recipe.json").toString()), message);
        assertEquals(1, message.lines().count(), message);
        for (String part : parts) {
            assertTrue(message.contains(part), () -> "no \"" + part + "\" in: " + message);
        }
    }

    @Test
    void read_languageModel() throws IOException {
        Path file = folder.resolve("gpt.json");
        Files.writeString(file, """
                {"task": "language_model", "model": {"model_type": "gpt2", "n_layer": 2}, "tokenizer": "characters",
                 "block_size": 64, "seed": 7, "max_steps": 100, "train_batch_size": 4, "gradient_accumulation_steps": 2,
                 "optimizer": {"name": "adamw", "learning_rate": 1e-3, "betas": [0.9, 0.95], "eps": 1e-9,
                               "weight_decay": 0.1},
                 "lr_scheduler": {"name": "cosine", "warmup_steps": 10, "min_lr": 1e-4},
                 "max_grad_norm": 1.0, "ema_decay": 0.999, "dtype": "bf16", "export_dtype": "f16", "dropout": 0.1,
                 "gradient_checkpointing": true, "logging_steps": 5, "eval_steps": 20, "save_steps": 30,
                 "sample_steps": 40, "save_total_limit": 3, "label_smoothing_factor": 0.05}
                """);
        var recipe = assertInstanceOf(Recipe.LanguageModel.class, Recipe.read(file));
        assertEquals(new TrainingSettings(7, 100, 0, 4, 2,
                new Optimizer(OptimizerName.ADAMW, 1e-3, 0.9, 0.95, 1e-9, 0.1, 0, false, 0),
                new LrScheduler(Schedule.COSINE, 10, 1e-4), 1, 0.999, DType.BF16, DType.F16, 0.1, true, 5, 20, 30, 40,
                        3),
                recipe.settings());
        var config = assertInstanceOf(ModelSource.Config.class, recipe.model()).config();
        assertEquals(2, config.requireInt("n_layer", 1, 9));
        assertEquals(new Vocabulary.Characters(), recipe.vocabulary());
        assertEquals(64, recipe.blockSize());
        assertEquals(0.05, recipe.labelSmoothing());
        assertNull(recipe.lora());
        assertArrayEquals(LearningRates.table(Schedule.COSINE, 1e-3, 10, 1e-4, 100),
                recipe.settings().learningRates(100));
    }

    @Test
    void parse_defaultsAreThoseOfTheField() {
        TrainingSettings settings = parse("classifier", "").settings();
        assertEquals(new TrainingSettings(0, 10, 0, 8, 1,
                new Optimizer(OptimizerName.ADAMW, 1e-3, 0.9, 0.999, 1e-8, 0.01, 0, false, 0),
                new LrScheduler(Schedule.CONSTANT, 0, 0), 0, 0, DType.F32, DType.F32, 0, false, 10, 0, 0, 0, 2),
                settings);
    }

    @Test
    void parse_loraOfADirectory() throws IOException {
        Files.createDirectories(folder.resolve("base"));
        Files.writeString(folder.resolve("base/config.json"), "{}");
        String json = "{'task': 'language_model', 'num_train_epochs': 2, 'model': 'base',"
                + " 'optimizer': {'learning_rate': 1e-3}, 'lora': {'r': 4, 'lora_alpha': 16,"
                + " 'target_modules': ['c_attn'], 'lora_dropout': 0.0, 'use_rslora': true,"
                + " 'rank_pattern': {'h.0.attn.c_attn': 2}, 'alpha_pattern': {'c_proj': 3.5}}}";
        var recipe = assertInstanceOf(Recipe.LanguageModel.class, parse(json));
        assertEquals(new LoraSettings(4, 16, List.of("c_attn"), true, Map.of("h.0.attn.c_attn", 2),
                Map.of("c_proj", 3.5)), recipe.lora());
        assertEquals(new ModelSource.Directory(folder.resolve("base")), recipe.model());
        assertEquals(new Vocabulary.Directory(folder.resolve("base")), recipe.vocabulary());
        fails(json.replace("0.0", "0.1"), "'lora.lora_dropout' is 0.1, expected 0");
        fails(json.replace("'base'", "{}"), "'model' is {}, expected the directory of the model that lora adapts");
        fails(json.replace("'base'", "'bass'"), "expected a directory with config.json or model_index.json; there is"
                + " none at " + folder.resolve("bass"));
        fails(json.replace("'r'", "'rank'"), "unknown field 'lora.rank'; the nearest that exists is"
                + " 'lora.rank_pattern'");
        fails(json.replace("3.5", "0"), "'lora.alpha_pattern.c_proj' is 0");
    }

    @Test
    void parse_imageTasks() {
        var diffusion = assertInstanceOf(Recipe.Diffusion.class, parse("diffusion", "'prediction_type': 'v_prediction',"
                + " 'snr_gamma': 5, 'class_dropout_prob': 0.1, 'scheduler': {'beta_schedule': 'linear'},"
                + " 'num_inference_steps': 20, 'guidance_scale': 2"));
        assertEquals(PredictionType.V_PREDICTION, diffusion.predictionType());
        assertEquals(List.of(5.0, 0.1, 2.0),
                List.of(diffusion.snrGamma(), diffusion.classDropoutProb(), diffusion.guidanceScale()));
        assertEquals("linear", diffusion.scheduler().config().requireString("beta_schedule"));
        assertEquals("DDPMScheduler", assertInstanceOf(Recipe.Diffusion.class, parse("diffusion", "")).scheduler()
                .config().requireString("_class_name"));
        String edm = "'scheduler': {'_class_name': 'EDMEulerScheduler'}";
        for (String fields : new String[] {edm, edm + ", 'p_mean': 0.5, 'p_std': 2"}) {
            var continuous = assertInstanceOf(Recipe.Diffusion.class, parse("diffusion", fields));
            assertEquals(fields.equals(edm) ? List.of(-1.2, 1.2) : List.of(0.5, 2.0),
                    List.of(continuous.pMean(), continuous.pStd()));
        }
        fails("{'task': 'diffusion', " + LEAST + ", " + edm + ", 'snr_gamma': 5}", "has weights of its own");
        fails("{'task': 'diffusion', " + LEAST + ", " + edm + ", 'p_std': -1}", "'p_std' is -1");
        fails("{'task': 'diffusion', " + LEAST + ", 'p_mean': 1}", "it belongs to EDMEulerScheduler");
        var vae = assertInstanceOf(Recipe.Vae.class, parse("vae", "'beta': 0.5"));
        assertEquals(0.5, vae.beta());
        assertEquals(Reconstruction.BCE, vae.reconstruction());
        var vqVae = assertInstanceOf(Recipe.VqVae.class, parse("vq_vae", ""));
        assertEquals(0.25, vqVae.commitmentCost());
        assertEquals(Reconstruction.MSE, vqVae.reconstruction());
    }

    @Test
    void parse_gan() {
        var wgan = assertInstanceOf(Recipe.Gan.class, parse("gan", "'loss': 'wgan', 'clip_value': 0.02,"
                + " 'discriminator': {'channels': [8]}, 'discriminator_optimizer': {'name': 'rmsprop',"
                + " 'learning_rate': 5e-5}"));
        assertEquals(GanLoss.WGAN, wgan.loss());
        assertEquals(5, wgan.nCritic());
        assertEquals(0.02, wgan.clipValue());
        assertEquals(new Optimizer(OptimizerName.RMSPROP, 5e-5, 0, 0, 1e-8, 0, 0, false, 0.99),
                wgan.discriminatorOptimizer());
        var bce = assertInstanceOf(Recipe.Gan.class, parse("gan", ""));
        assertEquals(1, bce.nCritic());
        assertEquals(bce.settings().optimizer(), bce.discriminatorOptimizer());
        assertNull(bce.discriminator());
        assertEquals(10, assertInstanceOf(Recipe.Gan.class, parse("gan", "'loss': 'wgan_gp'")).lambdaGp());
        fails("{'task': 'gan', " + LEAST + ", 'clip_value': 1}", "'clip_value' is 1, expected no such field: it belongs"
                + " to wgan");
        fails("{'task': 'gan', " + LEAST + ", 'loss': 'wgan', 'lambda_gp': 1}", "it belongs to wgan_gp");
    }

    @ParameterizedTest
    @CsvSource({"batch_size, train_batch_size", "epochs, num_train_epochs", "lora_alpha, lora", "steps, max_steps",
        "max_grad_nrom, max_grad_norm", "tokeniser, tokenizer", "dropuot, dropout", "grad_norm, max_grad_norm",
        "warmup_steps, max_steps"})
    void parse_unknownFieldNamesTheNearest(String field, String nearest) {
        fails("{'task': 'language_model', " + LEAST + ", '%s': 1}".formatted(field),
                "unknown field '%s'; the nearest that exists is '%s'".formatted(field, nearest));
    }

    @Test
    void parse_fieldsOfOtherTasks() {
        fails("{'task': 'gan', " + LEAST + ", 'prediction_type': 'epsilon'}", "field 'prediction_type' is \"epsilon\","
                + " expected no such field: it belongs to diffusion");
        fails("{'task': 'vae', " + LEAST + ", 'label_smoothing_factor': 0.1}",
                "no such field: it belongs to language_model and classifier");
    }

    @Test
    void parse_unknownFieldsInside() {
        fails("{'task': 'vae', 'max_steps': 1, 'model': {}, 'optimizer': {'lr': 1}}", "unknown field 'optimizer.lr';"
                + " the nearest that exists is 'optimizer.");
        fails("{'task': 'vae', " + LEAST + ", 'lr_scheduler': {'warmup_step': 1}}",
                "'lr_scheduler.warmup_step'; the nearest that exists is 'lr_scheduler.warmup_steps'");
    }

    @ParameterizedTest
    @CsvSource(delimiter = '|', quoteCharacter = '`', value = {
        "'task': 'vea' | 'task' is \"vea\", expected language_model or diffusion or vae or vq_vae",
        "'max_steps': 10 | field 'task' is missing",
        "'task': 'vae', 'max_steps': 0, 'optimizer': {'learning_rate': 1} | 'max_steps' is 0, expected an integer",
        "'task': 'vae', 'max_steps': 1.5, 'optimizer': {'learning_rate': 1} | 'max_steps' is 1.5, expected an integer",
        "'task': 'vae' | expected a number of steps here, or of epochs as num_train_epochs",
        "'task': 'vae', 'max_steps': 1, 'num_train_epochs': 1 | only one of max_steps and num_train_epochs",
        "'task': 'vae', 'max_steps': 1 | field 'optimizer.learning_rate' is missing",
        "'task': 'vae', 'max_steps': 1, 'optimizer': 3 | 'optimizer' is 3, expected an object",
        "'task': 'vae', 'max_steps': 1, 'optimizer': {'learning_rate': '1e-3'} | is \"1e-3\", expected a number",
        "'task': 'vae', 'max_steps': 1, 'optimizer': {'learning_rate': -1} | expected a number of at least 0",
        "'task': 'vae', 'max_steps': 1, 'optimizer': {'learning_rate': 1} | 'model' is null, expected the config",
        "'task': 'vae', 'max_steps': 1, 'max_steps': 2 | Duplicate field 'max_steps'",
        "'task': 'vae', | not valid JSON"})
    void parse_refusesInOneLine(String fields, String expected) {
        fails("{" + fields + "}", expected);
    }

    @ParameterizedTest
    @CsvSource(delimiter = '|', quoteCharacter = '`', value = {
        "'seed': -1 | 'seed' is -1", "'dropout': 1 | 'dropout' is 1, expected a number of at least 0 and below 1",
        "'dropout': true | 'dropout' is true, expected a number", "'dtype': 'fp16' | expected f32 or bf16 or f16",
        "'ema_decay': 1.5 | expected a number from 0.0 to 1.0", "'beta': -1 | expected a number of at least 0",
        "'gradient_checkpointing': 1 | expected true or false", "'reconstruction': 'l1' | expected bce or mse",
        "'lr_scheduler': {'name': 'poly'} | expected constant or linear or cosine",
        "'lr_scheduler': {'min_lr': 1e-4} | it belongs to cosine",
        "'lr_scheduler': {'name': 'cosine', 'min_lr': 1} | expected a number from 0.0 to 0.001"})
    void parse_refusesValues(String field, String expected) {
        fails("{'task': 'vae', " + LEAST + ", " + field + "}", expected);
    }

    @ParameterizedTest
    @CsvSource(delimiter = '|', quoteCharacter = '`', value = {
        "'momentum': 0.9 | betas are those of Adam", "'name': 'sgd', 'betas': [0, 0] | belong to adamw and adam",
        "'name': 'sgd', 'eps': 1 | it belongs to adamw, adam and rmsprop", "'nesterov': true | it belongs to sgd",
        "'name': 'sgd', 'nesterov': true | expected momentum with it", "'alpha': 0.9 | it belongs to rmsprop",
        "'betas': [0.9] | two numbers of at least 0 and below 1", "'betas': [0.9, 1] | two numbers",
        "'betas': 0.9 | a list of numbers", "'name': 'adamax' | expected adamw or adam or sgd or rmsprop"})
    void parse_refusesSettingsOfOtherOptimizers(String field, String expected) {
        fails("{'task': 'vae', 'max_steps': 1, 'model': {}, 'optimizer': {'learning_rate': 1e-3, " + field + "}}",
                expected);
    }

    @Test
    void parse_languageModelNeedsAVocabulary() {
        fails("{'task': 'language_model', " + LEAST + "}", "'tokenizer' is null, expected characters, bytes, or a"
                + " directory with tokenizer.json");
        fails("{'task': 'language_model', " + LEAST + ", 'tokenizer': 'chars'}", "'tokenizer' is \"chars\"");
    }

    @Test
    void read_saysWhichFileIsMissing() {
        String message = assertThrows(GatunException.class, () -> Recipe.read(folder.resolve("none.json")))
                .getMessage();
        assertTrue(message.contains("none.json: no such recipe"), message);
    }

    @Test
    void hash_dependsOnWhatIsLearnedAlone() {
        Recipe recipe = parse("vae", "'beta': 1.0, 'save_steps': 5");
        assertEquals(recipe.hash(), parse("{'beta': 1,\n 'save_steps': 7, 'task': 'vae', 'max_steps': 10.0e0,"
                .replace("10.0e0", "10") + "'model': {'x': 1}, 'optimizer': {'learning_rate': 0.001}}").hash());
        Recipe other = parse("vae", "'beta': 2, 'seed': 3");
        assertNotEquals(recipe.hash(), other.hash());
        assertEquals("beta is 1 there, 2 here; seed is absent there, 3 here",
                other.text().differences(recipe.text()));
        assertEquals("", recipe.text().differences(recipe.text()));
        assertEquals(64, recipe.hash().length());
    }

    @Test
    void steps_ofEpochs() {
        TrainingSettings settings = parse("{'task': 'vae', 'num_train_epochs': 3, 'gradient_accumulation_steps': 4,"
                + "'model': {'x': 1}, 'optimizer': {'learning_rate': 0.001}}").settings();
        assertEquals(7, settings.steps(10));
        assertThrows(GatunException.class, () -> settings.steps(1));
        assertEquals(10, parse("vae", "").settings().steps(1));
    }
}
