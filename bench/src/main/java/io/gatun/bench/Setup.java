package io.gatun.bench;

import io.gatun.runtime.Device;
import java.util.function.IntConsumer;
import org.jspecify.annotations.Nullable;

/// On what a benchmark measures, how thoroughly, and against whom.
///
/// @param device  what [Device#open] takes
/// @param threads CPU threads
/// @param effort  how much is measured
/// @param time    for all of it
/// @param peer    PyTorch in a process of its own, which takes turns with us; null: nobody
record Setup(String device, int threads, Effort effort, TimeLimit time, @Nullable TorchPeer peer) {
    private static final int REPEATS = 50;
    private static final int TRIAL_REPEATS = 2;
    /// Of one case with its peers, whose repeats end then, but not before there are some.
    private static final double CASE_SECONDS = 5;
    private static final int LEAST_REPEATS = 5;

    enum Effort {
        FULL,
        /// Sizes and repeats so small that it shows only whether everything works.
        TRIAL
    }

    boolean isCpu() {
        return device.equals("cpu");
    }

    boolean isTrial() {
        return effort == Effort.TRIAL;
    }

    /// Repeats it until that was often enough, or has taken long enough.
    ///
    /// @param repeat is told how many there were before
    void repeat(IntConsumer repeat) {
        TimeLimit limit = new TimeLimit(CASE_SECONDS);
        int wanted = isTrial() ? TRIAL_REPEATS : REPEATS;
        for (int i = 0; i < wanted && (i < LEAST_REPEATS || !limit.isOver()); i++) {
            repeat.accept(i);
        }
    }

    Device open() {
        return Device.open(device, new Device.Options(threads));
    }
}
