package io.gatun.demomodels;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.diffusion.ImageModel;
import io.gatun.diffusion.Images;
import io.gatun.diffusion.SampleConfig;
import io.gatun.evaluate.ImageJudge;
import io.gatun.generate.GenerationConfig;
import io.gatun.generate.LanguageModel;
import io.gatun.io.SafetensorsFile;
import io.gatun.models.DemoModels;
import io.gatun.runtime.GatunException;
import io.gatun.train.Recipe;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Set;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/// Are the models all there, do they open, and does each say how it was made?
class DemoModelsTest {
    private static final long MAX_BYTES = 16_000_000;
    /// What a model needs, its card and its recipe; a checkpoint's training state is none of it.
    private static final Set<String> FILES = Set.of("README.md", "recipe.json", "config.json", "model.safetensors",
            "tokenizer.json", "tokenizer_config.json", "model_index.json", "scheduler_config.json",
            "diffusion_pytorch_model.safetensors");
    private static final Path RECIPES = Path.of(System.getProperty("gatun.root"), "docs/recipes");

    private static List<Path> filesOf(String name) throws IOException {
        try (Stream<Path> all = Files.walk(DemoModels.directory(name))) {
            return all.filter(Files::isRegularFile).toList();
        }
    }

    @Test
    void names_areTheFive() {
        assertEquals(List.of("digits-classifier", "digits-diffusion", "digits-gan", "digits-vae", "shakespeare"),
                DemoModels.names());
        GatunException e = assertThrows(GatunException.class, () -> DemoModels.directory("digits"));
        assertTrue(e.getMessage().contains("no demo model digits, expected one of [digits-classifier"), e.getMessage());
    }

    @Test
    void all_areSmall() throws IOException {
        long bytes = 0;
        for (String name : DemoModels.names()) {
            for (Path file : filesOf(name)) {
                bytes += Files.size(file);
                assertTrue(FILES.contains(file.getFileName().toString()), file + " is not part of a model");
            }
        }
        assertTrue(bytes <= MAX_BYTES, "all models have %,d bytes, expected at most %,d".formatted(bytes, MAX_BYTES));
    }

    @ParameterizedTest
    @ValueSource(strings = {"digits-classifier", "digits-diffusion", "digits-gan", "digits-vae", "shakespeare"})
    void model_hasFiniteTensors(String name) throws IOException {
        int tensors = 0;
        for (Path file : filesOf(name)) {
            if (file.toString().endsWith(".safetensors")) {
                try (SafetensorsFile weights = SafetensorsFile.open(file)) {
                    for (String tensor : weights.names()) {
                        tensors++;
                        for (float value : weights.floats(tensor)) {
                            assertTrue(Float.isFinite(value), () -> file + ": " + tensor + " holds " + value);
                        }
                    }
                }
            }
        }
        assertTrue(tensors > 0, name + " has no weights");
    }

    /// The card's command makes the model again.
    @ParameterizedTest
    @ValueSource(strings = {"digits-classifier", "digits-diffusion", "digits-gan", "digits-vae", "shakespeare"})
    void card_namesRecipeAndCommand(String name) throws IOException {
        String card = Files.readString(DemoModels.directory(name).resolve("README.md"));
        assertTrue(card.contains("./gatun train --recipe docs/recipes/" + name + ".json --data "), card);
        for (String heading : List.of("# " + name, "## How it was made", "## Data", "## Figures", "license: ")) {
            assertTrue(card.contains(heading), () -> "no '" + heading + "' in " + card);
        }
        Recipe recipe = Recipe.read(DemoModels.directory(name).resolve("recipe.json"));
        assertEquals(Files.readString(RECIPES.resolve(name + ".json")), recipe.text().json(),
                "docs/recipes and the artifact");
    }

    @Test
    void shakespeare_writes() {
        try (LanguageModel model = LanguageModel.load(DemoModels.shakespeare())) {
            GenerationConfig config = GenerationConfig.builder().maxNewTokens(8).build();
            assertEquals(8, model.generate("ROMEO:", config).ids().length);
        }
    }

    @Test
    void digits_areDrawn() {
        for (Path directory : List.of(DemoModels.digitsVae(), DemoModels.digitsGan(), DemoModels.digitsDiffusion())) {
            SampleConfig.Builder settings = SampleConfig.builder().count(2);
            if (!directory.equals(DemoModels.digitsVae())) {
                settings.classes(3);
            }
            if (directory.equals(DemoModels.digitsDiffusion())) {
                settings.steps(2);
            }
            try (ImageModel model = ImageModel.load(directory)) {
                Images images = model.sample(settings.build());
                assertTrue(images.failed().isEmpty(), images.failed().toString());
            }
        }
    }

    @Test
    void digits_areJudged() {
        try (ImageJudge judge = new ImageJudge(DemoModels.digitsClassifier(), "cpu", 1)) {
            assertEquals(10, judge.classes());
            assertEquals(1, judge.judge(new float[judge.size() * judge.size() * judge.channels()]).labels().length);
        }
    }

    @Test
    void directory_isMendedWhereAFileIsShort() throws IOException {
        Path file = DemoModels.digitsGan().resolve("model.safetensors");
        byte[] whole = Files.readAllBytes(file);
        Files.write(file, new byte[5]);
        assertEquals(file, DemoModels.digitsGan().resolve("model.safetensors"));
        assertArrayEquals(whole, Files.readAllBytes(file));
        Files.delete(file);
        DemoModels.digitsGan();
        assertArrayEquals(whole, Files.readAllBytes(file));
        assertFalse(file.startsWith(Path.of(System.getProperty("gatun.root"), "demo-models/src")));
    }
}
