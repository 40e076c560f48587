// The nearest code of a codebook on CUDA.
//
// Computes    ids[n] = argmin_k sum_c (x[n,c] - codebook[k,c])^2, the lowest k among equals, -1 for a row with a NaN
// Shapes      x [N, C], codebook [K, C], C contiguous, any row stride; ids [N]
// Types       f32, bf16, f16 in; distances f32; ids i32
// Mapping     a block owns ROWS rows of x; its threads share the codes, each compares its own with all rows. The
//             threads' nearest are then compared through shared memory, ties to the lower code
// Memory      x once, the codebook once per block (from L2); a lane reads its own code row, neighbours lie C elements
//             apart, and a line is used up over the following channels. Shared: 8 KB of x, 16 KB of candidates
// Numerics    a distance is one chain of fused multiply-adds in ascending c. A code with a NaN is never nearest. N = 0
//             launches nothing
// Limits      K below 2^31, any C; sm_80 and later; nothing is UNSUPPORTED
// Source      van den Oord, Vinyals & Kavukcuoglu 2017 (arXiv 1711.00937). Not yet measured on a GPU: bound by
//             arithmetic
#include "lib/cuda.h"

#include "check.h"
#include "gatun/quantise.h"
#include "lib/entry.h"
#include "lib/reduce.h"
#include "lib/vec.h"

namespace gt {

decltype(gt_nearest_code) nearest_code_cuda;

namespace {

constexpr int THREADS = 256;
constexpr int ROWS = 8;                // of a block: distances a lane has in registers
constexpr int CHANNELS = 256;          // of the rows, in shared memory at once
constexpr int64_t MAX_BLOCKS = 65535;

template <class T> struct Operands {
  int32_t *ids;
  const T *x, *codebook;
  int64_t stride_x, stride_codebook, n, k, c;
};

template <class T> __global__ void __launch_bounds__(THREADS) nearest_code_per_row(const Operands<T> o) {
  __shared__ float rows[CHANNELS][ROWS];
  __shared__ float nearest[ROWS][THREADS];
  __shared__ int32_t codes[ROWS][THREADS];
  __shared__ int has_nan[ROWS];
  const int64_t step = static_cast<int64_t>(gridDim.x) * ROWS;
  for (int64_t row = static_cast<int64_t>(blockIdx.x) * ROWS; row < o.n; row += step) {
    float best[ROWS];
    int32_t code[ROWS];
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
      best[r] = INFINITY;
      code[r] = 0;
    }
    if (threadIdx.x < ROWS) has_nan[threadIdx.x] = 0;
    for (int64_t first = 0; first < o.k; first += THREADS) {
      const int64_t k = first + threadIdx.x;
      float distance[ROWS] = {};
      for (int64_t c = 0; c < o.c; c += CHANNELS) {
        const int channels = static_cast<int>(min(o.c - c, int64_t{CHANNELS}));
        if (first == 0 || o.c > CHANNELS) {
          __syncthreads();
          for (int i = threadIdx.x; i < channels * ROWS; i += THREADS) {
            const int r = i / channels, at = i % channels;
            const float v = row + r < o.n ? to_float(o.x[(row + r) * o.stride_x + c + at]) : 0.0f;
            rows[at][r] = v;
            if (first == 0 && v != v) atomicOr(&has_nan[r], 1);
          }
          __syncthreads();
        }
        if (k >= o.k) continue;
        const T *const codes_row = o.codebook + k * o.stride_codebook + c;
        for (int i = 0; i < channels; ++i) {
          const float value = to_float(codes_row[i]);
#pragma unroll
          for (int r = 0; r < ROWS; ++r) {
            const float d = rows[i][r] - value;
            distance[r] = fmaf(d, d, distance[r]);
          }
        }
      }
      if (k < o.k)
#pragma unroll
        for (int r = 0; r < ROWS; ++r)
          if (distance[r] < best[r]) {
            best[r] = distance[r];
            code[r] = static_cast<int32_t>(k);
          }
    }
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
      nearest[r][threadIdx.x] = best[r];
      codes[r][threadIdx.x] = code[r];
    }
    __syncthreads();
    // a warp for each row
    const int r = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    float least = nearest[r][lane];
    int32_t chosen = codes[r][lane];
    const auto offer = [&](float d, int32_t k) {
      if (d < least || (d == least && k < chosen)) {
        least = d;
        chosen = k;
      }
    };
    for (int i = lane + WARP; i < THREADS; i += WARP) offer(nearest[r][i], codes[r][i]);
#pragma unroll
    for (int distance = WARP / 2; distance > 0; distance /= 2) {
      const float d = __shfl_xor_sync(ALL_LANES, least, distance);
      const int32_t k = __shfl_xor_sync(ALL_LANES, chosen, distance);
      offer(d, k);
    }
    if (lane == 0 && row + r < o.n) o.ids[row + r] = has_nan[r] ? -1 : chosen;
    __syncthreads();
  }
}

static_assert(ROWS * WARP == THREADS, "a warp for each row");

template <class T>
int launch_nearest(const gt_stream *stream, int32_t *ids, const gt_tensor &x, const gt_tensor &codebook) {
  const Operands<T> o = {ids, static_cast<const T *>(x.data), static_cast<const T *>(codebook.data), x.stride[0],
                         codebook.stride[0], x.shape[0], codebook.shape[0], x.shape[1]};
  return launch(nearest_code_per_row<T>, static_cast<unsigned>(min((o.n + ROWS - 1) / ROWS, MAX_BLOCKS)), THREADS, 0,
                stream->handle, o);
}

}  // namespace

gt_status nearest_code_cuda(const gt_stream *stream, const gt_tensor *ids, const gt_tensor *x,
                            const gt_tensor *codebook) {
  int32_t *const to = static_cast<int32_t *>(ids->data);
  int error;
  switch (x->dtype) {
    case GT_F32: error = launch_nearest<float>(stream, to, *x, *codebook); break;
    case GT_BF16: error = launch_nearest<bf16>(stream, to, *x, *codebook); break;
    default: error = launch_nearest<f16>(stream, to, *x, *codebook);
  }
  return status_of("nearest_code", error);
}

}  // namespace gt
