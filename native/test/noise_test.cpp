// Do the ops of gatun/noise.h in CUDA, on the emulator, give what the CPU gives?
#include "image_rows.h"

namespace {

using namespace test;

constexpr int64_t STEPS = 1000;
constexpr Tolerance OF_NORMALS{1, 4e-6};  // logf, sinf and cosf may differ in the last places
const ImageSize sizes[] = {{1, 1, 1, 1}, {2, 3, 5, 4}, {3, 17, 9, 3}, {1, 19, 23, 3}, {1, 32, 33, 4}, {1, 1, 2, 1500}};

enum class Op { NORMAL, ADD_NOISE, ADD_DRAWN_NOISE, VELOCITY };

struct Case {
  Op op;
  ImageRows y, x, noise;
  Rows alphas, timesteps, seeds;

  Case(Op o, gt_dtype dtype, ImageSize size, ImageLayout layout)
      : op(o), y(dtype, size, layout), x(dtype, size, layout), noise(dtype, size, layout), alphas(GT_F32, 1, STEPS),
        timesteps(GT_I32, 1, size.b), seeds(GT_I64, size.b, 2) {
    x.fill(1);
    noise.fill(2);
    for (int64_t t = 0; t < STEPS; ++t) alphas.set(0, t, 1.0f / static_cast<float>(t + 1));
    for (int64_t b = 0; b < size.b; ++b) {
      timesteps.integer_at<int32_t>(0, b) = static_cast<int32_t>(b == 2 ? STEPS : b * 300);  // the third is none
      seeds.integer_at<int64_t>(b, 0) = -99 + b;
      seeds.integer_at<int64_t>(b, 1) = 5 * b;
    }
  }
  gt_status run(const gt_stream &stream) const {
    const gt_tensor ty = y.tensor(), tx = x.tensor(), tn = noise.tensor(), ta = alphas.vector(),
                    tt = timesteps.vector(), ts = seeds.tensor();
    switch (op) {
      case Op::NORMAL: return gt_normal(&stream, &ty, &ts, 7);
      case Op::ADD_NOISE: return gt_add_noise(&stream, &ty, &tx, &tn, nullptr, 0, &ta, &tt);
      case Op::ADD_DRAWN_NOISE: return gt_add_noise(&stream, &ty, &tx, nullptr, &ts, 7, &ta, &tt);
      default: return gt_velocity(&stream, &ty, &tx, &tn, &ta, &tt);
    }
  }
  std::vector<const Rows *> outputs() const { return {&y.rows()}; }
  std::vector<const Rows *> operands() const {
    return {&y.rows(), &x.rows(), &noise.rows(), &alphas, &timesteps, &seeds};
  }
};

struct ScheduleCase {
  gt_beta_schedule schedule;
  int32_t zero_snr;
  Rows betas, products;

  ScheduleCase(gt_beta_schedule kind, int32_t zero, int64_t steps)
      : schedule(kind), zero_snr(zero), betas(GT_F32, 1, steps), products(GT_F32, 1, steps) {
    for (int64_t t = 0; t < steps && kind == GT_BETAS_GIVEN; ++t)
      betas.set(0, t, 0.001f * static_cast<float>(t % 7 + 1));
  }
  gt_status run(const gt_stream &stream) const {
    const gt_tensor tb = betas.vector(), tp = products.vector();
    return gt_noise_schedule(&stream, &tb, &tp, schedule, 0.00085, 0.012, zero_snr);
  }
  std::vector<const Rows *> outputs() const { return {&betas, &products}; }
  std::vector<const Rows *> operands() const { return {&betas, &products}; }
};

gt_status schedule_of(gt_beta_schedule kind, double from, double to, int64_t steps) {
  const gt_stream stream = cpu(1);
  const Rows betas(GT_F32, 1, steps), products(GT_F32, 1, steps);
  for (int64_t t = 0; t < steps; ++t) betas.set(0, t, 0);
  const gt_tensor tb = betas.vector(), tp = products.vector();
  return gt_noise_schedule(&stream, &tb, &tp, kind, from, to, 1);
}

// Products that do not fall cannot be scaled to end in 0.
void check_schedules_that_do_not_fall() {
  expect(schedule_of(GT_BETAS_LINEAR, 0.1, 0.2, 1) == GT_INVALID_ARGUMENT && strstr(gt_last_error(), "one element"),
         "one step: '%s'", gt_last_error());
  expect(schedule_of(GT_BETAS_LINEAR, 0, 0, 9) == GT_INVALID_ARGUMENT && strstr(gt_last_error(), "expected to fall"),
         "betas of 0: '%s'", gt_last_error());
  expect(schedule_of(GT_BETAS_GIVEN, 0, 0, 9) == GT_INVALID_ARGUMENT, "given betas of 0: '%s'", gt_last_error());
  expect(schedule_of(GT_BETAS_LINEAR, 0.1, 0.1, 2) == GT_OK, "equal betas: '%s'", gt_last_error());
}

// Dimensions whose product is 0 modulo 2^64.
void check_too_many_elements() {
  const gt_stream stream = cpu(1);
  float value = 0;
  int64_t seed[2] = {};
  const gt_tensor y{&value, GT_F32, 4, {1, int64_t{1} << 32, int64_t{1} << 31, 2}, {0, 0, 0, 1}};
  const gt_tensor seeds{seed, GT_I64, 2, {1, 2}, {2, 1}};
  expect(gt_normal(&stream, &y, &seeds, 0) == GT_INVALID_ARGUMENT && strstr(gt_last_error(), "product of at most"),
         "2^64 elements: '%s'", gt_last_error());
}

}  // namespace

int main() {
  for (const ImageSize &size : sizes)
    for (const gt_dtype dtype : FLOATS)
      for (const ImageLayout layout : {ImageLayout::CHANNELS_LAST, ImageLayout::PLANAR_WITH_GAPS})
        for (const Op op : {Op::NORMAL, Op::ADD_NOISE, Op::ADD_DRAWN_NOISE, Op::VELOCITY}) {
          const std::string what = "op " + std::to_string(static_cast<int>(op)) + " " + name_of(dtype);
          check_against_cpu(what, [&] { return Case(op, dtype, size, layout); }, OF_NORMALS);
        }
  for (const int64_t steps : {1, 2, 7, 1000})
    for (gt_beta_schedule kind = GT_BETAS_LINEAR; kind <= GT_BETAS_GIVEN; ++kind)
      for (int32_t zero_snr : {0, 1}) {
        if (zero_snr && steps == 1) continue;  // its only product would have to stay and be 0
        const std::string what = "schedule " + std::to_string(kind);
        check_against_cpu(what, [&] { return ScheduleCase(kind, zero_snr, steps); }, {0, 0});
      }
  check_schedules_that_do_not_fall();
  check_too_many_elements();
  return summary();
}
