// Which compiler reads this kernel, and how is a kernel launched under it?
//
// A .cu file includes this header first and nothing of CUDA's. nvcc (__CUDACC__) gets CUDA's own headers; g++ gets the
// emulator, with `g++ -std=c++17 -x c++ -DGT_SIMT=1 -I native -Wno-unknown-pragmas` (#pragma unroll means nothing to
// it). What a kernel must keep to so that both accept it:
//   - launch(...) instead of <<<>>>, GT_DYNAMIC_SMEM instead of `extern __shared__`, inline PTX only inside native/lib;
//   - kernels in an anonymous namespace: g++ emits the static __shared__ arrays of a template with external linkage as
//     mergeable symbols, which AddressSanitizer leaves without red zones.
#pragma once

#if defined(__CUDACC__)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "lib/shared_consent.h"
#elif defined(GT_SIMT)
#include "simt/simt.h"
#else
#error "lib/cuda.h: compile with nvcc, or with g++ -DGT_SIMT=1"
#endif

#include <cstddef>
#include <cstdint>
#include <utility>

namespace gt {

using bf16 = __nv_bfloat16;
using f16 = __half;

// Blocks that take b of a each.
inline int64_t ceil_divide(int64_t a, int64_t b) { return (a + b - 1) / b; }

#if defined(__CUDACC__)

// 1024 bytes is what a TMA tile with 128-byte swizzle asks for, and costs nothing elsewhere.
#define GT_DYNAMIC_SMEM(type, name)                                          \
  extern __shared__ __align__(1024) unsigned char gt_dynamic_smem_bytes[];   \
  type *const name = reinterpret_cast<type *>(gt_dynamic_smem_bytes)

// Without its consent a kernel has 48 KiB of shared memory, static and dynamic together (CUDA Programming Guide,
// "Shared Memory"): the limit of the dynamic part is what the static one leaves, or what was consented to before.
inline cudaError_t consent_to_shared(const void *kernel, size_t smem_bytes) {
  static SharedConsent consent;
  if (smem_bytes == 0) return cudaSuccess;
  int device = 0;
  if (const cudaError_t error = cudaGetDevice(&device)) return error;
  return static_cast<cudaError_t>(consent.require(
      kernel, device, smem_bytes,
      [kernel](size_t *most) {
        cudaFuncAttributes attributes = {};
        const cudaError_t error = cudaFuncGetAttributes(&attributes, kernel);
        *most = static_cast<size_t>(attributes.maxDynamicSharedSizeBytes);
        return static_cast<int>(error);
      },
      [kernel](size_t bytes) {
        return static_cast<int>(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                     static_cast<int>(bytes)));
      }));
}

// launch(...) with attributes of the launch.
template <class... Params, class... Args>
int launch_with(cudaLaunchAttribute *attributes, unsigned num_attributes, void (*kernel)(Params...), dim3 grid,
                dim3 block, size_t smem_bytes, void *stream, Args &&...args) {
  cudaError_t error = consent_to_shared(reinterpret_cast<const void *>(kernel), smem_bytes);
  if (error == cudaSuccess) {
    cudaLaunchConfig_t config = {};
    config.gridDim = grid;
    config.blockDim = block;
    config.dynamicSmemBytes = smem_bytes;
    config.stream = static_cast<cudaStream_t>(stream);
    config.attrs = attributes;
    config.numAttrs = num_attributes;
    error = cudaLaunchKernelEx(&config, kernel, std::forward<Args>(args)...);
  }
  if (error != cudaSuccess) (void)cudaGetLastError();  // we report it; the caller's next CUDA call must not
  return static_cast<int>(error);
}

// Launches kernel<<<grid, block, smem_bytes, stream>>>(args...) after converting each argument to its parameter's type.
// Returns a cudaError_t, 0 = OK: an error of the launch itself, never one of the kernel's execution. A grid or a block
// with a zero extent is an error. `stream` is the native handle, a cudaStream_t. Does not synchronise.
template <class... Params, class... Args>
int launch(void (*kernel)(Params...), dim3 grid, dim3 block, size_t smem_bytes, void *stream, Args &&...args) {
  return launch_with(nullptr, 0, kernel, grid, block, smem_bytes, stream, std::forward<Args>(args)...);
}

// The text of a status that launch(...) returned.
inline const char *launch_error(int status) { return cudaGetErrorString(static_cast<cudaError_t>(status)); }

#else

#define GT_DYNAMIC_SMEM(type, name) type *const name = static_cast<type *>(simt::dynamic_shared())

// As above for the soft libgatun (GT_SOFTGPU). In the native tests the kernel has run when this returns, and an error
// of its execution (a divergent barrier, a race) is returned too. Values are cudaError_t's.
template <class... Params, class... Args>
int launch(void (*kernel)(Params...), dim3 grid, dim3 block, size_t smem_bytes, void *stream, Args &&...args) {
  return simt::launch(kernel, {grid, block, smem_bytes}, stream, std::forward<Args>(args)...);
}

// The text of the status that launch(...) last returned on this thread: for a fault block, thread, file and line.
inline const char *launch_error(int) { return simt::last_error(); }

#endif

}  // namespace gt
