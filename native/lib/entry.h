// What does a CUDA entry do around its launches?
//
// Its operands have been checked (src/check.h): the dtype is one of those that the op takes.
#pragma once

#include "check.h"
#include "lib/cuda.h"

namespace gt {

// The elements of an operand that may be missing.
template <class T> T *data_of(const gt_tensor *t) { return t ? static_cast<T *>(t->data) : nullptr; }

// Calls f(T{}) with the device's type of a float dtype.
template <class F> int with_float(gt_dtype dtype, F f) {
  return dtype == GT_F32 ? f(float{}) : dtype == GT_BF16 ? f(bf16{}) : f(f16{});
}

// What an entry returns: `error` is what its launches returned, a cudaError_t.
inline gt_status status_of(const char *op, int error) {
  return error ? fail(GT_DEVICE_ERROR, "%s: %s", op, launch_error(error)) : GT_OK;
}

}  // namespace gt
