package io.gatun.text;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.core.JsonToken;
import io.gatun.io.IoReason;
import io.gatun.runtime.GatunException;
import java.io.IOException;
import java.nio.charset.CharacterCodingException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.BitSet;
import java.util.List;
import java.util.Locale;
import org.jspecify.annotations.Nullable;

/// What Gatun itself reads from a `tokenizer.json`: the text of each id, which ids are special, and how tokens become
/// text. Everything else in it is the tokenizers library's business.
///
/// @param json the whole file, for the library
/// @param texts the stored form of each id, null where the file skips an id
/// @param special ids of added tokens that are marked special
/// @param added ids of all added tokens
/// @param decoders the decoder, a sequence flattened; empty when there is none
record TokenizerFile(String json, @Nullable String[] texts, BitSet special, BitSet added, List<Decoder> decoders) {
    /// An id above this is a damaged file, not a vocabulary: the table of texts is as long as the largest id.
    private static final int MAX_ID = 1 << 24;
    private static final long MAX_BYTES = 1L << 29;

    /// One step of a decoder: its type and the fields that decide whether it can be run piece by piece.
    ///
    /// @param pattern of Replace, null for a regular expression
    /// @param stop of Strip: how many characters it takes from the end
    record Decoder(String type, @Nullable String pattern, int stop) {}

    static TokenizerFile read(Path modelDir) {
        Path file = modelDir.resolve("tokenizer.json");
        if (!Files.isRegularFile(file)) {
            throw GatunException.invalid("%s: %s", file, whatIsMissing(modelDir));
        }
        try {
            if (Files.size(file) > MAX_BYTES) {
                throw GatunException.invalid("%s: %d bytes, expected at most %d", file, Files.size(file), MAX_BYTES);
            }
            return of(Files.readString(file), file);
        } catch (CharacterCodingException e) {
            throw new GatunException(GatunException.Status.INVALID_ARGUMENT, file + ": not UTF-8 text", e);
        } catch (IOException e) {
            throw new GatunException(GatunException.Status.INVALID_ARGUMENT, file + ": cannot be read: "
                    + IoReason.of(e), e);
        }
    }

    /// @param origin what messages call it
    static TokenizerFile of(String json, Path origin) {
        try {
            return parse(json);
        } catch (JsonProcessingException e) {
            String place = e.getLocation() == null ? "" : " at line " + e.getLocation().getLineNr();
            throw new GatunException(GatunException.Status.INVALID_ARGUMENT, origin + ": not valid JSON: "
                    + e.getOriginalMessage() + place, e);
        } catch (IOException e) {
            throw new GatunException(GatunException.Status.INVALID_ARGUMENT, origin + ": cannot be read: "
                    + IoReason.of(e), e);
        } catch (Malformed e) {
            throw new GatunException(GatunException.Status.INVALID_ARGUMENT, origin + ": " + e.getMessage(), e);
        }
    }

    private static String whatIsMissing(Path modelDir) {
        if (!Files.isDirectory(modelDir)) {
            return "not found, because " + modelDir + " is not a directory";
        }
        List<String> older = new ArrayList<>();
        for (String name : List.of("vocab.json", "merges.txt", "vocab.txt", "tokenizer.model", "spiece.model")) {
            if (Files.exists(modelDir.resolve(name))) {
                older.add(name);
            }
        }
        return older.isEmpty() ? "not found"
                : "not found; the directory has only " + String.join(" and ", older) + ". Gatun needs tokenizer.json:"
                        + " write it with transformers, AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)";
    }

    private static TokenizerFile parse(String json) throws IOException {
        Reader reader = new Reader();
        try (JsonParser in = new JsonFactory().createParser(json)) {
            expect(in.nextToken(), JsonToken.START_OBJECT, "the file");
            while (in.nextToken() == JsonToken.FIELD_NAME) {
                String field = in.currentName();
                in.nextToken();
                switch (field) {
                    case "added_tokens" -> reader.addedTokens(in);
                    case "model" -> reader.model(in);
                    case "decoder" -> reader.decoder(in);
                    default -> in.skipChildren();
                }
            }
            if (in.nextToken() != null) {
                throw new Malformed("text after the end of the JSON object");
            }
        }
        if (reader.size == 0) {
            throw new Malformed("no model.vocab: this is not a tokenizer.json");
        }
        return new TokenizerFile(json, Arrays.copyOf(reader.texts, reader.size), reader.special, reader.added,
                List.copyOf(reader.decoders));
    }

    private static void expect(@Nullable JsonToken found, JsonToken wanted, String what) {
        if (found != wanted) {
            throw new Malformed("expected " + what + " to be " + spelled(wanted) + ", found " + spelled(found));
        }
    }

    private static String spelled(@Nullable JsonToken token) {
        return token == null ? "the end of the file"
                : token.name().toLowerCase(Locale.ROOT).replace("start_", "an ").replace("value_", "a ");
    }

