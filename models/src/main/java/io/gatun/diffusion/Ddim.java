package io.gatun.diffusion;

import io.gatun.diffusion.SamplingOptions.PreviousStep;

/// `DDIMScheduler`: `x' = sqrt(a') x0 + sqrt(1 - a' - s^2) noise + s n`, `s = eta sqrt((1 - a') / (1 - a) (1 - a /
/// a'))`. Song, Meng and Ermon 2020, arXiv 2010.02502.
final class Ddim implements Sampler {
    private final NoiseSchedule schedule;
    private final Prediction prediction;
    private final Spacing spacing;
    private final Limit limit;
    private final int stepsOffset;
    private final double lastAlpha;

    Ddim(SchedulerConfig config) {
        schedule = NoiseSchedule.of(config, 1e-4, 0.02, NoiseSchedule.Kind.LINEAR);
        prediction = config.choice("prediction_type", Prediction.EPSILON, Prediction.OF_NOISE);
        spacing = config.choice("timestep_spacing", Spacing.LEADING);
        limit = Limit.thresholdOrClip(config, true);
        stepsOffset = config.integer("steps_offset", 0, schedule.steps(), 0);
        lastAlpha = config.flag("set_alpha_to_one", true) ? 1 : schedule.alphasCumprod()[0];
    }

    @Override
    public Trajectory trajectory(SamplingOptions options) {
        options.requireAtMost(schedule.steps());
        int[] timesteps = spacing.wholeSteps(schedule.steps(), options.steps(), stepsOffset);
        var builder = new Trajectory.Builder(limit).endsAt(Math.sqrt((1 - lastAlpha) / lastAlpha));
        for (int i = options.firstStep(); i < timesteps.length; i++) {
            int t = timesteps[i];
            int previous = options.previous() == PreviousStep.FORMULA ? t - schedule.steps() / options.steps()
                    : i + 1 < timesteps.length ? timesteps[i + 1] : -1;
            double a = schedule.alphaCumprod(t, 1);
            double next = schedule.alphaCumprod(previous, lastAlpha);
            double alpha = Math.sqrt(a);
            double sigma = Math.sqrt(1 - a);
            double deviation = options.eta() * Math.sqrt((1 - next) / (1 - a) * (1 - a / next));
            double direction = Math.sqrt(Math.max(0, 1 - next - deviation * deviation));

            var call = builder.call(t, alpha, sigma);
            call.next(call.limited(prediction.denoised(alpha, sigma)).times(Math.sqrt(next))
                    .plus(prediction.noise(alpha, sigma).times(direction))
                    .plus(Combination.NOISE.times(deviation)));
        }
        return builder.build();
    }
}
