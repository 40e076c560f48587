package io.gatun.bench;

import io.gatun.ops.Elementwise;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.DeviceArena;
import io.gatun.runtime.GatunException;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/// The memory of a GPU. The ceiling is the faster of our copy and, where there is a peer, PyTorch's (the driver's own);
/// our cheapest kernel that only reads is listed beside them.
final class DeviceMemoryRate implements MemoryRate {
    /// Many times the largest L2.
    private static final long FULL = 2L << 30;
    private static final long TRIAL = 64L << 10;
    private static final int CALLS = 4;

    private final Setup setup;
    private final Device device;
    private final Stream stream;
    private final DeviceArena arena;
    private final Tensor from;
    private final Tensor to;
    private final Tensor count;
    private final Map<String, List<Double>> rates = new LinkedHashMap<>();

    DeviceMemoryRate(Setup setup) {
        this.setup = setup;
        device = setup.open();
        stream = device.newStream();
        arena = device.newArena("memory rate");
        long floats = (setup.isTrial() ? TRIAL : FULL) / 2 / Float.BYTES;
        from = arena.allocate(DType.F32, floats);
        to = arena.allocate(DType.F32, floats);
        count = arena.allocate(DType.I64, 1);
        FilledOperands.random(stream, from, 1);
    }

    @Override
    public long bytes() {
        return 2 * from.elements() * Float.BYTES;
    }

    @Override
    public double sample() {
        Map<String, Double> now = new LinkedHashMap<>();
        now.put("copy rate (read and written)", copy(bytes()));
        if (setup.peer() != null) {
            try {
                now.put("copy rate, torch", setup.peer().copyRate(bytes()));
            } catch (GatunException e) { // whoever asks it next finds out, and starts it anew
                System.err.println("gatun bench: " + e.getMessage());
            }
        }
        double fastest = now.values().stream().mapToDouble(Double::doubleValue).max().orElseThrow();
        now.put("read rate", scan(bytes()));
        now.forEach((what, rate) -> rates.computeIfAbsent(what, w -> new ArrayList<>()).add(rate));
        return fastest;
    }

    @Override
    public double read(long bytes) {
        return Math.max(copy(bytes), scan(bytes));
    }

    /// Bytes read and written per second, for so many in all.
    private double copy(long bytes) {
        long floats = Math.min(bytes / 2 / Float.BYTES, from.elements());
        Tensor source = from.slice(0, 0, floats);
        Tensor target = to.slice(0, 0, floats);
        double nanos = QueuedTime.nanos(stream, CALLS, () -> Elementwise.copy(stream, target, source));
        return 2 * floats * Float.BYTES / nanos * 1e9;
    }

    private double scan(long bytes) {
        long floats = Math.min(bytes / Float.BYTES, from.elements());
        Tensor source = from.slice(0, 0, floats);
        double nanos = QueuedTime.nanos(stream, CALLS, () -> Elementwise.countNonfinite(stream, count, source));
        return floats * Float.BYTES / nanos * 1e9;
    }

    @Override
    public List<Map<String, Object>> rows() {
        return rates.entrySet().stream().map(entry -> Report.measure("%s, %d MiB".formatted(entry.getKey(),
                bytes() >> 20), "GB/s", Spread.of(entry.getValue()).times(1e-9))).toList();
    }

    @Override
    public void close() {
        try (device; arena) {
            stream.close();
        }
    }
}
