// Gradient of a convolution's weight on CUDA. Gradients of inputs are convolutions: convolution.cu.
//
// Computes    gatun/convolution.h, gt_conv2d_backward_weight, as an implicit matrix product
//             [outputs, pixels] [pixels, taps x channels]; of a transposed convolution with x and dy exchanged
// Shapes      dweight [F, kh, kw, C/G], dy [B, H', W', F], x [B, H, W, C]: any strides. dweight aliases nothing
// Types       x, dy f32|bf16|f16 of one dtype; dweight that or f32. f32: fused multiply-adds; bf16, f16: tensor cores.
//             Sums in f32, rounded once
// Mapping     a block has a tile of 64 outputs by 64 terms (tap, channel) of one group and one part of the pixels; 4
//             warps of 32 x 32 (f32: threads of 4 x 8). A stage of 4 KiB of dy and 4 KiB of x is multiplied while
//             three more are on their way. Where tiles are few, the pixels are cut into parts, whose sums a second
//             kernel adds
// Memory      dy once per 64 terms, x once per tap and 64 outputs, mostly from L2; each part's sums once to and from
//             the workspace. Shared 32 KiB; 16-bit rows of 128 bytes in chunks permuted so that 8 rows meet 8 bank
//             groups
// Numerics    pixels in ascending order, in steps of 16 on the tensor core (f32: one chain), then the parts in
//             ascending order; what lies outside of x counts as 0. Parts depend on the sizes alone: every run has the
//             same bits
// Limits      16-byte asynchronous copies where channels are contiguous, whole vectors fit a group and every pixel is
//             aligned; else element by element, before the next barrier. Fewer than 2^31 tiles; sm_80 and later
// Source      implicit GEMM as in Chetlur et al. 2014 (arXiv 1410.0759). Not yet measured on a GPU
#include "lib/cuda.h"

#include <type_traits>

#include "check.h"
#include "convolution_tile.h"
#include "gatun/convolution.h"
#include "lib/async_copy.h"
#include "lib/entry.h"
#include "lib/mma.h"
#include "lib/reduce.h"
#include "lib/vec.h"

