package io.gatun.diffusion;

import static io.gatun.diffusion.Combination.NOISE;
import static io.gatun.diffusion.Combination.X;

/// `EulerAncestralDiscreteScheduler`: [Euler]'s step to less noise than wanted, and fresh noise for the difference.
/// After k-diffusion's `sample_euler_ancestral` (Crowson 2022).
final class EulerAncestral implements Sampler {
    private final SchedulerConfig config;
    private final NoiseSchedule schedule;
    private final Prediction prediction;
    private final Spacing spacing;
    private final int stepsOffset;

    EulerAncestral(SchedulerConfig config) {
        this.config = config;
        schedule = NoiseSchedule.of(config, 1e-4, 0.02, NoiseSchedule.Kind.LINEAR).withFiniteSigmas(config);
        prediction = config.choice("prediction_type", Prediction.EPSILON, Prediction.OF_NOISE);
        spacing = config.choice("timestep_spacing", Spacing.LINSPACE);
        stepsOffset = config.integer("steps_offset", 0, schedule.steps(), 0);
    }

    @Override
    public Trajectory trajectory(SamplingOptions options) {
        options.requireAtMost(schedule.steps());
        double[] steps = spacing.steps(schedule.steps(), options.steps(), stepsOffset);
        Sigmas sigmas = Sigmas.ofSteps(schedule.sigmas(), steps, 0);
        var builder = new Trajectory.Builder(Limit.NONE).initialDeviation(sigmas.initialDeviation(spacing));
        for (int i = options.firstStep(); i < sigmas.steps(); i++) {
            double from = sigmas.at(i);
            double to = sigmas.at(i + 1);
            var split = Ancestral.between(from, to);
            var call = builder.scaledCall(steps[i], from);
            Combination derivative = X.minus(call.limited(prediction.denoisedAt(from))).over(from);
            call.next(X.plus(derivative.times(split.down() - from)).plus(NOISE.times(split.up())));
        }
        return builder.build();
    }

    /// A way from one sigma to a smaller one: down to `down`, then up again with noise of deviation `up`.
    record Ancestral(double down, double up) {
        static Ancestral between(double from, double to) {
            double up = Math.sqrt(to * to * (from * from - to * to) / (from * from));
            return new Ancestral(Math.sqrt(to * to - up * up), up);
        }
    }
}
