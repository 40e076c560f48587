// What do the stand-ins of cublasLt and cuDNN ask of the core, and which CUDA error codes do all of them use?
//
// Exported by libcudart.so.13 to the two other stand-ins of the same build, not to users.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

#include "softgpu.h"
#include "symbols.h"

namespace softgpu {

// cudaError_t, driver_types.h
enum Error : int {
  OK = 0,
  INVALID_VALUE = 1,
  OUT_OF_MEMORY = 2,
  INSUFFICIENT_DRIVER = 35,
  NO_DEVICE = 100,
  INVALID_DEVICE = 101,
  INVALID_HANDLE = 400,
  ILLEGAL_STATE = 401,
  NOT_READY = 600,
  ILLEGAL_ADDRESS = 700,
  LAUNCH_FAILURE = 719,
  CAPTURE_UNSUPPORTED = 900,
  CAPTURE_INVALIDATED = 901,
  CAPTURE_MERGE = 902,
  CAPTURE_UNMATCHED = 903,
  CAPTURE_UNJOINED = 904,
  CAPTURE_ISOLATION = 905,
  CAPTURE_IMPLICIT = 906,
  CAPTURED_EVENT = 907,
  CAPTURE_WRONG_THREAD = 908,
};

// Work of a stream: runs later, on whichever thread waits, as often as its graph is launched. Returns a cudaError_t
// and, if it is not 0, says why; the device is lost then.
using Task = std::function<int(std::string &why)>;

// Ten times the major number, plus the minor one.
SOFTGPU_API int compute_capability();

// Counts a use of the symbol. Returns the status that softgpu_fail asked for, or 0.
SOFTGPU_API int count_use(Symbol symbol);

// A device answers, and is not lost.
SOFTGPU_API bool has_device();

// Gives a product or a convolution to a stream; returns a cudaError_t.
SOFTGPU_API int enqueue_product(void *stream, Task task);

SOFTGPU_API void add_to_counter(int counter, int64_t amount);

// The text for softgpu_last_fault of a call that was refused.
SOFTGPU_API void explain(const std::string &text);

// Is all of it live device or pinned memory? If not, appends the reason to why. For tasks, when they run.
SOFTGPU_API bool is_accessible(const void *address, size_t bytes, const char *what, std::string &why);

}  // namespace softgpu
