package io.gatun.bench;

import io.gatun.ops.Linear.WeightLayout;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.DeviceArena;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import java.util.ArrayList;
import java.util.EnumMap;
import java.util.List;
import java.util.Map;

/// How fast does a GPU multiply? The ceiling of everything that computes much per byte: a large square product through
/// the device's library.
final class ProductRate implements AutoCloseable {
    private static final int FULL = 8192;
    private static final int TRIAL = 32;
    private static final int CALLS = 2;

    private final int size;
    private final Device device;
    private final Stream stream;
    private final DeviceArena arena;
    private final Map<DType, Operands> operands = new EnumMap<>(DType.class);
    private final Map<DType, List<Double>> rates = new EnumMap<>(DType.class);

    private record Operands(Tensor y, Tensor x, Tensor weight) {}

    ProductRate(Setup setup, List<DType> dtypes) {
        size = setup.isTrial() ? TRIAL : FULL;
        device = setup.open();
        stream = device.newStream();
        arena = device.newArena("product rate");
        double deviation = 1 / Math.sqrt(size);
        for (DType dtype : dtypes) {
            Tensor x = arena.allocate(dtype, size, size);
            Tensor weight = arena.allocate(dtype, size, size);
            FilledOperands.random(stream, x, deviation);
            FilledOperands.random(stream, weight, deviation);
            operands.put(dtype, new Operands(arena.allocate(dtype, size, size), x, weight));
            rates.put(dtype, new ArrayList<>());
        }
        operands.values().forEach(this::nanos); // the first of an H200 that had rested took twice as long
    }

    private double nanos(Operands o) {
        return QueuedTime.nanos(stream, CALLS,
                () -> device.matmul(stream, o.y, o.x, o.weight, null, WeightLayout.OUT_IN));
    }

    /// Takes a sample of each dtype.
    void sample() {
        operands.forEach((dtype, o) -> rates.get(dtype).add(2.0 * size * size * size / nanos(o) * 1e9));
    }

    /// Operations per second in a dtype.
    double median(DType dtype) {
        return Spread.of(rates.get(dtype)).median();
    }

    List<Map<String, Object>> rows() {
        return rates.entrySet().stream().map(entry -> Report.measure("product rate, %s, %d cubed".formatted(
                entry.getKey(), size), "TFLOP/s", Spread.of(entry.getValue()).times(1e-12))).toList();
    }

    @Override
    public void close() {
        try (device; arena) {
            stream.close();
        }
    }
}
