// Resampling, time steps and 8-bit pixels on CUDA.
//
// Computes    gatun/image.h: upsample_nearest y[b,i,j,c] = x[b, i H / H', j W / W', c]; average_pool the mean of size x
//             size pixels, max_pool their maximum; timestep_embedding sin and cos of t exp(-ln(10000) i / (E/2 -
//             shift)); rgb8 round(255 clamp(x scale + offset, 0, 1))
// Shapes      images [B, H, W, C], any strides; y of rgb8 [B, H, W, 3] contiguous; embeddings [B, E], any strides
// Types       f32, bf16, f16; sums in f32, rounded once; angles f32, their sines f64; pixels u8
// Mapping     a thread owns one 16-byte vector along C of one pixel of y, or one element where that cannot be; threads
//             walk y in the order of B, H, W, C, with a grid-stride loop. timestep_embedding: a thread per angle;
//             rgb8: a thread per pixel
// Memory      y once; x once from DRAM: what several pixels of y show comes from L2. Nothing shared
// Numerics    average_pool sums row by row from 0. NaN stays in its pixel, and is 0 in rgb8. No elements: no launch
// Limits      16-byte accesses where x and y are contiguous along C, C fills whole vectors and every pixel starts at a
//             multiple of 16 bytes; sm_80 and later; nothing is UNSUPPORTED
// Source      none. Not yet measured on a GPU: bound by memory
#include "lib/cuda.h"

#include <cmath>

#include "check.h"
#include "gatun/image.h"
#include "image_pieces.h"
#include "lib/vec.h"

