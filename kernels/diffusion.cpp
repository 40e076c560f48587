// One step of any diffusion sampler: argument checks, dispatch, and the CPU twin of diffusion.cu.
#include "gatun/diffusion.h"

#include "check.h"
#include "cpu/isa.h"

#if defined(GT_ISA)
// Computes    gatun/diffusion.h
// Mapping     images are split into runs of 256 elements over threads; statistics: an image is one thread's work
// Memory      operands of any strides are gathered run by run into 1 KiB of stack each, results scattered
// Numerics    sums of products are chains of fused multiply-adds in the order of the sources. Standard deviations in
//             two passes in double; the quantile selects by the bits of |d|, 11 at a time, so no order of summation
//             shows
#include <math.h>

#include "cpu/image_run.h"
#include "cpu/tile.h"

namespace gt::GT_ISA {
namespace {

enum Source { X, E, D, NOISE, STATE };  // STATE + j is S_j

struct Row {
  const float *field;

  float operator[](int i) const { return field[i]; }
  const float *update(int target) const { return field + GT_DIFFUSION_UPDATE + target * GT_DIFFUSION_SOURCES; }
  bool reads(int source, int num_targets) const {
    for (int t = 0; t < num_targets; ++t)
      if (update(t)[source] != 0) return true;
    return false;
  }
  bool writes(int target) const {
    for (int s = 0; s < GT_DIFFUSION_SOURCES; ++s)
      if (update(target)[s] != 0) return true;
    return false;
  }
};

int32_t *ints(const gt_tensor *t) { return static_cast<int32_t *>(t->data); }

// The row of a call; field is NULL beyond the table.
Row row_of(const gt_tensor *table, int64_t call) {
  if (call < 0 || call >= table->shape[0]) return {nullptr};
  return {static_cast<const float *>(table->data) + call * GT_DIFFUSION_FIELDS};
}

// One call of the image [B, H, W, C]: a view of rank 4 of a tensor of rank 5.
gt_tensor at(const gt_tensor *t, int64_t i) {
  gt_tensor view = {static_cast<char *>(t->data) + i * t->stride[0] * dtype_bytes(t->dtype), t->dtype, 4, {}, {}};
  for (int d = 0; d < 4; ++d) {
    view.shape[d] = t->shape[d + 1];
    view.stride[d] = t->stride[d + 1];
  }
  return view;
}

template <class F>
void for_vectors(const ImageRun &run, const F &f) {
  for (int64_t i = 0; i < run.n; i += W) f(i);
}

// e before it is rescaled: u + w (c - u), or the output itself.
void gather_output(const ImageRun &run, const gt_tensor &output, int64_t num_images, float w, RunBuffer &e) {
  gather(run, output, run.b, e);
  if (output.shape[0] == num_images) return;
  RunBuffer c;
  gather(run, output, num_images + run.b, c);
  for_vectors(run, [&](int64_t i) {
    const vf u = load(e.value + i);
    store(e.value + i, fused(broadcast(w), load(c.value + i) - u, u));
  });
}

GT_INLINE vf denoised(const Row &row, vf x, vf e) {
  return fused(broadcast(row[GT_DIFFUSION_DENOISED_OUTPUT]), e, row[GT_DIFFUSION_DENOISED_X] * x);
}

GT_INLINE vf cut(vf d, float limit) {
  return select(d > limit, broadcast(limit), select(d < -limit, broadcast(-limit), d));
}

// What the model says about the variance becomes a factor of the noise.
void scale_noise(const ImageRun &run, const gt_tensor &variance, int64_t num_images, gt_learned_variance kind,
                 const Row &row, RunBuffer &noise) {
  RunBuffer v;
  gather(run, variance, variance.shape[0] == num_images ? run.b : num_images + run.b, v);
  for (int64_t i = 0; i < run.n; ++i) {
    if (kind == GT_VARIANCE_VALUE) {
      noise.value[i] *= sqrtf(v.value[i]);
      continue;
    }
    const float f = (v.value[i] + 1.0f) * 0.5f;
    const float log_variance = fmaf(f, row[GT_DIFFUSION_MAX_LOG], (1.0f - f) * row[GT_DIFFUSION_MIN_LOG]);
    noise.value[i] *= expf(0.5f * log_variance);
  }
}

struct Step {
  const gt_tensor *sample, *state, *input, *output, *variance, *statistics, *table, *noise, *seeds, *mask, *known,
      *known_noise;
  gt_learned_variance learned_variance;
  int64_t call;

