package io.gatun.softgpu;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.DeviceArena;
import io.gatun.runtime.GatunException;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import java.lang.foreign.MemorySegment;
import java.util.SplittableRandom;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.jspecify.annotations.Nullable;

/// Which products of e4m3 operands does cuBLASLt do, and does our kernel do the others, with the same result?
class MatmulFp8DeviceTest extends SoftGpuTest {
    private static final String PRODUCT = "cublasLtMatmul";

    /// A product on the device, its operands on the host.
    private final class Product implements AutoCloseable {
        final Device device = Device.open("cuda");
        final Stream stream = device.newStream();
        final DeviceArena arena = device.newArena("test");
        final int n;
        final int c;
        final int f;
        final byte[] x;
        final byte[] weight;
        final float[] xScale;
        final float[] weightScale;
        final float[] bias;

        Product(int n, int c, int f) {
            this.n = n;
            this.c = c;
            this.f = f;
            SplittableRandom random = new SplittableRandom(7);
            x = codes(random, n * c);
            weight = codes(random, f * c);
            xScale = floats(random, n);
            weightScale = floats(random, f);
            bias = floats(random, f);
        }

        Tensor e4m3(byte[] codes, long... shape) {
            return put(arena.allocate(DType.F8_E4M3, shape), codes);
        }

        Tensor put(Tensor tensor, byte[] codes) {
            tensor.copyFrom(stream, MemorySegment.ofArray(codes));
            return tensor;
        }

        Tensor floatTensor(DType dtype, float[] values) {
            Tensor tensor = arena.allocate(dtype, values.length);
            tensor.copyFrom(stream, values);
            return tensor;
        }

        /// y, checked.
        float[] run(DType yType, @Nullable DType biasType) {
            Tensor y = arena.allocate(yType, n, f);
            device.matmulFp8(stream, y, e4m3(x, n, c), floatTensor(DType.F32, xScale), e4m3(weight, f, c),
                    floatTensor(DType.F32, weightScale), biasType == null ? null : floatTensor(biasType, bias));
            return check(y, biasType != null);
        }

        /// Exact products, sums in double; 2^-20 of the terms' size for sums in f32 of so few, and a last rounding.
        float[] check(Tensor y, boolean hasBias) {
            float[] actual = y.toFloats(stream);
            double unit = y.dtype() == DType.F32 ? 0x1p-23 : y.dtype() == DType.BF16 ? 0x1p-8 : 0x1p-11;
            for (int i = 0; i < n * f; i++) {
                double sum = 0;
                double size = 0;
                for (int k = 0; k < c; k++) {
                    double term = value(x[i / f * c + k]) * value(weight[i % f * c + k]);
                    sum += term;
                    size += Math.abs(term);
                }
                double scale = (double) xScale[i / f] * weightScale[i % f];
                double expected = scale * sum + (hasBias ? bias[i % f] : 0);
                assertEquals(expected, actual[i], scale * size * 0x1p-20 + unit * (Math.abs(expected) + 1e-3),
                        "y[%d, %d] of N=%d C=%d F=%d %s".formatted(i / f, i % f, n, c, f, y.dtype()));
            }
            return actual;
        }

        @Override
        public void close() {
            try (device; stream) {
                arena.close();
            }
        }
    }

    /// Multiples of 1/64: f32, bf16 and f16 hold them.
    private static float[] floats(SplittableRandom random, int n) {
        float[] values = new float[n];
        for (int i = 0; i < n; i++) {
            values[i] = random.nextInt(1, 64) / 64f;
        }
        return values;
    }

    /// Up to 15 of either sign, subnormals too.
    private static byte[] codes(SplittableRandom random, int n) {
        byte[] codes = new byte[n];
        for (int i = 0; i < n; i++) {
            codes[i] = (byte) (random.nextInt(0x58) | random.nextInt(2) << 7);
        }
        return codes;
    }

    private static double value(byte code) {
        int exponent = code >> 3 & 15;
        int mantissa = code & 7;
        double magnitude = exponent == 0 ? Math.scalb(mantissa, -9) : Math.scalb(8 + mantissa, exponent - 10);
        return code < 0 ? -magnitude : magnitude;
    }

    private void assertProducts(long expected, String what) {
        assertEquals(expected, gpu.calls().getOrDefault(PRODUCT, 0L), "products by cuBLASLt: " + what);
    }

    /// cuBLASLt wants rows of whole 16 bytes, any number of them, and knows a bias of y's 16-bit dtype alone.
    @ParameterizedTest
    @CsvSource({"5, 32, 16, BF16, , 1", "16, 48, 32, BF16, BF16, 1", "33, 16, 8, F16, F16, 1", "1, 16, 16, F32, , 1",
        "5, 32, 16, BF16, F32, 0", "5, 32, 16, F32, F32, 0", "5, 24, 16, BF16, , 0", "5, 32, 12, F16, F16, 0",
        "3, 33, 31, F32, F32, 0", "4, 1, 1, BF16, , 0"})
    void matmulFp8_byWhom(int n, int c, int f, DType yType, @Nullable DType biasType, int products) {
        try (Product product = new Product(n, c, f)) {
            product.run(yType, biasType);
            assertProducts(products, "N=%d C=%d F=%d %s bias %s".formatted(n, c, f, yType, biasType));
        }
    }