namespace gt {

decltype(gt_upsample_nearest) upsample_nearest_cuda;
decltype(gt_average_pool) average_pool_cuda;
decltype(gt_max_pool) max_pool_cuda;
decltype(gt_timestep_embedding) timestep_embedding_cuda;
decltype(gt_rgb8) rgb8_cuda;

namespace {

// Piece: an element, or a vector of them.
template <class Piece, class T>
__global__ void __launch_bounds__(IMAGE_THREADS) upsample_pieces(const Image<T> y, const Image<const T> x,
                                                                 int64_t pieces, int64_t per_pixel) {
  constexpr int WIDTH = sizeof(Piece) / sizeof(T);
  for_pieces(pieces, y.h, y.w, per_pixel, WIDTH, [&](const Place &p) {
    *reinterpret_cast<Piece *>(y.at(p.b, p.i, p.j, p.c)) =
        *reinterpret_cast<const Piece *>(x.at(p.b, p.i * x.h / y.h, p.j * x.w / y.w, p.c));
  });
}

template <class T, int WIDTH>
__global__ void __launch_bounds__(IMAGE_THREADS) pool_pieces(const Image<T> y, const Image<const T> x, int64_t pieces,
                                                             int64_t per_pixel, int64_t size) {
  using Piece = Pack<T, WIDTH>;
  const float factor = 1.0f / static_cast<float>(size * size);
  for_pieces(pieces, y.h, y.w, per_pixel, WIDTH, [&](const Place &p) {
    float sum[WIDTH] = {};
    for (int64_t u = 0; u < size; ++u)
      for (int64_t v = 0; v < size; ++v) {
        const Piece piece = *reinterpret_cast<const Piece *>(x.at(p.b, p.i * size + u, p.j * size + v, p.c));
#pragma unroll
        for (int k = 0; k < WIDTH; ++k) sum[k] += to_float(piece.element[k]);
      }
    Piece mean;
#pragma unroll
    for (int k = 0; k < WIDTH; ++k) mean.element[k] = from_float<T>(sum[k] * factor);
    *reinterpret_cast<Piece *>(y.at(p.b, p.i, p.j, p.c)) = mean;
  });
}

template <class T, int WIDTH>
__global__ void __launch_bounds__(IMAGE_THREADS) max_pool_pieces(const Image<T> y, const Image<const T> x,
                                                                 int64_t pieces, int64_t per_pixel, int64_t size,
                                                                 int64_t stride, int64_t pad) {
  using Piece = Pack<T, WIDTH>;
  for_pieces(pieces, y.h, y.w, per_pixel, WIDTH, [&](const Place &p) {
    float most[WIDTH];
#pragma unroll
    for (int k = 0; k < WIDTH; ++k) most[k] = -INFINITY;
    const int64_t top = p.i * stride - pad, left = p.j * stride - pad;
    for (int64_t u = top < 0 ? 0 : top; u < top + size && u < x.h; ++u)
      for (int64_t v = left < 0 ? 0 : left; v < left + size && v < x.w; ++v) {
        const Piece piece = *reinterpret_cast<const Piece *>(x.at(p.b, u, v, p.c));
#pragma unroll
        for (int k = 0; k < WIDTH; ++k) {
          const float value = to_float(piece.element[k]);
          if (value > most[k] || value != value) most[k] = value;
        }
      }
    Piece result;
#pragma unroll
    for (int k = 0; k < WIDTH; ++k) result.element[k] = from_float<T>(most[k]);
    *reinterpret_cast<Piece *>(y.at(p.b, p.i, p.j, p.c)) = result;
  });
}

template <class T> struct Embedding {
  T *y;
  const float *timesteps;
  const int32_t *counter;
  int64_t stride_b, stride_e, b, e, steps;
  bool cosines_first;
  float shift;
};

template <class T> __global__ void __launch_bounds__(IMAGE_THREADS) embed_timesteps(const Embedding<T> o) {
  const int64_t half = o.e / 2, columns = half + o.e % 2;
  for (int64_t n = static_cast<int64_t>(blockIdx.x) * IMAGE_THREADS + threadIdx.x; n < o.b * columns;
       n += static_cast<int64_t>(gridDim.x) * IMAGE_THREADS) {
    const int64_t b = n / columns, i = n % columns;
    const int64_t at = o.counter ? *o.counter : b;
    const float t = at >= 0 && at < o.steps ? o.timesteps[at] : NAN;
    const auto put = [&](int64_t column, float v) { o.y[b * o.stride_b + column * o.stride_e] = from_float<T>(v); };
    if (i == half) {
      put(o.e - 1, at >= 0 && at < o.steps ? 0.0f : NAN);
      continue;
    }
    // each step rounded to f32, as a chain of f32 tensor operations rounds it
    const float exponent = -9.210340371976184f * static_cast<float>(i) / (static_cast<float>(half) - o.shift);
    const double angle = static_cast<double>(t * static_cast<float>(exp(static_cast<double>(exponent))));
    put(o.cosines_first ? half + i : i, static_cast<float>(sin(angle)));
    put(o.cosines_first ? i : half + i, static_cast<float>(cos(angle)));
  }
}

template <class T>
__global__ void __launch_bounds__(IMAGE_THREADS) pixels_of(uint8_t *y, const Image<const T> x, int64_t pixels,
                                                     int64_t channel, float scale, float offset) {
  for_pieces(pixels, x.h, x.w, 1, 1, [&](const Place &p) {
    const T *const from = x.at(p.b, p.i, p.j, 0);
    uint8_t *const to = y + ((p.b * x.h + p.i) * x.w + p.j) * 3;
#pragma unroll
    for (int k = 0; k < 3; ++k) {
      const float v = fmaf(to_float(from[k * channel]), scale, offset);
      const float bounded = v > 0.0f ? (v < 1.0f ? v : 1.0f) : 0.0f;  // NaN is not above 0
      to[k] = static_cast<uint8_t>(rintf(255.0f * bounded));
    }
  });
}

template <class T> int launch_upsample(void *stream, const gt_tensor &y, const gt_tensor &x) {
  const bool by_vectors = goes_by_vectors<T>(y, x);
  const int64_t width = by_vectors ? VEC<T> : 1, pieces = elements(y) / width;
  const auto run = [&](auto kernel) {
    return launch(kernel, blocks_for(pieces), IMAGE_THREADS, 0, stream, image_of<T>(y), image_of<const T>(x), pieces,
                  y.shape[3] / width);
  };
  return by_vectors ? run(upsample_pieces<Vector<T>, T>) : run(upsample_pieces<T, T>);
}

template <class T> int launch_pool(void *stream, const gt_tensor &y, const gt_tensor &x, int64_t size) {
  const bool by_vectors = goes_by_vectors<T>(y, x);
  const int64_t width = by_vectors ? VEC<T> : 1, pieces = elements(y) / width;
  const auto run = [&](auto kernel) {
    return launch(kernel, blocks_for(pieces), IMAGE_THREADS, 0, stream, image_of<T>(y), image_of<const T>(x), pieces,
                  y.shape[3] / width, size);
  };
  return by_vectors ? run(pool_pieces<T, VEC<T>>) : run(pool_pieces<T, 1>);
}

template <class T>
int launch_max_pool(void *stream, const gt_tensor &y, const gt_tensor &x, int64_t size, int64_t step, int64_t pad) {
  const bool by_vectors = goes_by_vectors<T>(y, x);
  const int64_t width = by_vectors ? VEC<T> : 1, pieces = elements(y) / width;
  const auto run = [&](auto kernel) {
    return launch(kernel, blocks_for(pieces), IMAGE_THREADS, 0, stream, image_of<T>(y), image_of<const T>(x), pieces,
                  y.shape[3] / width, size, step, pad);
  };
  return by_vectors ? run(max_pool_pieces<T, VEC<T>>) : run(max_pool_pieces<T, 1>);
}

}  // namespace

gt_status upsample_nearest_cuda(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x) {
  // bits are moved as they are
  const int error = y->dtype == GT_F32 ? launch_upsample<uint32_t>(stream->handle, *y, *x)
                                       : launch_upsample<uint16_t>(stream->handle, *y, *x);
  return status_of("upsample_nearest", error);
}

gt_status average_pool_cuda(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x, int64_t size) {
  return status_of("average_pool", with_float(y->dtype, [&](auto zero) {
                     return launch_pool<decltype(zero)>(stream->handle, *y, *x, size);
                   }));
}

gt_status max_pool_cuda(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x, int64_t size, int64_t step,
                        int64_t pad) {
  return status_of("max_pool", with_float(y->dtype, [&](auto zero) {
                     return launch_max_pool<decltype(zero)>(stream->handle, *y, *x, size, step, pad);
                   }));
}

gt_status timestep_embedding_cuda(const gt_stream *stream, const gt_tensor *y, const gt_tensor *timesteps,
                                  const gt_tensor *counter, int32_t flip, float shift) {
  return status_of("timestep_embedding", with_float(y->dtype, [&](auto zero) {
                     using T = decltype(zero);
                     const Embedding<T> o = {static_cast<T *>(y->data), static_cast<const float *>(timesteps->data),
                                             counter ? static_cast<const int32_t *>(counter->data) : nullptr,
                                             y->stride[0], y->stride[1], y->shape[0], y->shape[1],
                                             timesteps->shape[0], flip != 0, shift};
                     return launch(embed_timesteps<T>, blocks_for(o.b * (o.e - o.e / 2)), IMAGE_THREADS, 0,
                                   stream->handle, o);
                   }));
}

gt_status rgb8_cuda(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x, float scale, float offset) {
  const int64_t pixels = elements(*y) / 3;
  return status_of("rgb8", with_float(x->dtype, [&](auto zero) {
                     using T = decltype(zero);
                     return launch(pixels_of<T>, blocks_for(pixels), IMAGE_THREADS, 0, stream->handle,
                                   static_cast<uint8_t *>(y->data), image_of<const T>(*x), pixels,
                                   x->shape[3] == 1 ? int64_t{0} : x->stride[3], scale, offset);
                   }));
}

}  // namespace gt
