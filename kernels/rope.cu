// Rotary position embedding on CUDA.
//
// Computes    rope_table: table[p, 0, i] = cos(a) f, table[p, 1, i] = sin(a) f, a = (first_position + p) inv_freq[i],
//             f = attention_factor. rope: y = (a cos - b sin, b cos + a sin) for each pair (a, b) of the first R
//             elements, (x[i], x[i + R/2]) or (x[2i], x[2i + 1]); the elements from R on are copied. rope_backward: the
//             same with -sin, dx for y and dy for x
// Shapes      y, x [N, H, D], D contiguous, any other strides; contiguous: table [M, 2, R/2], inv_freq [R/2],
//             positions [N]. y may be x: a thread writes only elements that it has read
// Types       y, x f32, bf16, f16; table f32; positions i32. Arithmetic in f32, rounded once. The position is rounded
//             to f32, then the angle, as transformers does
// Mapping     rope: grid x is n, a power of two of threads owns a head: a 16-byte vector each from either half (or one
//             of adjacent pairs); a block owns as many heads as fill 256 threads, grid y steps through them.
//             rope_table: a power of two of threads per position
// Memory      one read of x, one write of y. The table's row of n comes from L1 for all heads of a block but the first
// Numerics    sin and cos in full precision for any angle. An element depends on its own inputs alone: sums of products
//             are written as fused operations, so that both paths round alike. Negative position: x as it is (the bits
//             of a NaN aside); a position beyond the table: NaN
// Limits      16-byte accesses where every head of x and y starts at a multiple of 16 bytes, the table as well, and R/2
//             (adjacent pairs: R) fills whole vectors; else pair by pair. sm_80 and later; nothing is UNSUPPORTED
// Source      Su et al. 2021 (arXiv 2104.09864). Not yet measured on a GPU: bound by memory
#include "lib/cuda.h"

#include "check.h"
#include "gatun/rope.h"
#include "lib/entry.h"
#include "lib/vec.h"
#include "rope_pair.h"