  void operator()(const ImageRun &run) const {
    const Row row = row_of(table, call);
    const int num_slots = state ? static_cast<int>(state->shape[0]) : 0, num_targets = 1 + num_slots;
    const float *const statistic = statistics ? static_cast<const float *>(statistics->data) + 2 * run.b : nullptr;
    RunBuffer source[GT_DIFFUSION_SOURCES], target[1 + GT_DIFFUSION_SLOTS];

    gather(run, *sample, run.b, source[X]);
    gather_output(run, *output, sample->shape[0], row[GT_DIFFUSION_GUIDANCE], source[E]);
    for_vectors(run, [&](int64_t i) {
      const vf x = load(source[X].value + i);
      vf e = load(source[E].value + i);
      if (statistic) store(source[E].value + i, e = e * statistic[0]);
      vf d = cut(denoised(row, x, e), row[GT_DIFFUSION_CLIP]);
      if (statistic && statistic[1] != 0) d = cut(d, statistic[1]) / statistic[1];
      store(source[D].value + i, d);
    });
    if (row.reads(NOISE, num_targets)) make_noise(run, row, source[NOISE]);
    for (int j = 0; j < num_slots; ++j)
      if (row.reads(STATE + j, num_targets)) gather(run, at(state, j), run.b, source[STATE + j]);

    for (int t = 0; t < num_targets; ++t)
      if (t == 0 || row.writes(t)) combine(run, row.update(t), num_slots, source, target[t]);
    if (mask) blend_known(run, row, target[0]);
    scatter(run, *sample, run.b, target[0]);
    for (int t = 1; t < num_targets; ++t)
      if (row.writes(t)) scatter(run, at(state, t - 1), run.b, target[t]);
    if (input) write_input(run, target[0]);
  }

  void make_noise(const ImageRun &run, const Row &row, RunBuffer &out) const {
    if (noise) {
      gather(run, at(noise, call), run.b, out);
    } else if (seeds) {
      draw(run, static_cast<const int64_t *>(seeds->data) + 2 * run.b, static_cast<uint32_t>(call + 1), out);
    } else {
      for_vectors(run, [&](int64_t i) { store(out.value + i, broadcast(NAN)); });
    }
    if (variance) scale_noise(run, *variance, sample->shape[0], learned_variance, row, out);
  }

  static void combine(const ImageRun &run, const float *coefficients, int num_slots, const RunBuffer *source,
                      RunBuffer &out) {
    for_vectors(run, [&](int64_t i) {
      vf sum{};
      for (int s = 0; s < STATE + num_slots; ++s)
        if (coefficients[s] != 0) sum = fused(broadcast(coefficients[s]), load(source[s].value + i), sum);
      store(out.value + i, sum);
    });
  }

  void blend_known(const ImageRun &run, const Row &row, RunBuffer &x) const {
    RunBuffer keep, of_known, of_noise;
    gather(run, *mask, run.b, keep);
    gather(run, *known, run.b, of_known);
    const float noise_factor = row[GT_DIFFUSION_KNOWN_NOISE];
    if (noise_factor != 0) gather(run, *known_noise, run.b, of_noise);
    for_vectors(run, [&](int64_t i) {
      const vf m = load(keep.value + i);
      vf k = row[GT_DIFFUSION_KNOWN] * load(of_known.value + i);
      if (noise_factor != 0) k = fused(broadcast(noise_factor), load(of_noise.value + i), k);
      store(x.value + i, fused(m, load(x.value + i), (1.0f - m) * k));
    });
  }

  void write_input(const ImageRun &run, RunBuffer &x) const {
    const Row next = row_of(table, call + 1);
    if (!next.field) return;
    for_vectors(run, [&](int64_t i) { store(x.value + i, next[GT_DIFFUSION_INPUT] * load(x.value + i)); });
    for (int64_t b = run.b; b < input->shape[0]; b += sample->shape[0]) scatter(run, *input, b, x);
  }
};

// An image's e and d for statistics, run by run.
struct WholeImage {
  const gt_tensor *sample, *output;
  Row row;
  int64_t b, elements;

  template <class F>
  void for_runs(const F &f) const {
    for (int64_t first = 0; first < elements; first += IMAGE_RUN) {
      const int64_t left = elements - first;
      f(ImageRun{b, first, left < IMAGE_RUN ? left : IMAGE_RUN, sample->shape[1], sample->shape[2], sample->shape[3]});
    }
  }
  bool is_guided() const { return output->shape[0] != sample->shape[0]; }

