package io.gatun.text;

import ai.djl.huggingface.tokenizers.jni.TokenizersLibrary;
import io.gatun.io.IoReason;
import io.gatun.runtime.GatunException;
import io.gatun.runtime.GatunException.Status;
import java.io.IOException;
import java.io.InputStream;
import java.net.JarURLConnection;
import java.net.URL;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.attribute.PosixFilePermissions;
import java.util.Locale;
import java.util.jar.JarEntry;
import java.util.stream.Collectors;
import java.util.stream.Stream;

/// How the Hugging Face tokenizers library gets into the process: the CPU build from inside the jar
/// `ai.djl.huggingface:tokenizers`, on first use, without the network.
///
/// The library's JNI class is called directly, because every way through DJL's own entry points does things a tokenizer
/// must not do. `HuggingFaceTokenizer.newInstance` asks the cloud's metadata address (169.254.169.254) and may report
/// to a telemetry server. `LibUtils` opens libcudart through JNA to look for a GPU and, where it finds one, downloads a
/// CUDA build. Both can be switched off by system properties and environment variables alone, which a library must
/// not set for its process. `TokenizersLibrary` itself does none of this.
///
/// The file is `-Dgatun.tokenizers.path` (an unpacked library), else the jar's, extracted once to the cache folder that
/// the other libraries use (`-Dgatun.cache`, `$XDG_CACHE_HOME/gatun`, `~/.cache/gatun`), in a folder named by checksum
/// and size. JNI finds a library through the class loader that loaded it, so Gatun and the tokenizers jar must share
/// one: on one class path or one module path they do.
final class NativeTokenizers {
    private static final String UNNAMED = "ALL-UNNAMED";
    private static final String BINDINGS = "io.gatun.bindings";

    private NativeTokenizers() {}

    /// Creates the native tokenizer; the caller owns the handle.
    ///
    /// @throws RuntimeException from the library, when it refuses the file
    static long create(String tokenizerJson) {
        try {
            // An application that uses DJL's tokenizers itself has loaded the library already; a second copy of it
            // would be looked up method by method in no particular order.
            return TokenizersLibrary.LIB.createTokenizerFromString(tokenizerJson);
        } catch (UnsatisfiedLinkError notLoaded) {
            return loadAndCreate(tokenizerJson);
        } catch (IllegalCallerException e) {
            throw accessDenied(e);
        }
    }

    private static long loadAndCreate(String tokenizerJson) {
        try {
            load();
            return TokenizersLibrary.LIB.createTokenizerFromString(tokenizerJson);
        } catch (IllegalCallerException e) {
            throw accessDenied(e);
        } catch (UnsatisfiedLinkError e) {
            throw new GatunException(Status.UNSUPPORTED, "the tokenizers library was loaded but its class is in another"
                    + " class loader (" + TokenizersLibrary.class.getClassLoader() + "): put gatun-models and"
                    + " ai.djl.huggingface:tokenizers on the same class path or module path", e);
        }
    }

    private static void load() {
        String chosen = System.getProperty("gatun.tokenizers.path");
        Path file = chosen != null ? Path.of(chosen).toAbsolutePath() : extract();
        try {
            System.load(file.toString());
        } catch (UnsatisfiedLinkError e) {
            throw new GatunException(Status.UNSUPPORTED, "cannot load " + file + ": " + e.getMessage()
                    + ". If the folder is mounted noexec choose another with -Dgatun.cache=DIR; a library that fits"
                    + " this system can be named with -Dgatun.tokenizers.path=FILE", e);
        }
    }

    private static Path extract() {
        String name = "/native/lib/" + platform() + "/cpu/libtokenizers.so";
        URL resource = TokenizersLibrary.class.getResource(name);
        if (resource == null) {
            throw new GatunException(Status.UNSUPPORTED, "the tokenizers jar has no " + name.substring(1)
                    + ": name a tokenizers library for this system with -Dgatun.tokenizers.path=FILE");
        }
        Path folder = null;
        try {
            if (!(resource.openConnection() instanceof JarURLConnection connection)) {
                throw new GatunException(Status.UNSUPPORTED, "cannot extract " + resource + ": expected it in a jar");
            }
            JarEntry entry = connection.getJarEntry();
            folder = cacheFolder().resolve("%08x-%d".formatted(entry.getCrc(), entry.getSize()));
            Path file = folder.resolve("libtokenizers.so");
            if (!Files.isRegularFile(file) || Files.size(file) != entry.getSize()) {
                try (InputStream in = connection.getInputStream()) {
                    write(in, folder, file);
                }
            }
            return file;
        } catch (IOException e) {
            throw new GatunException(Status.UNSUPPORTED, "cannot extract the tokenizers library to "
                    + (folder == null ? cacheFolder() : folder) + ": " + IoReason.of(e)
                    + ". Choose a writable folder with -Dgatun.cache=DIR, or name an unpacked library with"
                    + " -Dgatun.tokenizers.path=FILE", e);
        }
    }

    /// Written beside its place and moved there in one step, so that two processes that start together cannot see half
    /// a file.
    private static void write(InputStream in, Path folder, Path file) throws IOException {
        Files.createDirectories(folder,
                PosixFilePermissions.asFileAttribute(PosixFilePermissions.fromString("rwx------")));
        Path part = Files.createTempFile(folder, "libtokenizers", ".part");
        try {
            Files.copy(in, part, StandardCopyOption.REPLACE_EXISTING);
            Files.move(part, file, StandardCopyOption.ATOMIC_MOVE, StandardCopyOption.REPLACE_EXISTING);
        } finally {
            Files.deleteIfExists(part);
        }
    }

    private static Path cacheFolder() {
        String chosen = System.getProperty("gatun.cache");
        if (chosen != null) {
            return Path.of(chosen);
        }
        String xdg = System.getenv("XDG_CACHE_HOME");
        return xdg != null && !xdg.isBlank() ? Path.of(xdg, "gatun")
                : Path.of(System.getProperty("user.home"), ".cache", "gatun");
    }

    private static String platform() {
        String os = System.getProperty("os.name").toLowerCase(Locale.ROOT);
        String arch = System.getProperty("os.arch");
        return (os.startsWith("linux") ? "linux" : os.replace(' ', '_')) + "-"
                + (arch.equals("amd64") ? "x86_64" : arch);
    }

    /// Loading is checked against Gatun's module, calling against the module of the JNI class; the device that is
    /// opened next asks for that of the bindings.
    private static GatunException accessDenied(IllegalCallerException e) {
        String gatun = moduleName(NativeTokenizers.class);
        String library = moduleName(TokenizersLibrary.class);
        String bindings = moduleName(GatunException.class).equals(UNNAMED) ? UNNAMED : BINDINGS;
        return new GatunException(Status.UNSUPPORTED, "native access is denied: start java with"
                + " --enable-native-access=" + Stream.of(bindings, gatun, library).distinct()
                .collect(Collectors.joining(",")), e);
    }

    private static String moduleName(Class<?> type) {
        return type.getModule().isNamed() ? type.getModule().getName() : UNNAMED;
    }
}
