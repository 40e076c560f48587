// How does a block bring its rows of x, normalised or as they are, to shared memory, where a product reads them?
//
// A norm has the bits of norm.cu's, whatever the block. Parameters, which no kernel of a graph writes, come to shared
// memory first, while the kernel in front still runs.
#pragma once

#include "lib/async_copy.h"
#include "lib/few_rows.h"
#include "lib/norm_row.h"

namespace gt {

// A parameter [C], whole vectors, comes to shared memory as f32: a thread asks for its part, and once its copies have
// landed widens it in its place, a 16-bit vector in the second half of that of its f32. Where it is
// aligned, no thread waits for an element before the next is on its way. For all threads behind a barrier; NULL if
// there is none.
template <class T> __device__ __forceinline__ void ask_for_parameter(const Parameter &p, int c, float *shared) {
  if (!p.data) return;
  const bool is_f32 = sizeof(T) == sizeof(float) || p.is_f32;
  for (int i = threadIdx.x * VEC<T>; i < c; i += blockDim.x * VEC<T>) {
    if (!p.is_aligned) {
      for (int j = i; j < i + VEC<T>; ++j)
        shared[j] = is_f32 ? static_cast<const float *>(p.data)[j] : to_float(static_cast<const T *>(p.data)[j]);
    } else if (is_f32) {
#pragma unroll
      for (int j = i; j < i + VEC<T>; j += VEC<float>)
        async_copy_16(shared + j, static_cast<const float *>(p.data) + j, VEC_BYTES);
    } else {
      async_copy_16(shared + i + VEC<T> - VEC<float>, static_cast<const T *>(p.data) + i, VEC_BYTES);
    }
  }
}
template <class T> __device__ __forceinline__ const float *take_parameter(const Parameter &p, int c, float *shared) {
  if (!p.data) return nullptr;
  if constexpr (sizeof(T) == 2)
    for (int i = threadIdx.x * VEC<T>; i < c && p.is_aligned && !p.is_f32; i += blockDim.x * VEC<T>) {
      const auto bits = *reinterpret_cast<const Vector<float> *>(shared + i + VEC<T> - VEC<float>);
      Vector<T> narrow;
      memcpy(&narrow, &bits, sizeof bits);
#pragma unroll
      for (int j = 0; j < VEC<T>; ++j) shared[i + j] = to_float(narrow.element[j]);
    }
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

// How a block's threads share rows: `members` a row, `groups` rows at a time. From the host, since divisions take some
// 100 cycles each, behind the wait for the kernel in front.
struct RowGroups {
  int members, groups;
  uint32_t inverse;

  // threadIdx.x / members: exact while the thread's number times `members` is at most 2^16.
  __device__ __forceinline__ int own() const { return static_cast<int>(threadIdx.x * inverse >> 16); }
};
inline RowGroups row_groups(int members, int threads) {
  return {members, threads / members, (65535u + static_cast<uint32_t>(members)) / static_cast<uint32_t>(members)};
}

// The block's rows, normalised, to o.y in shared memory.
template <class T, Norm NORM, Access ACCESS, class Affine>
__device__ __forceinline__ void normalise(const NormOperands<T> &o, const RowGroups &shares, Affine affine) {
  constexpr bool WHOLE = ACCESS == Access::WHOLE;  // else one vector at a time: less code, the same order
  __shared__ float scratch[2][2 * FEW_ROWS_WARPS];
  const int members = shares.members, groups = shares.groups, group = shares.own();
  const int member = static_cast<int>(threadIdx.x) - group * members;
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
    v = warp_sum(lane < warps ? scratch[turn][group * warps + lane] : 0.0f);
    return v;
  };
  const int num_rows = static_cast<int>(o.num_rows);
  for (int first = 0; first < num_rows; first += groups)  // every thread makes every round: the sums need it
    norm_row<T, NORM, WHOLE ? NORM_MANY : VEC<T>, ACCESS, !WHOLE>(
        o, group < groups ? first + group : num_rows, member, members, FromMemory<T, ACCESS>{o.is_aligned}, affine,
        group_sum);
}

// The block's rows as they are, likewise.
template <Access ACCESS, class T> __device__ __forceinline__ void copy_rows(const NormOperands<T> &o) {
  const int c = static_cast<int>(o.c), num_rows = static_cast<int>(o.num_rows);
  if constexpr (ACCESS == Access::WHOLE) {
    for (int row = 0; row < num_rows; ++row)
      for (int at = threadIdx.x * VEC<T>; at < c; at += blockDim.x * VEC<T>)
        async_copy_16(o.y + row * o.stride_y + at, o.x + row * o.stride_x + at, VEC_BYTES);
    async_copy_commit();
    async_copy_wait<0>();
  } else {
    for (int row = 0; row < num_rows; ++row)
      for (int i = threadIdx.x; i < c; i += blockDim.x) o.y[row * o.stride_y + i] = o.x[row * o.stride_x + i];
  }
}

}  // namespace gt
