// One step of any diffusion sampler on CUDA.
//
// Computes    gatun/diffusion.h
// Shapes      images [B, H, W, C] of any strides; output and input also [2 B, ...]; table, statistics, seeds, counter
//             contiguous. A thread reads and writes its own elements only, all reads first
// Types       sample, state, noise, mask f32; output, variance, input f32, bf16 or f16; arithmetic in f32
// Mapping     step: a thread per element in the order h, w, c; blocks of 256, grid x steps through the elements, y
//             through the images; the block that finishes last advances the counter. Statistics: a block of 512 for an
//             image
// Memory      step: what the row has coefficients for, once. Statistics: up to 9 passes over sample and output, which
//             L2 holds. Shared: the row, 272 bytes; statistics: 8 KiB of counts
// Numerics    sums of products are chains of fused multiply-adds in the order of the sources, as in the CPU twin, whose
//             bits these are but for noise and exponentials. Standard deviations in two passes in f64, in an order that
//             depends on the size alone; the quantile selects by the bits of |d|, 11 at a time, counted exactly
// Limits      H W C < 2^31, statistics 2^24; any alignment; sm_80 and later; nothing is UNSUPPORTED
// Source      none. Not yet measured on a GPU: a latent image of 64 x 64 x 4 is bound by the launch, about 3 us
#include "lib/cuda.h"

#include <algorithm>

#include "check.h"
#include "gatun/diffusion.h"
#include "lib/image_operand.h"
#include "lib/philox.h"
#include "lib/reduce.h"

namespace gt {

decltype(gt_diffusion_step) diffusion_step_cuda;
decltype(gt_diffusion_input) diffusion_input_cuda;
decltype(gt_diffusion_statistics) diffusion_statistics_cuda;

namespace {

constexpr int THREADS = 256;
constexpr int64_t MAX_BLOCKS = 2048;   // of an image: enough to fill any device
constexpr int64_t MAX_IMAGES = 65535;  // grid.y
constexpr int STATISTICS_THREADS = 512;

enum Source { X, E, D, NOISE, STATE };  // STATE + j is S_j
constexpr int TARGETS = 1 + GT_DIFFUSION_SLOTS;

struct Call {
  const float *table;
  int64_t num_calls;
  int32_t *counter;

  // The row's first element, or NULL.
  __device__ __forceinline__ const float *row(int64_t call) const {
    return call >= 0 && call < num_calls ? table + call * GT_DIFFUSION_FIELDS : nullptr;
  }
};

struct Output {
  ImageOperand images;
  bool is_guided;
  int64_t num_images;

