// Do the ops of gatun/diffusion.h in CUDA, on the emulator, give what the CPU gives?
#include "image_rows.h"

namespace {

using namespace test;

constexpr int64_t CALLS = 3;
constexpr auto LAST = ImageLayout::CHANNELS_LAST, PLANAR = ImageLayout::PLANAR_WITH_GAPS;

struct Settings {
  ImageSize size;
  ImageLayout layout;
  gt_dtype dtype;  // of output and input
  int64_t slots;
  bool guided, draws, recorded, masked, measured;
  gt_learned_variance variance;
  float clip;
};

const Settings settings[] = {
    // size              layout  dtype   K  guided draws  recorded masked measured variance           clip
    {{1, 4, 4, 1}, LAST, GT_F32, 0, false, false, false, false, false, GT_VARIANCE_NONE, INFINITY},
    {{2, 3, 5, 4}, LAST, GT_F32, 2, true, true, false, false, false, GT_VARIANCE_NONE, 1},
    {{2, 3, 5, 4}, PLANAR, GT_BF16, 5, true, true, false, true, true, GT_VARIANCE_NONE, INFINITY},
    {{3, 8, 8, 3}, LAST, GT_F16, 3, false, true, true, true, false, GT_VARIANCE_RANGE, 1},
    {{1, 17, 19, 4}, PLANAR, GT_F32, 1, true, true, false, false, true, GT_VARIANCE_VALUE, 2},
    {{2, 16, 16, 4}, LAST, GT_BF16, 4, true, true, true, false, false, GT_VARIANCE_RANGE, INFINITY},
    {{2, 17, 31, 4}, LAST, GT_F32, 0, true, true, false, true, true, GT_VARIANCE_NONE, 1},
    {{1, 17, 31, 4}, LAST, GT_BF16, 0, false, true, false, false, false, GT_VARIANCE_VALUE, 1},
    {{2, 5, 7, 3}, LAST, GT_F16, 0, true, true, true, true, false, GT_VARIANCE_NONE, INFINITY},
};

std::string name_of(const char *op, const Settings &s) {
  return std::string(op) + " " + test::name_of(s.dtype) + " " + std::to_string(s.size.b) + "x" +
         std::to_string(s.size.h) + "x" + std::to_string(s.size.w) + "x" + std::to_string(s.size.c) + " K " +
         std::to_string(s.slots);
}

// Rows of coefficients: some targets kept, some sources unused, different from call to call.
void fill_table(const Rows &table, const Settings &s) {
  for (int64_t call = 0; call < CALLS; ++call) {
    const auto set = [&](int field, float x) { table.set(0, call * GT_DIFFUSION_FIELDS + field, x); };
    for (int i = 0; i < GT_DIFFUSION_FIELDS; ++i) set(i, 0);
    set(GT_DIFFUSION_GUIDANCE, 7.5f);
    set(GT_DIFFUSION_RESCALE, s.measured ? 0.7f : 0);
    set(GT_DIFFUSION_DENOISED_X, 1.25f);
    set(GT_DIFFUSION_DENOISED_OUTPUT, -0.75f);
    set(GT_DIFFUSION_CLIP, s.clip);
    set(GT_DIFFUSION_INPUT, 0.5f + 0.25f * static_cast<float>(call));
    set(GT_DIFFUSION_MIN_LOG, -4);
    set(GT_DIFFUSION_MAX_LOG, -1);
    set(GT_DIFFUSION_KNOWN, 0.9f);
    set(GT_DIFFUSION_KNOWN_NOISE, call == CALLS - 1 ? 0 : 0.3f);
    for (int64_t target = 0; target <= s.slots; ++target)
      for (int64_t source = 0; source < 4 + s.slots; ++source) {
        if (target > 0 && (target + call) % 3 == 0) continue;              // the slot keeps its value
        if (source >= 4 && (source + target + call) % 2 == 0) continue;    // a slot that is not read
        if (source == 3 && (target > 0 || !s.draws)) continue;             // noise
        set(static_cast<int>(GT_DIFFUSION_UPDATE + target * GT_DIFFUSION_SOURCES + source),
            0.1f * static_cast<float>(1 + (target * 7 + source * 3 + call) % 11) - 0.4f);
      }
  }
}

// One operand that lies elsewhere than the others: its number in the order of Operands' images.
struct Elsewhere {
  int operand;
  ImageLayout layout;
  ImageGaps gaps;
};
constexpr Elsewhere NONE = {-1, LAST, {}};
constexpr int SAMPLE = 0, STATE = 1, INPUT = 2, OUTPUT = 3, VARIANCE = 4, NOISE = 5, MASK = 6, KNOWN = 7,
              KNOWN_NOISE = 8, IMAGES = 9;

struct Operands {
  Settings s;
  Elsewhere elsewhere;
  ImageSize inputs;
  ImageRows sample, state, input, output, variance, noise, mask, known, known_noise;
  Rows counter, statistics, table, seeds;

