package io.gatun.text;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import io.gatun.runtime.GatunException;
import io.gatun.runtime.GatunException.Status;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/// Ids and texts against those that the Hugging Face library for Python gave for the same files.
class TokenizerTest {
    @ParameterizedTest
    @ValueSource(strings = {"bytelevel", "bytefallback", "metaspace", "bert_sentence", "stable_diffusion", "suffix"})
    void encode_decode_equalPythonLibrary(String name) {
        Path directory = Tokenizers.resource(name);
        try (Tokenizer tokenizer = Tokenizer.open(directory)) {
            for (Map<?, ?> c : Tokenizers.objects(Tokenizers.json(directory.resolve("cases.json")))) {
                int[] ids = tokenizer.encode((String) c.get("text"));
                assertArrayEquals(Tokenizers.ids(c.get("ids")), ids, () -> name + ": ids of " + c.get("text"));
                assertEquals(c.get("decoded"), tokenizer.decode(ids), () -> name + ": text of " + c.get("ids"));
            }
        }
    }

    @ParameterizedTest
    @ValueSource(strings = {"stories260k", "tinystories-656k"})
    void encode_decode_trainedModels(String name) {
        Path folder = Tokenizers.assets().resolve(name);
        assumeTrue(Files.exists(folder.resolve("case.json")), "no " + folder);
        Map<?, ?> recorded = (Map<?, ?>) Tokenizers.json(folder.resolve("case.json"));
        try (Tokenizer tokenizer = Tokenizer.open(folder.resolve("model"))) {
            for (Map<?, ?> c : Tokenizers.objects(recorded.get("prompts"))) {
                int[] prompt = Tokenizers.ids(c.get("prompt_ids"));
                assertArrayEquals(prompt, tokenizer.encode((String) c.get("prompt")),
                        () -> "ids of " + c.get("prompt"));
                int[] generated = Tokenizers.ids(c.get("generated_ids"));
                int[] all = IntStream.concat(IntStream.of(prompt), IntStream.of(generated)).toArray();
                assertEquals(c.get("text"), tokenizer.decode(all), () -> "text after " + c.get("prompt"));
            }
        }
    }

    /// llama2.c's published text: the ids are encoded from it and must give the same 464 bytes back.
    @Test
    void decode_publishedText() throws IOException {
        Path folder = Tokenizers.assets();
        Path published = folder.resolve("stories260k_llama2c").resolve("expected_greedy.txt");
        Path io = folder.resolve("stories260k").resolve("io.safetensors");
        assumeTrue(Files.exists(published) && Files.exists(io), "no " + published);
        try (Tokenizer tokenizer = Tokenizer.open(folder.resolve("stories260k").resolve("model"))) {
            byte[] text = tokenizer.decode(publishedIds(Files.readAllBytes(io))).getBytes(StandardCharsets.UTF_8);
            assertEquals(464, text.length);
            assertArrayEquals(Files.readAllBytes(published), text);
        }
    }

    /// The int64 tensor `published_ids` of a safetensors file.
    private static int[] publishedIds(byte[] file) throws IOException {
        java.nio.ByteBuffer bytes = java.nio.ByteBuffer.wrap(file).order(java.nio.ByteOrder.LITTLE_ENDIAN);
        int header = Math.toIntExact(bytes.getLong(0));
        Map<?, ?> tensors = (Map<?, ?>) Json.read(new String(file, 8, header, StandardCharsets.UTF_8));
        int[] range = Tokenizers.ids(((Map<?, ?>) tensors.get("published_ids")).get("data_offsets"));
        return IntStream.range(0, (range[1] - range[0]) / 8).map(
                i -> Math.toIntExact(bytes.getLong(8 + header + range[0] + 8 * i))).toArray();
    }

    @Test
    void decode_dropsSpecialIdsById() {
        try (Tokenizer tokenizer = Tokenizer.open(Tokenizers.resource("bytefallback"), 300, 1_000_000)) {
            assertArrayEquals(new int[] {0, 1, 2, 300, 1_000_000}, tokenizer.specialIds());
            int[] ids = tokenizer.encode("She");
            assertEquals(1, ids[0]);
            int[] mixed = IntStream.concat(IntStream.of(2, 300, 0), IntStream.of(ids)).toArray();
            assertEquals("She", tokenizer.decode(mixed));
        }
    }

    @Test
    void decode_unknownIdGivesNoText() {
        try (Tokenizer tokenizer = Tokenizer.open(Tokenizers.resource("bytelevel"))) {
            assertEquals(401, tokenizer.vocabSize());
            assertEquals("", tokenizer.decode(new int[] {401, 5_000_000}));
            GatunException e = assertThrows(GatunException.class, () -> tokenizer.decode(new int[] {-1}));
            assertEquals(Status.INVALID_ARGUMENT, e.status());
        }
    }

    @Test
    void encode_withoutSpecialTokens() {
        try (Tokenizer tokenizer = Tokenizer.open(Tokenizers.resource("bert_sentence"))) {
            int[] with = tokenizer.encode("a cat");
            int[] without = tokenizer.encode("a cat", Tokenizer.SpecialTokens.OMIT);
            assertArrayEquals(IntStream.of(with).skip(1).limit(with.length - 2).toArray(), without);
        }
    }

