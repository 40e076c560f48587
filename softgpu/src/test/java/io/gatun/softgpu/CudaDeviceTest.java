package io.gatun.softgpu;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.ops.Elementwise;
import io.gatun.ops.Linear;
import io.gatun.ops.Linear.WeightLayout;
import io.gatun.ops.Norm;
import io.gatun.runtime.CudaSearch;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.DeviceArena;
import io.gatun.runtime.DeviceUnavailableException;
import io.gatun.runtime.Event;
import io.gatun.runtime.Graph;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Random;
import java.util.Set;
import java.util.TreeSet;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.ValueSource;

/// Does the CUDA device do what [Device] promises, and say why when it cannot be opened?
class CudaDeviceTest extends SoftGpuTest {
    private static final int NOT_SUPPORTED = 15; // CUBLAS_STATUS_NOT_SUPPORTED

    private static float[] random(int n, int seed) {
        Random random = new Random(seed);
        float[] values = new float[n];
        for (int i = 0; i < n; i++) {
            values[i] = (float) random.nextGaussian();
        }
        return values;
    }

    private static void assertUnavailable(String spec, String words) {
        DeviceUnavailableException e = assertThrows(DeviceUnavailableException.class, () -> Device.open(spec));
        assertTrue(e.getMessage().startsWith("device '" + spec) && e.getMessage().contains(words)
                && e.getMessage().endsWith("or use --device cpu"), e.getMessage());
        for (String library : new String[] {"libcudart.so.13", "libcublasLt.so.13"}) { // as `gatun doctor` says
            assertTrue(CudaSearch.report().stream().anyMatch(line -> line.endsWith(library)
                    && e.getMessage().contains(line)), library + " was found, which is not in: " + e.getMessage());
        }
    }

    @Test
    void open_auto() {
        try (Device device = Device.open("auto")) {
            assertEquals("cuda:0", device.name());
            assertTrue(device.description().contains("compute capability 9.0"), device.description());
        }
    }

    @Test
    void open_noDevice() {
        gpu.setDeviceCount(0);
        assertUnavailable("cuda:0", "there are 0 CUDA devices");
        try (Device device = Device.open("auto")) {
            assertEquals("cpu", device.name());
        }
    }

    @Test
    void open_tooHighOrdinal() {
        assertUnavailable("cuda:1", "there is 1 CUDA device");
    }

    @Test
    void open_oldArchitecture() {
        gpu.setComputeCapability(7, 5);
        assertUnavailable("cuda:0", "has compute capability 7.5, expected 8.0 (Ampere) or later");
    }

    @Test
    void open_oldDriver() {
        gpu.setDriverVersion(12040);
        assertUnavailable("cuda:0", "the driver supports CUDA 12.4, the CUDA runtime that was found is 13.0");
    }

    /// What Java changes after the call must not change the copy, although streams run late; and the other way round.
    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16", "F16"})
    void upload_isTheCallersAgainAtOnce(DType dtype) {
        int n = 3 << 20; // more than the staging memory
        try (Device device = Device.open("cuda"); Stream stream = device.newStream();
                DeviceArena arena = device.newArena("test")) {
            Tensor tensor = arena.allocate(dtype, n);
            float[] values = new float[n];
            for (int i = 0; i < n; i++) {
                values[i] = i % 251 - 125;
            }
            float[] expected = values.clone();
            tensor.copyFrom(stream, values);
            java.util.Arrays.fill(values, Float.NaN);
            assertArrayEquals(expected, tensor.toFloats(stream));
        }
    }

    @Test
    void waitFor_ordersStreams() {
        for (long order = 0; order < 8; order++) {
            gpu.setStreamOrder(order);
            try (Device device = Device.open("cuda"); Stream first = device.newStream();
                    Stream second = device.newStream(); DeviceArena arena = device.newArena("test")) {
                Tensor x = arena.allocate(DType.F32, 100);
                Elementwise.fill(first, x, 1);
                try (Event filled = device.record(first)) {
                    second.waitFor(filled);
                    Elementwise.scale(second, x, x, 3);
                    assertEquals(3, x.toFloats(second)[99]);
                    assertTrue(filled.millisSince(filled) == 0);
                }
            }
        }
    }

    /// Freed memory may be another stream's at once: closing waits for the work that uses it.
    @Test
    void close_waitsForTheDevice() {
        try (Device device = Device.open("cuda"); Stream first = device.newStream();
                Stream second = device.newStream()) {
            DeviceArena arena = device.newArena("first");
            Elementwise.fill(first, arena.allocate(DType.F32, 1024), 1);
            arena.close();
            try (DeviceArena again = device.newArena("again")) {
                Tensor x = again.allocate(DType.F32, 1024);
                Elementwise.fill(second, x, 2);
                second.synchronize();
                first.synchronize();
                assertEquals(2, x.toFloats(second)[0]);
            }
        }
    }

    @Test
    void streamClose_finishesItsWork() {
        try (Device device = Device.open("cuda"); Stream second = device.newStream();
                DeviceArena arena = device.newArena("test")) {
            Tensor x = arena.allocate(DType.F32, 100);
            try (Stream first = device.newStream()) {
                Elementwise.fill(first, x, 3);
            }
            assertEquals(3, x.toFloats(second)[99]);
        }
    }

