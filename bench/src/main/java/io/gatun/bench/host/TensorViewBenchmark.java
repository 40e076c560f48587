package io.gatun.bench.host;

import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.DeviceArena;
import io.gatun.runtime.Tensor;
import java.util.concurrent.TimeUnit;
import org.openjdk.jmh.annotations.Benchmark;
import org.openjdk.jmh.annotations.BenchmarkMode;
import org.openjdk.jmh.annotations.Level;
import org.openjdk.jmh.annotations.Mode;
import org.openjdk.jmh.annotations.OperationsPerInvocation;
import org.openjdk.jmh.annotations.OutputTimeUnit;
import org.openjdk.jmh.annotations.Scope;
import org.openjdk.jmh.annotations.Setup;
import org.openjdk.jmh.annotations.State;
import org.openjdk.jmh.annotations.TearDown;
import org.openjdk.jmh.infra.Blackhole;

/// What does a view of a tensor cost? A view's descriptor lives until its arena is closed, so each invocation makes
/// many views of an arena of its own and takes its share of opening and closing it.
@State(Scope.Thread)
@BenchmarkMode(Mode.AverageTime)
@OutputTimeUnit(TimeUnit.NANOSECONDS)
public class TensorViewBenchmark {
    private static final int VIEWS = 1000;

    private Device device;

    /// For JMH.
    public TensorViewBenchmark() {}

    @Setup(Level.Trial)
    public void open() {
        device = Device.open("cpu", new Device.Options(1));
    }

    @TearDown(Level.Trial)
    public void close() {
        device.close();
    }

    @Benchmark
    @OperationsPerInvocation(VIEWS)
    public void slice(Blackhole hole) {
        try (DeviceArena arena = device.newArena("views")) {
            Tensor tensor = arena.allocate(DType.F32, 8, 16, 4);
            for (int i = 0; i < VIEWS; i++) {
                hole.consume(tensor.slice(1, 2, 5));
            }
        }
    }

    @Benchmark
    @OperationsPerInvocation(VIEWS)
    public void permute(Blackhole hole) {
        try (DeviceArena arena = device.newArena("views")) {
            Tensor tensor = arena.allocate(DType.F32, 8, 16, 4);
            for (int i = 0; i < VIEWS; i++) {
                hole.consume(tensor.permute(1, 0, 2));
            }
        }
    }
}
