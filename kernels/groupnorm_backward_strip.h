// How does a cluster of blocks make the gradient of group norm with a single read of x and dy?
//
// As groupnorm_strip.h: a cluster per strip of one image's channels, whose blocks keep x and dy of their pixels in
// shared memory. They tell each other the sums of d and d (x - mean) of each channel, add them in their order, and make
// dx of what they keep. The first block leaves the channels' sums, for the sums over images, and the gradients of scale
// and shift.
#pragma once

#include "groupnorm_strip.h"

namespace gt {

// What a channel of an image is normalised with.
struct Source {
  const float *mean, *rstd;
  int64_t groups, width;  // groups 0: a batch norm
  ChannelParameter weight, bias, scale, shift;
  int64_t stride_scale, stride_shift;

  __device__ __forceinline__ int64_t statistic(int64_t b, int64_t c) const {
    return groups == 0 ? c : b * groups + c / width;
  }
  template <class T> __device__ __forceinline__ double one_plus_scale(int64_t b, int64_t c) const {
    return 1.0 + static_cast<double>(parameter_at<T>(scale, b * stride_scale + c, 0.0f));
  }
};

// z = (x - mean) * factor + offset of one channel, and what rounding factor and offset to f32 lost: that error would be
// the same for all pixels, and grow with their number in a sum.
struct Channel {
  float mean, factor, offset, factor_lost, offset_lost;

  __device__ __forceinline__ float z(float x) const {
    const float h = x - mean;
    return h * factor + offset + (h * factor_lost + offset_lost);
  }
};

template <class T> __device__ __forceinline__ Channel channel_of(const Source &source, int64_t b, int64_t c) {
  const auto widened = [](float v) { return static_cast<double>(v); };
  const double scale = source.one_plus_scale<T>(b, c);
  const double factor =
      widened(source.rstd[source.statistic(b, c)]) * widened(parameter_at<T>(source.weight, c, 1.0f)) * scale;
  const double offset = widened(parameter_at<T>(source.bias, c, 0.0f)) * scale +
                        widened(parameter_at<T>(source.shift, b * source.stride_shift + c, 0.0f));
  const float rounded_factor = static_cast<float>(factor), rounded_offset = static_cast<float>(offset);
  return {source.mean[source.statistic(b, c)], rounded_factor, rounded_offset,
          static_cast<float>(factor - widened(rounded_factor)), static_cast<float>(offset - widened(rounded_offset))};
}

// Inputs x, dy; sums of d and d (x - mean); dx = d k[0] + (x - mean) k[1] + k[2].
struct Backward {
  static constexpr int IN = 2, SUMS = 2, COEFFICIENTS = 3, OUT = 1;
  static constexpr int SIDE_BY_SIDE = 4;  // derivatives: with 8 the sums' kernels would spill
  gt_activation activation;

  // Of the elements of a vector, number j of channel_of(j): dy becomes d. Then add or apply.
  template <int N, class ChannelOf>
  __device__ __forceinline__ void prepare(float (&in)[N][IN], ChannelOf channel_of) const {
    if (activation == GT_ACTIVATION_NONE) return;
#pragma unroll
    for (int first = 0; first < N; first += SIDE_BY_SIDE) {
      float derivative[SIDE_BY_SIDE];
#pragma unroll
      for (int j = 0; j < SIDE_BY_SIDE; ++j) derivative[j] = channel_of(first + j).z(in[first + j][0]);
      activation_derivatives(derivative, activation);
#pragma unroll
      for (int j = 0; j < SIDE_BY_SIDE; ++j) in[first + j][1] = __fmul_rn(in[first + j][1], derivative[j]);
    }
  }
  __device__ __forceinline__ void add(const float (&in)[IN], const Channel &c, float (&sum)[SUMS]) const {
    sum[0] += in[1];
    sum[1] = fmaf(in[1], in[0] - c.mean, sum[1]);  // or the compiler chooses, for each element of a vector by itself
  }
  __device__ __forceinline__ void apply(const float (&in)[IN], const Channel &c, const float (&k)[COEFFICIENTS],
                                        float (&out)[OUT]) const {
    out[0] = in[1] * k[0] + (in[0] - c.mean) * k[1] + k[2];
  }
};

// Gradients [B, C] of scale and shift in T; NULL: not wanted.
struct ModulationGradients {
  void *dscale, *dshift;
  int64_t stride_dscale, stride_dshift;

