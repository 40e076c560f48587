package io.gatun.diffusion;

import static io.gatun.diffusion.Combination.X;

import io.gatun.diffusion.SolverSigmas.Level;
import java.util.List;

/// `UniPCMultistepScheduler`: a predictor, and a corrector that revises the sample with the output that was computed
/// from it. Zhao et al. 2023, arXiv 2302.04867.
final class UniPc implements Sampler {
    /// Slot of the last corrected sample; the history of outputs follows.
    private static final int LAST_SAMPLE = 0;

    private final SolverSigmas solverSigmas;
    private final Prediction prediction;
    private final Limit limit;
    private final SolverType solverType;
    private final Sigmas.Final last;
    private final List<Integer> uncorrected;
    private final int trainSteps;
    private final int order;
    private final boolean solvesDenoised;
    private final boolean lowerOrderFinal;

    UniPc(SchedulerConfig config) {
        NoiseSchedule schedule = NoiseSchedule.of(config, 1e-4, 0.02, NoiseSchedule.Kind.LINEAR)
                .withFiniteSigmas(config);
        trainSteps = schedule.steps();
        solverSigmas = new SolverSigmas(config, schedule);
        prediction = config.choice("prediction_type", Prediction.EPSILON);
        limit = Limit.threshold(config);
        solverType = config.choice("solver_type", SolverType.BH2);
        last = config.choice("final_sigmas_type", Sigmas.Final.ZERO);
        uncorrected = config.integers("disable_corrector");
        order = config.integer("solver_order", 1, 4, 2);
        solvesDenoised = config.flag("predict_x0", true);
        lowerOrderFinal = config.flag("lower_order_final", true);
        for (String field : List.of("solver_p", "shift_terminal")) {
            if (config.has(field)) {
                throw config.wrong(field, "null: others are not supported");
            }
        }
    }

    @Override
    public Trajectory trajectory(SamplingOptions options) {
        Sigmas sigmas = sigmas(options);
        var builder = new Trajectory.Builder(limit).endsAt(sigmas.at(sigmas.steps()));
        var history = new History(LAST_SAMPLE + 1, order);
        int n = sigmas.steps();
        int first = options.firstStep();
        int previousOrder = 0;
        for (int i = first; i < n; i++) {
            Level level = solverSigmas.level(sigmas.at(i));
            var call = solverSigmas.call(builder, sigmas, i);
            Combination m = converted(call, level);
            Combination sample = i == first || uncorrected.contains(i - 1) ? X
                    : corrected(sigmas, i, previousOrder, m, history);
            int most = lowerOrderFinal ? Math.min(order, n - i) : order;
            previousOrder = Math.min(most, i - first + 1);
            call.next(predicted(sigmas, i, previousOrder, sample, m, history));
            if (i + 1 < n) {
                call.keep(LAST_SAMPLE, sample);
                call.keep(history.slot(i), m);
            }
        }
        return builder.build();
    }

    private Sigmas sigmas(SamplingOptions options) {
        double end = last == Sigmas.Final.ZERO ? 0 : Double.NaN;
        if (!solverSigmas.isFlow()) {
            return solverSigmas.of(options, end, last == Sigmas.Final.ZERO ? 0 : solverSigmas.trainedMinimum(), true);
        }
        int n = options.steps();
        double[] even = new double[n];
        for (int i = 0; i < n; i++) {
            even[i] = 1 + i * ((1.0 / trainSteps - 1) / n);
        }
        return solverSigmas.ofFlow(options, even, end);
    }

    /// What the solver works on: the denoised sample or the noise.
    private Combination converted(Trajectory.Call call, Level level) {
        return solvesDenoised ? call.limited(prediction.denoised(level.alpha(), level.sigma()))
                : prediction.noise(level.alpha(), level.sigma());
    }

    /// From the sample at step i to the next.
    private Combination predicted(Sigmas sigmas, int i, int stepOrder, Combination sample, Combination m,
            History history) {
        Step step = new Step(sigmas, i, i + 1);
        Combination next = step.first(sample, m);
        if (stepOrder == 1) {
            return next;
        }
        double[] r = step.ratios(stepOrder);
        double[] weights = stepOrder == 2 ? new double[] {0.5}
                : solve(step.powers(r, stepOrder - 1), step.moments(stepOrder - 1));
        for (int k = 1; k < stepOrder; k++) {
            Combination slope = history.before(i, k).minus(m).over(r[k - 1]);
            next = next.plus(slope.times(step.scale * weights[k - 1]));
        }
        return next;
    }