  // e before it is rescaled.
  __device__ __forceinline__ float at(int64_t b, const Pixel &p, float w) const {
    const float u = read(images, b, p);
    return is_guided ? fmaf(w, read(images, num_images + b, p) - u, u) : u;
  }
};

struct Step {
  ImageOperand sample, input, variance, mask, known, known_noise, state, noise;
  Output output;
  ImageShape shape;
  Call call;
  int64_t num_images, num_inputs, num_slots, state_stride, noise_stride;
  bool variance_is_guided;
  gt_learned_variance learned_variance;
  const float *statistics;
  const int64_t *seeds;
};

__device__ __forceinline__ float denoised(const float *row, float x, float e) {
  return fmaf(row[GT_DIFFUSION_DENOISED_OUTPUT], e, row[GT_DIFFUSION_DENOISED_X] * x);
}

// NaN stays NaN.
__device__ __forceinline__ float cut(float d, float limit) { return d > limit ? limit : d < -limit ? -limit : d; }

__device__ __forceinline__ float noise_at(const Step &s, const float *row, int64_t call, int64_t b, const Pixel &p) {
  float n = NAN;
  if (s.noise.data) {
    n = read(s.noise, b, p, call * s.noise_stride);
  } else if (s.seeds) {
    n = philox_normal(static_cast<uint64_t>(s.seeds[2 * b]), static_cast<uint32_t>(s.seeds[2 * b + 1]),
                      static_cast<uint32_t>(call + 1), p.planar(s.shape));
  }
  if (s.learned_variance == GT_VARIANCE_NONE) return n;
  const float v = read(s.variance, s.variance_is_guided ? s.num_images + b : b, p);
  if (s.learned_variance == GT_VARIANCE_VALUE) return n * sqrtf(v);
  const float f = (v + 1.0f) * 0.5f;
  return n * expf(0.5f * fmaf(f, row[GT_DIFFUSION_MAX_LOG], (1.0f - f) * row[GT_DIFFUSION_MIN_LOG]));
}

__device__ __forceinline__ float blend_known(const Step &s, const float *row, int64_t b, const Pixel &p, float x) {
  const float m = read(s.mask, b, p), noise_factor = row[GT_DIFFUSION_KNOWN_NOISE];
  float k = row[GT_DIFFUSION_KNOWN] * read(s.known, b, p);
  if (noise_factor != 0.0f) k = fmaf(noise_factor, read(s.known_noise, b, p), k);
  return fmaf(m, x, (1.0f - m) * k);
}

// Which sources have a coefficient, and which targets have one: a bit each.
struct Masks {
  unsigned reads, writes;
};

__device__ __forceinline__ Masks masks_of(const float *row, int64_t num_slots) {
  Masks masks{0, 1};
  for (int t = 0; t <= num_slots; ++t)
    for (int s = 0; s < GT_DIFFUSION_SOURCES; ++s) {
      if (row[GT_DIFFUSION_UPDATE + t * GT_DIFFUSION_SOURCES + s] == 0.0f) continue;
      if (s < STATE + num_slots) masks.reads |= 1u << s;
      masks.writes |= 1u << t;
    }
  return masks;
}

__device__ __forceinline__ void step_element(const Step &s, const float *row, const Masks &masks, int64_t call,
                                             const float *next, int64_t b, const Pixel &p) {
  float source[GT_DIFFUSION_SOURCES] = {}, target[TARGETS];
  source[X] = read(s.sample, b, p);
  source[E] = s.output.at(b, p, row[GT_DIFFUSION_GUIDANCE]);
  if (s.statistics) source[E] *= s.statistics[2 * b];
  source[D] = cut(denoised(row, source[X], source[E]), row[GT_DIFFUSION_CLIP]);
  const float threshold = s.statistics ? s.statistics[2 * b + 1] : 0.0f;
  if (threshold != 0.0f) source[D] = cut(source[D], threshold) / threshold;
  if (masks.reads >> NOISE & 1) source[NOISE] = noise_at(s, row, call, b, p);
#pragma unroll
  for (int j = 0; j < GT_DIFFUSION_SLOTS; ++j)
    if (masks.reads >> (STATE + j) & 1) source[STATE + j] = read(s.state, b, p, j * s.state_stride);

#pragma unroll
  for (int t = 0; t < TARGETS; ++t) {
    if (!(masks.writes >> t & 1)) continue;
    const float *const coefficients = row + GT_DIFFUSION_UPDATE + t * GT_DIFFUSION_SOURCES;
    float sum = 0.0f;
#pragma unroll
    for (int k = 0; k < GT_DIFFUSION_SOURCES; ++k)
      if (coefficients[k] != 0.0f) sum = fmaf(coefficients[k], source[k], sum);
    target[t] = sum;
  }
  if (s.mask.data) target[0] = blend_known(s, row, b, p, target[0]);
  write(s.sample, b, p, target[0]);
#pragma unroll
  for (int t = 1; t < TARGETS; ++t)
    if (masks.writes >> t & 1) write(s.state, b, p, target[t], (t - 1) * s.state_stride);
  if (s.input.data && next)
    for (int64_t i = b; i < s.num_inputs; i += s.num_images) write(s.input, i, p, next[GT_DIFFUSION_INPUT] * target[0]);
}

template <class F>
__device__ __forceinline__ void for_each_element(const ImageShape &shape, int64_t num_images, const F &f) {
  for (int64_t b = blockIdx.y; b < num_images; b += gridDim.y)
    for (int64_t i = static_cast<int64_t>(blockIdx.x) * THREADS + threadIdx.x; i < shape.elements();
         i += static_cast<int64_t>(gridDim.x) * THREADS)
      f(b, pixel_at(shape, static_cast<unsigned>(i)));
}

__global__ void __launch_bounds__(THREADS) diffusion_step_elementwise(const Step s) {
  __shared__ float row[GT_DIFFUSION_FIELDS];
  __shared__ Masks masks;
  const int64_t call = s.call.counter[0];
  const float *const ours = s.call.row(call);
  if (!ours) return;
  for (int i = threadIdx.x; i < GT_DIFFUSION_FIELDS; i += THREADS) row[i] = ours[i];
  __syncthreads();
  if (threadIdx.x == 0) masks = masks_of(row, s.num_slots);
  __syncthreads();
  const float *const next = s.call.row(call + 1);
  for_each_element(s.shape, s.num_images,
                   [&](int64_t b, const Pixel &p) { step_element(s, row, masks, call, next, b, p); });
  // All blocks have read the counter when the last of them has taken its ticket.
  __syncthreads();
  if (threadIdx.x != 0) return;
  const int last = static_cast<int>(gridDim.x * gridDim.y) - 1;
  if (atomicAdd(&s.call.counter[1], 1) != last) return;
  s.call.counter[1] = 0;
  s.call.counter[0] = static_cast<int32_t>(call + 1);
}

__global__ void __launch_bounds__(THREADS)
    diffusion_input_elementwise(const ImageOperand input, const ImageOperand sample, const ImageShape shape,
                                const Call call, int64_t num_images, int64_t num_inputs) {
  const float *const row = call.row(call.counter[0]);
  const float factor = row ? row[GT_DIFFUSION_INPUT] : NAN;
  for_each_element(shape, num_images, [&](int64_t b, const Pixel &p) {
    const float x = factor * read(sample, b, p);
    for (int64_t i = b; i < num_inputs; i += num_images) write(input, i, p, x);
  });
}

// Statistics

constexpr int BITS = 11, BINS = 1 << BITS, BINS_PER_LANE = BINS / WARP;
constexpr unsigned INFINITE = 0x7f800000u, NOTHING = 0xffffffffu;

struct Selected {
  int bin, place, num_equal;  // of the bin in which the sought element lies: its number, the place in it, its count
};

struct Scratch {
  double sums[MAX_WARPS];
  unsigned count[BINS];
  Selected selected;
  unsigned next;
  int has_nan;
};

struct WholeImage {
  ImageOperand sample;
  Output output;
  ImageShape shape;
  const float *row;
  int64_t b;

