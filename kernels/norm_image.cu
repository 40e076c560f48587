// Group and batch normalisation of images on CUDA, batch normalisation also in training.
//
// Computes    groupnorm: h = (x - mean) rstd weight + bias with mean and variance of an image's group of C/G channels;
//             y = activation(h (1 + scale) + shift). batchnorm: y = activation((x - mean) / sqrt(var + eps) weight +
//             bias); batchnorm_train: mean and variance of a channel over all images, also into the running ones
// Shapes      x, y [B, S, C], C contiguous (channels last) or S contiguous (channels first). mean, rstd [B, G]; weight,
//             bias, var [C]; scale, shift [B, C]. NULL: all but x and y, scale with shift. y may be x: a thread writes
//             only elements that it has read, after all statistics are known
// Types       f32, bf16, f16; parameters each in x's dtype or f32. Values in f32; what the VALUES of a thread differ by
//             from their mean is summed in f32, all else in f64. Rounded to x's dtype once
// Mapping     groupnorm of channels last, C of whole vectors: one launch, a cluster of 1 to 8 blocks per image and
//             strip of channels (groupnorm_strip.h, sm_90), where 8 blocks have room for the strip: in 16 bits with 5
//             vectors 18,300 pixels. Else three, so that one image fills the device. Statistics: a block owns a chunk
//             of pixels of up to 32 vectors of channels (channels last), or of one channel (channels first), and leaves
//             mean and squared deviations per channel in the workspace. Groups: a block joins the chunks of a group and
//             leaves three coefficients per channel. Normalise: chunks again. batchnorm is the last launch alone;
//             batchnorm_train joins a channel's chunks of all images in place of a group's
// Memory      x and y once where a cluster has a strip; else x twice, the second time from L2 where the image fits.
//             Workspace: at most 256 chunks of 16 C bytes, and 12 C bytes, per image. Shared: 16 (f32) or 32 KB, of a
//             strip also its pixels
// Numerics    in f32 only deviations from the mean of a thread's VALUES, in f64 from a channel's first value in the
//             chunk, so that a large mean costs nothing. The order of all sums depends on S, C, G, the dtype and the
//             layout, of groupnorm, channels last, also on whether the device has clusters; not on alignment or B. A
//             NaN or Inf makes its group NaN
// Limits      16-byte accesses where every row of x (and y) starts at a multiple of 16 bytes, else element by element;
//             C up to 65535 blocks of 32 vectors, 8 million in f32; sm_80 and later; nothing is UNSUPPORTED
// Source      Wu & He 2018 (arXiv 1803.08494); Ioffe & Szegedy 2015 (arXiv 1502.03167); joining: Chan, Golub & LeVeque
//             1983. Not yet measured on a GPU: bound by memory (bench/results/h200.md)
#include "lib/cuda.h"

#include "check.h"
#include "gatun/norm.h"
#include "groupnorm_strip.h"
#include "lib/activation.h"
#include "lib/entry.h"
#include "lib/norm_image.h"
#include "lib/reduce.h"
#include "lib/vec.h"