  Operands(const Settings &settings, int call, Elsewhere e = NONE)
      : s(settings), elsewhere(e), inputs{s.size.b * (s.guided ? 2 : 1), s.size.h, s.size.w, s.size.c},
        sample(image(SAMPLE, GT_F32, s.size)), state(image(STATE, GT_F32, s.size, std::max<int64_t>(1, s.slots))),
        input(image(INPUT, s.dtype, inputs)), output(image(OUTPUT, s.dtype, inputs)),
        variance(image(VARIANCE, s.dtype, inputs)), noise(image(NOISE, GT_F32, s.size, CALLS)),
        mask(image(MASK, GT_F32, {s.size.b, s.size.h, s.size.w, 1})), known(image(KNOWN, GT_F32, s.size)),
        known_noise(image(KNOWN_NOISE, GT_F32, s.size)), counter(GT_I32, 1, 2), statistics(GT_F32, s.size.b, 2),
        table(GT_F32, 1, CALLS * GT_DIFFUSION_FIELDS), seeds(GT_I64, s.size.b, 2) {
    uint64_t salt = 1;
    for (const ImageRows *image : {&sample, &state, &output, &variance, &noise, &known, &known_noise})
      image->fill(salt++);
    for (int64_t i = 0; i < mask.rows().c(); ++i) mask.rows().set(0, i, static_cast<float>(i % 3) / 2);
    for (int64_t i = 0; i < variance.rows().c(); ++i)
      variance.rows().set(0, i, std::fabs(variance.rows().get(0, i)) / 2);
    fill_table(table, s);
    counter.integer_at<int32_t>(0, 0) = call;
    counter.integer_at<int32_t>(0, 1) = 0;
    for (int64_t b = 0; b < s.size.b; ++b) {
      seeds.integer_at<int64_t>(b, 0) = 1234567890123 + b;
      seeds.integer_at<int64_t>(b, 1) = b % 2;
      statistics.set(b, 0, 0.8f);
      statistics.set(b, 1, b % 2 ? 0 : 1.5f);
    }
  }
  ImageRows image(int operand, gt_dtype dtype, ImageSize size, int64_t copies = 0) const {
    return operand == elsewhere.operand ? ImageRows(dtype, size, elsewhere.layout, copies, elsewhere.gaps)
                                        : ImageRows(dtype, size, s.layout, copies);
  }
  gt_tensor table_tensor() const {
    return table.view({CALLS, GT_DIFFUSION_FIELDS}, {GT_DIFFUSION_FIELDS, 1});
  }
  std::vector<const Rows *> operands() const {
    return {&sample.rows(), &state.rows(), &input.rows(), &output.rows(), &variance.rows(), &noise.rows(), &mask.rows(),
            &known.rows(), &known_noise.rows(), &counter, &statistics, &table, &seeds};
  }
};

struct StepCase : Operands {
  using Operands::Operands;

  gt_status run(const gt_stream &stream) const {
    const gt_tensor x = sample.tensor(), st = state.tensor(), in = input.tensor(), out = output.tensor(),
                    v = variance.tensor(), n = noise.tensor(), m = mask.tensor(), k = known.tensor(),
                    kn = known_noise.tensor(), c = counter.vector(), stats = statistics.tensor(), t = table_tensor(),
                    seed = seeds.tensor();
    return gt_diffusion_step(&stream, &x, s.slots ? &st : nullptr, &in, &c, &out,
                             s.variance == GT_VARIANCE_NONE ? nullptr : &v, s.measured ? &stats : nullptr, &t,
                             s.recorded ? &n : nullptr, &seed, s.masked ? &m : nullptr, s.masked ? &k : nullptr,
                             s.masked ? &kn : nullptr, s.variance);
  }
  std::vector<const Rows *> outputs() const { return {&sample.rows(), &state.rows(), &input.rows(), &counter}; }
};

struct InputCase : Operands {
  using Operands::Operands;

  gt_status run(const gt_stream &stream) const {
    const gt_tensor x = sample.tensor(), in = input.tensor(), c = counter.vector(), t = table_tensor();
    return gt_diffusion_input(&stream, &in, &x, &t, &c);
  }
  std::vector<const Rows *> outputs() const { return {&input.rows()}; }
};

struct StatisticsCase : Operands {
  float ratio;

