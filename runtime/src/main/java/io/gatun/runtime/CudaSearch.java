package io.gatun.runtime;

import io.gatun.bindings.CudaFolders;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Collectors;
import org.jspecify.annotations.Nullable;

/// What of CUDA is on this machine, for people: the report of `gatun doctor`, and the same facts in the exception when
/// a CUDA device was asked for and is not usable.
public final class CudaSearch {
    private static final Path DRIVER_FACTS = Path.of("/proc/driver/nvidia/version");

    private CudaSearch() {}

    /// The folders that are searched for CUDA's libraries, in order.
    public static List<Path> folders() {
        return CudaFolders.searched();
    }

    /// One line per library that CUDA needs: where it was found, or what would bring it.
    public static List<String> report() {
        List<String> lines = new ArrayList<>();
        for (CudaFolders.Library library : List.of(CudaFolders.DRIVER, CudaFolders.CUDART, CudaFolders.CUBLASLT,
                CudaFolders.CUDNN)) {
            lines.add(CudaFolders.find(library) != null ? located(library)
                    : library.equals(CudaFolders.CUDNN) ? withoutCudnn() : CudaFolders.missing(library));
        }
        return lines;
    }

    static String withoutCudnn() {
        return "%s not found: convolutions run on our kernel, which is slower; install %s".formatted(CudaFolders.CUDNN,
                CudaFolders.bringer(CudaFolders.CUDNN));
    }

    /// Where a library was found; with the driver's version.
    private static String located(CudaFolders.Library library) {
        String version = library.equals(CudaFolders.DRIVER) ? driverVersion(DRIVER_FACTS) : "";
        return CudaFolders.find(library) + (version.isEmpty() ? "" : " (driver " + version + ")");
    }

    /// Such as `580.82.07`, as the kernel module tells it; empty where there is none, as under WSL.
    static String driverVersion(Path facts) {
        try {
            Matcher version = Pattern.compile("\\d+\\.\\d+(\\.\\d+)?").matcher(Files.readString(facts));
            return version.find() ? version.group() : "";
        } catch (IOException e) {
            return "";
        }
    }

    /// One line about each device that can be opened, or one that says why there is none.
    public static List<String> devices() {
        List<String> lines = new ArrayList<>();
        try {
            int ordinal = 0;
            int count;
            do {
                try (Device device = new CudaDevice("cuda:" + ordinal)) {
                    lines.add(device.description() + ", %,d MiB free".formatted(device.memoryFree() >> 20));
                }
                count = CudaDevice.count("cuda");
            } while (++ordinal < count);
        } catch (GatunException e) {
            lines.add(e.getMessage());
        }
        return lines;
    }

    /// Whether trying to open a CUDA device makes sense: there is a driver, or somebody named a folder.
    static boolean isLikely() {
        return CudaFolders.chosen() != null || CudaFolders.find(CudaFolders.DRIVER) != null;
    }

    /// The exception for a device that cannot be used.
    ///
    /// @param reason null: the libraries that are missing are the reason
    static DeviceUnavailableException unavailable(String spec, @Nullable String reason) {
        List<String> reasons = new ArrayList<>();
        if (reason != null) {
            reasons.add(reason);
        }
        boolean chosen = CudaFolders.chosen() != null;
        List<String> found = new ArrayList<>();
        for (CudaFolders.Library library : List.of(CudaFolders.DRIVER, CudaFolders.CUDART, CudaFolders.CUBLASLT)) {
            if (CudaFolders.find(library) != null) {
                found.add(located(library));
            } else if (!chosen || !library.equals(CudaFolders.DRIVER)) { // a chosen folder's stand-ins need no driver
                reasons.add(CudaFolders.missing(library));
            }
        }
        String searched = folders().stream().map(Path::toString).collect(Collectors.joining(", "));
        return new DeviceUnavailableException("device '%s' is not available: %s (found %s%s); or use --device cpu"
                .formatted(spec, String.join("; ", reasons), found.isEmpty() ? "nothing" : String.join(", ", found),
                        reason != null ? "" : "; searched " + searched));
    }
}
