// What do the norms of images share in CUDA: how an image lies, its parameters, the sum over a block in f64?
#pragma once

#include "check.h"
#include "lib/entry.h"
#include "lib/vec.h"

namespace gt {

constexpr int64_t MAX_GRID = 65535;  // grid.y, grid.z

// [B, S, C]. is_aligned: every run of contiguous elements.
template <class T> struct NormImage {
  T *data;
  int64_t stride_b, stride_s, stride_c;
  bool is_aligned;
};

struct ChannelParameter {
  const void *data;  // NULL: a constant
  bool is_f32;
};

template <class T> __device__ __forceinline__ float parameter_at(const ChannelParameter &p, int64_t c, float missing) {
  if (!p.data) return missing;
  return p.is_f32 ? static_cast<const float *>(p.data)[c] : to_float(static_cast<const T *>(p.data)[c]);
}

// NUM vectors, `stride` apart, of which those from `count` on repeat the first. WHOLE and left: of packed_at.
template <bool WHOLE, int NUM, class T>
__device__ __forceinline__ void load_vectors(const T *p, int64_t stride, int64_t count, int64_t left,
                                             Vector<T> (&v)[NUM]) {
#pragma unroll
  for (int k = 0; k < NUM; ++k) v[k] = packed_at<WHOLE>(p + (k < count ? k * stride : 0), left);
}
template <int NUM, class T>
__device__ __forceinline__ void load_vectors(const T *p, int64_t stride, int64_t count, int64_t left, bool aligned,
                                             Vector<T> (&v)[NUM]) {
  if (aligned && left >= VEC<T>) load_vectors<true>(p, stride, count, left, v);
  else load_vectors<false>(p, stride, count, left, v);
}

// The sum over the block's threads, in the order of a binary tree. scratch: of blockDim.x doubles.
__device__ __forceinline__ double block_sum_f64(double v, double *scratch) {
  scratch[threadIdx.x] = v;
  __syncthreads();
  for (unsigned n = blockDim.x / 2; n > 0; n /= 2) {
    if (threadIdx.x < n) scratch[threadIdx.x] += scratch[threadIdx.x + n];
    __syncthreads();
  }
  const double sum = scratch[0];
  __syncthreads();
  return sum;
}

// The power of two that is at least n, between least and most.
inline int threads_for(int64_t n, int least, int most) {
  int threads = least;
  while (threads < n && threads < most) threads *= 2;
  return threads;
}

template <class T> NormImage<T> norm_image_of(const gt_tensor &t, bool channels_last) {
  T *const data = static_cast<T *>(t.data);
  const int64_t between = channels_last ? t.stride[1] : t.stride[2];
  return {data, t.stride[0], t.stride[1], t.stride[2], rows_are_aligned(data, between) && t.stride[0] % VEC<T> == 0};
}

inline ChannelParameter channel_parameter_of(const gt_tensor *t) {
  return t ? ChannelParameter{t->data, t->dtype == GT_F32} : ChannelParameter{nullptr, false};
}

inline unsigned grid_of(int64_t n, int64_t most) { return static_cast<unsigned>(n < most ? n : most); }

}  // namespace gt