  // Standard deviations of the conditional output and of e.
  float rescaling() const {
    const float phi = row[GT_DIFFUSION_RESCALE];
    if (phi == 0 || !is_guided()) return 1;
    double mean[2] = {}, squares[2] = {};
    const auto for_values = [&](const auto &f) {
      for_runs([&](const ImageRun &run) {
        RunBuffer value[2];
        gather(run, *output, sample->shape[0] + b, value[0]);
        gather_output(run, *output, sample->shape[0], row[GT_DIFFUSION_GUIDANCE], value[1]);
        for (int k = 0; k < 2; ++k)
          for (int64_t i = 0; i < run.n; ++i) f(k, static_cast<double>(value[k].value[i]));
      });
    };
    for_values([&](int k, double v) { mean[k] += v; });
    for (double &m : mean) m /= static_cast<double>(elements);
    for_values([&](int k, double v) { squares[k] += (v - mean[k]) * (v - mean[k]); });
    const double share = static_cast<double>(phi);
    return static_cast<float>(fma(share, sqrt(squares[0] / squares[1]), 1.0 - share));
  }

  // Calls f with the bits of |d|, which order as the numbers do.
  template <class F>
  void for_magnitudes(float scale, const F &f) const {
    for_runs([&](const ImageRun &run) {
      RunBuffer x, e;
      gather(run, *sample, b, x);
      gather_output(run, *output, sample->shape[0], row[GT_DIFFUSION_GUIDANCE], e);
      for_vectors(run, [&](int64_t i) {
        store(x.value + i, denoised(row, load(x.value + i), load(e.value + i) * scale));
      });
      for (int64_t i = 0; i < run.n; ++i) {
        uint32_t bits;
        memcpy(&bits, x.value + i, 4);
        f(bits & 0x7fffffffu);
      }
    });
  }

  float quantile(float scale, float ratio) const {
    constexpr uint32_t INFINITE = 0x7f800000u;
    constexpr int BITS = 11, BINS = 1 << BITS;
    const float rank = ratio * static_cast<float>(elements - 1), floor_rank = floorf(rank);
    uint32_t prefix = 0;                              // of the sought number
    int64_t wanted = static_cast<int64_t>(floor_rank);  // its place among those with this prefix
    int64_t num_equal = 0;
    bool has_nan = false;
    for (int shift = 31 - BITS + 1; shift > -BITS; shift -= BITS) {
      const int width = shift >= 0 ? BITS : BITS + shift, low = shift >= 0 ? shift : 0;
      uint32_t count[BINS] = {};
      for_magnitudes(scale, [&](uint32_t bits) {
        has_nan |= bits > INFINITE;
        if (static_cast<uint64_t>(bits) >> (low + width) == static_cast<uint64_t>(prefix) >> (low + width))
          ++count[bits >> low & ((1u << width) - 1)];
      });
      uint32_t bin = 0;
      while (wanted >= count[bin]) wanted -= count[bin++];
      prefix |= bin << low;
      num_equal = count[bin];
    }
    uint32_t next = prefix;  // the number one place higher
    if (wanted + 1 >= num_equal) {
      next = 0xffffffffu;
      for_magnitudes(scale, [&](uint32_t bits) { next = bits > prefix && bits < next ? bits : next; });
    }
    if (has_nan) return NAN;
    float below, above;
    memcpy(&below, &prefix, 4);
    memcpy(&above, next == 0xffffffffu ? &prefix : &next, 4);
    const float weight = rank - floor_rank;
    if (weight == 0) return below;
    return weight < 0.5f ? fmaf(weight, above - below, below) : fmaf(-(above - below), 1.0f - weight, above);
  }
};

}  // namespace

gt_status diffusion_step_cpu(const gt_stream *stream, const gt_tensor *sample, const gt_tensor *state,
                             const gt_tensor *input, const gt_tensor *counter, const gt_tensor *output,
                             const gt_tensor *variance, const gt_tensor *statistics, const gt_tensor *table,
                             const gt_tensor *noise, const gt_tensor *seeds, const gt_tensor *mask,
                             const gt_tensor *known, const gt_tensor *known_noise,
                             gt_learned_variance learned_variance) {
  const int64_t call = ints(counter)[0];
  const Row row = row_of(table, call);
  if (!row.field) return GT_OK;
  const bool draws = !noise && row.reads(NOISE, 1);
  for_image_runs(stream, *sample, draws ? DRAW_COST : 32,
                 Step{sample, state, input, output, variance, statistics, table, noise, seeds, mask, known,
                      known_noise, learned_variance, call});
  ints(counter)[0] = static_cast<int32_t>(call + 1);
  return GT_OK;
}

gt_status diffusion_input_cpu(const gt_stream *stream, const gt_tensor *input, const gt_tensor *sample,
                              const gt_tensor *table, const gt_tensor *counter) {
  const Row row = row_of(table, ints(counter)[0]);
  const float factor = row.field ? row[GT_DIFFUSION_INPUT] : NAN;
  for_image_runs(stream, *sample, 4, [&](const ImageRun &run) {
    RunBuffer x;
    gather(run, *sample, run.b, x);
    for_vectors(run, [&](int64_t i) { store(x.value + i, factor * load(x.value + i)); });
    for (int64_t b = run.b; b < input->shape[0]; b += sample->shape[0]) scatter(run, *input, b, x);
  });
  return GT_OK;
}

gt_status diffusion_statistics_cpu(const gt_stream *stream, const gt_tensor *statistics, const gt_tensor *sample,
                                   const gt_tensor *output, const gt_tensor *table, const gt_tensor *counter,
                                   float ratio, float largest) {
  const Row row = row_of(table, ints(counter)[0]);
  if (!row.field) return GT_OK;
  const int64_t elements = sample->shape[1] * sample->shape[2] * sample->shape[3];
  parallel_for(stream, sample->shape[0], elements * 16, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      const WholeImage image{sample, output, row, b, elements};
      float *const out = static_cast<float *>(statistics->data) + 2 * b;
      out[0] = image.rescaling();
      const float s = ratio > 0 ? image.quantile(out[0], ratio) : 0.0f;
      out[1] = ratio > 0 ? (s < 1 ? 1 : s > largest ? largest : s) : 0;
    }
  });
  return GT_OK;
}

}  // namespace gt::GT_ISA

