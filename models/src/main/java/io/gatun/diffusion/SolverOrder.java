package io.gatun.diffusion;

/// The order of each step of a multistep solver: `solver_order`, but less while there are too few earlier outputs, and
/// with `lower_order_final` at the end of a short loop.
record SolverOrder(int most, boolean endsLow) {
    /// Loops shorter than this end with lower orders.
    private static final int SHORT_LOOP = 15;

    static SolverOrder of(SchedulerConfig config) {
        return new SolverOrder(config.integer("solver_order", 1, 3, 2), config.flag("lower_order_final", true));
    }

    private boolean isShort(int n) {
        return endsLow && n < SHORT_LOOP;
    }

    /// @param done        steps before this one
    /// @param i           this step, of n
    /// @param lastIsFirst whether the last step has order 1 in long loops too
    int at(int done, int i, int n, boolean lastIsFirst) {
        boolean isLow = i == n - 1 && (lastIsFirst || isShort(n));
        int allowed = isLow ? 1 : i == n - 2 && isShort(n) ? 2 : most;
        return Math.min(Math.min(most, allowed), done + 1);
    }

    /// Slots for the earlier outputs.
    History history() {
        return new History(0, Math.max(1, most - 1));
    }
}
