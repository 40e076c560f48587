package io.gatun.io;

import io.gatun.bindings.CacheFolder;
import io.gatun.runtime.GatunException;
import java.io.IOException;
import java.io.InputStream;
import java.nio.channels.Channels;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;

/// Files that come in a jar, as files that can be mapped: unpacked once into the user's cache folder, which is
/// `-Dgatun.cache`, else `$XDG_CACHE_HOME/gatun`, else `~/.cache/gatun`.
public final class CachedFiles {
    private CachedFiles() {}

    /// Opens a file of the jar.
    @FunctionalInterface
    public interface Content {
        InputStream open(String name) throws IOException;
    }

    /// Unpacks those that are not there yet. Each appears as a whole, so processes that start together share them.
    ///
    /// @param folder in the cache folder; its name must be another where the content is, so it holds a checksum
    /// @param sizes  bytes of each file by its name relative to the folder; a file of another size is replaced
    /// @throws GatunException when they cannot be written
    public static Path unpack(String folder, Map<String, Long> sizes, Content content) {
        Path root = CacheFolder.path().resolve(folder);
        sizes.forEach((name, bytes) -> {
            Path file = root.resolve(name);
            try {
                if (Files.isRegularFile(file) && Files.size(file) == bytes) {
                    return;
                }
                CacheFolder.create(file.getParent());
                try (InputStream in = content.open(name)) {
                    AtomicFile.replace(file, bytes, out -> in.transferTo(Channels.newOutputStream(out)));
                }
            } catch (IOException | GatunException e) {
                throw new GatunException(GatunException.Status.INVALID_ARGUMENT, ("cannot unpack %s into %s: %s. Choose"
                        + " a writable folder with -Dgatun.cache=DIR").formatted(name, root, e instanceof IOException io
                                ? IoReason.of(io) : e.getMessage()), e);
            }
        });
        return root;
    }
}
