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
// landed widens it in its place, a 16-bit vector in the second half of that of its f32. Where it is aligned, no thread
// waits for an element before the next is on its way. For all threads behind a barrier.
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
template <class T> __device__ __forceinline__ void take_parameter(const Parameter &p, int c, float *shared) {
  if constexpr (sizeof(T) == 2)
    for (int i = threadIdx.x * VEC<T>; i < c && p.data && p.is_aligned && !p.is_f32; i += blockDim.x * VEC<T>) {
      const auto bits = *reinterpret_cast<const Vector<float> *>(shared + i + VEC<T> - VEC<float>);
      Vector<T> narrow;
      memcpy(&narrow, &bits, sizeof bits);
#pragma unroll
      for (int j = 0; j < VEC<T>; ++j) shared[i + j] = to_float(narrow.element[j]);
    }
}

constexpr int NORM_SCRATCH = 4 * FEW_ROWS_WARPS;

// A block's rows of x, and where they go in shared memory.
template <class T> struct BlockShare {
  int64_t first_row;
  int num_rows, stride_y;
  bool writes_sum;  // to residual_out: one block of each row
  T *y;
  const float *parameters;  // that were kept: weight and bias, those that there are
  float *scratch;           // NORM_SCRATCH of shared memory
};

// v[j] = combine(v[j], parameter[j]), vectors of an aligned f32 parameter.
template <int N, class Combine>
__device__ __forceinline__ void each_with(const float *parameter, float (&v)[N], Combine combine) {
#pragma unroll
  for (int j = 0; j < N; j += 4) {
    float p[4];
    load_vec(parameter + j, p);
#pragma unroll
    for (int i = 0; i < 4; ++i) v[j + i] = combine(v[j + i], p[i]);
  }
}

// Registers keep vectors, and not their elements: what was computed of them before is computed anew.
template <class T, int CHUNKS> __device__ __forceinline__ void keep_whole(Vector<T> (&v)[CHUNKS]) {
#if defined(__CUDACC__)
#pragma unroll
  for (int k = 0; k < CHUNKS; ++k) {
    uint4 bits;
    memcpy(&bits, &v[k], sizeof bits);
    asm("" : "+r"(bits.x), "+r"(bits.y), "+r"(bits.z), "+r"(bits.w));
    memcpy(&v[k], &bits, sizeof bits);
  }
#else
  (void)v;
#endif
}

// norm_row of lib/norm_row.h, with its bits, for whole vectors of which registers hold a row, as T: half as many as f32
// takes, beside what the weights on their way need.
template <class T, Norm NORM, class GroupSum>
__device__ __forceinline__ void norm_row_as_stored(const NormOperands<T> &o, const BlockShare<T> &share, int row,
                                                   int member, int members, GroupSum group_sum) {
  constexpr int CHUNKS = NORM_MANY / VEC<T>;
  const bool exists = row < share.num_rows;
  const int64_t n = exists ? share.first_row + row : share.first_row;
  const int first = member * VEC<T>, step = members * VEC<T>, end = exists ? static_cast<int>(o.c) : 0;
  Vector<T> h[CHUNKS];
  load_packed<1, Access::WHOLE>(o.x + n * o.stride_x, first, step, end, true, h);
  if (o.residual) {
    Vector<T> residual[CHUNKS];
    load_packed<1, Access::WHOLE>(o.residual + n * o.stride_residual, first, step, end, true, residual);
    keep_whole(h);
    keep_whole(residual);
#pragma unroll
    for (int k = 0; k < CHUNKS; ++k)
#pragma unroll
      for (int j = 0; j < VEC<T>; ++j)
        h[k].element[j] = from_float<T>(to_float(h[k].element[j]) + to_float(residual[k].element[j]));
  }
  keep_whole(h);
  const auto store = [&](T *to, int k, const Vector<T> &v) {
    if (const int at = first + k * step; at < end) *reinterpret_cast<Vector<T> *>(to + at) = v;
  };
  if (o.residual_out && share.writes_sum)
#pragma unroll
    for (int k = 0; k < CHUNKS; ++k) store(o.residual_out + n * o.stride_residual_out, k, h[k]);

  const float c = static_cast<float>(static_cast<int>(o.c));
  float mean = 0.0f;
  const auto centred = [&](int k, int j) {
    const float v = to_float(h[k].element[j]);
    return NORM == Norm::LAYER ? v - mean : v;
  };
  const auto sum = [&](auto f) {
    float total = 0.0f;
    add_chunks<VEC<T>, Access::WHOLE, CHUNKS>(total, first, step, end, f);
    total = group_sum(total);
    keep_whole(h);
    return total;
  };
  if constexpr (NORM == Norm::LAYER) mean = sum([&](int k, int j) { return to_float(h[k].element[j]); }) / c;
  const float squares = sum([&](int k, int j) {
    const float v = centred(k, j);
    return v * v;
  });
  const float rstd = 1.0f / sqrtf(squares / c + o.eps);
#pragma unroll
  for (int k = 0; k < CHUNKS; ++k) {
    float v[VEC<T>];
#pragma unroll
    for (int j = 0; j < VEC<T>; ++j) {
      v[j] = centred(k, j) * rstd;
      if constexpr (NORM == Norm::RMS) v[j] = to_float(from_float<T>(v[j]));
    }
    const int at = first + k * step;
    const float *kept = share.parameters + (at < end ? at : 0);
    if (o.weight.data) {
      each_with(kept, v, [](float a, float w) { return __fmul_rn(a, w); });
      kept += static_cast<int>(o.c);
    }
    if (o.bias.data) each_with(kept, v, [](float a, float b) { return a + b; });
    if (at < end) store_vec(share.y + row * share.stride_y + at, v);
  }
}

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

