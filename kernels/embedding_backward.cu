// The gradient of an embedding's table on CUDA.
//
// Computes    dtable[v,:] = sum over n with ids[n] = v of dy[n,:], 0 where no id is v
// Shapes      dtable [V, C], dy [N, C], C contiguous, any row stride; ids [N]
// Types       dtable f32; dy f32, bf16, f16; ids i32 or i64. Sums in f32
// Mapping     four launches. zero_rows: all of dtable. sort_chunks: a block sorts CHUNK tokens by (id, token), each by
//             counting the smaller ones. merge_chunks: a warp finds a token's place among all: its rank in each chunk
//             by bisection, a chunk per lane. sum_tokens: a block owns the ids that begin within PLACES of the sorted
//             tokens, and 32 vectors of columns; a warp sums an id with up to LONG tokens by itself, all warps together
//             one with more, of which each takes every 8th token
// Memory      ids once, dy once, dtable once and its rows that have tokens once more. The workspace holds N keys of 8
//             bytes twice. Shared: 2 KB of keys; 32 sums per warp and element of a vector: 4 KB, 8 KB for 16-bit dy
// Numerics    tokens in ascending order; with more than LONG, the warps' sums in the order of the warps: ids alone
//             decide the order. An id outside 0 .. V-1 sorts behind all others and is summed nowhere
// Limits      N and V below 2^31 - 2; 16-byte accesses where all rows of dy and of dtable start at multiples of 16
//             bytes, else element by element; sm_80 and later; nothing is UNSUPPORTED
// Source      none. Not yet measured on a GPU: bound by memory
#include "lib/cuda.h"

#include "check.h"
#include "gatun/embedding.h"
#include "lib/entry.h"
#include "lib/reduce.h"
#include "lib/vec.h"

