// What do the kernels of diffusion steps and of their statistics share?
//
// The row of coefficients of a call, the model's output with or without guidance, and the denoised sample.
#pragma once

#include "check.h"
#include "gatun/diffusion.h"
#include "lib/entry.h"
#include "lib/image_operand.h"

namespace gt {

struct Call {
  const float *table;
  int64_t num_calls;
  int32_t *counter;

  // The row's first element, or NULL.
  __device__ __forceinline__ const float *row(int64_t call) const {
    return call >= 0 && call < num_calls ? table + call * GT_DIFFUSION_FIELDS : nullptr;
  }
};

struct Output {
  ImageOperand images;
  bool is_guided;
  int64_t num_images;

  // e before it is rescaled.
  __device__ __forceinline__ float at(int64_t b, const Pixel &p, float w) const {
    const float u = read(images, b, p);
    return is_guided ? fmaf(w, read(images, num_images + b, p) - u, u) : u;
  }
};

__device__ __forceinline__ float denoised(const float *row, float x, float e) {
  return fmaf(row[GT_DIFFUSION_DENOISED_OUTPUT], e, row[GT_DIFFUSION_DENOISED_X] * x);
}

inline ImageShape shape_of(const gt_tensor *t) {
  return {static_cast<unsigned>(t->shape[1]), static_cast<unsigned>(t->shape[2]), static_cast<unsigned>(t->shape[3])};
}

inline Call call_of(const gt_tensor *table, const gt_tensor *counter) {
  return {static_cast<const float *>(table->data), table->shape[0], static_cast<int32_t *>(counter->data)};
}

inline Output output_of(const gt_tensor *output, const gt_tensor *sample) {
  return {image_operand(output), output->shape[0] != sample->shape[0], sample->shape[0]};
}

}  // namespace gt
