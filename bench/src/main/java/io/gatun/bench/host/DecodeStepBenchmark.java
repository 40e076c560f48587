package io.gatun.bench.host;

/// On the CPU, where the kernels of a tiny model are most of the step.
public class DecodeStepBenchmark extends StepBenchmark {
    /// For JMH.
    public DecodeStepBenchmark() {
        super("cpu");
    }
}