    @Test
    void encode_unpairedSurrogateIsReplacementCharacter() {
        try (Tokenizer tokenizer = Tokenizer.open(Tokenizers.resource("bytelevel"))) {
            assertEquals("a\uFFFDb\uFFFD", tokenizer.decode(tokenizer.encode("a\uD83Db\uDE00")));
            assertEquals("\uD83D\uDE00", tokenizer.decode(tokenizer.encode("\uD83D\uDE00")));
        }
    }

    @Test
    void encode_neitherTruncatesNorPads() {
        // The file asks for at most 4 ids, padded to 12.
        try (Tokenizer tokenizer = Tokenizer.open(Tokenizers.resource("bytefallback"))) {
            assertEquals(1, tokenizer.encode("").length);
            assertTrue(tokenizer.encode("Once upon a time there was a little girl.".repeat(200)).length > 512);
        }
    }

    @Test
    void tokenText_isStoredForm() {
        try (Tokenizer tokenizer = Tokenizer.open(Tokenizers.resource("bytefallback"))) {
            assertEquals("<s>", tokenizer.tokenText(1));
            assertEquals("<0x0A>", tokenizer.tokenText(13));
            assertNull(tokenizer.tokenText(tokenizer.vocabSize()));
            assertNull(tokenizer.tokenText(-1));
        }
    }

    @Test
    void encode_manyThreads() throws Exception {
        try (Tokenizer tokenizer = Tokenizer.open(Tokenizers.resource("bytelevel"));
                ExecutorService threads = Executors.newFixedThreadPool(4)) {
            List<Future<Boolean>> results = new ArrayList<>();
            for (int t = 0; t < 8; t++) {
                String text = "Once upon a time " + "😀".repeat(t);
                results.add(threads.submit(() -> IntStream.range(0, 500).allMatch(
                        i -> tokenizer.decode(tokenizer.encode(text)).equals(text))));
            }
            for (Future<Boolean> result : results) {
                assertTrue(result.get());
            }
        }
    }

    @Test
    void close_whileOthersEncode() throws Exception {
        Tokenizer tokenizer = Tokenizer.open(Tokenizers.resource("bytelevel"));
        try (ExecutorService threads = Executors.newFixedThreadPool(2)) {
            List<Future<?>> users = new ArrayList<>();
            for (int t = 0; t < 2; t++) {
                users.add(threads.submit(() -> assertThrows(IllegalStateException.class, () -> {
                    while (true) {
                        tokenizer.encode("Once upon a time");
                    }
                })));
            }
            tokenizer.encode("x");
            tokenizer.close();
            tokenizer.close();
            for (Future<?> user : users) {
                user.get();
            }
        }
    }

    @Test
    void open_missingFile(@TempDir Path folder) throws IOException {
        assertMessage(folder, "tokenizer.json: not found");
        assertMessage(folder.resolve("nowhere"), "is not a directory");
        Files.writeString(folder.resolve("vocab.json"), "{}");
        Files.writeString(folder.resolve("merges.txt"), "");
        String message = assertMessage(folder, "vocab.json and merges.txt");
        assertTrue(message.contains("save_pretrained"), message);
    }

    @Test
    void open_damagedFile(@TempDir Path folder) throws IOException {
        Path file = folder.resolve("tokenizer.json");
        String good = Files.readString(Tokenizers.resource("bytelevel").resolve("tokenizer.json"));
        String[][] damages = {
            {"", "tokenizer.json"},
            {good.substring(0, good.length() / 2), "not valid JSON"},
            {"[1]", "an object"},
            {"{}", "not a tokenizer.json"},
            {good + "x", "not valid JSON"},
            {"{\"model\": {\"vocab\": {\"a\": 1999999999}}}", "id 1999999999"},
            {"{\"model\": {\"vocab\": {\"a\": -1}}}", "id -1"},
            {"{\"model\": {\"vocab\": {\"a\": \"b\"}}}", "not valid JSON"},
            {"{\"model\": {\"vocab\": [1]}}", "model.vocab"},
            {"{\"model\": {\"vocab\": {\"a\": 0}}}", "the tokenizers library refuses it"},
            {good.replace("\"merges\":[", "\"merges\":[[\"nowhere\",\"to be found\"],"), "refuses it"},
        };
        for (String[] damage : damages) {
            Files.writeString(file, damage[0]);
            assertMessage(folder, damage[1]);
        }
        Files.write(file, new byte[] {'{', '"', (byte) 0xFF, '"', '}'});
        assertMessage(folder, "not UTF-8");
    }

    private static String assertMessage(Path folder, String part) {
        GatunException e = assertThrows(GatunException.class, () -> Tokenizer.open(folder).close());
        assertEquals(Status.INVALID_ARGUMENT, e.status());
        assertTrue(e.getMessage().contains(part) && e.getMessage().contains("tokenizer.json"), e.getMessage());
        return e.getMessage();
    }
}