namespace gt {

decltype(gt_rope_table) rope_table_cuda;
decltype(gt_rope) rope_cuda;
decltype(gt_rope_backward) rope_backward_cuda;

namespace {

constexpr int THREADS = 256;
constexpr int64_t MAX_BLOCKS = 16384;      // of grid.x, which steps through tokens or positions
constexpr int64_t MAX_HEAD_STEPS = 65535;  // grid.y

struct Angles {
  float *table;  // [M, 2, half]
  const float *inv_freq;
  int64_t num_positions, half, first_position;
  float attention_factor;
};

__global__ void __launch_bounds__(THREADS) rope_table_rows(const Angles o, int threads_per_row) {
  const int rows_per_block = blockDim.x / threads_per_row;
  for (int64_t p = static_cast<int64_t>(blockIdx.x) * rows_per_block + threadIdx.x / threads_per_row;
       p < o.num_positions; p += static_cast<int64_t>(gridDim.x) * rows_per_block) {
    float *const cosines = o.table + p * 2 * o.half;
    for (int64_t i = threadIdx.x % threads_per_row; i < o.half; i += threads_per_row) {
      float sine, cosine;
      sincosf(__fmul_rn(static_cast<float>(o.first_position + p), o.inv_freq[i]), &sine, &cosine);
      cosines[i] = cosine * o.attention_factor;
      cosines[o.half + i] = sine * o.attention_factor;
    }
  }
}

template <class T> struct Operands {
  T *y;
  const T *x;
  int64_t y_token, y_head, x_token, x_head;  // strides
  int64_t num_tokens, num_heads, d;
  const int32_t *positions;
  const float *table;
  int64_t num_positions, half;
  gt_rope_pairing pairing;
  bool is_aligned;
};

// The pairs of one head by `threads` threads, of which this is number `me`.
template <Turn TURN, class T>
__device__ __forceinline__ void rotate_head(const Operands<T> &o, T *y, const T *x, const float *cosines, int me,
                                            int threads) {
  const float *const sines = cosines + o.half;
  const bool has_halves = o.pairing == GT_ROPE_HALF;
  if (!o.is_aligned) {
    for (int64_t i = me; i < o.half; i += threads) {
      const int64_t first = has_halves ? i : 2 * i, second = has_halves ? i + o.half : 2 * i + 1;
      float a = to_float(x[first]), b = to_float(x[second]);
      rotate<TURN>(a, b, cosines[i], sines[i]);
      y[first] = from_float<T>(a);
      y[second] = from_float<T>(b);
    }
  } else if (has_halves) {
    for (int64_t i = me * VEC<T>; i < o.half; i += threads * VEC<T>) {
      float a[VEC<T>], b[VEC<T>];
      load_vec(x + i, a);
      load_vec(x + o.half + i, b);
      const auto cosine = *reinterpret_cast<const Pack<float, VEC<T>> *>(cosines + i);
      const auto sine = *reinterpret_cast<const Pack<float, VEC<T>> *>(sines + i);
#pragma unroll
      for (int j = 0; j < VEC<T>; ++j) rotate<TURN>(a[j], b[j], cosine.element[j], sine.element[j]);
      store_vec(y + i, a);
      store_vec(y + o.half + i, b);
    }
  } else {
    constexpr int PAIRS = VEC<T> / 2;
    for (int64_t i = me * PAIRS; i < o.half; i += threads * PAIRS) {
      float v[VEC<T>];
      load_vec(x + 2 * i, v);
      const auto cosine = *reinterpret_cast<const Pack<float, PAIRS> *>(cosines + i);
      const auto sine = *reinterpret_cast<const Pack<float, PAIRS> *>(sines + i);
#pragma unroll
      for (int j = 0; j < PAIRS; ++j)
        rotate<TURN>(v[2 * j], v[2 * j + 1], cosine.element[j], sine.element[j]);
      store_vec(y + 2 * i, v);
    }
  }
}

template <Turn TURN, class T>
__global__ void __launch_bounds__(THREADS) rope_heads(const Operands<T> o, int threads_per_head) {
  const int me = threadIdx.x % threads_per_head, heads_per_block = blockDim.x / threads_per_head;
  for (int64_t n = blockIdx.x; n < o.num_tokens; n += gridDim.x) {
    const int64_t position = o.positions[n];
    const bool is_rotated = position >= 0 && position < o.num_positions, is_bad = position >= o.num_positions;
    for (int64_t h = static_cast<int64_t>(blockIdx.y) * heads_per_block + threadIdx.x / threads_per_head;
         h < o.num_heads; h += static_cast<int64_t>(gridDim.y) * heads_per_block) {
      T *const y = o.y + n * o.y_token + h * o.y_head;
      const T *const x = o.x + n * o.x_token + h * o.x_head;
      if (is_rotated) rotate_head<TURN>(o, y, x, o.table + position * 2 * o.half, me, threads_per_head);
      if (y == x && !is_bad) continue;
      for (int64_t i = (is_rotated ? 2 * o.half : 0) + me * VEC<T>; i < o.d; i += threads_per_head * VEC<T>) {
        float v[VEC<T>];
        load_upto(x + i, is_bad ? 0 : o.d - i, o.is_aligned, NAN, v);
        store_upto(y + i, o.d - i, o.is_aligned, v);
      }
    }
  }
}

// The power of two that is at least n, 1 .. most.
int power_of_two(int64_t n, int most) {
  int power = 1;
  while (power < n && power < most) power *= 2;
  return power;
}

// A dimension of one index has no stride that matters.
int64_t stride_of(const gt_tensor &t, int dimension) { return t.shape[dimension] > 1 ? t.stride[dimension] : 0; }

template <class T>
int launch_rope(void *stream, const gt_tensor &y, const gt_tensor &x, const gt_tensor &positions,
                const gt_tensor &table, gt_rope_pairing pairing, Turn turn) {
  Operands<T> o = {static_cast<T *>(y.data), static_cast<const T *>(x.data),
                   stride_of(y, 0), stride_of(y, 1), stride_of(x, 0), stride_of(x, 1),
                   x.shape[0], x.shape[1], x.shape[2], static_cast<const int32_t *>(positions.data),
                   static_cast<const float *>(table.data), table.shape[0], table.shape[2], pairing, false};
  const int pairs = pairing == GT_ROPE_HALF ? VEC<T> : VEC<T> / 2;  // that a thread takes at once
  o.is_aligned = rows_are_aligned(o.y, o.y_token) && rows_are_aligned(o.y, o.y_head) &&
                 rows_are_aligned(o.x, o.x_token) && rows_are_aligned(o.x, o.x_head) && is_aligned(o.table) &&
                 o.half % pairs == 0;
  const int threads_per_head = power_of_two(o.is_aligned ? o.half / pairs : o.half, THREADS);
  const int heads_per_block = power_of_two(o.num_heads, THREADS / threads_per_head);
  const dim3 grid(static_cast<unsigned>(min(o.num_tokens, MAX_BLOCKS)),
                  static_cast<unsigned>(min(ceil_divide(o.num_heads, heads_per_block), MAX_HEAD_STEPS)));
  const auto kernel = turn == Turn::FORTH ? rope_heads<Turn::FORTH, T> : rope_heads<Turn::BACK, T>;
  return launch(kernel, grid, threads_per_head * heads_per_block, 0, stream, o, threads_per_head);
}

gt_status run_rope(const char *op, const gt_stream *stream, const gt_tensor &y, const gt_tensor &x,
                   const gt_tensor &positions, const gt_tensor &table, gt_rope_pairing pairing, Turn turn) {
  if (elements(x) == 0) return GT_OK;
  const auto run = [&](auto launch_of_dtype) {
    return status_of(op, launch_of_dtype(stream->handle, y, x, positions, table, pairing, turn));
  };
  switch (x.dtype) {
    case GT_F32: return run(launch_rope<float>);
    case GT_BF16: return run(launch_rope<bf16>);
    default: return run(launch_rope<f16>);
  }
}

}  // namespace

gt_status rope_table_cuda(const gt_stream *stream, const gt_tensor *table, const gt_tensor *inv_freq,
                          int64_t first_position, float attention_factor) {
  if (elements(*table) == 0) return GT_OK;
  const Angles o = {static_cast<float *>(table->data), static_cast<const float *>(inv_freq->data), table->shape[0],
                    table->shape[2], first_position, attention_factor};
  const int threads_per_row = power_of_two(o.half, THREADS);
  const int rows_per_block = power_of_two(o.num_positions, THREADS / threads_per_row);
  const int64_t blocks = min(ceil_divide(o.num_positions, rows_per_block), MAX_BLOCKS);
  return status_of("rope_table", launch(rope_table_rows, static_cast<unsigned>(blocks),
                                        threads_per_row * rows_per_block, 0, stream->handle, o, threads_per_row));
}

gt_status rope_cuda(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x, const gt_tensor *positions,
                    const gt_tensor *table, gt_rope_pairing pairing) {
  return run_rope("rope", stream, *y, *x, *positions, *table, pairing, Turn::FORTH);
}

gt_status rope_backward_cuda(const gt_stream *stream, const gt_tensor *dx, const gt_tensor *dy,
                             const gt_tensor *positions, const gt_tensor *table, gt_rope_pairing pairing) {
  return run_rope("rope_backward", stream, *dx, *dy, *positions, *table, pairing, Turn::BACK);
}

}  // namespace gt
