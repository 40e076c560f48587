// Are the values that the stand-ins and their tests use NVIDIA's? Compiled, not run; compares what headers it finds.
#include "softgpu/gpu.h"

#if __has_include(<cuda_runtime_api.h>)
#include <cuda_runtime_api.h>
static_assert(cudaErrorInvalidValue == softgpu::INVALID_VALUE && cudaErrorMemoryAllocation == softgpu::OUT_OF_MEMORY);
static_assert(cudaErrorInsufficientDriver == softgpu::INSUFFICIENT_DRIVER && cudaErrorNoDevice == softgpu::NO_DEVICE);
static_assert(cudaErrorInvalidDevice == softgpu::INVALID_DEVICE &&
              cudaErrorInvalidResourceHandle == softgpu::INVALID_HANDLE);
static_assert(cudaErrorIllegalState == softgpu::ILLEGAL_STATE && cudaErrorNotReady == softgpu::NOT_READY);
static_assert(cudaErrorIllegalAddress == softgpu::ILLEGAL_ADDRESS && cudaErrorLaunchFailure == softgpu::LAUNCH_FAILURE);
static_assert(cudaErrorStreamCaptureUnsupported == softgpu::CAPTURE_UNSUPPORTED);
static_assert(cudaErrorStreamCaptureInvalidated == softgpu::CAPTURE_INVALIDATED);
static_assert(cudaErrorStreamCaptureMerge == softgpu::CAPTURE_MERGE);
static_assert(cudaErrorStreamCaptureUnmatched == softgpu::CAPTURE_UNMATCHED);
static_assert(cudaErrorStreamCaptureUnjoined == softgpu::CAPTURE_UNJOINED);
static_assert(cudaErrorStreamCaptureIsolation == softgpu::CAPTURE_ISOLATION);
static_assert(cudaErrorStreamCaptureImplicit == softgpu::CAPTURE_IMPLICIT &&
              cudaErrorCapturedEvent == softgpu::CAPTURED_EVENT);
static_assert(cudaErrorStreamCaptureWrongThread == softgpu::CAPTURE_WRONG_THREAD);
static_assert(cudaErrorInvalidMemcpyDirection == 21);
static_assert(cudaStreamNonBlocking == 1 && cudaEventBlockingSync == 1 && cudaEventDisableTiming == 2);
static_assert(cudaHostAllocPortable == 1 && cudaHostAllocMapped == 2 && cudaHostAllocWriteCombined == 4);
static_assert(cudaMemcpyHostToHost == 0 && cudaMemcpyHostToDevice == 1 && cudaMemcpyDeviceToHost == 2);
static_assert(cudaMemcpyDeviceToDevice == 3 && cudaMemcpyDefault == 4);
static_assert(cudaStreamCaptureModeGlobal == 0 && cudaStreamCaptureModeThreadLocal == 1 &&
              cudaStreamCaptureModeRelaxed == 2);
static_assert(cudaStreamCaptureStatusActive == 1 && cudaStreamCaptureStatusInvalidated == 2);
static_assert(cudaDevAttrClockRate == 13 && cudaDevAttrMultiProcessorCount == 16 && cudaDevAttrCanMapHostMemory == 19);
static_assert(cudaDevAttrL2CacheSize == 38 && cudaDevAttrComputeCapabilityMajor == 75 && cudaDevAttrPciBusId == 33);
static_assert(cudaDevAttrMaxSharedMemoryPerBlockOptin == 97 && cudaDevAttrClusterLaunch == 120);

#if __has_include(<cublasLt.h>)
#include <cublasLt.h>
static_assert(CUBLAS_STATUS_NOT_INITIALIZED == 1 && CUBLAS_STATUS_INVALID_VALUE == 7 &&
              CUBLAS_STATUS_EXECUTION_FAILED == 13);
static_assert(CUBLAS_STATUS_NOT_SUPPORTED == 15);
static_assert(CUDA_R_32F == 0 && CUDA_R_16F == 2 && CUDA_R_16BF == 14 && CUDA_R_8F_E4M3 == 28);
static_assert(CUBLAS_COMPUTE_32F == 68 && CUBLAS_COMPUTE_32F_PEDANTIC == 69 && CUBLAS_COMPUTE_32F_FAST_TF32 == 77);
static_assert(CUBLASLT_MATMUL_DESC_COMPUTE_TYPE == 0 && CUBLASLT_MATMUL_DESC_SCALE_TYPE == 1);
static_assert(CUBLASLT_MATMUL_DESC_POINTER_MODE == 2 && CUBLASLT_MATMUL_DESC_TRANSA == 3 &&
              CUBLASLT_MATMUL_DESC_TRANSB == 4);