// The block's rows, normalised, to shared memory. WHOLE: with parameters that were kept.
template <class T, Norm NORM, Access ACCESS>
__device__ __forceinline__ void normalise(const NormOperands<T> &o, const BlockShare<T> &share,
                                          const RowGroups &shares) {
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
    float *const scratch = share.scratch + turn * (NORM_SCRATCH / 2);
    if (lane == 0) scratch[warp] = v;
    __syncthreads();
    v = warp_sum(lane < warps ? scratch[group * warps + lane] : 0.0f);
    return v;
  };
  for (int first = 0; first < share.num_rows; first += groups) {  // every thread makes every round: the sums need it
    const int row = group < groups ? first + group : share.num_rows;
    if constexpr (ACCESS == Access::WHOLE) {
      norm_row_as_stored<T, NORM>(o, share, row, member, members, group_sum);
    } else {  // one vector at a time: less code, the same order
      NormOperands<T> rows = o;
      rows.num_rows = share.num_rows;
      rows.x += share.first_row * o.stride_x;
      if (o.residual) rows.residual += share.first_row * o.stride_residual;
      rows.residual_out = o.residual_out && share.writes_sum ? o.residual_out + share.first_row * o.stride_residual_out
                                                             : nullptr;
      rows.y = share.y;
      rows.stride_y = share.stride_y;
      norm_row<T, NORM, VEC<T>, ACCESS, true>(rows, row, member, members, FromMemory<T, ACCESS>{o.is_aligned},
                                              Affine<T, NORM, ACCESS>{o.weight, o.bias}, group_sum);
    }
  }
}

// A row's vectors, and which row the i-th of all vectors is of: exact while i times their number is below 2^31.
struct RowVectors {
  int vectors;
  uint32_t inverse;

  __device__ __forceinline__ int row_of(int i) const { return static_cast<int>(uint64_t{inverse} * i >> 31); }
};
inline RowVectors row_vectors(int64_t vectors) {
  const int64_t divisor = max(int64_t{1}, vectors);
  return {static_cast<int>(vectors), static_cast<uint32_t>(((int64_t{1} << 31) + divisor - 1) / divisor)};
}

// The block's rows as they are, likewise. By way of registers: a wait for copies would be one for all of the weights
// that the thread has asked for as well.
template <Access ACCESS, class T>
__device__ __forceinline__ void copy_rows(const NormOperands<T> &o, const BlockShare<T> &share,
                                          const RowVectors &of_row) {
  const T *const x = o.x + share.first_row * o.stride_x;
  if constexpr (ACCESS == Access::WHOLE) {
    const int end = share.num_rows * of_row.vectors;
    const auto copy = [&](auto many) {  // vectors on their way
      constexpr int MANY = decltype(many)::value;
      for (int first = threadIdx.x; first < end; first += MANY * blockDim.x) {
        Vector<T> v[MANY];
        const auto each = [&](auto f) {
#pragma unroll
          for (int k = 0; k < MANY; ++k)
            if (const int i = first + k * blockDim.x; i < end) {
              const int row = of_row.row_of(i);
              f(k, row, (i - row * of_row.vectors) * VEC<T>);
            }
        };
        each([&](int k, int row, int at) { v[k] = *reinterpret_cast<const Vector<T> *>(x + row * o.stride_x + at); });
        each([&](int k, int row, int at) {
          *reinterpret_cast<Vector<T> *>(share.y + row * share.stride_y + at) = v[k];
        });
      }
    };
    if (end <= 2 * static_cast<int>(blockDim.x)) copy(std::integral_constant<int, 2>());  // a row alone: soon done
    else copy(std::integral_constant<int, 8>());
  } else {
    for (int row = 0; row < share.num_rows; ++row)
      for (int i = threadIdx.x; i < static_cast<int>(o.c); i += blockDim.x)
        share.y[row * share.stride_y + i] = x[row * o.stride_x + i];
  }
}

}  // namespace gt
