// One step of any diffusion sampler on CUDA.
//
// Computes    gatun/diffusion.h
// Shapes      images [B, H, W, C] of any strides; output and input also [2 B, ...]; table, statistics, seeds, counter
//             contiguous. A thread reads and writes its own elements only, all reads first; one beyond the image reads
//             the image's first elements, and drops them
// Types       sample, state, noise, mask f32; output, variance, input f32, bf16 or f16; arithmetic in f32
// Mapping     a thread takes packs of 4 neighbours, 16 bytes of f32, of every operand (2 packs, or 1 where there are
//             slots) where all images lie in the order h, w, c in one piece; else 4 elements one by one, wherever they
//             lie. Blocks of 256, grid x along an image, y through the images, at most 4096; the block that finishes
//             last advances the counter. Noise is drawn by the block for all its elements (lib/image_noise.h)
// Memory      sample and output, and what else the row has coefficients for, once. Sample and output are asked for
//             before the counter is read: 6 loads of 16 bytes, 96 bytes a thread, 74 KB an SM with 3 blocks. Shared:
//             the row, 288 bytes, and normals, 4 KB or 8
// Numerics    sums of products are chains of fused multiply-adds in the order of the sources, as in the CPU twin, whose
//             bits these are but for noise and exponentials. The same arithmetic in packs and one by one
// Limits      H W C < 2^31; packs where every image starts at a multiple of 4 elements and H W C is one; sm_80 and
//             later; nothing is UNSUPPORTED
// Source      none. The floor, what was expected and what came of it: bench/results/h200.md
#include "lib/cuda.h"

#include <algorithm>

#include "diffusion_operands.h"
#include "lib/image_noise.h"
#include "lib/reduce.h"

namespace gt {

decltype(gt_diffusion_step) diffusion_step_cuda;
decltype(gt_diffusion_input) diffusion_input_cuda;

namespace {

constexpr int THREADS = 256;
constexpr int64_t MAX_BLOCKS = 4096;  // enough to fill any device several times
constexpr int PACK = 4;               // elements of one access: 16 bytes of f32
constexpr int PACKS = 2;              // of each operand in flight per thread; without slots of state
constexpr int SCALARS = 4;            // the same where elements lie anywhere
template <int N> constexpr int BLOCKS = N == 1 ? 2 : 3;  // of an SM: 80 registers, 128 where each element has addresses

enum Source { X, E, D, NOISE, STATE };  // STATE + j is S_j
constexpr int TARGETS = 1 + GT_DIFFUSION_SLOTS;

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

// NaN stays NaN.
__device__ __forceinline__ float cut(float d, float limit) { return d > limit ? limit : d < -limit ? -limit : d; }

// N neighbouring elements of an image b: one anywhere, or several in memory order, from `first` on.
template <int N> struct Group {
  int64_t b;
  unsigned first;
  Pixel pixel;  // of an only element

  __device__ __forceinline__ Group(const ImageShape &shape, int64_t image, unsigned element)
      : b(image), first(element), pixel(N == 1 ? pixel_at(shape, element) : Pixel{}) {}
  __device__ __forceinline__ Pixel at(const ImageShape &shape, int j) const {
    return N == 1 ? pixel : pixel_at(shape, first + j);
  }
  __device__ __forceinline__ int64_t offset(const ImageOperand &t, int64_t image) const {
    return N == 1 ? offset_of(t, image, pixel) : image * t.stride[0] + first;
  }
};

// The group in another image of t, `skipped` elements after its beginning.
template <class T, int N>
__device__ __forceinline__ Pack<T, N> load(const ImageOperand &t, int64_t image, const Group<N> &group,
                                           int64_t skipped = 0) {
  return *reinterpret_cast<const Pack<T, N> *>(static_cast<const T *>(t.data) + skipped + group.offset(t, image));
}
template <class T, int N>
__device__ __forceinline__ void store(const ImageOperand &t, int64_t image, const Group<N> &group, const float *values,
                                      int64_t skipped = 0) {
  Pack<T, N> pack;
#pragma unroll
  for (int j = 0; j < N; ++j) pack.element[j] = from_float<T>(values[j]);
  *reinterpret_cast<Pack<T, N> *>(static_cast<T *>(t.data) + skipped + group.offset(t, image)) = pack;
}
template <class T, int N> __device__ __forceinline__ void widen(const Pack<T, N> &pack, float *values) {
#pragma unroll
  for (int j = 0; j < N; ++j) values[j] = to_float(pack.element[j]);
}
// Of any dtype.
template <int N>
__device__ __forceinline__ void load_any(const ImageOperand &t, int64_t image, const Group<N> &group, float *values) {
  if (t.dtype == GT_F32) widen(load<float>(t, image, group), values);
  else if (t.dtype == GT_BF16) widen(load<bf16>(t, image, group), values);
  else widen(load<f16>(t, image, group), values);
}
template <int N>
__device__ __forceinline__ void store_any(const ImageOperand &t, int64_t image, const Group<N> &group,
                                          const float *values) {
  if (t.dtype == GT_F32) store<float>(t, image, group, values);
  else if (t.dtype == GT_BF16) store<bf16>(t, image, group, values);
  else store<f16>(t, image, group, values);
}

// The row of a call in shared memory, read by the block together.
struct Row {
  float field[GT_DIFFUSION_FIELDS];
  float next_input;                // GT_DIFFUSION_INPUT of the next row
  unsigned used[2];                // a bit for each coefficient of a target that is not 0, in their order
  const float *next;               // the next row, or NULL

