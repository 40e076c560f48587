// Sums over rows and over everything on CUDA.
//
// Computes    sum_rows: y[b,c] = sum_s a[b,s,c] b[b,s,c]; sum: factor * sum(x)
// Shapes      a, b [B, S, C], y [B, C], C contiguous; b may be NULL. sum: x contiguous. workspace: the chunks' sums
// Types       a, b f32, bf16, f16; y f32 or a's; sums in f32, sum's in f64
// Mapping     sum_rows: a block owns a chunk of rows (reduce_rows.h) of 32 vectors of columns, a warp every eighth row
//             of it; where there are several chunks a second launch adds them up, a thread per column. sum:
//             lib/chunked_sum.h
// Memory      a and b once; chunks' sums once written and read. Shared: 4 or 8 KB
// Numerics    a column's order of addition depends on S alone: rows of a warp, warps, chunks
// Limits      16-byte accesses where every row starts at a multiple of 16 bytes, else element by element; C up to 2^31
//             vectors; sm_80 and later; nothing is UNSUPPORTED
// Source      none. Not yet measured on a GPU: bound by memory
#include "lib/cuda.h"

#include <type_traits>

#include "check.h"
#include "gatun/reduce.h"
#include "lib/chunked_sum.h"
#include "lib/entry.h"
#include "lib/vec.h"
#include "reduce_rows.h"

