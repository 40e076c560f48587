package io.gatun.text;

import java.io.IOException;
import java.net.URISyntaxException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.stream.Stream;

/// The tokenizers of the tests: small ones in the test resources, one per kind of decoder, and the trained ones under
/// `-Dgatun.assets` where they are.
final class Tokenizers {
    static final List<String> BUNDLED = List.of("bytelevel", "bytefallback", "metaspace", "bert_sentence",
            "stable_diffusion", "suffix");

    private Tokenizers() {}

    static Path resource(String name) {
        try {
            return Path.of(Objects.requireNonNull(Tokenizers.class.getResource("/text/" + name), name).toURI());
        } catch (URISyntaxException e) {
            throw new IllegalStateException(e);
        }
    }

    static Path assets() {
        return Path.of(System.getProperty("gatun.assets", "../../shared/assets"));
    }

    /// All directories with a tokenizer.json that are there.
    static Stream<Path> directories() {
        return Stream.concat(BUNDLED.stream().map(Tokenizers::resource),
                Stream.of("stories260k", "tinystories-656k").map(name -> assets().resolve(name).resolve("model")))
                .filter(directory -> Files.exists(directory.resolve("tokenizer.json")));
    }

    static Object json(Path file) {
        try {
            return Objects.requireNonNull(Json.read(Files.readString(file)));
        } catch (IOException e) {
            throw new IllegalStateException(file.toString(), e);
        }
    }

    static List<Map<?, ?>> objects(Object list) {
        return ((List<?>) list).stream().<Map<?, ?>>map(item -> (Map<?, ?>) item).toList();
    }

    static int[] ids(Object list) {
        return ((List<?>) list).stream().mapToInt(id -> ((Number) id).intValue()).toArray();
    }
}
