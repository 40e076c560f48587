package io.gatun.bench;

import io.gatun.ops.cases.OpCase;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.DeviceArena;
import io.gatun.runtime.GatunException;
import io.gatun.runtime.Stream;
import java.util.ArrayList;
import java.util.EnumSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/// How fast is each kernel, against the rates at which this device reads memory and multiplies, and against PyTorch
/// where there is a peer? Runs the very cases that the tests check, at the sizes of [KernelCases].
final class KernelBench {
    private static final int MEMORY_EVERY = 10;
    private static final long MAX_COLD_BYTES = 1L << 30;
    /// On a GPU, whose L2 is not asked for its size: many times the largest.
    private static final long GPU_COLD_BYTES = 512L << 20;
    private static final long TRIAL_COLD_BYTES = 1 << 20;
    /// Of the free memory, for the operands of one case.
    private static final int FREE_SHARE = 8;
    private static final String LEFT_OUT = "left out: the time was over";

    private final Setup setup;
    private final Device device;
    private final Stream stream;
    private final MemoryRate memory;
    private final @Nullable ProductRate products;
    private final long coldBytes;
    private final List<Map<String, Object>> rows = new ArrayList<>();
    private final List<Map<String, Object>> peerRows = new ArrayList<>();
    /// Each sets a row's share of the products' rate, of which every case brings another sample.
    private final List<Runnable> productShares = new ArrayList<>();
    private final Map<String, String> skipped = new LinkedHashMap<>();

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

    /// Adds the sections `kernels`, with a peer `kernels against the peer`, and on a GPU `product rates`. Before each
    /// case the report says which it is, and how many have begun: one may end the process, or never end.
    ///
    /// @param groups what to measure, see [KernelCases]
    /// @param after  how many cases are not measured again; what takes turns counts as one
    /// @throws GatunException when there are no more than that
    static void run(Setup setup, List<List<OpCase>> groups, int after, MemoryRate memory, Report report) {
        List<List<OpCase>> turns = groups.stream().flatMap(group -> takingTurns(group, setup)).toList();
        if (after >= turns.size()) {
            throw GatunException.invalid("--after is %d, expected less than %d: there are no more kernel cases", after,
                    turns.size());
        }
        EnumSet<DType> computed = EnumSet.noneOf(DType.class);
        groups.forEach(group -> group.stream().filter(c -> c.flops() > 0).forEach(c -> computed.add(c.dtype())));
        try (Device device = setup.open();
                Stream stream = device.newStream();
                ProductRate products = setup.isCpu() ? null : new ProductRate(setup, List.copyOf(computed))) {
            KernelBench bench = new KernelBench(setup, device, stream, memory, products);
            for (int i = after; i < turns.size(); i++) {
                List<OpCase> group = turns.get(i);
                report.attach("cases", turns.size());
                report.attach("begun", i + 1);
                report.attach("beginning", group.getFirst().toString());
                report.save();
                bench.measure(group);
                bench.tell(report);
            }
            report.save();
            bench.tellLeftOut();
        }
    }

    private void tellLeftOut() {
        long count = skipped.values().stream().filter(LEFT_OUT::equals).count();
        if (count > 0) {
            System.err.printf("gatun bench: %d kernel cases were left out, since the time was over: --seconds N for"
                    + " more (the report in --json names them)%n", count);
        }
    }

    private void tell(Report report) {
        productShares.forEach(Runnable::run);
        report.add("kernels", rows);
        report.add("kernels against the peer", peerRows);
        report.add("product rates", products == null ? List.of() : products.rows());
        report.add("memory", memory.rows());
        report.attach("skipped", skipped);
    }

    /// Has the peer compile what it compiles for these cases, so that it finds that in its cache later.
    static void preparePeer(TorchPeer peer, List<List<OpCase>> groups, TimeLimit time) {
        for (OpCase opCase : groups.stream().flatMap(List::stream).toList()) {
            if (!time.isOver()) {
                try {
                    TorchPeer.Kernel kernel = peer.prepare(opCase, 1, 1);
                    System.err.printf("%s: %s %s%n", opCase, kernel.variants(), kernel.skipped());
                } catch (GatunException e) {
                    System.err.println(opCase + ": " + e.getMessage());
                    peer.restart();
                }
            }
        }
    }

