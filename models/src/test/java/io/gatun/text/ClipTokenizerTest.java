package io.gatun.text;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.fasterxml.jackson.databind.JsonNode;
import io.gatun.models.GoldenCase;
import io.gatun.models.ModelDirectory;
import io.gatun.runtime.GatunException;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// Does a text become the ids that CLIPTokenizer of transformers makes of it, from either form of the directory?
class ClipTokenizerTest {
    private static final GoldenCase PIPELINE = new GoldenCase("pipeline/stable_diffusion");
    private static final Path FOLDER = PIPELINE.directory().resolve("pipeline/tokenizer");
    private static final int CONTEXT = 24;

    @TempDir
    private Path directory;

    private Path copy(String... names) throws IOException {
        for (String name : names) {
            Files.copy(FOLDER.resolve(name), directory.resolve(name));
        }
        return directory;
    }

    private static void assertGolden(ClipTokenizer tokenizer) {
        JsonNode examples = GoldenCase.json(PIPELINE.directory().resolve("case.json")).required("tokenizer_examples");
        assertEquals(6, examples.size());
        for (Map.Entry<String, JsonNode> example : examples.properties()) {
            int[] expected = new int[example.getValue().size()];
            for (int i = 0; i < expected.length; i++) {
                expected[i] = example.getValue().get(i).asInt();
            }
            assertArrayEquals(expected, tokenizer.encode(example.getKey()), "ids of '" + example.getKey() + "'");
        }
        int[][] prompts = PIPELINE.ids("prompt_ids");
        assertArrayEquals(prompts[0], tokenizer.encode("a photo of the King of France"));
        assertArrayEquals(prompts[1], tokenizer.encode("My horse, my HORSE!"));
    }

    @Test
    void encode_tokenizerJson() throws IOException {
        try (ClipTokenizer tokenizer = ClipTokenizer.open(copy("tokenizer.json", "tokenizer_config.json"), CONTEXT)) {
            assertGolden(tokenizer);
        }
    }

    @Test
    void encode_vocabularyAndMerges() throws IOException {
        copy("vocab.json", "merges.txt", "tokenizer_config.json");
        try (ClipTokenizer tokenizer = ClipTokenizer.open(directory, CONTEXT)) {
            assertGolden(tokenizer);
        }
    }

    /// Without any config: the names of begin and end, padding with the end, the encoder's length.
    @Test
    void encode_filesAlone() throws IOException {
        try (ClipTokenizer tokenizer = ClipTokenizer.open(copy("vocab.json", "merges.txt"), CONTEXT)) {
            assertGolden(tokenizer);
        }
    }

    /// The same text in composed and decomposed form.
    @Test
    void encode_nfc() {
        try (ClipTokenizer tokenizer = ClipTokenizer.open(FOLDER, CONTEXT)) {
            assertArrayEquals(tokenizer.encode("Caf\u00e9"), tokenizer.encode("Cafe\u0301"));
        }
    }

    /// `!`, id 0, is what the second tokenizer of Stable Diffusion XL pads with.
    @Test
    void padId_exclamationMark() throws IOException {
        copy("tokenizer.json");
        ModelDirectory.writeText(directory.resolve("tokenizer_config.json"), """
                {"model_max_length": 5, "pad_token": {"content": "!"}, "added_tokens_decoder": {}}""");
        ModelDirectory.writeText(directory.resolve("special_tokens_map.json"), """
                {"pad_token": "<|endoftext|>"}""");
        try (ClipTokenizer tokenizer = ClipTokenizer.open(directory, CONTEXT)) {
            assertEquals(0, tokenizer.padId());
            assertArrayEquals(new int[] {572, 573, 0, 0, 0}, tokenizer.encode(""));
        }
    }

    /// Stable Diffusion 2: the config lists no added tokens, so the map decides.
    @Test
    void padId_mapBeforeConfig() throws IOException {
        copy("tokenizer.json", "tokenizer_config.json");
        ModelDirectory.writeText(directory.resolve("special_tokens_map.json"), """
                {"pad_token": "!"}""");
        try (ClipTokenizer tokenizer = ClipTokenizer.open(directory, CONTEXT)) {
            assertEquals(0, tokenizer.padId());
        }
    }

    /// Files of older libraries say 1e30 where no limit is known.
    @Test
    void length_limitOfTheEncoder() throws IOException {
        copy("tokenizer.json");
        ModelDirectory.writeText(directory.resolve("tokenizer_config.json"), """
                {"model_max_length": 1000000000000000019884624838656}""");
        try (ClipTokenizer tokenizer = ClipTokenizer.open(directory, 7)) {
            assertEquals(7, tokenizer.length());
            int[] ids = tokenizer.encode("xxxxxxxxxxxxxxxx");
            assertEquals(7, ids.length);
            assertEquals(573, ids[6]);
        }
    }

    @Test
    void open_namesWhatIsMissing() throws IOException {
        Path folder = copy("vocab.json");
        String message = assertThrows(GatunException.class, () -> ClipTokenizer.open(folder, CONTEXT)).getMessage();
        assertTrue(message.contains("merges.txt") && message.contains("tokenizer.json"), message);
    }

    @Test
    void open_unknownPadToken() throws IOException {
        copy("tokenizer.json");
        ModelDirectory.writeText(directory.resolve("tokenizer_config.json"), "{\"pad_token\": \"[nothing]\"}");
        String message = assertThrows(GatunException.class, () -> ClipTokenizer.open(directory, CONTEXT)).getMessage();
        assertTrue(message.contains("[nothing]"), message);
    }
}
