package io.gatun.bindings;

import java.io.IOException;
import java.nio.file.DirectoryStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Set;
import org.jspecify.annotations.Nullable;

/// Where may CUDA's libraries lie, and which of them are there? The folders, in order: `-Dgatun.cuda.path`, the
/// environment (`CUDA_HOME`, `LD_LIBRARY_PATH`), the usual system folders, and those of NVIDIA's Python wheels
/// (`nvidia/*/lib` below the `site-packages` of the active environment, the user and the system).
public final class CudaFolders {
    private static final List<String> SYSTEM = List.of("/usr/local/cuda/lib64", "/usr/lib/x86_64-linux-gnu",
            "/usr/lib64", "/usr/lib/wsl/lib");

    /// A library that the CUDA device uses.
    ///
    /// @param names     file names; a library of CUDA's own has one for each major version of CUDA, 13 before 12
    /// @param broughtBy what to install where it is missing; for each of them, if that differs
    public record Library(String title, List<String> names, List<String> broughtBy) {
        private boolean isOfCuda() {
            return names.size() > 1;
        }

        @Override
        public String toString() {
            return String.join(" or ", names);
        }
    }

    public static final Library DRIVER = new Library("NVIDIA driver", List.of("libcuda.so.1"),
            List.of("the NVIDIA driver, R580 or later"));
    public static final Library CUDART = new Library("CUDA runtime", List.of("libcudart.so.13", "libcudart.so.12"),
            List.of("the CUDA toolkit 13, or the Python wheel nvidia-cuda-runtime",
                    "the CUDA toolkit 12, or the Python wheel nvidia-cuda-runtime-cu12"));
    public static final Library CUBLASLT = new Library("cuBLASLt", List.of("libcublasLt.so.13", "libcublasLt.so.12"),
            List.of("the CUDA toolkit 13, or the Python wheel nvidia-cublas",
                    "the CUDA toolkit 12, or the Python wheel nvidia-cublas-cu12"));
    public static final Library CUDNN = new Library("cuDNN", List.of("libcudnn.so.9"),
            List.of("cuDNN 9, or the Python wheel nvidia-cudnn-cu13",
                    "cuDNN 9, or the Python wheel nvidia-cudnn-cu12"));

    private CudaFolders() {}

    /// The folder that `-Dgatun.cuda.path` names; null where it is not set. `softgpu` is the test kit of that name on
    /// the class path.
    public static @Nullable Path chosen() {
        String path = System.getProperty("gatun.cuda.path");
        return path == null ? null : path.equals("softgpu") ? SoftGpuFolder.PATH : Path.of(path);
    }

    private static final class SoftGpuFolder {
        static final Path PATH = Extractor.extractFolder("META-INF/gatun/softgpu/" + Libraries.platform() + "/",
                List.of("libcudart.so.13", "libcublasLt.so.13", "libcudnn.so.9", "libgatun.so"),
                "io.gatun:gatun-softgpu with classifier " + Libraries.platform());
    }

    /// All folders in the order of the search, whether they exist or not.
    public static List<Path> all() {
        Set<Path> folders = new LinkedHashSet<>();
        Path chosen = chosen();
        if (chosen != null) {
            folders.add(chosen);
        }
        addEnvironment(folders, "CUDA_HOME", "lib64");
        addEnvironment(folders, "LD_LIBRARY_PATH", "");
        SYSTEM.forEach(folder -> folders.add(Path.of(folder)));
        folders.addAll(wheelFolders());
        return List.copyOf(folders);
    }

    private static void addEnvironment(Set<Path> folders, String variable, String below) {
        String value = System.getenv(variable);
        if (value != null) {
            for (String folder : value.split(":")) {
                if (!folder.isBlank()) {
                    folders.add(Path.of(folder).resolve(below));
                }
            }
        }
    }

