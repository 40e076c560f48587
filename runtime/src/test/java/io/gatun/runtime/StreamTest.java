package io.gatun.runtime;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.ops.Elementwise;
import io.gatun.ops.Linear.WeightLayout;
import io.gatun.ops.cases.TestDevice;
import java.util.Arrays;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

class StreamTest extends DeviceFixture {
    @Test
    void enter_secondThreadWhileAnOpRuns() {
        Tensor x = counting(4);
        Thread.currentThread().setName("first");
        stream.enter("a long op");
        try {
            for (var op : new Runnable[] {() -> Elementwise.fill(stream, x, 1), () -> x.toFloats(stream),
                () -> x.copyFrom(stream, 1f, 2f, 3f, 4f)}) {
                CompletionException e = assertThrows(CompletionException.class,
                        () -> CompletableFuture.runAsync(op).join());
                assertEquals(IllegalStateException.class, e.getCause().getClass());
                assertTrue(e.getCause().getMessage().contains("in use by thread 'first'"), e.getCause().getMessage());
            }
        } finally {
            stream.exit();
        }
        CompletableFuture.runAsync(() -> Elementwise.fill(stream, x, 7)).join();
        assertArrayEquals(new float[] {7, 7, 7, 7}, x.toFloats(stream));
    }

    @Test
    void enter_freeAgainAfterAFailedOp() {
        Tensor x = counting(4);
        Tensor y = counting(5);
        assertThrows(GatunException.class, () -> Elementwise.copy(stream, y, x));
        Tensor longs = arena.allocate(DType.I64, 20, 4);
        assertThrows(GatunException.class,
                () -> device.matmul(stream, longs, longs, longs, null, WeightLayout.OUT_IN));
        Elementwise.scale(stream, x, x, 2);
        assertArrayEquals(new float[] {0, 2, 4, 6}, x.toFloats(stream));
    }

    @Test
    void close_twiceAndUseAfter() {
        Tensor x = counting(4);
        Stream other = device.newStream();
        other.close();
        other.close();
        other.synchronize();
        for (var op : new Runnable[] {() -> Elementwise.fill(other, x, 1), () -> x.toFloats(other),
            () -> x.copyFrom(other, 1f, 2f, 3f, 4f)}) {
            IllegalStateException e = assertThrows(IllegalStateException.class, op::run);
            assertTrue(e.getMessage().endsWith("the stream is closed"), e.getMessage());
        }
        assertArrayEquals(new float[] {0, 1, 2, 3}, x.toFloats(stream));
    }

    @Test
    @Timeout(30)
    void close_waitsForTheOpThatRuns() throws InterruptedException {
        Stream other = device.newStream();
        other.enter("a long op");
        CompletableFuture<Void> closed = new CompletableFuture<>();
        Thread closer = Thread.ofPlatform().start(() -> {
            other.close();
            closed.complete(null);
        });
        while (Arrays.stream(closer.getStackTrace()).noneMatch(frame -> frame.getMethodName().equals("awaitIdle"))) {
            assertFalse(closed.isDone(), "closed under the op");
        }
        other.exit();
        closer.join();
        assertThrows(IllegalStateException.class, () -> other.enter("another op"));
    }

    @Test
    void close_ofTheDeviceClosesStreams() {
        Stream other = device.newStream();
        Tensor x = counting(4);
        device.close();
        assertThrows(IllegalStateException.class, () -> Elementwise.fill(other, x, 1));
        assertThrows(IllegalStateException.class, () -> Elementwise.fill(stream, x, 1));
        device.close();
    }

    /// What a stream keeps for its matrix products, such as packed weights, ends with it and not with the device.
    @Test
    void close_freesPackedWeights() {
        Tensor x = counting(64, 8);
        Tensor w = counting(8, 1024).frozen();
        Tensor y = arena.allocate(DType.F32, 64, 1024);
        long before = device.counters().snapshot().allocatedBytes();
        try (Stream other = device.newStream()) {
            device.matmul(other, y, x, w, null, WeightLayout.IN_OUT);
            assertTrue(device.counters().snapshot().allocatedBytes() > before, "no weights were packed");
        }
        assertEquals(before, device.counters().snapshot().allocatedBytes());
    }

    @Test
    void event_isOrdered() {
        Event first = device.record(stream);
        Elementwise.fill(stream, counting(4), 1);
        Event second = device.record(stream);
        second.synchronize();
        assertTrue(second.millisSince(first) >= 0);
    }

    @Test
    void numThreads_isTheDevices() {
        assertEquals(TestDevice.isCpu() ? 2 : 1, stream.numThreads());
        assertEquals(device, stream.device());
    }
}
