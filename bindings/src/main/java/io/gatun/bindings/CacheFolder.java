package io.gatun.bindings;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermissions;

/// Where files that come in jars are unpacked: `-Dgatun.cache`, else `$XDG_CACHE_HOME/gatun`, else `~/.cache/gatun`.
public final class CacheFolder {
    private CacheFolder() {}

    public static Path path() {
        String chosen = System.getProperty("gatun.cache");
        if (chosen != null) {
            return Path.of(chosen);
        }
        String xdg = System.getenv("XDG_CACHE_HOME");
        return xdg != null && !xdg.isBlank() ? Path.of(xdg, "gatun")
                : Path.of(System.getProperty("user.home"), ".cache", "gatun");
    }

    /// Makes a folder in it, private to the user, where there is none.
    public static void create(Path folder) throws IOException {
        Files.createDirectories(folder,
                PosixFilePermissions.asFileAttribute(PosixFilePermissions.fromString("rwx------")));
    }
}
