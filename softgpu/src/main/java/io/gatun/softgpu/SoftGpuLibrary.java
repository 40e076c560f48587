package io.gatun.softgpu;

import io.gatun.runtime.CudaSearch;
import java.lang.foreign.Arena;
import java.lang.foreign.SymbolLookup;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;

/// Where the generated classes find the control functions: in the stand-in of libcudart that the runtime uses.
public final class SoftGpuLibrary {
    private static final String CUDART = "libcudart.so.13";

    private SoftGpuLibrary() {}

    /// Symbols of the stand-ins.
    public static SymbolLookup lookup() {
        return find(CudaSearch.folders());
    }

    static void requirePresent(List<Path> folders) {
        if (find(folders).find("softgpu_reset").isEmpty()) {
            throw new IllegalStateException(folders.getFirst().resolve(CUDART)
                    + " is not the stand-in of gatun-softgpu");
        }
    }

    private static SymbolLookup find(List<Path> folders) {
        for (Path folder : folders) {
            Path file = folder.resolve(CUDART);
            if (Files.exists(file)) {
                return SymbolLookup.libraryLookup(file.toAbsolutePath(), Arena.global());
            }
        }
        throw new IllegalStateException("no " + CUDART + " in " + folders + ": start java with"
                + " -Dgatun.cuda.path=softgpu and the jar of gatun-softgpu with classifier on the class path");
    }
}
