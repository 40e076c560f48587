package io.gatun.cli;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import io.gatun.io.SafetensorsFile;
import io.gatun.models.GoldenCase;
import io.gatun.models.ModelDirectory;
import io.gatun.models.TestDevice;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/// Do the commands print their results on standard output, exactly, and nothing else?
@Tag("device")
class CommandsTest {
    /// With a tokenizer that has the words of one prompt, and a letter for some of the other ids.
    @TempDir
    private static Path model;

    @TempDir
    private Path directory;

    @BeforeAll
    static void install() throws IOException {
        for (String name : List.of("config.json", "model.safetensors")) {
            Files.copy(GoldenCase.GPT2.model().resolve(name), model.resolve(name));
        }
        StringBuilder vocab = new StringBuilder("\"Héllo\": 5, \"wörld\": 9");
        for (int id = 10; id < 257; id++) {
            vocab.append(", \"").append((char) ('α' + id % 24)).append(id).append("\": ").append(id);
        }
        ModelDirectory.writeText(model.resolve("tokenizer.json"), """
                {"version": "1.0", "added_tokens": [], "normalizer": null, "pre_tokenizer": {"type": "WhitespaceSplit"},
                "post_processor": null, "decoder": {"type": "Fuse"},
                "model": {"type": "WordLevel", "unk_token": "Héllo", "vocab": {%s}}}""".formatted(vocab));
    }

    private static Captured generate(byte[] input, String... more) {
        List<String> args = new ArrayList<>(List.of("generate", "--device", TestDevice.NAME, "--threads", "1",
                "--model", model.toString(), "--max-new-tokens", "12", "--ignore-eos"));
        args.addAll(List.of(more));
        return Captured.run(input, args.toArray(String[]::new));
    }

    private static Captured generate(String... more) {
        return generate(new byte[0], more);
    }

    private static JsonNode json(Captured captured) throws IOException {
        assertEquals("", captured.err());
        assertEquals(0, captured.code());
        return new ObjectMapper().readTree(captured.out());
    }

    @Test
    void generate_printsPromptAndText() throws IOException {
        JsonNode json = json(generate("--greedy", "--json", "--prompt", "Héllo wörld"));
        assertEquals("Héllo wörld", json.get("prompt").asText());
        assertEquals("length", json.get("finish_reason").asText());
        assertEquals(2, json.at("/usage/prompt_tokens").asInt());
        assertEquals(12, json.at("/usage/completion_tokens").asInt());
        assertTrue(json.at("/timings_ms/decode").asDouble() > 0);
        assertTrue(json.get("device").asText().startsWith(TestDevice.isCpu() ? "cpu: 1 threads"
                : TestDevice.NAME + ":0: "), json.toString());
        String text = json.get("text").asText();
        assertTrue(!text.isEmpty());
        String prompt = "Héllo wörld";
        generate("--greedy", "--prompt", prompt).assertPrinted(prompt + text);
        generate("--temperature", "0", "--prompt", prompt).assertPrinted(prompt + text);
        Path file = Files.writeString(directory.resolve("prompt.txt"), prompt);
        generate("--greedy", "--prompt-file", file.toString()).assertPrinted(prompt + text);
        generate(prompt.getBytes(StandardCharsets.UTF_8), "--greedy", "--prompt-file", "-")
                .assertPrinted(prompt + text);
        StringBuilder ids = new StringBuilder();
        json.get("ids").forEach(id -> ids.append(ids.isEmpty() ? "" : ",").append(id.asInt()));
        generate("--greedy", "--ids-only", "--prompt", prompt).assertPrinted(ids + "\n");
        generate("--greedy", "--ids-only", "--ids", "5, 9").assertPrinted(ids + "\n");
        generate("--greedy", "--ids", "5,9").assertPrinted("Héllowörld" + text);
        String stop = text.substring(text.length() / 2, text.length() / 2 + 3);
        generate("--greedy", "--prompt", prompt, "--stop", "not this", "--stop", stop)
                .assertPrinted(prompt + text.substring(0, text.indexOf(stop)));
    }

    @Test
    void generate_seeds() {
        String first = generate("--seed", "1", "--ids", "5").out();
        generate("--seed", "1", "--ids", "5").assertPrinted(first);
        assertNotEquals(first, generate("--seed", "2", "--ids", "5").out());
        generate("--top-k", "1", "--seed", "2", "--ids", "5").assertPrinted(generate("--greedy", "--ids", "5").out());
    }

    @Test
    void generate_beams() throws IOException {
        JsonNode json = json(generate("--beams", "3", "--json", "--ids", "5,9"));
        assertTrue(json.get("score").asDouble() < 0);
        assertTrue(json.at("/timings_ms/prefill").asDouble() > 0 && json.at("/timings_ms/decode").asDouble() > 0,
                json.toString());
        generate("--beams", "3", "--ids", "5,9").assertPrinted("Héllowörld" + json.get("text").asText());
    }

    @ParameterizedTest
    @ValueSource(strings = {"f32", "bf16", "F16", "float32"})
    void generate_dtypes(String dtype) {
        Captured captured = generate("--greedy", "--ids-only", "--ids", "5,9", "--dtype", dtype);
        assertEquals("", captured.err());
        assertEquals(12, captured.out().split(",").length);
    }

    @ParameterizedTest
    @ValueSource(strings = {"gpt2/gpt2_tiny", "llama/llama_tiny_llama3rope"})
    void forward_likeTheCase(String name) {
        GoldenCase golden = new GoldenCase(name);
        Path out = directory.resolve("out.safetensors");
        Captured.run("forward", "--device", TestDevice.NAME, "--threads", "1", "--model", golden.model().toString(),
                "--inputs", golden.directory().resolve("io.safetensors").toString(), "--out", out.toString())
                .assertPrinted("");
        try (SafetensorsFile file = SafetensorsFile.open(out)) {
            assertEquals(7, file.names().size());
            for (String tensor : file.names()) {
                float[] expected = golden.floats(tensor);
                float[] actual = file.floats(tensor);
                assertArrayEquals(golden.shape(tensor), file.info(tensor).shape());
                for (int i = 0; i < expected.length; i++) {
                    assertEquals(expected[i], actual[i], golden.tolerance(), tensor);
                }
            }
        }
    }

    @Test
    void help_everyCommand() {
        for (String command : List.of("generate", "forward", "doctor")) {
            Captured captured = Captured.run(command, "--help");
            assertEquals(0, captured.code(), captured::toString);
            assertTrue(captured.out().contains("Usage: gatun " + command), captured::toString);
        }
        assertEquals(0, Captured.run("--version").code());
        Captured doctor = Captured.run("doctor");
        assertEquals(0, doctor.code(), doctor::toString);
        for (String part : List.of("cpu: ", "libgatun", "cuda", "java")) {
            assertTrue(doctor.out().contains(part), doctor::toString);
        }
    }
}