namespace gt {

decltype(gt_conv2d_backward_weight) conv2d_backward_weight_cuda;
decltype(gt_conv2d_backward_weight_workspace) conv2d_backward_weight_workspace_cuda;

namespace {

constexpr int TILE = 64;    // outputs, and terms, of a block
constexpr int STAGES = 4;   // 8 KiB each
constexpr int THREADS = 128;
constexpr int STAGE_BYTES = 4096;               // of either operand
constexpr int STAGE_CHUNKS = STAGE_BYTES / VEC_BYTES;
constexpr int CHUNKS_PER_THREAD = STAGE_CHUNKS / THREADS;
constexpr int64_t ENOUGH_BLOCKS = 512;          // about two waves of a large GPU; more parts only cost workspace
constexpr int64_t LEAST_PIXELS = 512;           // of a part: 16 stages and more against the cost of adding it
constexpr int64_t MOST_WORKSPACE = 32 << 20;    // bytes: what the runtime has for libraries, too

template <class T> constexpr int CHUNKS = TILE / VEC<T>;             // of a stage's row
template <class T> constexpr int PIXELS = STAGE_CHUNKS / CHUNKS<T>;  // rows of a stage: 16 of f32, else 32

struct Side {  // H or W
  int64_t outs, ins, taps, stride, pad, dilation;
};

template <class T> struct Problem {
  void *dw;
  float *parts_sums;  // [parts, F, terms]; NULL: one part, written to dw
  const T *dy, *x;
  int64_t stride_dw[4], stride_dy[4], stride_x[4];
  Side rows, columns;
  int64_t images, inputs, outputs, groups;  // inputs, outputs: channels of a group
  int64_t parts, terms;
  bool dw_is_f32, dy_is_aligned, x_is_aligned;
};

template <class T> __device__ __forceinline__ void store(const Problem<T> &p, int64_t f, int64_t term, float sum) {
  const int64_t tap = term / p.inputs;
  const int64_t at = f * p.stride_dw[0] + tap / p.columns.taps * p.stride_dw[1] +
                     tap % p.columns.taps * p.stride_dw[2] + term % p.inputs * p.stride_dw[3];
  if (p.dw_is_f32) static_cast<float *>(p.dw)[at] = sum;
  else static_cast<T *>(p.dw)[at] = from_float<T>(sum);
}

template <class T> __device__ __forceinline__ int chunk_index(int row, int chunk) {
  constexpr int PERMUTED = std::is_same_v<T, float> ? 0 : 7;
  return row * CHUNKS<T> + (chunk ^ (row & PERMUTED));
}

// Brings the chunks of one thread: column `chunk` of rows first_row + i THREADS / CHUNKS.
template <class T> struct Loader {
  const Problem<T> &p;
  int64_t group, first_output, first_term;  // of this thread's chunk, within the group
  int64_t u, v, c;                          // tap and channel of first_term

  struct Place {
    int64_t image, i, j;
  };
  Place place[CHUNKS_PER_THREAD];

  __device__ __forceinline__ void begin(int64_t pixel) {
#pragma unroll
    for (int r = 0; r < CHUNKS_PER_THREAD; ++r) {
      const int64_t at = pixel + threadIdx.x / CHUNKS<T> + r * (THREADS / CHUNKS<T>), line = at / p.columns.outs;
      place[r] = {line / p.rows.outs, line % p.rows.outs, at % p.columns.outs};
    }
    c = first_term % p.inputs;
    u = first_term / p.inputs / p.columns.taps;
    v = first_term / p.inputs % p.columns.taps;
  }

  // NULL: outside
  __device__ __forceinline__ const T *x_at(const Place &at, int64_t tap_row, int64_t tap_column,
                                           int64_t channel) const {
    const int64_t i = at.i * p.rows.stride - p.rows.pad + tap_row * p.rows.dilation;
    const int64_t j = at.j * p.columns.stride - p.columns.pad + tap_column * p.columns.dilation;
    const bool inside = tap_row < p.rows.taps && i >= 0 && i < p.rows.ins && j >= 0 && j < p.columns.ins;
    return inside ? p.x + at.image * p.stride_x[0] + i * p.stride_x[1] + j * p.stride_x[2] +
                        (group * p.inputs + channel) * p.stride_x[3]
                  : nullptr;
  }

  __device__ __forceinline__ void load_dy(Vector<T> *to, const Place &at, bool exists) const {
    const T *const pixel = p.dy + at.image * p.stride_dy[0] + at.i * p.stride_dy[1] + at.j * p.stride_dy[2] +
                           (group * p.outputs + first_output) * p.stride_dy[3];
    if (p.dy_is_aligned) {
      const bool there = exists && first_output < p.outputs;
      async_copy_16(to, there ? pixel : p.dy, there ? VEC_BYTES : 0);
      return;
    }
    Vector<T> value;
#pragma unroll
    for (int e = 0; e < VEC<T>; ++e)
      value.element[e] = exists && first_output + e < p.outputs ? pixel[e * p.stride_dy[3]] : from_float<T>(0.0f);
    *to = value;
  }

  __device__ __forceinline__ void load_x(Vector<T> *to, const Place &at, bool exists) const {
    if (p.x_is_aligned) {
      const T *const from = exists ? x_at(at, u, v, c) : nullptr;
      async_copy_16(to, from ? from : p.x, from ? VEC_BYTES : 0);
      return;
    }
    Vector<T> value;
    int64_t tap_row = u, tap_column = v, channel = c;
#pragma unroll
    for (int e = 0; e < VEC<T>; ++e) {
      const T *const from = exists ? x_at(at, tap_row, tap_column, channel) : nullptr;
      value.element[e] = from ? *from : from_float<T>(0.0f);
      if (++channel == p.inputs) {
        channel = 0;
        if (++tap_column == p.columns.taps) tap_column = 0, ++tap_row;
      }
    }
    *to = value;
  }

  // The stage that begins with `pixel`, and goes on to the next; nothing from pixel `end` on.
  __device__ __forceinline__ void load(Vector<T> *dy_tile, Vector<T> *x_tile, int64_t pixel, int64_t end) {
#pragma unroll
    for (int r = 0; r < CHUNKS_PER_THREAD; ++r) {
      const int row = threadIdx.x / CHUNKS<T> + r * (THREADS / CHUNKS<T>);
      const int at = chunk_index<T>(row, threadIdx.x % CHUNKS<T>);
      const bool exists = pixel + row < end;
      load_dy(dy_tile + at, place[r], exists);
      load_x(x_tile + at, place[r], exists);
      for (place[r].j += PIXELS<T>; place[r].j >= p.columns.outs; place[r].j -= p.columns.outs)
        if (++place[r].i == p.rows.outs) place[r].i = 0, ++place[r].image;
    }
  }
};

// A thread's sums. f32: outputs thread / 8 * 4 + i, terms thread % 8 * 4 + j and 32 more. Else of a warp's 32 x 32, as
// lib/mma.h has them: 16 outputs i, 8 terms j.
template <class T> struct Sums {
  static constexpr bool HAS_MMA = !std::is_same_v<T, float>;
  float d[HAS_MMA ? 2 : 4][HAS_MMA ? 4 : 8][HAS_MMA ? 4 : 1] = {};

  __device__ __forceinline__ void multiply(const Vector<T> *dy_tile, const Vector<T> *x_tile) {
    if constexpr (HAS_MMA) {
      const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
      const int first_f = warp / 2 * 4, first_k = warp % 2 * 4;  // in chunks
#pragma unroll
      for (int pixel = 0; pixel < PIXELS<T>; pixel += 16) {
        uint32_t a[2][4];
#pragma unroll
        for (int i = 0; i < 2; ++i)
          ldmatrix_x4_transposed(
              a[i], dy_tile + chunk_index<T>(pixel + lane / 16 * 8 + lane % 8, first_f + i * 2 + lane / 8 % 2));
#pragma unroll
        for (int j = 0; j < 2; ++j) {
          uint32_t b[4];
          ldmatrix_x4_transposed(
              b, x_tile + chunk_index<T>(pixel + lane / 8 % 2 * 8 + lane % 8, first_k + j * 2 + lane / 16));
#pragma unroll
          for (int i = 0; i < 2; ++i) {
            mma_m16n8k16<T>(d[i][2 * j], a[i], b[0], b[1]);
            mma_m16n8k16<T>(d[i][2 * j + 1], a[i], b[2], b[3]);
          }
        }
      }
    } else {
#pragma unroll 4
      for (int pixel = 0; pixel < PIXELS<T>; ++pixel) {
        const Vector<float> a = dy_tile[chunk_index<T>(pixel, threadIdx.x / 8)];
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const Vector<float> b = x_tile[chunk_index<T>(pixel, threadIdx.x % 8 + 8 * half)];
#pragma unroll
          for (int i = 0; i < 4; ++i)
#pragma unroll
            for (int j = 0; j < 4; ++j)
              d[i][4 * half + j][0] = fmaf(a.element[i], b.element[j], d[i][4 * half + j][0]);
        }
      }
    }
  }

