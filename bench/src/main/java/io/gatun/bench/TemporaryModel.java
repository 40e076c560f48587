package io.gatun.bench;

import io.gatun.io.IoReason;
import io.gatun.runtime.DType;
import io.gatun.runtime.GatunException;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.function.Consumer;
import java.util.stream.Stream;

/// A random model in a directory that ends with it.
///
/// @param path the directory
public record TemporaryModel(Path path) implements AutoCloseable {
    private static final long SEED = 1;

    public static TemporaryModel of(Gpt2Checkpoint checkpoint, DType dtype) {
        return of(directory -> checkpoint.write(directory, dtype, SEED));
    }

    /// The U-Net of [RandomCheckpoint#writeDdpmCifar10].
    static TemporaryModel ddpmCifar10(DType dtype) {
        return of(directory -> RandomCheckpoint.writeDdpmCifar10(directory, dtype, SEED));
    }

    private static TemporaryModel of(Consumer<Path> write) {
        try {
            TemporaryModel model = new TemporaryModel(Files.createTempDirectory("gatun-bench"));
            write.accept(model.path);
            return model;
        } catch (IOException e) {
            throw new GatunException(GatunException.Status.INTERNAL, "no place for a temporary model: "
                    + IoReason.of(e), e);
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
