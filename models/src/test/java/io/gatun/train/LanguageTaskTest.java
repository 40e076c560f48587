package io.gatun.train;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.generate.GenerationConfig;
import io.gatun.generate.LanguageModel;
import io.gatun.io.SafetensorsFile;
import io.gatun.io.SafetensorsWriter;
import io.gatun.io.TensorSource;
import io.gatun.models.CausalModel;
import io.gatun.models.ConfigFile;
import io.gatun.models.LanguageFamily;
import io.gatun.models.TestDevice;
import io.gatun.models.WeightLoader;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.GatunException;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/// Do language models learn a text, give the same bits again and when they are resumed, and is nothing in them frozen?
@Tag("device")
class LanguageTaskTest {
    private static final int STEPS = 6;
    private static final int VOCABULARY = 9;

    /// A model of each family, as small as it can be, with every weight that the family may have.
    enum Kind {
        GPT2(LanguageFamily.GPT2, "{'model_type': 'gpt2', 'n_layer': 2, 'n_head': 2, 'n_embd': 8, 'n_positions': 8,"
                + " 'activation_function': 'gelu_new', 'layer_norm_epsilon': 1e-5}"),
        LLAMA(LanguageFamily.LLAMA, "{'model_type': 'llama', 'num_hidden_layers': 2, 'hidden_size': 8,"
                + " 'intermediate_size': 12, 'num_attention_heads': 2, 'num_key_value_heads': 1, 'hidden_act': 'silu',"
                + " 'rms_norm_eps': 1e-6, 'max_position_embeddings': 8, 'attention_bias': true, 'mlp_bias': true,"
                + " 'rope_theta': 10000.0}");

        private final LanguageFamily family;
        private final String config;

        Kind(LanguageFamily family, String config) {
            this.family = family;
            this.config = config.replace('\'', '"');
        }
    }

    @TempDir
    private Path folder;
    private Runs runs;

    @BeforeEach
    void writeText() throws IOException {
        runs = new Runs(Files.writeString(folder.resolve("text.txt"), "abcde fgh, ".repeat(40)));
    }

    private Recipe recipe(Kind kind, int steps, int seed, String more) {
        return Recipe.parse(folder.resolve("recipe.json"), ("{'task': 'language_model', 'tokenizer': 'characters',"
                + " 'model': " + kind.config + ", 'max_steps': " + steps + ", 'train_batch_size': 2,"
                + " 'max_grad_norm': 1, 'lr_scheduler': {'name': 'cosine', 'warmup_steps': 2},"
                + " 'optimizer': {'learning_rate': 0.03}, 'seed': " + seed + more + "}").replace('\'', '"'));
    }

    /// With dropout; with evaluations on the way and another number of threads, which change nothing; and another seed
    /// gives other weights.
    @ParameterizedTest
    @EnumSource(Kind.class)
    void run_againAndResumedIsBitEqual(Kind kind) {
        Recipe recipe = recipe(kind, STEPS, 7, ", 'dropout': 0.2, 'ema_decay': 0.5");
        Path whole = folder.resolve("whole");
        runs.whole(recipe, whole);
        Map<String, float[]> expected = Runs.state(whole, STEPS);
        Path again = folder.resolve("again");
        runs.run(recipe(kind, STEPS, 7, ", 'dropout': 0.2, 'ema_decay': 0.5, 'eval_steps': 2, 'save_steps': 1"), again,
                false, 0, 2);
        Runs.assertEqualBits(expected, Runs.state(again, STEPS));
        Path stopped = folder.resolve("stopped");
        runs.run(recipe, stopped, false, STEPS / 2, 1);
        assertFalse(Files.exists(stopped.resolve("model")));
        runs.run(recipe, stopped, true, 0, 1);
        Runs.assertEqualBits(expected, Runs.state(stopped, STEPS));
        Path other = folder.resolve("other");
        runs.whole(recipe(kind, STEPS, 8, ", 'dropout': 0.2, 'ema_decay': 0.5"), other);
        Path kept = folder.resolve("kept");
        runs.whole(recipe(kind, STEPS, 7, ", 'ema_decay': 0.5"), kept);
        String some = "model." + kind.family.prefix() + (kind == Kind.GPT2 ? "wte.weight" : "embed_tokens.weight");
        assertFalse(Arrays.equals(expected.get(some), Runs.state(other, STEPS).get(some)), "the seed does nothing");
        assertFalse(Arrays.equals(expected.get(some), Runs.state(kept, STEPS).get(some)), "dropout does nothing");
    }

    /// The same gradients, of passes that make one step, resumed between two steps.
    @ParameterizedTest
    @EnumSource(Kind.class)
    void run_accumulatedAndRecomputedIsBitEqual(Kind kind) {
        String more = ", 'dropout': 0.2, 'gradient_accumulation_steps': 2";
        Path whole = folder.resolve("whole");
        runs.whole(recipe(kind, STEPS, 7, more), whole);
        Path stopped = folder.resolve("stopped");
        Recipe recomputing = recipe(kind, STEPS, 7, more + ", 'gradient_checkpointing': true");
        runs.run(recomputing, stopped, false, STEPS / 2, 1);
        runs.run(recomputing, stopped, true, 0, 1);
        Runs.assertEqualBits(Runs.state(whole, STEPS), Runs.state(stopped, STEPS));
    }

