package io.gatun.runtime;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeFalse;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import io.gatun.ops.Elementwise;
import io.gatun.ops.Linear;
import io.gatun.ops.Linear.WeightLayout;
import io.gatun.ops.cases.HostValues;
import io.gatun.ops.cases.Layout;
import io.gatun.ops.cases.LinearCases;
import io.gatun.ops.cases.OpCase;
import io.gatun.ops.cases.Operand;
import io.gatun.ops.cases.Placement;
import io.gatun.ops.cases.Rounding;
import io.gatun.ops.cases.TestDevice;
import java.util.Arrays;
import java.util.Map;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.EnumSource;

/// Does [Device#matmul] give the product, whichever of our kernel and the vendor's library does the work?
class MatmulTest extends DeviceFixture {
    private static final long SEED = 3;
    /// On both sides of where oneDNN takes over.
    private static final int[] ROWS = {1, 16, 17, 64, 200};

    @ParameterizedTest
    @CsvSource({"F32, OUT_IN", "F32, IN_OUT", "BF16, OUT_IN", "BF16, IN_OUT", "F16, OUT_IN", "F16, IN_OUT"})
    void matmul_fewAndManyRows(DType dtype, WeightLayout layout) {
        for (int n : ROWS) {
            check(dtype, dtype, dtype, layout, n, 128, 96, Layout.STRIDED);
            check(dtype, dtype, null, layout, n, 127, 33, Layout.CONTIGUOUS);
            check(dtype, DType.F32, dtype, layout, n, 33, 129, Layout.STRIDED);
            check(dtype, dtype, DType.F32, layout, n, 257, 31, Layout.UNALIGNED);
        }
        check(dtype, dtype, dtype, layout, 17, 1, 1, Layout.STRIDED);
    }

    /// The same with tanh-GELU behind it, fused or not: whether a library can do it depends on the bias.
    @ParameterizedTest
    @CsvSource({"F32, OUT_IN", "F32, IN_OUT", "BF16, OUT_IN", "BF16, IN_OUT", "F16, OUT_IN", "F16, IN_OUT"})
    void matmulGeluTanh_everyBias(DType dtype, WeightLayout layout) {
        for (int n : ROWS) {
            for (DType yType : new DType[] {dtype, DType.F32}) {
                for (DType bias : new DType[] {null, dtype, DType.F32}) {
                    OpCase opCase = LinearCases.linear(dtype, yType, bias, layout, n, 40, 24);
                    HostValues in = opCase.values(SEED);
                    double[] oracle = geluTanh(yType, opCase.expected(in, Rounding.EXACT).get("y"), Rounding.EXACT);
                    double[] naive = geluTanh(yType, opCase.expected(in, Rounding.AS_DTYPE).get("y"),
                            Rounding.AS_DTYPE);
                    for (boolean rowwise : new boolean[] {false, true}) {
                        HostValues actual = run(opCase, in, Layout.STRIDED, 2,
                                (device, stream, t) -> device.matmulGeluTanh(stream, t.get("y"), t.get("x"),
                                        t.get("weight"), t.get("bias"), layout, rowwise));
                        assertNull(opCase.accuracy().violation(opCase.operands().getFirst(), oracle, naive,
                                actual.array("y")), "matmulGeluTanh on %s, %s, rowwise %s".formatted(TestDevice.name(),
                                        opCase, rowwise));
                    }
                }
            }
        }
    }

    private static double[] geluTanh(DType yType, double[] y, Rounding round) {
        return Arrays.stream(y).map(v -> {
            double inner = round.f32(Math.sqrt(2 / Math.PI)) * round.f32(v + round.f32(0.044715 * v * v * v));
            return round.store(yType, round.f32(0.5 * v * round.f32(1 + round.f32(Math.tanh(round.f32(inner))))));
        }).toArray();
    }

