// Gradients of upsampling and pooling: checks of arguments, dispatch, and the CPU twin of image_backward.cu.
#include "gatun/image.h"

#include "check.h"
#include "cpu/isa.h"

#if defined(GT_ISA)
// Computes    gatun/image.h, the gradients
// Mapping     rows of dx's pixels are split over threads; a pixel gathers what its own windows give it, W channels at a
//             time
// Memory      dx once; dy and x from the cache where several windows or pixels meet
// Numerics    f32 sums over windows in ascending order; the maximum of a window is found anew
#include "cpu/parallel.h"
#include "cpu/row.h"

namespace gt::GT_ISA {
namespace {

GT_INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
GT_INLINE int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

// The next up to W channels of a pixel.
template <class T>
GT_INLINE vf load_channels(const gt_tensor &t, int64_t b, int64_t i, int64_t j, int64_t c) {
  const T *p = static_cast<const T *>(t.data) + b * t.stride[0] + i * t.stride[1] + j * t.stride[2] + c * t.stride[3];
  const int64_t left = t.shape[3] - c;
  if (t.stride[3] == 1) return load_up_to(p, left);
  vf v{};
  for (int64_t k = 0; k < smaller(W, left); ++k) v[k] = to_float(p[k * t.stride[3]]);
  return v;
}
template <class T>
GT_INLINE void store_channels(const gt_tensor &t, int64_t b, int64_t i, int64_t j, int64_t c, vf v) {
  T *p = static_cast<T *>(t.data) + b * t.stride[0] + i * t.stride[1] + j * t.stride[2] + c * t.stride[3];
  const int64_t left = t.shape[3] - c;
  if (t.stride[3] == 1) return store_up_to(p, v, left);
  for (int64_t k = 0; k < smaller(W, left); ++k) from_float(v[k], p + k * t.stride[3]);
}

// dx = f(b, i, j, c) for W channels at a time; cost of an element in the units of parallel_for.
template <class T, class F>
void for_pixels(const gt_stream *stream, const gt_tensor &dx, int64_t cost, const F &f) {
  const int64_t h = dx.shape[1], w = dx.shape[2], channels = dx.shape[3];
  parallel_for(stream, dx.shape[0] * h, cost * w * channels, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row)
      for (int64_t j = 0; j < w; ++j)
        for (int64_t c = 0; c < channels; c += W)
          store_channels<T>(dx, row / h, row % h, j, c, f(row / h, row % h, j, c));
  });
}

template <class T>
void upsample_backward(const gt_stream *stream, const gt_tensor &dx, const gt_tensor &dy) {
  // pixel i of n shows in those of m from ceil(i m / n) on
  const auto first = [](int64_t i, int64_t n, int64_t m) { return (i * m + n - 1) / n; };
  const int64_t h = dx.shape[1], w = dx.shape[2], rows = dy.shape[1], columns = dy.shape[2];
  const int64_t shown = h > 0 && w > 0 ? rows * columns / (h * w) + 1 : 1;
  for_pixels<T>(stream, dx, shown, [&](int64_t b, int64_t i, int64_t j, int64_t c) {
    vf sum{};
    for (int64_t u = first(i, h, rows); u < first(i + 1, h, rows); ++u)
      for (int64_t v = first(j, w, columns); v < first(j + 1, w, columns); ++v)
        sum += load_channels<T>(dy, b, u, v, c);
    return sum;
  });
}

template <class T>
void average_backward(const gt_stream *stream, const gt_tensor &dx, const gt_tensor &dy, int64_t size) {
  const float factor = 1.0f / static_cast<float>(size * size);
  for_pixels<T>(stream, dx, 1, [&](int64_t b, int64_t i, int64_t j, int64_t c) {
    const bool inside = i / size < dy.shape[1] && j / size < dy.shape[2];
    return inside ? load_channels<T>(dy, b, i / size, j / size, c) * factor : vf{};
  });
}

