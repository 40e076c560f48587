package io.gatun.bench;

import io.gatun.ops.Elementwise;
import io.gatun.ops.cases.OpCase;
import io.gatun.ops.cases.Operand;
import io.gatun.ops.cases.Operand.Role;
import io.gatun.ops.cases.Placement;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.DeviceArena;
import io.gatun.runtime.GatunException;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/// How fast is each kernel, against the rate at which this machine reads memory? Runs the very cases that the tests
/// check, at the sizes of [KernelCases].
final class KernelBench {
    private static final int REPEATS = 25;
    private static final int WARM_UPS = 5;
    private static final int MEMORY_EVERY = 8;
    /// A repeat takes at least so long, so that the clock does not matter.
    private static final long REPEAT_NANOS = 2_000_000;
    private static final int MAX_CALLS = 2000;
    /// Cases that move less run on operands that the caches hold, as in a decode step.
    private static final long HOT_BYTES = 256 << 10;
    private static final long MAX_COLD_BYTES = 1L << 30;
    /// Of the free memory, for the operands of one case.
    private static final int FREE_SHARE = 8;
    private static final int MAX_COPIES = 512;
    private static final long SEED = 1;

    private final Device device;
    private final Stream stream;
    private final MemoryRate memory;
    private final long coldBytes;

    private KernelBench(Device device, Stream stream, MemoryRate memory) {
        this.device = device;
        this.stream = stream;
        this.memory = memory;
        this.coldBytes = Math.min(MAX_COLD_BYTES,
                Math.min(2 * Machine.lastLevelCacheBytes(), device.memoryFree() / FREE_SHARE));
    }

    /// @param only part of the ops' names; empty: all
    static List<Map<String, Object>> run(int threads, List<DType> dtypes, String only, MemoryRate memory) {
        List<List<OpCase>> groups = KernelCases.groups(dtypes, only);
        if (groups.isEmpty()) {
            throw GatunException.invalid("--only is %s, expected part of an op's name, such as rmsnorm", only);
        }
        List<Map<String, Object>> rows = new ArrayList<>();
        try (Device device = Device.open("cpu", new Device.Options(threads)); Stream stream = device.newStream()) {
            KernelBench bench = new KernelBench(device, stream, memory);
            for (List<OpCase> group : groups) {
                rows.addAll(bench.measure(group));
            }
        }
        return rows;
    }

    /// Takes turns, so that a disturbance meets all of a group and the reading of memory too.
    private List<Map<String, Object>> measure(List<OpCase> group) {
        try (DeviceArena arena = device.newArena("kernel bench")) {
            List<Run> runs = group.stream().map(opCase -> new Run(opCase, arena)).toList();
            List<Double> dram = new ArrayList<>();
            for (int i = 0; i < REPEATS; i++) {
                if (i % MEMORY_EVERY == 0) {
                    dram.add(memory.sample());
                }
                for (Run run : runs) {
                    run.repeat(i);
                }
            }
            double ceiling = Spread.of(dram.stream().mapToDouble(Double::doubleValue).toArray()).median();
            return runs.stream().map(run -> run.row(ceiling)).toList();
        }
    }

    /// A case, copies of its operands that no cache holds together, and the nanoseconds of a call in each repeat.
    private final class Run {
        private final OpCase opCase;
        private final List<Map<String, Tensor>> copies = new ArrayList<>();
        /// What operands that the op changes in place held at first.
        private final Map<String, Tensor> initial = new HashMap<>();
        private final double[] nanos = new double[REPEATS];
        private final int calls;
        private int next;

        Run(OpCase opCase, DeviceArena arena) {
            this.opCase = opCase;
            Map<String, Tensor> first = new Placement(opCase, arena, stream, SEED).tensors();
            copies.add(first);
            for (Operand operand : opCase.operands()) {
                if (operand.role() == Role.IN_OUT) {
                    initial.put(operand.name(), copy(arena, first.get(operand.name())));
                }
            }
            long bytes = opCase.bytesMoved();
            if (initial.isEmpty() && bytes >= HOT_BYTES) {
                for (long i = 1; i < Math.min(MAX_COPIES, coldBytes / bytes + 1); i++) {
                    copies.add(copyAll(arena, first));
                }
            }
            long fastest = Long.MAX_VALUE;
            for (int i = 0; i < WARM_UPS; i++) {
                fastest = Math.min(fastest, call());
            }
            calls = initial.isEmpty() ? Math.clamp(REPEAT_NANOS / Math.max(1, fastest), 1, MAX_CALLS) : 1;
            for (int i = 0; i < calls; i++) {
                call();
            }
        }

        void repeat(int index) {
            long total = 0;
            for (int i = 0; i < calls; i++) {
                total += call();
            }
            nanos[index] = (double) total / calls;
        }

        private long call() {
            Map<String, Tensor> operands = copies.get(next);
            next = (next + 1) % copies.size();
            initial.forEach((name, values) -> Elementwise.copy(stream, operands.get(name), values));
            stream.synchronize();
            long start = System.nanoTime();
            opCase.run(stream, operands);
            stream.synchronize();
            return System.nanoTime() - start;
        }

        private Map<String, Tensor> copyAll(DeviceArena arena, Map<String, Tensor> tensors) {
            Map<String, Tensor> all = new HashMap<>();
            tensors.forEach((name, tensor) -> all.put(name, name.equals("workspace") ? tensor : copy(arena, tensor)));
            return all;
        }

        private Tensor copy(DeviceArena arena, Tensor tensor) {
            Tensor copy = arena.allocate(tensor.dtype(), tensor.shape());
            Elementwise.copy(stream, copy, tensor);
            return copy;
        }

        /// @param dram bytes per second
        Map<String, Object> row(double dram) {
            Spread spread = Spread.of(nanos);
            double bytesPerSecond = opCase.bytesMoved() / spread.median() * 1e9;
            Map<String, Object> row = new LinkedHashMap<>();
            row.put("op", opCase.op());
            row.put("dtype", opCase.dtype().toString());
            row.put("sizes", opCase.sizes());
            row.put("operands", copies.size() > 1 ? "cold" : "hot");
            row.put("us", spread.median() * 1e-3);
            row.put("us_low", spread.low() * 1e-3);
            row.put("us_high", spread.high() * 1e-3);
            row.put("gb_per_s", bytesPerSecond * 1e-9);
            row.put("gflop_per_s", opCase.flops() == 0 ? Double.NaN : opCase.flops() / spread.median());
            row.put("dram_share", copies.size() > 1 ? bytesPerSecond / dram : Double.NaN);
            return row;
        }
    }
}
