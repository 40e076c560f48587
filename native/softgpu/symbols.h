// Which symbols of CUDA do the stand-ins export? Each is counted, and made to fail, under its name. softgpu_enqueue
// stands for the launch of a kernel, which libgatun's own copy of cudart does in the flavour cuda.
#pragma once

#define SOFTGPU_CUDART(X) \
  X(cudaGetDeviceCount) X(cudaSetDevice) X(cudaGetDevice) X(cudaDeviceGetAttribute) X(cudaDeviceGetPCIBusId) \
  X(cudaDriverGetVersion) X(cudaRuntimeGetVersion) X(cudaGetErrorName) X(cudaGetErrorString) X(cudaGetLastError) \
  X(cudaPeekAtLastError) X(cudaDeviceSynchronize) X(cudaMemGetInfo) X(cudaMalloc) X(cudaFree) X(cudaHostAlloc) \
  X(cudaFreeHost) X(cudaHostGetDevicePointer) X(cudaMemcpyAsync) X(cudaMemsetAsync) X(cudaStreamCreateWithFlags) \
  X(cudaStreamDestroy) X(cudaStreamSynchronize) X(cudaStreamQuery) X(cudaStreamWaitEvent) \
  X(cudaEventCreateWithFlags) X(cudaEventRecord) X(cudaEventSynchronize) X(cudaEventQuery) X(cudaEventElapsedTime) \
  X(cudaEventDestroy) X(cudaStreamBeginCapture) X(cudaStreamEndCapture) X(cudaStreamIsCapturing) \
  X(cudaGraphInstantiate) X(cudaGraphUpload) X(cudaGraphLaunch) X(cudaGraphGetNodes) X(cudaGraphDestroy) \
  X(cudaGraphExecDestroy) X(softgpu_enqueue)

#define SOFTGPU_CUBLASLT(X) \
  X(cublasLtCreate) X(cublasLtDestroy) X(cublasLtGetVersion) X(cublasLtGetStatusName) X(cublasLtGetStatusString) \
  X(cublasLtMatmulDescCreate) X(cublasLtMatmulDescDestroy) X(cublasLtMatmulDescSetAttribute) \
  X(cublasLtMatrixLayoutCreate) X(cublasLtMatrixLayoutDestroy) X(cublasLtMatrixLayoutSetAttribute) \
  X(cublasLtMatmulPreferenceCreate) X(cublasLtMatmulPreferenceDestroy) X(cublasLtMatmulPreferenceSetAttribute) \
  X(cublasLtMatmulAlgoGetHeuristic) X(cublasLtMatmulAlgoCheck) X(cublasLtMatmulAlgoConfigGetAttribute) \
  X(cublasLtMatmul)

#define SOFTGPU_CUDNN(X) \
  X(cudnnCreate) X(cudnnDestroy) X(cudnnSetStream) X(cudnnGetVersion) X(cudnnGetErrorString) \
  X(cudnnGetLastErrorString) X(cudnnCreateTensorDescriptor) X(cudnnSetTensorNdDescriptor) \
  X(cudnnDestroyTensorDescriptor) X(cudnnCreateFilterDescriptor) X(cudnnSetFilterNdDescriptor) \
  X(cudnnDestroyFilterDescriptor) X(cudnnCreateConvolutionDescriptor) X(cudnnSetConvolutionNdDescriptor) \
  X(cudnnSetConvolutionGroupCount) X(cudnnSetConvolutionMathType) X(cudnnDestroyConvolutionDescriptor) \
  X(cudnnGetConvolutionNdForwardOutputDim) X(cudnnGetConvolutionForwardAlgorithm_v7) \
  X(cudnnGetConvolutionForwardWorkspaceSize) X(cudnnConvolutionForward) \
  X(cudnnGetConvolutionBackwardDataAlgorithm_v7) X(cudnnGetConvolutionBackwardDataWorkspaceSize) \
  X(cudnnConvolutionBackwardData) X(cudnnGetConvolutionBackwardFilterAlgorithm_v7) \
  X(cudnnGetConvolutionBackwardFilterWorkspaceSize) X(cudnnConvolutionBackwardFilter) \
  X(cudnnConvolutionBackwardBias)

namespace softgpu {

#define SOFTGPU_ENUMERATOR(name) name,
enum class Symbol : int {
  SOFTGPU_CUDART(SOFTGPU_ENUMERATOR) SOFTGPU_CUBLASLT(SOFTGPU_ENUMERATOR) SOFTGPU_CUDNN(SOFTGPU_ENUMERATOR) NUM_SYMBOLS
};
#undef SOFTGPU_ENUMERATOR

}  // namespace softgpu
