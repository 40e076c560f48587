// Resampling, time steps and 8-bit pixels: argument checks, dispatch, and the CPU twin of image.cu.
#include "gatun/image.h"

#include "check.h"
#include "cpu/isa.h"

#if defined(GT_ISA)
// Computes    gatun/image.h
// Mapping     rows of y's pixels are split over threads; along C whole vectors where it is contiguous, else one by one
// Memory      each operand once; pixels of x that several of y show stay in the cache
// Numerics    a pooled pixel is summed in f32 row by row; angles are f32, their sines f64 rounded once
#include <math.h>

#include "cpu/parallel.h"
#include "cpu/row.h"

namespace gt::GT_ISA {
namespace {

constexpr int64_t SINE_COST = 100;  // of an element, in the units of parallel_for

// Row i of image b of [B, H, W, C].
template <class T>
T *row_at(const gt_tensor &t, int64_t b, int64_t i) {
  return static_cast<T *>(t.data) + b * t.stride[0] + i * t.stride[1];
}

// Calls f(b, i) for every row of y's pixels.
template <class F>
void for_rows(const gt_stream *stream, const gt_tensor &y, int64_t cost, const F &f) {
  const int64_t h = y.shape[1];
  parallel_for(stream, y.shape[0] * h, cost * y.shape[2] * y.shape[3], [&](int64_t begin, int64_t end) {
    for (int64_t item = begin; item < end; ++item) f(item / h, item % h);
  });
}

bool is_contiguous_in_c(const gt_tensor &t) { return t.shape[3] == 1 || t.stride[3] == 1; }

// T: an unsigned integer as wide as an element.
template <class T>
void upsample(const gt_stream *stream, const gt_tensor &y, const gt_tensor &x) {
  const int64_t w = y.shape[2], c = y.shape[3];
  const bool contiguous = is_contiguous_in_c(y) && is_contiguous_in_c(x);
  for_rows(stream, y, 1, [&](int64_t b, int64_t i) {
    T *to = row_at<T>(y, b, i);
    const T *row = row_at<const T>(x, b, i * x.shape[1] / y.shape[1]);
    for (int64_t j = 0; j < w; ++j, to += y.stride[2]) {
      const T *from = row + j * x.shape[2] / w * x.stride[2];
      if (contiguous)
        memcpy(to, from, static_cast<size_t>(c) * sizeof(T));
      else
        for (int64_t k = 0; k < c; ++k) to[k * y.stride[3]] = from[k * x.stride[3]];
    }
  });
}

template <class T>
void average_pool(const gt_stream *stream, const gt_tensor &y, const gt_tensor &x, int64_t size) {
  const int64_t c = y.shape[3];
  const bool contiguous = is_contiguous_in_c(y) && is_contiguous_in_c(x);
  const float factor = 1.0f / static_cast<float>(size * size);
  for_rows(stream, y, size * size, [&](int64_t b, int64_t i) {
    T *to = row_at<T>(y, b, i);
    const T *from = row_at<const T>(x, b, i * size);
    for (int64_t j = 0; j < y.shape[2]; ++j, to += y.stride[2], from += size * x.stride[2]) {
      for (int64_t k = 0; contiguous && k < c; k += W) {
        vf sum{};
        for (int64_t u = 0; u < size; ++u)
          for (int64_t v = 0; v < size; ++v)
            sum += load_up_to(from + u * x.stride[1] + v * x.stride[2] + k, c - k);
        store_up_to(to + k, sum * factor, c - k);
      }
      for (int64_t k = 0; !contiguous && k < c; ++k) {
        float sum = 0;
        for (int64_t u = 0; u < size; ++u)
          for (int64_t v = 0; v < size; ++v)
            sum += to_float(from[u * x.stride[1] + v * x.stride[2] + k * x.stride[3]]);
        from_float(sum * factor, to + k * y.stride[3]);
      }
    }
  });
}

// The next up to W channels, `step` elements apart.
template <class T>
GT_INLINE vf load_channels(const T *p, int64_t step, int64_t left) {
  if (step == 1) return load_up_to(p, left);
  vf v{};
  for (int64_t k = 0; k < W && k < left; ++k) v[k] = to_float(p[k * step]);
  return v;
}

template <class T>
void max_pool(const gt_stream *stream, const gt_tensor &y, const gt_tensor &x, int64_t size, int64_t step,
              int64_t pad) {
  const int64_t c = y.shape[3];
  const auto first = [&](int64_t at) { return at * step < pad ? pad - at * step : 0; };
  const auto end = [&](int64_t at, int64_t in) {
    const int64_t left = in + pad - at * step;
    return left < size ? left : size;
  };
  for_rows(stream, y, size * size, [&](int64_t b, int64_t i) {
    T *to = row_at<T>(y, b, i);
    const T *image = row_at<const T>(x, b, 0);
    for (int64_t j = 0; j < y.shape[2]; ++j, to += y.stride[2])
      for (int64_t k = 0; k < c; k += W) {
        vf most = broadcast(-__builtin_inff());
        for (int64_t u = first(i); u < end(i, x.shape[1]); ++u)
          for (int64_t v = first(j); v < end(j, x.shape[2]); ++v) {
            const vf value = load_channels(image + (i * step - pad + u) * x.stride[1] +
                                               (j * step - pad + v) * x.stride[2] + k * x.stride[3],
                                           x.stride[3], c - k);
            most = select((value > most) | (value != value), value, most);
          }
        if (y.stride[3] == 1)
          store_up_to(to + k, most, c - k);
        else
          for (int64_t l = 0; l < W && l < c - k; ++l) from_float(most[l], to + (k + l) * y.stride[3]);
      }
  });
}

template <class T>
void rgb8(const gt_stream *stream, const gt_tensor &y, const gt_tensor &x, float scale, float offset) {
  const int64_t w = y.shape[2], channel = x.shape[3] == 1 ? 0 : x.stride[3];
  for_rows(stream, y, 4, [&](int64_t b, int64_t i) {
    uint8_t *to = row_at<uint8_t>(y, b, i);
    const T *from = row_at<const T>(x, b, i);
    for (int64_t j = 0; j < w; ++j, from += x.stride[2])
      for (int64_t k = 0; k < 3; ++k) {
        const float v = __builtin_fmaf(to_float(from[k * channel]), scale, offset);
        const float bounded = v > 0.0f ? (v < 1.0f ? v : 1.0f) : 0.0f;  // NaN is not above 0
        *to++ = static_cast<uint8_t>(__builtin_rintf(255.0f * bounded));
      }
  });
}

}  // namespace

gt_status upsample_nearest_cpu(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x) {
  if (y->dtype == GT_F32)
    upsample<uint32_t>(stream, *y, *x);
  else
    upsample<uint16_t>(stream, *y, *x);
  return GT_OK;
}

gt_status average_pool_cpu(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x, int64_t size) {
  with_float(y->dtype, [&](auto zero) { average_pool<decltype(zero)>(stream, *y, *x, size); });
  return GT_OK;
}

gt_status max_pool_cpu(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x, int64_t size, int64_t stride,
                       int64_t pad) {
  with_float(y->dtype, [&](auto zero) { max_pool<decltype(zero)>(stream, *y, *x, size, stride, pad); });
  return GT_OK;
}

gt_status timestep_embedding_cpu(const gt_stream *stream, const gt_tensor *y, const gt_tensor *timesteps,
                                 const gt_tensor *counter, int32_t flip, float shift) {
  const int64_t e = y->shape[1], half = e / 2;
  const auto *steps = static_cast<const float *>(timesteps->data);
  const int64_t at = counter ? *static_cast<const int32_t *>(counter->data) : 0;
  with_float(y->dtype, [&](auto zero) {
    using T = decltype(zero);
    parallel_for(stream, y->shape[0], e * SINE_COST, [&](int64_t begin, int64_t end) {
      for (int64_t b = begin; b < end; ++b) {
        T *row = static_cast<T *>(y->data) + b * y->stride[0];
        const auto put = [&](int64_t i, double v) { from_float(static_cast<float>(v), row + i * y->stride[1]); };
        const bool is_valid = !counter || (at >= 0 && at < timesteps->shape[0]);
        const float t = is_valid ? steps[counter ? at : b] : __builtin_nanf("");
        for (int64_t i = 0; i < half; ++i) {
          // Each step rounded to f32, as a chain of f32 tensor operations rounds it.
          const float exponent = -9.210340371976184f * static_cast<float>(i) / (static_cast<float>(half) - shift);
          const float angle = t * static_cast<float>(exp(static_cast<double>(exponent)));
          put(flip ? half + i : i, sin(static_cast<double>(angle)));
          put(flip ? i : half + i, cos(static_cast<double>(angle)));
        }
        if (e % 2) put(e - 1, is_valid ? 0 : static_cast<double>(__builtin_nanf("")));
      }
    });
  });
  return GT_OK;
}

gt_status rgb8_cpu(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x, float scale, float offset) {
  with_float(x->dtype, [&](auto zero) { rgb8<decltype(zero)>(stream, *y, *x, scale, offset); });
  return GT_OK;
}

}  // namespace gt::GT_ISA

