// From logits to the next id on CUDA: argmax, penalties and filters, and the draw.
//
// Computes    gatun/sampling.h
// Shapes      logits [B, V], V contiguous, any row stride; the state of the sequences contiguous, all on the device
// Types       logits f32 (argmax: also bf16, f16); weights f32, their sums 64-bit integers (lib/mass.h)
// Mapping     a cluster of 1 to 8 blocks owns a row, each of them a slice of whole 16-byte vectors (lib/team.h): twice
//             as many as long as 128 blocks do for all rows and a slice has 2048 logits, or as it takes for a slice to
//             fit in shared memory. Before Hopper, and for argmax, a block owns a row. A block has slice / 16 threads,
//             32 to 512; at most 65535 blocks, which step through the rows. Penalties: a thread per token looks for ids
//             of its block's slice, of which up to 16384 are counted at once. Top-k, top-p, the draw: lib/select.h. One
//             thread of the team advances the state. In a graph they start early (lib/grid_dependency.h)
// Memory      a row is read once, into shared memory, and written once if it has changed: on a Hopper up to 415,000
//             logits, 52,000 by a block alone. A longer one stays in L2 and is read, and partly written, by each of 10
//             to 15 passes. A greedy choice without penalties reads a row where it is. Shared: the slice, a word for
//             each id that is counted, 6 KiB
// Numerics    the CPU twin's bits: roundings are spelt out (weight_of, penalised), sums and counts are integers, so
//             neither the number and size of blocks nor the order of atomics shows. A row with a NaN, or whose largest
//             logit is infinite, is not filtered; gt_sample reports it. -0 equals +0. Ties: the lowest id
// Limits      V < 2^31; any alignment: elements before the first and after the last multiple of 16 bytes go one by one;
//             sm_80 and later; nothing is UNSUPPORTED
// Source      inverse transform sampling; Salmon et al., SC'11 (Philox). Not yet measured on a GPU; what is expected,
//             by counts of instructions and barriers: bench/results/h200.md, "Draws"
#include "lib/cuda.h"

#include <type_traits>

#include "check.h"
#include "gatun/sampling.h"
#include "lib/async_copy.h"
#include "lib/entry.h"
#include "lib/grid_dependency.h"
#include "lib/hopper.h"
#include "lib/philox.h"
#include "lib/select.h"

