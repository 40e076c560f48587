// How does a kernel reach the elements of images [B, H, W, C] of any strides and dtype?
//
// A thread owns elements by their number in the order h, w, c, which is memory order where the image is channels last:
// neighbouring threads then touch neighbouring addresses. The dtype is an operand's, not a template's: one branch that
// all threads take alike, in kernels that memory bounds.
#pragma once

#include "lib/vec.h"
#include "gatun/types.h"

namespace gt {

struct ImageOperand {
  void *data;  // NULL: there is no such operand
  gt_dtype dtype;
  int64_t stride[4];
};

// One channel serves all where the tensor has a single one.
inline ImageOperand image_operand(const gt_tensor *t) {
  if (!t) return {nullptr, GT_F32, {}};
  return {t->data, t->dtype, {t->stride[0], t->stride[1], t->stride[2], t->shape[3] == 1 ? 0 : t->stride[3]}};
}

// Sizes of one image; H W C < 2^31.
struct ImageShape {
  unsigned height, width, channels;
  __host__ __device__ __forceinline__ unsigned elements() const { return height * width * channels; }
};

struct Pixel {
  unsigned h, w, c;

  // The number that random numbers and files have: in the order c, h, w.
  __device__ __forceinline__ unsigned planar(const ImageShape &shape) const {
    return (c * shape.height + h) * shape.width + w;
  }
};

__device__ __forceinline__ Pixel pixel_at(const ImageShape &shape, unsigned element) {
  const unsigned row = element / shape.channels;
  return {row / shape.width, row % shape.width, element % shape.channels};
}

__device__ __forceinline__ int64_t offset_of(const ImageOperand &t, int64_t b, const Pixel &p) {
  return b * t.stride[0] + p.h * t.stride[1] + p.w * t.stride[2] + p.c * t.stride[3];
}

// `first` elements after the operand's own beginning.
__device__ __forceinline__ float read(const ImageOperand &t, int64_t b, const Pixel &p, int64_t first = 0) {
  const int64_t i = first + offset_of(t, b, p);
  if (t.dtype == GT_F32) return static_cast<const float *>(t.data)[i];
  if (t.dtype == GT_BF16) return to_float(static_cast<const bf16 *>(t.data)[i]);
  return to_float(static_cast<const f16 *>(t.data)[i]);
}

__device__ __forceinline__ void write(const ImageOperand &t, int64_t b, const Pixel &p, float value,
                                      int64_t first = 0) {
  const int64_t i = first + offset_of(t, b, p);
  if (t.dtype == GT_F32) static_cast<float *>(t.data)[i] = value;
  else if (t.dtype == GT_BF16) static_cast<bf16 *>(t.data)[i] = from_float<bf16>(value);
  else static_cast<f16 *>(t.data)[i] = from_float<f16>(value);
}

}  // namespace gt
