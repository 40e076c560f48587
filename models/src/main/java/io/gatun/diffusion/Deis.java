package io.gatun.diffusion;

import static io.gatun.diffusion.Combination.X;

import io.gatun.diffusion.SolverSigmas.Level;

/// `DEISMultistepScheduler`: the noise interpolated by a polynomial in the logarithm of rho = sigma / alpha, integrated
/// exactly. Zhang and Chen 2022, arXiv 2204.13902.
final class Deis implements Sampler {
    private final SolverSigmas solverSigmas;
    private final Prediction prediction;
    private final Limit limit;
    private final SolverOrder order;

    Deis(SchedulerConfig config) {
        solverSigmas = new SolverSigmas(config, NoiseSchedule.of(config, 1e-4, 0.02, NoiseSchedule.Kind.LINEAR));
        prediction = config.choice("prediction_type", Prediction.EPSILON);
        limit = Limit.threshold(config);
        order = SolverOrder.of(config);
        config.choice("solver_type", SolverType.LOGRHO);
    }

    @Override
    public Trajectory trajectory(SamplingOptions options) {
        Sigmas sigmas = solverSigmas.isFlow()
                ? solverSigmas.ofFlow(options, solverSigmas.evenFlow(options.steps()), Double.NaN)
                : solverSigmas.of(options, Double.NaN, solverSigmas.trainedMinimum(), true);
        var builder = new Trajectory.Builder(limit).endsAt(sigmas.at(sigmas.steps()));
        var history = order.history();
        int n = sigmas.steps();
        int first = options.firstStep();
        for (int i = first; i < n; i++) {
            Level level = solverSigmas.level(sigmas.at(i));
            var call = solverSigmas.call(builder, sigmas, i);
            Combination denoised = call.limited(prediction.denoised(level.alpha(), level.sigma()));
            Combination noise = limit.isNone() ? prediction.noise(level.alpha(), level.sigma())
                    : X.minus(denoised.times(level.alpha())).over(level.sigma());
            call.next(step(sigmas, i, order.at(i - first, i, n, false), noise, history));
            if (order.most() > 1 && i + 1 < n) {
                call.keep(history.slot(i), noise);
            }
        }
        return builder.build();
    }

    private Combination step(Sigmas sigmas, int i, int stepOrder, Combination noise, History history) {
        Level s = solverSigmas.level(sigmas.at(i));
        Level t = solverSigmas.level(sigmas.at(i + 1));
        Combination next = X.times(t.alpha() / s.alpha());
        if (stepOrder == 1) {
            return next.plus(noise.times(t.alpha() * s.sigma() / s.alpha() - t.sigma()).times(-1));
        }
        double[] logs = new double[stepOrder];
        for (int k = 0; k < stepOrder; k++) {
            Level past = solverSigmas.level(sigmas.at(i - k));
            logs[k] = Math.log(past.sigma() / past.alpha());
        }
        double from = s.sigma() / s.alpha();
        double to = t.sigma() / t.alpha();
        for (int k = 0; k < stepOrder; k++) {
            double weight = integral(to, logs, k) - integral(from, logs, k);
            next = next.plus((k == 0 ? noise : history.before(i, k)).times(t.alpha() * weight));
        }
        return next;
    }

    /// The integral from 0 to rho of the Lagrange polynomial in log(rho) that is 1 at node k and 0 at the others.
    private static double integral(double rho, double[] logs, int k) {
        double l = Math.log(rho);
        double denominator = 1;
        double sum = 0;
        double product = 1;
        for (int j = 0; j < logs.length; j++) {
            if (j != k) {
                denominator *= logs[k] - logs[j];
                sum += logs[j];
                product *= logs[j];
            }
        }
        // of log(rho) - c it is rho (l - 1 - c), of (log(rho) - c) (log(rho) - d)
        // rho (l^2 - 2 l + 2 - (l - 1) (c + d) + c d)
        return logs.length == 2 ? rho * (l - 1 - sum) / denominator
                : rho * (l * l - 2 * l + 2 - (l - 1) * sum + product) / denominator;
    }
}