    /// The captured work does what the same calls do, bit for bit, and again when its inputs have changed.
    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16", "F16"})
    void graph_equalsEager(DType dtype) {
        try (Device device = Device.open("cuda"); Stream stream = device.newStream();
                DeviceArena arena = device.newArena("test")) {
            Tensor x = arena.allocate(dtype, 5, 48);
            Tensor w = arena.allocate(dtype, 48, 64);
            Tensor bias = arena.allocate(dtype, 64);
            Tensor h = arena.allocate(dtype, 5, 48);
            Tensor y = arena.allocate(dtype, 5, 64);
            w.copyFrom(stream, random(48 * 64, 1));
            bias.copyFrom(stream, random(64, 2));
            Runnable work = () -> {
                Norm.layerNorm(stream, h, x, null, null, 1e-5f);
                device.matmulGeluTanh(stream, y, h, w, bias, WeightLayout.IN_OUT, true);
            };
            x.copyFrom(stream, random(5 * 48, 3));
            work.run();
            try (Graph graph = device.capture(stream, work)) {
                for (int seed = 4; seed < 7; seed++) {
                    x.copyFrom(stream, random(5 * 48, seed));
                    work.run();
                    float[] eager = y.toFloats(stream);
                    Elementwise.fill(stream, y, Double.NaN);
                    graph.launch();
                    assertArrayEquals(eager, y.toFloats(stream));
                }
            }
        }
    }

    /// A row is the same alone and among others, in a decode step.
    @ParameterizedTest
    @EnumSource(names = {"F32", "BF16", "F16"})
    void matmulRowwise_rowAlone(DType dtype) {
        rowAlone(dtype, 33, 72, 40);
        long products = gpu.calls().get("cublasLtMatmul");
        rowAlone(dtype, 3, 512, 260); // so many weights are our kernel's
        assertEquals(products, gpu.calls().get("cublasLtMatmul"));
    }

    private static void rowAlone(DType dtype, int n, int c, int f) {
        try (Device device = Device.open("cuda"); Stream stream = device.newStream();
                DeviceArena arena = device.newArena("test")) {
            Tensor x = arena.allocate(dtype, n, c);
            Tensor w = arena.allocate(dtype, f, c);
            Tensor y = arena.allocate(DType.F32, n, f);
            x.copyFrom(stream, random(n * c, 1));
            w.copyFrom(stream, random(f * c, 2));
            device.matmulRowwise(stream, y, x, w, null, WeightLayout.OUT_IN);
            float[] together = y.toFloats(stream);
            for (int row : new int[] {0, n / 2, n - 1}) {
                device.matmulRowwise(stream, y.slice(0, row, row + 1), x.slice(0, row, row + 1), w, null,
                        WeightLayout.OUT_IN);
            }
            assertArrayEquals(together, y.toFloats(stream));
        }
    }

    /// Our kernel multiplies where cuBLASLt knows no algorithm, or refuses the one that it gave, and goes on to.
    @ParameterizedTest
    @ValueSource(strings = {"cublasLtMatmulAlgoGetHeuristic", "cublasLtMatmul"})
    void matmul_withoutAnAlgorithm(String call) {
        try (Device device = Device.open("cuda"); Stream stream = device.newStream();
                DeviceArena arena = device.newArena("test")) {
            Tensor x = arena.allocate(DType.F32, 20, 24);
            Tensor w = arena.allocate(DType.F32, 16, 24);
            Tensor y = arena.allocate(DType.F32, 20, 16);
            Tensor expected = arena.allocate(DType.F32, 20, 16);
            x.copyFrom(stream, random(20 * 24, 1));
            w.copyFrom(stream, random(16 * 24, 2));
            Linear.linear(stream, expected, x, w, null, WeightLayout.OUT_IN);
            gpu.fail(call, 1, NOT_SUPPORTED);
            for (int i = 0; i < 2; i++) {
                device.matmul(stream, y, x, w, null, WeightLayout.OUT_IN);
                assertArrayEquals(expected.toFloats(stream), y.toFloats(stream));
            }
            assertEquals(1, gpu.calls().get(call));
        }
    }

    /// Every function that is bound exists in the stand-ins.
    @ParameterizedTest
    @ValueSource(strings = {"cudart", "cublaslt", "cudnn"})
    void boundFunctions_haveStandIns(String library) throws IOException {
        Path list = Path.of(System.getProperty("gatun.root"), "bindings/symbols/" + library + ".txt");
        Set<String> missing = new TreeSet<>();
        for (String line : Files.readAllLines(list)) {
            String name = line.substring(line.indexOf(' ') + 1);
            if (line.startsWith("function ") && !gpu.calls().containsKey(name)) {
                missing.add(name);
            }
        }
        assertEquals(Set.of(), missing);
    }

    /// Freed memory is used again without asking CUDA, and given back when the device needs it.
    @Test
    void memory_isCached() {
        gpu.setCapacity(64L << 20);
        try (Device device = Device.open("cuda")) {
            device.newWorkspace(20L << 20).close();
            long mallocs = gpu.calls().get("cudaMalloc");
            device.newWorkspace((20L << 20) - 100).close();
            assertEquals(mallocs, gpu.calls().get("cudaMalloc"));
            device.newWorkspace(60L << 20).close(); // fits only without the cached block
            assertEquals(60L << 20, gpu.counter(SoftGpu.Counter.LIVE_BYTES));
        }
    }
}