template <class T>
void max_backward(const gt_stream *stream, const gt_tensor &dx, const gt_tensor &dy, const gt_tensor &x, int64_t size,
                  int64_t step, int64_t pad) {
  // windows that hold pixel i begin with the first and end before the last of these
  const auto first = [&](int64_t i) { return i + pad < size ? 0 : (i + pad - size) / step + 1; };
  const auto end = [&](int64_t i, int64_t outs) { return smaller(outs, (i + pad) / step + 1); };
  const int64_t h = x.shape[1], w = x.shape[2];
  for_pixels<T>(stream, dx, 2 * size * size, [&](int64_t b, int64_t i, int64_t j, int64_t c) {
    vf sum{};
    for (int64_t m = first(i); m < end(i, dy.shape[1]); ++m)
      for (int64_t n = first(j); n < end(j, dy.shape[2]); ++n) {
        const int64_t top = larger(m * step - pad, 0), bottom = smaller(m * step - pad + size, h);
        const int64_t left = larger(n * step - pad, 0), right = smaller(n * step - pad + size, w);
        vf most = broadcast(-__builtin_inff());
        vi is_mine = (vi)vu{};
        for (int64_t u = top; u < bottom; ++u)
          for (int64_t v = left; v < right; ++v) {
            const vf value = load_channels<T>(x, b, u, v, c);
            vi takes = (value > most) | (value != value);
            if (u == top && v == left) takes = ~(vi)vu{};
            most = select(takes, value, most);
            is_mine = u == i && v == j ? is_mine | takes : is_mine & ~takes;
          }
        sum += select(is_mine, load_channels<T>(dy, b, m, n, c), vf{});
      }
    return sum;
  });
}

}  // namespace

gt_status upsample_nearest_backward_cpu(const gt_stream *stream, const gt_tensor *dx, const gt_tensor *dy) {
  with_float(dx->dtype, [&](auto zero) { upsample_backward<decltype(zero)>(stream, *dx, *dy); });
  return GT_OK;
}

gt_status average_pool_backward_cpu(const gt_stream *stream, const gt_tensor *dx, const gt_tensor *dy, int64_t size) {
  with_float(dx->dtype, [&](auto zero) { average_backward<decltype(zero)>(stream, *dx, *dy, size); });
  return GT_OK;
}

gt_status max_pool_backward_cpu(const gt_stream *stream, const gt_tensor *dx, const gt_tensor *dy, const gt_tensor *x,
                                int64_t size, int64_t stride, int64_t pad) {
  with_float(dx->dtype, [&](auto zero) { max_backward<decltype(zero)>(stream, *dx, *dy, *x, size, stride, pad); });
  return GT_OK;
}

}  // namespace gt::GT_ISA

#else

#include "image_check.h"

GT_DECLARE_OP(upsample_nearest_backward)
GT_DECLARE_OP(average_pool_backward)
GT_DECLARE_OP(max_pool_backward)

extern "C" gt_status gt_upsample_nearest_backward(const gt_stream *stream, const gt_tensor *dx, const gt_tensor *dy) {
  gt::Check check("upsample_nearest_backward", stream);
  gt::check_upsampling(check, {"dy", "dx", dy, dx});
  if (!check.ok() || gt::elements(*dx) == 0) return check.status();
  return GT_RUN(upsample_nearest_backward, stream, dx, dy);
}

extern "C" gt_status gt_average_pool_backward(const gt_stream *stream, const gt_tensor *dx, const gt_tensor *dy,
                                              int64_t size) {
  gt::Check check("average_pool_backward", stream);
  gt::check_average_pool(check, {"dy", "dx", dy, dx}, size);
  if (!check.ok() || gt::elements(*dx) == 0) return check.status();
  return GT_RUN(average_pool_backward, stream, dx, dy, size);
}

extern "C" gt_status gt_max_pool_backward(const gt_stream *stream, const gt_tensor *dx, const gt_tensor *dy,
                                          const gt_tensor *x, int64_t size, int64_t stride, int64_t pad) {
  gt::Check check("max_pool_backward", stream);
  gt::check_max_pool(check, {"dy", "x", dy, x}, size, stride, pad);
  check.tensor("dx", dx, gt::FLOATS);
  if (check.ok()) check.same_dtype("dx", dx, "x", x).same_shape("dx", dx, "x", x);
  if (!check.ok() || gt::elements(*dx) == 0) return check.status();
  return GT_RUN(max_pool_backward, stream, dx, dy, x, size, stride, pad);
}

#endif
