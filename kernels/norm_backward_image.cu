// Gradients of group and batch normalisation of images on CUDA.
//
// Computes    gatun/norm_backward.h: with h = (x - mean) rstd, d = dy activation'(z) and g = d (1 + scale) weight,
//             dx = rstd (g - E(g) - h E(g h)), and for a gradient penalty the gradients of that
// Shapes      dx, dy, x, u, ddy [B, S, C], all with C contiguous (channels last) or all with S contiguous (channels
//             first); mean, rstd [B, G] or [C]; parameters [C]; scale, shift and their gradients [B, C]. NULL:
//             parameters and gradients not wanted. dx may be dy, of the second derivative ddy and dx u and dy: a thread
//             writes only elements that it has read
// Types       f32, bf16, f16; parameters in x's dtype or f32. Values in f32, a thread's sums in f32, all else in f64,
//             results rounded once; dweight, dbias f32
// Mapping     groupnorm_backward of channels last, C of whole vectors: a cluster of 1 to 8 blocks per image and
//             strip of channels (groupnorm_backward_strip.h, sm_90), where 8 blocks have room for the strip; then
//             Parameters. Else four or five launches. Sums: a block owns a chunk of pixels of up to 32 vectors of
//             channels, or of one channel (channels first). Join: a block adds the chunks of 32 sums. Finish: a block
//             per group, or a thread per channel of a batch norm, makes coefficients per channel. Parameters: a thread
//             per channel adds the images. Apply: chunks again, results = coefficients by inputs
// Memory      x, dy and results once where a cluster has a strip; else x and dy (and u) twice, the second time from L2
//             where they fit. Workspace: 8 bytes per chunk of at least 4 steps of pixels, channel and sum, and as many
//             per image, channel and sum. Shared: 7 (f32) or 13 KB; of a strip 15 (f32) or 29 KB, 128 bytes per
//             channel, and its pixels
// Numerics    every order depends on the shape, the dtype and the layout; of groupnorm_backward, channels last, also on
//             whether the device has clusters. A NaN or Inf makes its group NaN
// Limits      16-byte accesses where every row of all images starts at a multiple of 16 bytes, else element by element;
//             C up to 65535 blocks of 32 vectors; sm_80 and later; nothing is UNSUPPORTED
// Source      derivatives of Wu & He 2018 (arXiv 1803.08494) and Ioffe & Szegedy 2015 (arXiv 1502.03167); the penalty
//             of Gulrajani et al. 2017 (arXiv 1704.00028). Not yet measured on a GPU: bound by memory
#include "lib/cuda.h"

#include <type_traits>

#include "check.h"
#include "gatun/norm_backward.h"
#include "groupnorm_backward_strip.h"
#include "lib/activation.h"
#include "lib/entry.h"
#include "lib/norm_image.h"
#include "lib/reduce.h"
#include "lib/vec.h"

namespace gt {

decltype(gt_groupnorm_backward) groupnorm_backward_cuda;
decltype(gt_groupnorm_backward_workspace) groupnorm_backward_workspace_cuda;
decltype(gt_batchnorm_backward) batchnorm_backward_cuda;
decltype(gt_batchnorm_backward_workspace) batchnorm_backward_workspace_cuda;
decltype(gt_groupnorm_double_backward) groupnorm_double_backward_cuda;
decltype(gt_groupnorm_double_backward_workspace) groupnorm_double_backward_workspace_cuda;

namespace {

constexpr int THREADS = 256;
constexpr int AT_ONCE = 2;              // vectors of each operand that a thread loads together
constexpr int STEPS = 4;                // of a chunk at least, so that its sums cost little
constexpr int64_t MAX_CHUNKS = 256;     // of an image
constexpr int64_t MAX_BLOCKS = 4096;    // along the pixels when applying: enough to fill any device
constexpr int JOIN_COLUMNS = WARP, JOIN_SLICES = 8;
constexpr int GROUP_THREADS = 128;

// How threads and chunks are dealt out.
struct Deal {
  int64_t b, s, c;
  int columns;      // threads side by side along C (channels last) or S, a power of two
  int64_t chunk;    // pixels of a block of sums
  int64_t chunks;
  int sums, coefficients;
};

struct Workspace {
  double *joined;       // [b, sums, c]
  double *chunk_sums;   // [b, chunks, sums, c]
  float *coefficients;  // [b, coefficients, c]; of a batch norm one image's
  int64_t stride_b;     // between the coefficients of images
};

// Inputs x, dy, u; sums of u, u (x - mean), dy, dy (x - mean), u dy; results ddy, dx.
struct Double {
  static constexpr int IN = 3, SUMS = 5, COEFFICIENTS = 7, OUT = 2;

