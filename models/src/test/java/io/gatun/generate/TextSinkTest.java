package io.gatun.generate;

import static org.junit.jupiter.api.Assertions.assertEquals;

import io.gatun.models.GoldenCase;
import io.gatun.text.Tokenizer;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.stream.IntStream;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;

/// Is the text of an output what follows the text of the prompt, where characters are cut into byte tokens?
class TextSinkTest {
    private static final int BYTE_ZERO = 3; // the id of <0x00>
    private static final int WORD = 363;     // the last of the vocabulary

    private final Tokenizer tokenizer = Tokenizer.open(GoldenCase.resource("text/bytefallback"));

    @AfterEach
    void close() {
        tokenizer.close();
    }

    private static int[] bytes(String text) {
        byte[] utf8 = text.getBytes(StandardCharsets.UTF_8);
        return IntStream.range(0, utf8.length).map(i -> BYTE_ZERO + (utf8[i] & 0xff)).toArray();
    }

    private static int[] join(int[]... parts) {
        return List.of(parts).stream().flatMapToInt(IntStream::of).toArray();
    }

    /// Text and streamed text of an output, which must be the same.
    private String output(int[] prompt, int... output) {
        TextSink sink = new TextSink(tokenizer, prompt, List.of());
        List<String> streamed = new ArrayList<>();
        sink.listener(token -> streamed.add(token.text()));
        for (int id : output) {
            sink.accept(id, null);
        }
        sink.finish();
        assertEquals(sink.text(), String.join("", streamed));
        return sink.text();
    }

    private String continuation(int[] prompt, int... output) {
        String whole = tokenizer.decode(join(prompt, output));
        String before = tokenizer.decode(prompt);
        assertEquals(before, whole.substring(0, before.length()));
        return whole.substring(before.length());
    }

    @Test
    void accept_promptEndsInCharacterOfBytes() {
        int[] prompt = join(new int[] {1, WORD}, bytes("é"));
        assertEquals(continuation(prompt, WORD, WORD), output(prompt, WORD, WORD));
        assertEquals(continuation(prompt, bytes("日本")), output(prompt, bytes("日本")));
        assertEquals("", output(prompt));
    }

    @Test
    void accept_promptIsLongRunOfBytes() {
        int[] prompt = join(new int[] {1, WORD}, bytes("日本語日本語日本語"));
        assertEquals("語", output(prompt, bytes("語")));
        assertEquals(continuation(prompt, WORD), output(prompt, WORD));
    }

    /// The character that the prompt began is whole in the output.
    @Test
    void accept_promptEndsInsideCharacter() {
        int[] character = bytes("日");
        int[] prompt = {1, WORD, character[0]};
        assertEquals("日", output(prompt, character[1], character[2]));
    }
}