#else

#include "image_check.h"

GT_DECLARE_OP(upsample_nearest)
GT_DECLARE_OP(average_pool)
GT_DECLARE_OP(max_pool)
GT_DECLARE_OP(timestep_embedding)
GT_DECLARE_OP(rgb8)

extern "C" gt_status gt_upsample_nearest(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x) {
  gt::Check check("upsample_nearest", stream);
  gt::check_upsampling(check, {"y", "x", y, x});
  if (!check.ok() || gt::elements(*y) == 0) return check.status();
  return GT_RUN(upsample_nearest, stream, y, x);
}

extern "C" gt_status gt_average_pool(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x, int64_t size) {
  gt::Check check("average_pool", stream);
  gt::check_average_pool(check, {"y", "x", y, x}, size);
  if (!check.ok() || gt::elements(*y) == 0) return check.status();
  return GT_RUN(average_pool, stream, y, x, size);
}

extern "C" gt_status gt_max_pool(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x, int64_t size,
                                 int64_t stride, int64_t pad) {
  gt::Check check("max_pool", stream);
  gt::check_max_pool(check, {"y", "x", y, x}, size, stride, pad);
  if (!check.ok() || gt::elements(*y) == 0) return check.status();
  return GT_RUN(max_pool, stream, y, x, size, stride, pad);
}

