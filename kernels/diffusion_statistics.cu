// What a diffusion step must know of whole images, on CUDA.
//
// Computes    gt_diffusion_statistics of gatun/diffusion.h
// Shapes      sample [B, H, W, C] of any strides; output also [2 B, ...]; table, statistics, counter contiguous
// Types       sample f32, output f32, bf16 or f16; arithmetic in f32, sums in f64
// Mapping     a block of 512 for an image
// Memory      up to 9 passes over sample and output, which L2 holds. Shared: 8 KiB of counts
// Numerics    standard deviations in two passes in f64, in an order that depends on the size alone; the quantile goes
//             by the bits of |d|, 11 at a time, counted exactly. NaN in an image makes its threshold NaN
// Limits      H W C <= 2^24; any alignment; sm_80 and later; nothing is UNSUPPORTED
// Source      Lin et al. 2023 (arXiv 2305.08891); Saharia et al. 2022 (arXiv 2205.11487). Not yet measured on a GPU
#include "lib/cuda.h"

#include <algorithm>

#include "diffusion_operands.h"
#include "lib/reduce.h"

namespace gt {

decltype(gt_diffusion_statistics) diffusion_statistics_cuda;

namespace {

constexpr int STATISTICS_THREADS = 512;
constexpr int64_t MAX_BLOCKS = 65535;
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

}  // namespace

gt_status diffusion_statistics_cuda(const gt_stream *stream, const gt_tensor *statistics, const gt_tensor *sample,
                                    const gt_tensor *output, const gt_tensor *table, const gt_tensor *counter,
                                    float ratio, float largest) {
  const dim3 grid(static_cast<unsigned>(std::min(sample->shape[0], MAX_BLOCKS)));
  return status_of("diffusion_statistics",
                   launch(diffusion_statistics_image_per_block, grid, STATISTICS_THREADS, 0, stream->handle,
                          static_cast<float *>(statistics->data), image_operand(sample), output_of(output, sample),
                          shape_of(sample), call_of(table, counter), ratio, largest));
}

}  // namespace gt
