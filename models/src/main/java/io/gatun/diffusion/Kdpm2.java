package io.gatun.diffusion;

import static io.gatun.diffusion.Combination.NOISE;
import static io.gatun.diffusion.Combination.X;

import io.gatun.diffusion.EulerAncestral.Ancestral;

/// `KDPM2DiscreteScheduler` and `KDPM2AncestralDiscreteScheduler`: the step is taken with the slope at the geometric
/// middle of its sigmas; two calls a step, one in the last. DPM-Solver-2 as k-diffusion writes it (Crowson 2022), after
/// Karras et al. 2022, arXiv 2206.00364.
final class Kdpm2 implements Sampler {
    /// Slot of the sample at the beginning of a step.
    private static final int BEGINNING = 0;

    private final SchedulerConfig config;
    private final NoiseSchedule schedule;
    private final Prediction prediction;
    private final Spacing spacing;
    private final int stepsOffset;
    private final boolean isAncestral;

    Kdpm2(SchedulerConfig config) {
        this(config, false);
    }

    private Kdpm2(SchedulerConfig config, boolean isAncestral) {
        this.config = config;
        this.isAncestral = isAncestral;
        schedule = NoiseSchedule.of(config, 0.00085, 0.012, NoiseSchedule.Kind.LINEAR);
        prediction = config.choice("prediction_type", Prediction.EPSILON, Prediction.OF_NOISE);
        spacing = config.choice("timestep_spacing", Spacing.LINSPACE);
        stepsOffset = config.integer("steps_offset", 0, schedule.steps(), 0);
    }

    static Sampler ancestral(SchedulerConfig config) {
        return new Kdpm2(config, true);
    }

    @Override
    public Trajectory trajectory(SamplingOptions options) {
        options.requireAtMost(schedule.steps());
        float[] table = schedule.sigmas();
        Sigmas sigmas = Sigmas.interpolated(config, table,
                spacing.steps(schedule.steps(), options.steps(), stepsOffset), 0,
                SigmaSpacing.of(config) == SigmaSpacing.KARRAS);
        var builder = new Trajectory.Builder(Limit.NONE).initialDeviation(sigmas.initialDeviation(spacing));
        for (int i = options.firstStep(); i < sigmas.steps(); i++) {
            double from = sigmas.at(i);
            var way = isAncestral ? Ancestral.between(from, sigmas.at(i + 1)) : new Ancestral(sigmas.at(i + 1), 0);
            boolean isLast = i + 1 == sigmas.steps();
            double middle = isLast ? 0 : (float) Math.exp((Math.log(from) + Math.log(way.down())) / 2);
            var call = builder.scaledCall(sigmas.timesteps()[i], from);
            Combination slope = X.minus(call.limited(prediction.denoisedAt(from))).over(from);
            call.next(X.plus(slope.times(middle - from)));
            if (isLast) {
                break;
            }
            call.keep(BEGINNING, X);

            var second = builder.scaledCall(Sigmas.timestep(table, middle), middle);
            Combination atMiddle = X.minus(second.limited(prediction.denoisedAt(middle))).over(middle);
            second.next(Combination.state(BEGINNING).plus(atMiddle.times(way.down() - from))
                    .plus(NOISE.times(way.up())));
        }
        return builder.build();
    }
}
