package io.gatun.bindings;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SymbolLookup;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Objects;
import java.util.function.Supplier;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import org.jspecify.annotations.Nullable;

/// Opens the native libraries, each once per class loader, and remembers where it found them. The generated classes
/// take their symbols from here.
///
/// libgatun: `-Dgatun.native.path` (the file or its folder), else one that lies in the folder of `-Dgatun.cuda.path`
/// (the test kit's, which goes with its stand-ins for CUDA), else the classifier jar of `gatun-native` on the class or
/// module path. CUDA's libraries: see [CudaFolders]. oneDNN and its libgomp: `-Dgatun.onednn.path` (a folder), else the
/// jar `org.bytedeco:dnnl`. Libraries in jars are extracted once to a cache folder (see [Extractor]). Nothing is
/// downloaded.
public final class Libraries {
    private static final String GATUN_RESOURCE = "META-INF/gatun/" + platform() + "/libgatun.so";
    private static final String ONEDNN_RESOURCES = "org/bytedeco/dnnl/" + platform() + "/";

    /// A library in use: its name, the file that was opened, and how it was found.
    public record Opened(String name, Path file, String origin) {}

    private static final List<Opened> OPENED = new ArrayList<>();

    private Libraries() {}

    /// What came of opening a library; kept, so that every call says why it failed and not only the first.
    private record Attempt(@Nullable SymbolLookup lookup, @Nullable LibraryException failure) {
        static Attempt of(Supplier<@Nullable SymbolLookup> open) {
            try {
                return new Attempt(open.get(), null);
            } catch (LibraryException e) {
                return new Attempt(null, e);
            }
        }

        /// The symbols, or null for a library that may be absent and is.
        @Nullable SymbolLookup get() {
            if (failure != null) {
                throw new LibraryException(String.valueOf(failure.getMessage()), failure);
            }
            return lookup;
        }
    }

    private static final class OpenMp {
        static final Attempt BUNDLED = Attempt.of(Libraries::openOpenMp);
    }

    private static final class Gatun {
        static final Attempt ATTEMPT = Attempt.of(Libraries::openGatun);
    }

    private static final class OneDnn {
        static final Attempt ATTEMPT = Attempt.of(Libraries::openOneDnn);
    }

    private static final class Cudart {
        static final Attempt ATTEMPT = Attempt.of(() -> openCuda(CudaFolders.CUDART));
    }

    private static final class CublasLt {
        static final Attempt ATTEMPT = Attempt.of(() -> openCuda(CudaFolders.CUBLASLT));
    }

    private static final class Cudnn {
        static final Attempt ATTEMPT = Attempt.of(() -> openCuda(CudaFolders.CUDNN));
    }

    /// Symbols of libgatun.
    public static SymbolLookup gatun() {
        checkNativeAccess();
        return Objects.requireNonNull(Gatun.ATTEMPT.get());
    }

    /// Symbols of oneDNN.
    public static SymbolLookup oneDnn() {
        checkNativeAccess();
        return Objects.requireNonNull(OneDnn.ATTEMPT.get());
    }

    /// Symbols of the CUDA runtime.
    public static SymbolLookup cudart() {
        checkNativeAccess();
        return Objects.requireNonNull(Cudart.ATTEMPT.get());
    }

    /// Symbols of cuBLASLt.
    public static SymbolLookup cublasLt() {
        cudart(); // before it, so that it finds the same one
        return Objects.requireNonNull(CublasLt.ATTEMPT.get());
    }

    /// Symbols of cuDNN.
    public static SymbolLookup cudnn() {
        cublasLt();
        return Objects.requireNonNull(Cudnn.ATTEMPT.get());
    }

    /// Whether somebody named a folder for oneDNN, which must then be there.
    public static boolean isOneDnnChosen() {
        return System.getProperty("gatun.onednn.path") != null;
    }

