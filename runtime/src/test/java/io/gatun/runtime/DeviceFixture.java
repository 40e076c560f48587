package io.gatun.runtime;

import static org.junit.jupiter.api.Assertions.assertEquals;

import io.gatun.ops.cases.TestDevice;
import java.util.stream.IntStream;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Tag;

/// The device that a test run is about, with a stream and an arena, for each test; after it no memory of the device may
/// be in use.
@Tag("device")
abstract class DeviceFixture {
    final Device device = TestDevice.open(2);
    final Stream stream = device.newStream();
    final DeviceArena arena = device.newArena("test");

    @AfterEach
    void closeAll() {
        arena.close();
        stream.close();
        device.close();
        assertEquals(0, device.counters().snapshot().allocatedBytes(), "bytes in use after closing everything");
    }

    /// [shape] f32 holding 0, 1, 2, ...
    final Tensor counting(long... shape) {
        Tensor tensor = arena.allocate(DType.F32, shape);
        float[] values = new float[Math.toIntExact(tensor.elements())];
        IntStream.range(0, values.length).forEach(i -> values[i] = i);
        tensor.copyFrom(stream, values);
        return tensor;
    }
}
