package io.gatun.bindings;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNull;

import io.gatun.bindings.CudaFolders.Library;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// Are CUDA's libraries of one major version where several are installed; and what is said where one is missing?
class CudaFoldersTest {
    @TempDir
    private Path root;

    private Path folder(String name, String... files) throws IOException {
        Path folder = Files.createDirectories(root.resolve(name));
        for (String file : files) {
            Files.createFile(folder.resolve(file));
        }
        return folder;
    }

    private static void assertFound(Path expected, Library library, List<Path> folders) {
        assertEquals(expected, CudaFolders.find(library, folders));
    }

    @Test
    void find_thePreferredVersionOfAFolder() throws IOException {
        Path both = folder("both", "libcudart.so.12", "libcudart.so.13", "libcublasLt.so.12", "libcublasLt.so.13");
        assertFound(both.resolve("libcudart.so.13"), CudaFolders.CUDART, List.of(both));
        assertFound(both.resolve("libcublasLt.so.13"), CudaFolders.CUBLASLT, List.of(both));
    }

    /// A runtime of one version in front of libraries of another.
    @Test
    void find_theVersionOfTheRuntime() throws IOException {
        Path runtime = folder("runtime", "libcudart.so.13");
        Path old = folder("old", "libcudart.so.12", "libcublasLt.so.12", "libcudnn.so.9");
        Path whole = folder("whole", "libcudart.so.13", "libcublasLt.so.13");
        List<Path> folders = List.of(runtime, old, whole);
        assertFound(runtime.resolve("libcudart.so.13"), CudaFolders.CUDART, folders);
        assertFound(whole.resolve("libcublasLt.so.13"), CudaFolders.CUBLASLT, folders);
        assertFound(old.resolve("libcudnn.so.9"), CudaFolders.CUDNN, folders);
        folders = List.of(old, whole);
        assertFound(old.resolve("libcudart.so.12"), CudaFolders.CUDART, folders);
        assertFound(old.resolve("libcublasLt.so.12"), CudaFolders.CUBLASLT, folders);
    }

    @Test
    void missing_namesBothVersions() throws IOException {
        Path runtime = folder("runtime", "libcudart.so.12");
        Path other = folder("other", "libcublasLt.so.13");
        List<Path> folders = List.of(runtime, other);
        assertNull(CudaFolders.find(CudaFolders.CUBLASLT, folders));
        assertEquals(("libcublasLt.so.12 not found, but %s, which is of another CUDA than %s: install the CUDA toolkit"
                + " 12, or the Python wheel nvidia-cublas-cu12, or name a folder that has both of one CUDA with"
                + " -Dgatun.cuda.path").formatted(other.resolve("libcublasLt.so.13"),
                        runtime.resolve("libcudart.so.12")),
                CudaFolders.missing(CudaFolders.CUBLASLT, folders));
        assertEquals("libcudnn.so.9 not found: install cuDNN 9, or the Python wheel nvidia-cudnn-cu12",
                CudaFolders.missing(CudaFolders.CUDNN, folders));
    }

    @Test
    void missing_withoutARuntime() {
        assertEquals("libcudart.so.13 or libcudart.so.12 not found: install the CUDA toolkit 13, or the Python wheel"
                + " nvidia-cuda-runtime", CudaFolders.missing(CudaFolders.CUDART, List.of()));
        assertEquals("libcublasLt.so.13 or libcublasLt.so.12 not found: install the CUDA toolkit 13, or the Python"
                + " wheel nvidia-cublas", CudaFolders.missing(CudaFolders.CUBLASLT, List.of()));
        assertEquals("libcuda.so.1 not found: install the NVIDIA driver, R580 or later",
                CudaFolders.missing(CudaFolders.DRIVER, List.of()));
    }
}
