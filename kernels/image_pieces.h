// How do kernels of images [B, H, W, C] walk the pixels of one, a thread for a few channels of a pixel?
//
// A piece is a 16-byte vector along C of one pixel, or one element where that cannot be; threads walk the pieces in the
// order of B, H, W, C, with a grid-stride loop.
#pragma once

#include "check.h"
#include "lib/entry.h"
#include "lib/vec.h"

namespace gt {

constexpr int IMAGE_THREADS = 256;
constexpr int64_t MAX_IMAGE_BLOCKS = 65536;

template <class T> struct Image {
  T *data;
  int64_t h, w, stride[4];
  __device__ __forceinline__ T *at(int64_t b, int64_t i, int64_t j, int64_t c) const {
    return data + b * stride[0] + i * stride[1] + j * stride[2] + c * stride[3];
  }
};

// Where a thread's n-th piece of y lies.
struct Place {
  int64_t b, i, j, c;
};

// Calls f(place) for this thread's pieces of `width` channels, of which a pixel of y has c / width.
template <class F>
__device__ __forceinline__ void for_pieces(int64_t pieces, int64_t h, int64_t w, int64_t per_pixel, int width, F f) {
  for (int64_t n = static_cast<int64_t>(blockIdx.x) * IMAGE_THREADS + threadIdx.x; n < pieces;
       n += static_cast<int64_t>(gridDim.x) * IMAGE_THREADS) {
    const int64_t pixel = n / per_pixel, row = pixel / w;
    f(Place{row / h, row % h, pixel % w, n % per_pixel * width});
  }
}

template <class T> inline Image<T> image_of(const gt_tensor &t) {
  return {static_cast<T *>(t.data), t.shape[1], t.shape[2], {t.stride[0], t.stride[1], t.stride[2], t.stride[3]}};
}

// Both images can be moved by vectors of VEC<T> channels.
template <class T> inline bool goes_by_vectors(const gt_tensor &y, const gt_tensor &x) {
  if (y.shape[3] % VEC<T> != 0) return false;
  for (const gt_tensor *t : {&y, &x}) {
    if (t->stride[3] != 1 || !is_aligned(static_cast<const T *>(t->data))) return false;
    for (int d = 0; d < 3; ++d)
      if (t->shape[d] > 1 && t->stride[d] % VEC<T> != 0) return false;
  }
  return true;
}

inline unsigned blocks_for(int64_t pieces) {
  const int64_t blocks = (pieces + IMAGE_THREADS - 1) / IMAGE_THREADS;
  return static_cast<unsigned>(blocks < MAX_IMAGE_BLOCKS ? blocks : MAX_IMAGE_BLOCKS);
}

}  // namespace gt
