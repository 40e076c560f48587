package io.gatun.runtime;

import org.jspecify.annotations.Nullable;

/// Device memory that cuBLASLt and cuDNN work in, of one stream, whose work takes turns. It is allocated at the first
/// use and never moves: graphs hold its address.
final class LibraryWorkspace implements AutoCloseable {
    /// What NVIDIA recommends for Hopper (cuBLAS documentation, "cublasSetWorkspace").
    static final long BYTES = 32L << 20;

    private final CudaPool pool;
    private CudaPool.@Nullable Block block;

    LibraryWorkspace(CudaPool pool) {
        this.pool = pool;
    }

    long address() {
        CudaPool.Block found = block;
        if (found == null) {
            found = pool.allocate(BYTES);
            if (found.address() == 0) {
                throw new OutOfDeviceMemoryException("no device memory for the libraries' workspace of %,d bytes"
                        .formatted(BYTES), BYTES);
            }
            block = found;
        }
        return found.address();
    }

    /// The stream's work has finished.
    @Override
    public void close() {
        if (block != null) {
            pool.free(block);
            block = null;
        }
    }
}
