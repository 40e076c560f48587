// How does code written for runs of f32 values work on images [B, H, W, C] of any strides and dtype?
//
// The elements of an image are walked in the order h, w, c, which is memory order where the image is channels last, in
// runs of at most IMAGE_RUN. Each operand's run is gathered into f32, and results are scattered.
#pragma once

#include "cpu/parallel.h"
#include "cpu/row.h"
#include "lib/philox.h"

namespace gt::GT_ISA {

// Elements of a run: a dozen operands of it stay in the first cache. A multiple of every W.
constexpr int64_t IMAGE_RUN = 256;

// One run: IMAGE_RUN floats; those beyond the run's elements are 0 or whatever is computed from that.
struct alignas(64) RunBuffer {
  float value[IMAGE_RUN];
};

struct ImageRun {
  int64_t b, first, n;    // image, its first element in the order h, w, c, and how many
  int64_t height, width, channels;

  // Calls f(i, h, w, c) for the i-th element of the run.
  template <class F>
  void walk(const F &f) const {
    int64_t c = first % channels, w = first / channels % width, h = first / channels / width;
    for (int64_t i = 0; i < n; ++i) {
      f(i, h, w, c);
      if (++c < channels) continue;
      c = 0;
      if (++w < width) continue;
      w = 0;
      ++h;
    }
  }
  bool is_dense(const gt_tensor &t) const {
    return (channels == 1 || t.stride[3] == 1) && (width == 1 || t.stride[2] == channels) &&
           (height == 1 || t.stride[1] == width * channels) && t.shape[3] == channels;
  }
};

// Calls f(run) for all runs of all images of a tensor [B, H, W, C]; cost of an element in the units of parallel_for.
template <class F>
static inline void for_image_runs(const gt_stream *stream, const gt_tensor &t, int64_t cost, const F &f) {
  const int64_t elements = t.shape[1] * t.shape[2] * t.shape[3], pieces = (elements + IMAGE_RUN - 1) / IMAGE_RUN;
  parallel_for(stream, t.shape[0] * pieces, cost * IMAGE_RUN, [&](int64_t begin, int64_t end) {
    for (int64_t item = begin; item < end; ++item) {
      const int64_t first = item % pieces * IMAGE_RUN, left = elements - first;
      f(ImageRun{item / pieces, first, left < IMAGE_RUN ? left : IMAGE_RUN, t.shape[1], t.shape[2], t.shape[3]});
    }
  });
}

// out = the run's elements of image b of t. One channel of t serves all.
static inline void gather(const ImageRun &run, const gt_tensor &t, int64_t b, RunBuffer &out) {
  with_float(t.dtype, [&](auto zero) {
    const auto *image = static_cast<const decltype(zero) *>(t.data) + b * t.stride[0];
    if (run.is_dense(t)) {
      for (int64_t i = 0; i < run.n; i += W) store(out.value + i, load_up_to(image + run.first + i, run.n - i));
      return;
    }
    const int64_t step = t.shape[3] == 1 ? 0 : t.stride[3];
    run.walk([&](int64_t i, int64_t h, int64_t w, int64_t c) {
      out.value[i] = to_float(image[h * t.stride[1] + w * t.stride[2] + c * step]);
    });
    for (int64_t i = run.n; i % W != 0; ++i) out.value[i] = 0;
  });
}

static inline void scatter(const ImageRun &run, const gt_tensor &t, int64_t b, const RunBuffer &in) {
  with_float(t.dtype, [&](auto zero) {
    auto *image = static_cast<decltype(zero) *>(t.data) + b * t.stride[0];
    if (run.is_dense(t)) {
      for (int64_t i = 0; i < run.n; i += W) store_up_to(image + run.first + i, load(in.value + i), run.n - i);
      return;
    }
    run.walk([&](int64_t i, int64_t h, int64_t w, int64_t c) {
      from_float(in.value[i], image + h * t.stride[1] + w * t.stride[2] + c * t.stride[3]);
    });
  });
}

// Normals of the run's elements: seed is {seed, sequence}.
static inline void draw(const ImageRun &run, const int64_t *seed, uint32_t step, RunBuffer &out) {
  run.walk([&](int64_t i, int64_t h, int64_t w, int64_t c) {
    const uint64_t element = static_cast<uint64_t>((c * run.height + h) * run.width + w);
    out.value[i] = philox_normal(static_cast<uint64_t>(seed[0]), static_cast<uint32_t>(seed[1]), step, element);
  });
  for (int64_t i = run.n; i % W != 0; ++i) out.value[i] = 0;
}
constexpr int64_t DRAW_COST = 128;  // of a normal, in the units of parallel_for

}  // namespace gt::GT_ISA