namespace gt {

decltype(gt_sum_rows) sum_rows_cuda;
decltype(gt_sum) sum_cuda;

namespace {

constexpr int WARPS = 8, THREADS = WARPS * WARP;
constexpr int ROWS = 4;              // of a thread in flight
constexpr int BLOCKS = 3;            // of an SM at least: for more, ptxas would move loads to their uses
constexpr int JOINED = 16;           // chunks of a thread in flight
constexpr int64_t MAX_GRID = 65535;  // grid.y and grid.z

template <class T> struct Operands {
  const T *a, *b;  // b may be NULL
  int64_t image_a, row_a, image_b, row_b;  // strides
  bool aligned;
};

struct Sizes {
  int64_t b, s, c;
  RowChunks chunks;
};

// Y: float and partial [B, chunks, C] where there are several chunks (stride C), else the result.
template <class Y, class T>
__global__ void __launch_bounds__(THREADS, BLOCKS)
    sum_chunk_of_rows(Y *y, int64_t stride_y, const Operands<T> x, const Sizes sizes) {
  constexpr int N = VEC<T>;
  __shared__ float sums[WARPS][WARP * N];
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
  const int64_t tile = static_cast<int64_t>(blockIdx.x) * WARP * N, column = tile + lane * N, left = sizes.c - column;
  const int64_t from = blockIdx.y * sizes.chunks.rows, to = min(from + sizes.chunks.rows, sizes.s);
  for (int64_t image = blockIdx.z; image < sizes.b; image += gridDim.z) {
    const T *const a = x.a + image * x.image_a + column;
    const T *const b = x.b ? x.b + image * x.image_b + column : nullptr;
    float sum[N] = {};
    const auto add = [&](int64_t row, auto whole, auto times_b, auto count) {
      constexpr bool WHOLE = decltype(whole)::value, TIMES_B = decltype(times_b)::value;
      constexpr int COUNT = decltype(count)::value;  // rows, without a branch: their loads are in flight together
      Vector<T> of_a[COUNT], of_b[COUNT];
#pragma unroll
      for (int k = 0; k < COUNT; ++k) {
        of_a[k] = packed_at<WHOLE>(a + (row + k * WARPS) * x.row_a, left);
        if constexpr (TIMES_B) of_b[k] = packed_at<WHOLE>(b + (row + k * WARPS) * x.row_b, left);
      }
#pragma unroll
      for (int k = 0; k < COUNT; ++k)
#pragma unroll
        for (int i = 0; i < N; ++i) {
          float value = to_float(of_a[k].element[i]);
          if constexpr (TIMES_B) value = __fmul_rn(value, to_float(of_b[k].element[i]));
          sum[i] += value;
        }
    };
    const auto add_all = [&](auto times_b) {
      constexpr std::integral_constant<int, 1> ONE = {};
      int64_t row = from + warp;
      if (x.aligned && left >= N) {
        for (; row + (ROWS - 1) * WARPS < to; row += ROWS * WARPS)
          add(row, std::true_type(), times_b, std::integral_constant<int, ROWS>());
#pragma unroll 1
        for (; row < to; row += WARPS) add(row, std::true_type(), times_b, ONE);
      } else {
#pragma unroll 1
        for (; row < to; row += WARPS) add(row, std::false_type(), times_b, ONE);
      }
    };
    if (b) add_all(std::true_type());
    else add_all(std::false_type());
#pragma unroll
    for (int i = 0; i < N; ++i) sums[warp][i * WARP + lane] = sum[i];
    __syncthreads();
    Y *const row_y = y + (image * gridDim.y + blockIdx.y) * stride_y + tile;
    for (int i = threadIdx.x; i < WARP * N && tile + i < sizes.c; i += THREADS) {
      float total = 0.0f;
#pragma unroll
      for (int w = 0; w < WARPS; ++w) total += sums[w][i % N * WARP + i / N];
      row_y[i] = from_float<Y>(total);
    }
    __syncthreads();
  }
}

template <class Y>
__global__ void __launch_bounds__(THREADS)
    join_chunks_of_rows(Y *y, int64_t stride_y, const float *partial, const Sizes sizes) {
  const int64_t column = static_cast<int64_t>(blockIdx.x) * THREADS + threadIdx.x;
  if (column >= sizes.c) return;
  for (int64_t image = blockIdx.y; image < sizes.b; image += gridDim.y) {
    const float *const sums = partial + image * sizes.chunks.count * sizes.c + column;
    float total = 0.0f;
#pragma unroll JOINED
    for (int64_t i = 0; i < sizes.chunks.count; ++i) total += sums[i * sizes.c];
    y[image * stride_y + column] = from_float<Y>(total);
  }
}

template <class T> struct Element {
  const T *x;
  __device__ double operator()(int64_t i) const { return static_cast<double>(to_float(x[i])); }
};
struct WriteSum {
  float *y, factor;
  __device__ void operator()(double sum) const { *y = static_cast<float>(static_cast<double>(factor) * sum); }
};

unsigned blocks_for(int64_t n, int64_t each) { return static_cast<unsigned>((n + each - 1) / each); }

template <class Y, class T>
int launch_chunks(void *stream, Y *y, int64_t stride_y, const Operands<T> &x, const Sizes &sizes) {
  const dim3 grid(blocks_for(sizes.c, WARP * VEC<T>), static_cast<unsigned>(sizes.chunks.count),
                  static_cast<unsigned>(min(sizes.b, MAX_GRID)));
  return launch(sum_chunk_of_rows<Y, T>, grid, THREADS, 0, stream, y, stride_y, x, sizes);
}

template <class T> Operands<T> operands_of(const gt_tensor &a, const gt_tensor *b) {
  const T *const pa = static_cast<const T *>(a.data), *const pb = b ? static_cast<const T *>(b->data) : nullptr;
  const auto aligned = [](const T *p, const gt_tensor &t) {
    return rows_are_aligned(p, t.stride[1]) && rows_are_aligned(p, t.stride[0]);
  };
  return {pa, pb, a.stride[0], a.stride[1], b ? b->stride[0] : 0, b ? b->stride[1] : 0,
          aligned(pa, a) && (!b || aligned(pb, *b))};
}

}  // namespace

gt_status sum_rows_cuda(const gt_stream *stream, const gt_tensor *y, const gt_tensor *a, const gt_tensor *b,
                        const gt_tensor *workspace) {
  const Sizes sizes = {a->shape[0], a->shape[1], a->shape[2], row_chunks_of(a->shape[1])};
  float *const partial = sizes.chunks.count > 1 ? static_cast<float *>(workspace->data) : nullptr;
  return status_of("sum_rows", with_float(a->dtype, [&](auto from) {
    using T = decltype(from);
    const Operands<T> x = operands_of<T>(*a, b);
    const int error = partial ? launch_chunks(stream->handle, partial, sizes.c, x, sizes) : 0;
    if (error) return error;
    const auto finish = [&](auto *out) {
      using Y = std::remove_pointer_t<decltype(out)>;
      if (!partial) return launch_chunks(stream->handle, out, y->stride[0], x, sizes);
      const dim3 grid(blocks_for(sizes.c, THREADS), static_cast<unsigned>(min(sizes.b, MAX_GRID)));
      return launch(join_chunks_of_rows<Y>, grid, THREADS, 0, stream->handle, out, y->stride[0],
                    static_cast<const float *>(partial), sizes);
    };
    return y->dtype == GT_F32 ? finish(static_cast<float *>(y->data)) : finish(static_cast<T *>(y->data));
  }));
}

gt_status sum_cuda(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x, float factor,
                   const gt_tensor *workspace) {
  return status_of("sum", with_float(x->dtype, [&](auto zero) {
    using T = decltype(zero);
    return launch_sum(stream->handle, chunks_of(elements(*x)), workspace ? workspace->data : nullptr,
                      Element<T>{static_cast<const T *>(x->data)}, WriteSum{static_cast<float *>(y->data), factor});
  }));
}

}  // namespace gt
