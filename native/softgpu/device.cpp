// Which devices are there, what can they do, and what are errors called?
#include <algorithm>
#include <cstdio>

#include "core.h"

using namespace softgpu;

namespace {

struct Attribute {
  int number, value;
};
// cudaDeviceAttr, driver_types.h. An H100's values where they matter; the compute capability is a setting.
constexpr Attribute ATTRIBUTES[] = {
    {1, 1024},        // MaxThreadsPerBlock
    {2, 1024},        // MaxBlockDimX
    {3, 1024},        // MaxBlockDimY
    {4, 64},          // MaxBlockDimZ
    {5, 2147483647},  // MaxGridDimX
    {6, 65535},       // MaxGridDimY
    {7, 65535},       // MaxGridDimZ
    {8, 49152},       // MaxSharedMemoryPerBlock
    {10, 32},         // WarpSize
    {12, 65536},      // MaxRegistersPerBlock
    {13, 1785000},    // ClockRate, kHz
    {15, 1},          // GpuOverlap
    {16, 132},        // MultiProcessorCount
    {17, 0},          // KernelExecTimeout
    {18, 0},          // Integrated
    {19, 1},          // CanMapHostMemory
    {20, 0},          // ComputeMode: default
    {31, 1},          // ConcurrentKernels
    {32, 1},          // EccEnabled
    {34, 0},          // PciDeviceId
    {36, 2619000},    // MemoryClockRate, kHz
    {37, 5120},       // GlobalMemoryBusWidth, bits
    {38, 52428800},   // L2CacheSize
    {39, 2048},       // MaxThreadsPerMultiProcessor
    {40, 3},          // AsyncEngineCount
    {41, 1},          // UnifiedAddressing
    {50, 0},          // PciDomainId
    {78, 1},          // StreamPrioritiesSupported
    {81, 233472},     // MaxSharedMemoryPerMultiprocessor
    {82, 65536},      // MaxRegistersPerMultiprocessor
    {83, 0},          // ManagedMemory
    {88, 0},          // PageableMemoryAccess
    {89, 0},          // ConcurrentManagedAccess
    {91, 1},          // CanUseHostPointerForRegisteredMem
    {95, 1},          // CooperativeLaunch
    {97, 232448},     // MaxSharedMemoryPerBlockOptin
    {99, 0},          // HostRegisterSupported
    {106, 32},        // MaxBlocksPerMultiprocessor
    {115, 0},         // MemoryPoolsSupported
    {120, 1},         // ClusterLaunch
};

struct ErrorText {
  int code;
  const char *name, *text;
};
// The texts are those of CUDA 13.
constexpr ErrorText ERRORS[] = {
    {0, "cudaSuccess", "no error"},
    {1, "cudaErrorInvalidValue", "invalid argument"},
    {2, "cudaErrorMemoryAllocation", "out of memory"},
    {3, "cudaErrorInitializationError", "initialization error"},
    {4, "cudaErrorCudartUnloading", "driver shutting down"},
    {9, "cudaErrorInvalidConfiguration", "invalid configuration argument"},
    {17, "cudaErrorInvalidDevicePointer", "invalid device pointer"},
    {21, "cudaErrorInvalidMemcpyDirection", "invalid copy direction for memcpy"},
    {35, "cudaErrorInsufficientDriver", "CUDA driver version is insufficient for CUDA runtime version"},
    {36, "cudaErrorCallRequiresNewerDriver", "API call is not supported in the installed CUDA driver"},
    {46, "cudaErrorDevicesUnavailable", "CUDA-capable device(s) is/are busy or unavailable"},
    {98, "cudaErrorInvalidDeviceFunction", "invalid device function"},
    {100, "cudaErrorNoDevice", "no CUDA-capable device is detected"},
    {101, "cudaErrorInvalidDevice", "invalid device ordinal"},
    {200, "cudaErrorInvalidKernelImage", "device kernel image is invalid"},
    {201, "cudaErrorDeviceUninitialized", "invalid device context"},
    {209, "cudaErrorNoKernelImageForDevice", "no kernel image is available for execution on the device"},
    {214, "cudaErrorECCUncorrectable", "uncorrectable ECC error encountered"},
    {220, "cudaErrorNvlinkUncorrectable", "uncorrectable NVLink error detected during the execution"},
    {222, "cudaErrorUnsupportedPtxVersion", "the provided PTX was compiled with an unsupported toolchain."},
    {226, "cudaErrorContained", "Invalid access of peer GPU memory over nvlink or a hardware error"},
    {304, "cudaErrorOperatingSystem", "OS call failed or operation not supported on this OS"},
    {400, "cudaErrorInvalidResourceHandle", "invalid resource handle"},
    {401, "cudaErrorIllegalState", "the operation cannot be performed in the present state"},
    {500, "cudaErrorSymbolNotFound", "named symbol not found"},
    {600, "cudaErrorNotReady", "device not ready"},
    {700, "cudaErrorIllegalAddress", "an illegal memory access was encountered"},
    {701, "cudaErrorLaunchOutOfResources", "too many resources requested for launch"},
    {702, "cudaErrorLaunchTimeout", "the launch timed out and was terminated"},
    {709, "cudaErrorContextIsDestroyed", "context is destroyed"},
    {710, "cudaErrorAssert", "device-side assert triggered"},
    {712, "cudaErrorHostMemoryAlreadyRegistered", "part or all of the requested memory range is already mapped"},
    {714, "cudaErrorHardwareStackError", "hardware stack error"},
    {715, "cudaErrorIllegalInstruction", "an illegal instruction was encountered"},
    {716, "cudaErrorMisalignedAddress", "misaligned address"},
    {717, "cudaErrorInvalidAddressSpace", "operation not supported on global/shared address space"},
    {718, "cudaErrorInvalidPc", "invalid program counter"},
    {719, "cudaErrorLaunchFailure", "unspecified launch failure"},
    {721, "cudaErrorTensorMemoryLeak", "tensor memory not completely freed"},
    {800, "cudaErrorNotPermitted", "operation not permitted"},
    {801, "cudaErrorNotSupported", "operation not supported"},
    {802, "cudaErrorSystemNotReady", "system not yet initialized"},
    {803, "cudaErrorSystemDriverMismatch", "system has unsupported display driver / cuda driver combination"},
    {900, "cudaErrorStreamCaptureUnsupported", "operation not permitted when stream is capturing"},
    {901, "cudaErrorStreamCaptureInvalidated", "operation failed due to a previous error during capture"},
    {902, "cudaErrorStreamCaptureMerge", "operation would result in a merge of separate capture sequences"},
    {903, "cudaErrorStreamCaptureUnmatched", "capture was not ended in the same stream as it began"},
    {904, "cudaErrorStreamCaptureUnjoined", "capturing stream has unjoined work"},
    {905, "cudaErrorStreamCaptureIsolation", "dependency created on uncaptured work in another stream"},
    {906, "cudaErrorStreamCaptureImplicit",
     "operation would make the legacy stream depend on a capturing blocking stream"},
    {907, "cudaErrorCapturedEvent", "operation not permitted on an event last recorded in a capturing stream"},
    {908, "cudaErrorStreamCaptureWrongThread",
     "attempt to terminate a thread-local capture sequence from another thread"},
    {910, "cudaErrorGraphExecUpdateFailure",
     "the graph update was not performed because it included changes which violated "
     "constraints specific to instantiated graph update"},
    {911, "cudaErrorExternalDevice", "an async error has occured in external entity outside of CUDA"},
    {999, "cudaErrorUnknown", "unknown error"},
};

const ErrorText *text_of(int code) {
  for (const ErrorText &error : ERRORS)
    if (error.code == code) return &error;
  return nullptr;
}

bool is_device(int device) { return device >= 0 && device < state().settings.num_devices; }

}  // namespace

