package io.gatun.diffusion;

import io.gatun.runtime.GatunException;

/// The sigmas of a flow, from 1 (noise) to 0 (image): even ones, moved towards noise by `shift`. Esser et al. 2024,
/// arXiv 2403.03206.
final class FlowMatchSigmas {
    /// `time_shift_type`.
    private enum TimeShift { EXPONENTIAL, LINEAR }

    private static final int DEFAULT_STEPS = 1000;
    private static final int MAX_STEPS = 1_000_000;

    private final SchedulerConfig config;
    private final int trainSteps;
    private final double shift;
    private final boolean shiftsDynamically;
    private final boolean inverts;
    private final TimeShift timeShift;
    private final SigmaSpacing formula;

    FlowMatchSigmas(SchedulerConfig config) {
        this.config = config;
        trainSteps = config.integer("num_train_timesteps", 1, MAX_STEPS, DEFAULT_STEPS);
        shift = config.positive("shift", 1);
        shiftsDynamically = config.flag("use_dynamic_shifting", false);
        inverts = config.flag("invert_sigmas", false);
        timeShift = config.choice("time_shift_type", TimeShift.EXPONENTIAL);
        formula = SigmaSpacing.of(config);
    }

    /// What one step does: its calls, in their order.
    interface Step {
        void add(Trajectory.Builder builder, Sigmas sigmas, int i);
    }

    /// The loop of a sampler whose steps are these.
    Trajectory trajectory(SamplingOptions options, Step step) {
        Sigmas sigmas = of(options);
        var builder = new Trajectory.Builder(Limit.NONE).endsAt(sigmas.at(sigmas.steps()));
        for (int i = options.firstStep(); i < sigmas.steps(); i++) {
            step.add(builder, sigmas, i);
        }
        return builder.build();
    }

    /// [n] time steps in training steps and [n + 1] sigmas.
    private Sigmas of(SamplingOptions options) {
        int n = options.steps();
        if (shiftsDynamically && options.shift().isEmpty()) {
            throw GatunException.invalid("use_dynamic_shifting: expected a shift (mu), which depends on the image's"
                    + " size");
        }
        double smallest = shiftsDynamically ? 1.0 / trainSteps : shifted(1.0 / trainSteps);
        double[] sigmas = new double[n];
        for (int i = 0; i < n; i++) {
            double even = n == 1 ? 1 : 1 + i * ((smallest - 1) / (n - 1));
            sigmas[i] = shiftsDynamically ? dynamicallyShifted(options.shift().getAsDouble(), even) : shifted(even);
        }
        Double terminal = config.optionalNumber("shift_terminal");
        if (terminal != null && terminal != 0) {
            double factor = (1 - sigmas[n - 1]) / (1 - terminal);
            for (int i = 0; i < n; i++) {
                sigmas[i] = 1 - (1 - sigmas[i]) / factor;
            }
        }
        if (formula != SigmaSpacing.STEPS) {
            sigmas = formula.between(Sigmas.or(config.optionalNumber("sigma_max"), sigmas[0]),
                    Sigmas.or(config.optionalNumber("sigma_min"), sigmas[n - 1]), n);
        }
        double[] timesteps = new double[n];
        for (int i = 0; i < n; i++) {
            sigmas[i] = inverts ? 1 - (float) sigmas[i] : (float) sigmas[i];
            timesteps[i] = (float) sigmas[i] * trainSteps;
        }
        return new Sigmas(timesteps, Sigmas.withLast(sigmas, inverts ? 1 : 0));
    }

    private double shifted(double even) {
        return shift * even / (1 + (shift - 1) * even);
    }

    private double dynamicallyShifted(double mu, double even) {
        double s = timeShift == TimeShift.EXPONENTIAL ? Math.exp(mu) : mu;
        return s / (s + (1 / even - 1));
    }
}