    /// No row looks at another one, whatever the number of columns.
    @ParameterizedTest
    @CsvSource({"F32, OUT_IN", "F32, IN_OUT", "BF16, OUT_IN", "BF16, IN_OUT", "F16, OUT_IN", "F16, IN_OUT"})
    void matmul_nanStaysInItsRow(DType dtype, WeightLayout layout) {
        int n = 33;
        int f = 32;
        for (int c : new int[] {1, 31, 32, 33, 34, 40, 64, 68, 128, 130}) {
            Tensor x = arena.allocate(dtype, n, c);
            Elementwise.fill(stream, x, 1);
            Elementwise.fill(stream, x.slice(0, 1, 2), Double.NaN);
            Tensor w = layout == WeightLayout.OUT_IN ? arena.allocate(dtype, f, c) : arena.allocate(dtype, c, f);
            Elementwise.fill(stream, w, 1);
            Tensor y = arena.allocate(DType.F32, n, f);
            device.matmul(stream, y, x, w, null, layout);
            float[] values = y.toFloats(stream);
            for (int i = 0; i < n * f; i++) {
                assertEquals(i / f == 1 ? Float.NaN : c, values[i],
                        "matmul on %s, %s, %s, C=%d: y[%d, %d]".formatted(device, dtype, layout, c, i / f, i % f));
            }
        }
    }

    /// A sum of no terms is the bias; no rows and no columns are no work.
    @ParameterizedTest
    @EnumSource(WeightLayout.class)
    void matmul_emptyDimensions(WeightLayout layout) {
        for (int n : new int[] {3, 33}) {
            check(DType.F32, DType.F32, DType.F32, layout, n, 0, 5, Layout.CONTIGUOUS);
            check(DType.BF16, DType.F32, null, layout, n, 0, 5, Layout.CONTIGUOUS);
            check(DType.F32, DType.F32, DType.F32, layout, n, 5, 0, Layout.CONTIGUOUS);
        }
        check(DType.F32, DType.F32, null, layout, 0, 5, 7, Layout.CONTIGUOUS);
    }

    /// Long sums for few results are where a library would like to split the sum over threads.
    @ParameterizedTest
    @EnumSource(WeightLayout.class)
    void matmul_threadsDoNotChangeBits(WeightLayout layout) {
        for (int n : ROWS) {
            for (int[] size : new int[][] {{4096, 8}, {1000, 33}, {64, 300}}) {
                OpCase opCase = LinearCases.linear(DType.F32, DType.F32, DType.F32, layout, n, size[0], size[1]);
                HostValues in = opCase.values(SEED);
                assertArrayEquals(run(opCase, in, layout, Layout.CONTIGUOUS, 1).floats("y"),
                        run(opCase, in, layout, Layout.CONTIGUOUS, 2).floats("y"), opCase + " with 1 and 2 threads");
            }
        }
    }

    /// A promise that a weight does not change may change how it is read, not what comes out; nor may it confuse views
    /// that begin at one address.
    @Test
    void matmul_frozenWeightAndViewsOfIt() {
        int n = 64;
        int c = 40;
        Tensor x = arena.allocate(DType.F32, n, c);
        Tensor weight = arena.allocate(DType.F32, c, 1024);
        x.copyFrom(stream, waves(n * c, 0.37f));
        weight.copyFrom(stream, waves(c * 1024, 0.11f));
        Tensor frozen = weight.frozen();
        for (long[] view : new long[][] {{c, 1024}, {c, 512}, {c - 8, 1024}, {c, 1024}, {c - 8, 40}}) {
            Tensor some = x.slice(1, 0, view[0]);
            Tensor expected = arena.allocate(DType.F32, n, view[1]);
            Tensor actual = arena.allocate(DType.F32, n, view[1]);
            Linear.linear(stream, expected, some, weight.slice(0, 0, view[0]).slice(1, 0, view[1]), null,
                    WeightLayout.IN_OUT);
            device.matmul(stream, actual, some, frozen.slice(0, 0, view[0]).slice(1, 0, view[1]), null,
                    WeightLayout.IN_OUT);
            assertArrayEquals(expected.toFloats(stream), actual.toFloats(stream), 1e-4f,
                    "weight [%d, %d] of one frozen tensor".formatted(view[0], view[1]));
        }
    }

