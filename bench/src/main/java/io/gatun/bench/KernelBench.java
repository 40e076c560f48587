package io.gatun.bench;

import io.gatun.ops.cases.OpCase;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.DeviceArena;
import io.gatun.runtime.GatunException;
import io.gatun.runtime.Stream;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.EnumSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import org.jspecify.annotations.Nullable;

/// How fast is each kernel, against the rates at which this machine reads memory and multiplies, and against PyTorch
/// where there is a peer? Runs the very cases that the tests check, at the sizes of [KernelCases].
final class KernelBench {
    private static final int CEILING_EVERY = 8;
    private static final long MAX_COLD_BYTES = 1L << 30;
    /// On a GPU, whose size of L2 is not asked for: many times the largest.
    private static final long GPU_COLD_BYTES = 512L << 20;
    private static final long TRIAL_COLD_BYTES = 1 << 20;
    /// Of the free memory, for the operands of one case.
    private static final int FREE_SHARE = 8;

    private final Setup setup;
    private final Device device;
    private final Stream stream;
    private final MemoryRate memory;
    private final @Nullable ProductRate products;
    private final long coldBytes;
    private final List<Map<String, Object>> rows = new ArrayList<>();
    private final List<Map<String, Object>> peerRows = new ArrayList<>();
    private final Map<String, String> skipped = new TreeMap<>();

    private KernelBench(Setup setup, Device device, Stream stream, MemoryRate memory, @Nullable ProductRate products) {
        this.setup = setup;
        this.device = device;
        this.stream = stream;
        this.memory = memory;
        this.products = products;
        long wanted = setup.isTrial() ? TRIAL_COLD_BYTES
                : setup.isCpu() ? Math.min(MAX_COLD_BYTES, 2 * Machine.lastLevelCacheBytes()) : GPU_COLD_BYTES;
        this.coldBytes = Math.min(wanted, device.memoryFree() / FREE_SHARE);
    }

    /// Adds the section `kernels`; with a peer `kernels against the peer`, on a GPU `product rates`.
    ///
    /// @param only part of the ops' names; empty: all
    static void run(Setup setup, List<DType> dtypes, String only, MemoryRate memory, Report report) {
        List<List<OpCase>> groups = KernelCases.groups(dtypes, only, setup);
        if (groups.isEmpty()) {
            throw GatunException.invalid("--only is %s, expected part of an op's name, such as rmsnorm", only);
        }
        EnumSet<DType> all = EnumSet.copyOf(dtypes);
        all.add(DType.F32); // sampling is in f32 always
        try (Device device = setup.open();
                Stream stream = device.newStream();
                ProductRate products = setup.isCpu() ? null : new ProductRate(setup, List.copyOf(all))) {
            KernelBench bench = new KernelBench(setup, device, stream, memory, products);
            groups.forEach(bench::measureIfSupported);
            report.add("kernels", bench.rows);
            report.add("kernels against the peer", bench.peerRows);
            if (products != null) {
                report.add("product rates", products.rows());
            }
            report.attach("skipped", bench.skipped);
        }
    }

    private void measureIfSupported(List<OpCase> group) {
        try {
            measure(group);
        } catch (GatunException e) {
            if (e.status() != GatunException.Status.UNSUPPORTED) {
                throw e;
            }
            skipped.put(group.getFirst().toString(), String.valueOf(e.getMessage()));
        }
    }

    /// Takes turns, so that a disturbance meets all of a group, the ceilings and the peer too.
    private void measure(List<OpCase> group) {
        for (OpCase opCase : setup.isCpu() ? List.<OpCase>of() : group) {
            measureOnGpu(opCase);
        }
        if (setup.isCpu()) {
            try (DeviceArena arena = device.newArena("kernel bench")) {
                List<CaseTimer> timers = group.stream().<CaseTimer>map(opCase -> new HostTimer(opCase, stream,
                        new RotatingOperands(opCase, arena, stream, coldBytes), setup.repeats())).toList();
                List<Double> dram = new ArrayList<>();
                for (int i = 0; i < setup.repeats(); i++) {
                    if (i % CEILING_EVERY == 0) {
                        dram.add(memory.sample());
                    }
                    for (CaseTimer timer : timers) {
                        timer.repeat(i);
                    }
                }
                double ceiling = Spread.of(dram).median();
                for (int i = 0; i < group.size(); i++) {
                    rows.add(row(group.get(i), timers.get(i), ceiling));
                }
            }
        }
    }

    /// Alone with the peer: a GPU is not slowed down by other processes' work on the host, and clocks settle by themselves.
    private void measureOnGpu(OpCase opCase) {
    }

    /// @param dram bytes per second
    private Map<String, Object> row(OpCase opCase, CaseTimer timer, double dram) {
        Spread spread = Spread.of(timer.nanos());
        double bytesPerSecond = opCase.bytesMoved() / spread.median() * 1e9;
        Map<String, Object> row = new LinkedHashMap<>();
        return row;
    }
}
