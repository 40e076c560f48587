package io.gatun.bindings;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SymbolLookup;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.function.Supplier;

/// Opens the native libraries, each once per class loader, and remembers where it found them. The generated classes
/// take their symbols from here.
///
/// libgatun: `-Dgatun.native.path` (the file or its folder), else the classifier jar of `gatun-native` on the class or
/// module path. oneDNN and its libgomp: `-Dgatun.onednn.path` (a folder), else the jar `org.bytedeco:dnnl`. Libraries
/// in jars are extracted once to a cache folder (see [Extractor]). Nothing is downloaded.
public final class Libraries {
    private static final String GATUN_RESOURCE = "META-INF/gatun/" + platform() + "/libgatun.so";
    private static final String ONEDNN_RESOURCES = "org/bytedeco/dnnl/" + platform() + "/";

    /// A library in use: its name, the file that was opened, and how it was found.
    public record Opened(String name, Path file, String origin) {}

    private static final List<Opened> OPENED = new ArrayList<>();

    private Libraries() {}

    private static final class OpenMp {
        static final boolean BUNDLED = openOpenMp();
    }

    private static final class Gatun {
        static final SymbolLookup LOOKUP = openGatun();
    }

    private static final class OneDnn {
        static final SymbolLookup LOOKUP = openOneDnn();
    }

    /// Symbols of libgatun.
    public static SymbolLookup gatun() {
        return initialised(() -> Gatun.LOOKUP);
    }

    /// Symbols of oneDNN.
    public static SymbolLookup oneDnn() {
        return initialised(() -> OneDnn.LOOKUP);
    }

    /// Whether oneDNN can be opened; the reason when it cannot is in [#oneDnn()]'s exception.
    public static boolean hasOneDnn() {
        return System.getProperty("gatun.onednn.path") != null
                || Extractor.resource(ONEDNN_RESOURCES + "libdnnl.so.3") != null;
    }

    /// What has been opened so far.
    public static synchronized List<Opened> opened() {
        return List.copyOf(OPENED);
    }

    /// Operating system and architecture as the classifier jars spell it, such as `linux-x86_64`.
    public static String platform() {
        String os = System.getProperty("os.name").toLowerCase(Locale.ROOT);
        String arch = System.getProperty("os.arch");
        return (os.startsWith("linux") ? "linux" : os.replace(' ', '_')) + "-"
                + (arch.equals("amd64") ? "x86_64" : arch.equals("aarch64") ? "arm64" : arch);
    }

    /// The initialisers of the holder classes throw [LibraryException]; unwrap it, and say it again on a second call.
    private static SymbolLookup initialised(Supplier<SymbolLookup> holder) {
        checkNativeAccess();
        try {
            return holder.get();
        } catch (ExceptionInInitializerError e) {
            if (e.getCause() instanceof LibraryException cause) {
                throw cause;
            }
            throw e;
        } catch (NoClassDefFoundError e) {
            throw new LibraryException("a native library could not be opened earlier in this process: " + e.getMessage(),
                    e);
        }
    }

    private static SymbolLookup openGatun() {
        boolean bundledOpenMp = OpenMp.BUNDLED; // before libgatun, so that libgatun finds this libgomp by its name
        String path = System.getProperty("gatun.native.path");
        if (path != null) {
            Path file = Path.of(path);
            return open("libgatun", Files.isDirectory(file) ? file.resolve("libgatun.so") : file,
                    "-Dgatun.native.path", bundledOpenMp);
        }
        var resource = Extractor.resource(GATUN_RESOURCE);
        if (resource == null) {
            throw new LibraryException("no libgatun for " + platform() + " on the class path: add the dependency"
                    + " io.gatun:gatun-native with classifier linux-x86_64, or name a file with -Dgatun.native.path");
        }
        return open("libgatun", Extractor.extract(resource), resource.toString(), bundledOpenMp);
    }

    private static SymbolLookup openOneDnn() {
        boolean bundledOpenMp = OpenMp.BUNDLED;
        String folder = System.getProperty("gatun.onednn.path");
        if (folder != null) {
            return open("oneDNN", Path.of(folder, "libdnnl.so.3"), "-Dgatun.onednn.path", bundledOpenMp);
        }
        var resource = Extractor.resource(ONEDNN_RESOURCES + "libdnnl.so.3");
        if (resource == null) {
            throw new LibraryException("no oneDNN for " + platform() + " on the class path: add the dependency"
                    + " org.bytedeco:dnnl:3.11-1.5.13 with classifier " + platform()
                    + ", or name a folder with -Dgatun.onednn.path");
        }
        return open("oneDNN", Extractor.extract(resource), resource.toString(), bundledOpenMp);
    }

    /// Opens the libgomp that comes with oneDNN, if it is there; else the system's is used when libgatun asks for it.
    private static boolean openOpenMp() {
        String folder = System.getProperty("gatun.onednn.path");
        Path file = folder == null ? null : Path.of(folder, "libgomp.so.1");
        if (file == null || !Files.exists(file)) {
            var resource = Extractor.resource(ONEDNN_RESOURCES + "libgomp.so.1");
            if (resource == null) {
                return false;
            }
            file = Extractor.extract(resource);
        }
        HostMemory.limitOpenMpSpinning();
        open("libgomp", file, "oneDNN's", true);
        return true;
    }

    private static synchronized SymbolLookup open(String name, Path file, String origin, boolean bundledOpenMp) {
        if (!Files.isReadable(file)) {
            throw new LibraryException(name + ": no readable file " + file + " (from " + origin + ")");
        }
        String error = HostMemory.dlopen(file);
        if (error != null) {
            throw new LibraryException(name + ": cannot open " + file + ": " + error + advice(error, bundledOpenMp));
        }
        SymbolLookup lookup = SymbolLookup.libraryLookup(file, Arena.global());
        OPENED.add(new Opened(name, file, origin));
        return lookup;
    }

    /// With `--illegal-native-access=deny` the first restricted call fails: say then what to type.
    private static void checkNativeAccess() {
        try {
            MemorySegment.NULL.reinterpret(0);
        } catch (IllegalCallerException e) {
            Module module = Libraries.class.getModule();
            throw new LibraryException("native access is denied: start java with --enable-native-access="
                    + (module.isNamed() ? module.getName() : "ALL-UNNAMED"), e);
        }
    }

    private static String advice(String error, boolean bundledOpenMp) {
        if (error.contains("failed to map segment") || error.contains("Operation not permitted")) {
            return ". The folder is probably mounted noexec: choose another with -Dgatun.cache=DIR";
        }
        if (error.contains("GLIBC_")) {
            return ". This build of libgatun needs a newer glibc: build the project on this machine";
        }
        if (error.contains("libgomp") && !bundledOpenMp) {
            return ". Install libgomp (Debian: libgomp1, Fedora: libgomp) or add org.bytedeco:dnnl to the class path";
        }
        return "";
    }
}
