// From logits to the next id: argument checks, dispatch, and the CPU twin of sampling.cu.
#include "gatun/sampling.h"

#include "check.h"
#include "cpu/isa.h"

#if defined(GT_ISA)
// Computes    gatun/sampling.h, one row at a time
// Types       logits and exponentials f32, their sums 64-bit integers (lib/mass.h): no order of summation to keep
// Mapping     rows are split over threads
// Memory      a row is read a few times from the second cache and written in place; at most 130 KiB of stack
// Limits      a row that holds a NaN or whose largest logit is infinite is not filtered: gt_sample reports it
#include "cpu/parallel.h"
#include "cpu/row.h"
#include "cpu/select.h"
#include "lib/philox.h"

namespace gt::GT_ISA {
namespace {

constexpr int64_t PENALTY_WINDOW = 32 * 1024;  // ids counted at once: 128 KiB of stack
constexpr int64_t DRAW_BLOCK = 1024;           // logits summed before the drawn point is looked for
constexpr int64_t ROW_COST = 32;               // of a logit, in the units of parallel_for

template <class T>
int64_t first_equal(const T *x, int64_t n, float value) {
  int64_t i = 0;
  while (n - i >= W && !any(load(x + i) == value)) i += W;
  while (to_float(x[i]) != value) ++i;
  return i;
}

// The lowest index of the largest element; -1 if one is NaN.
template <class T>
int64_t argmax_row(const T *x, int64_t n) {
  vf largest = broadcast(-INF);
  vi nan{};
  for (int64_t i = 0; i < n; i += W) {
    const vf v = load_up_to(x + i, n - i, -INF);
    nan |= v != v;
    largest = vmax(largest, v);
  }
  return any(nan) ? -1 : first_equal(x, n, max_lanes(largest));
}

// What one sequence has of the state in gatun/sampling.h; the number of tokens is cut to the room there is.
struct Sequence {
  const int32_t *tokens;
  int64_t num_tokens, num_prompt;
};

// Penalties need how often each id occurs. The ids are counted window by window, in memory that does not grow with V.
void penalise(float *logits, int64_t v, const Sequence &sequence, const float *params) {
  const float repetition = params[GT_SAMPLING_REPETITION_PENALTY];
  const float presence = params[GT_SAMPLING_PRESENCE_PENALTY];
  const float frequency = params[GT_SAMPLING_FREQUENCY_PENALTY];
  constexpr uint32_t SEEN = 0x80000000u;  // in the prompt or since; the other bits count the generated ones
  uint32_t marks[PENALTY_WINDOW];
  for (int64_t first = 0; first < v; first += PENALTY_WINDOW) {
    const int64_t window = v - first < PENALTY_WINDOW ? v - first : PENALTY_WINDOW;
    memset(marks, 0, static_cast<size_t>(window) * sizeof *marks);
    for (int64_t i = 0; i < sequence.num_tokens; ++i) {
      const int64_t id = sequence.tokens[i] - first;
      if (id >= 0 && id < window) marks[id] = (marks[id] + (i >= sequence.num_prompt)) | SEEN;
    }
    for (int64_t i = 0; i < sequence.num_tokens; ++i) {
      const int64_t id = sequence.tokens[i] - first;
      if (id < 0 || id >= window || marks[id] == 0) continue;
      const uint32_t num_generated = marks[id] & ~SEEN;
      float &logit = logits[first + id];
      logit = logit > 0 ? logit / repetition : logit * repetition;
      if (num_generated > 0) logit = logit - frequency * static_cast<float>(num_generated) - presence;
      marks[id] = 0;
    }
  }
}

void divide(float *logits, int64_t v, float temperature) {
  for (int64_t i = 0; i < v; i += W) store_up_to(logits + i, load_up_to(logits + i, v - i) / temperature, v - i);
}

void keep_min_p(float *logits, int64_t v, float largest, float min_p) {
  for (int64_t i = 0; i < v; i += W) {
    const vf l = load_up_to(logits + i, v - i);
    const vi keep = (weights_of(l, largest) >= min_p) | (l == largest);
    store_up_to(logits + i, select(keep, l, broadcast(-INF)), v - i);
  }
}

bool has_penalty(const float *params) {
  return params[GT_SAMPLING_REPETITION_PENALTY] != 1 || params[GT_SAMPLING_PRESENCE_PENALTY] != 0 ||
         params[GT_SAMPLING_FREQUENCY_PENALTY] != 0;
}
bool has_filter(const float *params) {
  return params[GT_SAMPLING_TOP_K] >= 1 || params[GT_SAMPLING_TOP_P] < 1 || params[GT_SAMPLING_MIN_P] > 0;
}
bool changes_logits(const float *params) {
  const float temperature = params[GT_SAMPLING_TEMPERATURE];
  return has_penalty(params) || (temperature > 0 && (temperature != 1 || has_filter(params)));
}

void filter(float *logits, int64_t v, const float *params) {
  const float top_k = params[GT_SAMPLING_TOP_K], top_p = params[GT_SAMPLING_TOP_P];
  const float min_p = params[GT_SAMPLING_MIN_P];
  const Extent extent = extent_of(logits, v);
  if (extent.has_nan || !(vabs(broadcast(extent.largest))[0] < INF)) return;
  const int bits = mass_bits(v);
  if (top_k >= 1 && top_k < static_cast<float>(extent.num_present)) {
    const Amount all{static_cast<uint64_t>(extent.num_present), extent.num_present};
    apply_cut(logits, v, find_cut<false>(logits, v, extent, all, static_cast<uint64_t>(top_k), bits));
  }
  if (top_p < 1) {
    const Amount all = amount_between<true>(logits, v, extent.lowest, INF, extent.largest, bits);
    const uint64_t mass = mass_target(static_cast<double>(top_p), all.measure);
    apply_cut(logits, v, find_cut<true>(logits, v, extent, all, mass, bits));
  }
  if (min_p > 0) keep_min_p(logits, v, extent.largest, min_p);
}

void process_row(float *logits, int64_t v, const Sequence &sequence, const float *params) {
  if (has_penalty(params)) penalise(logits, v, sequence, params);
  const float temperature = params[GT_SAMPLING_TEMPERATURE];
  if (!(temperature > 0)) return;
  if (temperature != 1) divide(logits, v, temperature);
  if (has_filter(params)) filter(logits, v, params);
}

// The first id at which the cumulative sum of masses reaches u of the total.
int64_t draw(const float *logits, int64_t v, float largest, double u) {
  const int bits = mass_bits(v);
  const auto mass_of_block = [&](int64_t begin) {
    const int64_t n = v - begin < DRAW_BLOCK ? v - begin : DRAW_BLOCK;
    return amount_between<true>(logits + begin, n, -INF, INF, largest, bits).measure;
  };
  uint64_t total = 0;
  for (int64_t begin = 0; begin < v; begin += DRAW_BLOCK) total += mass_of_block(begin);
  const uint64_t target = mass_target(u, total);
  uint64_t cumulative = 0;
  int64_t begin = 0;
  for (;; begin += DRAW_BLOCK) {
    const uint64_t next = cumulative + mass_of_block(begin);
    if (next >= target) break;
    cumulative = next;
  }
  for (;; begin += W) {
    const vf weights = weights_of(load_up_to(logits + begin, v - begin, -INF), largest);
    for (int k = 0; k < W; ++k) {
      cumulative += mass_of(weights[k], bits);
      if (cumulative >= target) return begin + k;
    }
  }
}

// An id, or minus a fault.
int64_t choose(const float *logits, int64_t v, float temperature, const int64_t *seed, int32_t step) {
  const Extent extent = extent_of(logits, v);
  if (extent.has_nan) return -GT_FAULT_NAN;
  if (extent.largest == -INF) return -GT_FAULT_NO_TOKEN;
  if (!(temperature > 0)) return first_equal(logits, v, extent.largest);
  if (extent.largest == INF) return -GT_FAULT_NAN;  // its softmax would be NaN
  const float u = philox_uniform(static_cast<uint64_t>(seed[0]), static_cast<uint32_t>(seed[1]),
                                 static_cast<uint32_t>(step), 0);
  return draw(logits, v, extent.largest, static_cast<double>(u));
}

GT_INLINE int32_t *ints(const gt_tensor *t) { return static_cast<int32_t *>(t->data); }
GT_INLINE float *row_of(const gt_tensor *t, int64_t b) { return static_cast<float *>(t->data) + b * t->stride[0]; }
GT_INLINE const float *params_of(const gt_tensor *params, int64_t b) {
  return static_cast<const float *>(params->data) + b * GT_SAMPLING_FIELDS;
}

}  // namespace

gt_status argmax_cpu(const gt_stream *stream, const gt_tensor *ids, const gt_tensor *logits) {
  const int64_t v = logits->shape[1];
  with_float(logits->dtype, [&](auto zero) {
    parallel_for(stream, logits->shape[0], v, [&](int64_t begin, int64_t end) {
      for (int64_t b = begin; b < end; ++b) {
        const auto *row = static_cast<const decltype(zero) *>(logits->data) + b * logits->stride[0];
        ints(ids)[b] = static_cast<int32_t>(argmax_row(row, v));
      }
    });
  });
  return GT_OK;
}

gt_status process_logits_cpu(const gt_stream *stream, const gt_tensor *logits, const gt_tensor *tokens,
                             const gt_tensor *lengths, const gt_tensor *prompt_lengths, const gt_tensor *params) {
  const int64_t num_rows = logits->shape[0], v = logits->shape[1], m = tokens->shape[1];
  const auto has_work = [&](int64_t b) { return ints(lengths)[b] > 0 && changes_logits(params_of(params, b)); };
  int64_t num_busy = 0;
  for (int64_t b = 0; b < num_rows; ++b) num_busy += has_work(b);
  if (num_busy == 0) return GT_OK;
  parallel_for(stream, num_rows, v * ROW_COST, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      if (!has_work(b)) continue;
      const int64_t length = ints(lengths)[b];
      const Sequence sequence{ints(tokens) + b * m, length < m ? length : m, ints(prompt_lengths)[b]};
      process_row(row_of(logits, b), v, sequence, params_of(params, b));
    }
  });
  return GT_OK;
}

