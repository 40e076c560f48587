package io.gatun.diffusion;

import io.gatun.runtime.GatunException;

/// The time steps and sigmas of the multistep solvers, and what a sigma means there: `x = alpha x0 + sigma' n` with
/// `alpha = 1 / sqrt(sigma^2 + 1)` and `sigma' = alpha sigma`; of a flow `alpha = 1 - sigma`, `sigma' = sigma`.
final class SolverSigmas {
    /// A flow's largest sigma: at 1 there is no signal, and its logarithm is infinite.
    private static final double NEARLY_ONE = 1 - 1e-6;

    private final SchedulerConfig config;
    private final NoiseSchedule schedule;
    private final Spacing spacing;
    private final SigmaSpacing formula;
    private final boolean isFlow;
    private final double flowShift;
    private final int stepsOffset;

    /// What one sigma stands for.
    ///
    /// @param lambda log(alpha / sigma), half the logarithm of the ratio of signal to noise
    record Level(double alpha, double sigma, double lambda) {}

    SolverSigmas(SchedulerConfig config, NoiseSchedule schedule) {
        this.config = config;
        this.schedule = schedule;
        spacing = config.choice("timestep_spacing", Spacing.LINSPACE);
        formula = SigmaSpacing.of(config);
        isFlow = config.flag("use_flow_sigmas", false);
        flowShift = config.positive("flow_shift", 1);
        stepsOffset = config.integer("steps_offset", 0, schedule.steps(), 0);
        if (isFlow && formula != SigmaSpacing.STEPS) {
            throw config.wrong("use_flow_sigmas", "false beside another formula for the sigmas");
        }
    }

    boolean isFlow() {
        return isFlow;
    }

    Level level(double sigma) {
        double alpha = isFlow ? 1 - sigma : 1 / Math.sqrt(sigma * sigma + 1);
        double deviation = isFlow ? sigma : sigma * alpha;
        return new Level(alpha, deviation, Math.log(alpha) - Math.log(deviation));
    }

    Trajectory.Call call(Trajectory.Builder builder, Sigmas sigmas, int i) {
        double timestep = sigmas.timesteps()[i];
        Level level = level(sigmas.at(i));
        return isFlow ? builder.flowCall(timestep, sigmas.at(i)) : builder.call(timestep, level.alpha, level.sigma);
    }

    /// The sigma of the first training step, where a loop may end.
    double trainedMinimum() {
        return schedule.sigmas()[0];
    }

    /// @param lastOfFormula where the loop ends if a formula or a flow makes the sigmas; NaN: at the last of them
    /// @param lastOfSteps   where it ends otherwise
    /// @param rounds        whether the time steps of Karras' formula are rounded
    Sigmas of(SamplingOptions options, double lastOfFormula, double lastOfSteps, boolean rounds) {
        float[] table = schedule.sigmas();
        int n = options.steps();
        if (formula != SigmaSpacing.STEPS) {
            boolean round = rounds && formula == SigmaSpacing.KARRAS;
            Sigmas made = Sigmas.byFormula(config, table, table[table.length - 1], table[0], n, 0, round);
            double[] sigmas = made.sigmas();
            sigmas[n] = Double.isNaN(lastOfFormula) ? sigmas[n - 1] : lastOfFormula;
            return new Sigmas(truncated(made.timesteps()), sigmas);
        }
        int[] steps = spacing.solverSteps(schedule.steps(), visited(), n, stepsOffset);
        double[] timesteps = new double[n];
        for (int i = 0; i < n; i++) {
            timesteps[i] = steps[i];
        }
        return Sigmas.ofSteps(table, timesteps, lastOfSteps);
    }

    /// The sigmas of a flow: `s u / (1 + (s - 1) u)` of an even u, s the shift.
    ///
    /// @param last where the loop ends; NaN: at the smallest sigma
    Sigmas ofFlow(SamplingOptions options, double[] even, double last) {
        double s = options.shift().isPresent() ? Math.exp(options.shift().getAsDouble()) : flowShift;
        if (config.flag("use_dynamic_shifting", false) && options.shift().isEmpty()) {
            throw GatunException.invalid("use_dynamic_shifting: expected a shift (mu), which depends on the image's"
                    + " size");
        }
        double[] sigmas = new double[even.length];
        double[] timesteps = new double[even.length];
        for (int i = 0; i < sigmas.length; i++) {
            sigmas[i] = Math.min(s * even[i] / (1 + (s - 1) * even[i]), NEARLY_ONE);
            timesteps[i] = sigmas[i] * schedule.steps();
        }
        double[] all = Sigmas.withLast(sigmas, Double.isNaN(last) ? sigmas[sigmas.length - 1] : last);
        return new Sigmas(truncated(timesteps), all);
    }

    /// n values from 1 - 1 / T down, 0 left out: what DPM-Solver and DEIS spread a flow over.
    double[] evenFlow(int n) {
        double[] even = new double[n];
        double end = 1.0 / schedule.steps();
        for (int i = 0; i < n; i++) {
            even[i] = 1 - (1 + (n - i) * ((end - 1) / n));
        }
        return even;
    }

    /// Training steps that are not too noisy: `lambda_min_clipped`.
    private int visited() {
        double smallest = config.numberOrInfinity("lambda_min_clipped", Double.NEGATIVE_INFINITY);
        int visited = schedule.steps();
        while (visited > 1 && lambda(visited - 1) < smallest) {
            visited--;
        }
        return visited;
    }

    private double lambda(int t) {
        float a = schedule.alphasCumprod()[t];
        return (float) Math.log((float) Math.sqrt(a)) - (float) Math.log((float) Math.sqrt(1 - a));
    }

    private static double[] truncated(double[] timesteps) {
        double[] whole = new double[timesteps.length];
        for (int i = 0; i < whole.length; i++) {
            whole[i] = (long) timesteps[i];
        }
        return whole;
    }
}
