package io.gatun.bench.host;

import io.gatun.bindings.gatun.Gatun;
import io.gatun.ops.Elementwise;
import io.gatun.ops.Norm;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.DeviceArena;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import java.lang.foreign.MemorySegment;
import java.util.concurrent.TimeUnit;
import org.openjdk.jmh.annotations.Benchmark;
import org.openjdk.jmh.annotations.BenchmarkMode;
import org.openjdk.jmh.annotations.Mode;
import org.openjdk.jmh.annotations.OutputTimeUnit;
import org.openjdk.jmh.annotations.Scope;
import org.openjdk.jmh.annotations.Setup;
import org.openjdk.jmh.annotations.State;
import org.openjdk.jmh.annotations.TearDown;

/// What does an op cost beyond its work? The op through our API on one element, the same native function without our
/// Java around it, and the cheapest native function there is.
@State(Scope.Thread)
@BenchmarkMode(Mode.AverageTime)
@OutputTimeUnit(TimeUnit.NANOSECONDS)
public class OpCallBenchmark {
    private static final float FACTOR = 0.5f;
    private static final float EPS = 1e-5f;

    private Device device;
    private Stream stream;
    private DeviceArena arena;
    private Tensor x;
    private Tensor y;
    private MemorySegment streamDescriptor;
    private MemorySegment xDescriptor;
    private MemorySegment yDescriptor;

    /// For JMH.
    public OpCallBenchmark() {}

    @Setup
    public void open() {
        device = Device.open("cpu", new Device.Options(1));
        stream = device.newStream();
        arena = device.newArena("op call");
        x = arena.allocate(DType.F32, 1, 1);
        y = arena.allocate(DType.F32, 1, 1);
        x.copyFrom(stream, 3f);
        streamDescriptor = stream.descriptor();
        xDescriptor = x.on(stream);
        yDescriptor = y.on(stream);
    }

    @TearDown
    public void close() {
        arena.close();
        device.close();
    }

    @Benchmark
    public int nothingDowncall() {
        return Gatun.gt_abi_version();
    }

    @Benchmark
    public int scaleDowncall() {
        return Gatun.gt_scale(streamDescriptor, yDescriptor, xDescriptor, FACTOR);
    }

    @Benchmark
    public void scaleOp() {
        Elementwise.scale(stream, y, x, FACTOR);
    }

    @Benchmark
    public int layerNormDowncall() {
        return Gatun.gt_layernorm(streamDescriptor, yDescriptor, MemorySegment.NULL, MemorySegment.NULL,
                MemorySegment.NULL, xDescriptor, MemorySegment.NULL, MemorySegment.NULL, MemorySegment.NULL, EPS);
    }

    @Benchmark
    public void layerNormOp() {
        Norm.layerNorm(stream, y, x, null, null, EPS);
    }
}
