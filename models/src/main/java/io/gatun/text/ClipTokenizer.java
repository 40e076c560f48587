package io.gatun.text;

import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import io.gatun.io.IoReason;
import io.gatun.models.ConfigFile;
import io.gatun.runtime.GatunException;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import org.jspecify.annotations.Nullable;

/// Text to the fixed number of ids that a CLIP text encoder takes (Radford et al. 2021, arXiv 2103.00020): begin, the
/// text's tokens as far as there is room, end, padding. Lower case, NFC, white space as one blank, words that end in
/// `</w>`: as the directory's `tokenizer.json` says, or, where there is none, as `vocab.json` and `merges.txt` are
/// meant.
///
/// Padding differs between models that share everything else: Stable Diffusion 1 pads with the end token, version 2 and
/// the second tokenizer of XL with `!`.
public final class ClipTokenizer implements AutoCloseable {
    private static final ObjectMapper MAPPER = new ObjectMapper();
    private static final String WORDS = "<\\|startoftext\\|>|<\\|endoftext\\|>|'s|'t|'re|'ve|'m|'ll|'d|[\\p{L}]+"
            + "|[\\p{N}]|[^\\s\\p{L}\\p{N}]+";
    private static final long MAX_MERGES_BYTES = 1L << 26;

    private final Tokenizer tokenizer;
    private final int length;
    private final int padId;

    private ClipTokenizer(Tokenizer tokenizer, int length, int padId) {
        this.tokenizer = tokenizer;
        this.length = length;
        this.padId = padId;
    }

    /// @param directory     the folder `tokenizer` of a pipeline
    /// @param contextLength positions of the text encoder; `model_max_length` of the folder may ask for fewer
    /// @throws GatunException when files are missing or damaged
    public static ClipTokenizer open(Path directory, int contextLength) {
        ConfigFile config = ConfigFile.readIfPresent(directory.resolve("tokenizer_config.json"));
        Tokenizer tokenizer = Files.exists(directory.resolve("tokenizer.json")) ? Tokenizer.open(directory)
                : Tokenizer.of(fromVocabulary(directory, config), directory.resolve("vocab.json"));
        try {
            int length = contextLength;
            if (config != null && config.has("model_max_length")) {
                length = (int) Math.min(length, config.requireNumber("model_max_length"));
            }
            if (length < 2) {
                throw GatunException.invalid("%s: %d tokens, expected room for begin and end", directory, length);
            }
            return new ClipTokenizer(tokenizer, length, padId(directory, config, tokenizer));
        } catch (RuntimeException e) {
            tokenizer.close();
            throw e;
        }
    }

    /// The ids of a text, [#length] of them.
    public int[] encode(String text) {
        int[] ids = tokenizer.encode(text);
        int[] padded = Arrays.copyOf(ids, length);
        if (ids.length > length) {
            padded[length - 1] = ids[ids.length - 1];
        } else {
            Arrays.fill(padded, ids.length, length, padId);
        }
        return padded;
    }

    /// Ids per text: 77 in the published models.
    public int length() {
        return length;
    }

    /// What texts are padded with.
    public int padId() {
        return padId;
    }

    /// Twice is fine.
    @Override
    public void close() {
        tokenizer.close();
    }

    /// As transformers decides: `special_tokens_map.json` comes before a `tokenizer_config.json` that lists no added
    /// tokens; the end token where nobody says.
    private static int padId(Path directory, @Nullable ConfigFile config, Tokenizer tokenizer) {
        String pad = null;
        if (config == null || !config.has("added_tokens_decoder")) {
            pad = token(ConfigFile.readIfPresent(directory.resolve("special_tokens_map.json")), "pad_token");
        }
        if (pad == null) {
            pad = token(config, "pad_token");
        }
        if (pad == null) {
            int[] empty = tokenizer.encode("");
            return empty[empty.length - 1];
        }
        for (int id = 0; id < tokenizer.vocabSize(); id++) {
            if (pad.equals(tokenizer.tokenText(id))) {
                return id;
            }
        }
        throw GatunException.invalid("%s: pad_token is \"%s\", which is not in the vocabulary", directory, pad);
    }