namespace gt {

decltype(gt_argmax) argmax_cuda;
decltype(gt_process_logits) process_logits_cuda;
decltype(gt_sample) sample_cuda;
decltype(gt_choose) choose_cuda;

namespace {

constexpr int VALUES_PER_THREAD = GLOBAL_LOADS * VEC<float>;  // so that a small vocabulary takes few threads
constexpr int MAX_THREADS = 512;
constexpr int64_t MAX_BLOCKS = 65535;      // enough to fill any device many times
constexpr int64_t MOST_IN_CLUSTERS = 128;  // blocks: each has an SM to itself
constexpr int64_t MAX_WINDOW = 16384;      // ids counted at once, each in a word of shared memory
#if defined(GT_SIMT)
// So that tests have small slices and empty ones, several windows, and rows that are not kept in shared memory.
constexpr int64_t LEAST_SLICE = 1, MIN_WINDOW = 256, MAX_ROOM = 1024;
#else
constexpr int64_t LEAST_SLICE = 2048;  // logits: a pass over fewer takes no longer than a barrier of the cluster
constexpr int64_t MIN_WINDOW = 4096, MAX_ROOM = INT32_MAX;  // words of shared memory
#endif

// The largest key, and the lowest id that has it.
struct Best {
  uint32_t key = 0;  // below that of -inf
  int id = INT32_MAX;
  __device__ __forceinline__ Best over_warp() const {
    const uint32_t largest = __reduce_max_sync(ALL_LANES, key);
    return {largest, __reduce_min_sync(ALL_LANES, key == largest ? id : INT32_MAX)};
  }
};

constexpr uint32_t NAN_KEY = 0xffffffffu;

// The lowest id of the largest element; its key is NAN_KEY where an element is NaN.
template <class T> __device__ __forceinline__ Best argmax_of(const Row<T> &row, Team &team) {
  float largest = -INFINITY;
  int place = 0;
  bool has_nan = false;
  for_each_vector<GLOBAL_LOADS>(row, [&](int first, const float(&v)[VEC<T>]) {
#pragma unroll
    for (int j = 0; j < VEC<T>; ++j) {
      has_nan |= v[j] != v[j];
      if (v[j] > largest) {
        largest = v[j];
        place = first + j;
      }
    }
  });
  return team.combine(Best{has_nan ? NAN_KEY : order_key(largest), row.first_id + place});
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

// marks: `window` words of shared memory. Of the threads that hold an id's occurrences, the one that takes its mark
// applies the penalty: which one, does not matter.
__device__ __forceinline__ void penalise(const Row<float> &row, const Sequence &sequence, const float *params,
                                         uint32_t *marks, int window) {
  constexpr uint32_t IN_PROMPT = 0x80000000u;  // the other bits count the generated occurrences
  for (int64_t first = 0; first < row.n; first += window) {
    const int64_t count = min(row.n - first, static_cast<int64_t>(window));
    const auto for_each_token = [&](auto f) {
      for (int64_t i = threadIdx.x; i < sequence.num_tokens; i += blockDim.x) {
        const int64_t place = sequence.tokens[i] - row.first_id - first;
        if (place >= 0 && place < count) f(i, place);
      }
    };
    for (int i = threadIdx.x; i < count; i += blockDim.x) marks[i] = 0;
    __syncthreads();  // and logits that others have written
    for_each_token([&](int64_t i, int64_t place) {
      if (i < sequence.num_prompt) atomicOr(&marks[place], IN_PROMPT);
      else atomicAdd(&marks[place], 1u);
    });
    __syncthreads();
    for_each_token([&](int64_t, int64_t place) {
      const uint32_t mark = atomicExch(&marks[place], 0u);
      if (mark != 0) row.data[first + place] = penalised(row.data[first + place], mark & ~IN_PROMPT, params);
    });
    __syncthreads();  // before the next window's marks, and before others read the logits
  }
}

// Divides by the temperature and returns the extent of the result, in lane r that of block r.
__device__ __forceinline__ Extent scale(const Row<float> &row, float temperature, Team &team) {
  Extent extent;
  for_each_vector(row, [&](int i, float(&v)[VEC<float>]) {
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
    if (temperature != 1.0f) store(row, i, v);
  });
  return team.gather(extent);
}

__device__ __forceinline__ void keep_min_p(const Row<float> &row, float largest, float min_p) {
  for_each_vector(row, [&](int i, float(&v)[VEC<float>]) {
#pragma unroll
    for (int j = 0; j < VEC<float>; ++j)
      v[j] = weight_of(v[j], largest) >= min_p || v[j] == largest ? v[j] : -INFINITY;
    store(row, i, v);
  });
}

__device__ __forceinline__ bool has_penalty(const float *params) {
  return params[GT_SAMPLING_REPETITION_PENALTY] != 1.0f || params[GT_SAMPLING_PRESENCE_PENALTY] != 0.0f ||
         params[GT_SAMPLING_FREQUENCY_PENALTY] != 0.0f;
}
__device__ __forceinline__ bool has_filter(const float *params) {
  return params[GT_SAMPLING_TOP_K] >= 1.0f || params[GT_SAMPLING_TOP_P] < 1.0f || params[GT_SAMPLING_MIN_P] > 0.0f;
}

__device__ __forceinline__ bool changes_logits(const float *params) {
  const float temperature = params[GT_SAMPLING_TEMPERATURE];
  return has_penalty(params) || (temperature > 0.0f && (temperature != 1.0f || has_filter(params)));
}

// extent: of the row. num_present: its field, in lane r that of block r.
__device__ __forceinline__ void filter(const Row<float> &row, Team &team, const Extent &extent, uint32_t num_present,
                                       int bits, const float *params, SelectScratch &scratch) {
  const float top_k = params[GT_SAMPLING_TOP_K], top_p = params[GT_SAMPLING_TOP_P], min_p = params[GT_SAMPLING_MIN_P];
  if (extent.has_nan || !(fabsf(extent.largest) < INFINITY)) return;
  const Unit unit{extent.largest, bits};
  if (top_k >= 1.0f && top_k < static_cast<float>(extent.num_present)) {
    const uint64_t k = static_cast<uint64_t>(top_k);
    apply_cut(row, team, find_cut<Count>(row, team, extent, num_present, k, unit, scratch), scratch);
  }
  if (top_p < 1.0f) {
    const float from[1] = {extent.lowest};
    const Mass mass = team.gather(amounts_between<Mass>(row, from, INFINITY, unit)).of[0];
    const uint64_t target = mass_target(static_cast<double>(top_p), warp_total(mass.mass));
    apply_cut(row, team, find_cut<Mass>(row, team, extent, mass.count, target, unit, scratch), scratch);
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
  int num_kept, window;  // words of dynamic shared memory: a block's slice of a row, or 0; then marks of ids
};

struct Chosen {
  int32_t *ids, *positions, *record;
  const int64_t *seeds;
};

template <class T>
__global__ void __launch_bounds__(MAX_THREADS)
    argmax_row_per_block(int32_t *ids, const T *logits, int64_t stride, int64_t num_rows, int v) {
  __shared__ TeamScratch scratch;
  Team team(scratch);
  for (int64_t b = blockIdx.x; b < num_rows; b += gridDim.x) {
    const Best best = argmax_of(Row<const T>{logits + b * stride, v, 0}, team);
    if (threadIdx.x == 0) ids[b] = best.key == NAN_KEY ? -1 : best.id;
  }
}

// This block's part of row b: as many 16-byte vectors of memory as the others have, so that all but the row's own ends
// are whole.
__device__ __forceinline__ Row<float> slice_of(const State &s, int64_t b, const Team &team) {
  float *const row = s.logits + b * s.stride_logits;
  if (team.size == 1) return {row, static_cast<int>(s.v), 0};
  const int lead = static_cast<int>(reinterpret_cast<uintptr_t>(row) % VEC_BYTES / sizeof(float));
  const unsigned in_all = static_cast<unsigned>(s.v) + lead, vectors = (in_all + VEC<float> - 1) / VEC<float>;
  const unsigned slice = (vectors + team.size - 1) / team.size * VEC<float>;
  const int begin = max(static_cast<int>(min(team.rank * slice, in_all) - lead), 0);
  const int end = max(static_cast<int>(min((team.rank + 1) * slice, in_all) - lead), 0);
  return {row + begin, end - begin, begin};
}

// The slice in shared memory, at the same place of a vector.
__device__ __forceinline__ Row<float> kept_slice(const Row<float> &slice, float *kept) {
  return {kept + reinterpret_cast<uintptr_t>(slice.data) % VEC_BYTES / sizeof(float), slice.n, slice.first_id};
}

// A thread copies the vectors that for_each_vector gives it.
__device__ __forceinline__ void keep(const Row<float> &slice, const Row<float> &kept) {
  const int lead = static_cast<int>(reinterpret_cast<uintptr_t>(slice.data) % VEC_BYTES / sizeof(float));
  for (int i = static_cast<int>(threadIdx.x) * VEC<float> - lead; i < slice.n; i += blockDim.x * VEC<float>) {
    if (i >= 0 && i <= slice.n - VEC<float>) {
      async_copy_16(kept.data + i, slice.data + i, VEC_BYTES);
    } else {
#pragma unroll 1
      for (int j = max(i, 0); j < min(i + VEC<float>, slice.n); ++j) kept.data[j] = slice.data[j];
    }
  }
  async_copy_commit();
  async_copy_wait<0>();
}

// The id, or minus a fault.
__device__ __forceinline__ int greedy_choice(const Best &best) {
  if (best.key == NAN_KEY) return -GT_FAULT_NAN;
  return float_of_key(best.key) == -INFINITY ? -GT_FAULT_NO_TOKEN : best.id;
}

constexpr int OF_ANOTHER = INT32_MIN;  // another block has the id, or the fault

// Draws from softmax(row).
__device__ __forceinline__ int draw(const State &s, const Row<float> &row, Team &team, const Extent &extent,
                                    const int64_t *seed, int32_t step, uint64_t *sums) {
  const bool is_first = team.rank == 0;
  if (extent.largest == -INFINITY && !extent.has_nan) return is_first ? -GT_FAULT_NO_TOKEN : OF_ANOTHER;
  if (extent.has_nan || extent.largest == INFINITY)  // its softmax would be NaN
    return is_first ? -GT_FAULT_NAN : OF_ANOTHER;
  const float u = philox_uniform(static_cast<uint64_t>(seed[0]), static_cast<uint32_t>(seed[1]),
                                 static_cast<uint32_t>(step), 0);
  const Unit unit{extent.largest, s.bits};
  // most logits may have been removed: a warp of them skips the exponentials
  const auto mass = [&](float x) -> uint64_t { return x > -INFINITY ? unit.mass(x) : 0; };
  const auto target = [&](uint64_t total) { return mass_target(static_cast<double>(u), total); };
  const int place = find_in_id_order(row, team, sums, mass, target);
  return place >= 0 && place < row.n ? row.first_id + place : OF_ANOTHER;
}

// By one thread, when all of the team have read the state.
__device__ __forceinline__ void advance(const State &s, const Chosen &out, int64_t b, int32_t length, int id) {
  if (id >= 0) s.tokens[b * s.m + length] = id;
  out.ids[b] = id >= 0 ? id : -1;
  out.positions[b] = id >= 0 ? length : -1;
  s.lengths[b] = id >= 0 ? length + 1 : -length;
  out.record[b] = id;  // may be host memory: visible there when the stream has passed the kernel
}

enum Does { PROCESS = 1, SAMPLE = 2, CHOOSE = PROCESS | SAMPLE };

struct Scratch {
  TeamScratch team;
  SelectScratch select;
};

template <int DOES>
__device__ __forceinline__ void do_row(const State &s, const Chosen &out, int64_t b, Team &team, SelectScratch &scratch,
                                       float *kept, uint32_t *marks) {
  // all of the state is asked for before the first is looked at
  const int32_t length = s.lengths[b], num_prompt = s.prompt_lengths[b];
  float params[GT_SAMPLING_FIELDS];
#pragma unroll
  for (int i = 0; i < GT_SAMPLING_FIELDS; ++i) params[i] = s.params[b * GT_SAMPLING_FIELDS + i];
  const int32_t position = (DOES & SAMPLE) != 0 ? out.positions[b] : -1;
  const bool is_drawn = params[GT_SAMPLING_TEMPERATURE] > 0.0f, samples = position >= 0;
  const bool changes = (DOES & PROCESS) != 0 && changes_logits(params);
  if (length <= 0 || (!changes && !samples)) return;
  const Row<float> given = slice_of(s, b, team);
  const bool keeps = s.num_kept > 0 && (changes || is_drawn);  // what is read once only stays where it is
  const Row<float> row = keeps ? kept_slice(given, kept) : given;
  if (keeps) keep(given, row);
  if (changes && has_penalty(params)) {
    const Sequence sequence{s.tokens + b * s.m, min(static_cast<int64_t>(length), s.m), num_prompt};
    penalise(row, sequence, params, marks, s.window);
  }
  Extent extent;
  if (is_drawn) {
    const Extent of_blocks = scale(row, changes ? params[GT_SAMPLING_TEMPERATURE] : 1.0f, team);
    extent = of_blocks.over_warp();
    if (changes && has_filter(params)) filter(row, team, extent, of_blocks.num_present, s.bits, params, scratch);
  }
  if (samples) {
    int id = OF_ANOTHER;
    if (length >= s.m) {
      team.sync();  // all have read the state; else they have when they put something together
      if (team.rank == 0) id = -GT_FAULT_FULL;
    } else if (is_drawn) {
      id = draw(s, row, team, extent, out.seeds + 2 * b, length - num_prompt, scratch.sums);
    } else {
      const Best best = argmax_of(row, team);
      if (team.rank == 0) id = greedy_choice(best);
    }
    if (id != OF_ANOTHER && threadIdx.x == 0) advance(s, out, b, length, id);
  }
  if (keeps && changes) for_each_vector(row, [&](int i, const float(&v)[VEC<float>]) { store(given, i, v); });
}

template <int DOES> __global__ void __launch_bounds__(MAX_THREADS, 1) team_per_row(const State s, const Chosen out) {
  __shared__ Scratch scratch;
  GT_DYNAMIC_SMEM(float, kept);
  cluster_arrive();
  grid_dependency_wait();
  cluster_wait();
  Team team(scratch.team);
  if (threadIdx.x == 0) scratch.select.num_own = 0;  // seen behind the first extent's barrier
  for (int64_t b = blockIdx.x / team.size; b < s.num_rows; b += gridDim.x / team.size)
    do_row<DOES>(s, out, b, team, scratch.select, kept, reinterpret_cast<uint32_t *>(kept + s.num_kept));
}

int threads_for(int64_t v) {
  const int64_t warps = (v + WARP * VALUES_PER_THREAD - 1) / (WARP * VALUES_PER_THREAD);
  return static_cast<int>(min(warps, int64_t{MAX_THREADS / WARP})) * WARP;
}

// How a row lies on blocks: as many, a power of two, as there are SMs and logits for, or as it takes to keep it.
struct Layout {
  int64_t blocks, slice, num_kept, room;  // per row; the others in words of a block's shared memory
};
Layout layout_of(int64_t num_rows, int64_t v) {
  const int64_t in_all = (max_dynamic_shared_bytes() - static_cast<int64_t>(sizeof(Scratch))) / int64_t{sizeof(float)};
  const int64_t room = min(in_all, MAX_ROOM);
  const int64_t vectors = (v + 2 * (VEC<float> - 1)) / VEC<float>;  // of memory, however the row lies
  const int64_t most = has_clusters() ? MAX_CLUSTER : 1;
  for (int64_t blocks = 1;; blocks *= 2) {
    const int64_t slice = (vectors + blocks - 1) / blocks * VEC<float>;
    const bool fits = slice + min(slice, MIN_WINDOW) <= room;
    const bool pays = 2 * blocks * num_rows <= MOST_IN_CLUSTERS && v >= 2 * blocks * LEAST_SLICE;
    if (blocks == most || (fits && !pays)) return {blocks, slice, fits ? slice : 0, room};
  }
}

template <int DOES> gt_status run_rows(const char *op, const gt_stream *stream, State s, const Chosen &out) {
  if (s.num_rows == 0) return GT_OK;
  const Layout layout = layout_of(s.num_rows, s.v);
  s.num_kept = static_cast<int>(layout.num_kept);
  s.window = DOES & PROCESS ? static_cast<int>(min(min(layout.slice, MAX_WINDOW), layout.room - s.num_kept)) : 0;
  const size_t shared_bytes = static_cast<size_t>(s.num_kept + s.window) * sizeof(float);
  const unsigned blocks = static_cast<unsigned>(layout.blocks);
  const dim3 grid(static_cast<unsigned>(min(s.num_rows, MAX_BLOCKS / layout.blocks) * layout.blocks));
  const int threads = threads_for(layout.slice);
  const int status =
      blocks == 1 ? launch_dependent(team_per_row<DOES>, grid, threads, shared_bytes, stream->handle, s, out)
                  : launch_dependent_in_clusters(team_per_row<DOES>, grid, blocks, threads, shared_bytes,
                                                 stream->handle, s, out);
  return status_of(op, status);
}

int32_t *ints(const gt_tensor *t) { return static_cast<int32_t *>(t->data); }

State state_of(const gt_tensor *logits, const gt_tensor *tokens, const gt_tensor *lengths,
               const gt_tensor *prompt_lengths, const gt_tensor *params) {
  return {static_cast<float *>(logits->data), logits->stride[0], logits->shape[0], logits->shape[1], tokens->shape[1],
          ints(tokens), ints(lengths), ints(prompt_lengths), static_cast<const float *>(params->data),
          mass_bits(logits->shape[1]), 0, 0};
}

Chosen chosen_of(const gt_tensor *ids, const gt_tensor *positions, const gt_tensor *record, const gt_tensor *seeds) {
  return {ints(ids), ints(positions), ints(record), static_cast<const int64_t *>(seeds->data)};
}

}  // namespace

gt_status argmax_cuda(const gt_stream *stream, const gt_tensor *ids, const gt_tensor *logits) {
  const int64_t num_rows = logits->shape[0], v = logits->shape[1];
  if (num_rows == 0) return GT_OK;
  const auto run = [&](const auto *data) {
    using T = std::remove_const_t<std::remove_pointer_t<decltype(data)>>;
    const dim3 grid(static_cast<unsigned>(min(num_rows, MAX_BLOCKS)));
    const int status = launch(argmax_row_per_block<T>, grid, threads_for(v), 0, stream->handle, ints(ids), data,
                              logits->stride[0], num_rows, static_cast<int>(v));
    return status_of("argmax", status);
  };
  switch (logits->dtype) {
    case GT_F32: return run(static_cast<const float *>(logits->data));
    case GT_BF16: return run(static_cast<const bf16 *>(logits->data));
    default: return run(static_cast<const f16 *>(logits->data));
  }
}

gt_status process_logits_cuda(const gt_stream *stream, const gt_tensor *logits, const gt_tensor *tokens,
                              const gt_tensor *lengths, const gt_tensor *prompt_lengths, const gt_tensor *params) {
  return run_rows<PROCESS>("process_logits", stream, state_of(logits, tokens, lengths, prompt_lengths, params), {});
}

gt_status sample_cuda(const gt_stream *stream, const gt_tensor *ids, const gt_tensor *positions,
                      const gt_tensor *record, const gt_tensor *tokens, const gt_tensor *lengths,
                      const gt_tensor *prompt_lengths, const gt_tensor *logits, const gt_tensor *params,
                      const gt_tensor *seeds) {
  return run_rows<SAMPLE>("sample", stream, state_of(logits, tokens, lengths, prompt_lengths, params),
                          chosen_of(ids, positions, record, seeds));
}

gt_status choose_cuda(const gt_stream *stream, const gt_tensor *ids, const gt_tensor *positions,
                      const gt_tensor *record, const gt_tensor *tokens, const gt_tensor *lengths,
                      const gt_tensor *prompt_lengths, const gt_tensor *logits, const gt_tensor *params,
                      const gt_tensor *seeds) {
  return run_rows<CHOOSE>("choose", stream, state_of(logits, tokens, lengths, prompt_lengths, params),
                          chosen_of(ids, positions, record, seeds));
}

}  // namespace gt
