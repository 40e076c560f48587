package io.gatun.diffusion;

import static io.gatun.diffusion.Combination.NOISE;
import static io.gatun.diffusion.Combination.X;

import io.gatun.diffusion.SolverSigmas.Level;
import io.gatun.runtime.GatunException;

/// `DPMSolverMultistepScheduler`: DPM-Solver and DPM-Solver++ of order 1 to 3, and their stochastic forms, from the
/// model outputs of the last steps. Lu et al. 2022, arXiv 2206.00927 and 2211.01095.
final class DpmSolverMultistep implements Sampler {
    /// `algorithm_type`: the solver works on the noise or (++) on the denoised sample, and may add noise (SDE).
    private enum Algorithm {
        DPMSOLVER("dpmsolver"), DPMSOLVER_PLUS("dpmsolver++"), SDE_DPMSOLVER("sde-dpmsolver"),
        SDE_DPMSOLVER_PLUS("sde-dpmsolver++"), DEIS("deis");

        private final String spelling;

        Algorithm(String spelling) {
            this.spelling = spelling;
        }

        boolean solvesNoise() {
            return this == DPMSOLVER || this == SDE_DPMSOLVER;
        }

        boolean isStochastic() {
            return this == SDE_DPMSOLVER || this == SDE_DPMSOLVER_PLUS;
        }

        @Override
        public String toString() {
            return spelling;
        }
    }

    private final SolverSigmas solverSigmas;
    private final Prediction prediction;
    private final Limit limit;
    private final Algorithm algorithm;
    private final SolverType solverType;
    private final Sigmas.Final last;
    private final SolverOrder order;
    private final boolean eulerAtFinal;
    private final boolean roundsKarras;

    DpmSolverMultistep(SchedulerConfig config) {
        var kind = config.choice("beta_schedule", NoiseSchedule.Kind.LINEAR);
        NoiseSchedule schedule = NoiseSchedule.of(config, 1e-4, 0.02, NoiseSchedule.Kind.LINEAR)
                .withFiniteSigmas(config);
        solverSigmas = new SolverSigmas(config, schedule);
        prediction = config.choice("prediction_type", Prediction.EPSILON);
        limit = Limit.threshold(config);
        algorithm = config.choice("algorithm_type", Algorithm.DPMSOLVER_PLUS);
        solverType = config.choice("solver_type", SolverType.MIDPOINT);
        last = config.choice("final_sigmas_type", Sigmas.Final.ZERO);
        order = SolverOrder.of(config);
        eulerAtFinal = config.flag("euler_at_final", false);
        roundsKarras = kind != NoiseSchedule.Kind.SQUAREDCOS_CAP_V2;
        if (config.flag("use_lu_lambdas", false)) {
            throw config.wrong("use_lu_lambdas", "false: this spacing is not supported");
        }
        if (algorithm.solvesNoise() && last == Sigmas.Final.ZERO) {
            throw GatunException.invalid("algorithm_type %s with final_sigmas_type zero: expected sigma_min, the noise"
                    + " has no limit at 0", algorithm);
        }
        if (algorithm == Algorithm.SDE_DPMSOLVER && order.most() == 3) {
            throw GatunException.invalid("algorithm_type sde-dpmsolver has no order 3, expected solver_order 1 or 2");
        }
    }

    @Override
    public Trajectory trajectory(SamplingOptions options) {
        double end = last == Sigmas.Final.ZERO ? 0 : solverSigmas.trainedMinimum();
        Sigmas sigmas = solverSigmas.isFlow()
                ? solverSigmas.ofFlow(options, solverSigmas.evenFlow(options.steps()), end)
                : solverSigmas.of(options, end, end, roundsKarras);
        var builder = new Trajectory.Builder(limit).endsAt(sigmas.at(sigmas.steps()));
        var history = order.history();
        int n = sigmas.steps();
        int first = options.firstStep();
        for (int i = first; i < n; i++) {
            Level level = solverSigmas.level(sigmas.at(i));
            var call = solverSigmas.call(builder, sigmas, i);
            Combination m0 = converted(call, level);
            int now = order.at(i - first, i, n, eulerAtFinal || last == Sigmas.Final.ZERO);
            call.next(step(sigmas, i, now, m0, history));
            if (order.most() > 1 && i + 1 < n) {
                call.keep(history.slot(i), m0);
            }
        }
        return builder.build();
    }

    /// What the solver works on: the denoised sample or the noise.
    private Combination converted(Trajectory.Call call, Level level) {
        Combination denoised = call.limited(prediction.denoised(level.alpha(), level.sigma()));
        if (!algorithm.solvesNoise()) {
            return denoised;
        }
        return limit.isNone() ? prediction.noise(level.alpha(), level.sigma())
                : X.minus(denoised.times(level.alpha())).over(level.sigma());
    }

    private Combination step(Sigmas sigmas, int i, int stepOrder, Combination m0, History history) {
        Level s = solverSigmas.level(sigmas.at(i));
        Level t = solverSigmas.level(sigmas.at(i + 1));
        double h = t.lambda() - s.lambda();
        Weights w = weights(s, t, h);
        Combination next = X.times(w.x).plus(m0.times(w.first)).plus(NOISE.times(w.noise));
        if (stepOrder == 1) {
            return next;
        }
        Combination m1 = history.before(i, 1);
        double r0 = (s.lambda() - solverSigmas.level(sigmas.at(i - 1)).lambda()) / h;
        Combination slope = m0.minus(m1).over(r0);
        if (stepOrder == 2) {
            return next.plus(slope.times(solverType == SolverType.HEUN ? w.second : w.first / 2));
        }
        Combination m2 = history.before(i, 2);
        double r1 = (solverSigmas.level(sigmas.at(i - 1)).lambda() - solverSigmas.level(sigmas.at(i - 2)).lambda()) / h;
        Combination change = slope.minus(m1.minus(m2).over(r1));
        return next.plus(slope.plus(change.times(r0 / (r0 + r1))).times(w.second))
                .plus(change.over(r0 + r1).times(w.third));
    }

    /// What x, m0, its slope, its curvature and noise contribute.
    private record Weights(double x, double first, double second, double third, double noise) {}

    private Weights weights(Level s, Level t, double h) {
        double decay = Math.expm1(-h);
        double decay2 = Math.expm1(-2 * h);
        double growth = Math.expm1(h);
        return switch (algorithm) {
            case DPMSOLVER_PLUS, DEIS -> new Weights(t.sigma() / s.sigma(), -t.alpha() * decay,
                    t.alpha() * (decay / h + 1), -t.alpha() * ((decay + h) / (h * h) - 0.5), 0);
            case DPMSOLVER -> new Weights(t.alpha() / s.alpha(), -t.sigma() * growth,
                    -t.sigma() * (growth / h - 1), -t.sigma() * ((growth - h) / (h * h) - 0.5), 0);
            case SDE_DPMSOLVER_PLUS -> new Weights(t.sigma() / s.sigma() * Math.exp(-h), -t.alpha() * decay2,
                    t.alpha() * (decay2 / (2 * h) + 1), t.alpha() * ((-decay2 - 2 * h) / (4 * h * h) - 0.5),
                    t.sigma() * Math.sqrt(-decay2));
            case SDE_DPMSOLVER -> new Weights(t.alpha() / s.alpha(), -2 * t.sigma() * growth,
                    -2 * t.sigma() * (growth / h - 1), 0, t.sigma() * Math.sqrt(Math.expm1(2 * h)));
        };
    }
}
