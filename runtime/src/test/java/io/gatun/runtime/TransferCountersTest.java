package io.gatun.runtime;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import io.gatun.ops.Elementwise;
import io.gatun.ops.Linear.WeightLayout;
import io.gatun.ops.cases.TestDevice;
import org.junit.jupiter.api.Test;

class TransferCountersTest extends DeviceFixture {
    @Test
    void copies_countBytes() {
        Tensor x = arena.allocate(DType.BF16, 5);
        var start = device.counters().snapshot();
        x.copyFrom(stream, 1f, 2f, 3f, 4f, 5f);
        x.toFloats(stream);
        x.toBytes(stream);
        assertEquals(new TransferCounters.Snapshot(10, 20, 0, 0, 0, 0), device.counters().snapshot().since(start));
    }

    @Test
    void allocations_countOnceAndBytesInUse() {
        var start = device.counters().snapshot();
        long whole = TestDevice.isCpu() ? 1400 : 512 + 1024; // blocks of CUDA's cache are multiples of 512 bytes
        try (DeviceArena other = device.newArena("other"); Workspace workspace = device.newWorkspace(1000)) {
            Tensor x = other.allocate(DType.F32, 100);
            x.slice(0, 0, 5).reshape(5, 1);
            workspace.allocate(DType.U8, 10);
            assertEquals(new TransferCounters.Snapshot(0, 0, 0, 2, whole, 0),
                    device.counters().snapshot().since(start));
        }
        assertEquals(new TransferCounters.Snapshot(0, 0, 0, 2, 0, 0), device.counters().snapshot().since(start));
    }

    @Test
    void ops_countLaunches() {
        Tensor x = counting(40, 3);
        Tensor w = counting(3, 3);
        Tensor y = arena.allocate(DType.F32, 40, 3);
        device.matmul(stream, y, x, w, null, WeightLayout.OUT_IN); // a stream's first takes its workspace
        var start = device.counters().snapshot();
        Elementwise.copy(stream, y, x);
        device.matmul(stream, y.slice(0, 0, 2), x.slice(0, 0, 2), w, null, WeightLayout.OUT_IN);
        device.matmul(stream, y, x, w, null, WeightLayout.OUT_IN);
        assertEquals(new TransferCounters.Snapshot(0, 0, 0, 0, 0, 3), device.counters().snapshot().since(start));
    }

    /// An op that was refused is no launch.
    @Test
    void ops_failedIsNotCounted() {
        Tensor x = counting(4);
        var start = device.counters().snapshot();
        assertThrows(GatunException.class,
                () -> Elementwise.copy(stream, x, counting(5)));
        assertEquals(0, device.counters().snapshot().since(start).launches());
    }

    @Test
    void conversions_addUp() {
        var start = device.counters().snapshot();
        device.counters().countConversion(7);
        device.counters().countConversion(8);
        assertEquals(15, device.counters().snapshot().since(start).conversions());
    }
}