gt_status sample_cpu(const gt_stream *stream, const gt_tensor *ids, const gt_tensor *positions,
                     const gt_tensor *record, const gt_tensor *tokens, const gt_tensor *lengths,
                     const gt_tensor *prompt_lengths, const gt_tensor *logits, const gt_tensor *params,
                     const gt_tensor *seeds) {
  const int64_t v = logits->shape[1], m = tokens->shape[1];
  parallel_for(stream, logits->shape[0], v * ROW_COST, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      const int32_t length = ints(lengths)[b];
      if (length <= 0 || ints(positions)[b] < 0) continue;
      const int64_t id = length >= m ? -GT_FAULT_FULL
                                     : choose(row_of(logits, b), v, params_of(params, b)[GT_SAMPLING_TEMPERATURE],
                                              static_cast<const int64_t *>(seeds->data) + 2 * b,
                                              length - ints(prompt_lengths)[b]);
      ints(record)[b] = static_cast<int32_t>(id);
      if (id >= 0) ints(tokens)[b * m + length] = static_cast<int32_t>(id);
      ints(ids)[b] = id >= 0 ? static_cast<int32_t>(id) : -1;
      ints(positions)[b] = id >= 0 ? length : -1;
      ints(lengths)[b] = id >= 0 ? length + 1 : -length;
    }
  });
  return GT_OK;
}

