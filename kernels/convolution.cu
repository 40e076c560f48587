// Computes    gatun/convolution.h, both ops, as implicit matrix products [pixels, taps x channels] [taps x channels, F]
// Shapes      y [B, H', W', F], x [B, H, W, C], weight [F, kh, kw, C/G] (transposed [C, kh, kw, F/G]): any strides.
//             bias [F] contiguous or NULL. y aliases nothing
// Types       x, weight, y f32|bf16|f16 of one dtype; bias that or f32. f32: fused multiply-adds; bf16, f16: tensor
//             cores. Sums, bias and activation in f32; y is rounded once
// Mapping     a block has a tile of 64 pixels of any images by 64 outputs of one group, neighbours the same pixels, so
//             that patches meet in L2; 4 warps of 32 x 32 (f32: threads of 4 x 8). A stage of 64 bytes of terms per
//             pixel and output is multiplied while three more are on their way. A transposed convolution with stride s
//             is s x s products (convolution_axis.h), which are further tiles of the same launch
// Memory      x: F / 64 times, mostly from L2; weight once per 64 pixels, from L2; y once. No buffer of patches. Shared
//             32 KiB, in 16-byte chunks permuted so that 8 rows meet 8 bank groups
// Numerics    terms in ascending (tap row, tap column, channel), in steps of 16 on the tensor core (f32: one chain);
//             what lies outside of x counts as 0. The steps do not depend on tile, alignment or strides: bits do not
//             depend on the other pixels
// Limits      16-byte asynchronous copies of x where channels are contiguous, C/G is a multiple of 16 bytes and every
//             pixel is aligned, of weight likewise; else element by element, before the next barrier. Fewer than 2^31
//             tiles; sm_80 and later
// Source      implicit GEMM as in Chetlur et al. 2014 (arXiv 1410.0759). Not yet measured on a GPU; wgmma and larger
//             tiles would do more: cuDNN is the fast path
#include "lib/cuda.h"

#include <type_traits>

#include "check.h"
#include "convolution_axis.h"
#include "convolution_tile.h"
#include "gatun/convolution.h"
#include "lib/activation.h"
#include "lib/async_copy.h"
#include "lib/entry.h"
#include "lib/mma.h"
#include "lib/reduce.h"
#include "lib/vec.h"

namespace gt {

decltype(gt_conv2d) conv2d_cuda;
decltype(gt_conv_transpose2d) conv_transpose2d_cuda;

namespace {

constexpr int TILE = 64;     // pixels, and outputs, of a block
constexpr int STAGES = 4;    // 8 KiB each
constexpr int CHUNKS = 4;    // of 16 bytes per row and stage
constexpr int THREADS = 128;
constexpr int ROWS_PER_THREAD = TILE * CHUNKS / THREADS;  // chunks of a tile's stage that a thread brings

struct Side {  // H or W
  int64_t outs, ins, taps, stride, pad, dilation;
};

template <class T> struct Problem {
  T *y;
  const T *x, *weight;
  const void *bias;  // NULL: 0
  int64_t stride_y[4], stride_x[4];
  int64_t w_group, w_f, w_u, w_v, w_c;  // in elements: of a group, and in it of an output, tap row, tap column, channel
  Side rows, columns;
  int64_t images, inputs, outputs, groups;  // inputs, outputs: channels of a group
  gt_activation activation;
  bool is_transposed, bias_is_f32, x_is_aligned, w_is_aligned;
};

template <class T> __device__ __forceinline__ ConvolutionAxis axis(const Problem<T> &p, const Side &s, int64_t phase) {
  return p.is_transposed ? transposed_axis(phase, s.outs, s.ins, s.taps, s.stride, s.pad, s.dilation)
                         : convolution_axis(s.outs, s.ins, s.taps, s.stride, s.pad, s.dilation);
}

// A term of the sum: tap (u, v) in the order of the axes, and channel. Beyond the last tap row there is none.
struct Term {
  int64_t u, v, c;

