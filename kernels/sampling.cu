// From logits to the next id on CUDA: argmax, penalties and filters, and the draw.
//
// Computes    gatun/sampling.h
// Shapes      logits [B, V], V contiguous, any row stride; the state of the sequences contiguous, all on the device
// Types       logits f32 (argmax: also bf16, f16); weights f32, their sums 64-bit integers (lib/mass.h)
// Mapping     a block of V / 16 threads, 32 to 1024, owns a row; at most 65535 blocks, which step through the rows. Of
//             up to 8 rows that choose takes greedily and without penalties, up to 16 blocks each look for the largest
//             logit; the last of them by a counter finishes (lib/last_block.h). A thread reads 16-byte vectors, 4 in
//             flight. Penalties: a thread per token; ids are counted in shared memory, 8192 of the vocabulary at once.
//             Top-k, top-p, the draw: lib/select.h. In a graph, choose starts early (lib/grid_dependency.h)
// Memory      the row is read and written once for the temperature, read 4 to 10 times per cut (V = 50000), read and
//             written once per filter; it stays in L1 or L2. Shared: 35 KiB, 32 of them counts
// Numerics    the CPU twin's bits: roundings are spelt out (weight_of, penalised), sums and counts are integers, so
//             neither the block's size nor the order of atomics shows. A row with a NaN, or whose largest logit is
//             infinite, is not filtered; gt_sample reports it. -0 equals +0. Ties: the lowest id
// Limits      V < 2^31; any alignment: elements before the first and after the last multiple of 16 bytes go one by one;
//             sm_80 and later; nothing is UNSUPPORTED
// Source      inverse transform sampling; Salmon et al., SC'11 (Philox). Not yet measured on a GPU. But for a greedy
//             choice a row is one SM's work; by instruction count, 1 us per pass over 50257 logits, 5 us where all need
//             their exponential, and 2 us for the penalties of 1024 tokens
#include "lib/cuda.h"

#include <type_traits>

#include "check.h"
#include "gatun/sampling.h"
#include "lib/grid_dependency.h"
#include "lib/last_block.h"
#include "lib/philox.h"
#include "lib/row_share.h"
#include "lib/select.h"

