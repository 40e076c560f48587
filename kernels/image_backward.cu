// Gradients of upsampling and pooling on CUDA.
//
// Computes    gatun/image.h: upsample_nearest_backward the sum of dy over the pixels that show one of dx;
//             average_pool_backward dy / size^2; max_pool_backward the sum of dy over the windows whose maximum x is
// Shapes      images [B, H, W, C], any strides; x of max_pool_backward as dx
// Types       f32, bf16, f16; sums in f32, rounded once
// Mapping     a thread owns one 16-byte vector along C of one pixel of dx, or one element where that cannot be, and
//             gathers what its windows give it; threads walk dx in the order of B, H, W, C, with a grid-stride loop
// Memory      dx once; dy, and x of max_pool_backward size^2 times per window, from L2. Nothing shared
// Numerics    windows in ascending order, no atomics; the maximum of a window is found anew, of equal ones the first,
//             of NaNs the last. No elements: no launch
// Limits      16-byte accesses where all operands are contiguous along C, C fills whole vectors and every pixel starts
//             at a multiple of 16 bytes; sm_80 and later; nothing is UNSUPPORTED
// Source      none. Not yet measured on a GPU: bound by memory
#include "lib/cuda.h"

#include <cmath>

#include "check.h"
#include "gatun/image.h"
#include "image_pieces.h"
#include "lib/vec.h"

