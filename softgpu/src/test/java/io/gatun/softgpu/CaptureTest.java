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
}
