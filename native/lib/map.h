// How does a function of elements become a kernel on operands with any strides?
//
// Dimensions are merged and ordered by the first operand (lib/strided.h), so that contiguous operands are one row. A
// power of two of threads owns a piece of a row, a block as many pieces as fill MAP_THREADS; grid x is the piece, y
// steps through the rows. 16-byte accesses where all operands are contiguous along the rows and every row starts at a
// multiple of 16 bytes; else element by element, neighbouring threads on neighbouring elements.
#pragma once

#include "lib/entry.h"
#include "lib/reduce.h"
#include "lib/strided.h"
#include "lib/vec.h"

namespace gt {

constexpr int MAP_THREADS = 256;
constexpr int VECTORS = 2;                // in flight per operand and thread
constexpr int SCALARS = 4;                // the same where elements are moved one by one
constexpr int64_t MAX_ROW_STEPS = 65535;  // grid.y

// What a function with two results returns. It says so by `static constexpr int OUTPUTS = 2`; with none, it has one.
template <class Y> struct Two { Y first, second; };

template <class F, class = void> constexpr int OUTPUTS_OF = 1;
template <class F> constexpr int OUTPUTS_OF<F, decltype(void(F::OUTPUTS))> = F::OUTPUTS;

// F, which has INPUTS and is called with f(a, b) or with f(a, b, c), on storage types, rounded once.
template <class Y, class X, class F> struct Rounded {
  static constexpr int INPUTS = F::INPUTS, OUTPUTS = OUTPUTS_OF<F>;
  F f;
  static __device__ __forceinline__ Y round(float y) { return from_float<Y>(y); }
  static __device__ __forceinline__ Two<Y> round(const Two<float> &y) { return {round(y.first), round(y.second)}; }
  __device__ auto operator()(X a, X b) const { return round(f(to_float(a), to_float(b))); }
  __device__ auto operator()(X a, X b, X c) const { return round(f(to_float(a), to_float(b), to_float(c))); }
};

template <class F, class X> __device__ __forceinline__ auto apply(const F &f, X a, X b, X c) {
  if constexpr (F::INPUTS > 2)
    return f(a, b, c);
  else
    return f(a, b);
}
template <class Y> __device__ __forceinline__ void take(const Y &result, Y &y, Y &) { y = result; }
template <class Y> __device__ __forceinline__ void take(const Two<Y> &result, Y &y, Y &z) {
  y = result.first;
  z = result.second;
}

// How a loop's rows are dealt out.
struct Deal {
  int log2_threads;   // of the threads that share a piece of a row
  int64_t piece;      // its elements
  int64_t columns;    // of a row, of which the first `whole` go by vectors
  int64_t whole;
  int64_t rows;
};

// Calls vectors(position, i, step) for this thread's VECTORS vectors of N elements, those of i, i + step, .. that are
// below deal.whole, and scalars(position, i, end, step) for its other elements: i, i + step, .. below end.
template <int N, class Vectors, class Scalars>
__device__ __forceinline__ void for_pieces(const Loop &loop, const Deal &deal, Vectors vectors, Scalars scalars) {
  const int sharers = 1 << deal.log2_threads, me = threadIdx.x & (sharers - 1);
  const int rows_per_block = blockDim.x >> deal.log2_threads;
  const int64_t first = blockIdx.x * deal.piece;
  const bool is_last = blockIdx.x == gridDim.x - 1;
  for (int64_t row = static_cast<int64_t>(blockIdx.y) * rows_per_block + (threadIdx.x >> deal.log2_threads);
       row < deal.rows; row += static_cast<int64_t>(gridDim.y) * rows_per_block) {
    const Position at = position_at(loop, loop.rank - 1, row);
    if (deal.whole > 0) {
      vectors(at, first + me * N, sharers * N);
      if (is_last) scalars(at, deal.whole + me, deal.columns, sharers);
    } else {
      scalars(at, first + me, min(first + deal.piece, deal.columns), sharers);
    }
  }
}

template <class T, int N> __device__ __forceinline__ Pack<T, N> load_pack(const char *row, int64_t i) {
  return *reinterpret_cast<const Pack<T, N> *>(row + i * static_cast<int64_t>(sizeof(T)));
}
template <class T, int N> __device__ __forceinline__ void store_pack(char *row, int64_t i, const Pack<T, N> &pack) {
  *reinterpret_cast<Pack<T, N> *>(row + i * static_cast<int64_t>(sizeof(T))) = pack;
}
template <class Y, class X> constexpr int PACK = VEC<Y> > VEC<X> ? VEC<Y> : VEC<X>;

// Operands are the outputs, then the inputs.
template <class Y, class X, class F>
__global__ void __launch_bounds__(MAP_THREADS) map_rows(const Loop loop, const Deal deal, const F f) {
  constexpr int N = PACK<Y, X>, O = OUTPUTS_OF<F>;
  for_pieces<N>(
      loop, deal,
      [&](const Position &at, int64_t i, int step) {
        Pack<X, N> a[VECTORS] = {}, b[VECTORS] = {}, c[VECTORS] = {};
        // no branch between the loads (those beyond the row fetch its first elements): all are in flight together
#pragma unroll
        for (int k = 0; k < VECTORS; ++k) {
          const int64_t from = i + k * step < deal.whole ? i + k * step : 0;
          if constexpr (F::INPUTS > 0) a[k] = load_pack<X, N>(at.data[O], from);
          if constexpr (F::INPUTS > 1) b[k] = load_pack<X, N>(at.data[O + 1], from);
          if constexpr (F::INPUTS > 2) c[k] = load_pack<X, N>(at.data[O + 2], from);
        }
#pragma unroll
        for (int k = 0; k < VECTORS; ++k) {
          if (i + k * step >= deal.whole) break;
          Pack<Y, N> y, z;
#pragma unroll
          for (int j = 0; j < N; ++j)
            take(apply(f, a[k].element[j], b[k].element[j], c[k].element[j]), y.element[j], z.element[j]);
          store_pack(at.data[0], i + k * step, y);
          if constexpr (O > 1) store_pack(at.data[1], i + k * step, z);
        }
      },
      [&](const Position &at, int64_t i, int64_t end, int step) {
        const auto element = [&](int operand, int64_t index) {
          return at.data[operand] + index * loop.stride[operand][loop.rank - 1];
        };
        for (; i < end; i += SCALARS * step) {
          X a[SCALARS] = {}, b[SCALARS] = {}, c[SCALARS] = {};
#pragma unroll
          for (int k = 0; k < SCALARS; ++k) {
            if (i + k * step >= end) break;
            if constexpr (F::INPUTS > 0) a[k] = *reinterpret_cast<const X *>(element(O, i + k * step));
            if constexpr (F::INPUTS > 1) b[k] = *reinterpret_cast<const X *>(element(O + 1, i + k * step));
            if constexpr (F::INPUTS > 2) c[k] = *reinterpret_cast<const X *>(element(O + 2, i + k * step));
          }
#pragma unroll
          for (int k = 0; k < SCALARS; ++k) {
            if (i + k * step >= end) break;
            Y y, z;
            take(apply(f, a[k], b[k], c[k]), y, z);
            *reinterpret_cast<Y *>(element(0, i + k * step)) = y;
            if constexpr (O > 1) *reinterpret_cast<Y *>(element(1, i + k * step)) = z;
          }
        }
      });
}

// The power of two that is at least n, MAP_THREADS at most.
inline int log2_threads_for(int64_t n) {
  int log2 = 0;
  while (1 << log2 < n && 1 << log2 < MAP_THREADS) ++log2;
  return log2;
}

inline bool goes_by_vectors(const Loop &loop) {
  for (int t = 0; t < loop.num_operands; ++t) {
    if (loop.stride[t][loop.rank - 1] != loop.bytes[t] || !is_aligned(loop.data[t])) return false;
    for (int d = 0; d < loop.rank - 1; ++d)
      if (loop.stride[t][d] % VEC_BYTES != 0) return false;
  }
  return true;
}

// Launches a kernel over the rows of `loop`, vectors of n elements.
template <class Kernel, class Argument>
int launch_rows(Kernel kernel, void *stream, const Loop &loop, int n, const Argument &argument) {
  Deal deal;
  deal.columns = loop.shape[loop.rank - 1];
  deal.rows = count_of(loop, loop.rank - 1);
  deal.whole = goes_by_vectors(loop) ? deal.columns / n * n : 0;
  deal.log2_threads = log2_threads_for(deal.whole > 0 ? ceil_divide(deal.whole, VECTORS * n) : deal.columns);
  deal.piece = static_cast<int64_t>(VECTORS * n) << deal.log2_threads;
  const int64_t most_rows = MAP_THREADS >> deal.log2_threads;
  const int threads = max(WARP, 1 << (deal.log2_threads + log2_threads_for(min(deal.rows, most_rows))));
  const int64_t row_steps = ceil_divide(deal.rows, threads >> deal.log2_threads);
  const dim3 grid(static_cast<unsigned>(ceil_divide(deal.whole > 0 ? deal.whole : deal.columns, deal.piece)),
                  static_cast<unsigned>(min(row_steps, MAX_ROW_STEPS)));
  return launch(kernel, grid, threads, 0, stream, loop, deal, argument);
}

template <class Y, class X, class F> int launch_map(void *stream, const Loop &loop, const F &f) {
  return launch_rows(map_rows<Y, X, F>, stream, loop, PACK<Y, X>, f);
}

// y = f(..) for operands y and the inputs of f, all of one float dtype; with OUTPUTS 2, z comes after y.
template <class F>
gt_status map(const char *op, const gt_stream *stream, const F &f, std::initializer_list<const gt_tensor *> operands) {
  const gt_tensor &y = **operands.begin();
  if (elements(y) == 0) return GT_OK;
  return status_of(op, with_float(y.dtype, [&](auto zero) {
                     using T = decltype(zero);
                     return launch_map<T, T>(stream->handle, loop_over(operands), Rounded<T, T, F>{f});
                   }));
}

}  // namespace gt
