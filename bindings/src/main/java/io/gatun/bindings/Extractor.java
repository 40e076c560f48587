package io.gatun.bindings;

import java.io.IOException;
import java.io.InputStream;
import java.net.JarURLConnection;
import java.net.URISyntaxException;
import java.net.URL;
import java.nio.charset.StandardCharsets;
import java.nio.file.AtomicMoveNotSupportedException;
import java.nio.file.FileAlreadyExistsException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.util.ArrayList;
import java.util.List;
import java.util.jar.JarEntry;
import java.util.zip.CRC32;
import org.jspecify.annotations.Nullable;

/// Turns a library inside a jar into a file that can be opened. The file's folder is named by the entry's checksum and
/// size, so versions never mix and a second start finds it; it is written beside its place and moved there in one step,
/// so that two processes that start together cannot see half a file.
final class Extractor {
    private Extractor() {}

    static @Nullable URL resource(String name) {
        ClassLoader loader = Extractor.class.getClassLoader();
        return loader == null ? ClassLoader.getSystemResource(name) : loader.getResource(name);
    }

    static Path extract(URL resource) {
        try {
            if (resource.getProtocol().equals("file")) {
                return Path.of(resource.toURI());
            }
            if (!(resource.openConnection() instanceof JarURLConnection connection)) {
                throw new LibraryException("cannot extract " + resource + ": expected a file or a jar");
            }
            JarEntry entry = connection.getJarEntry();
            String name = Path.of(entry.getName()).getFileName().toString();
            Path folder = CacheFolder.path().resolve("%08x-%d".formatted(entry.getCrc(), entry.getSize()));
            Path file = folder.resolve(name);
            if (Files.isRegularFile(file) && Files.size(file) == entry.getSize()) {
                return file;
            }
            try (InputStream in = connection.getInputStream()) {
                return write(in, folder, file);
            }
        } catch (IOException | URISyntaxException e) {
            throw new LibraryException("cannot extract " + resource + ": " + e, e);
        }
    }

    /// Files that must lie in one folder. Named by the checksums of all of them.
    ///
    /// @param broughtBy the artifact that has them
    static Path extractFolder(String folder, List<String> names, String broughtBy) {
        CRC32 checksum = new CRC32();
        List<URL> resources = new ArrayList<>();
        for (String name : names) {
            URL resource = resource(folder + name);
            if (resource == null) {
                throw new LibraryException("no " + name + " on the class path: add " + broughtBy);
            }
            resources.add(resource);
        }
        try {
            for (URL resource : resources) {
                if (!(resource.openConnection() instanceof JarURLConnection connection)) {
                    return Path.of(resource.toURI()).getParent();
                }
                JarEntry entry = connection.getJarEntry();
                checksum.update("%s %08x %d".formatted(entry.getName(), entry.getCrc(), entry.getSize())
                        .getBytes(StandardCharsets.UTF_8));
            }
            Path target = CacheFolder.path().resolve("softgpu-%08x".formatted(checksum.getValue()));
            for (int i = 0; i < names.size(); i++) {
                Path file = target.resolve(names.get(i));
                if (!Files.isRegularFile(file)) {
                    try (InputStream in = resources.get(i).openStream()) {
                        write(in, target, file);
                    }
                }
            }
            return target;
        } catch (IOException | URISyntaxException e) {
            throw new LibraryException("cannot extract " + folder + ": " + e, e);
        }
    }

    private static Path write(InputStream in, Path folder, Path file) {
        try {
            CacheFolder.create(folder);
            Path part = Files.createTempFile(folder, file.getFileName().toString(), ".part");
            try {
                Files.copy(in, part, StandardCopyOption.REPLACE_EXISTING);
                try {
                    Files.move(part, file, StandardCopyOption.ATOMIC_MOVE);
                } catch (AtomicMoveNotSupportedException | FileAlreadyExistsException e) {
                    Files.move(part, file, StandardCopyOption.REPLACE_EXISTING);
                }
            } finally {
                Files.deleteIfExists(part);
            }
            return file;
        } catch (IOException e) {
            throw new LibraryException("cannot write " + file + ": " + e
                    + ". Choose a writable folder with -Dgatun.cache=DIR, or name an unpacked library with"
                    + " -Dgatun.native.path", e);
        }
    }
}
