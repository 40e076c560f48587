package io.gatun.bench;

import io.gatun.runtime.Device;
import org.jspecify.annotations.Nullable;

/// On what a benchmark measures, how thoroughly, and against whom.
///
/// @param device  what [Device#open] takes
/// @param threads CPU threads
/// @param effort  how much is measured
/// @param peer    PyTorch in a process of its own, which takes turns with us; null: nobody
record Setup(String device, int threads, Effort effort, @Nullable TorchPeer peer) {
    private static final int REPEATS = 25;
    private static final int TRIAL_REPEATS = 2;

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

    int repeats() {
        return isTrial() ? TRIAL_REPEATS : REPEATS;
    }

    Device open() {
        return Device.open(device, new Device.Options(threads));
    }
}
