package io.gatun.softgpu;

import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.runtime.GatunException;
import java.util.Set;

/// Which calls are made to fail, with which code, and what must be said of it.
final class Faults {
    private static final int INVALID_VALUE = 1;
    private static final int CUBLAS_INVALID_VALUE = 7;
    private static final int CUDNN_EXECUTION_FAILED = 5000;

    /// Calls that cannot fail, or whose failure is nothing to throw for: what is being freed is given up.
    static final Set<String> HARMLESS = Set.of("cudaGetErrorName", "cudaGetErrorString", "cudaGetLastError",
            "cublasLtGetStatusName", "cublasLtGetVersion", "cudaFree", "cudaFreeHost", "cudaStreamDestroy",
            "cudaEventDestroy", "cudaGraphDestroy", "cudaGraphExecDestroy", "cublasLtDestroy",
            "cublasLtMatmulDescDestroy", "cublasLtMatrixLayoutDestroy", "cublasLtMatmulPreferenceDestroy",
            "cudnnDestroy", "cudnnDestroyConvolutionDescriptor", "cudnnDestroyFilterDescriptor",
            "cudnnDestroyTensorDescriptor", "cudnnDestroyActivationDescriptor");
    /// What closing calls too.
    static final Set<String> CLOSING = Set.of("cudaSetDevice", "cudaStreamSynchronize");

    private Faults() {}

    static int codeFor(String symbol) {
        return symbol.startsWith("cublas") ? CUBLAS_INVALID_VALUE
                : symbol.startsWith("cudnn") ? CUDNN_EXECUTION_FAILED : INVALID_VALUE;
    }

    /// The call and its code.
    static void assertNames(String symbol, GatunException failure) {
        String text = failure.getMessage();
        boolean isLaunch = symbol.equals("softgpu_enqueue"); // what stands for cudaLaunchKernel: names the op
        assertTrue(isLaunch ? text.contains("cudaError_t " + INVALID_VALUE)
                : text.contains(symbol) && text.contains("(" + codeFor(symbol) + ")"), text);
    }
}
