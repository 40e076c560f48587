package io.gatun.text;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.runtime.GatunException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// Do the vocabularies without learning give a text back? The tokenizers library for Python reads them too (checked by
/// hand: the same ids, the same text).
class SimpleTokenizerTest {
    @TempDir
    private Path folder;

    private Tokenizer open(SimpleTokenizer tokenizer) {
        tokenizer.write(folder);
        return Tokenizer.open(folder);
    }

    @Test
    void ofCharacters_hasOneTokenPerCharacter() {
        String text = "b a\n\n\té \"\\\u2028\uD83D\uDE00<unk>  b";
        SimpleTokenizer simple = SimpleTokenizer.ofCharacters(text.codePoints());
        int[] alphabet = text.codePoints().sorted().distinct().toArray();
        assertEquals(alphabet.length, simple.size());
        try (Tokenizer tokenizer = open(simple)) {
            assertEquals(simple.size(), tokenizer.vocabSize());
            int[] expected = text.codePoints().map(c -> Arrays.binarySearch(alphabet, c)).toArray();
            assertArrayEquals(expected, tokenizer.encode(text));
            assertEquals(text, tokenizer.decode(expected));
            assertEquals("ba", tokenizer.decode(tokenizer.encode("bxzaX")), "unknown characters give no token");
            StreamingDecoder stream = tokenizer.newStream();
            StringBuilder streamed = new StringBuilder();
            for (int id : expected) {
                streamed.append(stream.append(id));
            }
            assertEquals(text, streamed.append(stream.flush()).toString());
        }
    }

    @Test
    void ofBytes_hasTheBytesAsIds() {
        String text = "a é\n\n\0\uD83D\uDE00 z";
        try (Tokenizer tokenizer = open(SimpleTokenizer.ofBytes())) {
            assertEquals(256, tokenizer.vocabSize());
            byte[] utf8 = text.getBytes(StandardCharsets.UTF_8);
            int[] expected = IntStream.range(0, utf8.length).map(i -> utf8[i] & 0xff).toArray();
            assertArrayEquals(expected, tokenizer.encode(text));
            assertEquals(text, tokenizer.decode(expected));
        }
    }

    @Test
    void ofCharacters_refusesWhatIsNoAlphabet() {
        assertThrows(GatunException.class, () -> SimpleTokenizer.ofCharacters(IntStream.empty()));
        assertThrows(GatunException.class, () -> SimpleTokenizer.ofCharacters(IntStream.range(0xE000, 0x20000)));
        String half = assertThrows(GatunException.class, () -> SimpleTokenizer.ofCharacters(IntStream.of(0xD800)))
                .getMessage();
        assertTrue(half.contains("U+D800"), half);
    }
}
