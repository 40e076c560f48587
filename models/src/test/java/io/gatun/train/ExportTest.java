package io.gatun.train;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.diffusion.ImageModel;
import io.gatun.diffusion.Images;
import io.gatun.diffusion.SampleConfig;
import io.gatun.generate.GenerationConfig;
import io.gatun.generate.LanguageModel;
import io.gatun.io.SafetensorsFile;
import io.gatun.io.StoredDType;
import io.gatun.models.ConfigFile;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;
import java.util.stream.Collectors;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// What of a training is in the model directory that it ends with?
class ExportTest {
    private static final String VAE = """
            {"task": "vae", "model": {"decoder": "mlp", "latent_size": 3, "widths": [4], "image_size": 8,
             "activation": "relu"}, "max_steps": 2, "optimizer": {"learning_rate": 0.01}%s}""";
    @TempDir
    private Path folder;
    private Path pictures;

    @BeforeEach
    void writeData() throws IOException {
        pictures = TinyPictures.write(folder.resolve("data"));
    }

    private Path run(String json, Path data) {
        return run(json, data, false);
    }

    /// @return the model directory
    private Path run(String json, Path data, boolean resume) {
        Recipe recipe = Recipe.parse(folder.resolve("recipe.json"), json);
        Path root = folder.resolve("run");
        new Runs(data).run(recipe, root, resume, 0, 1);
        return root.resolve("model");
    }

    private static Map<String, StoredDType> dtypes(Path file) {
        try (SafetensorsFile tensors = SafetensorsFile.open(file)) {
            return tensors.names().stream().collect(Collectors.toMap(name -> name, name -> tensors.info(name).dtype()));
        }
    }

    @Test
    void languageModel_saysItsDtype() throws IOException {
        Path text = Files.writeString(folder.resolve("text.txt"), "to be or not to be that is the question ".repeat(9));
        String json = """
                {"task": "language_model", "model": {"model_type": "gpt2", "n_embd": 8, "n_layer": 1, "n_head": 2,
                 "n_positions": 16, "dtype": "float32"}, "tokenizer": "characters", "max_steps": 2,
                 "train_batch_size": 2, "export_dtype": "bf16", "optimizer": {"learning_rate": 0.01}}""";
        Path model = run(json, text);
        assertTrue(dtypes(model.resolve("model.safetensors")).values().stream().allMatch(StoredDType.BF16::equals));
        ConfigFile config = ConfigFile.read(model.resolve("config.json"));
        assertEquals("bfloat16", config.requireString("torch_dtype"));
        assertFalse(config.has("dtype"));
        try (LanguageModel opened = LanguageModel.load(model)) {
            assertEquals(3, opened.generate("to b", GenerationConfig.builder().maxNewTokens(3).build()).ids().length);
        }
    }

    @Test
    void vae_withoutItsEncoder() {
        Path model = run(VAE.formatted(", \"export_dtype\": \"bf16\", \"export_encoder\": false"), pictures);
        Map<String, StoredDType> tensors = dtypes(model.resolve("model.safetensors"));
        assertEquals("[dec1.bias, dec1.weight, dec2.bias, dec2.weight]", tensors.keySet().stream().sorted().toList()
                .toString());
        assertTrue(tensors.values().stream().allMatch(StoredDType.BF16::equals), tensors.toString());
        assertDraws(model, SampleConfig.builder().count(2));
    }

    /// How a model is written may change when its run goes on, also after its end.
    @Test
    void vae_writtenAnew() throws IOException {
        Path model = run(VAE.formatted(""), pictures);
        float[] exact;
        try (SafetensorsFile tensors = SafetensorsFile.open(model.resolve("model.safetensors"))) {
            assertTrue(tensors.names().contains("enc.weight"), tensors.names().toString());
            exact = tensors.floats("dec1.weight");
        }
        run(VAE.formatted(", \"export_dtype\": \"f16\""), pictures, true);
        try (SafetensorsFile tensors = SafetensorsFile.open(model.resolve("model.safetensors"))) {
            assertEquals(StoredDType.F16, tensors.info("dec1.weight").dtype());
            for (int i = 0; i < exact.length; i++) {
                exact[i] = Float.float16ToFloat(Float.floatToFloat16(exact[i]));
            }
            assertArrayEquals(exact, tensors.floats("dec1.weight"));
        }
        assertTrue(Files.readString(folder.resolve("run/recipe.json")).contains("export_dtype"));
    }

