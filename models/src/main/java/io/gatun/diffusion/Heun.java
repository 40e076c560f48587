package io.gatun.diffusion;

import static io.gatun.diffusion.Combination.X;

/// `HeunDiscreteScheduler`: [Euler]'s step, then the step anew with the mean of the slopes at both its ends; two calls
/// a step, one in the last. Karras et al. 2022, arXiv 2206.00364, algorithm 1.
final class Heun implements Sampler {
    /// Slots: the sample at the beginning of a step and the slope there.
    private static final int BEGINNING = 0;
    private static final int SLOPE = 1;

    private final SchedulerConfig config;
    private final NoiseSchedule schedule;
    private final Prediction prediction;
    private final Spacing spacing;
    private final Limit limit;
    private final int stepsOffset;

    Heun(SchedulerConfig config) {
        this.config = config;
        schedule = NoiseSchedule.of(config, 0.00085, 0.012, NoiseSchedule.Kind.LINEAR);
        prediction = config.choice("prediction_type", Prediction.EPSILON, Prediction.OF_NOISE);
        spacing = config.choice("timestep_spacing", Spacing.LINSPACE);
        limit = Limit.clip(config, false);
        stepsOffset = config.integer("steps_offset", 0, schedule.steps(), 0);
        SigmaSpacing.of(config);
    }

    @Override
    public Trajectory trajectory(SamplingOptions options) {
        options.requireAtMost(schedule.steps());
        Sigmas sigmas = Sigmas.interpolated(config, schedule.sigmas(),
                spacing.steps(schedule.steps(), options.steps(), stepsOffset), 0, false);
        var builder = new Trajectory.Builder(limit).initialDeviation(sigmas.initialDeviation(spacing));
        for (int i = options.firstStep(); i < sigmas.steps(); i++) {
            double from = sigmas.at(i);
            double to = sigmas.at(i + 1);
            var call = builder.scaledCall(sigmas.timesteps()[i], from);
            Combination slope = X.minus(call.limited(prediction.denoisedAt(from))).over(from);
            call.next(X.plus(slope.times(to - from)));
            if (i + 1 == sigmas.steps()) {
                break;
            }
            call.keep(BEGINNING, X);
            call.keep(SLOPE, slope);

            var second = builder.scaledCall(sigmas.timesteps()[i + 1], to);
            Combination atEnd = X.minus(second.limited(prediction.denoisedAt(to))).over(to);
            Combination mean = Combination.state(SLOPE).plus(atEnd).over(2);
            second.next(Combination.state(BEGINNING).plus(mean.times(to - from)));
        }
        return builder.build();
    }
}
