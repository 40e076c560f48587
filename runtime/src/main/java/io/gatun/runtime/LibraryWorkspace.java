package io.gatun.runtime;

import org.jspecify.annotations.Nullable;

/// Device memory that cuBLASLt, cuDNN and our ops in their place work in, of one stream, whose work takes turns. It is
/// allocated at the first use and never moves: graphs hold its address.
final class LibraryWorkspace implements AutoCloseable {
    /// What NVIDIA recommends for Hopper (cuBLAS documentation, "cublasSetWorkspace").
    static final long BYTES = 32L << 20;

    private final CudaPool pool;
    private CudaPool.@Nullable Block block;
    private @Nullable Tensor tensor;

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

    /// The same memory for an op of ours.
    ///
    /// @param bytes what it wants; at most [#BYTES]
    Tensor tensor(Device device, long bytes) {
        if (bytes > BYTES) {
            throw new IllegalStateException("%,d bytes of scratch, there are %,d".formatted(bytes, BYTES));
        }
        Tensor found = tensor;
        if (found == null) {
            found = Tensor.contiguous(new Lifetime(device, "the libraries' workspace"), address(), DType.U8, BYTES);
            tensor = found;
        }
        return found;
    }

    /// The stream's work has finished.
    @Override
    public void close() {
        if (tensor != null) {
            tensor.lifetime().closeInOrder();
            tensor = null;
        }
        if (block != null) {
            pool.free(block);
            block = null;
        }
    }
}
