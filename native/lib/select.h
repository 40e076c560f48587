// Which logits of a row form the shortest prefix, by (value descending, id ascending), that reaches a target: a number
// of logits (top-k) or a probability mass (top-p)? And which id does a cumulative sum in id order reach first?
//
// The CUDA twin of cpu/select.h: without sorting, moving or storing the row. The block bisects the values between which
// the prefix ends until few logits lie there; one warp ends the search in its registers. All threads of a block, a
// multiple of 32, call these functions together. Counts and masses (lib/mass.h) are integers, so neither the block's
// size nor the order of atomics shows in a result.
// Requires a row without NaN whose largest logit is finite. Logits of -inf count as removed.
#pragma once

#include "lib/mass.h"
#include "lib/reduce.h"
#include "lib/vec.h"

namespace gt {

constexpr int LOADS = 4;              // vectors of a row that a thread has in flight
constexpr int CANDIDATES = 8 * WARP;  // logits that end a search: 8 for each lane, 24 registers

// Floats as integers of the same order; -0 is +0.
__device__ __forceinline__ uint32_t order_key(float x) {
  const uint32_t bits = __float_as_uint(x + 0.0f);
  return bits ^ (bits >> 31 ? 0xffffffffu : 0x80000000u);
}
__device__ __forceinline__ float float_of_key(uint32_t key) {
  return __uint_as_float(key ^ (key >> 31 ? 0x80000000u : 0xffffffffu));
}

// Strictly between low and high, which differ by 2 at least. The middle of the values splits logits well; every third
// pass takes the middle of the keys, which bounds the number of passes for any distribution.
__device__ __forceinline__ uint32_t split_point(uint32_t low, uint32_t high, int pass) {
  const uint32_t middle = order_key(0.5f * float_of_key(low) + 0.5f * float_of_key(high));
  return pass % 3 != 2 && middle > low && middle < high ? middle : low + (high - low) / 2;
}

// exp(logit - largest) with the roundings of vexp (cpu/math.h) for arguments up to 0: the devices are sure to decide
// alike only where the weights are equal to the last bit.
__device__ __forceinline__ float weight_of(float logit, float largest) {
  constexpr float MAGIC = 12582912.0f;  // 1.5 * 2^23: adding it rounds to the nearest integer
  const float x = logit - largest;
  const float shifted = __fmaf_rn(x, 1.44269504088896341f, MAGIC);
  const float n = shifted - MAGIC;
  float r = __fmaf_rn(-n, 0.693359375f, x);
  r = __fmaf_rn(n, 2.12194440e-4f, r);
  float p = 1.9875691500e-4f;
  p = __fmaf_rn(p, r, 1.3981999507e-3f);
  p = __fmaf_rn(p, r, 8.3334519073e-3f);
  p = __fmaf_rn(p, r, 4.1665795894e-2f);
  p = __fmaf_rn(p, r, 1.6666665459e-1f);
  p = __fmaf_rn(p, r, 5.0000001201e-1f);
  p = __fadd_rn(__fmaf_rn(__fmul_rn(p, r), r, r), 1.0f);
  const uint32_t exponent = __float_as_uint(shifted) - __float_as_uint(MAGIC);
  return x < -87.33654f ? 0.0f : __uint_as_float(__float_as_uint(p) + (exponent << 23));
}

// Reductions over the block. A Value says how the lanes of a warp combine, and how the results of two warps do.

// scratch: MAX_WARPS values of shared memory; they may be used again as soon as this returns.
template <class Value> __device__ __forceinline__ Value block_combine(const Value &mine, Value *scratch) {
  const int warps = blockDim.x / WARP;
  const Value of_warp = mine.over_warp();
  if (threadIdx.x % WARP == 0) scratch[threadIdx.x / WARP] = of_warp;
  __syncthreads();
  Value all = scratch[0];
  for (int w = 1; w < warps; ++w) all = all.with(scratch[w]);
  __syncthreads();
  return all;
}

// By pieces of 27 bits: 32 of them fit the 32 bits that the hardware adds.
__device__ __forceinline__ uint64_t warp_total(uint64_t v) {
  constexpr uint32_t PIECE = 0x7ffffff;
  const uint64_t low = __reduce_add_sync(ALL_LANES, static_cast<uint32_t>(v) & PIECE);
  const uint64_t middle = __reduce_add_sync(ALL_LANES, static_cast<uint32_t>(v >> 27) & PIECE);
  const uint64_t high = __reduce_add_sync(ALL_LANES, static_cast<uint32_t>(v >> 54));
  return low + (middle << 27) + (high << 54);
}

// What some of the logits come to: the measure is the sum of their masses, or their count as well.
struct Amount {
  uint64_t measure;
  uint32_t count;
  __device__ __forceinline__ Amount over_warp() const {
    return {warp_total(measure), __reduce_add_sync(ALL_LANES, count)};
  }
  __device__ __forceinline__ Amount with(const Amount &o) const { return {measure + o.measure, count + o.count}; }
};

struct Extent {
  float largest, lowest;  // lowest of those above -inf
  uint32_t num_present;   // how many are above -inf
  int has_nan;
  __device__ __forceinline__ Extent over_warp() const {
    return {warp_max(largest), -warp_max(-lowest), __reduce_add_sync(ALL_LANES, num_present),
            __any_sync(ALL_LANES, has_nan)};
  }
  __device__ __forceinline__ Extent with(const Extent &o) const {
    return {fmaxf(largest, o.largest), fminf(lowest, o.lowest), num_present + o.num_present, has_nan | o.has_nan};
  }
};

// Shared memory of the functions below.
struct SelectScratch {
  Amount amounts[MAX_WARPS];
  uint64_t sums[MAX_WARPS];
  float candidates[CANDIDATES];
  unsigned num_candidates;
  uint32_t cut_key;
  uint64_t above_cut;
};

// The elements of a row.
template <class T> struct Row {
  T *data;
  int64_t v;
};

// Calls f(id, values) for the 16-byte vectors of elements begin .. end-1 that thread number `member` of `members` owns.
// Vectors are counted from the 16-byte boundary at or before begin; the first and the last may reach beyond the range,
// where the values are -inf.
template <class T, class F>
__device__ __forceinline__ void for_each_vector(const T *row, int64_t begin, int64_t end, int member, int members,
                                                F f) {
  const int64_t lead = reinterpret_cast<uintptr_t>(row + begin) % VEC_BYTES / sizeof(T);
  const int64_t step = static_cast<int64_t>(members) * VEC<T>;
  int64_t i = begin - lead + member * VEC<T>;
  while (i < end) {
    if (i >= begin && i + (LOADS - 1) * step + VEC<T> <= end) {
      float v[LOADS][VEC<T>];
#pragma unroll
      for (int k = 0; k < LOADS; ++k) load_vec(row + i + k * step, v[k]);
#pragma unroll
      for (int k = 0; k < LOADS; ++k) f(i + k * step, v[k]);
      i += LOADS * step;
      continue;
    }
    float v[VEC<T>];
#pragma unroll
    for (int j = 0; j < VEC<T>; ++j) v[j] = i + j >= begin && i + j < end ? to_float(row[i + j]) : -INFINITY;
    f(i, v);
    i += step;
  }
}
template <class T, class F> __device__ __forceinline__ void for_each_vector(const Row<T> &row, F f) {
  for_each_vector(row.data, 0, row.v, threadIdx.x, blockDim.x, f);
}

// row[id + j] = v[j] where it exists; for an id that for_each_vector gave.
__device__ __forceinline__ void store(const Row<float> &row, int64_t id, const float (&v)[VEC<float>]) {
  if (id >= 0 && id + VEC<float> <= row.v) {
    store_vec(row.data + id, v);
    return;
  }
#pragma unroll
  for (int j = 0; j < VEC<float>; ++j)
    if (id + j >= 0 && id + j < row.v) row.data[id + j] = v[j];
}

// The first id at which the cumulative sum of measure(logit), in id order, reaches target_of(sum of all), which is
// positive and no larger than that sum; measure(-inf) is 0. All threads get the id. A warp sums a segment; the segment
// that holds the place is split again. sums: MAX_WARPS values of shared memory.
template <class Measure, class Target>
__device__ __forceinline__ int64_t find_in_id_order(const Row<float> &row, uint64_t *sums, Measure measure,
                                                    Target target_of) {
  constexpr int PIECE = 4 * WARP;  // a segment is whole pieces; one that is left is walked
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
  int64_t begin = 0, end = row.v;
  uint64_t before = 0, target = 0;
  do {
    const int64_t segment = (end - begin + warps * PIECE - 1) / (warps * PIECE) * PIECE;
    const int64_t first = min(begin + warp * segment, end);
    uint64_t sum = 0;
    for_each_vector(row.data, first, min(first + segment, end), lane, WARP, [&](int64_t, const float(&v)[VEC<float>]) {
#pragma unroll
      for (int j = 0; j < VEC<float>; ++j) sum += measure(v[j]);
    });
    sum = warp_total(sum);
    if (lane == 0) sums[warp] = sum;
    __syncthreads();
    if (target == 0) {
      uint64_t total = 0;
      for (int w = 0; w < warps; ++w) total += sums[w];
      target = target_of(total);
    }
    for (int w = 0; before + sums[w] < target; ++w) {
      before += sums[w];
      begin += segment;
    }
    end = min(begin + segment, end);
    __syncthreads();  // the next round writes sums
  } while (warps > 1 && end - begin > PIECE);

  for (;; begin += WARP) {  // every warp for itself
    uint64_t sum = begin + lane < end ? measure(row.data[begin + lane]) : 0;
    for (int distance = 1; distance < WARP; distance *= 2) {
      const uint64_t below = __shfl_up_sync(ALL_LANES, sum, distance);
      if (lane >= distance) sum += below;
    }
    const unsigned reached = __ballot_sync(ALL_LANES, before + sum >= target);
    before += __shfl_sync(ALL_LANES, sum, WARP - 1);
    if (reached == 0) continue;
    __syncthreads();  // the caller may write the row
    return begin + __ffs(static_cast<int>(reached)) - 1;
  }
}

enum class Measured { COUNT, MASS };

// How a logit counts: largest is the logit of weight 1, bits the unit of mass.
struct Unit {
  float largest;
  int bits;
  __device__ __forceinline__ uint64_t mass(float logit) const { return mass_of(weight_of(logit, largest), bits); }
};

// Where a prefix ends: all logits above the threshold belong to it, and so do the first num_ties at the threshold.
struct Cut {
  float threshold;
  uint64_t num_ties;
};

// Of the logits in [from, below), without -inf.
template <Measured BY>
__device__ __forceinline__ Amount amount_between(const Row<float> &row, float from, float below, const Unit &unit,
                                                 Amount *scratch) {
  Amount amount{0, 0};
  for_each_vector(row, [&](int64_t, const float(&v)[VEC<float>]) {
#pragma unroll
    for (int j = 0; j < VEC<float>; ++j)
      if (v[j] >= from && v[j] < below && v[j] > -INFINITY) {
        ++amount.count;
        if constexpr (BY == Measured::MASS) amount.measure += unit.mass(v[j]);
      }
  });
  if constexpr (BY == Measured::COUNT) amount.measure = amount.count;
  return block_combine(amount, scratch);
}

// By one warp: among the candidates, whose keys are in [low, high), the key at which their measure, added to that of
// the logits above them, reaches the target. above becomes the measure of all logits above the result.
template <Measured BY>
__device__ __forceinline__ uint32_t search_candidates(const SelectScratch &scratch, uint32_t low, uint32_t high,
                                                      uint64_t target, const Unit &unit, uint64_t &above) {
  constexpr int PER_LANE = CANDIDATES / WARP;
  uint32_t key[PER_LANE];
  uint64_t measure[PER_LANE];
#pragma unroll
  for (int k = 0; k < PER_LANE; ++k) {
    const unsigned i = threadIdx.x + k * WARP;
    key[k] = 0;  // below the key of -inf, so outside
    measure[k] = 0;
    if (i >= scratch.num_candidates) continue;
    key[k] = order_key(scratch.candidates[i]);
    measure[k] = BY == Measured::MASS ? unit.mass(scratch.candidates[i]) : 1;
  }
  for (int pass = 0;; ++pass) {
    uint32_t lowest = UINT32_MAX, highest = 0;
#pragma unroll
    for (int k = 0; k < PER_LANE; ++k)
      if (key[k] >= low && key[k] < high) {
        lowest = min(lowest, key[k]);
        highest = max(highest, key[k]);
      }
    low = __reduce_min_sync(ALL_LANES, lowest);
    high = __reduce_max_sync(ALL_LANES, highest) + 1;
    if (high - low < 2) return low;
    const uint32_t middle = split_point(low, high, pass);
    uint64_t sum = 0;
#pragma unroll
    for (int k = 0; k < PER_LANE; ++k) sum += key[k] >= middle && key[k] < high ? measure[k] : 0;
    sum = warp_total(sum);
    const bool reaches = above + sum >= target;
    low = reaches ? middle : low;
    high = reaches ? high : middle;
    above += reaches ? 0 : sum;
  }
}

// all: the amount of the whole row, whose measure is at least target > 0.
template <Measured BY>
__device__ __forceinline__ Cut find_cut(const Row<float> &row, const Extent &extent, const Amount &all, uint64_t target,
                                        const Unit &unit, SelectScratch &scratch) {
  // The prefix ends in [low, high): the measure of logits >= low reaches the target, that of logits >= high does not.
  uint32_t low = order_key(extent.lowest), high = order_key(extent.largest) + 1;
  Amount from_low = all, above{0, 0};
  for (int pass = 0; from_low.count - above.count > CANDIDATES && high - low > 1; ++pass) {
    const uint32_t middle = split_point(low, high, pass);
    const Amount amount = above.with(
        amount_between<BY>(row, float_of_key(middle), float_of_key(high), unit, scratch.amounts));
    const bool reaches = amount.measure >= target;
    (reaches ? low : high) = middle;
    (reaches ? from_low : above) = amount;
  }
  if (high - low > 1) {
    if (threadIdx.x == 0) scratch.num_candidates = 0;
    __syncthreads();
    const float from = float_of_key(low), below = float_of_key(high);
    for_each_vector(row, [&](int64_t, const float(&v)[VEC<float>]) {
#pragma unroll
      for (int j = 0; j < VEC<float>; ++j)
        if (v[j] >= from && v[j] < below) scratch.candidates[atomicAdd(&scratch.num_candidates, 1u)] = v[j];
    });
    __syncthreads();
    if (threadIdx.x < WARP) {
      const uint32_t key = search_candidates<BY>(scratch, low, high, target, unit, above.measure);
      if (threadIdx.x == 0) {
        scratch.cut_key = key;
        scratch.above_cut = above.measure;
      }
    }
    __syncthreads();
    low = scratch.cut_key;
    above.measure = scratch.above_cut;
  }
  const float threshold = float_of_key(low);
  const uint64_t missing = target - above.measure;
  if constexpr (BY == Measured::COUNT) return {threshold, missing};
  const uint64_t tie = unit.mass(threshold);
  return {threshold, missing <= tie ? 1 : (missing + tie - 1) / tie};
}

// Sets what lies beyond the cut to -inf.
__device__ __forceinline__ void apply_cut(const Row<float> &row, const Cut &cut, SelectScratch &scratch) {
  Amount ties{0, 0};
  for_each_vector(row, [&](int64_t id, float(&v)[VEC<float>]) {
#pragma unroll
    for (int j = 0; j < VEC<float>; ++j) {
      ties.count += v[j] == cut.threshold;
      v[j] = v[j] >= cut.threshold ? v[j] : -INFINITY;
    }
    store(row, id, v);
  });
  ties = block_combine(ties, scratch.amounts);
  if (ties.count <= cut.num_ties) return;
  const int64_t last = find_in_id_order(
      row, scratch.sums, [&](float x) -> uint64_t { return x == cut.threshold; },
      [&](uint64_t) { return cut.num_ties; });
  for_each_vector(row, [&](int64_t id, const float(&v)[VEC<float>]) {
#pragma unroll
    for (int j = 0; j < VEC<float>; ++j)
      if (v[j] == cut.threshold && id + j > last) row.data[id + j] = -INFINITY;
  });
}

}  // namespace gt