    /// The sample at step i anew, from the last one and the output m that the predicted one gave.
    private Combination corrected(Sigmas sigmas, int i, int stepOrder, Combination m, History history) {
        Step step = new Step(sigmas, i - 1, i);
        Combination m0 = history.before(i, 1);
        Combination sample = step.first(Combination.state(LAST_SAMPLE), m0);
        double[] r = step.ratios(stepOrder);
        double[] weights = stepOrder == 1 ? new double[] {0.5}
                : solve(step.powers(r, stepOrder), step.moments(stepOrder));
        for (int k = 1; k < stepOrder; k++) {
            Combination slope = history.before(i, k + 1).minus(m0).over(r[k - 1]);
            sample = sample.plus(slope.times(step.scale * weights[k - 1]));
        }
        return sample.plus(m.minus(m0).times(step.scale * weights[stepOrder - 1]));
    }

    /// The numbers of a step between two sigmas.
    private final class Step {
        private final Sigmas sigmas;
        private final int from;
        private final Level s;
        private final Level t;
        private final double h;
        private final double hh;
        /// B(h) of the paper.
        private final double b;
        /// What a weighted slope is multiplied by.
        private final double scale;

        Step(Sigmas sigmas, int from, int to) {
            this.sigmas = sigmas;
            this.from = from;
            s = solverSigmas.level(sigmas.at(from));
            t = solverSigmas.level(sigmas.at(to));
            h = t.lambda() - s.lambda();
            hh = solvesDenoised ? -h : h;
            b = solverType == SolverType.BH1 ? hh : Math.expm1(hh);
            scale = -(solvesDenoised ? t.alpha() : t.sigma()) * b;
        }

        /// The step of order 1 from x with the output m.
        Combination first(Combination x, Combination m) {
            return solvesDenoised
                    ? x.times(t.sigma() / s.sigma()).minus(m.times(t.alpha() * Math.expm1(hh)))
                    : x.times(t.alpha() / s.alpha()).minus(m.times(t.alpha() * s.sigma() / s.alpha() - t.sigma()));
        }

        /// Where the earlier outputs lie, in units of h; 1 for the one at the end.
        double[] ratios(int stepOrder) {
            double[] r = new double[stepOrder];
            for (int k = 1; k < stepOrder; k++) {
                r[k - 1] = (solverSigmas.level(sigmas.at(from - k)).lambda() - s.lambda()) / h;
            }
            r[stepOrder - 1] = 1;
            return r;
        }

        double[][] powers(double[] r, int rows) {
            double[][] matrix = new double[rows][rows];
            for (int i = 0; i < rows; i++) {
                for (int k = 0; k < rows; k++) {
                    matrix[i][k] = Math.pow(r[k], i);
                }
            }
            return matrix;
        }

        double[] moments(int rows) {
            double[] moments = new double[rows];
            double phi = Math.expm1(hh) / hh - 1;
            double factorial = 1;
            for (int i = 0; i < rows; i++) {
                moments[i] = phi * factorial / b;
                factorial *= i + 2;
                phi = phi / hh - 1 / factorial;
            }
            return moments;
        }
    }

    /// Gaussian elimination with row exchanges.
    private static double[] solve(double[][] a, double[] b) {
        int n = b.length;
        double[] x = b.clone();
        for (int c = 0; c < n; c++) {
            int pivot = c;
            for (int r = c + 1; r < n; r++) {
                pivot = Math.abs(a[r][c]) > Math.abs(a[pivot][c]) ? r : pivot;
            }
            double[] row = a[pivot];
            a[pivot] = a[c];
            a[c] = row;
            double value = x[pivot];
            x[pivot] = x[c];
            x[c] = value;
            for (int r = 0; r < n; r++) {
                double factor = r == c ? 0 : a[r][c] / a[c][c];
                for (int k = c; k < n && factor != 0; k++) {
                    a[r][k] -= factor * a[c][k];
                }
                x[r] -= factor * x[c];
            }
        }
        for (int c = 0; c < n; c++) {
            x[c] /= a[c][c];
        }
        return x;
    }
}
