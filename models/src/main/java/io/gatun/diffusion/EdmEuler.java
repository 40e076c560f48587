package io.gatun.diffusion;

import static io.gatun.diffusion.Combination.E;
import static io.gatun.diffusion.Combination.X;

import java.util.EnumSet;
import java.util.Set;

/// `EDMEulerScheduler`: [Euler]'s step for a network F whose input and output are scaled so that both have the
/// deviation 1: with s = sigma_data, `x0 = s^2 / (sigma^2 + s^2) x + sigma s / sqrt(sigma^2 + s^2) F(x / sqrt(sigma^2 +
/// s^2), ln(sigma) / 4)`; with v-prediction the second term is taken away. Karras et al. 2022, arXiv 2206.00364, table
/// 1 and algorithm 2 without churn.
final class EdmEuler implements Sampler {
    private static final double DEFAULT_RHO = 7;
    private static final Set<Prediction> PREDICTIONS = EnumSet.of(Prediction.EPSILON, Prediction.V_PREDICTION);

    /// `sigma_schedule`.
    private enum SigmaSchedule { KARRAS, EXPONENTIAL }

    private final double largest;
    private final double smallest;
    private final double data;
    private final double rho;
    private final double sign;
    private final SigmaSchedule schedule;
    private final Sigmas.Final last;

    EdmEuler(SchedulerConfig config) {
        largest = config.positive("sigma_max", SchedulerConfig.EDM_SIGMA_MAX);
        smallest = config.positive("sigma_min", SchedulerConfig.EDM_SIGMA_MIN);
        if (smallest > largest) {
            throw config.wrong("sigma_min", "at most sigma_max, " + largest);
        }
        data = config.sigmaData();
        rho = config.positive("rho", DEFAULT_RHO);
        sign = config.choice("prediction_type", Prediction.EPSILON, PREDICTIONS) == Prediction.EPSILON ? 1 : -1;
        schedule = config.choice("sigma_schedule", SigmaSchedule.KARRAS);
        last = config.choice("final_sigmas_type", Sigmas.Final.ZERO);
    }

    @Override
    public Trajectory trajectory(SamplingOptions options) {
        int n = options.steps();
        double[] sigmas = switch (schedule) {
            case KARRAS -> SigmaSpacing.karras(largest, smallest, n, rho);
            case EXPONENTIAL -> SigmaSpacing.EXPONENTIAL.between(largest, smallest, n);
        };
        sigmas = Sigmas.withLast(sigmas, last == Sigmas.Final.ZERO ? 0 : sigmas[n - 1]);
        var builder = new Trajectory.Builder(Limit.NONE).initialDeviation(Math.sqrt(largest * largest + 1))
                .endsAt(sigmas[n]);
        for (int i = options.firstStep(); i < n; i++) {
            double sigma = sigmas[i];
            var call = builder.scaledCall(Math.log(sigma) / 4, sigma, data);
            Combination derivative = X.minus(call.limited(denoised(sigma))).over(sigma);
            call.next(X.plus(derivative.times(sigmas[i + 1] - sigma)));
        }
        return builder.build();
    }

    private Combination denoised(double sigma) {
        double square = sigma * sigma + data * data;
        return X.times(data * data / square).plus(E.times(sign * sigma * data / Math.sqrt(square)));
    }
}