  template <class F> __device__ __forceinline__ void for_elements(const F &f) const {
    for (unsigned i = threadIdx.x; i < shape.elements(); i += STATISTICS_THREADS) f(pixel_at(shape, i));
  }

  // Standard deviation of the conditional output over that of e, mixed with 1.
  __device__ float rescaling(Scratch &scratch) const {
    const float phi = row[GT_DIFFUSION_RESCALE], w = row[GT_DIFFUSION_GUIDANCE];
    if (phi == 0.0f || !output.is_guided) return 1.0f;
    double squares[2];
    for (int k = 0; k < 2; ++k) {
      const auto value = [&](const Pixel &p) -> double {
        return k == 0 ? read(output.images, output.num_images + b, p) : output.at(b, p, w);
      };
      double sum = 0.0, rest = 0.0;
      for_elements([&](const Pixel &p) { sum += value(p); });
      const double mean = block_sum(sum, scratch.sums) / shape.elements();
      for_elements([&](const Pixel &p) { rest += (value(p) - mean) * (value(p) - mean); });
      squares[k] = block_sum(rest, scratch.sums);
    }
    const double share = static_cast<double>(phi);
    return static_cast<float>(fma(share, sqrt(squares[0] / squares[1]), 1.0 - share));
  }

  // The bits of |d|, which order as the numbers do.
  __device__ __forceinline__ unsigned magnitude(const Pixel &p, float scale) const {
    const float e = output.at(b, p, row[GT_DIFFUSION_GUIDANCE]) * scale;
    return __float_as_uint(denoised(row, read(sample, b, p), e)) & 0x7fffffffu;
  }