namespace gt {

decltype(gt_argmax) argmax_cuda;
decltype(gt_process_logits) process_logits_cuda;
decltype(gt_sample) sample_cuda;
decltype(gt_choose) choose_cuda;

namespace {

constexpr int VALUES_PER_THREAD = LOADS * VEC<float>;  // so that a small vocabulary takes few threads
constexpr int MAX_THREADS = MAX_WARPS * WARP;
constexpr int64_t MAX_BLOCKS = 65535;  // enough to fill any device many times
constexpr int64_t MAX_SLICES = 16;     // blocks that look for a row's largest logit
constexpr int64_t MOST_SHARED_ROWS = 8;  // more rows than these fill the device alone
constexpr int WINDOW = 8192;           // ids counted at once: 32 KiB of shared memory

// The largest key, and the lowest id that has it.
struct Best {
  uint32_t key;
  int id;
  __device__ __forceinline__ Best over_warp() const {
    const uint32_t largest = __reduce_max_sync(ALL_LANES, key);
    return {largest, __reduce_min_sync(ALL_LANES, key == largest ? id : INT32_MAX)};
  }
  __device__ __forceinline__ Best with(const Best &o) const {
    return o.key > key || (o.key == key && o.id < id) ? o : *this;
  }
  // Never 0, and the larger the better.
  __device__ __forceinline__ unsigned long long packed() const {
    return static_cast<unsigned long long>(key) << 32 | ~static_cast<uint32_t>(id);
  }
  static __device__ __forceinline__ Best unpacked(unsigned long long packed) {
    return {static_cast<uint32_t>(packed >> 32), static_cast<int>(~static_cast<uint32_t>(packed))};
  }
};

constexpr uint32_t NAN_KEY = 0xffffffffu;

// The lowest id of the largest element; its key is NAN_KEY where an element is NaN.
template <class T>
__device__ __forceinline__ Best argmax_between(const T *row, int64_t begin, int64_t end, Best *scratch) {
  float largest = -INFINITY;
  int id = static_cast<int>(begin);
  bool has_nan = false;
  for_each_vector(row, begin, end, threadIdx.x, blockDim.x, [&](int64_t first, const float(&v)[VEC<T>]) {
#pragma unroll
    for (int j = 0; j < VEC<T>; ++j) {
      has_nan |= v[j] != v[j];
      if (v[j] > largest) {
        largest = v[j];
        id = static_cast<int>(first + j);
      }
    }
  });
  return block_combine(Best{has_nan ? NAN_KEY : order_key(largest), id}, scratch);
}
template <class T> __device__ __forceinline__ Best argmax_of(const Row<T> &row, Best *scratch) {
  return argmax_between(row.data, 0, row.v, scratch);
}

// Penalties and temperature

// One sequence's part of the state in gatun/sampling.h; the number of tokens is cut to the room there is.
struct Sequence {
  const int32_t *tokens;
  int64_t num_tokens, num_prompt;
};

__device__ __forceinline__ float penalised(float logit, uint32_t num_generated, const float *params) {
  const float repetition = params[GT_SAMPLING_REPETITION_PENALTY];
  logit = logit > 0.0f ? logit / repetition : logit * repetition;
  if (num_generated == 0) return logit;
  const float count = static_cast<float>(num_generated);
  return __fmaf_rn(-params[GT_SAMPLING_FREQUENCY_PENALTY], count, logit) - params[GT_SAMPLING_PRESENCE_PENALTY];
}

// marks: WINDOW words of shared memory. Of the threads that hold an id's occurrences, the one that takes its mark
// applies the penalty: which one, does not matter.
__device__ __forceinline__ void penalise(const Row<float> &row, const Sequence &sequence, const float *params,
                                         uint32_t *marks) {
  constexpr uint32_t IN_PROMPT = 0x80000000u;  // the other bits count the generated occurrences
  for (int64_t first = 0; first < row.v; first += WINDOW) {
    const int64_t window = min(row.v - first, static_cast<int64_t>(WINDOW));
    const auto for_each_token = [&](auto f) {
      for (int64_t i = threadIdx.x; i < sequence.num_tokens; i += blockDim.x) {
        const int64_t id = sequence.tokens[i] - first;
        if (id >= 0 && id < window) f(i, id);
      }
    };
    for (int i = threadIdx.x; i < window; i += blockDim.x) marks[i] = 0;
    __syncthreads();
    for_each_token([&](int64_t i, int64_t id) {
      if (i < sequence.num_prompt) atomicOr(&marks[id], IN_PROMPT);
      else atomicAdd(&marks[id], 1u);
    });
    __syncthreads();
    for_each_token([&](int64_t, int64_t id) {
      const uint32_t mark = atomicExch(&marks[id], 0u);
      if (mark != 0) row.data[first + id] = penalised(row.data[first + id], mark & ~IN_PROMPT, params);
    });
    __syncthreads();  // before the next window's marks, and before others read the logits
  }
}

// Divides by the temperature and returns the extent of the result.
__device__ __forceinline__ Extent scale(const Row<float> &row, float temperature, Extent *scratch) {
  Extent extent{-INFINITY, INFINITY, 0, 0};
  for_each_vector(row, [&](int64_t id, float(&v)[VEC<float>]) {
#pragma unroll
    for (int j = 0; j < VEC<float>; ++j) {
      if (temperature != 1.0f) v[j] = v[j] / temperature;
      extent.has_nan |= v[j] != v[j];
      extent.largest = fmaxf(extent.largest, v[j]);
      if (v[j] > -INFINITY) {
        extent.lowest = fminf(extent.lowest, v[j]);
        ++extent.num_present;
      }
    }
    if (temperature != 1.0f) store(row, id, v);
  });
  return block_combine(extent, scratch);
}

__device__ __forceinline__ void keep_min_p(const Row<float> &row, float largest, float min_p) {
  for_each_vector(row, [&](int64_t id, float(&v)[VEC<float>]) {
#pragma unroll
    for (int j = 0; j < VEC<float>; ++j)
      v[j] = weight_of(v[j], largest) >= min_p || v[j] == largest ? v[j] : -INFINITY;
    store(row, id, v);
  });
}

__device__ __forceinline__ bool has_penalty(const float *params) {
  return params[GT_SAMPLING_REPETITION_PENALTY] != 1.0f || params[GT_SAMPLING_PRESENCE_PENALTY] != 0.0f ||
         params[GT_SAMPLING_FREQUENCY_PENALTY] != 0.0f;
}
__device__ __forceinline__ bool has_filter(const float *params) {
  return params[GT_SAMPLING_TOP_K] >= 1.0f || params[GT_SAMPLING_TOP_P] < 1.0f || params[GT_SAMPLING_MIN_P] > 0.0f;
}

__device__ __forceinline__ void filter(const Row<float> &row, const Extent &extent, int bits, const float *params,
                                       SelectScratch &scratch) {
  const float top_k = params[GT_SAMPLING_TOP_K], top_p = params[GT_SAMPLING_TOP_P], min_p = params[GT_SAMPLING_MIN_P];
  if (extent.has_nan || !(fabsf(extent.largest) < INFINITY)) return;
  const Unit unit{extent.largest, bits};
  if (top_k >= 1.0f && top_k < static_cast<float>(extent.num_present)) {
    const Amount all{extent.num_present, extent.num_present};
    const uint64_t k = static_cast<uint64_t>(top_k);
    apply_cut(row, find_cut<Measured::COUNT>(row, extent, all, k, unit, scratch), scratch);
  }
  if (top_p < 1.0f) {
    const Amount all = amount_between<Measured::MASS>(row, extent.lowest, INFINITY, unit, scratch.amounts);
    const uint64_t mass = mass_target(static_cast<double>(top_p), all.measure);
    apply_cut(row, find_cut<Measured::MASS>(row, extent, all, mass, unit, scratch), scratch);
  }
  if (min_p > 0.0f) keep_min_p(row, extent.largest, min_p);
}

// Kernels

struct State {
  float *logits;
  int64_t stride_logits, num_rows, v, m;
  int32_t *tokens, *lengths;
  const int32_t *prompt_lengths;
  const float *params;
  int bits;
};

template <class T>
__global__ void __launch_bounds__(MAX_THREADS)
    argmax_row_per_block(int32_t *ids, const T *logits, int64_t stride, int64_t num_rows, int64_t v) {
  __shared__ Best scratch[MAX_WARPS];
  for (int64_t b = blockIdx.x; b < num_rows; b += gridDim.x) {
    const Best best = argmax_of(Row<const T>{logits + b * stride, v}, scratch);
    if (threadIdx.x == 0) ids[b] = best.key == NAN_KEY ? -1 : best.id;
  }
}

struct Filters {
  SelectScratch select;
  Extent extents[MAX_WARPS];
  uint32_t marks[WINDOW];
};

__device__ __forceinline__ void process_row(const State &s, int64_t b, Filters &scratch) {
  const int64_t length = s.lengths[b];
  if (length <= 0) return;
  const float *const params = s.params + b * GT_SAMPLING_FIELDS;
  const Row<float> row{s.logits + b * s.stride_logits, s.v};
  if (has_penalty(params)) {
    const Sequence sequence{s.tokens + b * s.m, min(length, s.m), s.prompt_lengths[b]};
    penalise(row, sequence, params, scratch.marks);
  }
  const float temperature = params[GT_SAMPLING_TEMPERATURE];
  if (!(temperature > 0.0f) || (temperature == 1.0f && !has_filter(params))) return;
  const Extent extent = scale(row, temperature, scratch.extents);
  if (has_filter(params)) filter(row, extent, s.bits, params, scratch.select);
}

__global__ void __launch_bounds__(MAX_THREADS) process_logits_row_per_block(const State s) {
  __shared__ Filters scratch;
  for (int64_t b = blockIdx.x; b < s.num_rows; b += gridDim.x) process_row(s, b, scratch);
}

// Of a row whose blocks choose together; zeros between two launches.
struct Counters {
  unsigned long long best;  // Best, packed
  unsigned num_blocks, unused;
};

struct Chosen {
  int32_t *ids, *positions, *record;
  const int64_t *seeds;
  Counters *counters;  // choose's
};

// The id, or minus a fault.
__device__ __forceinline__ int greedy_choice(const Best &best) {
  if (best.key == NAN_KEY) return -GT_FAULT_NAN;
  return float_of_key(best.key) == -INFINITY ? -GT_FAULT_NO_TOKEN : best.id;
}

// The same for any temperature.
__device__ __forceinline__ int choose(const State &s, int64_t b, const int64_t *seed, int32_t step, Best *bests,
                                      uint64_t *sums) {
  const Row<float> row{s.logits + b * s.stride_logits, s.v};
  const Best best = argmax_of(row, bests);
  const int greedy = greedy_choice(best);
  if (greedy < 0 || !(s.params[b * GT_SAMPLING_FIELDS + GT_SAMPLING_TEMPERATURE] > 0.0f)) return greedy;
  const float largest = float_of_key(best.key);
  if (largest == INFINITY) return -GT_FAULT_NAN;  // its softmax would be NaN
  const float u = philox_uniform(static_cast<uint64_t>(seed[0]), static_cast<uint32_t>(seed[1]),
                                 static_cast<uint32_t>(step), 0);
  const Unit unit{largest, s.bits};
  // most logits may have been removed: a warp of them skips the exponentials
  const auto mass = [&](float x) -> uint64_t { return x > -INFINITY ? unit.mass(x) : 0; };
  const auto target = [&](uint64_t total) { return mass_target(static_cast<double>(u), total); };
  return static_cast<int>(find_in_id_order(row, sums, mass, target));
}

// thread 0's id
__device__ __forceinline__ void advance(const State &s, const Chosen &out, int64_t b, int32_t length, int id) {
  __syncthreads();  // all have read the state
  if (threadIdx.x != 0) return;
  if (id >= 0) s.tokens[b * s.m + length] = id;
  out.ids[b] = id >= 0 ? id : -1;
  out.positions[b] = id >= 0 ? length : -1;
  s.lengths[b] = id >= 0 ? length + 1 : -length;
  out.record[b] = id;  // may be host memory: visible there when the stream has passed the kernel
}

struct Choice {
  Best bests[MAX_WARPS];
  uint64_t sums[MAX_WARPS];
};

__device__ __forceinline__ void sample_row(const State &s, const Chosen &out, int64_t b, Choice &scratch) {
  const int32_t length = s.lengths[b];
  if (length <= 0 || out.positions[b] < 0) return;
  const int id = length >= s.m ? -GT_FAULT_FULL
                               : choose(s, b, out.seeds + 2 * b, length - s.prompt_lengths[b], scratch.bests,
                                        scratch.sums);
  advance(s, out, b, length, id);
}

// A row whose id is that of its largest logit as it is: gridDim.y blocks look for it, the last one to come has it.
__device__ __forceinline__ void choose_largest(const State &s, const Chosen &out, int64_t b, Best *bests) {
  const int32_t length = s.lengths[b];
  if (length <= 0 || out.positions[b] < 0) return;
  int id = -GT_FAULT_FULL;
  if (length < s.m) {
    const int64_t slice = (s.v + gridDim.y - 1) / gridDim.y, begin = min(s.v, blockIdx.y * slice);
    const Best best = argmax_between(s.logits + b * s.stride_logits, begin, min(s.v, begin + slice), bests);
    if (threadIdx.x == 0) atomicMax(&out.counters[b].best, best.packed());
    if (!is_last_block(&out.counters[b].num_blocks, gridDim.y)) return;
    if (threadIdx.x == 0) id = greedy_choice(Best::unpacked(atomicExch(&out.counters[b].best, 0ull)));
  } else if (blockIdx.y > 0) {
    return;
  }
  advance(s, out, b, length, id);
}

__global__ void __launch_bounds__(MAX_THREADS) sample_row_per_block(const State s, const Chosen out) {
  __shared__ Choice scratch;
  for (int64_t b = blockIdx.x; b < s.num_rows; b += gridDim.x) sample_row(s, out, b, scratch);
}

__global__ void __launch_bounds__(MAX_THREADS) choose_blocks_share_row(const State s, const Chosen out) {
  __shared__ Filters filters;
  __shared__ Choice scratch;
  grid_dependency_wait();
  for (int64_t b = blockIdx.x; b < s.num_rows; b += gridDim.x) {
    const float *const params = s.params + b * GT_SAMPLING_FIELDS;
    if (!(params[GT_SAMPLING_TEMPERATURE] > 0.0f) && !has_penalty(params)) {
      choose_largest(s, out, b, scratch.bests);
      continue;
    }
    if (blockIdx.y > 0) continue;  // what changes the logits is one block's work
    process_row(s, b, filters);
    __syncthreads();  // logits that others have written
    sample_row(s, out, once(b), scratch);  // no address is kept from one to the other: registers are short
  }
}

int threads_for(int64_t v) {
  const int64_t warps = (v + WARP * VALUES_PER_THREAD - 1) / (WARP * VALUES_PER_THREAD);
  return static_cast<int>(min(warps, static_cast<int64_t>(MAX_WARPS))) * WARP;
}

// One per row of logits.
dim3 blocks_for(const gt_tensor &logits) { return dim3(static_cast<unsigned>(min(logits.shape[0], MAX_BLOCKS))); }

template <class... Params, class... Args>
gt_status run_rows(const char *op, const gt_stream *stream, const gt_tensor *logits, void (*kernel)(Params...),
                   const Args &...args) {
  if (logits->shape[0] == 0) return GT_OK;
  const int status = launch(kernel, blocks_for(*logits), threads_for(logits->shape[1]), 0, stream->handle, args...);
  return status ? fail(GT_DEVICE_ERROR, "%s: %s", op, launch_error(status)) : GT_OK;
}

int32_t *ints(const gt_tensor *t) { return static_cast<int32_t *>(t->data); }

State state_of(const gt_tensor *logits, const gt_tensor *tokens, const gt_tensor *lengths,
               const gt_tensor *prompt_lengths, const gt_tensor *params) {
  return {static_cast<float *>(logits->data), logits->stride[0], logits->shape[0], logits->shape[1], tokens->shape[1],
          ints(tokens), ints(lengths), ints(prompt_lengths), static_cast<const float *>(params->data),
          mass_bits(logits->shape[1])};
}

}  // namespace

gt_status argmax_cuda(const gt_stream *stream, const gt_tensor *ids, const gt_tensor *logits) {
  const auto run = [&](const auto *data) {
    using T = std::remove_const_t<std::remove_pointer_t<decltype(data)>>;
    return run_rows("argmax", stream, logits, argmax_row_per_block<T>, ints(ids), data, logits->stride[0],
                    logits->shape[0], logits->shape[1]);
  };
  switch (logits->dtype) {
    case GT_F32: return run(static_cast<const float *>(logits->data));
    case GT_BF16: return run(static_cast<const bf16 *>(logits->data));
    default: return run(static_cast<const f16 *>(logits->data));
  }
}

gt_status process_logits_cuda(const gt_stream *stream, const gt_tensor *logits, const gt_tensor *tokens,
                              const gt_tensor *lengths, const gt_tensor *prompt_lengths, const gt_tensor *params) {
  return run_rows("process_logits", stream, logits, process_logits_row_per_block,
                  state_of(logits, tokens, lengths, prompt_lengths, params));
}

gt_status sample_cuda(const gt_stream *stream, const gt_tensor *ids, const gt_tensor *positions,
                      const gt_tensor *record, const gt_tensor *tokens, const gt_tensor *lengths,
                      const gt_tensor *prompt_lengths, const gt_tensor *logits, const gt_tensor *params,
                      const gt_tensor *seeds) {
  const Chosen chosen{ints(ids), ints(positions), ints(record), static_cast<const int64_t *>(seeds->data), nullptr};
  return run_rows("sample", stream, logits, sample_row_per_block,
                  state_of(logits, tokens, lengths, prompt_lengths, params), chosen);
}

gt_status choose_cuda(const gt_stream *stream, const gt_tensor *ids, const gt_tensor *positions,
                      const gt_tensor *record, const gt_tensor *tokens, const gt_tensor *lengths,
                      const gt_tensor *prompt_lengths, const gt_tensor *logits, const gt_tensor *params,
                      const gt_tensor *seeds, const gt_tensor *counters) {
  if (logits->shape[0] == 0) return GT_OK;
  const Chosen chosen{ints(ids), ints(positions), ints(record), static_cast<const int64_t *>(seeds->data),
                      static_cast<Counters *>(counters->data)};
  const int64_t v = logits->shape[1], load = int64_t{threads_for(v)} * VEC<float>;
  dim3 grid = blocks_for(*logits);
  if (logits->shape[0] <= MOST_SHARED_ROWS) grid.y = static_cast<unsigned>(min(MAX_SLICES, (v + load - 1) / load));
  const int status = launch_dependent(choose_blocks_share_row, grid, threads_for(v), 0, stream->handle,
                                      state_of(logits, tokens, lengths, prompt_lengths, params), chosen);
  return status ? fail(GT_DEVICE_ERROR, "choose: %s", launch_error(status)) : GT_OK;
}

}  // namespace gt
