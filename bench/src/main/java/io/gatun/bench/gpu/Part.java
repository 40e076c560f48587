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
    /// The kernels and shapes that count most on Hopper, against the device's ceilings, PyTorch and Triton.
    HOPPER,
    /// A training step of GPT-2 124M, likewise.
    TRAIN,
    /// Every kernel, likewise.
    KERNELS,
    /// Prefill and decode of GPT-2 124M, likewise.
    MODELS;

    @Override
    public String toString() {
        return name().toLowerCase(Locale.ROOT);
    }
}
