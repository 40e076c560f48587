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
import java.util.List;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicReference;
import org.jspecify.annotations.Nullable;
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

    /// Who captures cannot end the stream; another thread can, and waits until the capture has failed.
    @Test
    void close_ofTheStreamThatCaptures() {
        try (Device device = Device.open("cuda"); DeviceArena arena = device.newArena("test")) {
            Tensor x = arena.allocate(DType.F32, 100);
            Stream stream = device.newStream();
            device.capture(stream, () -> {
                IllegalStateException e = assertThrows(IllegalStateException.class, stream::close);
                assertEquals("the stream is being captured: close it when the capture has ended", e.getMessage());
                Elementwise.fill(stream, x, 1);
            }).close();
            Elsewhere[] closing = new Elsewhere[1];
            IllegalStateException e = assertThrows(IllegalStateException.class, () -> device.capture(stream, () -> {
                closing[0] = new Elsewhere(stream::close);
                while (true) {
                    Elementwise.fill(stream, x, 1);
                }
            }));
            assertEquals("fill: the stream is closed", e.getMessage());
            closing[0].await();
            e = assertThrows(IllegalStateException.class, () -> device.capture(stream, () -> {}));
            assertEquals("capture: the stream is closed", e.getMessage());
        }
    }

    /// A graph that another thread closes is launched whole or not at all.
    @Test
    void close_ofAGraphThatIsLaunched() {
        final int graphs = 100;
        try (Device device = Device.open("cuda"); Stream stream = device.newStream();
                DeviceArena arena = device.newArena("test")) {
            Tensor x = arena.allocate(DType.F32, 1);
            for (int i = 0; i < graphs; i++) {
                Graph graph = device.capture(stream, () -> Elementwise.fill(stream, x, 1));
                List<Elsewhere> closing = List.of(new Elsewhere(graph::close), new Elsewhere(graph::close));
                IllegalStateException e = assertThrows(IllegalStateException.class, () -> {
                    while (true) {
                        graph.launch();
                    }
                });
                assertEquals("the graph is closed", e.getMessage());
                for (Elsewhere thread : closing) {
                    thread.await();
                }
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
            device.capture(first, () -> new Elsewhere(() -> {
                arena.close();
                x[0] = again.allocate(DType.F32, 1024);
                Elementwise.fill(second, x[0], 2);
                second.synchronize();
            }).await()).close();
            first.synchronize();
            assertEquals(2, x[0].toFloats(second)[0]);
        }
    }

    /// One thread captures again and again while another closes what belongs to none of it.
    @Test
    void close_besideCaptures() {
        final int captures = 2000;
        try (Device device = Device.open("cuda"); Stream stream = device.newStream();
                DeviceArena arena = device.newArena("test")) {
            Tensor x = arena.allocate(DType.F32, 1);
            AtomicBoolean done = new AtomicBoolean();
            Elsewhere closing = new Elsewhere(() -> {
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
                closing.await();
            }
        }
    }

    /// Work on a thread of its own, and what it threw.
    private static final class Elsewhere {
        private final AtomicReference<@Nullable Throwable> trouble = new AtomicReference<>();
        private final Thread thread;

        Elsewhere(Runnable work) {
            thread = Thread.ofPlatform().uncaughtExceptionHandler((t, e) -> trouble.set(e)).start(work);
        }

        void await() {
            try {
                thread.join();
            } catch (InterruptedException e) {
                throw new IllegalStateException(e);
            }
            Throwable thrown = trouble.get();
            if (thrown != null) {
                throw new AssertionError("on the other thread", thrown);
            }
        }
    }
}