    /// More shapes than are kept.
    @Test
    void matmul_manyShapes() {
        Tensor w = counting(3, 2);
        for (int n = 17; n < 17 + 150; n++) {
            Tensor y = arena.allocate(DType.F32, n, 3);
            Tensor x = counting(n, 2);
            device.matmul(stream, y, x, w, null, WeightLayout.OUT_IN);
            float last = 2f * n - 1;
            assertEquals((last - 1) * 4 + last * 5, y.toFloats(stream)[3 * n - 1], "N=" + n);
        }
    }

    /// Rows of x that lie over each other, as in a sliding window, and rows that are one row.
    @Test
    void matmul_overlappingRows() {
        Tensor signal = counting(40);
        Tensor w = counting(2, 4);
        for (long step : new long[] {0, 1, 2}) {
            Tensor windows = signal.strided(new long[] {18, 4}, new long[] {step, 1});
            Tensor y = arena.allocate(DType.F32, 18, 2);
            device.matmul(stream, y, windows, w, null, WeightLayout.OUT_IN);
            float[] values = y.toFloats(stream);
            for (int i = 0; i < 18; i++) {
                float at = i * step;
                assertEquals(6 * at + 14, values[2 * i], "step " + step + ", row " + i);
                assertEquals(22 * at + 38, values[2 * i + 1], "step " + step + ", row " + i);
            }
        }
    }

    @ParameterizedTest
    @EnumSource(WeightLayout.class)
    void matmul_wrongOperands(WeightLayout layout) {
        for (int n : new int[] {3, 33}) {
            boolean outIn = layout == WeightLayout.OUT_IN;
            Tensor x = counting(n, 5);
            Tensor w = outIn ? counting(7, 5) : counting(5, 7);
            Tensor y = counting(n, 7);
            refused(y, x, w.permute(1, 0), null, layout);
            refused(y, x, counting(7, 7), null, layout);
            refused(counting(n, 6), x, w, null, layout);
            refused(counting(n + 1, 7), x, w, null, layout);
            refused(counting(n, 7, 1), x, w, null, layout);
            refused(y, counting(n, 1, 5), w, null, layout);
            refused(y, x, w.reshape(1, w.size(0), w.size(1)), null, layout);
            refused(y, counting(n), w, null, layout);
            refused(y, counting(5, n).permute(1, 0), w, null, layout);
            refused(counting(7, n).permute(1, 0), x, w, null, layout);
            refused(y, x, w, counting(6), layout);
            refused(y, x, w, counting(1, 7), layout);
            refused(y, x, w, counting(14).strided(new long[] {7}, new long[] {2}), layout);
            refused(y, x, w, arena.allocate(DType.BF16, 7), layout);
            refused(y, x, w, arena.allocate(DType.I32, 7), layout);
            refused(y, x, arena.allocate(DType.BF16, w.shape()), null, layout);
            refused(arena.allocate(DType.BF16, n, 7), x, w, null, layout);
            refused(arena.allocate(DType.I32, n, 7), x, w, null, layout);
            Tensor ids = arena.allocate(DType.I32, n, 5);
            refused(arena.allocate(DType.I32, n, 7), ids, arena.allocate(DType.I32, w.shape()), null, layout);
            device.matmul(stream, y, x, w, null, layout);
        }
        Tensor scalar = counting();
        assertThrows(GatunException.class, () -> device.matmul(stream, scalar, scalar, scalar, null, layout));
    }

    /// Our own kernel does all rows where oneDNN is not on the class path.
    @Test
    void matmul_withoutOneDnn() throws Exception {
        assumeTrue(TestDevice.isCpu(), "oneDNN is for the CPU");
        ChildJvm.Result result = ChildJvm.runWithoutOneDnn(ManyRows.class);
        assumeFalse(result.output().contains("Install libgomp"), "this machine has no libgomp of its own");
        assertEquals("14.0 38.0 14.0\noneDNN: not on the class path\n", result.text());
        assertEquals("14.0 38.0 14.0\noneDNN: libdnnl.so.3\n", ChildJvm.run(ManyRows.class).text());
    }

    static final class ManyRows {
        private ManyRows() {}