gt_status choose_cpu(const gt_stream *stream, const gt_tensor *ids, const gt_tensor *positions,
                     const gt_tensor *record, const gt_tensor *tokens, const gt_tensor *lengths,
                     const gt_tensor *prompt_lengths, const gt_tensor *logits, const gt_tensor *params,
                     const gt_tensor *seeds) {
  const gt_status status = process_logits_cpu(stream, logits, tokens, lengths, prompt_lengths, params);
  return status ? status
                : sample_cpu(stream, ids, positions, record, tokens, lengths, prompt_lengths, logits, params, seeds);
}

}  // namespace gt::GT_ISA

#else

GT_DECLARE_OP(argmax)
GT_DECLARE_OP(process_logits)
GT_DECLARE_OP(sample)
GT_DECLARE_OP(choose)

namespace {

gt::Check check_logits(const char *op, const gt_stream *stream, const gt_tensor *logits, uint64_t dtypes) {
  gt::Check check(op, stream);
  check.tensor("logits", logits, dtypes).rank("logits", logits, 2).last_contiguous("logits", logits);
  if (check.ok())
    check.require(logits->shape[1] >= 1 && logits->shape[1] <= INT32_MAX, "logits has V = %lld, expected 1 to 2^31 - 1",
                  static_cast<long long>(logits->shape[1]));
  return check;
}

void check_state(gt::Check &check, const char *name, const gt_tensor *t, uint64_t dtype,
                 std::initializer_list<int64_t> shape) {
  check.tensor(name, t, dtype).shape(name, t, shape).contiguous(name, t);
}

gt::Check check_choice(const char *op, const gt_stream *stream, const gt_tensor *ids, const gt_tensor *positions,
                       const gt_tensor *record, const gt_tensor *tokens, const gt_tensor *lengths,
                       const gt_tensor *prompt_lengths, const gt_tensor *logits, const gt_tensor *params,
                       const gt_tensor *seeds) {
  gt::Check check = check_logits(op, stream, logits, gt::F32);
  if (!check.ok()) return check;
  const int64_t b = logits->shape[0];
  check_state(check, "ids", ids, gt::I32, {b});
  check_state(check, "positions", positions, gt::I32, {b});
  check_state(check, "record", record, gt::I32, {b});
  check_state(check, "tokens", tokens, gt::I32, {b, -1});
  check_state(check, "lengths", lengths, gt::I32, {b});
  check_state(check, "prompt_lengths", prompt_lengths, gt::I32, {b});
  check_state(check, "params", params, gt::F32, {b, GT_SAMPLING_FIELDS});
  check_state(check, "seeds", seeds, gt::I64, {b, 2});
  return check;
}

}  // namespace

