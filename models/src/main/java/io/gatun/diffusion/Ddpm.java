package io.gatun.diffusion;

import io.gatun.ops.Diffusion.LearnedVariance;

/// `DDPMScheduler`: x' is drawn from q(x' | x, x0) with the predicted x0; no noise at step 0.
/// Ho, Jain and Abbeel 2020, arXiv 2006.11239; learned variances: Nichol and Dhariwal 2021, arXiv 2102.09672.
final class Ddpm implements Sampler {
    private static final double SMALLEST_VARIANCE = 1e-20;

    /// `variance_type`.
    private enum Variance { FIXED_SMALL, FIXED_SMALL_LOG, FIXED_LARGE, FIXED_LARGE_LOG, LEARNED, LEARNED_RANGE }

    private final NoiseSchedule schedule;
    private final Prediction prediction;
    private final Spacing spacing;
    private final Limit limit;
    private final Variance variance;
    private final int stepsOffset;

    Ddpm(SchedulerConfig config) {
        schedule = NoiseSchedule.of(config, 1e-4, 0.02, NoiseSchedule.Kind.LINEAR);
        prediction = config.choice("prediction_type", Prediction.EPSILON, Prediction.OF_NOISE);
        spacing = config.choice("timestep_spacing", Spacing.LEADING);
        limit = Limit.thresholdOrClip(config, true);
        variance = config.choice("variance_type", Variance.FIXED_SMALL);
        stepsOffset = config.integer("steps_offset", 0, schedule.steps(), 0);
    }

    @Override
    public Trajectory trajectory(SamplingOptions options) {
        options.requireAtMost(schedule.steps());
        int[] timesteps = spacing.wholeSteps(schedule.steps(), options.steps(), stepsOffset);
        var builder = new Trajectory.Builder(limit).learnedVariance(switch (variance) {
            case LEARNED -> LearnedVariance.VALUE;
            case LEARNED_RANGE -> LearnedVariance.RANGE;
            default -> LearnedVariance.NONE;
        });
        for (int i = options.firstStep(); i < timesteps.length; i++) {
            int t = timesteps[i];
            double a = schedule.alphaCumprod(t, 1);
            double next = schedule.alphaCumprod(i + 1 < timesteps.length ? timesteps[i + 1] : -1, 1);
            double alpha = Math.sqrt(a);
            double sigma = Math.sqrt(1 - a);
            double beta = 1 - a / next;

            var call = builder.call(t, alpha, sigma);
            Combination mean = call.limited(prediction.denoised(alpha, sigma))
                    .times(Math.sqrt(next) * beta / (1 - a))
                    .plus(Combination.X.times(Math.sqrt(a / next) * (1 - next) / (1 - a)));
            double small = Math.max((1 - next) / (1 - a) * beta, SMALLEST_VARIANCE);
            call.variances(small, beta);
            call.next(t > 0 ? mean.plus(Combination.NOISE.times(deviation(small, beta))) : mean);
        }
        return builder.build();
    }

    /// The logarithmic kinds say how a program stores the variance. (diffusers takes the root of FIXED_LARGE_LOG's
    /// logarithm, which is NaN.)
    private double deviation(double small, double large) {
        return switch (variance) {
            case FIXED_SMALL, FIXED_SMALL_LOG -> Math.sqrt(small);
            case FIXED_LARGE, FIXED_LARGE_LOG -> Math.sqrt(large);
            case LEARNED, LEARNED_RANGE -> 1;
        };
    }
}
