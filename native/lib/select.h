// Which logits of a row form the shortest prefix, by (value descending, id ascending), that reaches a target: a number
// of logits (top-k) or a probability mass (top-p)? And which id does a cumulative sum in id order reach first?
//
// The CUDA twin of cpu/select.h: without sorting or moving the row. A team (lib/team.h) splits the values between which
// the prefix ends in four, again and again, until few logits lie there; one warp ends the search in its registers. Each
// block of the team has a slice of the row, in global or in shared memory. All threads of a team, whose blocks are a
// multiple of 32 threads, call these functions together. Counts and masses (lib/mass.h) are integers, so neither the
// number of blocks, nor their size, nor the order of atomics shows in a result.
// Requires a row without NaN whose largest logit is finite. Logits of -inf count as removed.
#pragma once

#include "lib/mass.h"
#include "lib/team.h"
#include "lib/vec.h"

namespace gt {

// Vectors of a row that a thread has in flight: 4 to and from global memory. A Hopper has its slices in shared memory,
// where other warps cover a load; the code, which runs once and comes from L2, is a quarter.
constexpr int GLOBAL_LOADS = 4;
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
constexpr int LOADS = GLOBAL_LOADS;
#else
constexpr int LOADS = 1;
#endif
constexpr int CANDIDATES = 8 * WARP;  // logits that end a search: 8 for each lane, 24 registers
constexpr int SPLITS = 3;             // values that a pass counts from: what a team agrees on costs more than a count

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

// By pieces of 27 bits: 32 of them fit the 32 bits that the hardware adds.
__device__ __forceinline__ uint64_t warp_total(uint64_t v) {
  constexpr uint32_t PIECE = 0x7ffffff;
  const uint64_t low = __reduce_add_sync(ALL_LANES, static_cast<uint32_t>(v) & PIECE);
  const uint64_t middle = __reduce_add_sync(ALL_LANES, static_cast<uint32_t>(v >> 27) & PIECE);
  const uint64_t high = __reduce_add_sync(ALL_LANES, static_cast<uint32_t>(v >> 54));
  return low + (middle << 27) + (high << 54);
}

// How a logit counts: largest is the logit of weight 1, bits the unit of mass.
struct Unit {
  float largest;
  int bits;
  __device__ __forceinline__ uint64_t mass(float logit) const { return mass_of(weight_of(logit, largest), bits); }
};

// What some of the logits come to, by their number.
struct Count {
  static constexpr bool IS_COSTLY = false;  // to make of a logit
  uint32_t count = 0;
  static __device__ __forceinline__ Count of(float, const Unit &) { return {1}; }
  static __device__ __forceinline__ uint64_t measure_of(float, const Unit &) { return 1; }
  __device__ __forceinline__ uint64_t measure() const { return count; }
  __device__ __forceinline__ void add(const Count &o) { count += o.count; }
  __device__ __forceinline__ Count over_warp() const { return {__reduce_add_sync(ALL_LANES, count)}; }
};

// And by the sum of their masses.
struct Mass {
  static constexpr bool IS_COSTLY = true;
  uint64_t mass = 0;
  uint32_t count = 0;
  static __device__ __forceinline__ Mass of(float logit, const Unit &unit) { return {unit.mass(logit), 1}; }
  static __device__ __forceinline__ uint64_t measure_of(float logit, const Unit &unit) { return unit.mass(logit); }
  __device__ __forceinline__ uint64_t measure() const { return mass; }
  __device__ __forceinline__ void add(const Mass &o) { mass += o.mass, count += o.count; }
  __device__ __forceinline__ Mass over_warp() const {
    return {warp_total(mass), __reduce_add_sync(ALL_LANES, count)};
  }
};

template <class Amount, int N> struct Amounts {
  Amount of[N];
  __device__ __forceinline__ Amounts over_warp() const {
    Amounts all;
#pragma unroll
    for (int k = 0; k < N; ++k) all.of[k] = of[k].over_warp();
    return all;
  }
};

struct Total {
  uint64_t sum = 0;
  __device__ __forceinline__ Total over_warp() const { return {warp_total(sum)}; }
};

struct Extent {
  float largest = -INFINITY, lowest = INFINITY;  // lowest of those above -inf
  uint32_t num_present = 0;                      // how many are above -inf
  int has_nan = 0;
  __device__ __forceinline__ Extent over_warp() const {
    return {warp_max(largest), -warp_max(-lowest), __reduce_add_sync(ALL_LANES, num_present),
            __any_sync(ALL_LANES, has_nan)};
  }
};

// Shared memory of the functions below.
struct SelectScratch {
  uint64_t sums[MAX_WARPS];
  float candidates[CANDIDATES];
  unsigned num_own;  // candidates of this block; 0 between two searches, and before the first
  uint32_t cut_key, num_at_cut;
  uint64_t above_cut;
};

// A block's slice of a row: element i has the id first_id + i.
template <class T> struct Row {
  T *data;
  int n, first_id;
};

// Calls f(i, values) for the 16-byte vectors of elements begin .. end-1 that thread number `member` of `members` owns.
// Vectors are counted from the 16-byte boundary at or before begin; the first and the last may reach beyond the range,
// where the values are -inf; with IN_FLIGHT > 1 some may lie there altogether, at i = end. end - begin < 2^31.
template <int IN_FLIGHT, class T, class F>
__device__ __forceinline__ void for_each_vector(const T *row, unsigned begin, unsigned end, unsigned member,
                                                unsigned members, F f) {
  const unsigned lead = static_cast<unsigned>(reinterpret_cast<uintptr_t>(row + begin) % VEC_BYTES / sizeof(T));
  const T *const base = row + begin - lead;
  const unsigned count = end - begin + lead, step = members * VEC<T>;
  const auto index = [&](unsigned p) { return static_cast<int>(begin - lead + p); };
  unsigned p = member * VEC<T>;  // from base
#pragma unroll 1
  while (p < count) {
    if (IN_FLIGHT > 1 && p >= lead && p + VEC<T> <= count) {
      float v[IN_FLIGHT][VEC<T>];
      const auto is_whole = [&](unsigned k) { return p + k * step + VEC<T> <= count; };
#pragma unroll
      for (unsigned k = 0; k < IN_FLIGHT; ++k) load_vec(base + p + (is_whole(k) ? k * step : 0), v[k]);
      unsigned num_whole = 0;
#pragma unroll
      for (unsigned k = 0; k < IN_FLIGHT; ++k) {  // no branch, into which the compiler would move the load
#pragma unroll
        for (int j = 0; j < VEC<T>; ++j) v[k][j] = is_whole(k) ? v[k][j] : -INFINITY;
        f(is_whole(k) ? index(p + k * step) : static_cast<int>(end), v[k]);
        num_whole += is_whole(k);
      }
      p += num_whole * step;
      continue;
    }
    float v[VEC<T>];
    if (p >= lead && p + VEC<T> <= count) {
      load_vec(base + p, v);
    } else {
#pragma unroll
      for (unsigned j = 0; j < VEC<T>; ++j) v[j] = p + j >= lead && p + j < count ? to_float(base[p + j]) : -INFINITY;
    }
    f(index(p), v);
    p += step;
  }
}
template <int IN_FLIGHT = LOADS, class T, class F>
__device__ __forceinline__ void for_each_vector(const Row<T> &row, F f) {
  for_each_vector<IN_FLIGHT>(row.data, 0, row.n, threadIdx.x, blockDim.x, f);
}

// row[i + j] = v[j] where it exists; for an i that for_each_vector gave.
__device__ __forceinline__ void store(const Row<float> &row, int i, const float (&v)[VEC<float>]) {
  if (i >= 0 && i <= row.n - VEC<float>) {
    store_vec(row.data + i, v);
    return;
  }
#pragma unroll
  for (int j = 0; j < VEC<float>; ++j)
    if (i + j >= 0 && i < row.n - j) row.data[i + j] = v[j];
}

// Where in the row the cumulative sum of measure(logit), in id order, first reaches target_of(sum of all), which is
// positive and no larger than that sum; measure(-inf) is 0. All threads of a block get the place in its slice: -1 where
// it lies in front of the slice, n where it lies behind. A warp sums a segment; the one that holds the place is split
// again. sums: MAX_WARPS values of shared memory.
template <class Measure, class Target>
__device__ __forceinline__ int find_in_id_order(const Row<float> &row, Team &team, uint64_t *sums, Measure measure,
                                                Target target_of) {
  constexpr unsigned PIECE = 4 * WARP;  // a segment is whole pieces; one that is left is walked
  const unsigned lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
  unsigned begin = 0, end = static_cast<unsigned>(row.n);
  uint64_t before = 0, target = 0;
  __syncthreads();  // logits that others have written
  do {
    const unsigned segment = (end - begin + warps * PIECE - 1) / (warps * PIECE) * PIECE;
    const unsigned first = min(begin + warp * segment, end);
    uint64_t sum = 0;
    for_each_vector<LOADS>(row.data, first, min(first + segment, end), lane, WARP,
                           [&](int, const float(&v)[VEC<float>]) {
#pragma unroll
                             for (int j = 0; j < VEC<float>; ++j) sum += measure(v[j]);
                           });
    const uint64_t of_warp = warp_total(sum);
    if (lane == 0) sums[warp] = of_warp;
    if (target == 0) {
      const uint64_t of_block = team.gather(Total{sum}).sum;
      target = target_of(warp_total(of_block));
      if (team.size > 1) {
        before = warp_total(lane < team.rank ? of_block : 0);
        if (before >= target) return -1;
        if (before + __shfl_sync(ALL_LANES, of_block, static_cast<int>(team.rank)) < target) return row.n;
      }
    } else {
      __syncthreads();
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
    for (unsigned distance = 1; distance < WARP; distance *= 2) {
      const uint64_t below = __shfl_up_sync(ALL_LANES, sum, distance);
      if (lane >= distance) sum += below;
    }
    const unsigned reached = __ballot_sync(ALL_LANES, before + sum >= target);
    before += __shfl_sync(ALL_LANES, sum, WARP - 1);
    if (reached == 0) continue;
    __syncthreads();  // the caller may write the row
    return static_cast<int>(begin) + __ffs(static_cast<int>(reached)) - 1;
  }
}

// Where a prefix ends: all logits above the threshold belong to it, and of those at the threshold, which are num_equal,
// the first num_ties.
struct Cut {
  float threshold;
  uint64_t num_ties;
  uint32_t num_equal;
};

// Of a thread's logits in [from[k], below), for each k; from ascends, and is above -inf.
template <class Amount, int N>
__device__ __forceinline__ Amounts<Amount, N> amounts_between(const Row<float> &row, const float (&from)[N],
                                                              float below, const Unit &unit) {
  Amounts<Amount, N> amounts;
  for_each_vector(row, [&](int, const float(&v)[VEC<float>]) {
#pragma unroll
    for (int j = 0; j < VEC<float>; ++j) {
      if (Amount::IS_COSTLY && !(v[j] >= from[0] && v[j] < below)) continue;
      const Amount one = Amount::of(v[j], unit);
#pragma unroll
      for (int k = 0; k < N; ++k)
        if (v[j] >= from[k] && v[j] < below) amounts.of[k].add(one);
    }
  });
  return amounts;
}

// By one warp: among the candidates, whose keys are in [low, high), the key at which their measure, added to that of
// the logits above them, reaches the target.
template <class Amount>
__device__ __forceinline__ void search_candidates(SelectScratch &scratch, unsigned num_candidates, uint32_t low,
                                                  uint32_t high, uint64_t target, const Unit &unit, uint64_t above) {
  constexpr int PER_LANE = CANDIDATES / WARP;
  uint32_t key[PER_LANE];
  uint64_t measure[PER_LANE];
#pragma unroll
  for (int k = 0; k < PER_LANE; ++k) {
    const unsigned i = threadIdx.x + k * WARP;
    key[k] = 0;  // below the key of -inf, so outside
    measure[k] = 0;
    if (i >= num_candidates) continue;
    key[k] = order_key(scratch.candidates[i]);
    measure[k] = Amount::measure_of(scratch.candidates[i], unit);
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
    if (high - low < 2) break;
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
  uint32_t num_equal = 0;
#pragma unroll
  for (int k = 0; k < PER_LANE; ++k) num_equal += key[k] == low;
  num_equal = __reduce_add_sync(ALL_LANES, num_equal);
  if (threadIdx.x != 0) return;
  scratch.cut_key = low;
  scratch.num_at_cut = num_equal;
  scratch.above_cut = above;
}

// num_present: how many logits of the row are above -inf, as Team::gather gives it, so that a block knows how many
// candidates those before it have. Their measure is at least target > 0.
template <class Amount>
__device__ __forceinline__ Cut find_cut(const Row<float> &row, Team &team, const Extent &extent, uint32_t num_present,
                                        uint64_t target, const Unit &unit, SelectScratch &scratch) {
  // The prefix ends in [low, high): the measure of logits >= low reaches the target, that of logits >= high does not.
  uint32_t low = order_key(extent.lowest), high = order_key(extent.largest) + 1;
  uint32_t from_low = num_present, above = 0;  // how many there are, as num_present
  uint64_t measure_above = 0;
  uint32_t num_candidates = __reduce_add_sync(ALL_LANES, from_low);
  for (int pass = 0; num_candidates > CANDIDATES && high - low > 1; ++pass) {
    const uint32_t middle = split_point(low, high, pass);
    const uint32_t splits[SPLITS] = {middle - low > 1 ? split_point(low, middle, pass) : middle, middle,
                                     high - middle > 1 ? split_point(middle, high, pass) : middle};
    const float from[SPLITS] = {float_of_key(splits[0]), float_of_key(splits[1]), float_of_key(splits[2])};
    const auto amounts = team.gather(amounts_between<Amount>(row, from, float_of_key(high), unit));
    const auto all = amounts.over_warp();
    const uint32_t above_before = above;
    const uint64_t measure_before = measure_above;
    bool has_reached = false;
#pragma unroll
    for (int k = SPLITS - 1; k >= 0; --k) {
      if (has_reached) continue;
      const uint64_t measure = measure_before + all.of[k].measure();
      has_reached = measure >= target;
      (has_reached ? low : high) = splits[k];
      (has_reached ? from_low : above) = above_before + amounts.of[k].count;
      if (!has_reached) measure_above = measure;
    }
    num_candidates = __reduce_add_sync(ALL_LANES, from_low - above);
  }
  uint32_t num_equal = num_candidates;
  if (high - low > 1) {
    const unsigned lane = threadIdx.x % WARP;
    const unsigned first = __reduce_add_sync(ALL_LANES, lane < team.rank ? from_low - above : 0);
    const float from = float_of_key(low), below = float_of_key(high);
    for_each_vector(row, [&](int, const float(&v)[VEC<float>]) {
#pragma unroll
      for (int j = 0; j < VEC<float>; ++j)
        if (v[j] >= from && v[j] < below)
          team.give_all(&scratch.candidates[first + atomicAdd(&scratch.num_own, 1u)], v[j]);
    });
    team.sync();
    if (threadIdx.x < WARP) {
      if (threadIdx.x == 0) scratch.num_own = 0;
      search_candidates<Amount>(scratch, num_candidates, low, high, target, unit, measure_above);
    }
    __syncthreads();
    low = scratch.cut_key;
    num_equal = scratch.num_at_cut;
    measure_above = scratch.above_cut;
  }
  const float threshold = float_of_key(low);
  const uint64_t missing = target - measure_above, tie = Amount::measure_of(threshold, unit);
  return {threshold, missing <= tie ? 1 : (missing + tie - 1) / tie, num_equal};
}

// Sets what lies beyond the cut to -inf.
__device__ __forceinline__ void apply_cut(const Row<float> &row, Team &team, const Cut &cut, SelectScratch &scratch) {
  for_each_vector(row, [&](int i, float(&v)[VEC<float>]) {
#pragma unroll
    for (int j = 0; j < VEC<float>; ++j) v[j] = v[j] >= cut.threshold ? v[j] : -INFINITY;
    store(row, i, v);
  });
  if (cut.num_equal <= cut.num_ties) return;
  const int last = find_in_id_order(
      row, team, scratch.sums, [&](float x) -> uint64_t { return x == cut.threshold; },
      [&](uint64_t) { return cut.num_ties; });
  for_each_vector(row, [&](int i, const float(&v)[VEC<float>]) {
#pragma unroll
    for (int j = 0; j < VEC<float>; ++j)
      if (v[j] == cut.threshold && i + j > last) row.data[i + j] = -INFINITY;
  });
}

}  // namespace gt
