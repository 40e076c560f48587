package io.gatun.bench.host;

import io.gatun.bench.Gpt2Checkpoint;
import io.gatun.bench.TemporaryModel;
import io.gatun.generate.GenerationConfig;
import io.gatun.generate.GenerationResult;
import io.gatun.generate.LanguageModel;
import io.gatun.runtime.DType;
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

/// What does a decode step cost when the model is next to nothing? The difference between a short and a long
/// generation, per token, is free of what a request costs once; with `-prof gc` so is the garbage.
@State(Scope.Benchmark)
@BenchmarkMode(Mode.AverageTime)
@OutputTimeUnit(TimeUnit.NANOSECONDS)
public abstract class StepBenchmark {
    public static final int FEW = 32;
    public static final int MANY = 288;

    private static final int[] PROMPT = {1, 2, 3};

    private final String device;

    @Param({"" + FEW, "" + MANY})
    private int tokens;

    private TemporaryModel directory;
    private LanguageModel model;
    private GenerationConfig config;

    StepBenchmark(String device) {
        this.device = device;
    }

    @Setup
    public void load() {
        directory = TemporaryModel.of(Gpt2Checkpoint.TINY, DType.F32);
        model = LanguageModel.load(directory.path(),
                LanguageModel.Options.defaults().withDevice(device).withThreads(1).withMaxBatch(1));
        config = GenerationConfig.builder().maxNewTokens(tokens).ignoreEos(true).build();
    }

    @TearDown
    public void close() {
        model.close();
        directory.close();
    }

    @Benchmark
    public GenerationResult generate() {
        return model.generate(PROMPT, config);
    }
}