#else

GT_DECLARE_OP(diffusion_step)
GT_DECLARE_OP(diffusion_input)
GT_DECLARE_OP(diffusion_statistics)

namespace {

constexpr int64_t MOST_OF_QUANTILE = int64_t{1} << 24;  // beyond, f32 cannot count them

gt::Check check_sample(const char *op, const gt_stream *stream, const gt_tensor *sample) {
  gt::Check check(op, stream);
  check.tensor("sample", sample, gt::F32).rank("sample", sample, 4).elements_at_most("sample", sample, 1, INT32_MAX);
  if (!check.ok()) return check;
  const int64_t elements = sample->shape[1] * sample->shape[2] * sample->shape[3];
  return check.require(sample->shape[0] >= 1 && elements >= 1,
                       "sample has %lld images of %lld elements, expected at least one of each",
                       static_cast<long long>(sample->shape[0]), static_cast<long long>(elements));
}

// An image per image of sample, or two.
void check_images(gt::Check &check, const char *name, const gt_tensor *t, const gt_tensor *sample) {
  check.tensor(name, t, gt::FLOATS);
  if (!check.ok()) return;
  check.shape(name, t, {-1, sample->shape[1], sample->shape[2], sample->shape[3]});
  if (check.ok())
    check.require(t->shape[0] == sample->shape[0] || t->shape[0] == 2 * sample->shape[0],
                  "%s has %lld images, expected %lld or twice as many", name, static_cast<long long>(t->shape[0]),
                  static_cast<long long>(sample->shape[0]));
}

void check_like_sample(gt::Check &check, const char *name, const gt_tensor *t, const gt_tensor *sample) {
  check.tensor(name, t, gt::F32).same_shape(name, t, "sample", sample);
}

void check_table(gt::Check &check, const gt_tensor *table, const gt_tensor *counter) {
  check.tensor("table", table, gt::F32).shape("table", table, {-1, GT_DIFFUSION_FIELDS}).contiguous("table", table);
  check.tensor("counter", counter, gt::I32).shape("counter", counter, {2}).contiguous("counter", counter);
}

void check_statistics(gt::Check &check, const gt_tensor *statistics, const gt_tensor *sample) {
  check.tensor("statistics", statistics, gt::F32);
  if (check.ok()) check.shape("statistics", statistics, {sample->shape[0], 2}).contiguous("statistics", statistics);
}

void check_state(gt::Check &check, const gt_tensor *state, const gt_tensor &sample) {
  check.tensor("state", state, gt::F32);
  if (!check.ok()) return;
  check.shape("state", state, {-1, sample.shape[0], sample.shape[1], sample.shape[2], sample.shape[3]});
  if (check.ok())
    check.require(state->shape[0] <= GT_DIFFUSION_SLOTS, "state has %lld slots, expected at most %d",
                  static_cast<long long>(state->shape[0]), static_cast<int>(GT_DIFFUSION_SLOTS));
}

// mask, and what it chooses from.
void check_inpainting(gt::Check &check, const gt_tensor *mask, const gt_tensor *known, const gt_tensor *known_noise,
                      const gt_tensor *sample) {
  check.require(mask || (!known && !known_noise), "mask is NULL, expected a tensor beside known and known_noise");
  if (!mask || !check.ok()) return;
  check.tensor("mask", mask, gt::F32);
  if (!check.ok()) return;
  check.shape("mask", mask, {sample->shape[0], sample->shape[1], sample->shape[2], -1});
  if (check.ok())
    check.require(mask->shape[3] == 1 || mask->shape[3] == sample->shape[3],
                  "mask has %lld channels, expected 1 or %lld", static_cast<long long>(mask->shape[3]),
                  static_cast<long long>(sample->shape[3]));
  check_like_sample(check, "known", known, sample);
  check_like_sample(check, "known_noise", known_noise, sample);
}

}  // namespace