    /// Nor does it get operands that do not begin at 16 bytes.
    @Test
    void matmulFp8_unaligned() {
        int n = 4;
        int c = 32;
        int f = 16;
        try (Product p = new Product(n, c, f)) {
            Tensor y = p.arena.allocate(DType.BF16, n, f);
            Tensor x = p.e4m3(p.x, n, c);
            Tensor weight = p.e4m3(p.weight, f, c);
            Tensor xScale = p.floatTensor(DType.F32, p.xScale);
            Tensor weightScale = p.floatTensor(DType.F32, p.weightScale);
            Tensor odd = p.put(p.arena.allocate(DType.F8_E4M3, n * c + 8).slice(0, 8, n * c + 8), p.x).reshape(n, c);
            p.device.matmulFp8(p.stream, y, odd, xScale, weight, weightScale, null);
            p.check(y, false);
            Tensor later = p.arena.allocate(DType.F32, n + 1).slice(0, 1, n + 1);
            later.copyFrom(p.stream, p.xScale);
            p.device.matmulFp8(p.stream, y, x, later, weight, weightScale, null);
            p.check(y, false);
            assertProducts(0, "unaligned x and scale");
            p.device.matmulFp8(p.stream, y, x, xScale, weight, weightScale, null);
            p.check(y, false);
            assertProducts(1, "aligned");
        }
    }

    /// Scales that are vectors are for compute capability 9.0 alone.
    @ParameterizedTest
    @CsvSource({"8, 0", "8, 9", "10, 0", "12, 0"})
    void matmulFp8_otherGpus(int major, int minor) {
        gpu.setComputeCapability(major, minor);
        try (Product product = new Product(16, 32, 16)) {
            product.run(DType.BF16, DType.BF16);
            assertProducts(0, "compute capability %d.%d".formatted(major, minor));
        }
    }

    /// Whatever a library says of a product that it does not know, and whenever: NOT_SUPPORTED, ARCH_MISMATCH, INVALID.
    /// It is not asked again.
    @ParameterizedTest
    @CsvSource({"cublasLtMatmulAlgoGetHeuristic, 15", "cublasLtMatmulAlgoGetHeuristic, 8",
        "cublasLtMatmulAlgoGetHeuristic, 7", "cublasLtMatmul, 15", "cublasLtMatmul, 8", "cublasLtMatmul, 7"})
    void matmulFp8_withoutAnAlgorithm(String call, int status) {
        try (Product product = new Product(16, 32, 16)) {
            gpu.fail(call, 1, status);
            product.run(DType.BF16, DType.BF16);
            product.run(DType.BF16, DType.BF16);
            assertEquals(1, gpu.calls().get(call));
        }
    }

    /// What is no word about the algorithm ends the product, not the device.
    @ParameterizedTest
    @CsvSource({"cublasLtMatmul, 13", "cublasLtMatmulDescSetAttribute, 7", "cublasLtMatmulAlgoGetHeuristic, 14"})
    void matmulFp8_failed(String call, int status) {
        try (Product product = new Product(16, 32, 16)) {
            gpu.fail(call, 1, status);
            GatunException e = assertThrows(GatunException.class, () -> product.run(DType.BF16, null));
            assertTrue(e.getMessage().startsWith(call + " failed"), e.getMessage());
            product.run(DType.BF16, null);
        }
    }

    /// The algorithm is that of the weight: a row has the same bits alone.
    @Test
    void matmulFp8_rowAlone() {
        int n = 40;
        int c = 64;
        int f = 32;
        try (Product p = new Product(n, c, f)) {
            Tensor x = p.e4m3(p.x, n, c);
            Tensor xScale = p.floatTensor(DType.F32, p.xScale);
            Tensor weight = p.e4m3(p.weight, f, c);
            Tensor weightScale = p.floatTensor(DType.F32, p.weightScale);
            Tensor y = p.arena.allocate(DType.F32, n, f);
            p.device.matmulFp8(p.stream, y, x, xScale, weight, weightScale, null);
            float[] together = y.toFloats(p.stream);
            for (int row = 0; row < n; row += 4) { // whose scale lies at 16 bytes
                p.device.matmulFp8(p.stream, y.slice(0, row, row + 1), x.slice(0, row, row + 1),
                        xScale.slice(0, row, row + 1), weight, weightScale, null);
            }
            assertArrayEquals(together, y.toFloats(p.stream));
            assertProducts(11, "rows alone");
            assertEquals(1, gpu.calls().get("cublasLtMatmulAlgoGetHeuristic"));
        }
    }
}
