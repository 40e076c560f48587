// Which logits form the shortest prefix, by (value descending, id ascending), that reaches a target: a number of logits
// (top-k) or a probability mass (top-p)?
//
// Found without sorting, moving or storing the row: bisection narrows the values between which the prefix ends until
// few logits lie there, and a quickselect over those finds the value itself. Its ties are then kept in id order.
// Requires a row without NaN whose largest logit is finite. Logits of -inf count as removed.
#pragma once

#include "cpu/math.h"
#include "cpu/row.h"
#include "lib/mass.h"

namespace gt::GT_ISA {

// Logits of a quickselect: their values and measures take 48 KiB of stack, and a few passes over a row get there.
constexpr int64_t CANDIDATES = 4096;

typedef uint32_t vu_half __attribute__((vector_size(VECTOR_BYTES / 2)));
typedef uint64_t vm __attribute__((vector_size(VECTOR_BYTES)));

GT_INLINE bool any(vi mask) {
#if defined(__AVX512F__)
  return _mm512_test_epi32_mask((__m512i)mask, (__m512i)mask) != 0;
#elif defined(__AVX2__)
  return !_mm256_testz_si256((__m256i)mask, (__m256i)mask);
#else
  int32_t set = 0;
  for (int i = 0; i < W; ++i) set |= mask[i];
  return set != 0;
#endif
}

// exp(x - largest) of logits x, the unnormalised probability.
GT_INLINE vf weights_of(vf x, float largest) { return vexp(x - largest); }

// mass_of (lib/mass.h) of each weight, in two halves.
GT_INLINE void masses_of(vf weights, int bits, vm (&masses)[2]) {
  const vu u = (vu)weights;
  const vu mantissa = (u & 0x7fffffu) | 0x800000u;
  const vu right = 127u - (u >> 23);
  const vu bounded = right < 63u ? right : vu{} + 63u;
  vu_half mantissas[2], rights[2];
  memcpy(mantissas, &mantissa, sizeof mantissa);
  memcpy(rights, &bounded, sizeof bounded);
  for (int h = 0; h < 2; ++h)
    masses[h] = (__builtin_convertvector(mantissas[h], vm) << (bits - 23)) >> __builtin_convertvector(rights[h], vm);
}

struct Extent {
  float largest, lowest;  // lowest of those above -inf
  int64_t num_present;    // how many are above -inf
  bool has_nan;
};

static inline Extent extent_of(const float *x, int64_t n) {
  vf largest = broadcast(-INF), lowest = broadcast(INF);
  vi counts{}, nan{};
  for (int64_t i = 0; i < n; i += W) {
    const vf v = load_up_to(x + i, n - i, -INF);
    const vi present = v > -INF;
    nan |= v != v;
    largest = vmax(largest, v);
    lowest = select(present & (v < lowest), v, lowest);
    counts -= present;
  }
  Extent extent{max_lanes(largest), -max_lanes(-lowest), 0, any(nan)};
  for (int i = 0; i < W; ++i) extent.num_present += counts[i];
  return extent;
}

// What some of the logits come to.
struct Amount {
  uint64_t measure;
  int64_t count;
};

// Of the logits in [from, below), without -inf: the measure is the sum of masses where MASS, else the count. largest is
// the logit of weight 1, bits the unit of mass.
template <bool MASS>
static inline Amount amount_between(const float *x, int64_t n, float from, float below, float largest, int bits) {
  vi counts{};
  vm sums[2] = {};
  for (int64_t i = 0; i < n; i += W) {
    const vf v = load_up_to(x + i, n - i, -INF);
    const vi inside = (v >= from) & (v < below) & (v > -INF);
    counts -= inside;
    if (!MASS || !any(inside)) continue;  // most vectors are outside once the interval is narrow
    vm masses[2];
    masses_of((vf)((vi)weights_of(v, largest) & inside), bits, masses);
    for (int h = 0; h < 2; ++h) sums[h] += masses[h];
  }
  Amount amount{0, 0};
  for (int i = 0; i < W; ++i) amount.count += counts[i];
  for (int i = 0; i < W; ++i) amount.measure += sums[2 * i / W][i % (W / 2)];
  if (!MASS) amount.measure = static_cast<uint64_t>(amount.count);
  return amount;
}

// Floats as integers of the same order, -0 just below +0.
GT_INLINE int64_t order_key(float x) {
  int32_t bits;
  memcpy(&bits, &x, 4);
  return bits < 0 ? int64_t{-1} - (bits & 0x7fffffff) : bits;
}
GT_INLINE float float_of_key(int64_t key) {
  const uint32_t bits = key < 0 ? 0x80000000u | static_cast<uint32_t>(-1 - key) : static_cast<uint32_t>(key);
  float x;
  memcpy(&x, &bits, 4);
  return x;
}

// A value strictly between low and high, where one exists; else high. The middle of the values splits logits well;
// every third pass takes the middle of their keys, which bounds the number of passes for any distribution.
static inline float split_point(float low, float high, int pass) {
  const float middle = 0.5f * low + 0.5f * high;
  if (pass % 3 != 2 && middle > low && middle < high) return middle;
  const int64_t low_key = order_key(low), high_key = order_key(high);
  return high_key - low_key < 2 ? high : float_of_key(low_key + (high_key - low_key) / 2);
}

// Where a prefix ends: all logits above the threshold belong to it, and so do the first num_ties at the threshold.
struct Cut {
  float threshold;
  int64_t num_ties;
};

// Among n candidates, the value at which their measure, added to that of the logits above them, reaches the target.
// value and measure are reordered. above becomes the measure of all logits above the result.
static inline float quickselect(float *value, uint64_t *measure, int64_t n, uint64_t target, uint64_t *above) {
  uint64_t passed = *above;  // measure of what is known to lie above the candidates that are left
  float threshold = value[0];
  uint32_t random = 0;
  while (n > 0) {
    random = random * 1664525u + 1013904223u;
    const float pivot = value[static_cast<uint64_t>(random) * static_cast<uint64_t>(n) >> 32];
    uint64_t greater = 0, equal = 0;
    for (int64_t i = 0; i < n; ++i) {
      greater += value[i] > pivot ? measure[i] : 0;
      equal += value[i] == pivot ? measure[i] : 0;
    }
    const bool ends_above = passed + greater >= target;
    if (!ends_above) {
      threshold = pivot;
      *above = passed + greater;
      if (*above + equal >= target) break;
      passed = *above + equal;
    }
    int64_t left = 0;
    for (int64_t i = 0; i < n; ++i) {
      if (ends_above ? value[i] <= pivot : value[i] >= pivot) continue;
      value[left] = value[i];
      measure[left++] = measure[i];
    }
    n = left;
  }
  return threshold;
}

// all: the amount of the whole row, whose measure is at least target > 0.
template <bool MASS>
static inline Cut find_cut(const float *x, int64_t n, const Extent &extent, const Amount &all, uint64_t target,
                           int bits) {
  // The prefix ends in [low, high): the measure of logits >= low reaches the target, that of logits >= high does not.
  float low = extent.lowest, high = float_of_key(order_key(extent.largest + 0.0f) + 1);  // -0 + 0 is the 0 above it
  Amount from_low = all, above{0, 0};
  bool is_single_value = false;
  for (int pass = 0; from_low.count - above.count > CANDIDATES; ++pass) {
    const float threshold = split_point(low, high, pass);
    is_single_value = threshold == high;
    if (is_single_value) break;
    const Amount between = amount_between<MASS>(x, n, threshold, high, extent.largest, bits);
    const Amount amount{above.measure + between.measure, above.count + between.count};
    const bool reaches = amount.measure >= target;
    (reaches ? low : high) = threshold;
    (reaches ? from_low : above) = amount;
  }
  if (!is_single_value) {
    float value[CANDIDATES];
    uint64_t measure[CANDIDATES + W];  // stored by whole vectors
    int64_t num_candidates = 0;
    for (int64_t i = 0; i < n; i += W) {
      const vf v = load_up_to(x + i, n - i, -INF);
      const vi inside = (v >= low) & (v < high);
      if (!any(inside)) continue;
      for (int k = 0; k < W; ++k)
        if (inside[k]) value[num_candidates++] = v[k];
    }
    for (int64_t i = 0; i < num_candidates; i += W) {
      vm measures[2] = {vm{} + 1, vm{} + 1};
      if (MASS) masses_of(weights_of(load_up_to(value + i, num_candidates - i), extent.largest), bits, measures);
      memcpy(measure + i, measures, sizeof measures);
    }
    low = quickselect(value, measure, num_candidates, target, &above.measure);
  }
  const uint64_t tie = MASS ? mass_of(weights_of(broadcast(low), extent.largest)[0], bits) : 1;
  return {low, static_cast<int64_t>((target - above.measure + tie - 1) / tie)};
}

// Sets what lies beyond the cut to -inf.
static inline void apply_cut(float *x, int64_t n, Cut cut) {
  vi ties{};
  for (int64_t i = 0; i < n; i += W) {
    const vf v = load_up_to(x + i, n - i, -INF);
    ties -= v == cut.threshold;
    store_up_to(x + i, select(v >= cut.threshold, v, broadcast(-INF)), n - i);
  }
  int64_t surplus = -cut.num_ties;
  for (int i = 0; i < W; ++i) surplus += ties[i];
  for (int64_t i = n - 1; surplus > 0; --i) {
    if (x[i] != cut.threshold) continue;
    x[i] = -INF;
    --surplus;
  }
}

}  // namespace gt::GT_ISA