    @Test
    void gan_withoutItsDiscriminator() {
        Path model = run("""
                {"task": "gan", "model": {"latent_size": 4, "channels": [4], "image_channels": 1}, "max_steps": 1,
                 "train_batch_size": 4, "optimizer": {"learning_rate": 0.01}, "export_dtype": "bf16",
                 "export_discriminator": false}""", pictures);
        Map<String, StoredDType> tensors = dtypes(model.resolve("model.safetensors"));
        assertTrue(tensors.keySet().stream().allMatch(name -> name.startsWith("generator.")), tensors.toString());
        assertEquals(StoredDType.BF16, tensors.get("generator.0.weight"));
        assertEquals(StoredDType.F32, tensors.get("generator.1.running_var"));
        assertFalse(ConfigFile.read(model.resolve("config.json")).has("discriminator"));
        assertDraws(model, SampleConfig.builder().count(2));
    }

    @Test
    void diffusion_carriesItsSteps() {
        Path model = run("""
                {"task": "diffusion", "model": {"sample_size": 8, "in_channels": 1, "out_channels": 1,
                 "block_out_channels": [4], "norm_num_groups": 2, "layers_per_block": 1, "num_class_embeds": 3,
                 "attention_head_dim": 4, "down_block_types": ["DownBlock2D"], "up_block_types": ["UpBlock2D"]},
                 "scheduler": {"_class_name": "DDIMScheduler"}, "class_dropout_prob": 0.1, "guidance_scale": 2,
                 "num_inference_steps": 3, "max_steps": 1, "train_batch_size": 2, "export_dtype": "bf16",
                 "optimizer": {"learning_rate": 0.01}}""", pictures);
        assertEquals(3, assertDraws(model, SampleConfig.builder().count(2).classes(0, 1)).calls());
        assertEquals(5, assertDraws(model, SampleConfig.builder().classes(0).steps(5)).calls());
        assertTrue(dtypes(model.resolve("unet/diffusion_pytorch_model.safetensors")).values().stream()
                .allMatch(StoredDType.BF16::equals));
    }

    /// How a finished run's model draws may be decided anew; its weights stay.
    @Test
    void diffusion_drawsOtherwiseWhenResumed() throws IOException {
        String recipe = """
                {"task": "diffusion", "model": {"sample_size": 8, "in_channels": 1, "out_channels": 1,
                 "block_out_channels": [4], "norm_num_groups": 2, "layers_per_block": 1, "attention_head_dim": 4,
                 "down_block_types": ["DownBlock2D"], "up_block_types": ["UpBlock2D"]},
                 "scheduler": {"_class_name": "DDIMScheduler"%s}, "num_inference_steps": %d, "max_steps": 1,
                 "train_batch_size": 2, "optimizer": {"learning_rate": 0.01}}""";
        Path model = run(recipe.formatted("", 3), pictures);
        byte[] weights = Files.readAllBytes(model.resolve("unet/diffusion_pytorch_model.safetensors"));
        run(recipe.formatted(", \"clip_sample\": false", 4), pictures, true);
        assertArrayEquals(weights, Files.readAllBytes(model.resolve("unet/diffusion_pytorch_model.safetensors")));
        assertEquals(4, assertDraws(model, SampleConfig.builder()).calls());
        assertFalse(ConfigFile.read(model.resolve("scheduler/scheduler_config.json")).getBoolean("clip_sample", true));
    }

    private static Images assertDraws(Path model, SampleConfig.Builder settings) {
        try (ImageModel opened = ImageModel.load(model)) {
            Images images = opened.sample(settings.build());
            assertTrue(images.failed().isEmpty(), images.failed().toString());
            return images;
        }
    }
}
