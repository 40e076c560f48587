// Normal numbers, images with noise added, and tables of noise schedules on CUDA.
//
// Computes    gatun/noise.h
// Shapes      images [B, H, W, C] of any strides; y may be x: a thread writes what it has read. Tables contiguous
// Types       f32, bf16, f16; arithmetic in f32. Betas in f64, rounded to f32 before anything is derived from them
// Mapping     a block of 256 per piece of 1024 elements in the order h, w, c, 4 for each thread; grid x steps through
//             the pieces, y through the images. A schedule is one block: betas in parallel, their product by one thread
// Memory      each operand once. Shared: a piece's normals, 4 KB (lib/image_noise.h)
// Numerics    of_x x + of_noise noise as one fused multiply-add after one product; products in f64, first to last.
//             The CPU twin's random bits, and its results but for the last places of logf, sinf and cosf
// Limits      H W C < 2^31; any alignment; sm_80 and later; nothing is UNSUPPORTED
// Source      Salmon et al., SC'11 (Philox); Box-Muller. Not yet measured on a GPU. One Philox evaluation for 4
//             elements: some 170 instructions per normal written, 300 with one for each
#include "lib/cuda.h"

#include <algorithm>

#include "check.h"
#include "gatun/noise.h"
#include "lib/entry.h"
#include "lib/image_noise.h"
#include "lib/image_operand.h"
#include "noise_schedule.h"