namespace gt {

decltype(gt_embedding_backward) embedding_backward_cuda;
decltype(gt_embedding_backward_workspace) embedding_backward_workspace_cuda;

namespace {

constexpr int THREADS = 256;
constexpr int WARPS = THREADS / WARP;
constexpr int CHUNK = THREADS;              // tokens that a block sorts: a thread counts for one
constexpr int PLACES = 32;                  // whose ids a block sums: with one token each, four for a warp
constexpr int LONG = 32;                    // tokens of an id that a warp sums alone
constexpr int AHEAD = 4;                    // rows of dy that a warp has in flight
constexpr int SUM_BLOCKS = 4;               // of an SM at least: left to itself, ptxas spills
constexpr int64_t MAX_BLOCKS = 16384;       // enough to fill any device many times
constexpr int64_t MAX_PIECE_STEPS = 65535;  // grid.y

// Id and token in one number, so that all differ and sort by id, then by token.
using Key = unsigned long long;
constexpr Key NO_KEY = ~Key{0};  // behind all others
__device__ __forceinline__ int64_t id_of(Key key) { return static_cast<int64_t>(key >> 32); }
__device__ __forceinline__ int64_t token_of(Key key) { return static_cast<int64_t>(key & 0xffffffffu); }

__global__ void __launch_bounds__(THREADS) zero_rows(float *dtable, int64_t stride, int64_t v, int64_t c,
                                                     int threads_per_row, bool aligned) {
  const int rows_per_block = THREADS / threads_per_row;
  const float zeros[VEC<float>] = {};
  for (int64_t n = static_cast<int64_t>(blockIdx.x) * rows_per_block + threadIdx.x / threads_per_row; n < v;
       n += static_cast<int64_t>(gridDim.x) * rows_per_block)
    for (int64_t i = static_cast<int64_t>(threadIdx.x % threads_per_row) * VEC<float>; i < c;
         i += static_cast<int64_t>(threads_per_row) * VEC<float>)
      store_upto(dtable + n * stride + i, c - i, aligned, zeros);
}

// Sorts each chunk of `chunked` by itself.
__global__ void __launch_bounds__(THREADS) sort_chunks(Key *chunked, const void *ids, bool ids_are_i64, int64_t n,
                                                       int64_t v) {
  __shared__ Key keys[CHUNK];
  for (int64_t first = static_cast<int64_t>(blockIdx.x) * CHUNK; first < n;
       first += static_cast<int64_t>(gridDim.x) * CHUNK) {
    const int count = static_cast<int>(min(n - first, int64_t{CHUNK}));
    const int64_t token = first + threadIdx.x;
    const bool exists = token < n;
    Key mine = NO_KEY;
    if (exists) {
      const int64_t id = ids_are_i64 ? static_cast<const int64_t *>(ids)[token]
                                     : static_cast<const int32_t *>(ids)[token];
      mine = static_cast<Key>(id >= 0 && id < v ? id : v) << 32 | static_cast<Key>(token);
    }
    keys[threadIdx.x] = mine;
    __syncthreads();
    int rank = 0;
#pragma unroll 8
    for (int i = 0; i < count; ++i) rank += keys[i] < mine;
    if (exists) chunked[first + rank] = mine;
    __syncthreads();
  }
}

// How many of the ascending keys are smaller.
__device__ __forceinline__ int rank_in(const Key *keys, int count, Key key) {
  int low = 0;
  while (count > 0) {
    const int half = count / 2;
    if (keys[low + half] < key) {
      low += half + 1;
      count -= half + 1;
    } else {
      count = half;
    }
  }
  return low;
}

__global__ void __launch_bounds__(THREADS) merge_chunks(Key *sorted, const Key *chunked, int64_t n) {
  const int lane = threadIdx.x % WARP;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * WARPS + threadIdx.x / WARP; i < n;
       i += static_cast<int64_t>(gridDim.x) * WARPS) {
    const Key key = chunked[i];
    int rank = 0;
    for (int64_t first = static_cast<int64_t>(lane) * CHUNK; first < n; first += WARP * CHUNK)
      rank += rank_in(chunked + first, static_cast<int>(min(n - first, int64_t{CHUNK})), key);
#pragma unroll
    for (int distance = WARP / 2; distance > 0; distance /= 2) rank += __shfl_xor_sync(ALL_LANES, rank, distance);
    if (lane == 0) sorted[rank] = key;
  }
}

template <class T> struct Operands {
  float *dtable;
  const T *dy;
  int64_t stride_dtable, stride_dy, n, v, c;
  const Key *sorted;
  bool is_aligned;
  // The key at a place, NO_KEY beyond the last.
  __device__ __forceinline__ Key at(int64_t place) const { return place < n ? sorted[place] : NO_KEY; }
};

// sum += the rows of dy of an id's tokens at `place`, place + step, ..., columns from `column` on. No branch stands
// between a round's loads, so that all are in flight together: for places beyond the id's they fetch row 0. WHOLE: of
// packed_at.
template <bool WHOLE, class T>
__device__ __forceinline__ void add_rows(const Operands<T> &o, int64_t id, int64_t place, int step, int64_t column,
                                         float (&sum)[VEC<T>]) {
#pragma unroll 1
  for (bool more = true; more; place += AHEAD * step) {
    Key keys[AHEAD];
#pragma unroll
    for (int a = 0; a < AHEAD; ++a) keys[a] = o.sorted[min(place + a * step, o.n - 1)];
    bool exists[AHEAD];
    Vector<T> rows[AHEAD];
#pragma unroll
    for (int a = 0; a < AHEAD; ++a) {
      exists[a] = place + a * step < o.n && id_of(keys[a]) == id;
      rows[a] = packed_at<WHOLE>(o.dy + (exists[a] ? token_of(keys[a]) * o.stride_dy : 0) + column, o.c - column);
    }
#pragma unroll
    for (int a = 0; a < AHEAD; ++a)
#pragma unroll
      for (int j = 0; j < VEC<T>; ++j) sum[j] += exists[a] ? to_float(rows[a].element[j]) : 0.0f;
    more = exists[AHEAD - 1];
  }
}

template <class T>
__device__ __forceinline__ void store_row(const Operands<T> &o, int64_t id, int64_t column,
                                          const float (&sum)[VEC<T>]) {
  float *const to = o.dtable + id * o.stride_dtable + column;
#pragma unroll
  for (int first = 0; first < VEC<T>; first += VEC<float>) {
    float part[VEC<float>];
#pragma unroll
    for (int j = 0; j < VEC<float>; ++j) part[j] = sum[first + j];
    store_upto(to + first, o.c - column - first, o.is_aligned, part);
  }
}

template <class T> __global__ void __launch_bounds__(THREADS, SUM_BLOCKS) sum_tokens(const Operands<T> o) {
  __shared__ float scratch[WARPS][WARP * VEC<T>];
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
  for (int64_t first = static_cast<int64_t>(blockIdx.x) * PLACES; first < o.n;
       first += static_cast<int64_t>(gridDim.x) * PLACES) {
    for (int64_t column = (static_cast<int64_t>(blockIdx.y) * WARP + lane) * VEC<T>; column - lane * VEC<T> < o.c;
         column += static_cast<int64_t>(gridDim.y) * WARP * VEC<T>) {
      for (int pass = 0; pass < 2; ++pass) {  // ids of a warp, then ids of the block
        const bool is_long_pass = pass == 1;
        for (int i = is_long_pass ? 0 : warp; i < PLACES; i += is_long_pass ? 1 : WARPS) {
          const int64_t place = first + i, id = id_of(o.at(place));
          const bool begins = place < o.n && id < o.v && (place == 0 || id_of(o.at(place - 1)) != id);
          if (!begins || (id_of(o.at(place + LONG)) == id) != is_long_pass) continue;
          float sum[VEC<T>] = {};
          const int64_t from = place + (is_long_pass ? warp : 0);
          const int step = is_long_pass ? WARPS : 1;
          if (o.is_aligned && column + VEC<T> <= o.c) add_rows<true>(o, id, from, step, column, sum);
          else add_rows<false>(o, id, from, step, column, sum);
          if (is_long_pass) {
#pragma unroll
            for (int j = 0; j < VEC<T>; ++j) scratch[warp][j * WARP + lane] = sum[j];
            __syncthreads();
            if (warp == 0) {
#pragma unroll
              for (int j = 0; j < VEC<T>; ++j) {
                sum[j] = scratch[0][j * WARP + lane];
#pragma unroll
                for (int w = 1; w < WARPS; ++w) sum[j] += scratch[w][j * WARP + lane];
              }
            }
            __syncthreads();
            if (warp > 0) continue;
          }
          store_row(o, id, column, sum);
        }
      }
    }
  }
}

unsigned blocks_of(int64_t n, int64_t per_block) {
  return static_cast<unsigned>(min(ceil_divide(n, per_block), MAX_BLOCKS));
}

template <class T>
int launch_sum_tokens(void *stream, const gt_tensor &dtable, const gt_tensor &dy, const Key *sorted) {
  Operands<T> o = {static_cast<float *>(dtable.data), static_cast<const T *>(dy.data), dtable.stride[0], dy.stride[0],
                   dy.shape[0], dtable.shape[0], dtable.shape[1], sorted, false};
  o.is_aligned = rows_are_aligned(o.dtable, o.stride_dtable) && rows_are_aligned(o.dy, o.stride_dy);
  const int64_t pieces = ceil_divide(o.c, WARP * VEC<T>);
  const dim3 grid(blocks_of(o.n, PLACES), static_cast<unsigned>(min(pieces, MAX_PIECE_STEPS)));
  return launch(sum_tokens<T>, grid, THREADS, 0, stream, o);
}

int launch_zero_rows(void *stream, const gt_tensor &dtable) {
  const int64_t v = dtable.shape[0], c = dtable.shape[1], stride = dtable.stride[0];
  float *const data = static_cast<float *>(dtable.data);
  int threads_per_row = 1;
  while (threads_per_row < THREADS && int64_t{threads_per_row} * VEC<float> < c) threads_per_row *= 2;
  return launch(zero_rows, blocks_of(v, THREADS / threads_per_row), THREADS, 0, stream, data, stride, v, c,
                threads_per_row, rows_are_aligned(data, stride));
}

}  // namespace

