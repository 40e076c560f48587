package io.gatun.text;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonGenerator;
import io.gatun.io.AtomicFile;
import io.gatun.runtime.GatunException;
import java.io.IOException;
import java.io.StringWriter;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.stream.IntStream;
import org.jspecify.annotations.Nullable;

/// Vocabularies that need no learning, as the text of a `tokenizer.json`: one token per character, or one per byte.
/// Both are BPE without merges, which [Tokenizer] and the Hugging Face libraries read.
///
/// @param json the tokenizer.json
/// @param size V
public record SimpleTokenizer(String json, int size) {
    /// Of a text in an alphabet. A writing system with more characters is better served by bytes or learned pieces.
    public static final int MAX_CHARACTERS = 1 << 16;

    /// One token per distinct character (Unicode code point), in their order. A character that is not among them gives
    /// no token.
    ///
    /// @throws GatunException when there is none, or more than [#MAX_CHARACTERS], or half of a surrogate pair
    public static SimpleTokenizer ofCharacters(IntStream characters) {
        int[] distinct = characters.sorted().distinct().toArray();
        if (distinct.length == 0 || distinct.length > MAX_CHARACTERS) {
            throw GatunException.invalid("a vocabulary of %d characters, expected 1 to %d", distinct.length,
                    MAX_CHARACTERS);
        }
        String[] tokens = new String[distinct.length];
        for (int id = 0; id < tokens.length; id++) {
            if (distinct[id] >= Character.MIN_SURROGATE && distinct[id] <= Character.MAX_SURROGATE) {
                throw GatunException.invalid("half of a surrogate pair, U+%04X, expected a character", distinct[id]);
            }
            tokens[id] = Character.toString(distinct[id]);
        }
        return new SimpleTokenizer(write(tokens, false), tokens.length);
    }

    /// One token per byte of UTF-8; the id is the byte.
    public static SimpleTokenizer ofBytes() {
        String[] tokens = new String[256];
        for (int id = 0; id < tokens.length; id++) {
            tokens[id] = String.valueOf(ByteAlphabet.charOf(id));
        }
        return new SimpleTokenizer(write(tokens, true), tokens.length);
    }

    /// Writes `tokenizer.json`, and the `tokenizer_config.json` that transformers' AutoTokenizer wants beside it.
    public void write(Path directory) {
        replace(directory.resolve("tokenizer.json"), json);
        replace(directory.resolve("tokenizer_config.json"),
                "{\"tokenizer_class\": \"PreTrainedTokenizerFast\", \"clean_up_tokenization_spaces\": false}\n");
    }

    private static void replace(Path file, String text) {
        AtomicFile.replace(file, text.getBytes(StandardCharsets.UTF_8));
    }

    private static String write(String[] tokens, boolean byteLevel) {
        StringWriter text = new StringWriter();
        try (JsonGenerator json = new JsonFactory().createGenerator(text)) {
            json.writeStartObject();
            json.writeStringField("version", "1.0");
            for (String absent : new String[] {"truncation", "padding"}) {
                json.writeNullField(absent);
            }
            json.writeArrayFieldStart("added_tokens");
            json.writeEndArray();
            json.writeNullField("normalizer");
            json.writeFieldName("pre_tokenizer");
            step(json, byteLevel ? "ByteLevel" : null);
            json.writeNullField("post_processor");
            json.writeFieldName("decoder");
            step(json, byteLevel ? "ByteLevel" : "Fuse"); // without one, the library puts spaces between tokens
            json.writeObjectFieldStart("model");
            json.writeStringField("type", "BPE");
            for (String absent : new String[] {"dropout", "unk_token", "continuing_subword_prefix",
                "end_of_word_suffix"}) {
                json.writeNullField(absent);
            }
            json.writeBooleanField("fuse_unk", false);
            json.writeBooleanField("byte_fallback", false);
            json.writeObjectFieldStart("vocab");
            for (int id = 0; id < tokens.length; id++) {
                json.writeNumberField(tokens[id], id);
            }
            json.writeEndObject();
            json.writeArrayFieldStart("merges");
            json.writeEndArray();
            json.writeEndObject();
            json.writeEndObject();
        } catch (IOException e) {
            throw new UncheckedIOException(e); // the writer is memory
        }
        return text.append('\n').toString();
    }

    private static void step(JsonGenerator json, @Nullable String type) throws IOException {
        if (type == null) {
            json.writeNull();
            return;
        }
        json.writeStartObject();
        json.writeStringField("type", type);
        if (type.equals("ByteLevel")) {
            json.writeBooleanField("add_prefix_space", false);
            json.writeBooleanField("trim_offsets", true);
            json.writeBooleanField("use_regex", false);
        }
        json.writeEndObject();
    }
}