static_assert(CUBLASLT_MATMUL_DESC_TRANSC == 5 && CUBLASLT_MATMUL_DESC_EPILOGUE == 7 &&
              CUBLASLT_MATMUL_DESC_BIAS_POINTER == 8);
static_assert(CUBLASLT_MATMUL_DESC_BIAS_BATCH_STRIDE == 10 && CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE == 26);
#if CUBLAS_VERSION >= 120900
static_assert(CUBLASLT_MATMUL_DESC_A_SCALE_POINTER == 17 && CUBLASLT_MATMUL_DESC_B_SCALE_POINTER == 18);
static_assert(CUBLASLT_MATMUL_DESC_A_SCALE_MODE == 31 && CUBLASLT_MATMUL_DESC_B_SCALE_MODE == 32);
static_assert(CUBLASLT_MATMUL_MATRIX_SCALE_SCALAR_32F == 0 && CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F == 3);
#endif
static_assert(CUBLASLT_EPILOGUE_DEFAULT == 1 && CUBLASLT_EPILOGUE_BIAS == 4 && CUBLASLT_EPILOGUE_GELU == 32);
static_assert(CUBLASLT_EPILOGUE_GELU_BIAS == 36 && CUBLASLT_ORDER_COL == 0 && CUBLASLT_ORDER_ROW == 1);
static_assert(CUBLASLT_MATRIX_LAYOUT_TYPE == 0 && CUBLASLT_MATRIX_LAYOUT_ORDER == 1 &&
              CUBLASLT_MATRIX_LAYOUT_ROWS == 2);
static_assert(CUBLASLT_MATRIX_LAYOUT_COLS == 3 && CUBLASLT_MATRIX_LAYOUT_LD == 4 &&
              CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT == 5);
static_assert(CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET == 6);
static_assert(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES == 1 && CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK == 3);
static_assert(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES == 5 && CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES == 8);
static_assert(CUBLASLT_REDUCTION_SCHEME_NONE == 0 && CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE == 2);
static_assert(CUBLASLT_ALGO_CONFIG_ID == 0 && CUBLASLT_ALGO_CONFIG_TILE_ID == 1 &&
              CUBLASLT_ALGO_CONFIG_SPLITK_NUM == 2);
static_assert(CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME == 3 && CUBLASLT_ALGO_CONFIG_CLUSTER_SHAPE_ID == 8);
static_assert(CUBLASLT_MATMUL_TILE_64x64 == 15 && CUBLASLT_MATMUL_TILE_128x128 == 20 &&
              CUBLASLT_MATMUL_TILE_128x256 == 23);
static_assert(sizeof(cublasLtMatmulAlgo_t) == 64 && sizeof(cublasLtMatmulHeuristicResult_t) == 96);
#endif

#if __has_include(<cudnn.h>)
#include <cudnn.h>
static_assert(CUDNN_STATUS_NOT_INITIALIZED == 1001 && CUDNN_STATUS_BAD_PARAM == 2000 &&
              CUDNN_STATUS_NOT_SUPPORTED == 3000);
static_assert(CUDNN_STATUS_EXECUTION_FAILED == 5000 && CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED == 4003);
static_assert(CUDNN_DATA_FLOAT == 0 && CUDNN_DATA_HALF == 2 && CUDNN_DATA_BFLOAT16 == 9);
static_assert(CUDNN_TENSOR_NCHW == 0 && CUDNN_TENSOR_NHWC == 1 && CUDNN_CONVOLUTION == 0 &&
              CUDNN_CROSS_CORRELATION == 1);
static_assert(CUDNN_DEFAULT_MATH == 0 && CUDNN_FMA_MATH == 3 && CUDNN_DETERMINISTIC == 1);
static_assert(CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM == 1 && CUDNN_CONVOLUTION_BWD_DATA_ALGO_1 == 1);
static_assert(CUDNN_CONVOLUTION_BWD_FILTER_ALGO_1 == 1 && CUDNN_CONVOLUTION_BWD_FILTER_ALGO_3 == 3);
static_assert(sizeof(cudnnConvolutionFwdAlgoPerf_t) == 48 && sizeof(cudnnConvolutionBwdFilterAlgoPerf_t) == 48);
#endif
#endif
