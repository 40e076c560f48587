package io.gatun.diffusion;

/// Which of the T training steps a loop of n visits, from the noisiest on: `timestep_spacing`, table 2 of Lin et al.
/// 2023 (arXiv 2305.08891). Halves are rounded to even, as NumPy does.
enum Spacing {
    /// 0 and T - 1 and evenly between.
    LINSPACE,
    /// Multiples of T / n, rounded down, plus `steps_offset`.
    LEADING,
    /// From T - 1 downwards in steps of T / n.
    TRAILING;

    /// Whole training steps, for samplers that look them up in a table.
    int[] wholeSteps(int total, int n, int offset) {
        int[] steps = new int[n];
        for (int i = 0; i < n; i++) {
            steps[i] = (int) Math.rint(step(total, n, offset, i));
        }
        return steps;
    }

    /// Training steps for samplers that interpolate between them: LINSPACE is not rounded, but to f32.
    double[] steps(int total, int n, int offset) {
        double[] steps = new double[n];
        for (int i = 0; i < n; i++) {
            steps[i] = (float) step(total, n, offset, i);
        }
        return steps;
    }

    private double step(int total, int n, int offset, int i) {
        return switch (this) {
            case LINSPACE -> n == 1 ? 0 : (n - 1 - i) * ((double) (total - 1) / (n - 1));
            case LEADING -> (double) (n - 1 - i) * (total / n) + offset;
            case TRAILING -> trailing(total, total, n, i);
        };
    }

    /// Whole training steps for multistep solvers, which leave out the last of n + 1.
    ///
    /// @param last the number of training steps to be visited at most, T unless the noisiest are cut off
    int[] solverSteps(int total, int last, int n, int offset) {
        int[] steps = new int[n];
        for (int i = 0; i < n; i++) {
            steps[i] = switch (this) {
                case LINSPACE -> (int) Math.rint((n - i) * ((double) (last - 1) / n));
                case LEADING -> (n - i) * (last / (n + 1)) + offset;
                case TRAILING -> (int) trailing(total, last, n, i);
            };
        }
        return steps;
    }

    private static double trailing(int total, int last, int n, int i) {
        double ratio = (double) total / n;
        double step = (last - ratio) - last; // as NumPy's arange
        return Math.rint(last + i * step) - 1;
    }
}
