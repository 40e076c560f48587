package io.gatun.bench;

import io.gatun.runtime.DType;
import io.gatun.runtime.GatunException;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.stream.Stream;

/// A random model in a directory that ends with it.
///
/// @param path the directory
public record TemporaryModel(Path path) implements AutoCloseable {
    private static final long SEED = 1;

    public static TemporaryModel of(Gpt2Checkpoint checkpoint, DType dtype) {
        try {
            TemporaryModel model = new TemporaryModel(Files.createTempDirectory("gatun-bench"));
            checkpoint.write(model.path, dtype, SEED);
            return model;
        } catch (IOException e) {
            throw new GatunException(GatunException.Status.INTERNAL, "no place for a temporary model: " + e, e);
        }
    }

    @Override
    public void close() {
        try (Stream<Path> files = Files.list(path)) {
            for (Path file : files.toList()) {
                Files.delete(file);
            }
            Files.delete(path);
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }
}
