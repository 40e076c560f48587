package io.gatun.runtime;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.ops.Elementwise;
import java.util.function.Consumer;
import org.junit.jupiter.api.Test;

class WorkspaceTest extends DeviceFixture {
    /// Three buffers, one of them in views.
    private record Buffers(Tensor a, Tensor b, Tensor c) {
        Buffers(Workspace w, long rows) {
            this(w.allocate(DType.F32, rows, 3), w.allocate(DType.BF16, rows), w.allocate(DType.U8, 1).reshape(1, 1));
        }
    }

    @Test
    void measure_isWhatPlacingTakes() {
        long bytes = Workspace.measure(device, w -> new Buffers(w, 100));
        assertEquals(1280 + 256 + 256, bytes);
        assertEquals(0, device.counters().snapshot().allocations(), "measuring allocates nothing");
        try (Workspace workspace = device.newWorkspace(bytes)) {
            assertEquals(bytes, workspace.bytes());
            Buffers buffers = new Buffers(workspace, 100);
            assertEquals(buffers.a.address() + 1280, buffers.b.address());
            assertEquals(buffers.b.address() + 256, buffers.c.address());
            assertEquals(0, buffers.a.address() % 256);
            IllegalStateException e = assertThrows(IllegalStateException.class, () -> workspace.allocate(DType.U8, 1));
            assertTrue(e.getMessage().contains("has 0 left, 256 wanted"), e.getMessage());
        }
        assertEquals(0, device.counters().snapshot().allocatedBytes());
    }

    @Test
    void measure_takesTheMostBetweenTwoResets() {
        Consumer<Workspace> placement = w -> {
            w.allocate(DType.U8, 1000);
            w.reset();
            w.allocate(DType.U8, 100);
        };
        long bytes = Workspace.measure(device, placement);
        assertEquals(1024, bytes);
        try (Workspace workspace = device.newWorkspace(bytes)) {
            placement.accept(workspace);
        }
    }

    /// A measured tensor has no memory: using it must be an exception, not a crash.
    @Test
    void measure_tensorsCannotBeUsed() {
        Tensor[] kept = new Tensor[1];
        Workspace.measure(device, w -> {
            w.allocate(DType.F32, 8);
            Tensor x = w.allocate(DType.F32, 8).slice(0, 2, 4);
            kept[0] = x;
            for (var use : new Runnable[] {() -> Elementwise.fill(stream, x, 1), () -> x.toFloats(stream),
                () -> x.copyFrom(stream, 1f, 2f)}) {
                IllegalStateException e = assertThrows(IllegalStateException.class, use::run);
                assertTrue(e.getMessage().contains("no memory"), e.getMessage());
            }
        });
        assertThrows(IllegalStateException.class, () -> kept[0].slice(0, 0, 1));
    }

    @Test
    void reset_endsTensorsAndPlacesAnew() {
        try (Workspace workspace = device.newWorkspace(512)) {
            Tensor before = workspace.allocate(DType.F32, 2);
            workspace.reset();
            assertThrows(IllegalStateException.class, () -> before.toFloats(stream));
            assertThrows(IllegalStateException.class, () -> Elementwise.fill(stream, before, 1));
            Tensor after = workspace.allocate(DType.F32, 2);
            assertEquals(before.address(), after.address());
            after.copyFrom(stream, 1f, 2f);
            assertArrayEquals(new float[] {1, 2}, after.toFloats(stream));
        }
    }

    @Test
    void close_twice() {
        Workspace workspace = device.newWorkspace(512);
        Tensor x = workspace.allocate(DType.F32, 2);
        workspace.close();
        workspace.close();
        workspace.reset();
        assertThrows(IllegalStateException.class, () -> x.toFloats(stream));
        assertThrows(IllegalStateException.class, () -> workspace.allocate(DType.F32, 2));
        assertEquals(0, device.counters().snapshot().allocatedBytes());
    }

    @Test
    void allocate_absurdSizes() {
        try (Workspace workspace = device.newWorkspace(512)) {
            for (long size : new long[] {Long.MAX_VALUE, Long.MAX_VALUE - 1, 1L << 62, 513}) {
                assertThrows(IllegalStateException.class, () -> workspace.allocate(DType.U8, size));
            }
            assertThrows(GatunException.class, () -> workspace.allocate(DType.U8, -1));
            assertThrows(GatunException.class, () -> workspace.allocate(DType.F32, Long.MAX_VALUE));
        }
        assertThrows(OutOfDeviceMemoryException.class, () -> device.newWorkspace(Long.MAX_VALUE));
        assertThrows(GatunException.class, () -> device.newWorkspace(-1));
        assertEquals(0, device.counters().snapshot().allocatedBytes());
    }
}