  __device__ float quantile(float scale, float ratio, Scratch &scratch) const {
    const float rank = ratio * static_cast<float>(shape.elements() - 1), floor_rank = floorf(rank);
    unsigned prefix = 0;
    int place = static_cast<int>(floor_rank), num_equal = 0;
    if (threadIdx.x == 0) scratch.has_nan = 0;
    for (int shift = 32 - BITS; shift > -BITS; shift -= BITS) {
      const int width = shift >= 0 ? BITS : BITS + shift, low = shift >= 0 ? shift : 0;
      for (int i = threadIdx.x; i < BINS; i += STATISTICS_THREADS) scratch.count[i] = 0;
      __syncthreads();
      for_elements([&](const Pixel &p) {
        const unsigned bits = magnitude(p, scale);
        if (bits > INFINITE) atomicOr(&scratch.has_nan, 1);
        if (static_cast<uint64_t>(bits) >> (low + width) == static_cast<uint64_t>(prefix) >> (low + width))
          atomicAdd(&scratch.count[bits >> low & ((1u << width) - 1)], 1u);
      });
      __syncthreads();
      if (threadIdx.x < WARP) select_bin(place, scratch);
      __syncthreads();
      prefix |= static_cast<unsigned>(scratch.selected.bin) << low;
      place = scratch.selected.place;
      num_equal = scratch.selected.num_equal;
    }
    const unsigned next = place + 1 < num_equal ? prefix : next_above(prefix, scale, scratch);
    if (scratch.has_nan) return NAN;
    const float below = __uint_as_float(prefix), above = __uint_as_float(next), weight = rank - floor_rank;
    if (weight == 0.0f) return below;
    return weight < 0.5f ? fmaf(weight, above - below, below) : fmaf(-(above - below), 1.0f - weight, above);
  }

  // A warp finds the bin of the element at a place: each lane has 64 bins.
  static __device__ __forceinline__ void select_bin(int place, Scratch &scratch) {
    const int lane = threadIdx.x;
    int own = 0;
    for (int i = 0; i < BINS_PER_LANE; ++i) own += static_cast<int>(scratch.count[lane * BINS_PER_LANE + i]);
    int up_to = own;
    for (int distance = 1; distance < WARP; distance *= 2) {
      const int below = __shfl_up_sync(ALL_LANES, up_to, distance);
      if (lane >= distance) up_to += below;
    }
    if (place < up_to - own || place >= up_to) return;
    int bin = lane * BINS_PER_LANE, rest = place - (up_to - own);
    while (rest >= static_cast<int>(scratch.count[bin])) rest -= static_cast<int>(scratch.count[bin++]);
    scratch.selected = {bin, rest, static_cast<int>(scratch.count[bin])};
  }

