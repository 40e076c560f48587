// How does a block work on one row while its next ones are on their way?
//
//   RowsAhead<T, CHUNKS, 1> rows(shared, {{o.x, o.stride_x}}, o.num_rows, columns);   the first copies are ordered
//   rows.run([&](int64_t row, const auto &part) { ... part.vector(0, k) ... });        k < CHUNKS
// The grid steps through the rows. Thread t of the m that share a row, a block's or a cluster's, owns its 16-byte
// vectors t, t + m, t + 2m, ..; it copies what it will read itself, so that no barrier is about a copy. Every row must
// consist of whole aligned vectors; those beyond a row are 0. The right grid has as many blocks as run at once:
// num_multiprocessors of lib/hopper.h, or max_active_clusters of lib/cluster.h.
#pragma once

#include "lib/async_copy.h"
#include "lib/row_share.h"

namespace gt {

// Rows of a block in shared memory: the one at work, and those on their way.
constexpr int ROW_STAGES = 4;

template <class T> struct RowInput {
  const T *data;
  int64_t stride;
};

// The shared memory that a block needs.
template <class T> int64_t rows_ahead_bytes(int threads, int chunks, int inputs) {
  return static_cast<int64_t>(ROW_STAGES) * inputs * chunks * threads * VEC_BYTES;
}

// Which thread of a row's this is, and which rows are its.
struct RowsOfThread {
  int member, members;
  int64_t first, step;
};
__device__ __forceinline__ RowsOfThread rows_of_block() {
  return {static_cast<int>(threadIdx.x), static_cast<int>(blockDim.x), blockIdx.x, gridDim.x};
}

template <class T, int CHUNKS, int INPUTS> class RowsAhead {
 public:
  // A thread's part of a row that has arrived.
  struct Part {
    const Vector<T> *first;
    int threads;

    __device__ __forceinline__ const Vector<T> &vector(int input, int k) const {
      return first[(input * CHUNKS + k) * threads];
    }
  };

  __device__ __forceinline__ RowsAhead(Vector<T> *shared, const RowInput<T> (&inputs)[INPUTS], int64_t num_rows,
                                       int columns, const RowsOfThread &rows = rows_of_block())
      : shared_(shared), num_rows_(num_rows), columns_(columns), rows_(rows), ahead_(rows.first) {
#pragma unroll
    for (int i = 0; i < INPUTS; ++i) inputs_[i] = inputs[i];
    for (int stage = 0; stage < ROW_STAGES - 1; ++stage) order(stage);
  }

  // Calls f(row, part) for each row of the block.
  template <class F> __device__ __forceinline__ void run(F f) {
    int stage = 0;
    for (int64_t row = rows_.first; row < num_rows_; row += rows_.step) {
      order(stage == 0 ? ROW_STAGES - 1 : stage - 1);  // the slot of the row before, whose values are all used
      async_copy_wait<ROW_STAGES - 1>();
      f(row, Part{slot(stage), static_cast<int>(blockDim.x)});
      stage = stage == ROW_STAGES - 1 ? 0 : stage + 1;
    }
    async_copy_wait<0>();
  }

 private:
  __device__ __forceinline__ Vector<T> *slot(int stage) const {
    return shared_ + stage * INPUTS * CHUNKS * static_cast<int>(blockDim.x) + threadIdx.x;
  }
  __device__ __forceinline__ void order(int stage) {
    const int first = rows_.member * VEC<T>, step = rows_.members * VEC<T>;
    if (ahead_ < num_rows_) {
      Vector<T> *const to = slot(stage);
      int64_t offset[INPUTS];
#pragma unroll
      for (int i = 0; i < INPUTS; ++i) offset[i] = once(ahead_ * inputs_[i].stride + first);
#pragma unroll
      for (int k = 0; k < CHUNKS; ++k) {
        const bool is_column = first + k * step < columns_;
        const int skipped = is_column ? k * step : 0, bytes = is_column ? VEC_BYTES : 0;
#pragma unroll
        for (int i = 0; i < INPUTS; ++i) {
          Vector<T> *const own = to + (i * CHUNKS + k) * static_cast<int>(blockDim.x);
          async_copy_16(own, inputs_[i].data + offset[i] + skipped, bytes);
        }
      }
    }
    async_copy_commit();
    ahead_ += rows_.step;
  }

  Vector<T> *shared_;
  RowInput<T> inputs_[INPUTS];
  int64_t num_rows_;
  int columns_;
  RowsOfThread rows_;
  int64_t ahead_;  // the next row to order
};

}  // namespace gt
