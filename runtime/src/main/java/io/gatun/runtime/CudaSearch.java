package io.gatun.runtime;

import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import org.jspecify.annotations.Nullable;

/// Looks for the CUDA driver and runtime in the documented order, to say what is there and what is missing.
public final class CudaSearch {
    private static final List<String> SYSTEM_FOLDERS = List.of("/usr/local/cuda/lib64", "/usr/lib/x86_64-linux-gnu",
            "/usr/lib64", "/usr/lib/wsl/lib");

    private CudaSearch() {}

    /// A library that CUDA needs: its names in order of preference, and what brings it.
    private record Wanted(List<String> names, String broughtBy) {}

    private static final List<Wanted> WANTED = List.of(
            new Wanted(List.of("libcuda.so.1"), "the NVIDIA driver, R580 or later"),
            new Wanted(List.of("libcudart.so.13", "libcudart.so.12"), "the CUDA toolkit 13 or the wheel"
                    + " nvidia-cuda-runtime"),
            new Wanted(List.of("libcublasLt.so.13", "libcublasLt.so.12"), "the CUDA toolkit 13 or the wheel"
                    + " nvidia-cublas"));

    /// The folders that are searched, in order: `-Dgatun.cuda.path`, `CUDA_HOME`, `LD_LIBRARY_PATH`, system folders.
    public static List<Path> folders() {
        List<Path> folders = new ArrayList<>();
        String chosen = System.getProperty("gatun.cuda.path");
        if (chosen != null) {
            folders.add(Path.of(chosen));
        }
        String home = System.getenv("CUDA_HOME");
        if (home != null && !home.isBlank()) {
            folders.add(Path.of(home, "lib64"));
        }
        String path = System.getenv("LD_LIBRARY_PATH");
        if (path != null) {
            for (String folder : path.split(":")) {
                if (!folder.isBlank()) {
                    folders.add(Path.of(folder));
                }
            }
        }
        SYSTEM_FOLDERS.forEach(folder -> folders.add(Path.of(folder)));
        return folders;
    }

    /// One line per library that CUDA needs: where it was found, or what would bring it.
    public static List<String> report() {
        List<String> lines = new ArrayList<>();
        for (Wanted wanted : WANTED) {
            Path found = find(wanted);
            lines.add(found != null ? found.toString()
                    : "%s not found: install %s".formatted(String.join(" or ", wanted.names), wanted.broughtBy));
        }
        return lines;
    }

    static String whyUnavailable(String spec) {
        List<String> missing = report().stream().filter(line -> line.contains(" not found: ")).toList();
        if (missing.isEmpty()) {
            return "device '" + spec + "': this version of Gatun runs on the CPU only; use --device cpu";
        }
        return "device '%s' is not available: %s (searched %s); or use --device cpu".formatted(spec,
                String.join("; ", missing),
                String.join(", ", folders().stream().map(Path::toString).distinct().toList()));
    }

    private static @Nullable Path find(Wanted wanted) {
        for (Path folder : folders()) {
            for (String name : wanted.names) {
                if (Files.exists(folder.resolve(name))) {
                    return folder.resolve(name);
                }
            }
        }
        return null;
    }
}
