// How do the threads of a warp, or of a block, agree on one sum or one maximum?
//
// Order: a butterfly over lane distance 16, 8, 4, 2, 1, then the same over the warps' results. It depends on the block
// size alone, so a result is bitwise repeatable; float addition commutes, so every thread gets the same bits.
// Blocks are one-dimensional and a multiple of 32 threads wide, and all threads take part: a thread without an element
// passes the identity (0, -inf). NaN: sums propagate it, maxima drop it (fmaxf), as IEEE 754 maxNum does.
#pragma once

#include "lib/cuda.h"

namespace gt {

constexpr int WARP = 32;
constexpr unsigned ALL_LANES = 0xffffffffu;
constexpr int MAX_WARPS = 32;  // of a block: the length of the scratch array of block_sum and block_max

struct Sum {
  static __device__ __forceinline__ float identity() { return 0.0f; }
  static __device__ __forceinline__ float combine(float a, float b) { return a + b; }
};

struct Max {
  static __device__ __forceinline__ float identity() { return -INFINITY; }
  static __device__ __forceinline__ float combine(float a, float b) { return fmaxf(a, b); }
};

template <class Op> __device__ __forceinline__ float warp_reduce(float v) {
#pragma unroll
  for (int distance = WARP / 2; distance > 0; distance /= 2)
    v = Op::combine(v, __shfl_xor_sync(ALL_LANES, v, distance));
  return v;
}

// The bits of block_reduce for COUNT values together, with one barrier, and no more rounds than there are warps to add.
// The next reduction writes another scratch, since a slow warp could still read this one; the one after it may use this
// one again.
template <class Op, int COUNT>
__device__ __forceinline__ void block_reduce_alternating(float (&v)[COUNT], float (*scratch)[MAX_WARPS]) {
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
#pragma unroll
  for (int i = 0; i < COUNT; ++i) v[i] = warp_reduce<Op>(v[i]);
  if (warps == 1) return;
#pragma unroll
  for (int i = 0; i < COUNT; ++i)
    if (lane == 0) scratch[i][warp] = v[i];
  __syncthreads();
  const int width = 2 << (31 - __clz(warps - 1)), own = lane & (width - 1);  // the power of two that is at least warps
#pragma unroll
  for (int i = 0; i < COUNT; ++i) v[i] = own < warps ? scratch[i][own] : Op::identity();
  for (int distance = width / 2; distance > 0; distance /= 2)
#pragma unroll
    for (int i = 0; i < COUNT; ++i) v[i] = Op::combine(v[i], __shfl_xor_sync(ALL_LANES, v[i], distance));
}
template <class Op> __device__ __forceinline__ float block_reduce_alternating(float v, float (&scratch)[MAX_WARPS]) {
  float values[1] = {v};
  block_reduce_alternating<Op>(values, &scratch);
  return values[0];
}

// scratch: MAX_WARPS floats of shared memory. It may be used again as soon as this returns; what the caller keeps there
// must be read before the call and a barrier in between.
template <class Op> __device__ __forceinline__ float block_reduce(float v, float *scratch) {
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
  v = warp_reduce<Op>(v);
  if (warps == 1) return v;
  if (lane == 0) scratch[warp] = v;
  __syncthreads();
  v = warp_reduce<Op>(lane < warps ? scratch[lane] : Op::identity());
  __syncthreads();  // the next reduction writes scratch while a slow warp could still read it
  return v;
}

__device__ __forceinline__ float warp_sum(float v) { return warp_reduce<Sum>(v); }
__device__ __forceinline__ float warp_max(float v) { return warp_reduce<Max>(v); }
__device__ __forceinline__ float block_sum(float v, float *scratch) { return block_reduce<Sum>(v, scratch); }
__device__ __forceinline__ float block_max(float v, float *scratch) { return block_reduce<Max>(v, scratch); }

// In f64, in the same order. scratch: MAX_WARPS doubles.
__device__ __forceinline__ double warp_sum(double v) {
#pragma unroll
  for (int distance = WARP / 2; distance > 0; distance /= 2) v += __shfl_xor_sync(ALL_LANES, v, distance);
  return v;
}
__device__ __forceinline__ double block_sum(double v, double *scratch) {
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
  v = warp_sum(v);
  if (lane == 0) scratch[warp] = v;
  __syncthreads();
  v = warp_sum(lane < warps ? scratch[lane] : 0.0);
  __syncthreads();
  return v;
}

}  // namespace gt