    /// Whether oneDNN can be opened; the reason when it cannot is in [#oneDnn()]'s exception.
    public static boolean hasOneDnn() {
        return isOneDnnChosen() || Extractor.resource(ONEDNN_RESOURCES + "libdnnl.so.3") != null;
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

    private static SymbolLookup openGatun() {
        // Before libgatun, so that libgatun finds this libgomp by its name.
        boolean bundledOpenMp = OpenMp.BUNDLED.get() != null;
        String path = System.getProperty("gatun.native.path");
        if (path != null) {
            Path file = Path.of(path);
            return openedGatun(Files.isDirectory(file) ? file.resolve("libgatun.so") : file, "-Dgatun.native.path",
                    bundledOpenMp);
        }
        Path besideCuda = CudaFolders.chosen() == null ? null : CudaFolders.chosen().resolve("libgatun.so");
        if (besideCuda != null && Files.exists(besideCuda)) {
            return openedGatun(besideCuda, "-Dgatun.cuda.path", bundledOpenMp);
        }
        var resource = Extractor.resource(GATUN_RESOURCE);
        if (resource == null) {
            throw new LibraryException("no libgatun for " + platform() + " on the class path: add the dependency"
                    + " io.gatun:gatun-native with classifier " + platform()
                    + ", or name a file with -Dgatun.native.path");
        }
        return openedGatun(Extractor.extract(resource), resource.toString(), bundledOpenMp);
    }

    private static SymbolLookup openedGatun(Path file, String origin, boolean bundledOpenMp) {
        SymbolLookup lookup = open("libgatun", file, origin, bundledOpenMp);
        if (lookup.find("gt_abi_version").isEmpty()) {
            throw new LibraryException("libgatun: " + file + " (from " + origin + ") is another library: it has no"
                    + " gt_abi_version");
        }
        return lookup;
    }

    private static SymbolLookup openOneDnn() {
        boolean bundledOpenMp = OpenMp.BUNDLED.get() != null;
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

    private static SymbolLookup openCuda(CudaFolders.Library library) {
        Path file = CudaFolders.find(library);
        if (file == null) {
            throw new LibraryException(library.title() + ": " + CudaFolders.missing(library));
        }
        return open(library.title(), file, CudaFolders.chosen() != null ? "-Dgatun.cuda.path" : "found", true);
    }

    /// Opens the libgomp that comes with oneDNN, if it is there; else the system's is used when libgatun asks for it.
    private static @Nullable SymbolLookup openOpenMp() {
        String folder = System.getProperty("gatun.onednn.path");
        Path file = folder == null ? null : Path.of(folder, "libgomp.so.1");
        if (file == null || !Files.exists(file)) {
            var resource = Extractor.resource(ONEDNN_RESOURCES + "libgomp.so.1");
            if (resource == null) {
                return null;
            }
            file = Extractor.extract(resource);
        }
        HostMemory.limitOpenMpSpinning();
        return open("libgomp", file, "oneDNN's", true);
    }

    private static synchronized SymbolLookup open(String name, Path path, String origin, boolean bundledOpenMp) {
        Path file = path.toAbsolutePath(); // dlopen looks for a bare name in the system's folders
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
            throw new LibraryException("native access is denied: start java with --enable-native-access="
                    + modules(Libraries.class.getModule()), e);
        }
    }

    /// This one, and those beside it that will ask for native access too.
    private static String modules(Module module) {
        if (!module.isNamed()) {
            return "ALL-UNNAMED";
        }
        ModuleLayer layer = module.getLayer();
        return Stream.concat(Stream.of(module.getName()), Stream.of("io.gatun.models", "ai.djl.tokenizers",
                "io.gatun.softgpu").filter(name -> layer.findModule(name).isPresent()))
                .collect(Collectors.joining(","));
    }

    /// What to do about some words of the dynamic loader; empty where nothing is known.
    static String advice(String error, boolean bundledOpenMp) {
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