  // put(output of the tile, term of the tile, sum)
  template <class Put> __device__ __forceinline__ void for_each(Put put) const {
    if constexpr (HAS_MMA) {
      for_each_of_tile(d, put);
    } else {
#pragma unroll
      for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int j = 0; j < 8; ++j) put(threadIdx.x / 8 * 4 + i, j / 4 * 32 + threadIdx.x % 8 * 4 + j % 4, d[i][j][0]);
    }
  }
};

// The first pixel of a part: a multiple of a stage's pixels.
template <class T> __device__ __forceinline__ int64_t part_begin(int64_t part, int64_t parts, int64_t pixels) {
  const int64_t stages = (pixels + PIXELS<T> - 1) / PIXELS<T>, begin = stages * part / parts * PIXELS<T>;
  return begin < pixels ? begin : pixels;
}

template <class T>
__global__ void __launch_bounds__(THREADS) weight_gradient_tiles(const Problem<T> p, int output_tiles, int term_tiles) {
  __shared__ Vector<T> dy_tiles[STAGES][STAGE_CHUNKS];
  __shared__ Vector<T> x_tiles[STAGES][STAGE_CHUNKS];
  const int64_t group = blockIdx.x / term_tiles / output_tiles % p.groups;
  const int64_t part = blockIdx.x / term_tiles / output_tiles / p.groups;
  const int64_t first_output = int64_t{blockIdx.x / term_tiles % output_tiles} * TILE;
  const int64_t first_term = int64_t{blockIdx.x % static_cast<unsigned>(term_tiles)} * TILE;
  const int64_t pixels = p.images * p.rows.outs * p.columns.outs;
  const int64_t begin = part_begin<T>(part, p.parts, pixels), end = part_begin<T>(part + 1, p.parts, pixels);

  Loader<T> loader = {p, group, first_output + threadIdx.x % CHUNKS<T> * VEC<T>,
                      first_term + threadIdx.x % CHUNKS<T> * VEC<T>, 0, 0, 0, {}};
  if (begin < end) loader.begin(begin);
  const int64_t steps = (end - begin + PIXELS<T> - 1) / PIXELS<T>;
#pragma unroll
  for (int s = 0; s < STAGES - 1; ++s) {
    if (s < steps) loader.load(dy_tiles[s], x_tiles[s], begin + s * PIXELS<T>, end);
    async_copy_commit();
  }
  Sums<T> sums;
#pragma unroll 1
  for (int64_t step = 0; step < steps; ++step) {
    async_copy_wait<STAGES - 2>();
    __syncthreads();  // the stage is there, and what it replaces next has been read
    const int next = static_cast<int>((step + STAGES - 1) % STAGES), now = static_cast<int>(step % STAGES);
    if (step + STAGES - 1 < steps)
      loader.load(dy_tiles[next], x_tiles[next], begin + (step + STAGES - 1) * PIXELS<T>, end);
    async_copy_commit();
    sums.multiply(dy_tiles[now], x_tiles[now]);
  }
  async_copy_wait<0>();

  sums.for_each([&](int row, int column, float sum) {
    const int64_t output = first_output + row, term = first_term + column, f = group * p.outputs + output;
    if (output >= p.outputs || term >= p.terms) return;
    if (p.parts_sums) p.parts_sums[(part * p.groups * p.outputs + f) * p.terms + term] = sum;
    else store(p, f, term, sum);
  });
}