  StatisticsCase(const Settings &settings, float r) : Operands(settings, 1), ratio(r) {}
  gt_status run(const gt_stream &stream) const {
    const gt_tensor x = sample.tensor(), out = output.tensor(), c = counter.vector(), t = table_tensor(),
                    stats = statistics.tensor();
    return gt_diffusion_statistics(&stream, &stats, &x, &out, &t, &c, ratio, 100);
  }
  std::vector<const Rows *> outputs() const { return {&statistics}; }
};

// Calls within the table, its last, and one beyond it.
void check_steps() {
  for (const Settings &s : settings)
    for (int call = 0; call <= CALLS; ++call) {
      check_against_cpu(name_of("step", s), [&] { return StepCase(s, call); }, {1, 2e-6});
      check_against_cpu(name_of("input", s), [&] { return InputCase(s, call); }, {0, 0});
    }
}

// Packs want every operand dense and aligned: one that is not makes all go element by element. The build with
// sanitizers finds an access that is not aligned.
void check_operands_elsewhere() {
  const struct {
    const char *name;
    ImageLayout layout;
    ImageGaps gaps;
  } places[] = {{"an element further", LAST, {1, 0, 0}},
                {"planar", PLANAR, {}},
                {"images an element further apart", LAST, {0, 1, 0}},
                {"copies an element further apart", LAST, {0, 0, 1}}};
  for (const int64_t slots : {0, 2})
    for (const gt_dtype dtype : {GT_F32, GT_BF16}) {
      const Settings s = {{2, 3, 5, 4}, LAST, dtype, slots, true, true, true, true, false, GT_VARIANCE_RANGE, 1};
      for (int operand = 0; operand < IMAGES; ++operand)
        for (const auto &place : places) {
          if (place.gaps.copy > 0 && operand != STATE && operand != NOISE) continue;
          const Elsewhere elsewhere = {operand, place.layout, place.gaps};
          check_against_cpu(name_of("step", s) + ", operand " + std::to_string(operand) + " " + place.name,
                            [&] { return StepCase(s, 1, elsewhere); }, {1, 2e-6});
        }
    }
}

// More images than blocks: a block makes several rounds.
void check_many_images() {
#if !defined(GT_TEST_INSTRUMENTED)
  const Settings s = {{4100, 1, 2, 2}, LAST, GT_F32, 1, true, true, false, false, false, GT_VARIANCE_NONE, 1};
  check_against_cpu(name_of("step", s), [&] { return StepCase(s, 1); }, {1, 2e-6}, {"rand:5"});
#endif
}

void check_statistics() {
  for (Settings s : settings)
    for (const float ratio : {0.0f, 0.5f, 0.995f, 1.0f}) {
      check_against_cpu(name_of("statistics", s), [&] { return StatisticsCase(s, ratio); }, {1, 0});
      s.measured = !s.measured;
      check_against_cpu(name_of("statistics", s), [&] { return StatisticsCase(s, ratio); }, {1, 0});
    }
  // a NaN in one image of two, and equal magnitudes
  const auto make = [&] {
    StatisticsCase c(settings[1], 0.995f);
    for (int64_t i = 0; i < c.sample.rows().c(); ++i) c.sample.rows().set(0, i, i % 2 ? 3.0f : -3.0f);
    for (int64_t i = 0; i < c.output.rows().c(); ++i) c.output.rows().set(0, i, 0);
    c.sample.rows().set(0, 7, NAN);
    return c;
  };
  check_against_cpu("statistics with NaN", make, {1, 0});
}

// The launches of a loop: the counter goes up by one each, and the ticket is back at 0.
void check_counter() {
  const StepCase c(settings[3], 0);
  const gt_stream stream = cuda("rand:3");
  for (int call = 0; call < CALLS + 2; ++call) {
    const gt_status status = c.run(stream);
    const int expected = std::min<int>(call + 1, CALLS);
    const int now = c.counter.integer_at<int32_t>(0, 0), ticket = c.counter.integer_at<int32_t>(0, 1);
    expect(status == GT_OK && now == expected && ticket == 0,
           "launch %d: status %d, counter %d and %d, expected %d and 0", call, status, now, ticket, expected);
  }
}

}  // namespace

int main() {
  check_steps();
  check_operands_elsewhere();
  check_many_images();
  check_statistics();
  check_counter();
  return summary();
}
