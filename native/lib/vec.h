// How does a kernel move f32, bf16 and f16 between memory and f32 registers, 16 bytes at a time?
//
// Every storage type is widened to float on the way in and rounded to nearest even on the way out. The vector forms
// need 16-byte aligned addresses (is_aligned, rows_are_aligned); the others take any address and any count, so that a
// kernel writes its tail and its unaligned case with one call: load_upto / store_upto.
#pragma once

#include "lib/cuda.h"

#include <cstring>
#include <type_traits>

namespace gt {

__host__ __device__ __forceinline__ float to_float(float x) { return x; }
__host__ __device__ __forceinline__ float to_float(bf16 x) { return __bfloat162float(x); }
__host__ __device__ __forceinline__ float to_float(f16 x) { return __half2float(x); }

template <class T> __host__ __device__ __forceinline__ T from_float(float x);
template <> __host__ __device__ __forceinline__ float from_float<float>(float x) { return x; }
template <> __host__ __device__ __forceinline__ bf16 from_float<bf16>(float x) { return __float2bfloat16_rn(x); }
template <> __host__ __device__ __forceinline__ f16 from_float<f16>(float x) { return __float2half_rn(x); }

// bf16 or f16: both rounded, `low` in the lower half.
template <class T> __device__ __forceinline__ uint32_t pack_pair(float low, float high) {
  uint32_t bits;
  if constexpr (std::is_same_v<T, bf16>) {
    const auto pair = __floats2bfloat162_rn(low, high);
    memcpy(&bits, &pair, sizeof bits);
  } else {
    const auto pair = __floats2half2_rn(low, high);
    memcpy(&bits, &pair, sizeof bits);
  }
  return bits;
}

constexpr int VEC_BYTES = 16;  // the widest load and store of one thread

// Elements of T in one vector: 4 of f32, 8 of bf16 and f16.
template <class T> constexpr int VEC = VEC_BYTES / static_cast<int>(sizeof(T));

// An array of T rather than a uint4: it may alias T's memory, and nvcc still makes one 128-bit access of a copy.
template <class T> struct alignas(VEC_BYTES) Vector { T element[VEC<T>]; };

// N elements, moved by accesses of 16 bytes, or by a single one of all their bytes where these are fewer.
template <class T, int N> struct alignas(N * sizeof(T) < VEC_BYTES ? N * sizeof(T) : VEC_BYTES) Pack { T element[N]; };

template <class T> __host__ __device__ __forceinline__ bool is_aligned(const T *p) {
  return reinterpret_cast<uintptr_t>(p) % VEC_BYTES == 0;
}

// True when p, p + stride, p + 2 * stride, ... are all aligned. `stride` in elements.
template <class T> __host__ __device__ __forceinline__ bool rows_are_aligned(const T *p, int64_t stride) {
  return is_aligned(p) && stride % VEC<T> == 0;
}

// v[i] = p[i] for VEC<T> elements, one access. p is 16-byte aligned.
template <class T> __device__ __forceinline__ void load_vec(const T *p, float (&v)[VEC<T>]) {
  const Vector<T> packed = *reinterpret_cast<const Vector<T> *>(p);
#pragma unroll
  for (int i = 0; i < VEC<T>; ++i) v[i] = to_float(packed.element[i]);
}

// p[i] = v[i] for VEC<T> elements, one access. p is 16-byte aligned.
template <class T> __device__ __forceinline__ void store_vec(T *p, const float (&v)[VEC<T>]) {
  Vector<T> packed;
#pragma unroll
  for (int i = 0; i < VEC<T>; ++i) packed.element[i] = from_float<T>(v[i]);
  *reinterpret_cast<Vector<T> *>(p) = packed;
}

// VEC<T> elements as they lie in memory, of which `left` exist, zeros behind them. WHOLE: by one access, for which p is
// 16-byte aligned and all exist; else one by one. A template's argument, to be chosen around a loop: where whole and
// other vectors meet again behind each load, ptxas takes 16-bit ones apart there, and so waits for each.
template <bool WHOLE, class T> __device__ __forceinline__ Vector<T> packed_at(const T *p, int64_t left) {
  Vector<T> v;
  if constexpr (WHOLE) {
    v = *reinterpret_cast<const Vector<T> *>(p);
  } else {
#pragma unroll
    for (int i = 0; i < VEC<T>; ++i) v.element[i] = i < left ? p[i] : T{};
  }
  return v;
}

// v[i] = i < count ? p[i] : fill. One access when the vector is whole and `aligned`, else one per element; count may be
// any number, also <= 0. `aligned` says that p is 16-byte aligned: uniform over the kernel, from rows_are_aligned.
template <class T>
__device__ __forceinline__ void load_upto(const T *p, int64_t count, bool aligned, float fill, float (&v)[VEC<T>]) {
  if (aligned && count >= VEC<T>) {
    load_vec(p, v);
    return;
  }
#pragma unroll
  for (int i = 0; i < VEC<T>; ++i) v[i] = i < count ? to_float(p[i]) : fill;
}

// p[i] = v[i] for i < count, i < VEC<T>; the counterpart of load_upto.
template <class T>
__device__ __forceinline__ void store_upto(T *p, int64_t count, bool aligned, const float (&v)[VEC<T>]) {
  if (aligned && count >= VEC<T>) {
    store_vec(p, v);
    return;
  }
#pragma unroll
  for (int i = 0; i < VEC<T>; ++i)
    if (i < count) p[i] = from_float<T>(v[i]);
}

}  // namespace gt