    private static final class Malformed extends RuntimeException {
        private static final long serialVersionUID = 1;

        Malformed(String message) {
            super(message);
        }
    }

    /// The tables while they grow.
    private static final class Reader {
        @Nullable String[] texts = new String[1024];
        int size;
        final BitSet special = new BitSet();
        final BitSet added = new BitSet();
        final List<Decoder> decoders = new ArrayList<>();

        void addedTokens(JsonParser in) throws IOException {
            if (in.currentToken() == JsonToken.VALUE_NULL) {
                return;
            }
            expect(in.currentToken(), JsonToken.START_ARRAY, "added_tokens");
            while (in.nextToken() != JsonToken.END_ARRAY) {
                expect(in.currentToken(), JsonToken.START_OBJECT, "an added token");
                int id = -1;
                String content = null;
                boolean isSpecial = false;
                while (in.nextToken() == JsonToken.FIELD_NAME) {
                    String field = in.currentName();
                    in.nextToken();
                    switch (field) {
                        case "id" -> id = in.getIntValue();
                        case "content" -> content = in.getText();
                        case "special" -> isSpecial = in.getBooleanValue();
                        default -> in.skipChildren();
                    }
                }
                if (content == null) {
                    throw new Malformed("added token " + id + " has no content");
                }
                put(id, content);
                added.set(id);
                special.set(id, isSpecial);
            }
        }

        void model(JsonParser in) throws IOException {
            expect(in.currentToken(), JsonToken.START_OBJECT, "model");
            while (in.nextToken() == JsonToken.FIELD_NAME) {
                String field = in.currentName();
                in.nextToken();
                if (field.equals("vocab")) {
                    vocab(in);
                } else {
                    in.skipChildren();
                }
            }
        }

        /// `{"text": id}`, or for Unigram `[["text", score]]` in the order of the ids.
        private void vocab(JsonParser in) throws IOException {
            if (in.currentToken() == JsonToken.START_OBJECT) {
                while (in.nextToken() == JsonToken.FIELD_NAME) {
                    String text = in.currentName();
                    in.nextToken();
                    putUnlessAdded(in.getIntValue(), text);
                }
                return;
            }
            expect(in.currentToken(), JsonToken.START_ARRAY, "model.vocab");
            for (int id = 0; in.nextToken() != JsonToken.END_ARRAY; id++) {
                expect(in.currentToken(), JsonToken.START_ARRAY, "an entry of model.vocab");
                expect(in.nextToken(), JsonToken.VALUE_STRING, "the text of an entry of model.vocab");
                putUnlessAdded(id, in.getText());
                while (in.nextToken() != JsonToken.END_ARRAY) {
                    in.skipChildren();
                }
            }
        }

        void decoder(JsonParser in) throws IOException {
            if (in.currentToken() == JsonToken.VALUE_NULL) {
                return;
            }
            expect(in.currentToken(), JsonToken.START_OBJECT, "decoder");
            String type = "";
            String pattern = null;
            int stop = 0;
            boolean sequence = false;
            while (in.nextToken() == JsonToken.FIELD_NAME) {
                String field = in.currentName();
                in.nextToken();
                switch (field) {
                    case "type" -> type = in.getText();
                    case "pattern" -> pattern = literalPattern(in);
                    case "stop" -> stop = in.getIntValue();
                    case "decoders" -> {
                        sequence = true;
                        expect(in.currentToken(), JsonToken.START_ARRAY, "decoders");
                        while (in.nextToken() != JsonToken.END_ARRAY) {
                            decoder(in);
                        }
                    }
                    default -> in.skipChildren();
                }
            }
            if (!sequence) {
                decoders.add(new Decoder(type, pattern, stop));
            }
        }

        /// `{"String": "x"}`; null for `{"Regex": "x"}`.
        private @Nullable String literalPattern(JsonParser in) throws IOException {
            String literal = null;
            if (in.currentToken() == JsonToken.START_OBJECT) {
                while (in.nextToken() == JsonToken.FIELD_NAME) {
                    boolean isLiteral = in.currentName().equals("String");
                    in.nextToken();
                    if (isLiteral) {
                        literal = in.getText();
                    }
                }
            }
            return literal;
        }

        private void putUnlessAdded(int id, String text) {
            if (!added.get(Math.max(id, 0))) {
                put(id, text);
            }
        }

        private void put(int id, String text) {
            if (id < 0 || id > MAX_ID) {
                throw new Malformed("token \"" + text + "\" has id " + id + ", expected 0 to " + MAX_ID);
            }
            if (id >= texts.length) {
                texts = Arrays.copyOf(texts, Math.max(id + 1, 2 * texts.length));
            }
            texts[id] = text;
            size = Math.max(size, id + 1);
        }
    }
}
