package io.gatun.generate;

import io.gatun.models.GoldenCase;
import io.gatun.models.ModelDirectory;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;

/// A model directory whose every token is two letters, so that a test can say what text ids give: id 0 is `aa`, 1 `ab`,
/// 16 `ba`; 2, the end token of both recorded models, and ids from 256 on give nothing.
final class TwoLetterTokenizer {
    private static final int END = 2;

    private TwoLetterTokenizer() {}

    /// Puts a copy of a recorded model, with the tokenizer, into a directory.
    static Path install(GoldenCase golden, Path directory) {
        StringBuilder vocab = new StringBuilder();
        for (int id = 0; id < 256; id++) {
            vocab.append(id == 0 ? "" : ",").append('"').append(text(id)).append("\":").append(id);
        }
        String json = """
                {"version": "1.0", "added_tokens": [], "normalizer": null, "pre_tokenizer": {"type": "Whitespace"},
                "post_processor": null, "decoder": {"type": "Fuse"},
                "model": {"type": "WordLevel", "unk_token": "aa", "vocab": {%s}}}""".formatted(vocab);
        install(golden, directory, json);
        return directory;
    }

    /// Puts a copy of a recorded model, with some tokenizer.json, into a directory.
    static Path install(GoldenCase golden, Path directory, String tokenizerJson) {
        try {
            for (String name : new String[] {"config.json", "generation_config.json", "model.safetensors"}) {
                Files.copy(golden.model().resolve(name), directory.resolve(name));
            }
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
        ModelDirectory.writeText(directory.resolve("tokenizer.json"), tokenizerJson);
        return directory;
    }

    static String text(int... ids) {
        StringBuilder text = new StringBuilder();
        for (int id : ids) {
            if (id < 256 && id != END) {
                text.append((char) ('a' + id / 16)).append((char) ('a' + id % 16));
            }
        }
        return text.toString();
    }
}