    /// The peer keeps one case at a time.
    private static java.util.stream.Stream<List<OpCase>> takingTurns(List<OpCase> group, Setup setup) {
        return setup.peer() == null ? java.util.stream.Stream.of(group) : group.stream().map(List::of);
    }

    private void measure(List<OpCase> group) {
        if (setup.time().isOver()) {
            group.forEach(opCase -> skipped.put(opCase.toString(), LEFT_OUT));
            return;
        }
        try (DeviceArena arena = device.newArena("kernel bench")) {
            List<CaseTimer> timers = new ArrayList<>();
            try {
                for (OpCase opCase : group) {
                    RotatingOperands rotating = new RotatingOperands(opCase, arena, stream, coldBytes);
                    timers.add(setup.isCpu() ? new HostTimer(opCase, stream, rotating)
                            : new GraphTimer(opCase, stream, rotating, setup));
                }
                try (PeerTimer peer = setup.peer() == null ? null
                        : new PeerTimer(setup.peer(), group.getFirst(), timers.getFirst())) {
                    measure(group, timers, peer);
                }
            } finally {
                timers.forEach(CaseTimer::close);
            }
        } catch (GatunException e) {
            if (e.status() != GatunException.Status.UNSUPPORTED) {
                throw e;
            }
            group.forEach(opCase -> skipped.put(opCase.toString(), String.valueOf(e.getMessage())));
        }
    }

    /// Takes turns, so that a disturbance meets all of a group, the reading of memory and the peer too.
    private void measure(List<OpCase> group, List<CaseTimer> timers, @Nullable PeerTimer peer) {
        List<Double> dram = new ArrayList<>();
        if (products != null) {
            products.sample();
        }
        setup.repeat(i -> {
            if (i % MEMORY_EVERY == 0) {
                dram.add(memory.sample());
            }
            timers.forEach(CaseTimer::repeat);
            if (peer != null) {
                peer.repeat();
            }
        });
        for (int i = 0; i < group.size(); i++) {
            rows.add(row(group.get(i), timers.get(i), Spread.of(dram).median()));
        }
        if (peer != null) {
            OpCase opCase = group.getFirst();
            peerRows.addAll(peer.rows(opCase, timers.getFirst().nanos()));
            peer.skipped().forEach((variant, reason) -> skipped.put(opCase + " by the peer, " + variant, reason));
        }
    }

    /// @param dram bytes per second
    private Map<String, Object> row(OpCase opCase, CaseTimer timer, double dram) {
        Spread spread = Spread.of(timer.nanos());
        boolean cold = timer.isCold();
        double bytesPerSecond = opCase.bytesMoved() / spread.median() * 1e9;
        double flopsPerSecond = opCase.flops() == 0 ? Double.NaN : opCase.flops() / spread.median() * 1e9;
        Map<String, Object> row = new LinkedHashMap<>();
        row.put("op", opCase.op());
        row.put("dtype", opCase.dtype().toString());
        row.put("sizes", opCase.sizes());
        row.put("operands", cold ? "cold" : "hot");
        row.put("us", spread.median() * 1e-3);
        row.put("us_low", spread.low() * 1e-3);
        row.put("us_high", spread.high() * 1e-3);
        row.put("gb_per_s", bytesPerSecond * 1e-9);
        row.put("gflop_per_s", flopsPerSecond * 1e-9);
        row.put("dram_share", cold ? bytesPerSecond / dram : Double.NaN);
        ProductRate limit = products;
        if (limit != null) {
            row.put("product_share", Double.NaN);
            if (opCase.flops() > 0) {
                productShares.add(() -> row.put("product_share", flopsPerSecond / limit.median(opCase.dtype())));
            }
        }
        return row;
    }
}
