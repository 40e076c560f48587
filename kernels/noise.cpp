// Normal numbers, images with noise added, and tables of noise schedules: argument checks, dispatch, and the CPU twin
// of noise.cu.
#include "gatun/noise.h"

#include "check.h"
#include "cpu/isa.h"
#include "noise_schedule.h"

#if defined(GT_ISA)
// Computes    gatun/noise.h
// Mapping     images are split into runs of 256 elements over threads; a schedule is one thread's work
// Memory      operands of any strides are gathered run by run into 1 KiB of stack each
// Numerics    a * x + b * noise as one fused multiply-add after one product; schedules by noise_schedule.h
#include <math.h>

#include "cpu/image_run.h"
#include "cpu/tile.h"

namespace gt::GT_ISA {
namespace {

// sqrt(a) and sqrt(1 - a) of image b; NaN for a time step that is not in the table.
struct Level {
  float signal, noise;
};
Level level_of(const gt_tensor *alphas_cumprod, const gt_tensor *timesteps, int64_t b) {
  const int64_t t = static_cast<const int32_t *>(timesteps->data)[b];
  if (t < 0 || t >= alphas_cumprod->shape[0]) return {NAN, NAN};
  const float a = static_cast<const float *>(alphas_cumprod->data)[t];
  return {sqrtf(a), sqrtf(1.0f - a)};
}

const int64_t *seed_of(const gt_tensor *seeds, int64_t b) { return static_cast<const int64_t *>(seeds->data) + 2 * b; }

// y = of_x x + of_noise noise
void blend(const ImageRun &run, const RunBuffer &x, float of_x, const RunBuffer &noise, float of_noise, RunBuffer &y) {
  for (int64_t i = 0; i < run.n; i += W)
    store(y.value + i, fused(broadcast(of_noise), load(noise.value + i), of_x * load(x.value + i)));
}

}  // namespace

gt_status normal_cpu(const gt_stream *stream, const gt_tensor *y, const gt_tensor *seeds, uint32_t step) {
  for_image_runs(stream, *y, DRAW_COST, [&](const ImageRun &run) {
    RunBuffer noise;
    draw(run, seed_of(seeds, run.b), step, noise);
    scatter(run, *y, run.b, noise);
  });
  return GT_OK;
}

gt_status add_noise_cpu(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x, const gt_tensor *noise,
                        const gt_tensor *seeds, uint32_t step, const gt_tensor *alphas_cumprod,
                        const gt_tensor *timesteps) {
  for_image_runs(stream, *y, noise ? 4 : DRAW_COST, [&](const ImageRun &run) {
    RunBuffer of_x, of_noise;
    gather(run, *x, run.b, of_x);
    noise ? gather(run, *noise, run.b, of_noise) : draw(run, seed_of(seeds, run.b), step, of_noise);
    const Level level = level_of(alphas_cumprod, timesteps, run.b);
    blend(run, of_x, level.signal, of_noise, level.noise, of_x);
    scatter(run, *y, run.b, of_x);
  });
  return GT_OK;
}

gt_status velocity_cpu(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x, const gt_tensor *noise,
                       const gt_tensor *alphas_cumprod, const gt_tensor *timesteps) {
  for_image_runs(stream, *y, 4, [&](const ImageRun &run) {
    RunBuffer of_x, of_noise;
    gather(run, *x, run.b, of_x);
    gather(run, *noise, run.b, of_noise);
    const Level level = level_of(alphas_cumprod, timesteps, run.b);
    blend(run, of_x, -level.noise, of_noise, level.signal, of_x);
    scatter(run, *y, run.b, of_x);
  });
  return GT_OK;
}

gt_status noise_schedule_cpu(const gt_stream *, const gt_tensor *betas, const gt_tensor *alphas_cumprod,
                             gt_beta_schedule schedule, double from, double to, int32_t zero_snr) {
  float *const beta = static_cast<float *>(betas->data), *const product = static_cast<float *>(alphas_cumprod->data);
  const int64_t steps = betas->shape[0];
  for (int64_t t = 0; t < steps && schedule != GT_BETAS_GIVEN; ++t) beta[t] = beta_of(schedule, from, to, t, steps);
  multiply_up(product, beta, steps);
  if (zero_snr) rescale_to_zero_snr(beta, product, steps);
  return GT_OK;
}

}  // namespace gt::GT_ISA

#else

GT_DECLARE_OP(normal)
GT_DECLARE_OP(add_noise)
GT_DECLARE_OP(velocity)
GT_DECLARE_OP(noise_schedule)

