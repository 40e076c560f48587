package io.gatun.runtime;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.ops.Elementwise;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.Consumer;
import org.junit.jupiter.api.Test;

class PlanTest extends DeviceFixture {
    /// `x -> 2 x`, n times, each into a temporary of its own, then into y.
    private Consumer<Plan.Recorder> doublings(Tensor y, Tensor x, int n) {
        return r -> {
            Tensor from = x;
            for (int i = 0; i < n; i++) {
                Tensor in = from;
                Tensor to = i == n - 1 ? y : r.allocate(DType.F32, x.shape());
                r.op(() -> Elementwise.scale(stream, to, in, 2), to, in);
                from = to;
            }
        };
    }

    @Test
    void run_chainSharesTwoTemporaries() {
        try (DeviceArena arena = device.newArena("test")) {
            Tensor x = arena.allocate(DType.F32, 64);
            Tensor y = arena.allocate(DType.F32, 64);
            assertEquals(2 * 256, Plan.measure(device, doublings(y, x, 7)));
            try (Plan plan = Plan.of(device, doublings(y, x, 7))) {
                assertEquals(7, plan.size());
                for (float start : new float[] {1, -3}) {
                    Elementwise.fill(stream, x, start);
                    plan.run();
                    float[] expected = new float[64];
                    Arrays.fill(expected, 128 * start);
                    assertArrayEquals(expected, y.toFloats(stream));
                }
            }
        }
    }

    /// Random computations: every temporary holds its own number until its last reader has seen it.
    @Test
    void run_temporariesLiveUntilTheirLastUse() {
        for (int seed = 0; seed < 20; seed++) {
            Random random = new Random(seed);
            int n = 40;
            long[] sizes = random.longs(n, 1, 300).toArray();
            int[] reader = new int[n];
            for (int i = 0; i < n; i++) {
                reader[i] = random.nextInt(i, n);
            }
            List<float[]> seen = new ArrayList<>();
            Consumer<Plan.Recorder> work = r -> {
                List<Tensor> all = new ArrayList<>();
                for (int step = 0; step < n; step++) {
                    Tensor t = r.allocate(DType.F32, sizes[step], 2);
                    all.add(t);
                    int value = step;
                    r.op(() -> Elementwise.fill(stream, t, value), t);
                    for (int i = 0; i <= step; i++) {
                        if (reader[i] == step) {
                            Tensor view = all.get(i).slice(0, sizes[i] - 1, sizes[i]);
                            Tensor whole = all.get(i);
                            r.op(() -> seen.add(whole.toFloats(stream)), view);
                        }
                    }
                }
            };
            try (Plan plan = Plan.of(device, work)) {
                long all = Arrays.stream(sizes).map(s -> (s * 8 + 255) / 256 * 256).sum();
                assertTrue(plan.bytes() < all, plan.bytes() + " of " + all);
                plan.run();
            }
            assertEquals(n, seen.size());
            for (float[] values : seen) {
                for (float value : values) {
                    assertEquals(values[0], value, "seed " + seed);
                }
            }
            assertEquals(n * (n - 1) / 2, seen.stream().mapToDouble(v -> v[0]).sum(), "each number once, seed " + seed);
        }
    }

    @Test
    void of_recorderThatChangesItsMindIsRefused() {
        AtomicInteger calls = new AtomicInteger();
        IllegalStateException more = assertThrows(IllegalStateException.class,
                () -> Plan.of(device, r -> r.allocate(DType.F32, 1000L * calls.incrementAndGet())));
        assertTrue(more.getMessage().contains("must do the same"), more.getMessage());
        assertThrows(IllegalStateException.class, () -> Plan.of(device, r -> {
            if (calls.incrementAndGet() == 4) {
                r.allocate(DType.F32, 1);
            }
        }));
        assertEquals(0, device.counters().snapshot().allocatedBytes());
    }

    @Test
    void close_twiceIsFineAndRunAfterwardsThrows() {
        Plan plan = Plan.of(device, r -> r.allocate(DType.F32, 5));
        plan.close();
        plan.close();
        assertThrows(IllegalStateException.class, plan::run);
        assertEquals(0, device.counters().snapshot().allocatedBytes());
    }
}