    /// The text is learned, and the model that is written goes on with it.
    @ParameterizedTest
    @EnumSource(Kind.class)
    void run_learnsAndOpens(Kind kind) {
        Map<String, Double> figures = runs.whole(recipe(kind, 60, 1, ""), folder.resolve("run"));
        assertTrue(figures.get("eval_loss") < 0.5, figures::toString);
        assertEquals(Math.exp(figures.get("eval_loss")), figures.get("eval_perplexity"), 1e-9);
        try (LanguageModel model = LanguageModel.load(folder.resolve("run/model"), LanguageModel.Options.defaults()
                .withDevice(TestDevice.NAME).withMaxBatch(1).withCacheTokens(64))) {
            assertEquals("fgh", model.generate("bcde ", GenerationConfig.builder().maxNewTokens(3).ignoreEos(true)
                    .build()).text());
        }
    }

    /// A head of its own is not trained: that would give another model without a word. The embedding once more is fine.
    @Test
    void open_refusesAHeadOfItsOwn() throws IOException {
        runs.whole(recipe(Kind.LLAMA, 1, 1, ""), folder.resolve("run"));
        Path weights = folder.resolve("run/model/model.safetensors");
        Map<String, TensorSource> tensors = new LinkedHashMap<>();
        try (SafetensorsFile file = SafetensorsFile.open(weights)) {
            for (String name : file.names()) {
                tensors.put(name, TensorSource.of(file.floats(name), file.info(name).shape()));
            }
            float[] embedding = file.floats("model.embed_tokens.weight");
            long[] shape = file.info("model.embed_tokens.weight").shape();
            tensors.put("lm_head.weight", TensorSource.of(embedding, shape));
            float[] other = embedding.clone();
            other[3] += 1;
            Recipe goesOn = Recipe.parse(folder.resolve("recipe.json"), recipe(Kind.LLAMA, 1, 1, "").text().json()
                    .replace("\"model\": " + Kind.LLAMA.config, "\"model\": \"run/model\""));
            SafetensorsWriter.write(weights, tensors, Map.of());
            runs.open(goesOn, folder, 1).close();
            tensors.put("lm_head.weight", TensorSource.of(other, shape));
            SafetensorsWriter.write(weights, tensors, Map.of());
            assertRefused(goesOn, "has a head of its own, 'lm_head.weight'");
        }
        assertRefused(Recipe.parse(folder.resolve("recipe.json"), recipe(Kind.LLAMA, 1, 1, "").text().json()
                .replace("'rope_theta'".replace('\'', '"'), "\"tie_word_embeddings\": false, \"rope_theta\"")),
                "a head of its own cannot be trained yet");
        assertRefused(Recipe.parse(folder.resolve("recipe.json"), recipe(Kind.GPT2, 1, 1, "").text().json()
                .replace("\"train_batch_size\": 2", "\"train_batch_size\": 20")), "has no batch of 20 windows");
    }

    private void assertRefused(Recipe recipe, String why) {
        String message = assertThrows(GatunException.class, () -> runs.open(recipe, folder, 1).close()).getMessage();
        assertTrue(message.contains(why), message);
    }

    /// The gradients are those of central differences, none is 0, and the loss is another when any of the tensors is.
    @ParameterizedTest
    @EnumSource(Kind.class)
    void everyParameter_hasAGradient(Kind kind) {
        ConfigFile config = ConfigFile.parse("model", kind.config).withDefaults(Map.of("vocab_size", VOCABULARY));
        Random random = new Random(3);
        try (Device device = Device.open(TestDevice.NAME)) {
            List<Parameters.Shape> shapes = Parameters.of(device, kind.family.prefix(),
                    loader -> kind.family.declare(config, loader));
            assertEquals(kind == Kind.GPT2 ? 2 * 12 + 4 : 2 * (2 + 2 * 7) + 2, shapes.size());
            try (Trainer trainer = new Trainer(device, shapes, new UpdateRule.Sgd(0, false, 0), 0)) {
                Map<String, float[]> values = new LinkedHashMap<>();
                new Initialiser(1).language(shapes, 0.4, 2).forEach((name, v) -> values.put(name, near(v, random)));
                trainer.set(values);
                CausalModel model = kind.family.build(config, DType.F32, WeightLoader.trained(
                        trainer.parameters().weights(), trainer.arena(), trainer.stream(), DType.F32,
                        kind.family.prefixes()), trainer.arena());
                LanguageLoss loss = new LanguageLoss(trainer, 2, 5);
                loss.setBatch(trainer.stream(), random.longs(10, 0, VOCABULARY).toArray());
                GradientCheck.Report report = GradientCheck.of(trainer, net -> loss.of(net, model));
                report.requireCorrect();
                assertEquals(List.of(), report.withoutGradient());
                trainer.loss(net -> loss.of(net, model));
                trainer.step();
                float here = trainer.result().loss();
                values.forEach((name, v) -> {
                    trainer.set(Map.of(name, near(v, random)));
                    trainer.step();
                    assertNotEquals(here, trainer.result().loss(), name + " does nothing");
                    trainer.set(Map.of(name, v));
                });
                trainer.step();
                assertEquals(here, trainer.result().loss(), "with all values as they were");
            }
        }
    }

    private static float[] near(float[] values, Random random) {
        float[] changed = new float[values.length];
        for (int i = 0; i < values.length; i++) {
            changed[i] = values[i] + 0.1f * (float) random.nextGaussian();
        }
        return changed;
    }
}
