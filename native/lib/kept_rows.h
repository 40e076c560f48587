// How does a block bring its rows of x, normalised or as they are, to shared memory, where a product reads them?
//
// A norm has the bits of norm.cu's, whatever the block. Parameters, which no kernel of a graph writes, come to shared
// memory first, while the kernel in front still runs.
#pragma once

#include "lib/async_copy.h"
#include "lib/few_rows.h"
#include "lib/norm_row.h"

namespace gt {

// A parameter [C] as f32 in shared memory, for all threads behind a barrier; NULL if there is none.
template <class T> __device__ __forceinline__ const float *keep_parameter(const Parameter &p, int c, float *shared) {
  if (!p.data) return nullptr;
  for (int i = threadIdx.x; i < c; i += blockDim.x)
    shared[i] = p.is_f32 ? static_cast<const float *>(p.data)[i] : to_float(static_cast<const T *>(p.data)[i]);
  return shared;
}

// Affine of lib/norm_row.h with parameters that were kept, whole vectors.
template <class T> struct KeptAffine {
  const float *weight, *bias;  // NULL: 1 and 0

  template <int CHUNKS>
  __device__ __forceinline__ void operator()(int first, int step, int end, float (&v)[CHUNKS][VEC<T>]) const {
#pragma unroll
    for (int k = 0; k < CHUNKS; ++k) {
      const int at = first + k * step < end ? first + k * step : 0;
#pragma unroll
      for (int j = 0; j < VEC<T>; j += 4) {
        const auto each = [&](const float *parameter, auto combine) {
          if (!parameter) return;
          float p[4];
          load_vec(parameter + at + j, p);
#pragma unroll
          for (int i = 0; i < 4; ++i) v[k][j + i] = combine(v[k][j + i], p[i]);
        };
        each(weight, [](float a, float w) { return __fmul_rn(a, w); });
        each(bias, [](float a, float b) { return a + b; });
      }
    }
  }
};

// The block's rows, normalised, to o.y in shared memory.
template <class T, Norm NORM, Access ACCESS, class Affine>
__device__ __forceinline__ void normalise(const NormOperands<T> &o, int members, Affine affine) {
  constexpr bool WHOLE = ACCESS == Access::WHOLE;  // else one vector at a time: less code, the same order
  __shared__ float scratch[2][2 * FEW_ROWS_WARPS];
  const int groups = blockDim.x / members, group = threadIdx.x / members, member = threadIdx.x % members;
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = members / WARP;
  int turn = 0;
  const auto group_sum = [&](float v) {  // the bits of norm.cu's sums
    if (warps <= 1) {
      for (int distance = members / 2; distance > 0; distance /= 2) v += __shfl_xor_sync(ALL_LANES, v, distance);
      return v;
    }
    v = warp_sum(v);
    turn ^= 1;  // a slow warp may still read the last one
    if (lane == 0) scratch[turn][warp] = v;
    __syncthreads();
    v = warp_sum(lane < warps ? scratch[turn][warp / warps * warps + lane] : 0.0f);
    return v;
  };
  const int num_rows = static_cast<int>(o.num_rows), rounds = (num_rows + groups - 1) / groups;
  for (int k = 0; k < rounds; ++k)  // every thread makes every round: the sums need it
    norm_row<T, NORM, WHOLE ? NORM_MANY : VEC<T>, ACCESS, !WHOLE>(
        o, group < groups ? k * groups + group : num_rows, member, members, FromMemory<T, ACCESS>{o.is_aligned}, affine,
        group_sum);
}

// The block's rows as they are, likewise.
template <Access ACCESS, class T> __device__ __forceinline__ void copy_rows(const NormOperands<T> &o) {
  const int c = static_cast<int>(o.c), num_rows = static_cast<int>(o.num_rows);
  if constexpr (ACCESS == Access::WHOLE) {
    const int vectors = c / VEC<T>;
    for (int i = threadIdx.x; i < num_rows * vectors; i += blockDim.x) {
      const int row = i / vectors, at = i % vectors * VEC<T>;
      async_copy_16(o.y + row * o.stride_y + at, o.x + row * o.stride_x + at, VEC_BYTES);
    }
    async_copy_commit();
    async_copy_wait<0>();
  } else {
    for (int row = 0; row < num_rows; ++row)
      for (int i = threadIdx.x; i < c; i += blockDim.x) o.y[row * o.stride_y + i] = o.x[row * o.stride_x + i];
  }
}

}  // namespace gt