extern "C" {

SOFTGPU_API int cudaGetDeviceCount(int *count) {
  Call call(Symbol::cudaGetDeviceCount);
  if (count) *count = 0;
  if (call.is_refused()) return call.refusal();
  if (!count) return call.finish(INVALID_VALUE);
  *count = state().settings.num_devices;
  return call.finish(OK);
}

SOFTGPU_API int cudaSetDevice(int device) {
  Call call(Symbol::cudaSetDevice);
  if (call.is_refused()) return call.refusal();
  if (!is_device(device)) return call.finish(INVALID_DEVICE);
  set_current_device(device);
  return call.finish(OK);
}

SOFTGPU_API int cudaGetDevice(int *device) {
  Call call(Symbol::cudaGetDevice);
  if (call.is_refused()) return call.refusal();
  if (!device) return call.finish(INVALID_VALUE);
  *device = current_device();
  return call.finish(OK);
}

SOFTGPU_API int cudaDeviceGetAttribute(int *value, int attribute, int device) {
  Call call(Symbol::cudaDeviceGetAttribute);
  if (call.is_refused()) return call.refusal();
  if (!is_device(device)) return call.finish(INVALID_DEVICE);
  if (!value) return call.finish(INVALID_VALUE);
  constexpr int PCI_BUS_ID = 33, COMPUTE_MAJOR = 75, COMPUTE_MINOR = 76;
  if (attribute == PCI_BUS_ID) return *value = device + 1, call.finish(OK);
  if (attribute == COMPUTE_MAJOR) return *value = state().settings.compute_major, call.finish(OK);
  if (attribute == COMPUTE_MINOR) return *value = state().settings.compute_minor, call.finish(OK);
  for (const Attribute &a : ATTRIBUTES)
    if (a.number == attribute) return *value = a.value, call.finish(OK);
  refuse_text("cudaDeviceGetAttribute: the stand-in does not know attribute %d", attribute);
  return call.finish(INVALID_VALUE);
}

SOFTGPU_API int cudaDeviceGetPCIBusId(char *id, int length, int device) {
  Call call(Symbol::cudaDeviceGetPCIBusId);
  if (call.is_refused()) return call.refusal();
  if (!is_device(device)) return call.finish(INVALID_DEVICE);
  constexpr int LENGTH = 13;  // "0000:01:00.0" and its end
  if (!id || length < LENGTH) return call.finish(INVALID_VALUE);
  snprintf(id, static_cast<size_t>(length), "0000:%02x:00.0", device + 1);
  return call.finish(OK);
}

SOFTGPU_API int cudaDriverGetVersion(int *version) {
  Call call(Symbol::cudaDriverGetVersion);
  if (call.is_refused()) return call.refusal();
  if (!version) return call.finish(INVALID_VALUE);
  *version = state().settings.driver_version;
  return OK;
}

SOFTGPU_API int cudaRuntimeGetVersion(int *version) {
  Call call(Symbol::cudaRuntimeGetVersion);
  if (call.is_refused()) return call.refusal();
  if (!version) return call.finish(INVALID_VALUE);
  *version = RUNTIME_VERSION;
  return OK;
}

SOFTGPU_API const char *cudaGetErrorName(int code) {
  const Call call(Symbol::cudaGetErrorName);
  const ErrorText *error = text_of(code);
  return error ? error->name : "unrecognized error code";
}

SOFTGPU_API const char *cudaGetErrorString(int code) {
  const Call call(Symbol::cudaGetErrorString);
  const ErrorText *error = text_of(code);
  return error ? error->text : "unrecognized error code";
}

SOFTGPU_API int cudaGetLastError(void) {
  const Call call(Symbol::cudaGetLastError);
  return last_error(true);
}

SOFTGPU_API int cudaPeekAtLastError(void) {
  const Call call(Symbol::cudaPeekAtLastError);
  return last_error(false);
}

}  // extern "C"