extern "C" gt_status gt_timestep_embedding(const gt_stream *stream, const gt_tensor *y, const gt_tensor *timesteps,
                                           const gt_tensor *counter, int32_t flip, float shift) {
  gt::Check check("timestep_embedding", stream);
  check.tensor("y", y, gt::FLOATS).rank("y", y, 2).tensor("timesteps", timesteps, gt::F32);
  check.optional("counter", counter, gt::I32).shape("counter", counter, {1});
  if (!check.ok()) return check.status();
  check.shape("timesteps", timesteps, {counter ? -1 : y->shape[0]}).contiguous("timesteps", timesteps);
  check.require(!counter || timesteps->shape[0] > 0, "timesteps is empty, expected at least one");
  check.require(flip == 0 || flip == 1, "flip is %d, expected 0 (sines first) or 1 (cosines first)", flip);
  check.require(static_cast<float>(y->shape[1] / 2) > shift, "y has %lld columns, expected more than twice shift %g",
                static_cast<long long>(y->shape[1]), static_cast<double>(shift));
  if (!check.ok() || gt::elements(*y) == 0) return check.status();
  return GT_RUN(timestep_embedding, stream, y, timesteps, counter, flip, shift);
}

extern "C" gt_status gt_rgb8(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x, float scale,
                             float offset) {
  gt::Check check("rgb8", stream);
  check.tensor("y", y, gt::dtype_bit(GT_U8)).shape("y", y, {-1, -1, -1, 3}).contiguous("y", y);
  check.tensor("x", x, gt::FLOATS);
  if (!check.ok()) return check.status();
  check.shape("x", x, {y->shape[0], y->shape[1], y->shape[2], -1});
  check.require(!check.ok() || x->shape[3] == 1 || x->shape[3] == 3, "x has %lld channels, expected 1 or 3",
                static_cast<long long>(check.ok() ? x->shape[3] : 0));
  if (!check.ok() || gt::elements(*y) == 0) return check.status();
  return GT_RUN(rgb8, stream, y, x, scale, offset);
}

#endif
