package io.gatun.diffusion;

import static io.gatun.diffusion.Combination.X;

/// `LMSDiscreteScheduler`: the last four slopes interpolated by a polynomial in sigma, integrated exactly:
/// Adams-Bashforth with uneven steps, after k-diffusion's `sample_lms` (Crowson 2022).
final class Lms implements Sampler {
    private static final int ORDER = 4;
    /// Gauss-Legendre nodes and weights on [-1, 1]: exact for the polynomials of degree 3 here.
    private static final double[] NODES = {-Math.sqrt(1.0 / 3), Math.sqrt(1.0 / 3)};

    private final SchedulerConfig config;
    private final NoiseSchedule schedule;
    private final Prediction prediction;
    private final Spacing spacing;
    private final int stepsOffset;

    Lms(SchedulerConfig config) {
        this.config = config;
        schedule = NoiseSchedule.of(config, 1e-4, 0.02, NoiseSchedule.Kind.LINEAR);
        prediction = config.choice("prediction_type", Prediction.EPSILON, Prediction.OF_NOISE);
        spacing = config.choice("timestep_spacing", Spacing.LINSPACE);
        stepsOffset = config.integer("steps_offset", 0, schedule.steps(), 0);
        SigmaSpacing.of(config);
    }

    @Override
    public Trajectory trajectory(SamplingOptions options) {
        options.requireAtMost(schedule.steps());
        Sigmas sigmas = Sigmas.interpolated(config, schedule.sigmas(),
                spacing.steps(schedule.steps(), options.steps(), stepsOffset), 0, false);
        var builder = new Trajectory.Builder(Limit.NONE).initialDeviation(sigmas.initialDeviation(spacing));
        var slopes = new History(0, ORDER - 1);
        int first = options.firstStep();
        for (int i = first; i < sigmas.steps(); i++) {
            double sigma = sigmas.at(i);
            var call = builder.scaledCall(sigmas.timesteps()[i], sigma);
            Combination slope = X.minus(call.limited(prediction.denoisedAt(sigma))).over(sigma);
            int order = Math.min(i - first + 1, ORDER);
            Combination next = X.plus(slope.times(weight(sigmas, i, order, 0)));
            for (int k = 1; k < order; k++) {
                next = next.plus(slopes.before(i, k).times(weight(sigmas, i, order, k)));
            }
            call.next(next);
            if (i + 1 < sigmas.steps()) {
                call.keep(slopes.slot(i), slope);
            }
        }
        return builder.build();
    }

    /// The integral over step i of the Lagrange polynomial that is 1 at the sigma k steps back.
    private static double weight(Sigmas sigmas, int i, int order, int k) {
        double half = (sigmas.at(i + 1) - sigmas.at(i)) / 2;
        double middle = (sigmas.at(i + 1) + sigmas.at(i)) / 2;
        double sum = 0;
        for (double node : NODES) {
            double product = 1;
            for (int j = 0; j < order; j++) {
                if (j != k) {
                    product *= (middle + node * half - sigmas.at(i - j)) / (sigmas.at(i - k) - sigmas.at(i - j));
                }
            }
            sum += product;
        }
        return sum * half;
    }
}