namespace gt {

decltype(gt_upsample_nearest_backward) upsample_nearest_backward_cuda;
decltype(gt_average_pool_backward) average_pool_backward_cuda;
decltype(gt_max_pool_backward) max_pool_backward_cuda;

namespace {

template <class T, int WIDTH> struct Channels {
  float value[WIDTH];

  __device__ __forceinline__ void load(const T *p) {
    const auto piece = *reinterpret_cast<const Pack<T, WIDTH> *>(p);
#pragma unroll
    for (int k = 0; k < WIDTH; ++k) value[k] = to_float(piece.element[k]);
  }
  __device__ __forceinline__ void store(T *p) const {
    Pack<T, WIDTH> piece;
#pragma unroll
    for (int k = 0; k < WIDTH; ++k) piece.element[k] = from_float<T>(value[k]);
    *reinterpret_cast<Pack<T, WIDTH> *>(p) = piece;
  }
};

// Pixel i of n shows in those of m from here on.
__device__ __forceinline__ int64_t first_shown(int64_t i, int64_t n, int64_t m) { return (i * m + n - 1) / n; }

template <class T, int WIDTH>
__global__ void __launch_bounds__(IMAGE_THREADS)
    upsample_backward_pieces(const Image<T> dx, const Image<const T> dy, int64_t pieces, int64_t per_pixel) {
  for_pieces(pieces, dx.h, dx.w, per_pixel, WIDTH, [&](const Place &p) {
    const int64_t end_u = first_shown(p.i + 1, dx.h, dy.h), end_v = first_shown(p.j + 1, dx.w, dy.w);
    const int64_t first_v = first_shown(p.j, dx.w, dy.w);
    Channels<T, WIDTH> sum = {}, next;
#pragma unroll 1
    for (int64_t u = first_shown(p.i, dx.h, dy.h); u < end_u; ++u)
#pragma unroll 1
      for (int64_t v = first_v; v < end_v; ++v) {
        next.load(dy.at(p.b, u, v, p.c));
#pragma unroll
        for (int k = 0; k < WIDTH; ++k) sum.value[k] += next.value[k];
      }
    sum.store(dx.at(p.b, p.i, p.j, p.c));
  });
}

template <class T, int WIDTH>
__global__ void __launch_bounds__(IMAGE_THREADS)
    average_backward_pieces(const Image<T> dx, const Image<const T> dy, int64_t pieces, int64_t per_pixel,
                            int64_t size) {
  const float factor = 1.0f / static_cast<float>(size * size);
  for_pieces(pieces, dx.h, dx.w, per_pixel, WIDTH, [&](const Place &p) {
    Channels<T, WIDTH> v = {};
    if (p.i / size < dy.h && p.j / size < dy.w) v.load(dy.at(p.b, p.i / size, p.j / size, p.c));
#pragma unroll
    for (int k = 0; k < WIDTH; ++k) v.value[k] *= factor;
    v.store(dx.at(p.b, p.i, p.j, p.c));
  });
}

struct Windows {
  int64_t size, stride, pad;
};

template <class T, int WIDTH>
__global__ void __launch_bounds__(IMAGE_THREADS)
    max_backward_pieces(const Image<T> dx, const Image<const T> dy, const Image<const T> x, int64_t pieces,
                        int64_t per_pixel, const Windows g) {
  for_pieces(pieces, dx.h, dx.w, per_pixel, WIDTH, [&](const Place &p) {
    Channels<T, WIDTH> sum = {}, next;
    const int64_t i = p.i + g.pad, j = p.j + g.pad;
    for (int64_t m = i < g.size ? 0 : (i - g.size) / g.stride + 1; m < dy.h && m <= i / g.stride; ++m)
      for (int64_t n = j < g.size ? 0 : (j - g.size) / g.stride + 1; n < dy.w && n <= j / g.stride; ++n) {
        const int64_t top = m * g.stride - g.pad, left = n * g.stride - g.pad;
        const int64_t first_u = top < 0 ? 0 : top, first_v = left < 0 ? 0 : left;
        float most[WIDTH];
#pragma unroll
        for (int k = 0; k < WIDTH; ++k) most[k] = -INFINITY;
        unsigned is_mine = 0;  // a bit per channel
#pragma unroll 1
        for (int64_t u = first_u; u < top + g.size && u < x.h; ++u)
#pragma unroll 1
          for (int64_t v = first_v; v < left + g.size && v < x.w; ++v) {
            next.load(x.at(p.b, u, v, p.c));
#pragma unroll
            for (int k = 0; k < WIDTH; ++k) {
              const float value = next.value[k];
              if ((u == first_u && v == first_v) || value > most[k] || value != value) {
                most[k] = value;
                is_mine = u == p.i && v == p.j ? is_mine | 1u << k : is_mine & ~(1u << k);
              }
            }
          }
        next.load(dy.at(p.b, m, n, p.c));
#pragma unroll
        for (int k = 0; k < WIDTH; ++k) sum.value[k] += is_mine >> k & 1 ? next.value[k] : 0.0f;
      }
    sum.store(dx.at(p.b, p.i, p.j, p.c));
  });
}

template <class T> int launch_upsample(void *stream, const gt_tensor &dx, const gt_tensor &dy) {
  const bool by_vectors = goes_by_vectors<T>(dx, dy);
  const int64_t width = by_vectors ? VEC<T> : 1, pieces = elements(dx) / width;
  const auto run = [&](auto kernel) {
    return launch(kernel, blocks_for(pieces), IMAGE_THREADS, 0, stream, image_of<T>(dx), image_of<const T>(dy), pieces,
                  dx.shape[3] / width);
  };
  return by_vectors ? run(upsample_backward_pieces<T, VEC<T>>) : run(upsample_backward_pieces<T, 1>);
}

template <class T> int launch_average(void *stream, const gt_tensor &dx, const gt_tensor &dy, int64_t size) {
  const bool by_vectors = goes_by_vectors<T>(dx, dy);
  const int64_t width = by_vectors ? VEC<T> : 1, pieces = elements(dx) / width;
  const auto run = [&](auto kernel) {
    return launch(kernel, blocks_for(pieces), IMAGE_THREADS, 0, stream, image_of<T>(dx), image_of<const T>(dy), pieces,
                  dx.shape[3] / width, size);
  };
  return by_vectors ? run(average_backward_pieces<T, VEC<T>>) : run(average_backward_pieces<T, 1>);
}

template <class T>
int launch_max(void *stream, const gt_tensor &dx, const gt_tensor &dy, const gt_tensor &x, const Windows &windows) {
  const bool by_vectors = goes_by_vectors<T>(dx, dy) && goes_by_vectors<T>(dx, x);
  const int64_t width = by_vectors ? VEC<T> : 1, pieces = elements(dx) / width;
  const auto run = [&](auto kernel) {
    return launch(kernel, blocks_for(pieces), IMAGE_THREADS, 0, stream, image_of<T>(dx), image_of<const T>(dy),
                  image_of<const T>(x), pieces, dx.shape[3] / width, windows);
  };
  return by_vectors ? run(max_backward_pieces<T, VEC<T>>) : run(max_backward_pieces<T, 1>);
}

}  // namespace

gt_status upsample_nearest_backward_cuda(const gt_stream *stream, const gt_tensor *dx, const gt_tensor *dy) {
  return status_of("upsample_nearest_backward", with_float(dx->dtype, [&](auto zero) {
                     return launch_upsample<decltype(zero)>(stream->handle, *dx, *dy);
                   }));
}

gt_status average_pool_backward_cuda(const gt_stream *stream, const gt_tensor *dx, const gt_tensor *dy, int64_t size) {
  return status_of("average_pool_backward", with_float(dx->dtype, [&](auto zero) {
                     return launch_average<decltype(zero)>(stream->handle, *dx, *dy, size);
                   }));
}

gt_status max_pool_backward_cuda(const gt_stream *stream, const gt_tensor *dx, const gt_tensor *dy, const gt_tensor *x,
                                 int64_t size, int64_t stride, int64_t pad) {
  return status_of("max_pool_backward", with_float(dx->dtype, [&](auto zero) {
                     return launch_max<decltype(zero)>(stream->handle, *dx, *dy, *x, Windows{size, stride, pad});
                   }));
}

}  // namespace gt