extern "C" gt_status gt_argmax(const gt_stream *stream, const gt_tensor *ids, const gt_tensor *logits) {
  gt::Check check = check_logits("argmax", stream, logits, gt::FLOATS);
  if (check.ok()) check_state(check, "ids", ids, gt::I32, {logits->shape[0]});
  return check.ok() ? GT_RUN(argmax, stream, ids, logits) : check.status();
}

extern "C" gt_status gt_process_logits(const gt_stream *stream, const gt_tensor *logits, const gt_tensor *tokens,
                                       const gt_tensor *lengths, const gt_tensor *prompt_lengths,
                                       const gt_tensor *params) {
  gt::Check check = check_logits("process_logits", stream, logits, gt::F32);
  if (!check.ok()) return check.status();
  const int64_t b = logits->shape[0];
  check_state(check, "tokens", tokens, gt::I32, {b, -1});
  check_state(check, "lengths", lengths, gt::I32, {b});
  check_state(check, "prompt_lengths", prompt_lengths, gt::I32, {b});
  check_state(check, "params", params, gt::F32, {b, GT_SAMPLING_FIELDS});
  if (!check.ok()) return check.status();
  return GT_RUN(process_logits, stream, logits, tokens, lengths, prompt_lengths, params);
}

extern "C" gt_status gt_sample(const gt_stream *stream, const gt_tensor *ids, const gt_tensor *positions,
                               const gt_tensor *record, const gt_tensor *tokens, const gt_tensor *lengths,
                               const gt_tensor *prompt_lengths, const gt_tensor *logits, const gt_tensor *params,
                               const gt_tensor *seeds) {
  const gt::Check check = check_choice("sample", stream, ids, positions, record, tokens, lengths, prompt_lengths,
                                       logits, params, seeds);
  if (!check.ok()) return check.status();
  return GT_RUN(sample, stream, ids, positions, record, tokens, lengths, prompt_lengths, logits, params, seeds);
}

extern "C" gt_status gt_choose(const gt_stream *stream, const gt_tensor *ids, const gt_tensor *positions,
                               const gt_tensor *record, const gt_tensor *tokens, const gt_tensor *lengths,
                               const gt_tensor *prompt_lengths, const gt_tensor *logits, const gt_tensor *params,
                               const gt_tensor *seeds) {
  const gt::Check check = check_choice("choose", stream, ids, positions, record, tokens, lengths, prompt_lengths,
                                       logits, params, seeds);
  if (!check.ok()) return check.status();
  return GT_RUN(choose, stream, ids, positions, record, tokens, lengths, prompt_lengths, logits, params, seeds);
}

#endif