gt_status embedding_backward_cuda(const gt_stream *stream, const gt_tensor *dtable, const gt_tensor *dy,
                                  const gt_tensor *ids, const gt_tensor *workspace) {
  if (elements(*dtable) == 0) return GT_OK;
  const int64_t n = ids->shape[0], v = dtable->shape[0];
  int error = launch_zero_rows(stream->handle, *dtable);
  if (n > 0) {
    Key *const chunked = static_cast<Key *>(workspace->data), *const sorted = chunked + n;
    if (!error)
      error = launch(sort_chunks, blocks_of(n, CHUNK), THREADS, 0, stream->handle, chunked, ids->data,
                     ids->dtype == GT_I64, n, v);
    if (!error) error = launch(merge_chunks, blocks_of(n, WARPS), THREADS, 0, stream->handle, sorted, chunked, n);
    const auto run = [&](auto launch_of_dtype) { return launch_of_dtype(stream->handle, *dtable, *dy, sorted); };
    if (!error) {
      switch (dy->dtype) {
        case GT_F32: error = run(launch_sum_tokens<float>); break;
        case GT_BF16: error = run(launch_sum_tokens<bf16>); break;
        default: error = run(launch_sum_tokens<f16>);
      }
    }
  }
  return status_of("embedding_backward", error);
}

gt_status embedding_backward_workspace_cuda(const gt_stream *, const gt_tensor *, const gt_tensor *ids,
                                            int64_t *bytes) {
  *bytes = 2 * static_cast<int64_t>(sizeof(Key)) * ids->shape[0];
  return GT_OK;
}

}  // namespace gt
