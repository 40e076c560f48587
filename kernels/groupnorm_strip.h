// How does a cluster of blocks normalise groups of an image with a single read of it?
//
// Of channels-last images. A cluster of 1 to 8 blocks owns a strip of one image's channels: as many vectors of 16 bytes
// as hold whole groups; where these are fewer than 64 bytes, twice or four times as many. Each block keeps its share
// of the pixels in shared memory, in the storage type. Blocks tell each other mean and squared deviations of each group
// once, join them in their order, and normalise what they keep. A thread reads from there what it has copied itself.
#pragma once

#include <numeric>

#include "lib/activation.h"
#include "lib/async_copy.h"
#include "lib/cluster.h"
#include "lib/hopper.h"
#include "lib/norm_image.h"
#include "lib/reduce.h"
#include "lib/vec.h"

namespace gt {

constexpr int STATISTICS_VALUES = 32;  // of a thread at once when summing: 8 vectors of f32, 4 of 16 bits
template <class T> constexpr int STATISTICS_VECTORS = STATISTICS_VALUES / VEC<T>;

// sum += sum of what the first count >= 1 values differ by from `first`, one of their channel, square += that of its
// squares: in f64, but for what they differ by from their own mean m, so that nothing is lost of values that lie far
// from 0. With d = v - m and m counted from `first`, the sums are n m + sum d and sum d^2 + m (n m + 2 sum d), for the
// m that was rounded too.
template <int NUM>
__device__ __forceinline__ void add_values(const float (&v)[NUM], int count, float first, double &sum,
                                           double &square) {
  count = min(count, NUM);
  float total = 0.0f, s = 0.0f, q = 0.0f;
#pragma unroll
  for (int k = 0; k < NUM; ++k) total += k < count ? v[k] : 0.0f;
  const float mean = total * (1.0f / static_cast<float>(count));
#pragma unroll
  for (int k = 0; k < NUM; ++k) {
    const float d = k < count ? v[k] - mean : 0.0f;
    s += d;
    q += d * d;
  }
  const double m = static_cast<double>(mean) - static_cast<double>(first);
  const double d = static_cast<double>(s), all = static_cast<double>(count) * m;
  sum += all + d;
  square += static_cast<double>(q) + m * (all + 2.0 * d);
}

// The sum of squared deviations from the mean, of n values; not below 0 by a rounding. NaN stays.
__device__ __forceinline__ double deviations(double square, double sum, double n) {
  const double d = square - sum * sum / n;
  return d < 0 ? 0 : d;
}

struct Groups {
  int64_t groups;
  float eps;
  float *mean, *rstd;
  ChannelParameter weight, bias, scale, shift;
  int64_t stride_scale, stride_shift;

