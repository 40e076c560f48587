package io.gatun.softgpu;

import static org.junit.jupiter.api.Assertions.assertEquals;

import io.gatun.softgpu.SoftGpu.Counter;
import java.util.Set;
import java.util.TreeMap;
import java.util.Map;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;

/// Each test starts with fresh stand-ins, and must leave nothing behind on them.
abstract class SoftGpuTest {
    /// What exists on the device, and must be 0 when everything has been closed.
    static final Set<Counter> LIVE = Set.of(Counter.LIVE_ALLOCATIONS, Counter.LIVE_BYTES, Counter.LIVE_PINNED,
            Counter.LIVE_STREAMS, Counter.LIVE_EVENTS, Counter.LIVE_GRAPHS, Counter.LIVE_EXECUTABLE_GRAPHS,
            Counter.LIVE_HANDLES, Counter.LIVE_DESCRIPTORS);

    final SoftGpu gpu = SoftGpu.attach();
    /// Handles and descriptors of libraries that earlier tests made undestroyable outlive a reset.
    private final Map<Counter, Long> before = new TreeMap<>();

    @BeforeEach
    void reset() {
        gpu.reset();
        LIVE.forEach(counter -> before.put(counter, gpu.counter(counter)));
    }

    @AfterEach
    void leavesNothing() {
        gpu.clearFaults();
        assertEquals(Map.of(), live(), "still there after the test");
        assertEquals(0, gpu.check(), () -> "damaged blocks: " + gpu.lastFault());
        assertEquals(0, gpu.counter(Counter.RED_ZONE_HITS) + gpu.counter(Counter.FREED_HITS), gpu::lastFault);
        gpu.reset();
    }

    /// What there is more of than at the start.
    final Map<Counter, Long> live() {
        Map<Counter, Long> left = new TreeMap<>();
        for (Counter counter : LIVE) {
            long more = gpu.counter(counter) - before.get(counter);
            if (more != 0) {
                left.put(counter, more);
            }
        }
        return left;
    }
}
