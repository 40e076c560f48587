package io.gatun.diffusion;

import java.util.Locale;

/// Which ratios of noise to signal a loop visits, where a formula sets them instead of the training steps.
enum SigmaSpacing {
    /// By [Spacing] of the training steps.
    STEPS,
    /// Evenly in the 7th root. Karras et al. 2022, arXiv 2206.00364.
    KARRAS,
    /// Evenly in the logarithm.
    EXPONENTIAL,
    /// By the quantiles of a beta distribution. Lee et al. 2024, arXiv 2407.12173.
    BETA;

    private static final double RHO = 7;
    private static final double BETA_SHAPE = 0.6;

    /// What a configuration asks for, of which only one may be set.
    static SigmaSpacing of(SchedulerConfig config) {
        SigmaSpacing spacing = STEPS;
        for (SigmaSpacing each : new SigmaSpacing[] {KARRAS, EXPONENTIAL, BETA}) {
            String field = "use_" + each.name().toLowerCase(Locale.ROOT) + "_sigmas";
            if (config.flag(field, false)) {
                if (spacing != STEPS) {
                    throw config.wrong(field, "at most one of use_karras_sigmas, use_exponential_sigmas and"
                            + " use_beta_sigmas to be true");
                }
                spacing = each;
            }
        }
        return spacing;
    }

    /// n values from `largest` down to `smallest`. Not for STEPS.
    double[] between(double largest, double smallest, int n) {
        double[] sigmas = new double[n];
        for (int i = 0; i < n; i++) {
            double ramp = ramp(i, n);
            sigmas[i] = switch (this) {
                case STEPS -> throw new IllegalStateException("the training steps set these sigmas");
                case KARRAS -> karras(largest, smallest, ramp, RHO);
                case EXPONENTIAL -> Math.exp(Math.log(largest) + ramp * (Math.log(smallest) - Math.log(largest)));
                case BETA -> smallest + BetaDistribution.quantile(1 - ramp, BETA_SHAPE, BETA_SHAPE)
                        * (largest - smallest);
            };
        }
        return sigmas;
    }

    /// As KARRAS, but evenly in another root.
    static double[] karras(double largest, double smallest, int n, double rho) {
        double[] sigmas = new double[n];
        for (int i = 0; i < n; i++) {
            sigmas[i] = karras(largest, smallest, ramp(i, n), rho);
        }
        return sigmas;
    }

    private static double karras(double largest, double smallest, double ramp, double rho) {
        double from = Math.pow(largest, 1 / rho);
        double to = Math.pow(smallest, 1 / rho);
        return Math.pow(from + ramp * (to - from), rho);
    }

    private static double ramp(int i, int n) {
        return n == 1 ? 0 : (double) i / (n - 1);
    }
}