namespace gt {

decltype(gt_groupnorm) groupnorm_cuda;
decltype(gt_groupnorm_workspace) groupnorm_workspace_cuda;
decltype(gt_batchnorm) batchnorm_cuda;
decltype(gt_batchnorm_train) batchnorm_train_cuda;
decltype(gt_batchnorm_train_workspace) batchnorm_train_workspace_cuda;

namespace {

constexpr int THREADS = 256;
constexpr int VALUES = STATISTICS_VALUES;
constexpr int FEW = 4;                  // vectors at once when normalising, where a thread has coefficients too
constexpr int GROUP_THREADS = 128;
constexpr int64_t MAX_CHUNKS = 256;     // of an image: what a group's block has to join
constexpr int64_t MAX_STEPS = 4096;     // blocks along the pixels when normalising: enough to fill any device
constexpr int64_t PADDING = 4;          // channels of a workspace row: 16 bytes of coefficients

template <class T> constexpr int VECTORS = STATISTICS_VECTORS<T>;

// How threads and chunks are dealt out.
struct Deal {
  int64_t b, s, c;
  int columns;       // channels last: threads side by side along C, a power of two up to WARP
  int64_t step;      // pixels that a block takes at once
  int64_t chunk;     // pixels of a block of statistics, whole steps
  int64_t chunks;
  int64_t row;       // channels of a workspace row
};

// [chunks, row] of each image, joined to y = (x - mean) * factor + offset in [row] of each image.
struct Workspace {
  double *mean, *squares;
  float *coefficients;  // [b, 3, row]; of batchnorm_train the first image's serve all
};

// Channels last: a block has `columns` vectors of channels and rows = THREADS / columns pixels side by side.
template <class T>
__global__ void __launch_bounds__(THREADS, 2)
    sum_channels_last(const NormImage<const T> x, const Deal d, const Workspace workspace) {
  __shared__ double sums[THREADS * VEC<T>], squares[THREADS * VEC<T>];
  const int column = threadIdx.x % d.columns, row = threadIdx.x / d.columns, rows = THREADS / d.columns;
  const int width = d.columns * VEC<T>, thread = threadIdx.x;
  const int64_t strip = static_cast<int64_t>(blockIdx.y) * width;
  const int64_t left = d.c - strip - column * VEC<T>;
  const int64_t begin = static_cast<int64_t>(blockIdx.x) * d.chunk, end = min(begin + d.chunk, d.s);
  for (int64_t b = blockIdx.z; b < d.b; b += gridDim.z) {
    const T *const data = x.data + b * x.stride_b + strip, *const mine = data + column * VEC<T>;
    double sum[VEC<T>] = {}, square[VEC<T>] = {};
    if (left > 0) {
      Vector<T> first[1];
      load_vectors(mine + begin * x.stride_s, 0, 1, left, x.is_aligned, first);
      for (int64_t p = begin + row; p < end; p += rows * VECTORS<T>) {
        const int64_t count = min((end - p + rows - 1) / rows, int64_t{VECTORS<T>});
        Vector<T> v[VECTORS<T>];
        load_vectors(mine + p * x.stride_s, rows * x.stride_s, count, left, x.is_aligned, v);
#pragma unroll
        for (int j = 0; j < VEC<T>; ++j) {
          float values[VECTORS<T>];
#pragma unroll
          for (int k = 0; k < VECTORS<T>; ++k) values[k] = to_float(v[k].element[j]);
          add_values(values, static_cast<int>(count), to_float(first[0].element[j]), sum[j], square[j]);
        }
      }
    }
#pragma unroll
    for (int j = 0; j < VEC<T>; ++j) {
      sums[thread * VEC<T> + j] = sum[j];
      squares[thread * VEC<T> + j] = square[j];
    }
    __syncthreads();
    if (thread < width && strip + thread < d.c) {
      double s = 0, q = 0;
      for (int r = 0; r < rows; ++r) {
        s += sums[r * width + thread];
        q += squares[r * width + thread];
      }
      const double n = static_cast<double>(end - begin);
      const int64_t at = (b * d.chunks + blockIdx.x) * d.row + strip + thread;
      workspace.mean[at] = static_cast<double>(to_float(data[begin * x.stride_s + thread])) + s / n;
      workspace.squares[at] = deviations(q, s, n);
    }
    __syncthreads();
  }
}

// Channels first: a block has a chunk of one channel's pixels.
template <class T>
__global__ void __launch_bounds__(THREADS)
    sum_channels_first(const NormImage<const T> x, const Deal d, const Workspace workspace) {
  __shared__ double scratch[THREADS];
  const int64_t begin = static_cast<int64_t>(blockIdx.y) * d.chunk, end = min(begin + d.chunk, d.s), c = blockIdx.x;
  const int64_t stride = static_cast<int64_t>(blockDim.x) * VEC<T>;
  for (int64_t b = blockIdx.z; b < d.b; b += gridDim.z) {
    const T *const data = x.data + b * x.stride_b + c * x.stride_c;
    const float first = to_float(data[begin]);
    double sum = 0, square = 0;
    for (int64_t p = begin + threadIdx.x * VEC<T>; p < end; p += stride * VECTORS<T>) {
      // all but the last vector of a row are whole, and that one is this thread's last
      const int64_t whole = min((end - p) / stride + ((end - p) % stride >= VEC<T> ? 1 : 0), int64_t{VECTORS<T>});
      Vector<T> v[VECTORS<T>];
      if (whole > 0) load_vectors(data + p, stride, whole, VEC<T>, x.is_aligned, v);
      const auto add = [&](const Vector<T> &vector, int count) {
        float values[VEC<T>];
#pragma unroll
        for (int j = 0; j < VEC<T>; ++j) values[j] = to_float(vector.element[j]);
        add_values(values, count, first, sum, square);
      };
#pragma unroll
      for (int k = 0; k < VECTORS<T>; ++k)
        if (k < whole) add(v[k], VEC<T>);
      const int64_t rest = p + whole * stride;
      if (whole < VECTORS<T> && rest < end) {
        Vector<T> part;
#pragma unroll
        for (int j = 0; j < VEC<T>; ++j) part.element[j] = rest + j < end ? data[rest + j] : T{};
        add(part, static_cast<int>(end - rest));
      }
    }
    sum = block_sum_f64(sum, scratch);
    square = block_sum_f64(square, scratch);
    if (threadIdx.x == 0) {
      const double n = static_cast<double>(end - begin);
      const int64_t at = (b * d.chunks + blockIdx.y) * d.row + c;
      workspace.mean[at] = static_cast<double>(first) + sum / n;
      workspace.squares[at] = deviations(square, sum, n);
    }
  }
}

// A block joins the chunks of one group: pairs (chunk, channel), channels fastest.
template <class T>
__global__ void __launch_bounds__(GROUP_THREADS) join_group(const Deal d, const Workspace workspace, const Groups g) {
  __shared__ double scratch[GROUP_THREADS];
  const int64_t width = d.c / g.groups, pairs = d.chunks * width, first = static_cast<int64_t>(blockIdx.x) * width;
  const double n = static_cast<double>(d.s) * static_cast<double>(width);
  for (int64_t b = blockIdx.y; b < d.b; b += gridDim.y) {
    const auto sum = [&](auto term) {
      double total = 0;
      for (int64_t i = threadIdx.x; i < pairs; i += GROUP_THREADS) {
        const int64_t chunk = i / width;
        total += term((b * d.chunks + chunk) * d.row + first + i % width,
                      static_cast<double>(min(d.chunk, d.s - chunk * d.chunk)));
      }
      return block_sum_f64(total, scratch);
    };
    const double mean = sum([&](int64_t at, double pixels) { return workspace.mean[at] * pixels; }) / n;
    const double squares = sum([&](int64_t at, double pixels) {
      const double deviation = workspace.mean[at] - mean;
      return workspace.squares[at] + deviation * deviation * pixels;
    });
    const double rstd = 1.0 / sqrt(squares / n + static_cast<double>(g.eps));
    if (threadIdx.x == 0) g.keep(b, blockIdx.x, mean, rstd);
    for (int64_t c = first + threadIdx.x; c < first + width; c += GROUP_THREADS) {
      const Coefficients of_channel = coefficients_of<T>(g, b, c, mean, rstd);
      float *const coefficients = workspace.coefficients + b * 3 * d.row;
      coefficients[c] = of_channel.mean;
      coefficients[d.row + c] = of_channel.factor;
      coefficients[2 * d.row + c] = of_channel.offset;
    }
  }
}

struct BatchStatistics {
  float momentum, eps;
  float *mean, *rstd, *running_mean, *running_var;
  ChannelParameter weight, bias;
};

// A block joins the chunks of one channel over all images.
template <class T>
__global__ void __launch_bounds__(GROUP_THREADS)
    join_channel(const Deal d, const Workspace workspace, const BatchStatistics o) {
  __shared__ double scratch[GROUP_THREADS];
  const int64_t c = blockIdx.x;
  const double n = static_cast<double>(d.b) * static_cast<double>(d.s);
  const auto sum = [&](auto term) {
    double total = 0;
    for (int64_t i = threadIdx.x; i < d.b * d.chunks; i += GROUP_THREADS)
      total += term(i * d.row + c, static_cast<double>(min(d.chunk, d.s - i % d.chunks * d.chunk)));
    return block_sum_f64(total, scratch);
  };
  const double mean = sum([&](int64_t at, double pixels) { return workspace.mean[at] * pixels; }) / n;
  const double squares = sum([&](int64_t at, double pixels) {
    const double deviation = workspace.mean[at] - mean;
    return workspace.squares[at] + deviation * deviation * pixels;
  });
  if (threadIdx.x != 0) return;
  const double rstd = 1.0 / sqrt(squares / n + static_cast<double>(o.eps));
  const float rounded = static_cast<float>(mean);
  const auto update = [&](float *running, double value) {
    const double kept = static_cast<double>(running[c]), momentum = static_cast<double>(o.momentum);
    running[c] = static_cast<float>((1.0 - momentum) * kept + momentum * value);
  };
  o.mean[c] = rounded;
  o.rstd[c] = static_cast<float>(rstd);
  if (o.running_mean) update(o.running_mean, mean);
  if (o.running_var) update(o.running_var, squares / (n - 1.0));
  const double factor = rstd * static_cast<double>(parameter_at<T>(o.weight, c, 1.0f));
  workspace.coefficients[c] = rounded;
  workspace.coefficients[d.row + c] = static_cast<float>(factor);
  workspace.coefficients[2 * d.row + c] =
      static_cast<float>(static_cast<double>(parameter_at<T>(o.bias, c, 0.0f)) -
                         (mean - static_cast<double>(rounded)) * factor);
}

struct FromWorkspace {
  const float *coefficients;
  int64_t row, stride_b;
  __device__ __forceinline__ Coefficients at(int64_t b, int64_t c) const {
    const float *const of_image = coefficients + b * stride_b + c;
    return {of_image[0], of_image[row], of_image[2 * row]};
  }
};

template <class T> struct FromStatistics {
  ChannelParameter mean, var, weight, bias;
  float eps;
  __device__ __forceinline__ Coefficients at(int64_t, int64_t c) const {
    return {parameter_at<T>(mean, c, 0.0f),
            parameter_at<T>(weight, c, 1.0f) / sqrtf(parameter_at<T>(var, c, 0.0f) + eps),
            parameter_at<T>(bias, c, 0.0f)};
  }
};

template <gt_activation ACTIVATION, class T, class Source>
__global__ void __launch_bounds__(THREADS, 2)
    normalise_channels_last(const NormImage<T> y, const NormImage<const T> x, const Deal d, const Source source) {
  __shared__ Coefficients shared[WARP * VEC<T>];
  const int column = threadIdx.x % d.columns, row = threadIdx.x / d.columns, rows = THREADS / d.columns;
  const int width = d.columns * VEC<T>, thread = threadIdx.x;
  const int64_t strip = static_cast<int64_t>(blockIdx.y) * width, c = strip + column * VEC<T>, left = d.c - c;
  const int64_t step = static_cast<int64_t>(gridDim.x) * rows * FEW;
  for (int64_t b = blockIdx.z; b < d.b; b += gridDim.z) {
    if (thread < width && strip + thread < d.c) shared[thread] = source.at(b, strip + thread);
    __syncthreads();
    Coefficients coefficients[VEC<T>];
#pragma unroll
    for (int j = 0; j < VEC<T>; ++j) coefficients[j] = shared[column * VEC<T> + (j < left ? j : 0)];
    __syncthreads();
    if (left <= 0) continue;
    for (int64_t p = static_cast<int64_t>(blockIdx.x) * rows * FEW + row; p < d.s; p += step) {
      const int64_t count = (d.s - p + rows - 1) / rows;
      Vector<T> v[FEW];
      load_vectors(x.data + b * x.stride_b + p * x.stride_s + c, rows * x.stride_s, count, left, x.is_aligned, v);
#pragma unroll
      for (int k = 0; k < FEW; ++k) {
        if (k >= count) break;
        float h[VEC<T>];
#pragma unroll
        for (int j = 0; j < VEC<T>; ++j) h[j] = coefficients[j](to_float(v[k].element[j]));
        activate_all<ACTIVATION>(h);
        store_upto(y.data + b * y.stride_b + (p + k * rows) * y.stride_s + c, left, y.is_aligned, h);
      }
    }
  }
}

template <class T, class Source>
__global__ void __launch_bounds__(THREADS)
    normalise_channels_first(const NormImage<T> y, const NormImage<const T> x, const Deal d, const Source source,
                             const gt_activation activation) {
  const int64_t c = blockIdx.x, stride = static_cast<int64_t>(blockDim.x) * VEC<T>;
  for (int64_t b = blockIdx.z; b < d.b; b += gridDim.z) {
    const Coefficients coefficients = source.at(b, c);
    const T *const from = x.data + b * x.stride_b + c * x.stride_c;
    T *const to = y.data + b * y.stride_b + c * y.stride_c;
    for (int64_t p = (static_cast<int64_t>(blockIdx.y) * blockDim.x + threadIdx.x) * VEC<T>; p < d.s;
         p += gridDim.y * stride) {
      float h[VEC<T>];
      load_upto(from + p, d.s - p, x.is_aligned, 0.0f, h);
#pragma unroll
      for (int j = 0; j < VEC<T>; ++j) h[j] = coefficients(h[j]);
      activate_all(h, activation);
      store_upto(to + p, d.s - p, y.is_aligned, h);
    }
  }
}

Deal deal_of(const gt_tensor &x, bool channels_last) {
  const int vec = VEC_BYTES / static_cast<int>(dtype_bytes(x.dtype));
  Deal d = {x.shape[0], x.shape[1], x.shape[2], 0, 0, 0, 0, 0};
  if (channels_last) {
    d.columns = threads_for(ceil_divide(d.c, vec), 1, WARP);
    d.step = THREADS / d.columns * (VALUES / vec);
  } else {
    d.columns = threads_for(ceil_divide(d.s, vec), WARP, THREADS);
    d.step = static_cast<int64_t>(d.columns) * VALUES;
  }
  d.chunk = d.step * ceil_divide(d.s, d.step * MAX_CHUNKS);
  d.chunks = ceil_divide(d.s, d.chunk);
  d.row = ceil_divide(d.c, PADDING) * PADDING;
  return d;
}

int64_t workspace_bytes(const Deal &d) { return d.b * d.row * (16 * d.chunks + 12); }

template <class T, class Source>
int launch_normalise(void *stream, const gt_tensor &y, const gt_tensor &x, const Deal &d, bool channels_last,
                     const Source &source, gt_activation activation) {
  const NormImage<T> to = norm_image_of<T>(y, channels_last);
  const NormImage<const T> from = norm_image_of<const T>(x, channels_last);
  const unsigned images = grid_of(d.b, MAX_GRID);
  if (channels_last) {
    const dim3 grid(grid_of(ceil_divide(d.s, THREADS / d.columns * FEW), MAX_STEPS),
                    static_cast<unsigned>(ceil_divide(d.c, d.columns * VEC<T>)), images);
    const auto run = [&](auto kernel) { return launch(kernel, grid, THREADS, 0, stream, to, from, d, source); };
    switch (activation) {
      case GT_ACTIVATION_SILU: return run(normalise_channels_last<GT_ACTIVATION_SILU, T, Source>);
      case GT_ACTIVATION_RELU: return run(normalise_channels_last<GT_ACTIVATION_RELU, T, Source>);
      case GT_ACTIVATION_TANH: return run(normalise_channels_last<GT_ACTIVATION_TANH, T, Source>);
      default: return run(normalise_channels_last<GT_ACTIVATION_NONE, T, Source>);
    }
  }
  const int64_t steps = ceil_divide(d.s, static_cast<int64_t>(d.columns) * VEC<T>);
  return launch(normalise_channels_first<T, Source>,
                dim3(static_cast<unsigned>(d.c), grid_of(steps, MAX_STEPS), images), d.columns, 0, stream, to, from, d,
                source, activation);
}

// The first launch, which leaves each chunk's statistics in the workspace.
template <class T>
int launch_statistics(void *stream, const gt_tensor &x, const Deal &d, bool channels_last, const Workspace &workspace) {
  const NormImage<const T> from = norm_image_of<const T>(x, channels_last);
  const unsigned images = grid_of(d.b, MAX_GRID), chunks = static_cast<unsigned>(d.chunks);
  if (!channels_last)
    return launch(sum_channels_first<T>, dim3(static_cast<unsigned>(d.c), chunks, images), d.columns, 0, stream, from,
                  d, workspace);
  const dim3 grid(chunks, static_cast<unsigned>(ceil_divide(d.c, d.columns * VEC<T>)), images);
  return launch(sum_channels_last<T>, grid, THREADS, 0, stream, from, d, workspace);
}

Workspace workspace_of(const Deal &d, void *memory) {
  Workspace workspace;
  workspace.mean = static_cast<double *>(memory);
  workspace.squares = workspace.mean + d.b * d.chunks * d.row;
  workspace.coefficients = reinterpret_cast<float *>(workspace.squares + d.b * d.chunks * d.row);
  return workspace;
}

template <class T>
int launch_groupnorm(void *stream, const gt_tensor &y, const gt_tensor &x, const Groups &g, gt_activation activation,
                     void *memory) {
  const bool channels_last = is_channels_last(y, x);
  const Deal d = deal_of(x, channels_last);
  int error = 0;
  if (channels_last && strip::launch<T>(stream, y, x, g, activation, &error)) return error;
  const Workspace workspace = workspace_of(d, memory);
  error = launch_statistics<T>(stream, x, d, channels_last, workspace);
  if (!error)
    error = launch(join_group<T>, dim3(static_cast<unsigned>(g.groups), grid_of(d.b, MAX_GRID)), GROUP_THREADS, 0,
                   stream, d, workspace, g);
  if (error) return error;
  return launch_normalise<T>(stream, y, x, d, channels_last, FromWorkspace{workspace.coefficients, d.row, 3 * d.row},
                             activation);
}

template <class T>
int launch_batchnorm_train(void *stream, const gt_tensor &y, const gt_tensor &x, const BatchStatistics &o,
                           gt_activation activation, void *memory) {
  const bool channels_last = is_channels_last(y, x);
  const Deal d = deal_of(x, channels_last);
  const Workspace workspace = workspace_of(d, memory);
  int error = launch_statistics<T>(stream, x, d, channels_last, workspace);
  if (!error)
    error = launch(join_channel<T>, dim3(static_cast<unsigned>(d.c)), GROUP_THREADS, 0, stream, d, workspace, o);
  if (error) return error;
  return launch_normalise<T>(stream, y, x, d, channels_last, FromWorkspace{workspace.coefficients, d.row, 0},
                             activation);
}

}  // namespace

gt_status groupnorm_cuda(const gt_stream *stream, const gt_tensor *y, const gt_tensor *mean, const gt_tensor *rstd,
                         const gt_tensor *x, const gt_tensor *weight, const gt_tensor *bias, const gt_tensor *scale,
                         const gt_tensor *shift, int64_t groups, float eps, gt_activation activation,
                         const gt_tensor *workspace) {
  const Groups g = {groups, eps, data_of<float>(mean), data_of<float>(rstd), channel_parameter_of(weight),
                    channel_parameter_of(bias), channel_parameter_of(scale), channel_parameter_of(shift),
                    scale ? scale->stride[0] : 0, shift ? shift->stride[0] : 0};
  const int error = with_float(x->dtype, [&](auto zero) {
    return launch_groupnorm<decltype(zero)>(stream->handle, *y, *x, g, activation, workspace->data);
  });
  return status_of("groupnorm", error);
}

gt_status groupnorm_workspace_cuda(const gt_stream *, const gt_tensor *x, int64_t, int64_t *bytes) {
  *bytes = workspace_bytes(deal_of(*x, is_channels_last(*x, *x)));
  return GT_OK;
}

gt_status batchnorm_cuda(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x, const gt_tensor *mean,
                         const gt_tensor *var, const gt_tensor *weight, const gt_tensor *bias, float eps,
                         gt_activation activation) {
  const bool channels_last = is_channels_last(*y, *x);
  const int error = with_float(x->dtype, [&](auto zero) {
    using T = decltype(zero);
    const FromStatistics<T> source = {channel_parameter_of(mean), channel_parameter_of(var),
                                      channel_parameter_of(weight), channel_parameter_of(bias), eps};
    return launch_normalise<T>(stream->handle, *y, *x, deal_of(*x, channels_last), channels_last, source, activation);
  });
  return status_of("batchnorm", error);
}

gt_status batchnorm_train_cuda(const gt_stream *stream, const gt_tensor *y, const gt_tensor *mean,
                               const gt_tensor *rstd, const gt_tensor *running_mean, const gt_tensor *running_var,
                               const gt_tensor *x, const gt_tensor *weight, const gt_tensor *bias, float momentum,
                               float eps, gt_activation activation, const gt_tensor *workspace) {
  const BatchStatistics o = {momentum, eps, data_of<float>(mean), data_of<float>(rstd), data_of<float>(running_mean),
                             data_of<float>(running_var), channel_parameter_of(weight), channel_parameter_of(bias)};
  const int error = with_float(x->dtype, [&](auto zero) {
    return launch_batchnorm_train<decltype(zero)>(stream->handle, *y, *x, o, activation, workspace->data);
  });
  return status_of("batchnorm_train", error);
}

gt_status batchnorm_train_workspace_cuda(const gt_stream *stream, const gt_tensor *x, int64_t *bytes) {
  return groupnorm_workspace_cuda(stream, x, 1, bytes);
}

}  // namespace gt
