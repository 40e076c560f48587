package io.gatun.io;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonParseException;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.core.JsonToken;
import com.fasterxml.jackson.core.StreamReadConstraints;
import com.fasterxml.jackson.core.StreamReadFeature;
import io.gatun.runtime.GatunException;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;

/// Reads JSON that a stranger wrote: one object in strict UTF-8, no duplicate keys, bounded nesting, nothing after it.
/// What is wrong becomes a [GatunException] that names the file and the place.
final class StrictJson {
    /// The limit that the safetensors format sets to its header, used for shard indices as well.
    static final int MAX_BYTES = 100_000_000;
    private static final int MAX_NESTING = 64;

    /// Names are not canonicalised: tens of thousands of distinct ones would fill Jackson's process-wide symbol table,
    /// whose defence against colliding names is an exception.
    private static final JsonFactory FACTORY = JsonFactory.builder()
            .enable(StreamReadFeature.STRICT_DUPLICATE_DETECTION)
            .disable(JsonFactory.Feature.CANONICALIZE_FIELD_NAMES)
            .disable(JsonFactory.Feature.INTERN_FIELD_NAMES)
            .streamReadConstraints(StreamReadConstraints.builder().maxNestingDepth(MAX_NESTING)
                    .maxStringLength(MAX_BYTES).maxNameLength(MAX_BYTES).build())
            .build();

    private StrictJson() {}

    /// Reads the members of the outermost object; the parser stands at its `{`.
    interface Reading<T> {
        T read(JsonParser json) throws IOException;
    }

    /// @param what names the text in messages: "the header"
    static <T> T parse(Path file, String what, byte[] text, Reading<T> reading) {
        if (text.length == 0 || text[0] != '{') {
            throw GatunException.invalid("%s: %s begins with %s, expected '{'. The file is damaged or something else:"
                    + " copy or download it again", file, what,
                    text.length == 0 ? "nothing" : "byte 0x%02x".formatted(text[0]));
        }
        // a reader, because Jackson would guess UTF-16 and UTF-32 from bytes, and pass invalid UTF-8
        var utf8 = StandardCharsets.UTF_8.newDecoder();
        try (JsonParser json = FACTORY.createParser(new InputStreamReader(new ByteArrayInputStream(text), utf8))) {
            json.nextToken();
            T result = reading.read(json);
            if (json.nextToken() != null) {
                throw unexpected(json, "nothing after the closing '}'");
            }
            return result;
        } catch (CharacterCodingException e) {
            throw damaged(file, what, "it is not valid UTF-8", e);
        } catch (JsonProcessingException e) {
            String place = e.getLocation() == null ? "" : " near character " + e.getLocation().getCharOffset();
            throw damaged(file, what, TensorInfo.quote(e.getOriginalMessage()) + place, e);
        } catch (IOException e) {
            throw damaged(file, what, String.valueOf(e.getMessage()), e);
        }
    }

    private static GatunException damaged(Path file, String what, String problem, IOException cause) {
        return new GatunException(GatunException.Status.INVALID_ARGUMENT,
                "%s: %s cannot be read: %s. The file is damaged: copy or download it again".formatted(file, what,
                        problem),
                cause);
    }

    /// To be thrown where the current token is not what the format wants.
    static JsonParseException unexpected(JsonParser json, String expected) throws IOException {
        String found = json.currentToken() == null ? "the end" : json.getText();
        return new JsonParseException(json, "expected " + expected + ", found " + TensorInfo.quote(found));
    }

    static void expect(JsonParser json, JsonToken token, String expected) throws IOException {
        if (json.currentToken() != token) {
            throw unexpected(json, expected);
        }
    }

    /// The current token, a string that can be written back: no half of a surrogate pair.
    static String string(JsonParser json, String expected) throws IOException {
        expect(json, JsonToken.VALUE_STRING, expected);
        return paired(json, json.getText());
    }

    /// The current token, a member's name; as [#string].
    static String name(JsonParser json) throws IOException {
        return paired(json, json.currentName());
    }

    private static String paired(JsonParser json, String text) throws IOException {
        if (!isUnicode(text)) {
            throw new JsonParseException(json, "half of a surrogate pair in a string");
        }
        return text;
    }

    /// Whether every surrogate has its other half, so that the text has a form in UTF-8.
    static boolean isUnicode(String text) {
        for (int i = 0; i < text.length(); i++) {
            if (Character.isSurrogate(text.charAt(i))) {
                if (Character.charCount(text.codePointAt(i)) == 1) {
                    return false;
                }
                i++;
            }
        }
        return true;
    }

    /// The current token, an integer from 0 to 2^63 - 1.
    static long size(JsonParser json, String expected) throws IOException {
        final int digitsOfLong = 19;
        if (json.currentToken() != JsonToken.VALUE_NUMBER_INT || json.getTextLength() > digitsOfLong
                || json.getText().startsWith("-") || json.getNumberType() == JsonParser.NumberType.BIG_INTEGER) {
            throw unexpected(json, expected + ", an integer from 0 to 2^63 - 1");
        }
        return json.getLongValue();
    }
}
