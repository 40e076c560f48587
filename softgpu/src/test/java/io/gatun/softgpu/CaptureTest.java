package io.gatun.softgpu;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import io.gatun.ops.Elementwise;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.DeviceArena;
import io.gatun.runtime.Graph;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import java.util.concurrent.atomic.AtomicBoolean;
import org.junit.jupiter.api.Test;

/// Does a capture end whatever happens in it, and do other threads leave it alone?
class CaptureTest extends SoftGpuTest {
    /// An Error too, such as that of a stack that is full, ends the capture: the stream works on.
    @Test
    void capture_endedByAnError() {
        try (Device device = Device.open("cuda"); Stream stream = device.newStream();
                DeviceArena arena = device.newArena("test")) {
            Tensor x = arena.allocate(DType.F32, 100);
            StackOverflowError thrown = new StackOverflowError("thrown by the work");
            StackOverflowError caught = assertThrows(StackOverflowError.class, () -> device.capture(stream, () -> {
                Elementwise.fill(stream, x, 1);
                throw thrown;
            }));
            assertEquals(thrown, caught);
            Elementwise.fill(stream, x, 2);
            assertEquals(2, x.toFloats(stream)[99]);
            try (Graph graph = device.capture(stream, () -> Elementwise.fill(stream, x, 3))) {
                graph.launch();
                assertEquals(3, x.toFloats(stream)[99]);
            }
        }
    }

    @Test
    void capture_inACapture() {
        try (Device device = Device.open("cuda"); Stream stream = device.newStream();
                DeviceArena arena = device.newArena("test")) {
            Tensor x = arena.allocate(DType.F32, 100);
            try (Graph graph = device.capture(stream, () -> {
                Elementwise.fill(stream, x, 1);
                IllegalStateException e = assertThrows(IllegalStateException.class,
                        () -> device.capture(stream, () -> Elementwise.fill(stream, x, 2)));
                assertEquals("the stream is being captured already", e.getMessage());
            })) {
                graph.launch();
                assertEquals(1, x.toFloats(stream)[99]);
            }
        }
    }

    /// What is freed while a stream captures may be another stream's at once: what the stream was given before is done.
    @Test
    void close_besideACaptureAfterWork() {
        try (Device device = Device.open("cuda"); Stream first = device.newStream();
                Stream second = device.newStream(); DeviceArena again = device.newArena("again")) {
            DeviceArena arena = device.newArena("first");
            Elementwise.fill(first, arena.allocate(DType.F32, 1024), 1);
            Tensor[] x = new Tensor[1];
            device.capture(first, () -> runElsewhere(() -> {
                arena.close();
                x[0] = again.allocate(DType.F32, 1024);
                Elementwise.fill(second, x[0], 2);
                second.synchronize();
            })).close();
            first.synchronize();
            assertEquals(2, x[0].toFloats(second)[0]);
        }
    }

    /// One thread captures again and again while another closes what belongs to none of it.
    @Test
    void close_besideCaptures() throws InterruptedException {
        final int captures = 2000;
        try (Device device = Device.open("cuda"); Stream stream = device.newStream();
                DeviceArena arena = device.newArena("test")) {
            Tensor x = arena.allocate(DType.F32, 1);
            AtomicBoolean done = new AtomicBoolean();
            Thread closing = Thread.ofPlatform().start(() -> {
                while (!done.get()) {
                    device.newArena("other").close();
                }
            });
            try {
                for (int i = 0; i < captures; i++) {
                    device.capture(stream, () -> Elementwise.fill(stream, x, 4)).close();
                }
            } finally {
                done.set(true);
                closing.join();
            }
        }
    }

    private static void runElsewhere(Runnable work) {
        try {
            Thread.ofPlatform().start(work).join();
        } catch (InterruptedException e) {
            throw new IllegalStateException(e);
        }
    }
}
