package io.gatun.ops.cases;

/// The error function in double, which the JDK lacks. Absolute error about 1e-16.
final class Erf {
    private static final double SERIES_BELOW = 3;
    private static final int CONTINUED_FRACTION_TERMS = 80;

    private Erf() {}

    static double erf(double x) {
        double a = Math.abs(x);
        return Double.isNaN(x) ? x : Math.copySign(a < SERIES_BELOW ? series(a) : 1 - complement(a), x);
    }

    /// `2/sqrt(pi) exp(-x^2) sum(2^n x^(2n+1) / (2n+1)!!)`: all terms are positive, so nothing cancels.
    private static double series(double x) {
        double term = x;
        double sum = x;
        for (int n = 1; term > sum * 1e-18; n++) {
            term *= 2 * x * x / (2 * n + 1);
            sum += term;
        }
        return 2 / Math.sqrt(Math.PI) * Math.exp(-x * x) * sum;
    }

    /// Laplace's continued fraction of erfc, from its tail.
    private static double complement(double x) {
        double tail = 0;
        for (int k = CONTINUED_FRACTION_TERMS; k > 0; k--) {
            tail = k / 2.0 / (x + tail);
        }
        return Double.isInfinite(x) ? 0 : Math.exp(-x * x) / Math.sqrt(Math.PI) / (x + tail);
    }
}
