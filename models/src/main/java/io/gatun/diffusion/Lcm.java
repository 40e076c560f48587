package io.gatun.diffusion;

import static io.gatun.diffusion.Combination.NOISE;
import static io.gatun.diffusion.Combination.X;

import io.gatun.runtime.GatunException;

/// `LCMScheduler`: a consistency model's denoised sample, with noise for the next step. Luo et al. 2023, arXiv
/// 2310.04378.
final class Lcm implements Sampler {
    private static final double SIGMA_DATA = 0.5;

    private final NoiseSchedule schedule;
    private final Prediction prediction;
    private final Limit limit;
    private final int originalSteps;
    private final double timestepScaling;

    Lcm(SchedulerConfig config) {
        schedule = NoiseSchedule.of(config, 0.00085, 0.012, NoiseSchedule.Kind.SCALED_LINEAR);
        prediction = config.choice("prediction_type", Prediction.EPSILON, Prediction.OF_NOISE);
        limit = Limit.thresholdOrClip(config, false);
        originalSteps = config.integer("original_inference_steps", 1, schedule.steps(), 50);
        timestepScaling = config.number("timestep_scaling", 10);
    }

    @Override
    public Trajectory trajectory(SamplingOptions options) {
        int n = options.steps();
        if (n > originalSteps) {
            throw GatunException.invalid("steps is %d, expected at most the %d that the model was distilled from"
                    + " (original_inference_steps)", n, originalSteps);
        }
        int stride = schedule.steps() / originalSteps;
        var builder = new Trajectory.Builder(limit);
        for (int i = options.firstStep(); i < n; i++) {
            int t = timestep(i, n, stride);
            double a = schedule.alphaCumprod(t, 1);
            double alpha = Math.sqrt(a);
            double sigma = Math.sqrt(1 - a);
            double scaled = t * timestepScaling;
            double norm = scaled * scaled + SIGMA_DATA * SIGMA_DATA;

            var call = builder.call(t, alpha, sigma);
            Combination denoised = call.limited(prediction.denoised(alpha, sigma)).times(scaled / Math.sqrt(norm))
                    .plus(X.times(SIGMA_DATA * SIGMA_DATA / norm));
            if (i + 1 == n) {
                call.next(denoised);
            } else {
                double next = schedule.alphaCumprod(timestep(i + 1, n, stride), 1);
                call.next(denoised.times(Math.sqrt(next)).plus(NOISE.times(Math.sqrt(1 - next))));
            }
        }
        return builder.build();
    }

    /// Of the steps that the model was distilled from, which are `stride` apart, n from the last on, evenly.
    private int timestep(int i, int n, int stride) {
        int skipped = (int) (i * ((double) originalSteps / n));
        return (originalSteps - skipped) * stride - 1;
    }
}