extern "C" gt_status gt_diffusion_step(const gt_stream *stream, const gt_tensor *sample, const gt_tensor *state,
                                       const gt_tensor *input, const gt_tensor *counter, const gt_tensor *output,
                                       const gt_tensor *variance, const gt_tensor *statistics, const gt_tensor *table,
                                       const gt_tensor *noise, const gt_tensor *seeds, const gt_tensor *mask,
                                       const gt_tensor *known, const gt_tensor *known_noise,
                                       gt_learned_variance learned_variance) {
  gt::Check check = check_sample("diffusion_step", stream, sample);
  check_images(check, "output", output, sample);
  check_table(check, table, counter);
  if (state) check_state(check, state, *sample);
  if (input) check_images(check, "input", input, sample);
  check.require(learned_variance >= GT_VARIANCE_NONE && learned_variance <= GT_VARIANCE_RANGE,
                "learned_variance is %d, expected 0 to 2", learned_variance);
  check.require((learned_variance == GT_VARIANCE_NONE) == !variance,
                "variance is %s and learned_variance is %d, expected both or neither", variance ? "given" : "NULL",
                learned_variance);
  if (variance) check_images(check, "variance", variance, sample);
  if (statistics) check_statistics(check, statistics, sample);
  if (noise && check.ok()) {
    check.tensor("noise", noise, gt::F32);
    const int64_t *const image = sample->shape;
    check.shape("noise", noise, {table->shape[0], image[0], image[1], image[2], image[3]});
  }
  if (seeds && check.ok())
    check.tensor("seeds", seeds, gt::I64).shape("seeds", seeds, {sample->shape[0], 2}).contiguous("seeds", seeds);
  check_inpainting(check, mask, known, known_noise, sample);
  if (!check.ok()) return check.status();
  return GT_RUN(diffusion_step, stream, sample, state, input, counter, output, variance, statistics, table, noise,
                seeds, mask, known, known_noise, learned_variance);
}

extern "C" gt_status gt_diffusion_input(const gt_stream *stream, const gt_tensor *input, const gt_tensor *sample,
                                        const gt_tensor *table, const gt_tensor *counter) {
  gt::Check check = check_sample("diffusion_input", stream, sample);
  check_images(check, "input", input, sample);
  check_table(check, table, counter);
  return check.ok() ? GT_RUN(diffusion_input, stream, input, sample, table, counter) : check.status();
}

extern "C" gt_status gt_diffusion_statistics(const gt_stream *stream, const gt_tensor *statistics,
                                             const gt_tensor *sample, const gt_tensor *output, const gt_tensor *table,
                                             const gt_tensor *counter, float ratio, float largest) {
  gt::Check check = check_sample("diffusion_statistics", stream, sample);
  check_statistics(check, statistics, sample);
  check_images(check, "output", output, sample);
  check_table(check, table, counter);
  check.require(ratio >= 0 && ratio <= 1, "ratio is %g, expected 0 to 1", static_cast<double>(ratio));
  check.require(ratio == 0 || largest >= 1, "largest is %g, expected at least 1", static_cast<double>(largest));
  check.elements_at_most("sample", sample, 1, MOST_OF_QUANTILE);
  if (!check.ok()) return check.status();
  return GT_RUN(diffusion_statistics, stream, statistics, sample, output, table, counter, ratio, largest);
}

#endif
