// Token and position embedding on CUDA.
//
// Computes    y[n,:] = table[ids[n],:] + position_table[positions[n],:], the second term where there is one
// Shapes      y [N, C], table [V, C], position_table [M, C]: C contiguous, any row stride; ids, positions [N].
//             position_table and positions may both be NULL. y aliases nothing
// Types       f32, bf16, f16, one for all; ids i32 or i64, positions i32. Sum in f32, rounded once
// Mapping     a power of two of threads, 256 at most, owns a piece of a row: a 16-byte vector each; a block owns as
//             many rows as fill 256 threads. Grid x is the piece, y steps through the rows
// Memory      one read of each table and one write per element. The tables' rows are scattered: a row is read whole
// Numerics    an element depends on its own inputs alone. An id or a position without a row makes the row of y NaN
// Limits      16-byte accesses where all rows of y, table and position_table start at multiples of 16 bytes, else
//             element by element; N, C, V and M up to 2^63; sm_80 and later; nothing is UNSUPPORTED
// Source      none. Not yet measured on a GPU: bound by memory
#include "lib/cuda.h"

#include "check.h"
#include "gatun/embedding.h"
#include "lib/entry.h"
#include "lib/vec.h"

namespace gt {

decltype(gt_embedding) embedding_cuda;

namespace {

constexpr int THREADS = 256;
constexpr int64_t MAX_ROW_STEPS = 65535;  // grid.y

template <class T> struct Table {
  const T *data;
  int64_t stride, num_rows;
  // Row number id, NULL where there is none.
  __device__ __forceinline__ const T *row(int64_t id) const {
    return id >= 0 && id < num_rows ? data + id * stride : nullptr;
  }
};

template <class T> struct Operands {
  T *y;
  int64_t stride_y, num_rows, c;
  const void *ids;
  bool ids_are_i64;
  const int32_t *positions;  // NULL: no position_table either
  Table<T> table, position_table;
  bool is_aligned;
};

template <class T> __global__ void __launch_bounds__(THREADS) embed_rows(const Operands<T> o, int threads_per_row) {
  const int rows_per_block = blockDim.x / threads_per_row;
  const int64_t i = (static_cast<int64_t>(blockIdx.x) * threads_per_row + threadIdx.x % threads_per_row) * VEC<T>;
  for (int64_t n = static_cast<int64_t>(blockIdx.y) * rows_per_block + threadIdx.x / threads_per_row; n < o.num_rows;
       n += static_cast<int64_t>(gridDim.y) * rows_per_block) {
    const T *const token = o.table.row(o.ids_are_i64 ? static_cast<const int64_t *>(o.ids)[n]
                                                     : static_cast<const int32_t *>(o.ids)[n]);
    const T *const position = o.positions ? o.position_table.row(o.positions[n]) : nullptr;
    float v[VEC<T>], add[VEC<T>];
    if (!token || (o.positions && !position)) {
#pragma unroll
      for (int j = 0; j < VEC<T>; ++j) v[j] = NAN;
    } else {
      load_upto(token + i, o.c - i, o.is_aligned, 0.0f, v);
      if (position) {  // not without: -0 + 0 is +0
        load_upto(position + i, o.c - i, o.is_aligned, 0.0f, add);
#pragma unroll
        for (int j = 0; j < VEC<T>; ++j) v[j] += add[j];
      }
    }
    store_upto(o.y + n * o.stride_y + i, o.c - i, o.is_aligned, v);
  }
}

template <class T> Table<T> table_of(const gt_tensor *t) {
  if (!t) return {};
  return {static_cast<const T *>(t->data), t->stride[0], t->shape[0]};
}

template <class T>
int launch_embedding(void *stream, const gt_tensor &y, const gt_tensor &ids, const gt_tensor &table,
                     const gt_tensor *positions, const gt_tensor *position_table) {
  Operands<T> o = {static_cast<T *>(y.data), y.stride[0], y.shape[0], y.shape[1], ids.data, ids.dtype == GT_I64,
                   positions ? static_cast<const int32_t *>(positions->data) : nullptr,
                   table_of<T>(&table), table_of<T>(position_table), false};
  o.is_aligned = rows_are_aligned(o.y, o.stride_y) && rows_are_aligned(o.table.data, o.table.stride) &&
                 rows_are_aligned(o.position_table.data, o.position_table.stride);
  const int64_t vectors = ceil_divide(o.c, VEC<T>);
  int threads_per_row = 1, rows_per_block = 1;
  while (threads_per_row < vectors && threads_per_row < THREADS) threads_per_row *= 2;
  while (rows_per_block < o.num_rows && rows_per_block * threads_per_row < THREADS) rows_per_block *= 2;
  const dim3 grid(static_cast<unsigned>(ceil_divide(vectors, threads_per_row)),
                  static_cast<unsigned>(min(ceil_divide(o.num_rows, rows_per_block), MAX_ROW_STEPS)));
  return launch(embed_rows<T>, grid, threads_per_row * rows_per_block, 0, stream, o, threads_per_row);
}

}  // namespace

gt_status embedding_cuda(const gt_stream *stream, const gt_tensor *y, const gt_tensor *ids, const gt_tensor *table,
                         const gt_tensor *positions, const gt_tensor *position_table) {
  if (elements(*y) == 0) return GT_OK;
  const auto run = [&](auto launch_of_dtype) {
    return launch_of_dtype(stream->handle, *y, *ids, *table, positions, position_table);
  };
  int error;
  switch (y->dtype) {
    case GT_F32: error = run(launch_embedding<float>); break;
    case GT_BF16: error = run(launch_embedding<bf16>); break;
    default: error = run(launch_embedding<f16>);
  }
  return status_of("embedding", error);
}

}  // namespace gt