    /// `nvidia/*/lib` of every Python that is likely to be meant.
    private static List<Path> wheelFolders() {
        List<Path> roots = new ArrayList<>();
        for (String variable : List.of("VIRTUAL_ENV", "CONDA_PREFIX")) {
            String root = System.getenv(variable);
            if (root != null && !root.isBlank()) {
                roots.add(Path.of(root, "lib"));
            }
        }
        roots.add(Path.of(System.getProperty("user.home"), ".local", "lib"));
        roots.add(Path.of("/usr/local/lib"));
        roots.add(Path.of("/usr/lib"));
        List<Path> folders = new ArrayList<>();
        for (Path root : roots) {
            for (Path python : children(root, "python3*")) {
                for (String packages : List.of("site-packages", "dist-packages")) {
                    for (Path wheel : children(python.resolve(packages).resolve("nvidia"), "*")) {
                        if (Files.isDirectory(wheel.resolve("lib"))) {
                            folders.add(wheel.resolve("lib"));
                        }
                    }
                }
            }
        }
        return folders;
    }

    private static List<Path> children(Path folder, String glob) {
        List<Path> found = new ArrayList<>();
        if (Files.isDirectory(folder)) {
            try (DirectoryStream<Path> children = Files.newDirectoryStream(folder, glob)) {
                children.forEach(found::add);
            } catch (IOException e) {
                return List.of(); // a folder that cannot be listed holds nothing for us
            }
        }
        found.sort(null);
        return found;
    }

    /// The file of a library: the first folder that has one of its names; null where none has. CUDA's own libraries are
    /// of the CUDA runtime's major version, whatever others are installed. A folder named by `-Dgatun.cuda.path` is the
    /// only one that is searched, except for the driver: half of one installation and half of another do not mix.
    public static @Nullable Path find(Library library) {
        return find(library, folders(library));
    }

    static @Nullable Path find(Library library, List<Path> folders) {
        return first(namesBesideCudart(library, folders), folders);
    }

    private static List<Path> folders(Library library) {
        return library.equals(DRIVER) ? all() : searched();
    }

    private static @Nullable Path first(List<String> names, List<Path> folders) {
        for (Path folder : folders) {
            for (String name : names) {
                Path file = folder.resolve(name);
                if (Files.exists(file)) {
                    return file;
                }
            }
        }
        return null;
    }

    /// Those names of a library that go with the CUDA runtime that is there; without one, all.
    private static List<String> namesBesideCudart(Library library, List<Path> folders) {
        Path cudart = first(CUDART.names, folders);
        return cudart == null || !library.isOfCuda() ? library.names
                : List.of(library.names.get(version(cudart)));
    }

    /// Which of the versions of CUDA a CUDA runtime is.
    private static int version(Path cudart) {
        return CUDART.names.indexOf(String.valueOf(cudart.getFileName()));
    }

    /// What to install where a library is missing, for the CUDA runtime that is there.
    public static String bringer(Library library) {
        return bringer(library, folders(library));
    }

    private static String bringer(Library library, List<Path> folders) {
        Path cudart = first(CUDART.names, folders);
        int version = cudart == null ? 0 : version(cudart);
        return library.broughtBy.get(Math.min(version, library.broughtBy.size() - 1));
    }

    /// That a library is missing, and what to do; where it is there for another version of CUDA, that.
    public static String missing(Library library) {
        return missing(library, folders(library));
    }

    static String missing(Library library, List<Path> folders) {
        String names = String.join(" or ", namesBesideCudart(library, folders));
        Path other = first(library.names, folders);
        return other == null ? "%s not found: install %s".formatted(names, bringer(library, folders))
                : ("%s not found, but %s, which is of another CUDA than %s: install %s, or name a folder that has both"
                        + " of one CUDA with -Dgatun.cuda.path").formatted(names, other, first(CUDART.names, folders),
                                bringer(library, folders));
    }

    /// What [#find] looks through, for people.
    public static List<Path> searched() {
        Path chosen = chosen();
        return chosen != null ? List.of(chosen) : all();
    }
}