  // From the sums of d and of d h over image b's channel c.
  template <class T>
  __device__ __forceinline__ void put(const Source &source, int64_t b, int64_t c, double sum_d, double sum_dh) const {
    const auto store = [&](void *to, int64_t stride, double value) {
      if (to) static_cast<T *>(to)[b * stride + c] = from_float<T>(static_cast<float>(value));
    };
    store(dscale, stride_dscale,
          static_cast<double>(parameter_at<T>(source.weight, c, 1.0f)) * sum_dh +
              static_cast<double>(parameter_at<T>(source.bias, c, 0.0f)) * sum_d);
    store(dshift, stride_dshift, sum_d);
  }
};

// dx = d k[0] + (x - mean) k[1] + k[2], from E(g) and E(g h).
__device__ __forceinline__ void set_dx(float *k, int64_t c, double rstd, double scaled_weight, double mean_g,
                                       double mean_gh) {
  k[0] = static_cast<float>(rstd * scaled_weight);
  k[c] = static_cast<float>(-rstd * rstd * mean_gh);
  k[2 * c] = static_cast<float>(-rstd * mean_g);
}

namespace strip {

// blockIdx.y: the strip, blockIdx.z: the image. joined [b, 2, c]: what dbias and dweight add up.
template <class T>
__global__ void __launch_bounds__(THREADS, 2)
    groupnorm_backward_strip_per_cluster(const Backward op, const NormImage<T> dx, const NormImage<const T> x,
                                         const NormImage<const T> dy, const Deal d, const Source source,
                                         const ModulationGradients out, double *joined) {
  constexpr int MAX_CHANNELS = WARP * VEC<T>;
  __shared__ Channel shared_channels[MAX_CHANNELS];
  __shared__ double totals[2][MAX_CHANNELS];  // of d, of d h
  __shared__ double means[2][MAX_GROUPS];     // of g, of g h
  __shared__ float coefficients[Backward::COEFFICIENTS][MAX_CHANNELS];
  // [2, MAX_CLUSTER, channels] of sums; behind them [2, threads, VEC] in f32; x and dy [pixels, columns]
  GT_DYNAMIC_SMEM(double, dynamic);
  cluster_arrive();
  const int thread = threadIdx.x, rows = THREADS / d.columns, row = thread / d.columns, column = thread % d.columns;
  const int channels = d.columns * VEC<T>, rank = static_cast<int>(cluster_rank());
  const int size = static_cast<int>(cluster_size());
  const auto told = [&](int k, int r) { return dynamic + (k * static_cast<int>(MAX_CLUSTER) + r) * channels; };
  float *const thread_sums = reinterpret_cast<float *>(told(2, 0));
  Vector<T> *const kept_x = reinterpret_cast<Vector<T> *>(thread_sums + 2 * THREADS * VEC<T>);
  const auto first_pixel = [&](int r) { return r * d.s / size; };
  const int part = static_cast<int>(first_pixel(rank + 1) - first_pixel(rank)), end = row < rows ? part : 0;
  Vector<T> *const kept_dy = kept_x + part * d.columns;
  const int64_t b = blockIdx.z, strip = static_cast<int64_t>(blockIdx.y) * channels;
  const auto mine = [&](const auto &image) {
    return image.data + b * image.stride_b + first_pixel(rank) * image.stride_s + strip + column * VEC<T>;
  };
  for (int p = row; p < end; p += rows) {
    keep(kept_x + p * d.columns + column, mine(x) + p * x.stride_s, x.is_aligned);
    keep(kept_dy + p * d.columns + column, mine(dy) + p * dy.stride_s, dy.is_aligned);
  }
  async_copy_commit();
  if (thread < channels) shared_channels[thread] = channel_of<T>(source, b, strip + thread);
  __syncthreads();
  Channel own[VEC<T>];
#pragma unroll
  for (int j = 0; j < VEC<T>; ++j) own[j] = shared_channels[column * VEC<T> + j];
  async_copy_wait<0>();

  // f(p, x and d of a vector) for all that the thread keeps
  const auto for_each_vector = [&](auto f) {
#pragma unroll 2
    for (int p = row; p < end; p += rows) {
      const Vector<T> packed_x = kept_x[p * d.columns + column], packed_dy = kept_dy[p * d.columns + column];
      float in[VEC<T>][Backward::IN];
#pragma unroll
      for (int j = 0; j < VEC<T>; ++j) {
        in[j][0] = to_float(packed_x.element[j]);
        in[j][1] = to_float(packed_dy.element[j]);
      }
      op.prepare(in, [&](int j) { return own[j]; });
      f(p, in);
    }
  };
  float sum[VEC<T>][Backward::SUMS] = {};
  for_each_vector([&](int, const auto &in) {
#pragma unroll
    for (int j = 0; j < VEC<T>; ++j) op.add(in[j], own[j], sum[j]);
  });
#pragma unroll
  for (int k = 0; k < 2; ++k)
#pragma unroll
    for (int j = 0; j < VEC<T>; ++j) thread_sums[(k * THREADS + thread) * VEC<T> + j] = sum[j][k];
  __syncthreads();
  cluster_wait();
  const int lanes = lanes_for(channels), active_rows = min(rows, part), channel = thread / lanes;
#pragma unroll
  for (int k = 0; k < 2; ++k) {
    const double of_block = sum_by_lanes(channels, lanes, active_rows, [&](int c, int r) {
      return static_cast<double>(thread_sums[k * THREADS * VEC<T> + r * channels + c]);
    });
    if (channel < channels)
      for (int r = thread % lanes; r < size; r += lanes) cluster_store(told(k, rank) + channel, r, of_block);
  }
  cluster_sync();
  const auto rstd_of = [&](int c) { return static_cast<double>(source.rstd[source.statistic(b, strip + c)]); };
  const auto scaled_weight = [&](int c) {
    return static_cast<double>(parameter_at<T>(source.weight, strip + c, 1.0f)) *
           source.one_plus_scale<T>(b, strip + c);
  };
  if (thread < channels) {
    double all[2] = {};
    for (int r = 0; r < size; ++r)
      for (int k = 0; k < 2; ++k) all[k] += told(k, r)[thread];
    totals[0][thread] = all[0];
    totals[1][thread] = all[1] * rstd_of(thread);
  }
  __syncthreads();
  const int group_lanes = lanes_for(d.groups), group = thread / group_lanes;
  const double n = static_cast<double>(d.s) * d.width;
#pragma unroll
  for (int k = 0; k < 2; ++k) {
    const double of_group = sum_by_lanes(d.groups, group_lanes, d.width, [&](int g, int c) {
      return scaled_weight(g * d.width + c) * totals[k][g * d.width + c];
    });
    if (group < d.groups && thread % group_lanes == 0) means[k][group] = of_group / n;
  }
  __syncthreads();
  if (thread < channels) {
    const int64_t c = strip + thread;
    const double sum_d = totals[0][thread], sum_dh = totals[1][thread], scale = source.one_plus_scale<T>(b, c);
    set_dx(&coefficients[0][thread], MAX_CHANNELS, rstd_of(thread), scaled_weight(thread), means[0][thread / d.width],
           means[1][thread / d.width]);
    if (rank == 0) {
      out.put<T>(source, b, c, sum_d, sum_dh);
      const int64_t all = source.groups * source.width;
      joined[b * 2 * all + c] = sum_d * scale;
      joined[(b * 2 + 1) * all + c] = sum_dh * scale;
    }
  }
  __syncthreads();
  float k[VEC<T>][Backward::COEFFICIENTS];
#pragma unroll
  for (int j = 0; j < VEC<T>; ++j)
#pragma unroll
    for (int i = 0; i < Backward::COEFFICIENTS; ++i) k[j][i] = coefficients[i][column * VEC<T> + j];
  T *const to = dx.data + b * dx.stride_b + first_pixel(rank) * dx.stride_s + strip + column * VEC<T>;
  for_each_vector([&](int p, const auto &in) {
    float result[VEC<T>];
#pragma unroll
    for (int j = 0; j < VEC<T>; ++j) {
      float of_element[Backward::OUT];
      op.apply(in[j], own[j], k[j], of_element);
      result[j] = of_element[0];
    }
    store_upto(to + p * dx.stride_s, VEC<T>, dx.is_aligned, result);
  });
}

// false: there is no plan (groupnorm_strip.h). Leaves joined for the sums over images.
template <class T>
bool launch_backward(void *stream, const Backward &op, const gt_tensor &dx, const gt_tensor &x, const gt_tensor &dy,
                     const Source &source, const ModulationGradients &out, double *joined, int *status) {
  const NormImage<T> to = norm_image_of<T>(dx, true);
  const NormImage<const T> from_x = norm_image_of<const T>(x, true), from_dy = norm_image_of<const T>(dy, true);
  const auto scratch = [](int64_t channels) {
    return 2 * MAX_CLUSTER * channels * static_cast<int64_t>(sizeof(double)) +
           2 * THREADS * VEC<T> * static_cast<int64_t>(sizeof(float));
  };
  const Plan plan = plan_of<T>(x, source.groups, 2, scratch);
  if (plan.size == 0) return false;
  *status = launch_in_clusters(groupnorm_backward_strip_per_cluster<T>, plan.grid, plan.size, THREADS,
                               static_cast<size_t>(plan.bytes), stream, op, to, from_x, from_dy, plan.deal, source, out,
                               joined);
  return true;
}

}  // namespace strip
}  // namespace gt