  __device__ __forceinline__ void advance(int64_t channels, int64_t inputs, int64_t taps) {
    for (c += channels; c >= inputs; c -= inputs)
      if (++v == taps) v = 0, ++u;
  }
};

struct Pixel {
  int64_t image, m, n;  // image -1: none
};
__device__ __forceinline__ Pixel pixel_at(int64_t i, int64_t images, const ConvolutionAxis &rows,
                                          const ConvolutionAxis &columns) {
  const int64_t line = i / columns.outs, image = line / rows.outs;
  return {image < images ? image : -1, line % rows.outs, i % columns.outs};
}

template <class T> __device__ __forceinline__ Vector<T> *chunk_at(Vector<T> *tile, int row, int chunk) {
  return tile + row * CHUNKS + (chunk ^ (row / 2 & 3));
}
template <class T> __device__ __forceinline__ const Vector<T> *chunk_at(const Vector<T> *tile, int row, int chunk) {
  return tile + row * CHUNKS + (chunk ^ (row / 2 & 3));
}

// The terms of one chunk, of x for ROWS_PER_THREAD pixels and of weight for as many outputs: rows thread / 4 + 32 i.
template <class T> struct Loader {
  const Problem<T> &p;
  const ConvolutionAxis &rows, &columns;
  Term term;  // the first of this thread's chunk
  const T *image[ROWS_PER_THREAD], *weight[ROWS_PER_THREAD];  // NULL: no such pixel, no such output
  int64_t first_i[ROWS_PER_THREAD], first_j[ROWS_PER_THREAD];

  __device__ __forceinline__ const T *x_at(int row, const Term &t) const {
    const int64_t i = first_i[row] + t.u * rows.tap_in, j = first_j[row] + t.v * columns.tap_in;
    const bool inside = image[row] && t.u < rows.taps && i >= 0 && i < rows.ins && j >= 0 && j < columns.ins;
    return inside ? image[row] + i * p.stride_x[1] + j * p.stride_x[2] + t.c * p.stride_x[3] : nullptr;
  }
  __device__ __forceinline__ const T *weight_at(int row, const Term &t) const {
    const int64_t u = rows.first_tap + t.u * rows.tap_step, v = columns.first_tap + t.v * columns.tap_step;
    return weight[row] && t.u < rows.taps ? weight[row] + u * p.w_u + v * p.w_v + t.c * p.w_c : nullptr;
  }

  template <class At>
  __device__ __forceinline__ void bring(Vector<T> *tile, int row, bool aligned, const T *base, At at) const {
    Vector<T> *const to = chunk_at(tile, threadIdx.x / CHUNKS + row * (THREADS / CHUNKS), threadIdx.x % CHUNKS);
    if (aligned) {
      const T *const from = at(row, term);
      async_copy_16(to, from ? from : base, from ? VEC_BYTES : 0);
    } else {
      Vector<T> v;
      Term t = term;
#pragma unroll
      for (int e = 0; e < VEC<T>; ++e) {
        const T *const from = at(row, t);
        v.element[e] = from ? *from : from_float<T>(0.0f);
        t.advance(1, p.inputs, columns.taps);
      }
      *to = v;
    }
  }

  __device__ __forceinline__ void load(Vector<T> *x_tile, Vector<T> *w_tile) {
#pragma unroll
    for (int r = 0; r < ROWS_PER_THREAD; ++r) {
      bring(x_tile, r, p.x_is_aligned, p.x, [&](int row, const Term &t) { return x_at(row, t); });
      bring(w_tile, r, p.w_is_aligned, p.weight, [&](int row, const Term &t) { return weight_at(row, t); });
    }
    term.advance(CHUNKS * VEC<T>, p.inputs, columns.taps);
  }
};

// A thread's sums. f32: pixels thread / 8 + 16 i and outputs thread % 8 + 8 j. Else of a warp's 32 x 32, as lib/mma.h
// has them: 16 pixels i, 8 outputs j.
template <class T> struct Sums {
  static constexpr bool HAS_MMA = !std::is_same_v<T, float>;
  float d[HAS_MMA ? 2 : 4][HAS_MMA ? 4 : 8][HAS_MMA ? 4 : 1] = {};

  __device__ __forceinline__ void multiply(const Vector<T> *x_tile, const Vector<T> *w_tile) {
    if constexpr (HAS_MMA) {
      const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, first_x = warp / 2 * 32, first_w = warp % 2 * 32;
#pragma unroll
      for (int chunk = 0; chunk < CHUNKS; chunk += 2) {
        uint32_t a[2][4];
#pragma unroll
        for (int i = 0; i < 2; ++i)
          ldmatrix_x4(a[i], chunk_at(x_tile, first_x + i * 16 + lane % 16, chunk + lane / 16));
#pragma unroll
        for (int j = 0; j < 2; ++j) {
          uint32_t b[4];
          ldmatrix_x4(b, chunk_at(w_tile, first_w + j * 16 + lane % 8 + lane / 16 * 8, chunk + lane / 8 % 2));
#pragma unroll
          for (int i = 0; i < 2; ++i) {
            mma_m16n8k16<T>(d[i][2 * j], a[i], b[0], b[1]);
            mma_m16n8k16<T>(d[i][2 * j + 1], a[i], b[2], b[3]);
          }
        }
      }
    } else {
#pragma unroll
      for (int chunk = 0; chunk < CHUNKS; ++chunk) {
        Vector<float> a[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) a[i] = *chunk_at(x_tile, threadIdx.x / 8 + 16 * i, chunk);
#pragma unroll
        for (int j = 0; j < 8; ++j) {
          const Vector<float> b = *chunk_at(w_tile, threadIdx.x % 8 + 8 * j, chunk);
#pragma unroll
          for (int i = 0; i < 4; ++i)
#pragma unroll
            for (int e = 0; e < VEC<float>; ++e) d[i][j][0] = fmaf(a[i].element[e], b.element[e], d[i][j][0]);
        }
      }
    }
  }

  // put(pixel of the tile, output of the tile, sum)
  template <class Put> __device__ __forceinline__ void for_each(Put put) const {
    if constexpr (HAS_MMA) {
      for_each_of_tile(d, put);
    } else {
#pragma unroll
      for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int j = 0; j < 8; ++j) put(threadIdx.x / 8 + 16 * i, threadIdx.x % 8 + 8 * j, d[i][j][0]);
    }
  }
};

template <class T>
__global__ void __launch_bounds__(THREADS) convolution_tiles(const Problem<T> p, int pixel_tiles, int output_tiles) {
  __shared__ Vector<T> x_tiles[STAGES][TILE * CHUNKS];
  __shared__ Vector<T> w_tiles[STAGES][TILE * CHUNKS];
  const int64_t of_pixels = output_tiles * p.groups, of_phase = of_pixels * pixel_tiles;
  const int64_t phase = blockIdx.x / of_phase, group = blockIdx.x / output_tiles % p.groups;
  const ConvolutionAxis rows = axis(p, p.rows, phase / p.columns.stride);
  const ConvolutionAxis columns = axis(p, p.columns, phase % p.columns.stride);
  const int64_t first_pixel = blockIdx.x % of_phase / of_pixels * TILE;
  const int64_t first_output = int64_t{blockIdx.x % static_cast<unsigned>(output_tiles)} * TILE;
  if (rows.outs <= 0 || columns.outs <= 0 || first_pixel >= p.images * rows.outs * columns.outs) return;

  Loader<T> loader = {p, rows, columns, {0, 0, 0}, {}, {}, {}, {}};
  loader.term.advance(threadIdx.x % CHUNKS * VEC<T>, p.inputs, columns.taps);
#pragma unroll
  for (int r = 0; r < ROWS_PER_THREAD; ++r) {
    const int row = threadIdx.x / CHUNKS + r * (THREADS / CHUNKS);
    const Pixel pixel = pixel_at(first_pixel + row, p.images, rows, columns);
    loader.image[r] = pixel.image < 0 ? nullptr
                                      : p.x + pixel.image * p.stride_x[0] + group * p.inputs * p.stride_x[3];
    loader.first_i[r] = rows.first_in + pixel.m * rows.in_step;
    loader.first_j[r] = columns.first_in + pixel.n * columns.in_step;
    const int64_t output = first_output + row;
    loader.weight[r] = output < p.outputs ? p.weight + group * p.w_group + output * p.w_f : nullptr;
  }

  const int64_t steps = (rows.taps * columns.taps * p.inputs + CHUNKS * VEC<T> - 1) / (CHUNKS * VEC<T>);
#pragma unroll
  for (int s = 0; s < STAGES - 1; ++s) {
    if (s < steps) loader.load(x_tiles[s], w_tiles[s]);
    async_copy_commit();
  }
  Sums<T> sums;
#pragma unroll 1
  for (int64_t step = 0; step < steps; ++step) {
    async_copy_wait<STAGES - 2>();
    __syncthreads();  // the stage is there, and what it replaces next has been read
    const int next = static_cast<int>((step + STAGES - 1) % STAGES), now = static_cast<int>(step % STAGES);
    if (step + STAGES - 1 < steps) loader.load(x_tiles[next], w_tiles[next]);
    async_copy_commit();
    sums.multiply(x_tiles[now], w_tiles[now]);
  }
  async_copy_wait<0>();

  sums.for_each([&](int row, int column, float sum) {
    const Pixel pixel = pixel_at(first_pixel + row, p.images, rows, columns);
    const int64_t output = first_output + column, f = group * p.outputs + output;
    if (pixel.image < 0 || output >= p.outputs) return;
    if (p.bias)
      sum += p.bias_is_f32 ? static_cast<const float *>(p.bias)[f] : to_float(static_cast<const T *>(p.bias)[f]);
    p.y[pixel.image * p.stride_y[0] + (rows.first_out + pixel.m * rows.out_step) * p.stride_y[1] +
        (columns.first_out + pixel.n * columns.out_step) * p.stride_y[2] + f * p.stride_y[3]] =
        from_float<T>(activate(sum, p.activation));
  });
}

template <class T>
gt_status launch_tiles(const char *op, void *stream, Problem<T> p) {
  constexpr int64_t STEP = VEC<T>;
  p.x_is_aligned = p.stride_x[3] == 1 && p.inputs % STEP == 0 && is_aligned(p.x) && p.stride_x[0] % STEP == 0 &&
                   p.stride_x[1] % STEP == 0 && p.stride_x[2] % STEP == 0;
  p.w_is_aligned = p.w_c == 1 && p.inputs % STEP == 0 && is_aligned(p.weight) && p.w_group % STEP == 0 &&
                   p.w_f % STEP == 0 && p.w_u % STEP == 0 && p.w_v % STEP == 0;
  const int64_t phases_h = p.is_transposed ? p.rows.stride : 1, phases_w = p.is_transposed ? p.columns.stride : 1;
  const int64_t pixels = p.images * ceil_divide(p.rows.outs, phases_h) * ceil_divide(p.columns.outs, phases_w);
  const int64_t pixel_tiles = ceil_divide(pixels, TILE), output_tiles = ceil_divide(p.outputs, TILE);
  const double tiles = static_cast<double>(phases_h) * static_cast<double>(phases_w) *
                       static_cast<double>(pixel_tiles) * static_cast<double>(output_tiles * p.groups);
  if (tiles > INT32_MAX) return fail(GT_UNSUPPORTED, "%s: %.0f tiles, expected fewer than 2^31", op, tiles);
  const int64_t blocks = phases_h * phases_w * pixel_tiles * output_tiles * p.groups;
  const int status = launch(convolution_tiles<T>, dim3(static_cast<unsigned>(blocks)), dim3(THREADS), 0, stream, p,
                            static_cast<int>(pixel_tiles), static_cast<int>(output_tiles));
  return status_of(op, status);
}

template <class T>
gt_status run(const char *op, void *stream, const gt_tensor &y, const gt_tensor &x, const gt_tensor &weight,
              const gt_tensor *bias, const Side &rows, const Side &columns, int64_t groups, gt_activation activation,
              bool is_transposed) {
  const int64_t inputs = x.shape[3] / groups, outputs = y.shape[3] / groups, *w = weight.stride;
  const int64_t w_f = is_transposed ? w[3] : w[0], w_c = is_transposed ? w[0] : w[3];
  Side taken_rows = rows;
  if (inputs == 0) taken_rows.taps = 0;  // no terms: no taps of one channel
  const Problem<T> p = {static_cast<T *>(y.data),
                        static_cast<const T *>(x.data),
                        static_cast<const T *>(weight.data),
                        bias ? bias->data : nullptr,
                        {y.stride[0], y.stride[1], y.stride[2], y.stride[3]},
                        {x.stride[0], x.stride[1], x.stride[2], x.stride[3]},
                        (is_transposed ? inputs : outputs) * w[0],
                        w_f,
                        w[1],
                        w[2],
                        w_c,
                        taken_rows,
                        columns,
                        x.shape[0],
                        inputs ? inputs : 1,
                        outputs,
                        groups,
                        activation,
                        is_transposed,
                        bias && bias->dtype == GT_F32,
                        false,
                        false};
  return launch_tiles(op, stream, p);
}

gt_status run_any(const char *op, const gt_stream *stream, const gt_tensor &y, const gt_tensor &x,
                  const gt_tensor &weight, const gt_tensor *bias, const Side &rows, const Side &columns, int64_t groups,
                  gt_activation activation, bool is_transposed) {
  const auto function = x.dtype == GT_F32 ? run<float> : x.dtype == GT_BF16 ? run<bf16> : run<f16>;
  return function(op, stream->handle, y, x, weight, bias, rows, columns, groups, activation, is_transposed);
}

}  // namespace

