package io.gatun.bench.gpu;

import java.util.Locale;

/// The parts of the suite, in the order in which they run.
enum Part {
    /// What machine this is.
    FACTS,
    /// Each PTX wrapper by itself, also under compute-sanitizer.
    PTX,
    /// The tests of ops and models that run on any device, the golden cases among them.
    TESTS,
    /// Every op at sizes that fill a GPU, and behind the first 2^31 elements.
    LARGE,
    /// A few of the tests under compute-sanitizer.
    SANITIZER,
    /// Kernels against the device's ceilings and PyTorch.
    KERNELS,
    /// GPT-2 124M, likewise.
    MODELS;

    @Override
    public String toString() {
        return name().toLowerCase(Locale.ROOT);
    }
}