    /// A special token, which is a string or an object with its `content`.
    private static @Nullable String token(@Nullable ConfigFile config, String field) {
        if (config == null || !config.has(field)) {
            return null;
        }
        return config.isObject(field) ? config.object(field).requireString("content") : config.requireString(field);
    }

    /// A `tokenizer.json` from `vocab.json` and `merges.txt`.
    private static String fromVocabulary(Path directory, @Nullable ConfigFile config) {
        for (String name : new String[] {"vocab.json", "merges.txt"}) {
            if (!Files.isRegularFile(directory.resolve(name))) {
                throw GatunException.invalid("no file %s: expected tokenizer.json, or vocab.json with merges.txt",
                        directory.resolve(name));
            }
        }
        ConfigFile vocabulary = ConfigFile.read(directory.resolve("vocab.json"));
        String begin = orElse(token(config, "bos_token"), "<|startoftext|>");
        String end = orElse(token(config, "eos_token"), "<|endoftext|>");
        int beginId = vocabulary.requireInt(begin, 0, Integer.MAX_VALUE);
        int endId = vocabulary.requireInt(end, 0, Integer.MAX_VALUE);

        ObjectNode json = MAPPER.createObjectNode().put("version", "1.0");
        ArrayNode added = json.putArray("added_tokens");
        addToken(added, beginId, begin);
        addToken(added, endId, end);
        ArrayNode normalizers = json.putObject("normalizer").put("type", "Sequence").putArray("normalizers");
        normalizers.addObject().put("type", "NFC");
        normalizers.addObject().put("type", "Replace").put("content", " ").putObject("pattern").put("Regex", "\\s+");
        normalizers.addObject().put("type", "Lowercase");
        ArrayNode split = json.putObject("pre_tokenizer").put("type", "Sequence").putArray("pretokenizers");
        split.addObject().put("type", "Split").put("behavior", "Removed").put("invert", true).putObject("pattern")
                .put("Regex", WORDS);
        split.addObject().put("type", "ByteLevel").put("add_prefix_space", false).put("trim_offsets", true)
                .put("use_regex", true);
        ObjectNode post = json.putObject("post_processor").put("type", "RobertaProcessing").put("trim_offsets", false)
                .put("add_prefix_space", false);
        post.putArray("sep").add(end).add(endId);
        post.putArray("cls").add(begin).add(beginId);
        json.putObject("decoder").put("type", "ByteLevel").put("add_prefix_space", true).put("trim_offsets", true)
                .put("use_regex", true);
        ObjectNode model = json.putObject("model").put("type", "BPE").put("unk_token", end)
                .put("continuing_subword_prefix", "").put("end_of_word_suffix", "</w>").put("fuse_unk", false);
        try {
            model.set("vocab", MAPPER.readTree(vocabulary.file().toFile()));
            merges(directory.resolve("merges.txt"), model.putArray("merges"));
        } catch (IOException e) {
            throw GatunException.invalid("%s: cannot be read: %s", directory, IoReason.of(e));
        }
        return json.toString();
    }

    private static void addToken(ArrayNode added, int id, String content) {
        added.addObject().put("id", id).put("content", content).put("single_word", false).put("lstrip", false)
                .put("rstrip", false).put("normalized", false).put("special", true);
    }

    private static void merges(Path file, ArrayNode merges) throws IOException {
        if (Files.size(file) > MAX_MERGES_BYTES) {
            throw GatunException.invalid("%s: %d bytes, expected at most %d", file, Files.size(file), MAX_MERGES_BYTES);
        }
        int number = 0;
        for (String line : Files.readAllLines(file)) {
            number++;
            if (line.isBlank() || line.startsWith("#version")) {
                continue;
            }
            String[] pair = line.split(" ");
            if (pair.length != 2) {
                throw GatunException.invalid("%s, line %d: expected two tokens", file, number);
            }
            merges.addArray().add(pair[0]).add(pair[1]);
        }
    }

    private static String orElse(@Nullable String value, String otherwise) {
        return value == null ? otherwise : value;
    }
}
