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
    /// @param names     file names, the preferred one first; the number is the major version
    /// @param broughtBy what to install where it is missing
    public record Library(String title, List<String> names, String broughtBy) {
        @Override
        public String toString() {
            return String.join(" or ", names);
        }
    }

    public static final Library DRIVER = new Library("NVIDIA driver", List.of("libcuda.so.1"),
            "the NVIDIA driver, R580 or later");
    public static final Library CUDART = new Library("CUDA runtime", List.of("libcudart.so.13", "libcudart.so.12"),
            "the CUDA toolkit 13, or the Python wheel nvidia-cuda-runtime");
    public static final Library CUBLASLT = new Library("cuBLASLt", List.of("libcublasLt.so.13", "libcublasLt.so.12"),
            "the CUDA toolkit 13, or the Python wheel nvidia-cublas");
    public static final Library CUDNN = new Library("cuDNN", List.of("libcudnn.so.9"),
            "cuDNN 9, or the Python wheel nvidia-cudnn-cu13");

    private CudaFolders() {}

    /// The folder that `-Dgatun.cuda.path` names; null where it is not set. `softgpu` is the test kit of that name on the
    /// class path.
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

    /// The file of a library: the first folder that has one of its names; null where none has. A folder named by
    /// `-Dgatun.cuda.path` is the only one that is searched, except for the driver: half of one installation and half of another do not
    /// mix.
    public static @Nullable Path find(Library library) {
        for (Path folder : library.equals(DRIVER) ? all() : searched()) {
            for (String name : library.names()) {
                Path file = folder.resolve(name);
                if (Files.exists(file)) {
                    return file;
                }
            }
        }
        return null;
    }

    /// What [#find] looks through, for people.
    public static List<Path> searched() {
        Path chosen = chosen();
        return chosen != null ? List.of(chosen) : all();
    }
}
