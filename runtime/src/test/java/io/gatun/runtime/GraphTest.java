package io.gatun.runtime;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertSame;
import static org.junit.jupiter.api.Assertions.assertThrows;

import io.gatun.ops.Elementwise;
import org.junit.jupiter.api.Test;

class GraphTest extends DeviceFixture {
    @Test
    void launch_replaysTheRecordedOps() {
        Tensor x = counting(3);
        Tensor sum = arena.allocate(DType.F32, 3);
        Elementwise.fill(stream, sum, 0);
        try (Graph graph = device.capture(stream, () -> {
            Elementwise.add(stream, sum, sum, x);
            Elementwise.scale(stream, x, x, 10);
        })) {
            assertSame(stream, graph.stream());
            assertArrayEquals(new float[3], sum.toFloats(stream), "capturing runs nothing");
            graph.launch();
            assertArrayEquals(new float[] {0, 1, 2}, sum.toFloats(stream));
            graph.launch();
            assertArrayEquals(new float[] {0, 11, 22}, sum.toFloats(stream));
            x.copyFrom(stream, 1f, 1f, 1f);
            graph.launch();
            assertArrayEquals(new float[] {1, 12, 23}, sum.toFloats(stream), "operands are read at the launch");
        }
    }

    @Test
    void close_twiceAndLaunchAfter() {
        Tensor x = counting(3);
        Graph graph = device.capture(stream, () -> Elementwise.fill(stream, x, 9));
        graph.close();
        graph.close();
        assertThrows(IllegalStateException.class, graph::launch);
        assertArrayEquals(new float[] {0, 1, 2}, x.toFloats(stream));
    }

    @Test
    void launch_afterTheArenaClosed() {
        DeviceArena other = device.newArena("other");
        Tensor x = other.allocate(DType.F32, 3);
        try (Graph graph = device.capture(stream, () -> Elementwise.fill(stream, x, 9))) {
            other.close();
            assertThrows(IllegalStateException.class, graph::launch);
        }
    }
}
