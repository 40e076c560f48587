package io.gatun.runtime;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertSame;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import io.gatun.ops.Elementwise;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicReference;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

class DeviceArenaTest extends DeviceFixture {
    @Test
    void close_twice() {
        DeviceArena other = device.newArena("other");
        other.allocate(DType.F32, 1000);
        assertEquals(4000, other.bytes());
        assertTrue(device.counters().snapshot().allocatedBytes() >= 4000);
        other.close();
        other.close();
        assertFalse(other.isOpen());
        assertEquals(0, other.bytes());
        assertEquals(0, device.counters().snapshot().allocatedBytes());
    }

    @Test
    void close_everyUseThrows() {
        DeviceArena other = device.newArena("other");
        Tensor x = other.allocate(DType.F32, 4, 2);
        Tensor view = x.slice(0, 1, 2);
        other.close();
        for (var use : List.<Runnable>of(() -> Elementwise.fill(stream, x, 1), () -> Elementwise.fill(stream, view, 1),
                () -> x.toFloats(stream), () -> x.copyFrom(stream, new float[8]), () -> x.slice(0, 0, 1),
                () -> x.reshape(8), () -> x.shapeOn(stream), () -> other.allocate(DType.F32, 1),
                () -> other.allocateRecord(1), () -> other.adopt(() -> {}))) {
            IllegalStateException e = assertThrows(IllegalStateException.class, use::run);
            assertEquals("other is closed: its tensors cannot be used any more", e.getMessage());
        }
        Elementwise.fill(stream, counting(2), 1); // the stream is free again
    }

    /// Thread A runs ops all the time; the close by thread B waits for the one that runs, and A's next one throws.
    @Test
    @Timeout(30)
    void close_whileAnotherThreadRunsOps() throws InterruptedException {
        for (int round = 0; round < 50; round++) {
            DeviceArena shared = device.newArena("shared");
            Tensor x = shared.allocate(DType.F32, 4); // the emulator must keep up with the ops that are given
            AtomicInteger ops = new AtomicInteger();
            AtomicReference<RuntimeException> end = new AtomicReference<>();
            Thread worker = Thread.ofPlatform().start(() -> {
                try {
                    while (true) {
                        Elementwise.add(stream, x, x, x);
                        ops.incrementAndGet();
                    }
                } catch (RuntimeException e) {
                    end.set(e);
                }
            });
            while (ops.get() < 5 + round) {
                Thread.onSpinWait();
            }
            shared.close();
            worker.join();
            assertInstanceOf(IllegalStateException.class, end.get());
            assertEquals(0, device.counters().snapshot().allocatedBytes());
        }
    }

    @Test
    @Timeout(30)
    void close_waitsForTheOpThatRuns() throws InterruptedException {
        DeviceArena shared = device.newArena("shared");
        Tensor x = shared.allocate(DType.F32, 4);
        long bytes = device.counters().snapshot().allocatedBytes();
        stream.enter("a long op");
        x.on(stream);
        Thread closer = Thread.ofPlatform().start(shared::close);
        while (shared.isOpen()) {
            Thread.onSpinWait();
        }
        assertEquals(bytes, device.counters().snapshot().allocatedBytes(), "freed under the op");
        assertThrows(IllegalStateException.class, () -> x.on(stream));
        stream.exit();
        closer.join();
        assertEquals(0, device.counters().snapshot().allocatedBytes());
    }

    @Test
    void close_continuesAfterAFailedRelease() {
        DeviceArena other = device.newArena("other");
        List<String> released = new ArrayList<>();
        IllegalStateException first = new IllegalStateException("first");
        other.allocate(DType.F32, 4);
        other.adopt(() -> {
            throw first;
        });
        other.adopt(() -> {
            throw new IllegalStateException("second");
        });
        other.adopt(() -> released.add("third"));
        assertSame(first, assertThrows(IllegalStateException.class, other::close));
        assertEquals("second", first.getSuppressed()[0].getMessage());
        assertEquals(List.of("third"), released);
        assertEquals(0, device.counters().snapshot().allocatedBytes());
        other.close();
        assertEquals(List.of("third"), released);
    }

    @ParameterizedTest
    @EnumSource
    void allocate_isAligned(DType dtype) {
        for (long n : new long[] {0, 1, 3, 63, 1000}) {
            Tensor x = arena.allocate(dtype, n);
            assertEquals(0, x.address() % 256, x.toString());
            assertEquals(n, x.elements());
        }
        assertEquals(1, arena.allocate(dtype).elements());
    }

    @Test
    void allocate_noMemory() {
        for (long size : new long[] {1L << 45, 1L << 60, Long.MAX_VALUE - 10, Long.MAX_VALUE}) {
            OutOfDeviceMemoryException e = assertThrows(OutOfDeviceMemoryException.class,
                    () -> arena.allocate(DType.U8, size));
            assertEquals(GatunException.Status.OUT_OF_MEMORY, e.status());
            assertEquals(size, e.requestedBytes());
            assertTrue(e.getMessage().contains("no memory for "), e.getMessage());
        }
        assertEquals(0, device.counters().snapshot().allocatedBytes());
        assertArrayEquals(new float[] {0, 1}, counting(2).toFloats(stream));
    }

    @Test
    void allocate_badShapes() {
        for (long[] shape : new long[][] {{-1}, {2, -3}, {-2, -3}, {1L << 62, 2}, {1L << 32, 1L << 32}, {1L << 62},
            {Long.MAX_VALUE}, {1L << 40, 1L << 40, 0}}) {
            GatunException e = assertThrows(GatunException.class, () -> arena.allocate(DType.F32, shape));
            assertEquals(GatunException.Status.INVALID_ARGUMENT, e.status());
        }
        assertThrows(GatunException.class, () -> arena.allocate(DType.F32, 1, 1, 1, 1, 1, 1));
        assertThrows(GatunException.class, () -> arena.allocateRecord(-1));
        assertThrows(GatunException.class, () -> arena.reserve(-1));
    }

    /// More tensors than one slab of descriptors holds.
    @Test
    void allocate_manyTensors() {
        Tensor x = counting(1000);
        Tensor[] views = new Tensor[1000];
        for (int i = 0; i < views.length; i++) {
            views[i] = x.slice(0, i, i + 1);
        }
        for (int i = 0; i < views.length; i++) {
            assertEquals(i, views[i].toFloats(stream)[0]);
            Elementwise.scale(stream, views[i], views[i], -1);
        }
        assertEquals(-999, x.toFloats(stream)[999]);
    }

    @Test
    void view_sharesHostMemory() {
        assumeTrue(device.addressesHostMemory(), "a GPU's memory is its own");
        try (Arena host = Arena.ofShared()) {
            MemorySegment memory = host.allocateFrom(ValueLayout.JAVA_FLOAT, 1, 2, 3, 4);
            long before = device.counters().snapshot().allocatedBytes();
            Tensor x = arena.view(memory, DType.F32, 2, 2);
            Elementwise.scale(stream, x, x, 2);
            assertEquals(8, memory.getAtIndex(ValueLayout.JAVA_FLOAT, 3));
            assertEquals(before, device.counters().snapshot().allocatedBytes());
            assertThrows(GatunException.class, () -> arena.view(memory, DType.F32, 3));
            assertThrows(GatunException.class, () -> arena.view(memory.asSlice(2, 4), DType.F32, 1));
            assertThrows(GatunException.class,
                    () -> arena.view(MemorySegment.ofArray(new float[4]), DType.F32, 4));
            arena.close();
        }
    }
}
