// How do the threads that share a row load their parts of it, and of the parameters beside it?
//
// Thread t of a row's m owns the 16-byte vectors t, t + m, t + 2m, ...: its chunks. first is its first column, step
// what lies between two of its chunks, both in elements.
#pragma once

#include <type_traits>

#include "gatun/types.h"
#include "lib/vec.h"

namespace gt {

// Of a row. WHOLE: aligned vectors alone, for all operands and parameters; ANY: the kernel looks. A kernel for WHOLE
// has half the instructions, and these count: 2 bytes in and 2 out leave an H200's SM time for about 25 per element.
enum class Access { WHOLE, ANY };

// A [C] in T or in f32.
struct Parameter {
  const void *data;  // NULL: 1 for a weight, 0 for a bias
  bool is_f32, is_aligned;
};

inline Parameter parameter_of(const gt_tensor *t) {
  if (!t) return {nullptr, false, false};
  return {t->data, t->dtype == GT_F32, is_aligned(static_cast<const char *>(t->data))};
}

// An offset that is computed once: the compiler would make it anew, products of 64 bits and all, for each access that
// depends on a condition.
__device__ __forceinline__ int64_t once(int64_t offset) {
#if defined(__CUDACC__)
  asm("" : "+l"(offset));
#endif
  return offset;
}

// PER_CHUNK vectors of P for each chunk k of a thread's share of a row, the columns first + k * step ...; what v holds
// of columns from end on is arbitrary. Where all vectors are whole there is no branch between the loads (those beyond
// the row fetch column 0 instead), so that all of them are in flight together.
template <int PER_CHUNK, Access ACCESS = Access::ANY, class P, int VECTORS, class Index>
__device__ __forceinline__ void load_packed(const P *row, Index first, int step, Index end, bool aligned,
                                            Vector<P> (&v)[VECTORS]) {
  const auto load_whole = [&] {
#pragma unroll
    for (int k = 0; k < VECTORS; ++k) {
      const Index i = first + k / PER_CHUNK * step + k % PER_CHUNK * VEC<P>;
      v[k] = *reinterpret_cast<const Vector<P> *>(row + (i < end ? i : 0));
    }
  };
  if constexpr (ACCESS == Access::WHOLE) {
    load_whole();
  } else if (aligned && end > 0 && end % VEC<P> == 0) {
    load_whole();
  } else {
#pragma unroll
    for (int k = 0; k < VECTORS; ++k) {
      const Index i = first + k / PER_CHUNK * step + k % PER_CHUNK * VEC<P>;
      v[k] = Vector<P>{};
      if (aligned && i + VEC<P> <= end) {
        v[k] = *reinterpret_cast<const Vector<P> *>(row + i);
      } else {
#pragma unroll
        for (int j = 0; j < VEC<P>; ++j)
          if (i + j < end) v[k].element[j] = row[i + j];
      }
    }
  }
}

// v[k][j] = combine(v[k][j], parameter[first + k * step + j]); v as it is where there is no parameter.
template <class T, Access ACCESS = Access::ANY, int CHUNKS, class Index, class Combine>
__device__ __forceinline__ void apply_parameter(const Parameter &parameter, Index first, int step, Index end,
                                                float (&v)[CHUNKS][VEC<T>], Combine combine) {
  if (!parameter.data) return;
  const auto apply = [&](const auto *data) {
    using P = std::remove_const_t<std::remove_pointer_t<decltype(data)>>;
    constexpr int PER_CHUNK = VEC<T> / VEC<P>;
    Vector<P> packed[CHUNKS * PER_CHUNK];
    load_packed<PER_CHUNK, ACCESS>(data, first, step, end, parameter.is_aligned, packed);
#pragma unroll
    for (int k = 0; k < CHUNKS; ++k)
#pragma unroll
      for (int j = 0; j < VEC<T>; ++j)
        v[k][j] = combine(v[k][j], to_float(packed[k * PER_CHUNK + j / VEC<P>].element[j % VEC<P>]));
  };
  if (std::is_same_v<T, float> || parameter.is_f32)
    apply(static_cast<const float *>(parameter.data));
  else
    apply(static_cast<const T *>(parameter.data));
}

// row[first + k * step + j] = v[k][j] below end.
template <class T, Access ACCESS, int CHUNKS, class Index>
__device__ __forceinline__ void store_chunks(T *row, Index first, int step, Index end, bool aligned,
                                             const float (&v)[CHUNKS][VEC<T>]) {
#pragma unroll
  for (int k = 0; k < CHUNKS; ++k) {
    if constexpr (ACCESS == Access::ANY) store_upto(row + first + k * step, end - first - k * step, aligned, v[k]);
    else if (const Index i = first + k * step; i < end) store_vec(row + i, v[k]);
  }
}

// total += f(k, j) for each column first + k * step + j below end, in this order.
template <int N, Access ACCESS, int CHUNKS, class Index, class F>
__device__ __forceinline__ void add_chunks(float &total, Index first, int step, Index end, F f) {
#pragma unroll
  for (int k = 0; k < CHUNKS; ++k) {
    if constexpr (ACCESS == Access::ANY) {
#pragma unroll
      for (int j = 0; j < N; ++j) total += first + k * step + j < end ? f(k, j) : 0.0f;
    } else if (first + k * step < end) {
#pragma unroll
      for (int j = 0; j < N; ++j) total += f(k, j);
    }
  }
}

}  // namespace gt