  // The smallest magnitude above another; that one itself where there is none.
  __device__ unsigned next_above(unsigned bits, float scale, Scratch &scratch) const {
    if (threadIdx.x == 0) scratch.next = NOTHING;
    __syncthreads();
    unsigned smallest = NOTHING;
    for_elements([&](const Pixel &p) {
      const unsigned m = magnitude(p, scale);
      if (m > bits) smallest = min(smallest, m);
    });
    atomicMin(&scratch.next, smallest);
    __syncthreads();
    return scratch.next == NOTHING ? bits : scratch.next;
  }
};

__global__ void __launch_bounds__(STATISTICS_THREADS)
    diffusion_statistics_image_per_block(float *statistics, const ImageOperand sample, const Output output,
                                         const ImageShape shape, const Call call, float ratio, float largest) {
  __shared__ Scratch scratch;
  const float *const row = call.row(call.counter[0]);
  if (!row) return;
  for (int64_t b = blockIdx.x; b < output.num_images; b += gridDim.x) {
    const WholeImage image{sample, output, shape, row, b};
    const float scale = image.rescaling(scratch);
    float threshold = 0.0f;
    if (ratio > 0.0f) {
      const float s = image.quantile(scale, ratio, scratch);
      threshold = s < 1.0f ? 1.0f : s > largest ? largest : s;
    }
    if (threadIdx.x == 0) {
      statistics[2 * b] = scale;
      statistics[2 * b + 1] = threshold;
    }
    __syncthreads();
  }
}

// Host

ImageShape shape_of(const gt_tensor *t) {
  return {static_cast<unsigned>(t->shape[1]), static_cast<unsigned>(t->shape[2]), static_cast<unsigned>(t->shape[3])};
}

Call call_of(const gt_tensor *table, const gt_tensor *counter) {
  return {static_cast<const float *>(table->data), table->shape[0], static_cast<int32_t *>(counter->data)};
}

Output output_of(const gt_tensor *output, const gt_tensor *sample) {
  return {image_operand(output), output->shape[0] != sample->shape[0], sample->shape[0]};
}

// One image of a tensor of rank 5.
ImageOperand first_of(const gt_tensor *t) {
  if (!t) return image_operand(nullptr);
  return {t->data, t->dtype, {t->stride[1], t->stride[2], t->stride[3], t->stride[4]}};
}

dim3 grid_of(const gt_tensor *sample) {
  const int64_t blocks = (static_cast<int64_t>(shape_of(sample).elements()) + THREADS - 1) / THREADS;
  return dim3(static_cast<unsigned>(std::min(blocks, MAX_BLOCKS)),
              static_cast<unsigned>(std::min(sample->shape[0], MAX_IMAGES)));
}

gt_status status_of(const char *op, int status) {
  return status ? fail(GT_DEVICE_ERROR, "%s: %s", op, launch_error(status)) : GT_OK;
}

}  // namespace

gt_status diffusion_step_cuda(const gt_stream *stream, const gt_tensor *sample, const gt_tensor *state,
                              const gt_tensor *input, const gt_tensor *counter, const gt_tensor *output,
                              const gt_tensor *variance, const gt_tensor *statistics, const gt_tensor *table,
                              const gt_tensor *noise, const gt_tensor *seeds, const gt_tensor *mask,
                              const gt_tensor *known, const gt_tensor *known_noise,
                              gt_learned_variance learned_variance) {
  Step s{};
  s.sample = image_operand(sample);
  s.input = image_operand(input);
  s.variance = image_operand(variance);
  s.mask = image_operand(mask);
  s.known = image_operand(known);
  s.known_noise = image_operand(known_noise);
  s.state = first_of(state);
  s.noise = first_of(noise);
  s.output = output_of(output, sample);
  s.shape = shape_of(sample);
  s.call = call_of(table, counter);
  s.num_images = sample->shape[0];
  s.num_inputs = input ? input->shape[0] : 0;
  s.num_slots = state ? state->shape[0] : 0;
  s.state_stride = state ? state->stride[0] : 0;
  s.noise_stride = noise ? noise->stride[0] : 0;
  s.variance_is_guided = variance && variance->shape[0] != sample->shape[0];
  s.learned_variance = learned_variance;
  s.statistics = statistics ? static_cast<const float *>(statistics->data) : nullptr;
  s.seeds = seeds ? static_cast<const int64_t *>(seeds->data) : nullptr;
  return status_of("diffusion_step",
                   launch(diffusion_step_elementwise, grid_of(sample), THREADS, 0, stream->handle, s));
}

gt_status diffusion_input_cuda(const gt_stream *stream, const gt_tensor *input, const gt_tensor *sample,
                               const gt_tensor *table, const gt_tensor *counter) {
  return status_of("diffusion_input",
                   launch(diffusion_input_elementwise, grid_of(sample), THREADS, 0, stream->handle,
                          image_operand(input), image_operand(sample), shape_of(sample), call_of(table, counter),
                          sample->shape[0], input->shape[0]));
}

gt_status diffusion_statistics_cuda(const gt_stream *stream, const gt_tensor *statistics, const gt_tensor *sample,
                                    const gt_tensor *output, const gt_tensor *table, const gt_tensor *counter,
                                    float ratio, float largest) {
  const dim3 grid(static_cast<unsigned>(std::min(sample->shape[0], MAX_IMAGES)));
  return status_of("diffusion_statistics",
                   launch(diffusion_statistics_image_per_block, grid, STATISTICS_THREADS, 0, stream->handle,
                          static_cast<float *>(statistics->data), image_operand(sample), output_of(output, sample),
                          shape_of(sample), call_of(table, counter), ratio, largest));
}

}  // namespace gt
