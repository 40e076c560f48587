package io.gatun.softgpu;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.ops.ActivationKind;
import io.gatun.ops.Convolution.Geometry;
import io.gatun.ops.Convolution.Transposed;
import io.gatun.ops.Elementwise;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.DeviceArena;
import io.gatun.runtime.GatunException;
import io.gatun.runtime.Graph;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestFactory;

/// Convolutions by cuDNN: which calls they make, what happens when one fails, and that a graph does the same.
class ConvolutionFaultTest extends SoftGpuTest {
    private static final int EXECUTION_FAILED = 5000;
    private static final int IMAGES = 2;
    private static final int SIZE = 4;
    private static final int CHANNELS = 8;

    /// A device with a frozen weight in torch's order, and both kinds of convolution through it.
    private static final class Setup implements AutoCloseable {
        final Device device = Device.open("cuda");
        final Stream stream = device.newStream();
        final DeviceArena arena = device.newArena("convolutions");
        final Tensor x = arena.allocate(DType.F32, IMAGES, SIZE, SIZE, CHANNELS);
        final Tensor y = arena.allocate(DType.F32, IMAGES, SIZE, SIZE, CHANNELS);
        final Tensor z = arena.allocate(DType.F32, IMAGES, 2 * SIZE, 2 * SIZE, CHANNELS);
        final Tensor bias = arena.allocate(DType.F32, CHANNELS);
        final Tensor weight = waves(arena.allocate(DType.F32, CHANNELS, CHANNELS, 3, 3)).frozen().permute(0, 2, 3, 1);
        final Tensor upWeight = waves(arena.allocate(DType.F32, CHANNELS, CHANNELS, 4, 4)).frozen().permute(0, 2, 3, 1);

        final Tensor trained = waves(arena.allocate(DType.F32, CHANNELS, CHANNELS, 3, 3));
        final Tensor dx = arena.allocate(DType.F32, IMAGES, SIZE, SIZE, CHANNELS);
        final Tensor dweight = arena.allocate(DType.F32, CHANNELS, 3, 3, CHANNELS);

        Setup() {
            waves(x);
            waves(bias);
        }

        private Tensor waves(Tensor t) {
            float[] values = new float[Math.toIntExact(t.elements())];
            for (int i = 0; i < values.length; i++) {
                values[i] = (float) Math.sin(0.37 * i);
            }
            t.copyFrom(stream, values);
            return t;
        }

        /// Forward and all gradients of a convolution whose weight may change, as a training step has them.
        void train() {
            Tensor changing = trained.permute(0, 2, 3, 1);
            device.trainingConvolution(stream, y, x, changing, bias, Geometry.same(3), ActivationKind.NONE);
            device.convolutionInputGradient(stream, dx, y, changing, Geometry.same(3));
            device.convolutionWeightGradient(stream, dweight, y, x, Geometry.same(3));
        }

        float[] trained() {
            float[] gradients = Arrays.copyOf(dx.toFloats(stream), (int) (dx.elements() + dweight.elements()));
            System.arraycopy(dweight.toFloats(stream), 0, gradients, (int) dx.elements(), (int) dweight.elements());
            return gradients;
        }

        void run() {
            device.convolution(stream, y, x, weight, bias, Geometry.same(3), ActivationKind.NONE);
            device.transposedConvolution(stream, z, y, upWeight, null, Transposed.of(2, 1), ActivationKind.SILU);
        }

        @Override
        public void close() {
            arena.close();
            stream.close();
            device.close();
        }
    }

    private float[] result() {
        try (Setup s = new Setup()) {
            s.run();
            s.train();
            return s.z.toFloats(s.stream);
        }
    }

    private Map<String, Long> cudnnCalls() {
        Map<String, Long> calls = new TreeMap<>(gpu.calls());
        calls.keySet().removeIf(name -> !name.startsWith("cudnn"));
        calls.values().removeIf(uses -> uses == 0);
        return calls;
    }

    @TestFactory
    List<DynamicTest> everyCall_mayFail() {
        gpu.clearCounters();
        float[] expected = result();
        List<String> calls = cudnnCalls().keySet().stream().filter(name -> !name.startsWith("cudnnDestroy")).toList();
        assertTrue(calls.containsAll(List.of("cudnnConvolutionForward", "cudnnConvolutionBackwardData",
                "cudnnConvolutionBackwardFilter")), calls.toString());
        return calls.stream().map(symbol -> DynamicTest.dynamicTest(symbol, () -> {
            reset();
            gpu.fail(symbol, 1, EXECUTION_FAILED);
            GatunException failure = assertThrows(GatunException.class, this::result);
            assertTrue(failure.getMessage().contains(symbol + " failed: CUDNN_STATUS_EXECUTION_FAILED (5000)"),
                    failure.getMessage());
            gpu.clearFaults();
            assertEquals(Map.of(), live(), "not freed after " + symbol + " failed");
            assertArrayEquals(expected, result());
        })).toList();
    }

    /// A plan, an algorithm and a packed weight are made once, whatever the number of images and of calls.
    @Test
    void convolution_plansOnce() {
        try (Setup s = new Setup()) {
            long before = s.device.counters().snapshot().conversions();
            gpu.clearCounters();
            s.run();
            s.run();
            Map<String, Long> calls = cudnnCalls();
            assertEquals(1, calls.get("cudnnCreate"));
            assertEquals(1, calls.get("cudnnGetConvolutionForwardAlgorithm_v7"));
            assertEquals(2 * IMAGES, calls.get("cudnnConvolutionForward"));
            assertEquals(2 * IMAGES, calls.get("cudnnConvolutionBackwardData"));
            assertEquals(4 * CHANNELS * CHANNELS * (9 + 16), s.device.counters().snapshot().conversions() - before);
        }
    }

    @Test
    void graph_equalsEager() {
        try (Setup s = new Setup()) {
            GatunException early = assertThrows(GatunException.class, () -> s.device.capture(s.stream, s::run));
            assertTrue(early.getMessage().contains("run the work once before it is captured"), early.getMessage());
            s.run();
            float[] eager = s.z.toFloats(s.stream);
            try (Graph graph = s.device.capture(s.stream, s::run)) {
                s.waves(s.z);
                graph.launch();
                assertArrayEquals(eager, s.z.toFloats(s.stream));
            }
        }
    }

    /// In training a batch is one call, and what is planned is planned once.
    @Test
    void training_wholeBatches() {
        try (Setup s = new Setup()) {
            gpu.clearCounters();
            s.train();
            s.train();
            Map<String, Long> calls = cudnnCalls();
            for (String call : List.of("cudnnConvolutionForward", "cudnnConvolutionBackwardData",
                    "cudnnConvolutionBackwardFilter")) {
                assertEquals(2, calls.get(call), call);
            }
            assertEquals(1, calls.get("cudnnGetConvolutionBackwardFilterAlgorithm_v7"));
        }
    }

    /// A captured step reads the weight as it is at each launch.
    @Test
    void training_graphReadsChangedWeights() {
        try (Setup s = new Setup()) {
            s.train();
            float[] first = s.trained();
            try (Graph graph = s.device.capture(s.stream, s::train)) {
                Elementwise.scale(s.stream, s.trained, s.trained, 0.5f);
                graph.launch();
                float[] launched = s.trained();
                s.train();
                assertArrayEquals(s.trained(), launched);
                assertNotEquals(first[0], launched[0]);
            }
        }
    }
}
