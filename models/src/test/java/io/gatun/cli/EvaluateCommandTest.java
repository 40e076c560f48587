package io.gatun.cli;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import io.gatun.io.SafetensorsWriter;
import io.gatun.io.TensorSource;
import io.gatun.models.GoldenCase;
import io.gatun.text.SimpleTokenizer;
import io.gatun.train.TinyPictures;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// Does `gatun evaluate` find out what a directory holds, and print its figures?
class EvaluateCommandTest {
    @TempDir
    private Path folder;

    private static Captured evaluate(Object... arguments) {
        return Captured.run(() -> Main.execute(Stream.concat(Stream.of("evaluate", "--device", "cpu"),
                Stream.of(arguments).map(Object::toString)).toArray(String[]::new)));
    }

    private static JsonNode json(Captured result) throws IOException {
        assertEquals(0, result.code(), result::toString);
        return new ObjectMapper().readTree(result.out());
    }

    /// A token is a character.
    private Path characterModel() throws IOException {
        Path model = Files.createDirectory(folder.resolve("model"));
        for (String name : new String[] {"config.json", "model.safetensors"}) {
            Files.copy(GoldenCase.GPT2.model().resolve(name), model.resolve(name));
        }
        SimpleTokenizer.ofCharacters("abcd é\n".codePoints()).write(model);
        return model;
    }

    /// 100 characters, 110 bytes.
    private Path text() throws IOException {
        return Files.writeString(folder.resolve("text.txt"), "abcdé bad\n".repeat(10));
    }

    @Test
    void evaluate_text() throws IOException {
        Path model = characterModel();
        Path text = text();
        JsonNode all = json(evaluate("--model", model, "--data", text, "--length", 7, "--json"));
        assertEquals(100, all.get("tokens").asInt());
        assertEquals(110, all.get("bytes").asInt());
        assertEquals(Math.exp(all.get("loss").asDouble()), all.get("perplexity").asDouble(), 1e-6);
        assertEquals(all.get("loss").asDouble() / Math.log(2) * 100 / 110, all.get("bits_per_byte").asDouble(), 1e-9);
        JsonNode last = json(evaluate("--model", model, "--data", text, "--held-out", "--json"));
        assertEquals(10, last.get("tokens").asInt());
        assertEquals(11, last.get("bytes").asInt());
        Captured shown = evaluate("--model", model, "--data", text);
        assertTrue(shown.out().startsWith("tokens             100%nbytes              110%nloss ".formatted()),
                shown.out());
    }

    @Test
    void evaluate_textWithQuantization() throws IOException {
        Path model = characterModel();
        Path text = text();
        double plain = json(evaluate("--model", model, "--data", text, "--dtype", "bf16", "--json")).get("perplexity")
                .asDouble();
        JsonNode figures = json(evaluate("--model", model, "--data", text, "--dtype", "bf16", "--quantization", "fp8",
                "--json"));
        double perplexity = figures.get("perplexity").asDouble();
        assertEquals(plain, figures.get("perplexity_without_quantization").asDouble());
        assertEquals(perplexity - plain, figures.get("perplexity_difference").asDouble());
        assertTrue(perplexity != plain && Math.abs(perplexity - plain) < 0.2 * plain, figures.toString());
        Captured shown = evaluate("--model", model, "--data", text, "--dtype", "bf16", "--quantization", "fp8");
        assertTrue(shown.out().contains("perplexity without quantization %.4f%n".formatted(plain)), shown.out());
        Captured refused = evaluate("--model", model, "--data", text, "--quantization", "int8");
        assertEquals(2, refused.code());
        assertTrue(refused.err().contains("'--quantization': expected none or fp8 but was 'int8'"), refused.err());
    }