template <class T> __global__ void __launch_bounds__(THREADS) add_parts(const Problem<T> p) {
  const int64_t elements = p.groups * p.outputs * p.terms;
  for (int64_t n = static_cast<int64_t>(blockIdx.x) * THREADS + threadIdx.x; n < elements;
       n += static_cast<int64_t>(gridDim.x) * THREADS) {
    float sum = 0;
    for (int64_t part = 0; part < p.parts; ++part) sum += p.parts_sums[part * elements + n];
    store(p, n / p.terms, n % p.terms, sum);
  }
}

struct Tiles {
  int64_t outputs, terms, parts;
};

// dy: pixels and outputs, of a transposed convolution x
Tiles tiles_of(const gt_tensor &dweight, const gt_tensor &dy, int64_t groups) {
  const int64_t f = dweight.shape[0], terms = dweight.shape[1] * dweight.shape[2] * dweight.shape[3];
  const int64_t pixels = dy.shape[0] * dy.shape[1] * dy.shape[2];
  Tiles t = {ceil_divide(f / groups, TILE), ceil_divide(terms, TILE), 1};
  const int64_t tiles = t.outputs * t.terms * groups, bytes = f * terms * static_cast<int64_t>(sizeof(float));
  if (tiles == 0 || bytes == 0) return t;
  t.parts = pixels / LEAST_PIXELS;
  for (const int64_t most : {ENOUGH_BLOCKS / tiles, MOST_WORKSPACE / bytes})
    if (t.parts > most) t.parts = most;
  if (t.parts < 1) t.parts = 1;
  return t;
}

