package io.gatun.bench.host;

import io.gatun.softgpu.SoftGpu;
import org.openjdk.jmh.annotations.Setup;

/// On the stand-ins for CUDA with kernels that do nothing: what is left is the host's part of a step on a GPU, which is
/// to launch a graph, wait for it, read the record and hand the token on, and what the stand-ins take for their part.
public class GraphStepBenchmark extends StepBenchmark {
    /// For JMH.
    public GraphStepBenchmark() {
        super("cuda");
    }

    @Setup
    @Override
    public void load() {
        super.load();
        SoftGpu.attach().setKernelsEmpty(true);
    }
}
