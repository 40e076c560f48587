package io.gatun.text;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.nio.file.Path;
import java.util.Arrays;
import java.util.Random;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/// Streamed text against the text of all ids at once, for texts and for random ids.
class StreamingDecoderTest {
    private static final String[] TEXTS = {
        "", " ", "  two  spaces ", "Once upon a time there was a little girl.", "😀 👩‍👩‍👧 🇩🇪 ❤️", "e\u0301 o\u0308",
        "日本語の文章 привет", "\n\t\u0000", "def f(x):\n    return x", "a</s>b<|endoftext|>c", "don't stop ."
    };

    static Stream<Path> directories() {
        return Tokenizers.directories();
    }

    @ParameterizedTest
    @MethodSource("directories")
    void append_textsInOrder(Path directory) {
        try (Tokenizer tokenizer = Tokenizer.open(directory)) {
            for (String text : TEXTS) {
                check(tokenizer, tokenizer.encode(text));
            }
        }
    }

    @ParameterizedTest
    @MethodSource("directories")
    void append_randomIds(Path directory) {
        try (Tokenizer tokenizer = Tokenizer.open(directory)) {
            Random random = new Random(7);
            for (int round = 0; round < 400; round++) {
                // Beyond the vocabulary, too.
                check(tokenizer, random.ints(random.nextInt(40), 0, tokenizer.vocabSize() + 3).toArray());
            }
        }
    }

    /// Bytes in random order, spelled by the tokens for single bytes: valid, broken and interrupted characters.
    @ParameterizedTest
    @MethodSource("directories")
    void append_randomBytes(Path directory) {
        try (Tokenizer tokenizer = Tokenizer.open(directory)) {
            int[] bytes = IntStream.range(0, tokenizer.vocabSize()).filter(id -> {
                String text = tokenizer.tokenText(id);
                return text != null && (text.matches("<0x..>") || text.length() == 1);
            }).toArray();
            Random random = new Random(8);
            for (int round = 0; round < 2000 && bytes.length > 0; round++) {
                // Few different ones, so that sequences of lead and continuation bytes meet often.
                int from = random.nextInt(bytes.length);
                int[] some = Arrays.copyOfRange(bytes, from, Math.min(bytes.length, from + 1 + random.nextInt(80)));
                check(tokenizer, random.ints(random.nextInt(12), 0, some.length).map(i -> some[i]).toArray());
            }
        }
    }

    private static void check(Tokenizer tokenizer, int[] ids) {
        StreamingDecoder stream = tokenizer.newStream();
        StringBuilder text = new StringBuilder();
        for (int i = 0; i < ids.length; i++) {
            String delta = stream.append(ids[i]);
            text.append(delta);
            if (!delta.isEmpty()) {
                assertFalse(Character.isHighSurrogate(delta.charAt(delta.length() - 1)), "half a character");
            }
        }
        text.append(stream.flush());
        assertEquals(tokenizer.decode(ids), text.toString(), () -> Arrays.toString(ids));
    }

    @Test
    void append_givesCharacterWithItsLastByte() {
        try (Tokenizer tokenizer = Tokenizer.open(Tokenizers.resource("bytelevel"))) {
            int[] bytes = tokenizer.encode("𝕏");
            assertEquals(4, bytes.length);
            StreamingDecoder stream = tokenizer.newStream();
            for (int i = 0; i < 3; i++) {
                assertEquals("", stream.append(bytes[i]));
            }
            assertEquals("𝕏", stream.append(bytes[3]));
            assertEquals("", stream.flush());
            stream.append(bytes[0]);
            assertEquals("\uFFFD", stream.flush());
            assertEquals("a", stream.append(tokenizer.encode("a")[0]), "a new sequence after flush");
        }
    }

    @Test
    void append_holdsRunOfByteTokensBack() {
        try (Tokenizer tokenizer = Tokenizer.open(Tokenizers.resource("bytefallback"))) {
            StreamingDecoder stream = tokenizer.newStream();
            // The euro sign in UTF-8, which a bad byte behind it would turn into U+FFFD.
            for (int b : new int[] {0xE2, 0x82, 0xAC}) {
                assertEquals("", stream.append(3 + b));
            }
            int letter = IntStream.range(3, tokenizer.vocabSize()).filter(
                    id -> "a".equals(tokenizer.tokenText(id))).findFirst().orElseThrow();
            assertEquals("€a", stream.append(letter));
            assertEquals("a", stream.append(letter));
        }
    }

    /// Held-back tokens are decoded once, not once per token.
    @Test
    void append_decodesTokenAtOnce() {
        for (String name : new String[] {"bytelevel", "bytefallback", "metaspace", "bert_sentence"}) {
            try (Tokenizer tokenizer = Tokenizer.open(Tokenizers.resource(name))) {
                StreamingDecoder stream = tokenizer.newStream();
                int shown = 0;
                for (int id : tokenizer.encode("the bird said hello")) {
                    shown += stream.append(id).length();
                }
                assertTrue(shown > 10, name + " shows nothing before the end");
            }
        }
    }
}