template <class T>
int run(void *stream, const gt_tensor &dw, const gt_tensor &dy, const gt_tensor &x, const Side &rows,
        const Side &columns, int64_t groups, const Tiles &tiles, void *workspace) {
  const int64_t inputs = dw.shape[3], outputs = dw.shape[0] / groups;
  const auto is_whole = [](const gt_tensor &t, int64_t channels) {
    return t.stride[3] == 1 && channels % VEC<T> == 0 && is_aligned(static_cast<const T *>(t.data)) &&
           t.stride[0] % VEC<T> == 0 && t.stride[1] % VEC<T> == 0 && t.stride[2] % VEC<T> == 0;
  };
  const Problem<T> p = {dw.data,
                        tiles.parts > 1 ? static_cast<float *>(workspace) : nullptr,
                        static_cast<const T *>(dy.data),
                        static_cast<const T *>(x.data),
                        {dw.stride[0], dw.stride[1], dw.stride[2], dw.stride[3]},
                        {dy.stride[0], dy.stride[1], dy.stride[2], dy.stride[3]},
                        {x.stride[0], x.stride[1], x.stride[2], x.stride[3]},
                        rows,
                        columns,
                        x.shape[0],
                        inputs,
                        outputs,
                        groups,
                        tiles.parts,
                        dw.shape[1] * dw.shape[2] * inputs,
                        dw.dtype == GT_F32,
                        is_whole(dy, outputs),
                        is_whole(x, inputs)};
  const int64_t blocks = tiles.outputs * tiles.terms * groups * tiles.parts;
  const int status = launch(weight_gradient_tiles<T>, dim3(static_cast<unsigned>(blocks)), dim3(THREADS), 0, stream, p,
                            static_cast<int>(tiles.outputs), static_cast<int>(tiles.terms));
  if (status || tiles.parts == 1) return status;
  const int64_t adders = ceil_divide(elements(dw), THREADS);
  return launch(add_parts<T>, dim3(static_cast<unsigned>(adders < 65536 ? adders : 65536)), dim3(THREADS), 0, stream,
                p);
}

}  // namespace

gt_status conv2d_backward_weight_workspace_cuda(const gt_stream *, const gt_tensor *dweight, const gt_tensor *dy,
                                                int64_t groups, int64_t *bytes) {
  const int64_t parts = tiles_of(*dweight, *dy, groups).parts;
  *bytes = parts > 1 ? parts * elements(*dweight) * static_cast<int64_t>(sizeof(float)) : 0;
  return GT_OK;
}

gt_status conv2d_backward_weight_cuda(const gt_stream *stream, const gt_tensor *dweight, const gt_tensor *dy,
                                      const gt_tensor *x, int64_t stride_h, int64_t stride_w, int64_t pad_top, int64_t,
                                      int64_t pad_left, int64_t, int64_t dilation_h, int64_t dilation_w,
                                      int64_t groups, const gt_tensor *workspace) {
  const Side rows = {dy->shape[1], x->shape[1], dweight->shape[1], stride_h, pad_top, dilation_h};
  const Side columns = {dy->shape[2], x->shape[2], dweight->shape[2], stride_w, pad_left, dilation_w};
  const Tiles tiles = tiles_of(*dweight, *dy, groups);
  const double blocks = static_cast<double>(tiles.outputs) * static_cast<double>(tiles.terms) *
                        static_cast<double>(groups) * static_cast<double>(tiles.parts);
  if (blocks > INT32_MAX)
    return fail(GT_UNSUPPORTED, "conv2d_backward_weight: %.0f tiles, expected fewer than 2^31", blocks);
  const auto function = x->dtype == GT_F32 ? run<float> : x->dtype == GT_BF16 ? run<bf16> : run<f16>;
  const int status = function(stream->handle, *dweight, *dy, *x, rows, columns, groups, tiles,
                              workspace ? workspace->data : nullptr);
  return status_of("conv2d_backward_weight", status);
}

}  // namespace gt
