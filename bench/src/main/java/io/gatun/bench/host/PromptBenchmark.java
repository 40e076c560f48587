package io.gatun.bench.host;

import io.gatun.bench.Gpt2Checkpoint;
import io.gatun.bench.TemporaryModel;
import io.gatun.generate.GenerationConfig;
import io.gatun.generate.GenerationResult;
import io.gatun.generate.LanguageModel;
import io.gatun.runtime.DType;
import io.gatun.softgpu.SoftGpu;
import java.util.concurrent.TimeUnit;
import org.openjdk.jmh.annotations.Benchmark;
import org.openjdk.jmh.annotations.BenchmarkMode;
import org.openjdk.jmh.annotations.Mode;
import org.openjdk.jmh.annotations.OutputTimeUnit;
import org.openjdk.jmh.annotations.Param;
import org.openjdk.jmh.annotations.Scope;
import org.openjdk.jmh.annotations.Setup;
import org.openjdk.jmh.annotations.State;
import org.openjdk.jmh.annotations.TearDown;

/// What does the host do for a prompt of a GPT-2 of 12 layers and its first token? On the stand-ins for CUDA with
/// kernels that do nothing: the time from the call to the token, without the kernels'.
@State(Scope.Benchmark)
@BenchmarkMode(Mode.AverageTime)
@OutputTimeUnit(TimeUnit.NANOSECONDS)
public class PromptBenchmark {
    private static final Gpt2Checkpoint NARROW = new Gpt2Checkpoint(64, 16, 1024, 12, 2);

    @Param({"100", "512"})
    private int rows;

    private TemporaryModel directory;
    private LanguageModel model;
    private GenerationConfig config;
    private int[] prompt;

    /// For JMH.
    public PromptBenchmark() {}

    @Setup
    public void load() {
        directory = TemporaryModel.of(NARROW, DType.F32);
        model = LanguageModel.load(directory.path(),
                LanguageModel.Options.defaults().withDevice("cuda").withThreads(1).withMaxBatch(1));
        config = GenerationConfig.builder().maxNewTokens(1).ignoreEos(true).build();
        prompt = new int[rows];
        SoftGpu.attach().setKernelsEmpty(true);
    }

    @TearDown
    public void close() {
        model.close();
        directory.close();
    }

    @Benchmark
    public GenerationResult generate() {
        return model.generate(prompt, config);
    }
}