  // Of image b's group; thread-local.
  __device__ __forceinline__ void keep(int64_t b, int64_t group, double mean_of_group, double rstd_of_group) const {
    if (mean) mean[b * groups + group] = static_cast<float>(mean_of_group);
    if (rstd) rstd[b * groups + group] = static_cast<float>(rstd_of_group);
  }
};

// y = (x - mean) * factor + offset of one channel.
struct Coefficients {
  float mean, factor, offset;
  __device__ __forceinline__ float operator()(float x) const { return (x - mean) * factor + offset; }
};

// Of image b's channel c. What rounding the mean has lost is in the offset.
template <class T>
__device__ __forceinline__ Coefficients coefficients_of(const Groups &g, int64_t b, int64_t c, double mean,
                                                        double rstd) {
  double factor = rstd * static_cast<double>(parameter_at<T>(g.weight, c, 1.0f));
  double offset = static_cast<double>(parameter_at<T>(g.bias, c, 0.0f));
  if (g.scale.data) {
    const double scale = 1.0 + static_cast<double>(parameter_at<T>(g.scale, b * g.stride_scale + c, 0.0f));
    factor *= scale;
    offset = offset * scale + static_cast<double>(parameter_at<T>(g.shift, b * g.stride_shift + c, 0.0f));
  }
  const float rounded = static_cast<float>(mean);
  return {rounded, static_cast<float>(factor),
          static_cast<float>(offset - (mean - static_cast<double>(rounded)) * factor)};
}

namespace strip {

constexpr int THREADS = 256;
constexpr int MAX_GROUPS = 32;                // of a strip
constexpr int64_t STRIP_BYTES = 64;           // of a pixel, where the channels can be divided so
constexpr int64_t BLOCK_BYTES = 16 << 10;     // of pixels: with more a cluster has more blocks
constexpr int64_t FIXED_BYTES = 14 << 10;     // of shared memory, at most: the kernels' own variables

struct Deal {
  int64_t s;
  int columns, width, groups;  // vectors of a strip, channels of a group, groups of a strip
};

// The most threads, a power of two of a warp's, that each of so many items can have.
__device__ __forceinline__ int lanes_for(int items) {
  int lanes = 1;
  while (lanes < WARP && 2 * lanes * items <= THREADS) lanes *= 2;
  return lanes;
}

// For thread t: the sum of term(t / lanes, i) for i < count, shared by `lanes` threads; 0 from item `items` on. All
// threads of the block take part.
template <class Term>
__device__ __forceinline__ double sum_by_lanes(int items, int lanes, int count, Term term) {
  const int item = threadIdx.x / lanes;
  double sum = 0;
  if (item < items)
    for (int i = threadIdx.x % lanes; i < count; i += lanes) sum += term(item, i);
  for (int distance = lanes / 2; distance > 0; distance /= 2) sum += __shfl_xor_sync(ALL_LANES, sum, distance);
  return sum;
}

// The vector at `from` to the place in shared memory from which the same thread will read it, behind async_copy_wait.
template <class T> __device__ __forceinline__ void keep(Vector<T> *to, const T *from, bool aligned) {
  if (aligned) {
    async_copy_16(to, from, VEC_BYTES);
    return;
  }
#pragma unroll
  for (int j = 0; j < VEC<T>; ++j) to->element[j] = from[j];
}

// blockIdx.y: the strip, blockIdx.z: the image.
template <gt_activation ACTIVATION, class T>
__global__ void __launch_bounds__(THREADS, 2)
    groupnorm_strip_per_cluster(const NormImage<T> y, const NormImage<const T> x, const Deal d, const Groups g) {
  constexpr int VECTORS = STATISTICS_VECTORS<T>;
  __shared__ double means[MAX_CLUSTER][MAX_GROUPS], squares[MAX_CLUSTER][MAX_GROUPS];  // of each block's pixels
  __shared__ double group_mean[MAX_GROUPS], group_rstd[MAX_GROUPS];
  __shared__ Coefficients coefficients[WARP * VEC<T>];
  static_assert(sizeof means + sizeof squares + sizeof group_mean + sizeof group_rstd + sizeof coefficients <=
                FIXED_BYTES);
  GT_DYNAMIC_SMEM(Vector<T>, kept);  // [pixels, columns]; before it, of each thread and channel: sum, square
  cluster_arrive();
  double *const thread_sums = reinterpret_cast<double *>(kept), *const thread_squares = thread_sums + THREADS * VEC<T>;
  Vector<T> *const pixels = reinterpret_cast<Vector<T> *>(thread_squares + THREADS * VEC<T>);
  const int thread = threadIdx.x, rows = THREADS / d.columns, row = thread / d.columns, column = thread % d.columns;
  const int channels = d.columns * VEC<T>, rank = static_cast<int>(cluster_rank());
  const int size = static_cast<int>(cluster_size());
  const auto first_pixel = [&](int r) { return r * d.s / size; };
  const int part = static_cast<int>(first_pixel(rank + 1) - first_pixel(rank)), end = row < rows ? part : 0;
  const int64_t b = blockIdx.z, strip = static_cast<int64_t>(blockIdx.y) * channels;
  const T *const data = x.data + b * x.stride_b + first_pixel(rank) * x.stride_s + strip;
  const T *const mine = data + column * VEC<T>;
  for (int p = row; p < end; p += rows)
    keep(pixels + p * d.columns + column, mine + p * x.stride_s, x.is_aligned);
  async_copy_commit();
  Vector<T> first[1];
  load_vectors(mine, 0, 1, VEC<T>, x.is_aligned, first);
  async_copy_wait<0>();

  double sum[VEC<T>] = {}, square[VEC<T>] = {};
  for (int p = row; p < end; p += rows * VECTORS) {
    const int count = min((end - p + rows - 1) / rows, VECTORS);
    Vector<T> v[VECTORS];
#pragma unroll
    for (int k = 0; k < VECTORS; ++k) v[k] = pixels[(p + (k < count ? k * rows : 0)) * d.columns + column];
#pragma unroll
    for (int j = 0; j < VEC<T>; ++j) {
      float values[VECTORS];
#pragma unroll
      for (int k = 0; k < VECTORS; ++k) values[k] = to_float(v[k].element[j]);
      add_values(values, count, to_float(first[0].element[j]), sum[j], square[j]);
    }
  }
#pragma unroll
  for (int j = 0; j < VEC<T>; ++j) {
    thread_sums[thread * VEC<T> + j] = sum[j];
    thread_squares[thread * VEC<T> + j] = square[j];
  }
  __syncthreads();
  // of each channel, in the first row's places
  const int lanes = lanes_for(channels), active_rows = min(rows, part);
  const auto sum_of_channel = [&](const double *of_threads) {
    return sum_by_lanes(channels, lanes, active_rows, [&](int c, int r) { return of_threads[r * channels + c]; });
  };
  const double s = sum_of_channel(thread_sums), q = sum_of_channel(thread_squares);
  __syncthreads();
  if (const int c = thread / lanes; c < channels && thread % lanes == 0) {
    thread_sums[c] = static_cast<double>(to_float(data[c])) + s / part;
    thread_squares[c] = deviations(q, s, part);
  }
  __syncthreads();
  const int group_lanes = lanes_for(d.groups), group = thread / group_lanes;
  const auto sum_of_group = [&](auto term) {
    return sum_by_lanes(d.groups, group_lanes, d.width, [&](int n, int c) { return term(n * d.width + c); });
  };
  const double mean = sum_of_group([&](int c) { return thread_sums[c]; }) / d.width;
  const double deviation = sum_of_group([&](int c) {
    const double from_mean = thread_sums[c] - mean;
    return thread_squares[c] + from_mean * from_mean * part;
  });
  cluster_wait();
  if (group < d.groups)
    for (int r = thread % group_lanes; r < size; r += group_lanes) {
      cluster_store(&means[rank][group], r, mean);
      cluster_store(&squares[rank][group], r, deviation);
    }
  cluster_sync();
  if (thread < d.groups) {
    const auto sum_of_blocks = [&](auto term) {
      double total = 0;
      for (int r = 0; r < size; ++r) total += term(r, static_cast<double>(first_pixel(r + 1) - first_pixel(r)));
      return total;
    };
    const double pixels_in_all = static_cast<double>(d.s);
    const double m = sum_of_blocks([&](int r, double n) { return means[r][thread] * n; }) / pixels_in_all;
    const double all = sum_of_blocks([&](int r, double n) {
      const double from_mean = means[r][thread] - m;
      return squares[r][thread] + from_mean * from_mean * n * d.width;
    });
    group_mean[thread] = m;
    group_rstd[thread] = 1.0 / sqrt(all / (pixels_in_all * d.width) + static_cast<double>(g.eps));
    if (rank == 0) g.keep(b, strip / d.width + thread, m, group_rstd[thread]);
  }
  __syncthreads();
  if (thread < channels)
    coefficients[thread] =
        coefficients_of<T>(g, b, strip + thread, group_mean[thread / d.width], group_rstd[thread / d.width]);
  __syncthreads();
  Coefficients own[VEC<T>];
#pragma unroll
  for (int j = 0; j < VEC<T>; ++j) own[j] = coefficients[column * VEC<T> + j];
  T *const to = y.data + b * y.stride_b + first_pixel(rank) * y.stride_s + strip + column * VEC<T>;
#pragma unroll 2
  for (int p = row; p < end; p += rows) {
    const Vector<T> v = pixels[p * d.columns + column];
    float h[VEC<T>];
#pragma unroll
    for (int j = 0; j < VEC<T>; ++j) h[j] = own[j](to_float(v.element[j]));
    activate_all<ACTIVATION>(h);
    store_upto(to + p * y.stride_s, VEC<T>, y.is_aligned, h);
  }
}

// How a launch deals out strips; size 0: not at all.
struct Plan {
  Deal deal;
  unsigned size;  // blocks of a cluster
  dim3 grid;
  int64_t bytes;  // of a block's shared memory
};

// Of images [B, S, C], `kept` of which stay in shared memory. scratch(channels): the bytes that a block needs beside.
// None where there are no clusters, where C is not whole vectors, where a strip would be too wide, or does not fit into
// 8 blocks. Alignment does not matter to it: an image's bits do not depend on where it lies.
template <class T, class Scratch> Plan plan_of(const gt_tensor &x, int64_t groups, int kept, Scratch scratch) {
  const int64_t images = x.shape[0], s = x.shape[1], c = x.shape[2];
  Plan plan = {};
  if (!has_clusters() || c % VEC<T> != 0 || images > MAX_GRID) return plan;
  const int64_t width = c / groups;
  int64_t channels = std::lcm(width, int64_t{VEC<T>});
  if (channels > WARP * VEC<T>) return plan;
  while (channels * static_cast<int64_t>(sizeof(T)) < STRIP_BYTES && c % (2 * channels) == 0) channels *= 2;
  const int64_t columns = channels / VEC<T>, strips = c / channels, pixel = kept * columns * VEC_BYTES;
  unsigned size = 1;
  while (size < MAX_CLUSTER && s * pixel > size * BLOCK_BYTES) size *= 2;
  plan.bytes = scratch(channels) + ceil_divide(s, size) * pixel;
  if (plan.bytes + FIXED_BYTES > max_dynamic_shared_bytes() || strips > MAX_GRID) return plan;
  plan.deal = {s, static_cast<int>(columns), static_cast<int>(width), static_cast<int>(channels / width)};
  plan.grid = dim3(size, static_cast<unsigned>(strips), static_cast<unsigned>(images));
  plan.size = size;
  return plan;
}

// false: there is no plan.
template <class T>
bool launch(void *stream, const gt_tensor &y, const gt_tensor &x, const Groups &g, gt_activation activation,
            int *status) {
  const NormImage<T> to = norm_image_of<T>(y, true);
  const NormImage<const T> from = norm_image_of<const T>(x, true);
  const auto scratch = [](int64_t) { return 2 * THREADS * VEC<T> * static_cast<int64_t>(sizeof(double)); };
  const Plan plan = plan_of<T>(x, g.groups, 1, scratch);
  if (plan.size == 0) return false;
  const auto run = [&](auto kernel) {
    *status = launch_in_clusters(kernel, plan.grid, plan.size, THREADS, static_cast<size_t>(plan.bytes), stream, to,
                                 from, plan.deal, g);
  };
  switch (activation) {
    case GT_ACTIVATION_SILU: run(groupnorm_strip_per_cluster<GT_ACTIVATION_SILU, T>); break;
    case GT_ACTIVATION_RELU: run(groupnorm_strip_per_cluster<GT_ACTIVATION_RELU, T>); break;
    case GT_ACTIVATION_TANH: run(groupnorm_strip_per_cluster<GT_ACTIVATION_TANH, T>); break;
    default: run(groupnorm_strip_per_cluster<GT_ACTIVATION_NONE, T>);
  }
  return true;
}

}  // namespace strip
}  // namespace gt
