package io.gatun.diffusion;

import static io.gatun.diffusion.Combination.X;

/// `EulerDiscreteScheduler`: a step along `dx/dsigma = (x - x0) / sigma`. Karras et al. 2022, arXiv 2206.00364,
/// algorithm 2 without churn.
final class Euler implements Sampler {
    /// `interpolation_type`.
    private enum Interpolation { LINEAR, LOG_LINEAR }

    /// `timestep_type`.
    private enum TimestepType { DISCRETE, CONTINUOUS }

    private final SchedulerConfig config;
    private final NoiseSchedule schedule;
    private final Prediction prediction;
    private final Spacing spacing;
    private final Interpolation interpolation;
    private final TimestepType timestepType;
    private final Sigmas.Final last;
    private final int stepsOffset;

    Euler(SchedulerConfig config) {
        this.config = config;
        schedule = NoiseSchedule.of(config, 1e-4, 0.02, NoiseSchedule.Kind.LINEAR).withFiniteSigmas(config);
        prediction = config.choice("prediction_type", Prediction.EPSILON, Prediction.OF_NOISE);
        spacing = config.choice("timestep_spacing", Spacing.LINSPACE);
        interpolation = config.choice("interpolation_type", Interpolation.LINEAR);
        timestepType = config.choice("timestep_type", TimestepType.DISCRETE);
        last = config.choice("final_sigmas_type", Sigmas.Final.ZERO);
        stepsOffset = config.integer("steps_offset", 0, schedule.steps(), 0);
        SigmaSpacing.of(config);
    }

    @Override
    public Trajectory trajectory(SamplingOptions options) {
        options.requireAtMost(schedule.steps());
        Sigmas sigmas = sigmas(options.steps());
        var builder = new Trajectory.Builder(Limit.NONE).initialDeviation(sigmas.initialDeviation(spacing))
                .endsAt(sigmas.at(sigmas.steps()));
        for (int i = options.firstStep(); i < sigmas.steps(); i++) {
            double sigma = sigmas.at(i);
            var call = builder.scaledCall(timestep(sigmas, i), sigma);
            Combination derivative = X.minus(call.limited(prediction.denoisedAt(sigma))).over(sigma);
            call.next(X.plus(derivative.times(sigmas.at(i + 1) - sigma)));
        }
        return builder.build();
    }

    private double timestep(Sigmas sigmas, int i) {
        boolean continuous = timestepType == TimestepType.CONTINUOUS && prediction == Prediction.V_PREDICTION;
        return continuous ? Math.log(sigmas.at(i)) / 4 : sigmas.timesteps()[i];
    }

    private Sigmas sigmas(int n) {
        float[] table = schedule.sigmas();
        double[] steps = spacing.steps(schedule.steps(), n, stepsOffset);
        double end = last == Sigmas.Final.ZERO ? 0 : table[0];
        if (interpolation == Interpolation.LINEAR) {
            return Sigmas.interpolated(config, table, steps, end, false);
        }
        double largest = table[table.length - 1];
        if (SigmaSpacing.of(config) != SigmaSpacing.STEPS) {
            return Sigmas.byFormula(config, table, largest, table[0], n, end, false);
        }
        return new Sigmas(steps, Sigmas.withLast(SigmaSpacing.EXPONENTIAL.between(largest, table[0], n + 1), 0));
    }
}