  static constexpr int COEFFICIENTS = TARGETS * GT_DIFFUSION_SOURCES;
  static_assert(COEFFICIENTS <= 2 * WARP && 2 * WARP + GT_DIFFUSION_UPDATE < THREADS, "a thread each");

  // All threads of the block call it, then meet at a barrier.
  __device__ __forceinline__ void fill(const float *ours, const float *following) {
    const int i = threadIdx.x, other = i - 2 * WARP;
    if (i < 2 * WARP) {
      const float coefficient = i < COEFFICIENTS ? ours[GT_DIFFUSION_UPDATE + i] : 0.0f;
      const unsigned lanes = __ballot_sync(ALL_LANES, coefficient != 0.0f);
      if (i < COEFFICIENTS) field[GT_DIFFUSION_UPDATE + i] = coefficient;
      if (i % WARP == 0) used[i / WARP] = lanes;
    } else if (other < GT_DIFFUSION_UPDATE) {
      field[other] = ours[other];
    } else if (other == GT_DIFFUSION_UPDATE) {
      next = following;
      next_input = following ? following[GT_DIFFUSION_INPUT] : 0.0f;
    }
  }
  // A bit for each source of a target.
  __device__ __forceinline__ unsigned sources_of(int target) const {
    const uint64_t all = static_cast<uint64_t>(used[1]) << WARP | used[0];
    return static_cast<unsigned>(all >> (target * GT_DIFFUSION_SOURCES)) & ((1u << GT_DIFFUSION_SOURCES) - 1);
  }
  template <int SLOTS> __device__ __forceinline__ unsigned sources(int64_t num_slots) const {
    unsigned sources = sources_of(0);
#pragma unroll
    for (int t = 1; t <= SLOTS; ++t)
      if (t <= num_slots) sources |= sources_of(t);
    return sources & ((1u << (STATE + num_slots)) - 1);
  }
};

// The normals of a block's share of image b, which begins at an element; all threads call it.
template <unsigned SHARE>
__device__ __forceinline__ void draw_share(const Step &s, int64_t b, unsigned begin, int64_t call, float *drawn) {
  const unsigned left = s.shape.elements() - begin;
  __syncthreads();  // the share before has been read
  draw_piece(s.shape, static_cast<uint64_t>(s.seeds[2 * b]), static_cast<uint32_t>(s.seeds[2 * b + 1]),
             static_cast<uint32_t>(call + 1), begin, left < SHARE ? left : SHARE, THREADS, drawn);
  __syncthreads();
}

// drawn: the group's normals in shared memory, where noise is not given but seeds are.
template <int N>
__device__ __forceinline__ void noise_of(const Step &s, const float *row, int64_t call, const Group<N> &group,
                                         const float *drawn, float *n) {
  const int64_t b = group.b;
  if (s.noise.data) {
    widen(load<float>(s.noise, b, group, call * s.noise_stride), n);
  } else {
    const auto normals = *reinterpret_cast<const Pack<float, N> *>(drawn);
#pragma unroll
    for (int j = 0; j < N; ++j) n[j] = s.seeds ? normals.element[j] : NAN;
  }
  if (s.learned_variance == GT_VARIANCE_NONE) return;
  float v[N];
  load_any(s.variance, s.variance_is_guided ? s.num_images + b : b, group, v);
#pragma unroll
  for (int j = 0; j < N; ++j) {
    if (s.learned_variance == GT_VARIANCE_VALUE) {
      n[j] *= sqrtf(v[j]);
      continue;
    }
    const float f = (v[j] + 1.0f) * 0.5f;
    n[j] *= expf(0.5f * fmaf(f, row[GT_DIFFUSION_MAX_LOG], (1.0f - f) * row[GT_DIFFUSION_MIN_LOG]));
  }
}

template <int N>
__device__ __forceinline__ void blend_known(const Step &s, const float *row, const Group<N> &group, float *x) {
  const float noise_factor = row[GT_DIFFUSION_KNOWN_NOISE];
  float known[N], noise[N];
  widen(load<float>(s.known, group.b, group), known);
  if (noise_factor != 0.0f) widen(load<float>(s.known_noise, group.b, group), noise);
#pragma unroll
  for (int j = 0; j < N; ++j) {
    const float m = read(s.mask, group.b, group.at(s.shape, j));
    float k = row[GT_DIFFUSION_KNOWN] * known[j];
    if (noise_factor != 0.0f) k = fmaf(noise_factor, noise[j], k);
    x[j] = fmaf(m, x[j], (1.0f - m) * k);
  }
}

// GROUPS groups of N elements per thread and round. T: of the output; SLOTS: at least the slots of state.
// The sample and the output are asked for before the counter is known, so that the way from the counter to the row of
// coefficients costs no time of its own.
template <class T, int N, int GROUPS, int SLOTS>
__global__ void __launch_bounds__(THREADS, BLOCKS<N>) diffusion_step_groups(const Step s) {
  constexpr unsigned SHARE = THREADS * GROUPS * N;
  __shared__ Row row;
  alignas(PACK * sizeof(float)) __shared__ float drawn[SHARE];
  int64_t call = 0;
  const unsigned elements = s.shape.elements();  // < 2^31: sums with shares fit
  bool has_row = false;
  // all threads of a block make every round: the first has barriers
  for (int64_t b = blockIdx.y; b < s.num_images; b += gridDim.y)
    for (unsigned begin = blockIdx.x * SHARE; begin < elements; begin += gridDim.x * SHARE) {
      const auto place = [](int k) { return (k * THREADS + threadIdx.x) * N; };  // in the share
      const auto element = [&](int k) { return begin + place(k); };
      const auto group = [&](int k) {  // those beyond the image read its first elements
        return Group<N>(s.shape, b, element(k) < elements ? element(k) : 0);
      };
      Pack<float, N> x[GROUPS];
      Pack<T, N> plain[GROUPS], conditional[GROUPS];
#pragma unroll
      for (int k = 0; k < GROUPS; ++k) {
        x[k] = load<float>(s.sample, b, group(k));
        plain[k] = load<T>(s.output.images, b, group(k));
      }
      if (s.output.is_guided)
#pragma unroll
        for (int k = 0; k < GROUPS; ++k) conditional[k] = load<T>(s.output.images, s.num_images + b, group(k));
      if (!has_row) {
        call = s.call.counter[0];
        const float *const ours = s.call.row(call);
        if (!ours) return;
        row.fill(ours, s.call.row(call + 1));
        __syncthreads();
        has_row = true;
      }

      const float scale = s.statistics ? s.statistics[2 * b] : 1.0f;
      const float threshold = s.statistics ? s.statistics[2 * b + 1] : 0.0f;
      const unsigned sources = row.sources<SLOTS>(s.num_slots);
      float source[STATE + SLOTS][GROUPS * N] = {};
      if (sources >> NOISE & 1) {
        if (!s.noise.data && s.seeds) draw_share<SHARE>(s, b, begin, call, drawn);
#pragma unroll
        for (int k = 0; k < GROUPS; ++k)
          noise_of(s, row.field, call, group(k), drawn + place(k), source[NOISE] + k * N);
      }
#pragma unroll
      for (int j = 0; j < SLOTS; ++j)
        if (sources >> (STATE + j) & 1)
#pragma unroll
          for (int k = 0; k < GROUPS; ++k)
            widen(load<float>(s.state, b, group(k), j * s.state_stride), source[STATE + j] + k * N);
#pragma unroll
      for (int i = 0; i < GROUPS * N; ++i) {
        const float u = to_float(plain[i / N].element[i % N]);
        source[X][i] = x[i / N].element[i % N];
        source[E][i] = u;
        if (s.output.is_guided)
          source[E][i] = fmaf(row.field[GT_DIFFUSION_GUIDANCE], to_float(conditional[i / N].element[i % N]) - u, u);
        if (s.statistics) source[E][i] *= scale;
        source[D][i] = cut(denoised(row.field, source[X][i], source[E][i]), row.field[GT_DIFFUSION_CLIP]);
      }
      if (threshold != 0.0f)
#pragma unroll
        for (int i = 0; i < GROUPS * N; ++i) source[D][i] = cut(source[D][i], threshold) / threshold;

#pragma unroll
      for (int t = 0; t <= SLOTS; ++t) {
        if (t > s.num_slots || (t > 0 && row.sources_of(t) == 0)) continue;
        const unsigned wanted = row.sources_of(t) & sources;
        float target[GROUPS * N] = {};
#pragma unroll
        for (int j = 0; j < STATE + SLOTS; ++j) {
          if (!(wanted >> j & 1)) continue;
          const float coefficient = row.field[GT_DIFFUSION_UPDATE + t * GT_DIFFUSION_SOURCES + j];
#pragma unroll
          for (int i = 0; i < GROUPS * N; ++i) target[i] = fmaf(coefficient, source[j][i], target[i]);
        }
#pragma unroll
        for (int k = 0; k < GROUPS; ++k) {
          if (element(k) >= elements) break;
          float *const values = target + k * N;
          if (t > 0) {
            store<float>(s.state, b, group(k), values, (t - 1) * s.state_stride);
            continue;
          }
          if (s.mask.data) blend_known(s, row.field, group(k), values);
          store<float>(s.sample, b, group(k), values);
          if (!s.input.data || !row.next) continue;
#pragma unroll
          for (int j = 0; j < N; ++j) values[j] *= row.next_input;
          for (int64_t i = b; i < s.num_inputs; i += s.num_images) store_any(s.input, i, group(k), values);
        }
      }
    }
  // All blocks have read the counter when the last of them has taken its ticket.
  __syncthreads();
  if (threadIdx.x != 0) return;
  const int last = static_cast<int>(gridDim.x * gridDim.y) - 1;
  if (atomicAdd(&s.call.counter[1], 1) != last) return;
  s.call.counter[1] = 0;
  s.call.counter[0] = static_cast<int32_t>(call + 1);
}

template <class F>
__device__ __forceinline__ void for_each_element(const ImageShape &shape, int64_t num_images, const F &f) {
  for (int64_t b = blockIdx.y; b < num_images; b += gridDim.y)
    for (int64_t i = static_cast<int64_t>(blockIdx.x) * THREADS + threadIdx.x; i < shape.elements();
         i += static_cast<int64_t>(gridDim.x) * THREADS)
      f(b, pixel_at(shape, static_cast<unsigned>(i)));
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

// Host

// One image of a tensor of rank 5.
ImageOperand first_of(const gt_tensor *t) {
  if (!t) return image_operand(nullptr);
  return {t->data, t->dtype, {t->stride[1], t->stride[2], t->stride[3], t->stride[4]}};
}

// For threads that take `each` elements of an image at a time.
dim3 grid_of(const gt_tensor *sample, int each) {
  const int64_t share = static_cast<int64_t>(THREADS) * each;
  const int64_t blocks = (static_cast<int64_t>(shape_of(sample).elements()) + share - 1) / share;
  const int64_t images = std::min(sample->shape[0], MAX_BLOCKS);
  return dim3(static_cast<unsigned>(std::min(blocks, std::max<int64_t>(1, MAX_BLOCKS / images))),
              static_cast<unsigned>(images));
}

// Whether every group of PACK elements lies in one piece, in the order h, w, c, and is aligned to all its bytes.
// `copies`: the distance in elements between tensors of which t is the first.
bool lies_in_packs(const ImageOperand &t, const ImageShape &shape, int64_t copies = 0) {
  if (!t.data) return true;
  const auto steps = [](unsigned size, int64_t stride, int64_t expected) { return size == 1 || stride == expected; };
  return shape.elements() % PACK == 0 && steps(shape.channels, t.stride[3], 1) &&
         steps(shape.width, t.stride[2], shape.channels) &&
         steps(shape.height, t.stride[1], static_cast<int64_t>(shape.width) * shape.channels) &&
         t.stride[0] % PACK == 0 && copies % PACK == 0 &&
         reinterpret_cast<uintptr_t>(t.data) % (PACK * dtype_bytes(t.dtype)) == 0;
}

bool goes_by_packs(const Step &s) {
  for (const ImageOperand *t : {&s.sample, &s.input, &s.variance, &s.known, &s.known_noise, &s.output.images})
    if (!lies_in_packs(*t, s.shape)) return false;
  return lies_in_packs(s.state, s.shape, s.state_stride) && lies_in_packs(s.noise, s.shape, s.noise_stride);
}

template <class T> int launch_step(const gt_stream *stream, const gt_tensor *sample, const Step &s) {
  const auto run = [&](auto kernel, int each) {
    return launch(kernel, grid_of(sample, each), THREADS, 0, stream->handle, s);
  };
  if (!goes_by_packs(s)) return run(diffusion_step_groups<T, 1, SCALARS, GT_DIFFUSION_SLOTS>, SCALARS);
  if (s.num_slots > 0) return run(diffusion_step_groups<T, PACK, 1, GT_DIFFUSION_SLOTS>, PACK);
  return run(diffusion_step_groups<T, PACK, PACKS, 0>, PACK * PACKS);
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
  switch (output->dtype) {
    case GT_F32: return status_of("diffusion_step", launch_step<float>(stream, sample, s));
    case GT_BF16: return status_of("diffusion_step", launch_step<bf16>(stream, sample, s));
    default: return status_of("diffusion_step", launch_step<f16>(stream, sample, s));
  }
}

gt_status diffusion_input_cuda(const gt_stream *stream, const gt_tensor *input, const gt_tensor *sample,
                               const gt_tensor *table, const gt_tensor *counter) {
  return status_of("diffusion_input",
                   launch(diffusion_input_elementwise, grid_of(sample, 1), THREADS, 0, stream->handle,
                          image_operand(input), image_operand(sample), shape_of(sample), call_of(table, counter),
                          sample->shape[0], input->shape[0]));
}

}  // namespace gt
