package io.gatun.train;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Locale;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.ValueSource;

/// Is the memory that a training says it will need what it takes? On the CPU, of models that are not so small that what
/// libraries work in counts; on CUDA, `TrainingBudgetTest` of softgpu asks the same.
class TrainingMemoryTest {
    private static final double TOLERANCE = 0.1;

    enum Kind {
        LANGUAGE_MODEL("'tokenizer': 'characters', 'train_batch_size': 8, 'dropout': 0.1, 'model': {"
                + "'model_type': 'gpt2', 'n_layer': 2, 'n_head': 4, 'n_embd': 64, 'n_positions': 64}"),
        CLASSIFIER("'train_batch_size': 24, 'model': {'channels': [32, 64], 'hidden_size': 128, 'image_size': 32}"),
        VAE("'train_batch_size': 24, 'ema_decay': 0.9, 'model': {'decoder': 'mlp', 'latent_size': 20,"
                + " 'widths': [256, 512], 'image_size': 28, 'activation': 'relu'}"),
        VQ_VAE("'train_batch_size': 8, 'model': {'sample_size': 32, 'in_channels': 1, 'out_channels': 1,"
                + " 'block_out_channels': [32, 64], 'norm_num_groups': 8, 'latent_channels': 2,"
                + " 'down_block_types': ['DownEncoderBlock2D', 'DownEncoderBlock2D'],"
                + " 'up_block_types': ['UpDecoderBlock2D', 'UpDecoderBlock2D'], 'num_vq_embeddings': 16}"),
        DIFFUSION("'train_batch_size': 4, 'num_inference_steps': 2, 'ema_decay': 0.9, 'dtype': 'bf16', 'model': {"
                + "'sample_size': 32, 'in_channels': 1, 'out_channels': 1, 'block_out_channels': [32, 64],"
                + " 'norm_num_groups': 8, 'layers_per_block': 1, 'attention_head_dim': 32,"
                + " 'down_block_types': ['DownBlock2D', 'AttnDownBlock2D'],"
                + " 'up_block_types': ['AttnUpBlock2D', 'UpBlock2D']}"),
        GAN("'train_batch_size': 24, 'loss': 'wgan_gp', 'model': {'latent_size': 32, 'channels': [128, 64, 32],"
                + " 'image_channels': 1}");

        private final String fields;

        Kind(String fields) {
            this.fields = fields;
        }
    }

    @TempDir
    private Path folder;

    private Recipe recipe(Kind kind, String more) {
        return Recipe.parse(folder.resolve("recipe.json"), ("{'task': '" + kind.name().toLowerCase(Locale.ROOT) + "', "
                + kind.fields + ", 'max_steps': 2, 'sample_steps': 1, 'eval_steps': 1, 'optimizer':"
                + " {'learning_rate': 1e-3}" + more + "}").replace('\'', '"'));
    }

    private Runs runs(Kind kind) throws IOException {
        return new Runs(kind == Kind.LANGUAGE_MODEL
                ? Files.writeString(folder.resolve("text.txt"), "to be or not to be. ".repeat(400))
                : TinyPictures.write(folder.resolve("data")));
    }

    @ParameterizedTest
    @EnumSource
    void peak_isAsPlanned(Kind kind) throws IOException {
        Runs runs = runs(kind);
        Map<String, Double> figures = runs.whole(recipe(kind, ""), folder.resolve("run"));
        double planned = figures.get("planned_memory_mib");
        assertEquals(planned, figures.get("peak_memory_mib"), TOLERANCE * planned);
        assertTrue(Files.readString(folder.resolve("run/metrics.jsonl")).contains("\"peak_memory_mib\":"));
    }

    /// What oneDNN works in is a fifth of it, on any number of threads.
    @ParameterizedTest
    @ValueSource(ints = {1, 8})
    void peak_ofASmallGan(int threads) throws IOException {
        Recipe recipe = Recipe.parse(folder.resolve("recipe.json"), ("{'task': 'gan', 'train_batch_size': 24, 'model':"
                + " {'latent_size': 64, 'num_class_embeds': 2, 'channels': [128, 64, 32], 'image_channels': 1},"
                + " 'dtype': 'bf16', 'ema_decay': 0.999, 'max_steps': 2, 'sample_steps': 1, 'eval_steps': 1,"
                + " 'optimizer': {'learning_rate': 1e-3}}").replace('\'', '"'));
        Map<String, Double> figures = runs(Kind.GAN).run(recipe, folder.resolve("run"), false, 0, threads);
        double planned = figures.get("planned_memory_mib");
        assertEquals(planned, figures.get("peak_memory_mib"), TOLERANCE * planned);
    }

    /// The parts: f32 weights and gradients, two moments; what depends on the recipe changes with it.
    @Test
    void memory_ofParts() throws IOException {
        Runs runs = runs(Kind.LANGUAGE_MODEL);
        TrainingMemory f32 = memory(runs, recipe(Kind.LANGUAGE_MODEL, ""));
        long parameters = f32.parameters();
        assertTrue(parameters > 100_000, f32::toString);
        assertEquals(4 * parameters, f32.weightBytes(), 0.01 * f32.weightBytes());
        assertEquals(f32.weightBytes(), f32.gradientBytes());
        assertEquals(2 * f32.weightBytes(), f32.optimizerBytes());
        assertEquals(8, f32.batch());
        assertTrue(f32.weightBytes() + f32.gradientBytes() + f32.optimizerBytes() + f32.activationBytes()
                < f32.peakBytes(), f32::toString);
        assertTrue(f32.fits(), f32::toString);
        TrainingMemory low = memory(runs, recipe(Kind.LANGUAGE_MODEL, ", 'dtype': 'bf16', 'ema_decay': 0.9"));
        assertEquals(1.5 * f32.weightBytes(), low.weightBytes());
        assertEquals(1.5 * f32.optimizerBytes(), low.optimizerBytes());
        assertTrue(low.activationBytes() < 0.7 * f32.activationBytes(), low::toString);
        TrainingMemory again = memory(runs, recipe(Kind.LANGUAGE_MODEL, ", 'gradient_checkpointing': true"));
        assertTrue(again.activationBytes() < 0.8 * f32.activationBytes(), again::toString);
        TrainingMemory tight = new TrainingMemory(1, 1, 1, 1, 1, 1, f32.peakBytes(), f32.peakBytes() - 1);
        assertFalse(tight.fits());
    }

    private TrainingMemory memory(Runs runs, Recipe recipe) throws IOException {
        try (TrainingTask task = runs.open(recipe, Files.createTempDirectory(folder, "run"), 1)) {
            return task.memory();
        }
    }
}
