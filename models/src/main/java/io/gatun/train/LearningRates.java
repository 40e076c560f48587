package io.gatun.train;

import io.gatun.runtime.GatunException;

/// The learning rate of every step, as a table for the device: the schedules of transformers' `optimization.py`, where
/// step k (from 0) of N after W warm-up steps has
///
///     warm-up, k < W     lr k / W
///     constant           lr
///     linear             lr (N - k) / (N - W)
///     cosine             min_lr + (lr - min_lr) (1 + cos(pi (k - W) / (N - W))) / 2
///
/// The first step of a warm-up has a rate of 0, as there. `cosine` with a `min_lr` is transformers' cosine_with_min_lr.
public final class LearningRates {
    /// What comes after the warm-up.
    public enum Schedule {
        CONSTANT, LINEAR, COSINE
    }

    private LearningRates() {}

    /// @param steps N
    /// @param warmupSteps W, which may be more than N
    /// @param minRate of a cosine; 0 for the others
    /// @return [N]
    public static float[] table(Schedule schedule, double rate, int warmupSteps, double minRate, int steps) {
        if (steps < 1 || warmupSteps < 0) {
            throw GatunException.invalid("a schedule of %d steps with %d of warm-up, expected 1 or more and 0 or more",
                    steps, warmupSteps);
        }
        if (!(minRate >= 0 && minRate <= rate) || minRate != 0 && schedule != Schedule.COSINE) {
            throw GatunException.invalid("a schedule %s from %s to %s, expected a lowest rate from 0 to the first,"
                    + " and 0"
                    + " unless it is COSINE", schedule, rate, minRate);
        }
        float[] table = new float[steps];
        for (int k = 0; k < steps; k++) {
            table[k] = (float) (k < warmupSteps ? rate * k / warmupSteps
                    : at(schedule, rate, minRate, k - warmupSteps, Math.max(1, steps - warmupSteps)));
        }
        return table;
    }

    /// @param k step after the warm-up
    /// @param n how many there are
    private static double at(Schedule schedule, double rate, double minRate, int k, int n) {
        return switch (schedule) {
            case CONSTANT -> rate;
            case LINEAR -> rate * (n - k) / n;
            case COSINE -> minRate + (rate - minRate) * (1 + Math.cos(Math.PI * k / n)) / 2;
        };
    }
}