namespace {

void check_image(gt::Check &check, const char *name, const gt_tensor *t) {
  check.tensor(name, t, gt::FLOATS).rank(name, t, 4).elements_at_most(name, t, 1, INT32_MAX);
}

void check_like(gt::Check &check, const char *name, const gt_tensor *t, const gt_tensor *y) {
  check.tensor(name, t, gt::FLOATS).same_shape(name, t, "y", y).same_dtype(name, t, "y", y);
}

void check_levels(gt::Check &check, const gt_tensor *y, const gt_tensor *alphas_cumprod, const gt_tensor *timesteps) {
  check.tensor("alphas_cumprod", alphas_cumprod, gt::F32).rank("alphas_cumprod", alphas_cumprod, 1);
  check.contiguous("alphas_cumprod", alphas_cumprod).tensor("timesteps", timesteps, gt::I32);
  if (check.ok()) check.shape("timesteps", timesteps, {y->shape[0]}).contiguous("timesteps", timesteps);
}

void check_seeds(gt::Check &check, const gt_tensor *seeds, const gt_tensor *y) {
  check.tensor("seeds", seeds, gt::I64);
  if (check.ok()) check.shape("seeds", seeds, {y->shape[0], 2}).contiguous("seeds", seeds);
}

// The host cannot see betas that are GIVEN on CUDA.
void check_falls(gt::Check &check, const gt_stream *stream, const gt_tensor *betas, gt_beta_schedule schedule,
                 double from, double to) {
  const int64_t steps = betas->shape[0];
  check.require(steps >= 2, "betas has one element, expected at least 2 where zero_snr scales the last product to 0");
  if (!check.ok() || (schedule == GT_BETAS_GIVEN && stream->device != GT_CPU)) return;
  const float *const given = static_cast<const float *>(betas->data);
  double product = 1, first = 1;
  for (int64_t t = 0; t < steps; ++t) {
    const float beta = schedule == GT_BETAS_GIVEN ? given[t] : gt::beta_of(schedule, from, to, t, steps);
    product *= static_cast<double>(1.0f - beta);
    if (t == 0) first = product;
  }
  check.require(sqrtf(static_cast<float>(first)) > sqrtf(static_cast<float>(product)),
                "the products of 1 - betas go from %g to %g, expected to fall where zero_snr scales the last to 0",
                first, product);
}

}  // namespace

extern "C" gt_status gt_normal(const gt_stream *stream, const gt_tensor *y, const gt_tensor *seeds, uint32_t step) {
  gt::Check check("normal", stream);
  check_image(check, "y", y);
  check_seeds(check, seeds, y);
  return check.ok() ? GT_RUN(normal, stream, y, seeds, step) : check.status();
}

extern "C" gt_status gt_add_noise(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x,
                                  const gt_tensor *noise, const gt_tensor *seeds, uint32_t step,
                                  const gt_tensor *alphas_cumprod, const gt_tensor *timesteps) {
  gt::Check check("add_noise", stream);
  check_image(check, "y", y);
  check_like(check, "x", x, y);
  if (noise) check_like(check, "noise", noise, y);
  check_levels(check, y, alphas_cumprod, timesteps);
  if (!noise) check_seeds(check, seeds, y);
  if (!check.ok()) return check.status();
  return GT_RUN(add_noise, stream, y, x, noise, seeds, step, alphas_cumprod, timesteps);
}

extern "C" gt_status gt_velocity(const gt_stream *stream, const gt_tensor *y, const gt_tensor *x,
                                 const gt_tensor *noise, const gt_tensor *alphas_cumprod,
                                 const gt_tensor *timesteps) {
  gt::Check check("velocity", stream);
  check_image(check, "y", y);
  check_like(check, "x", x, y);
  check_like(check, "noise", noise, y);
  check_levels(check, y, alphas_cumprod, timesteps);
  if (!check.ok()) return check.status();
  return GT_RUN(velocity, stream, y, x, noise, alphas_cumprod, timesteps);
}

extern "C" gt_status gt_noise_schedule(const gt_stream *stream, const gt_tensor *betas,
                                       const gt_tensor *alphas_cumprod, gt_beta_schedule schedule, double from,
                                       double to, int32_t zero_snr) {
  gt::Check check("noise_schedule", stream);
  check.tensor("betas", betas, gt::F32).rank("betas", betas, 1).contiguous("betas", betas);
  check.tensor("alphas_cumprod", alphas_cumprod, gt::F32).contiguous("alphas_cumprod", alphas_cumprod);
  check.same_shape("alphas_cumprod", alphas_cumprod, "betas", betas);
  if (check.ok()) {
    check.require(betas->shape[0] >= 1, "betas has no elements, expected T >= 1");
    check.require(schedule >= GT_BETAS_LINEAR && schedule <= GT_BETAS_GIVEN, "schedule is %d, expected 0 to 4",
                  schedule);
    check.require(schedule == GT_BETAS_GIVEN || schedule == GT_BETAS_COSINE || (from >= 0 && to >= 0),
                  "from is %g and to is %g, expected no negative number", from, to);
  }
  if (check.ok() && zero_snr) check_falls(check, stream, betas, schedule, from, to);
  if (!check.ok()) return check.status();
  return GT_RUN(noise_schedule, stream, betas, alphas_cumprod, schedule, from, to, zero_snr);
}

#endif
