package io.gatun.ops;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.fail;

import io.gatun.ops.cases.HostArray;
import io.gatun.ops.cases.HostValues;
import io.gatun.ops.cases.Layout;
import io.gatun.ops.cases.OpCase;
import io.gatun.ops.cases.Operand;
import io.gatun.ops.cases.Placement;
import io.gatun.ops.cases.Rounding;
import io.gatun.ops.cases.TestDevice;
import io.gatun.runtime.Device;
import io.gatun.runtime.DeviceArena;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import java.util.HashMap;
import java.util.Map;
import java.util.Set;
import org.jspecify.annotations.Nullable;

/// Does an op give what its case expects, whatever may vary without changing the result: memory layout, operands that
/// share a tensor, number of threads, a second run, the other rows of a batch? And does it write nothing else?
final class OpCheck {
    private static final long SEED = 7;

    private OpCheck() {}

    /// Every layout and permitted alias of the case; in each 1 thread, 2 threads, and 2 threads again, with equal bits.
    static void check(OpCase opCase) {
        HostValues in = opCase.values(SEED);
        Map<String, double[]> oracle = opCase.expected(in, Rounding.EXACT);
        Map<String, double[]> naive = opCase.expected(in, Rounding.AS_DTYPE);
        for (Layout layout : Layout.values()) {
            check(opCase, in, oracle, naive, layout, null);
        }
        for (OpCase.Alias alias : opCase.aliases()) {
            check(opCase, in, oracle, naive, Layout.UNALIGNED, alias);
        }
    }

    private static void check(OpCase opCase, HostValues in, Map<String, double[]> oracle, Map<String, double[]> naive,
            Layout layout, OpCase.@Nullable Alias alias) {
        String where = "%s on %s, %s%s, seed %d: ".formatted(opCase, TestDevice.name(), layout,
                alias == null ? "" : ", " + alias.written() + " = " + alias.read(), SEED);
        HostValues one = run(opCase, in, layout, alias, 1, where);
        HostValues two = run(opCase, in, layout, alias, 2, where);
        HostValues again = run(opCase, in, layout, alias, 2, where);
        for (Operand operand : opCase.operands()) {
            if (!operand.isWritten()) {
                continue;
            }
            String wrong = opCase.accuracy().violation(operand, oracle.get(operand.name()), naive.get(operand.name()),
                    one.array(operand.name()));
            if (wrong != null) {
                fail(where + "1 thread: " + wrong);
            }
            assertSameBits(where + "1 thread against 2: ", operand, one, two);
            assertSameBits(where + "first against second run: ", operand, two, again);
        }
    }

    /// The same bits 30 times, with 1, 2 and 3 threads in turn.
    static void thirtyRuns(OpCase opCase) {
        HostValues in = opCase.values(SEED);
        HostValues first = run(opCase, in, Layout.CONTIGUOUS, null, 1, opCase + ": ");
        for (int i = 1; i < 30; i++) {
            String where = "%s on %s, run %d: ".formatted(opCase, TestDevice.name(), i);
            HostValues again = run(opCase, in, Layout.CONTIGUOUS, null, 1 + i % 3, where);
            opCase.operands().stream().filter(Operand::isWritten)
                    .forEach(operand -> assertSameBits(where, operand, first, again));
        }
    }

    /// Row `i` of a batch of N rows has the same bits when it is alone, for a few `i`.
    ///
    /// @param rowOperands operands [N, ...] of which the row is taken; the others stay whole
    static void rowAlone(OpCase opCase, String... rowOperands) {
        Set<String> sliced = Set.of(rowOperands);
        HostValues in = opCase.values(SEED);
        try (Device device = TestDevice.open(2);
                Stream stream = device.newStream();
                DeviceArena arena = device.newArena("rowAlone")) {
            Placement whole = new Placement(opCase, arena, stream, Layout.UNALIGNED, in, null);
            whole.run();
            HostValues together = whole.read().values();
            int n = opCase.operands().stream().filter(o -> sliced.contains(o.name())).findFirst().orElseThrow()
                    .shape()[0];
            for (int row : new int[] {0, n / 2, n - 1}) {
                Placement alone = new Placement(opCase, arena, stream, Layout.UNALIGNED, in, null);
                Map<String, Tensor> tensors = new HashMap<>(alone.tensors());
                sliced.forEach(name -> tensors.computeIfPresent(name, (k, t) -> t.slice(0, row, row + 1)));
                opCase.run(stream, tensors);
                HostValues single = alone.read().values();
                for (Operand operand : opCase.operands()) {
                    if (operand.isWritten() && sliced.contains(operand.name())) {
                        int size = operand.elements() / n;
                        assertSameBits("%s on %s, row %d alone against all: ".formatted(opCase, TestDevice.name(), row),
                                operand, single, together, row * size, (row + 1) * size);
                    }
                }
            }
        }
    }

    static void assertSameBits(String where, Operand operand, HostValues expected, HostValues actual) {
        assertSameBits(where, operand, expected, actual, 0, operand.elements());
    }

    private static void assertSameBits(String where, Operand operand, HostValues expected, HostValues actual, int from,
            int to) {
        HostArray wanted = expected.array(operand.name());
        HostArray found = actual.array(operand.name());
        for (int i = from; i < to; i++) {
            if (wanted.bits(i) != found.bits(i)) {
                fail("%s%s expected %s, actual %s: the bits differ".formatted(where, operand.indexOf(i), wanted.at(i),
                        found.at(i)));
            }
        }
    }

    private static HostValues run(OpCase opCase, HostValues in, Layout layout, OpCase.@Nullable Alias alias,
            int threads, String where) {
        try (Device device = TestDevice.open(threads);
                Stream stream = device.newStream();
                DeviceArena arena = device.newArena("OpCheck")) {
            Placement placement = new Placement(opCase, arena, stream, layout, in, alias);
            placement.run();
            Placement.Contents contents = placement.read();
            assertNull(contents.strayWrite(), "%s%d thread(s)".formatted(where, threads));
            return contents.values();
        }
    }

    /// Runs a case once on contiguous operands and returns what they hold then.
    static HostValues run(OpCase opCase, HostValues in) {
        return run(opCase, in, Layout.CONTIGUOUS, null, 2, opCase + ": ");
    }

    /// As [#run(OpCase, HostValues)], with one operand left out.
    static HostValues run(OpCase opCase, HostValues in, String missing) {
        try (Device device = TestDevice.open(2);
                Stream stream = device.newStream();
                DeviceArena arena = device.newArena("OpCheck")) {
            Placement placement = new Placement(opCase, arena, stream, Layout.CONTIGUOUS, in, null);
            Map<String, Tensor> tensors = new HashMap<>(placement.tensors());
            tensors.remove(missing);
            opCase.run(stream, tensors);
            return placement.read().values();
        }
    }

    /// An exact comparison with a message that names the case.
    static void assertValues(OpCase opCase, String operand, HostValues actual, double... expected) {
        HostArray found = actual.array(operand);
        assertEquals(expected.length, found.size(), opCase + " " + operand);
        for (int i = 0; i < expected.length; i++) {
            assertEquals(expected[i], found.at(i),
                    "%s on %s: %s[%d]".formatted(opCase, TestDevice.name(), operand, i));
        }
    }
}