gt_status conv2d_cuda(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x, const gt_tensor *weight,
                      const gt_tensor *bias, int64_t stride_h, int64_t stride_w, int64_t pad_top, int64_t,
                      int64_t pad_left, int64_t, int64_t dilation_h, int64_t dilation_w, int64_t groups,
                      gt_activation activation) {
  const Side rows = {y->shape[1], x->shape[1], weight->shape[1], stride_h, pad_top, dilation_h};
  const Side columns = {y->shape[2], x->shape[2], weight->shape[2], stride_w, pad_left, dilation_w};
  return run_any("conv2d", stream, *y, *x, *weight, bias, rows, columns, groups, activation, false);
}

gt_status conv_transpose2d_cuda(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x,
                                const gt_tensor *weight, const gt_tensor *bias, int64_t stride_h, int64_t stride_w,
                                int64_t pad_h, int64_t pad_w, int64_t, int64_t, int64_t dilation_h, int64_t dilation_w,
                                int64_t groups, gt_activation activation) {
  const Side rows = {y->shape[1], x->shape[1], weight->shape[1], stride_h, pad_h, dilation_h};
  const Side columns = {y->shape[2], x->shape[2], weight->shape[2], stride_w, pad_w, dilation_w};
  return run_any("conv_transpose2d", stream, *y, *x, *weight, bias, rows, columns, groups, activation, true);
}

}  // namespace gt