        public static void main(String[] args) {
            try (Device device = Device.open("cpu", new Device.Options(1));
                    Stream stream = device.newStream();
                    DeviceArena arena = device.newArena("many rows")) {
                Tensor x = arena.allocate(DType.F32, 64, 4);
                float[] values = new float[256];
                for (int i = 0; i < values.length; i++) {
                    values[i] = i % 4;
                }
                x.copyFrom(stream, values);
                Tensor w = arena.allocate(DType.F32, 2, 4);
                w.copyFrom(stream, 0f, 1f, 2f, 3f, 4f, 5f, 6f, 7f);
                Tensor y = arena.allocate(DType.F32, 64, 2);
                device.matmul(stream, y, x, w, null, WeightLayout.OUT_IN);
                float[] product = y.toFloats(stream);
                System.out.println(product[0] + " " + product[1] + " " + product[126]);
            }
            for (String line : NativeLibraries.report()) {
                if (line.startsWith("oneDNN: not on the class path")) {
                    System.out.println("oneDNN: not on the class path");
                } else if (line.startsWith("oneDNN: ")) {
                    System.out.println("oneDNN: " + line.replaceAll(".*/(libdnnl[^ /]*) .*", "$1"));
                }
            }
        }
    }

    private void refused(Tensor y, Tensor x, Tensor weight, @Nullable Tensor bias, WeightLayout layout) {
        String what = "y %s x %s weight %s bias %s %s".formatted(y, x, weight, bias, layout);
        GatunException e = assertThrows(GatunException.class,
                () -> device.matmul(stream, y, x, weight, bias, layout), what);
        assertEquals(GatunException.Status.INVALID_ARGUMENT, e.status(), what + ": " + e.getMessage());
        assertTrue(e.getMessage().matches("(linear|matmul)\\b.*"), what + ": " + e.getMessage());
    }

    private static void check(DType dtype, DType yType, @Nullable DType bias, WeightLayout layout, int n, int c, int f,
            Layout memory) {
        OpCase opCase = LinearCases.linear(dtype, yType, bias, layout, n, c, f);
        HostValues in = opCase.values(SEED);
        Map<String, double[]> oracle = opCase.expected(in, Rounding.EXACT);
        Map<String, double[]> naive = opCase.expected(in, Rounding.AS_DTYPE);
        HostValues one = run(opCase, in, layout, memory, 1);
        HostValues two = run(opCase, in, layout, memory, 2);
        Operand y = opCase.operands().getFirst();
        String wrong = opCase.accuracy().violation(y, oracle.get("y"), naive.get("y"), one.array("y"));
        assertNull(wrong, "matmul on %s, 1 thread, %s, %s".formatted(TestDevice.name(), opCase, memory));
        if (dtype == DType.F32) {
            assertArrayEquals(one.floats("y"), two.floats("y"), opCase + " with 1 and 2 threads");
        } else {
            assertNull(opCase.accuracy().violation(y, oracle.get("y"), naive.get("y"), two.array("y")),
                    "matmul on %s, 2 threads, %s, %s".formatted(TestDevice.name(), opCase, memory));
        }
    }

    private static HostValues run(OpCase opCase, HostValues in, WeightLayout layout, Layout memory, int threads) {
        return run(opCase, in, memory, threads, (device, stream, t) -> device.matmul(stream, t.get("y"), t.get("x"),
                t.get("weight"), t.get("bias"), layout));
    }

    private interface Product {
        void run(Device device, Stream stream, Map<String, Tensor> operands);
    }

    private static HostValues run(OpCase opCase, HostValues in, Layout memory, int threads, Product product) {
        try (Device device = TestDevice.open(threads);
                Stream stream = device.newStream();
                DeviceArena arena = device.newArena("MatmulTest")) {
            Placement placement = new Placement(opCase, arena, stream, memory, in, null);
            product.run(device, stream, placement.tensors());
            Placement.Contents contents = placement.read();
            assertNull(contents.strayWrite(), "matmul " + opCase + " " + memory);
            return contents.values();
        }
    }

    private static float[] waves(int n, float step) {
        float[] values = new float[n];
        for (int i = 0; i < n; i++) {
            values[i] = (float) Math.sin(i * step);
        }
        return values;
    }
}