  template <int N, class ChannelOf> __device__ __forceinline__ void prepare(float (&)[N][IN], ChannelOf) const {}
  __device__ __forceinline__ void add(const float (&in)[IN], const Channel &c, float (&sum)[SUMS]) const {
    const float h = in[0] - c.mean;
    sum[0] += in[2];
    sum[1] += in[2] * h;
    sum[2] += in[1];
    sum[3] += in[1] * h;
    sum[4] += in[2] * in[1];
  }
  __device__ __forceinline__ void apply(const float (&in)[IN], const Channel &c, const float (&k)[COEFFICIENTS],
                                        float (&out)[OUT]) const {
    const float h = in[0] - c.mean;
    out[0] = in[2] * k[0] + h * k[1] + k[2];
    out[1] = in[2] * k[3] + in[1] * k[4] + h * k[5] + k[6];
  }
};

template <class T, int NUM> struct Images {
  NormImage<T> image[NUM];
  __device__ __forceinline__ bool are_aligned() const {
    bool all = true;
#pragma unroll
    for (int i = 0; i < NUM; ++i) all = all & image[i].is_aligned;
    return all;
  }
};

// Calls f(p, values, whole) for p, p + step, .. below end, with a vector of each image: at offset_of(image, p), of
// which left_at(p) elements exist, all of them where it is whole.
template <int NUM, class T, class OffsetOf, class LeftAt, class F>
__device__ __forceinline__ void for_vectors(const Images<const T, NUM> &images, int64_t p, int64_t end, int64_t step,
                                            OffsetOf offset_of, LeftAt left_at, F f) {
  const auto next = [&](auto whole, auto count) {
    constexpr int COUNT = decltype(count)::value;  // without a branch: their loads are in flight together
    Vector<T> v[COUNT][NUM];
#pragma unroll
    for (int k = 0; k < COUNT; ++k)
#pragma unroll
      for (int i = 0; i < NUM; ++i) {
        const T *const from = images.image[i].data + offset_of(images.image[i], p + k * step);
        v[k][i] = packed_at<decltype(whole)::value>(from, left_at(p + k * step));
      }
#pragma unroll
    for (int k = 0; k < COUNT; ++k) {
      float values[VEC<T>][NUM];
#pragma unroll
      for (int j = 0; j < VEC<T>; ++j)
#pragma unroll
        for (int i = 0; i < NUM; ++i) values[j][i] = to_float(v[k][i].element[j]);
      f(p + k * step, values, whole);
    }
    p += COUNT * step;
  };
  constexpr std::integral_constant<int, 1> ONE = {};
  if (images.are_aligned()) {
    for (int64_t last = p + (AT_ONCE - 1) * step; last < end && left_at(last) >= VEC<T>; last += AT_ONCE * step)
      next(std::true_type(), std::integral_constant<int, AT_ONCE>());
#pragma unroll 1
    while (p < end && left_at(p) >= VEC<T>) next(std::true_type(), ONE);
  }
#pragma unroll 1
  while (p < end) next(std::false_type(), ONE);
}

// Channels last: a block has `columns` vectors of channels and rows = THREADS / columns pixels side by side.
template <class Op, class T>
__global__ void __launch_bounds__(THREADS)
    sum_channels_last(const Op op, const Images<const T, Op::IN> in, const Deal d, const Source source,
                      const Workspace workspace) {
  __shared__ Channel channels[WARP * VEC<T>];
  __shared__ float scratch[THREADS * VEC<T>];
  const int column = threadIdx.x % d.columns, row = threadIdx.x / d.columns, rows = THREADS / d.columns;
  const int width = d.columns * VEC<T>, thread = threadIdx.x;
  const int64_t strip = static_cast<int64_t>(blockIdx.y) * width, first = strip + column * VEC<T>, left = d.c - first;
  const int64_t begin = static_cast<int64_t>(blockIdx.x) * d.chunk, end = min(begin + d.chunk, d.s);
  for (int64_t b = blockIdx.z; b < d.b; b += gridDim.z) {
    if (thread < width && strip + thread < d.c) channels[thread] = channel_of<T>(source, b, strip + thread);
    __syncthreads();
    float sum[VEC<T>][Op::SUMS] = {};
    if (left > 0) {
      Channel channel[VEC<T>];
#pragma unroll
      for (int j = 0; j < VEC<T>; ++j) channel[j] = channels[column * VEC<T> + (j < left ? j : 0)];
      for_vectors(
          in, begin + row, end, rows,
          [&](const NormImage<const T> &x, int64_t p) { return b * x.stride_b + p * x.stride_s + first; },
          [&](int64_t) { return left; },
          [&](int64_t, float (&values)[VEC<T>][Op::IN], auto) {
            op.prepare(values, [&](int j) { return channel[j]; });
#pragma unroll
            for (int j = 0; j < VEC<T>; ++j) op.add(values[j], channel[j], sum[j]);
          });
    }
#pragma unroll
    for (int k = 0; k < Op::SUMS; ++k) {
#pragma unroll
      for (int j = 0; j < VEC<T>; ++j) scratch[thread * VEC<T> + j] = sum[j][k];
      __syncthreads();
      if (thread < width && strip + thread < d.c) {
        double total = 0;
        for (int r = 0; r < rows; ++r) total += static_cast<double>(scratch[r * width + thread]);
        workspace.chunk_sums[((b * d.chunks + blockIdx.x) * Op::SUMS + k) * d.c + strip + thread] = total;
      }
      __syncthreads();
    }
  }
}

// Channels first: a block has a chunk of one channel's pixels.
template <class Op, class T>
__global__ void __launch_bounds__(THREADS)
    sum_channels_first(const Op op, const Images<const T, Op::IN> in, const Deal d, const Source source,
                       const Workspace workspace) {
  __shared__ float scratch[MAX_WARPS];
  const int64_t begin = static_cast<int64_t>(blockIdx.y) * d.chunk, end = min(begin + d.chunk, d.s), c = blockIdx.x;
  for (int64_t b = blockIdx.z; b < d.b; b += gridDim.z) {
    const Channel channel = channel_of<T>(source, b, c);
    float sum[Op::SUMS] = {};
    for_vectors(
        in, begin + threadIdx.x * VEC<T>, end, static_cast<int64_t>(blockDim.x) * VEC<T>,
        [&](const NormImage<const T> &x, int64_t p) { return b * x.stride_b + c * x.stride_c + p; },
        [&](int64_t p) { return end - p; },
        [&](int64_t p, float (&values)[VEC<T>][Op::IN], auto whole) {
          op.prepare(values, [&](int) { return channel; });
#pragma unroll
          for (int j = 0; j < VEC<T>; ++j)
            if (decltype(whole)::value || p + j < end) op.add(values[j], channel, sum);
        });
#pragma unroll
    for (int k = 0; k < Op::SUMS; ++k) {
      const double total = static_cast<double>(block_sum(sum[k], scratch));
      if (threadIdx.x == 0) workspace.chunk_sums[((b * d.chunks + blockIdx.y) * Op::SUMS + k) * d.c + c] = total;
    }
  }
}

// Adds the chunks: 32 of an image's sums per block, each chunk by one of JOIN_SLICES threads in turn.
__global__ void __launch_bounds__(JOIN_COLUMNS *JOIN_SLICES) join_chunks(const Deal d, const Workspace workspace) {
  __shared__ double scratch[JOIN_SLICES][JOIN_COLUMNS];
  const int column = threadIdx.x % JOIN_COLUMNS, slice = threadIdx.x / JOIN_COLUMNS;
  const int64_t row = d.sums * d.c, i = static_cast<int64_t>(blockIdx.x) * JOIN_COLUMNS + column;
  for (int64_t b = blockIdx.y; b < d.b; b += gridDim.y) {
    double sum = 0;
    if (i < row)
      for (int64_t k = slice; k < d.chunks; k += JOIN_SLICES)
        sum += workspace.chunk_sums[(b * d.chunks + k) * row + i];
    scratch[slice][column] = sum;
    __syncthreads();
    if (slice == 0 && i < row) {
      for (int k = 1; k < JOIN_SLICES; ++k) sum += scratch[k][column];
      workspace.joined[b * row + i] = sum;
    }
    __syncthreads();
  }
}

// A block has one group of one image. Leaves what dbias and dweight add up in place of the sums.
template <class T>
__global__ void __launch_bounds__(GROUP_THREADS)
    finish_group(const Deal d, const Source source, const Workspace workspace, const ModulationGradients out) {
  __shared__ double scratch[GROUP_THREADS];
  const int64_t first = static_cast<int64_t>(blockIdx.x) * source.width, end = first + source.width;
  const double n = static_cast<double>(d.s) * static_cast<double>(source.width);
  for (int64_t b = blockIdx.y; b < d.b; b += gridDim.y) {
    const double rstd = static_cast<double>(source.rstd[b * source.groups + blockIdx.x]);
    double *const sum_d = workspace.joined + b * 2 * d.c, *const sum_dh = sum_d + d.c;
    const auto weight_at = [&](int64_t c) { return static_cast<double>(parameter_at<T>(source.weight, c, 1.0f)); };
    const auto scale_at = [&](int64_t c) { return source.one_plus_scale<T>(b, c); };
    double sum = 0, product = 0;
    for (int64_t c = first + threadIdx.x; c < end; c += GROUP_THREADS) {
      sum += weight_at(c) * scale_at(c) * sum_d[c];
      product += weight_at(c) * scale_at(c) * (sum_dh[c] * rstd);
    }
    const double mean_g = block_sum_f64(sum, scratch) / n, mean_gh = block_sum_f64(product, scratch) / n;
    for (int64_t c = first + threadIdx.x; c < end; c += GROUP_THREADS) {
      const double weight = weight_at(c), scale = scale_at(c), dh = sum_dh[c] * rstd;
      set_dx(workspace.coefficients + b * workspace.stride_b + c, d.c, rstd, weight * scale, mean_g, mean_gh);
      out.put<T>(source, b, c, sum_d[c], dh);
      sum_d[c] *= scale;
      sum_dh[c] = dh * scale;
    }
  }
}

// A thread has one channel of all images, whose sums of d h it leaves too.
template <class T>
__global__ void __launch_bounds__(GROUP_THREADS)
    finish_channel(const Deal d, const Source source, const Workspace workspace) {
  const int64_t c = static_cast<int64_t>(blockIdx.x) * GROUP_THREADS + threadIdx.x;
  if (c >= d.c) return;
  const double rstd = static_cast<double>(source.rstd[c]), n = static_cast<double>(d.b) * static_cast<double>(d.s);
  const double weight = static_cast<double>(parameter_at<T>(source.weight, c, 1.0f));
  double sum = 0, product = 0;
  for (int64_t b = 0; b < d.b; ++b) {
    double *const sums = workspace.joined + b * 2 * d.c + c;
    sums[d.c] *= rstd;
    sum += sums[0];
    product += sums[d.c];
  }
  set_dx(workspace.coefficients + c, d.c, rstd, weight, weight * sum / n, weight * product / n);
}

// As finish_group; leaves what dweight adds up in place of the sums of u.
template <class T>
__global__ void __launch_bounds__(GROUP_THREADS)
    finish_double(const Deal d, const Source source, const Workspace workspace) {
  __shared__ double scratch[GROUP_THREADS];
  const int64_t first = static_cast<int64_t>(blockIdx.x) * source.width, end = first + source.width;
  const double n = static_cast<double>(d.s) * static_cast<double>(source.width);
  for (int64_t b = blockIdx.y; b < d.b; b += gridDim.y) {
    const double rstd = static_cast<double>(source.rstd[b * source.groups + blockIdx.x]), square = rstd * rstd;
    double *const sums = workspace.joined + b * Double::SUMS * d.c;
    const auto weight_at = [&](int64_t c) { return static_cast<double>(parameter_at<T>(source.weight, c, 1.0f)); };
    double mean[Double::SUMS] = {};
    for (int64_t c = first + threadIdx.x; c < end; c += GROUP_THREADS)
      for (int k = 0; k < Double::SUMS; ++k)
        mean[k] += sums[k * d.c + c] * (k % 2 == 1 ? rstd : 1.0) * (k >= 2 ? weight_at(c) : 1.0) / n;
    for (int k = 0; k < Double::SUMS; ++k) mean[k] = block_sum_f64(mean[k], scratch);
    const double mean_u = mean[0], mean_uh = mean[1], mean_g = mean[2], mean_gh = mean[3];
    const double k = mean[4] - mean_u * mean_g - mean_uh * mean_gh;
    for (int64_t c = first + threadIdx.x; c < end; c += GROUP_THREADS) {
      const double weight = weight_at(c);
      float *const to = workspace.coefficients + b * workspace.stride_b + c;
      const auto set = [&](int at, double value) { to[at * d.c] = static_cast<float>(value); };
      set(0, weight * rstd);
      set(1, -weight * square * mean_uh);
      set(2, -weight * rstd * mean_u);
      set(3, -square * mean_gh);
      set(4, -square * mean_uh * weight);
      set(5, -square * rstd * (k - 2.0 * mean_uh * mean_gh));
      set(6, square * (mean_gh * mean_u + mean_uh * mean_g));
      sums[c] = rstd * (sums[4 * d.c + c] - mean_u * sums[2 * d.c + c] - mean_uh * rstd * sums[3 * d.c + c]);
    }
  }
}

// out[c] = the sum over the images of sum k. Block (channels, k).
__global__ void __launch_bounds__(GROUP_THREADS)
    sum_images(float *first, float *second, const Deal d, const double *joined) {
  float *const out = blockIdx.y == 0 ? first : second;
  const int64_t c = static_cast<int64_t>(blockIdx.x) * GROUP_THREADS + threadIdx.x;
  if (!out || c >= d.c) return;
  double sum = 0;
#pragma unroll 8
  for (int64_t b = 0; b < d.b; ++b) sum += joined[(b * d.sums + blockIdx.y) * d.c + c];
  out[c] = static_cast<float>(sum);
}

template <class Op, class T>
__global__ void __launch_bounds__(THREADS)
    apply_channels_last(const Op op, const Images<T, Op::OUT> out, const Images<const T, Op::IN> in, const Deal d,
                        const Source source, const Workspace workspace) {
  __shared__ Channel channels[WARP * VEC<T>];
  __shared__ float coefficients[Op::COEFFICIENTS][WARP * VEC<T>];
  const int column = threadIdx.x % d.columns, row = threadIdx.x / d.columns, rows = THREADS / d.columns;
  const int width = d.columns * VEC<T>, thread = threadIdx.x;
  const int64_t strip = static_cast<int64_t>(blockIdx.y) * width, first = strip + column * VEC<T>, left = d.c - first;
  const int64_t step = static_cast<int64_t>(gridDim.x) * rows;
  for (int64_t b = blockIdx.z; b < d.b; b += gridDim.z) {
    if (thread < width && strip + thread < d.c) {
      channels[thread] = channel_of<T>(source, b, strip + thread);
      for (int k = 0; k < Op::COEFFICIENTS; ++k)
        coefficients[k][thread] = workspace.coefficients[b * workspace.stride_b + k * d.c + strip + thread];
    }
    __syncthreads();
    if (left > 0) {
      const auto at = [&](int j) { return column * VEC<T> + (j < left ? j : 0); };
      for_vectors(
          in, static_cast<int64_t>(blockIdx.x) * rows + row, d.s, step,
          [&](const NormImage<const T> &x, int64_t p) { return b * x.stride_b + p * x.stride_s + first; },
          [&](int64_t) { return left; },
          [&](int64_t p, float (&values)[VEC<T>][Op::IN], auto) {
            float results[Op::OUT][VEC<T>];
            op.prepare(values, [&](int j) { return channels[at(j)]; });
#pragma unroll
            for (int j = 0; j < VEC<T>; ++j) {
              float of_channel[Op::COEFFICIENTS], result[Op::OUT];
#pragma unroll
              for (int i = 0; i < Op::COEFFICIENTS; ++i) of_channel[i] = coefficients[i][at(j)];
              op.apply(values[j], channels[at(j)], of_channel, result);
#pragma unroll
              for (int i = 0; i < Op::OUT; ++i) results[i][j] = result[i];
            }
#pragma unroll
            for (int i = 0; i < Op::OUT; ++i) {
              const NormImage<T> &y = out.image[i];
              store_upto(y.data + b * y.stride_b + p * y.stride_s + first, left, y.is_aligned, results[i]);
            }
          });
    }
    __syncthreads();
  }
}

template <class Op, class T>
__global__ void __launch_bounds__(THREADS)
    apply_channels_first(const Op op, const Images<T, Op::OUT> out, const Images<const T, Op::IN> in, const Deal d,
                         const Source source, const Workspace workspace) {
  const int64_t c = blockIdx.x, stride = static_cast<int64_t>(blockDim.x) * VEC<T>;
  for (int64_t b = blockIdx.z; b < d.b; b += gridDim.z) {
    const Channel channel = channel_of<T>(source, b, c);
    float coefficients[Op::COEFFICIENTS];
#pragma unroll
    for (int k = 0; k < Op::COEFFICIENTS; ++k)
      coefficients[k] = workspace.coefficients[b * workspace.stride_b + k * d.c + c];
    for_vectors(
        in, (static_cast<int64_t>(blockIdx.y) * blockDim.x + threadIdx.x) * VEC<T>, d.s, gridDim.y * stride,
        [&](const NormImage<const T> &x, int64_t p) { return b * x.stride_b + c * x.stride_c + p; },
        [&](int64_t p) { return d.s - p; },
        [&](int64_t p, float (&values)[VEC<T>][Op::IN], auto) {
          float results[Op::OUT][VEC<T>];
          op.prepare(values, [&](int) { return channel; });
#pragma unroll
          for (int j = 0; j < VEC<T>; ++j) {
            float result[Op::OUT];
            op.apply(values[j], channel, coefficients, result);
#pragma unroll
            for (int i = 0; i < Op::OUT; ++i) results[i][j] = result[i];
          }
#pragma unroll
          for (int i = 0; i < Op::OUT; ++i) {
            const NormImage<T> &y = out.image[i];
            store_upto(y.data + b * y.stride_b + c * y.stride_c + p, d.s - p, y.is_aligned, results[i]);
          }
        });
  }
}

template <class Op> Deal deal_of(const gt_tensor &x, bool channels_last) {
  const int vec = VEC_BYTES / static_cast<int>(dtype_bytes(x.dtype));
  Deal d = {x.shape[0], x.shape[1], x.shape[2], 0, 0, 0, Op::SUMS, Op::COEFFICIENTS};
  d.columns = channels_last ? threads_for(ceil_divide(d.c, vec), 1, WARP)
                            : threads_for(ceil_divide(d.s, vec), WARP, THREADS);
  const int64_t step = STEPS * (channels_last ? int64_t{THREADS / d.columns * AT_ONCE} : int64_t{d.columns} * vec);
  d.chunk = step * ceil_divide(d.s, step * MAX_CHUNKS);
  d.chunks = ceil_divide(d.s, d.chunk);
  return d;
}

template <class Op> gt_status workspace_bytes(const gt_tensor *x, int64_t groups, int64_t *bytes) {
  const Deal d = deal_of<Op>(*x, is_channels_last(*x, *x));
  *bytes = d.c * (d.b * d.sums * 8 + d.b * d.chunks * d.sums * 8 + (groups == 0 ? 1 : d.b) * d.coefficients * 4);
  if (d.b == 0) *bytes = 0;
  return GT_OK;
}

struct Tensors {
  const gt_tensor *out[Double::OUT], *in[Double::IN];  // in the order of the op
  float *first, *second;                               // gradients [C] of parameters: of sums 0 and 1
  ModulationGradients modulation;
  void *workspace;
};

// The gradients of parameters, of what lies first in the workspace.
int launch_sum_images(void *stream, const Tensors &t, const Deal &d) {
  if (!t.first && !t.second) return 0;
  return launch(sum_images, dim3(static_cast<unsigned>(ceil_divide(d.c, GROUP_THREADS)), 2), GROUP_THREADS, 0, stream,
                t.first, t.second, d, static_cast<const double *>(t.workspace));
}

// finish(d, workspace) launches what makes the coefficients.
template <class Op, class T, class Finish>
int launch_op(void *stream, const Op &op, const Tensors &t, const Source &source, Finish finish) {
  const gt_tensor &x = *t.in[0];
  const bool channels_last = is_channels_last(x, x);
  const Deal d = deal_of<Op>(x, channels_last);
  Workspace w;
  w.joined = static_cast<double *>(t.workspace);
  w.chunk_sums = w.joined + d.b * d.sums * d.c;
  w.coefficients = reinterpret_cast<float *>(w.chunk_sums + d.b * d.chunks * d.sums * d.c);
  w.stride_b = source.groups == 0 ? 0 : d.coefficients * d.c;
  Images<const T, Op::IN> in;
  Images<T, Op::OUT> out;
  for (int i = 0; i < Op::IN; ++i) in.image[i] = norm_image_of<const T>(*t.in[i], channels_last);
  for (int i = 0; i < Op::OUT; ++i) out.image[i] = norm_image_of<T>(*t.out[i], channels_last);
  const unsigned images = grid_of(d.b, MAX_GRID), c = static_cast<unsigned>(d.c);
  const unsigned strips = static_cast<unsigned>(ceil_divide(d.c, d.columns * VEC<T>));
  const unsigned chunks = static_cast<unsigned>(d.chunks);
  int error = 0;
  if (d.b > 0) {
    if (channels_last)
      error = launch(sum_channels_last<Op, T>, dim3(chunks, strips, images), THREADS, 0, stream, op, in, d, source, w);
    else
      error = launch(sum_channels_first<Op, T>, dim3(c, chunks, images), d.columns, 0, stream, op, in, d, source, w);
    if (!error)
      error = launch(join_chunks, dim3(static_cast<unsigned>(ceil_divide(d.sums * d.c, JOIN_COLUMNS)), images),
                     JOIN_COLUMNS * JOIN_SLICES, 0, stream, d, w);
    if (!error) error = finish(d, w);
  }
  if (!error) error = launch_sum_images(stream, t, d);
  if (error || d.b == 0) return error;
  if (channels_last)
    return launch(apply_channels_last<Op, T>,
                  dim3(grid_of(ceil_divide(d.s, THREADS / d.columns * AT_ONCE), MAX_BLOCKS), strips, images), THREADS,
                  0, stream, op, out, in, d, source, w);
  const int64_t blocks = ceil_divide(d.s, static_cast<int64_t>(d.columns) * VEC<T>);
  return launch(apply_channels_first<Op, T>, dim3(c, grid_of(blocks, MAX_BLOCKS), images), d.columns, 0, stream, op,
                out, in, d, source, w);
}

dim3 grid_of_groups(const Deal &d, const Source &source) {
  return dim3(static_cast<unsigned>(source.groups), grid_of(d.b, MAX_GRID));
}

gt_status run_backward(const char *name, const gt_stream *stream, const Tensors &t, const Source &source,
                       gt_activation activation) {
  const int error = with_float(t.in[0]->dtype, [&](auto zero) {
    using T = decltype(zero);
    const Backward op = {activation};
    const gt_tensor &x = *t.in[0];
    const Deal of_strips = deal_of<Backward>(x, true);
    if (int status = 0; source.groups > 0 && of_strips.b > 0 && is_channels_last(x, x) &&
                        strip::launch_backward<T>(stream->handle, op, *t.out[0], x, *t.in[1], source, t.modulation,
                                                  static_cast<double *>(t.workspace), &status))
      return status ? status : launch_sum_images(stream->handle, t, of_strips);
    return launch_op<Backward, T>(stream->handle, op, t, source, [&](const Deal &d, const Workspace &w) {
      if (source.groups > 0)
        return launch(finish_group<T>, grid_of_groups(d, source), GROUP_THREADS, 0, stream->handle, d, source, w,
                      t.modulation);
      return launch(finish_channel<T>, dim3(static_cast<unsigned>(ceil_divide(d.c, GROUP_THREADS))), GROUP_THREADS, 0,
                    stream->handle, d, source, w);
    });
  });
  return status_of(name, error);
}

Source source_of(const gt_tensor *x, const gt_tensor *mean, const gt_tensor *rstd, int64_t groups,
                 const gt_tensor *weight, const gt_tensor *bias, const gt_tensor *scale, const gt_tensor *shift) {
  return {data_of<const float>(mean), data_of<const float>(rstd), groups, groups == 0 ? 1 : x->shape[2] / groups,
          channel_parameter_of(weight), channel_parameter_of(bias), channel_parameter_of(scale),
          channel_parameter_of(shift), scale ? scale->stride[0] : 0, shift ? shift->stride[0] : 0};
}

}  // namespace

gt_status groupnorm_backward_cuda(const gt_stream *stream, const gt_tensor *dx, const gt_tensor *dweight,
                                  const gt_tensor *dbias, const gt_tensor *dscale, const gt_tensor *dshift,
                                  const gt_tensor *dy, const gt_tensor *x, const gt_tensor *mean, const gt_tensor *rstd,
                                  const gt_tensor *weight, const gt_tensor *bias, const gt_tensor *scale,
                                  const gt_tensor *shift, int64_t groups, gt_activation activation,
                                  const gt_tensor *workspace) {
  const Tensors t = {{dx, nullptr}, {x, dy, nullptr}, data_of<float>(dbias), data_of<float>(dweight),
                     {data_of<void>(dscale), data_of<void>(dshift), dscale ? dscale->stride[0] : 0,
                      dshift ? dshift->stride[0] : 0},
                     data_of<void>(workspace)};
  return run_backward("groupnorm_backward", stream, t, source_of(x, mean, rstd, groups, weight, bias, scale, shift),
                      activation);
}

gt_status groupnorm_backward_workspace_cuda(const gt_stream *, const gt_tensor *x, int64_t groups, int64_t *bytes) {
  return workspace_bytes<Backward>(x, groups, bytes);
}

gt_status batchnorm_backward_cuda(const gt_stream *stream, const gt_tensor *dx, const gt_tensor *dweight,
                                  const gt_tensor *dbias, const gt_tensor *dy, const gt_tensor *x,
                                  const gt_tensor *mean, const gt_tensor *rstd, const gt_tensor *weight,
                                  const gt_tensor *bias, gt_activation activation, const gt_tensor *workspace) {
  const Tensors t = {{dx, nullptr}, {x, dy, nullptr}, data_of<float>(dbias), data_of<float>(dweight), {},
                     data_of<void>(workspace)};
  return run_backward("batchnorm_backward", stream, t, source_of(x, mean, rstd, 0, weight, bias, nullptr, nullptr),
                      activation);
}

gt_status batchnorm_backward_workspace_cuda(const gt_stream *, const gt_tensor *x, int64_t *bytes) {
  return workspace_bytes<Backward>(x, 0, bytes);
}

gt_status groupnorm_double_backward_cuda(const gt_stream *stream, const gt_tensor *ddy, const gt_tensor *dx,
                                         const gt_tensor *dweight, const gt_tensor *u, const gt_tensor *dy,
                                         const gt_tensor *x, const gt_tensor *mean, const gt_tensor *rstd,
                                         const gt_tensor *weight, int64_t groups, const gt_tensor *workspace) {
  const Tensors t = {{ddy, dx}, {x, dy, u}, data_of<float>(dweight), nullptr, {}, data_of<void>(workspace)};
  const Source source = source_of(x, mean, rstd, groups, weight, nullptr, nullptr, nullptr);
  const int error = with_float(x->dtype, [&](auto zero) {
    using T = decltype(zero);
    return launch_op<Double, T>(stream->handle, Double{}, t, source, [&](const Deal &d, const Workspace &w) {
      return launch(finish_double<T>, grid_of_groups(d, source), GROUP_THREADS, 0, stream->handle, d, source, w);
    });
  });
  return status_of("groupnorm_double_backward", error);
}

gt_status groupnorm_double_backward_workspace_cuda(const gt_stream *, const gt_tensor *x, int64_t groups,
                                                   int64_t *bytes) {
  return workspace_bytes<Double>(x, groups, bytes);
}

}  // namespace gt
