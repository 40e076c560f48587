package io.gatun.diffusion;

import org.jspecify.annotations.Nullable;

/// The time steps of a loop and their ratios of noise to signal, for the samplers that are written in these.
///
/// @param timesteps [n] what the model is told
/// @param sigmas    [n + 1] f32 values, from the noisiest on; the last is where the loop ends
record Sigmas(double[] timesteps, double[] sigmas) {
    private static final double SMALLEST_SIGMA = 1e-10;

    /// `final_sigmas_type`.
    enum Final { ZERO, SIGMA_MIN }

    int steps() {
        return timesteps.length;
    }

    double at(int i) {
        return sigmas[i];
    }

    double largest() {
        double largest = 0;
        for (double sigma : sigmas) {
            largest = Math.max(largest, sigma);
        }
        return largest;
    }

    /// The deviation of the noise that a loop begins with, where x = x0 + sigma noise: the first sigma, or, where the
    /// first step is not the noisiest one, that of x0 and noise together.
    double initialDeviation(Spacing spacing) {
        double sigma = largest();
        return spacing == Spacing.LEADING ? Math.sqrt(sigma * sigma + 1) : sigma;
    }

    /// Of training steps that need not be whole, or of a formula between the first and the last of their sigmas.
    ///
    /// @param table  the sigma of each training step
    /// @param last   where the loop ends
    /// @param rounds whether the time steps of a formula are rounded
    static Sigmas interpolated(SchedulerConfig config, float[] table, double[] steps, double last, boolean rounds) {
        if (SigmaSpacing.of(config) == SigmaSpacing.STEPS) {
            return ofSteps(table, steps, last);
        }
        int n = steps.length;
        return byFormula(config, table, interpolate(table, steps[0]), interpolate(table, steps[n - 1]), n, last,
                rounds);
    }

    /// Of training steps that need not be whole.
    static Sigmas ofSteps(float[] table, double[] steps, double last) {
        double[] sigmas = new double[steps.length];
        for (int i = 0; i < sigmas.length; i++) {
            sigmas[i] = interpolate(table, steps[i]);
        }
        return new Sigmas(steps, withLast(sigmas, last));
    }

    /// By a formula from `largest` to `smallest`, which a configuration may overrule.
    static Sigmas byFormula(SchedulerConfig config, float[] table, double largest, double smallest, int n, double last,
            boolean rounds) {
        double[] sigmas = SigmaSpacing.of(config).between(or(config.optionalNumber("sigma_max"), largest),
                or(config.optionalNumber("sigma_min"), smallest), n);
        double[] timesteps = timesteps(table, sigmas);
        return new Sigmas(rounds ? round(timesteps) : timesteps, withLast(sigmas, last));
    }

    static double or(@Nullable Double value, double otherwise) {
        return value == null ? otherwise : value;
    }

    /// As f32, with one more.
    static double[] withLast(double[] sigmas, double last) {
        double[] all = new double[sigmas.length + 1];
        for (int i = 0; i < sigmas.length; i++) {
            all[i] = (float) sigmas[i];
        }
        all[sigmas.length] = (float) last;
        return all;
    }

    static double[] round(double[] timesteps) {
        double[] rounded = new double[timesteps.length];
        for (int i = 0; i < rounded.length; i++) {
            rounded[i] = Math.rint(timesteps[i]);
        }
        return rounded;
    }

    /// The table at a place between its indices.
    static double interpolate(float[] table, double at) {
        int below = (int) Math.min(Math.max(at, 0), table.length - 1);
        if (below == table.length - 1) {
            return table[below];
        }
        double slope = (double) table[below + 1] - table[below];
        return slope * (Math.max(at, 0) - below) + table[below];
    }

    static double[] timesteps(float[] table, double[] sigmas) {
        double[] timesteps = new double[sigmas.length];
        for (int i = 0; i < sigmas.length; i++) {
            timesteps[i] = timestep(table, sigmas[i]);
        }
        return timesteps;
    }

    /// Where between the training steps a sigma lies, by logarithms.
    static double timestep(float[] table, double sigma) {
        float[] logs = new float[table.length];
        for (int t = 0; t < logs.length; t++) {
            logs[t] = (float) Math.log(table[t]);
        }
        double log = Math.log(Math.max(sigma, SMALLEST_SIGMA));
        int low = 0;
        for (int t = 0; t < logs.length - 1; t++) {
            low = log >= logs[t] ? t : low;
        }
        double weight = (logs[low] - log) / (logs[low] - logs[low + 1]);
        weight = Math.min(Math.max(weight, 0), 1);
        return (1 - weight) * low + weight * (low + 1);
    }
}