    /// A classifier by hand: class 0 where the left half is brighter than the right.
    private Path classifier() throws IOException {
        Path directory = Files.createDirectory(folder.resolve("classifier"));
        Files.writeString(directory.resolve("config.json"), """
                {"model_type": "gatun_classifier", "channels": [1], "hidden_size": 2, "num_labels": 2, "image_size": 8}
                """);
        float[] same = new float[25];
        same[12] = 1;
        float[] halves = new float[2 * 16];
        for (int i = 0; i < 32; i++) {
            halves[i] = i % 4 < 2 == i < 16 ? 1 : 0;
        }
        SafetensorsWriter.write(directory.resolve("model.safetensors"), Map.of(
                "conv1.weight", TensorSource.of(same, 1, 1, 5, 5), "conv1.bias", TensorSource.of(new float[1], 1),
                "fc1.weight", TensorSource.of(halves, 2, 16), "fc1.bias", TensorSource.of(new float[2], 2),
                "fc2.weight", TensorSource.of(new float[] {1, 0, 0, 1}, 2, 2), "fc2.bias",
                TensorSource.of(new float[2], 2)), Map.of());
        return directory;
    }

    @Test
    void evaluate_classifier() throws IOException {
        Path pictures = TinyPictures.write(folder.resolve("pictures"));
        JsonNode figures = json(evaluate("--model", classifier(), "--data", pictures, "--json"));
        assertEquals(10, figures.get("pictures").asInt());
        assertEquals(1, figures.get("accuracy").asDouble());
        assertTrue(figures.get("loss").asDouble() < 0.01);
    }

    /// A VAE's decoder by hand: bright on the left where the latent is above 0.
    @Test
    void evaluate_pictures() throws IOException {
        Path pictures = TinyPictures.write(folder.resolve("pictures"));
        Path model = Files.createDirectory(folder.resolve("vae"));
        Files.writeString(model.resolve("config.json"), """
                {"model_type": "gatun_vae", "decoder": "mlp", "latent_size": 1, "widths": [2], "image_size": 6,
                 "activation": "relu"}
                """);
        float[] out = new float[36 * 2];
        for (int p = 0; p < 36; p++) {
            out[2 * p] = p % 6 < 3 ? 100 : -100;
            out[2 * p + 1] = -out[2 * p];
        }
        SafetensorsWriter.write(model.resolve("model.safetensors"), Map.of(
                "dec1.weight", TensorSource.of(new float[] {10, -10}, 2, 1), "dec1.bias",
                TensorSource.of(new float[2], 2), "dec2.weight", TensorSource.of(out, 36, 2), "dec2.bias",
                TensorSource.of(new float[36], 36)), Map.of());
        Path classifier = classifier();
        JsonNode figures = json(evaluate("--model", model, "--classifier", classifier, "--data", pictures, "--count",
                90, "--json"));
        assertEquals(90, figures.get("pictures").asInt());
        assertEquals(2, figures.get("classes_present").asInt());
        assertTrue(figures.get("class_perplexity").asDouble() > 1.9, figures.toString());
        assertTrue(figures.get("confident_share").asDouble() > 0.95, figures.toString());
        assertTrue(figures.get("confidence").asDouble() > 0.95, figures.toString());
        assertTrue(figures.get("frechet_distance").asDouble() < 20, figures.toString());
        assertTrue(figures.get("label_agreement") == null);
        evaluate("--model", model, "--data", pictures).assertFailed(2, "--classifier is missing");
        evaluate("--model", model, "--data", pictures, "--classifier", classifier, "--count", 1)
                .assertFailed(2, "--count is 1");
        evaluate("--model", model, "--data", pictures, "--classifier", GoldenCase.GPT2.model())
                .assertFailed(2, "field 'model_type' is \"gpt2\", expected gatun_classifier");
        evaluate("--model", model, "--data", Files.writeString(folder.resolve("file.txt"), "text"), "--classifier",
                classifier).assertFailed(2, "file.txt: a file, not a folder");
        evaluate("--model", folder.resolve("none"), "--data", pictures).assertFailed(2, "no directory");
    }

    /// A pipeline that is told classes: agreement is printed, whatever it is.
    @Test
    void evaluate_classConditional() throws IOException {
        Path pictures = TinyPictures.write(folder.resolve("pictures"));
        JsonNode figures = json(evaluate("--model", GoldenCase.resource("golden/pipeline/class_unet2d/pipeline"),
                "--classifier", classifier(), "--data", pictures, "--count", 4, "--steps", 2, "--json"));
        double agreement = figures.get("label_agreement").asDouble();
        assertTrue(agreement >= 0 && agreement <= 1, figures.toString());
    }
}