namespace gt {

decltype(gt_normal) normal_cuda;
decltype(gt_add_noise) add_noise_cuda;
decltype(gt_velocity) velocity_cuda;
decltype(gt_noise_schedule) noise_schedule_cuda;

namespace {

constexpr int THREADS = 256;
constexpr int EACH = 4;                  // elements of a thread in flight; of a Philox evaluation, too
constexpr unsigned PIECE = EACH * THREADS;
constexpr int64_t MAX_BLOCKS = 2048;     // of an image: enough to fill any device
constexpr int64_t MAX_IMAGES = 65535;    // grid.y

struct Images {
  ImageOperand y, x, noise;
  ImageShape shape;
  int64_t num_images;
  const int64_t *seeds;
  uint32_t step;
};

// y = f(b, p, noise) for all elements; noise: drawn, if `draws`. All reads of a piece come before its writes.
template <class F> __device__ __forceinline__ void set_each_element(const Images &t, bool draws, const F &f) {
  __shared__ float drawn[PIECE];
  const unsigned elements = t.shape.elements();  // < 2^31: adding pieces of all blocks keeps below 2^32
  for (int64_t b = blockIdx.y; b < t.num_images; b += gridDim.y)
    for (unsigned begin = blockIdx.x * PIECE; begin < elements; begin += gridDim.x * PIECE) {
      const unsigned count = elements - begin < PIECE ? elements - begin : PIECE;
      if (draws) {
        __syncthreads();
        draw_piece(t.shape, static_cast<uint64_t>(t.seeds[2 * b]), static_cast<uint32_t>(t.seeds[2 * b + 1]), t.step,
                   begin, count, THREADS, drawn);
        __syncthreads();
      }
      float values[EACH];
#pragma unroll
      for (int k = 0; k < EACH; ++k) {
        const unsigned i = k * THREADS + threadIdx.x;
        if (i < count) values[k] = f(b, pixel_at(t.shape, begin + i), draws ? drawn[i] : 0.0f);
      }
#pragma unroll
      for (int k = 0; k < EACH; ++k) {
        const unsigned i = k * THREADS + threadIdx.x;
        if (i < count) write(t.y, b, pixel_at(t.shape, begin + i), values[k]);
      }
    }
}

__global__ void __launch_bounds__(THREADS) normal_by_pieces(const Images t) {
  set_each_element(t, true, [](int64_t, const Pixel &, float noise) { return noise; });
}

struct Levels {
  const float *alphas_cumprod;
  int64_t num_steps;
  const int32_t *timesteps;
};

// IS_VELOCITY: sqrt(a) noise - sqrt(1 - a) x, else sqrt(a) x + sqrt(1 - a) noise.
template <bool IS_VELOCITY>
__global__ void __launch_bounds__(THREADS) blend_by_pieces(const Images t, const Levels levels) {
  set_each_element(t, !IS_VELOCITY && !t.noise.data, [&](int64_t b, const Pixel &p, float drawn) {
    const int64_t step = levels.timesteps[b];
    const bool known = step >= 0 && step < levels.num_steps;
    const float a = known ? levels.alphas_cumprod[step] : NAN;
    const float signal = sqrtf(a), deviation = sqrtf(1.0f - a);
    const float x = read(t.x, b, p), noise = t.noise.data ? read(t.noise, b, p) : drawn;
    return IS_VELOCITY ? fmaf(signal, noise, -deviation * x) : fmaf(deviation, noise, signal * x);
  });
}

__global__ void __launch_bounds__(THREADS) noise_schedule_one_block(float *betas, float *products, int64_t steps,
                                                                    gt_beta_schedule schedule, double from, double to,
                                                                    int32_t zero_snr) {
  for (int64_t t = threadIdx.x; t < steps && schedule != GT_BETAS_GIVEN; t += THREADS)
    betas[t] = beta_of(schedule, from, to, t, steps);
  __syncthreads();
  if (threadIdx.x != 0) return;
  multiply_up(products, betas, steps);
  if (zero_snr) rescale_to_zero_snr(betas, products, steps);
}

Images images_of(const gt_tensor *y, const gt_tensor *x, const gt_tensor *noise, const gt_tensor *seeds,
                 uint32_t step) {
  const ImageShape shape{static_cast<unsigned>(y->shape[1]), static_cast<unsigned>(y->shape[2]),
                         static_cast<unsigned>(y->shape[3])};
  return {image_operand(y), image_operand(x), image_operand(noise), shape, y->shape[0],
          seeds ? static_cast<const int64_t *>(seeds->data) : nullptr, step};
}

template <class... Params, class... Args>
gt_status run_images(const char *op, const gt_stream *stream, const Images &images, void (*kernel)(Params...),
                     const Args &...args) {
  const int64_t elements = images.shape.elements();
  if (images.num_images == 0 || elements == 0) return GT_OK;
  const dim3 grid(static_cast<unsigned>(std::min((elements + PIECE - 1) / PIECE, MAX_BLOCKS)),
                  static_cast<unsigned>(std::min(images.num_images, MAX_IMAGES)));
  const int status = launch(kernel, grid, THREADS, 0, stream->handle, images, args...);
  return status_of(op, status);
}

Levels levels_of(const gt_tensor *alphas_cumprod, const gt_tensor *timesteps) {
  return {static_cast<const float *>(alphas_cumprod->data), alphas_cumprod->shape[0],
          static_cast<const int32_t *>(timesteps->data)};
}

}  // namespace

gt_status normal_cuda(const gt_stream *stream, const gt_tensor *y, const gt_tensor *seeds, uint32_t step) {
  return run_images("normal", stream, images_of(y, nullptr, nullptr, seeds, step), normal_by_pieces);
}

gt_status add_noise_cuda(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x, const gt_tensor *noise,
                         const gt_tensor *seeds, uint32_t step, const gt_tensor *alphas_cumprod,
                         const gt_tensor *timesteps) {
  return run_images("add_noise", stream, images_of(y, x, noise, seeds, step), blend_by_pieces<false>,
                    levels_of(alphas_cumprod, timesteps));
}

gt_status velocity_cuda(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x, const gt_tensor *noise,
                        const gt_tensor *alphas_cumprod, const gt_tensor *timesteps) {
  return run_images("velocity", stream, images_of(y, x, noise, nullptr, 0), blend_by_pieces<true>,
                    levels_of(alphas_cumprod, timesteps));
}

gt_status noise_schedule_cuda(const gt_stream *stream, const gt_tensor *betas, const gt_tensor *alphas_cumprod,
                              gt_beta_schedule schedule, double from, double to, int32_t zero_snr) {
  const int status = launch(noise_schedule_one_block, 1, THREADS, 0, stream->handle, static_cast<float *>(betas->data),
                            static_cast<float *>(alphas_cumprod->data), betas->shape[0], schedule, from, to, zero_snr);
  return status_of("noise_schedule", status);
}

}  // namespace gt
