package io.gatun.runtime;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;

import io.gatun.ops.ActivationKind;
import io.gatun.ops.Convolution;
import io.gatun.ops.Convolution.Geometry;
import io.gatun.ops.Convolution.Transposed;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/// What [Device#convolution] adds to a convolution on the CPU: packed weights, and a choice that must not show.
class ConvolutionDeviceTest {
    private final Device device = Device.open("cpu", new Device.Options(2));
    private final Stream stream = device.newStream();
    private final DeviceArena arena = device.newArena("test");

    @AfterEach
    void closeAll() {
        arena.close();
        stream.close();
        device.close();
        assertEquals(0, device.counters().snapshot().allocatedBytes(), "bytes in use after closing everything");
    }

    /// Shapes of a U-Net: neither the number of threads nor the other images change a bit.
    @ParameterizedTest
    @CsvSource({"F32, 16, 128, 128, 3, 1", "F32, 8, 320, 64, 3, 1", "F32, 16, 64, 128, 3, 2", "F32, 16, 320, 128, 1, 1",
        "F32, 16, 4, 64, 3, 1", "BF16, 16, 128, 128, 3, 1", "BF16, 8, 320, 64, 3, 1", "BF16, 16, 64, 128, 3, 2",
        "BF16, 16, 320, 128, 1, 1", "BF16, 16, 64, 3, 3, 1"})
    void convolution_threadsAndOtherImagesDoNotChangeBits(DType dtype, int size, int c, int f, int kernel, int stride) {
        Geometry g = Geometry.of(stride, kernel / 2);
        float[] all = run(dtype, 3, size, c, f, kernel, g, 1, 0);
        for (int threads : new int[] {2, 3}) {
            assertArrayEquals(all, run(dtype, 3, size, c, f, kernel, g, threads, 0), "1 and " + threads + " threads");
        }
        float[] second = run(dtype, 1, size, c, f, kernel, g, 2, 1);
        for (int i = 0; i < second.length; i++) {
            assertEquals(all[second.length + i], second[i], "image 1 alone, element " + i);
        }
    }

    /// Shapes of a U-Net: the number of threads changes no bit, however the library would like to cut the work. Of a
    /// batch that outweighs the weights, of weights that outweigh the batch, of one image, of a batch that does not
    /// split into eight.
    @ParameterizedTest
    @CsvSource({"F32, 16, 16, 32, 32, 3, 1", "F32, 8, 4, 128, 256, 3, 1", "F32, 1, 8, 64, 64, 3, 1",
        "F32, 7, 12, 16, 8, 3, 1", "F32, 5, 16, 64, 64, 4, 2", "F32, 3, 32, 64, 64, 3, 2", "F32, 4, 8, 64, 128, 1, 1",
        "BF16, 16, 16, 32, 32, 3, 1", "BF16, 8, 4, 128, 256, 3, 1", "BF16, 3, 32, 64, 64, 3, 2"})
    void gradients_threadsDoNotChangeBits(DType dtype, int images, int size, int c, int f, int kernel, int stride) {
        Geometry g = Geometry.of(stride, kernel == 4 ? 1 : kernel / 2);
        float[][] one = gradients(dtype, images, size, c, f, kernel, g, 1);
        for (int threads : new int[] {2, 3, 4}) {
            float[][] more = gradients(dtype, images, size, c, f, kernel, g, threads);
            for (int i = 0; i < one.length; i++) {
                assertArrayEquals(one[i], more[i], "1 and " + threads + " threads, result " + i);
            }
        }
    }

    /// y, dx and dweight.
    private static float[][] gradients(DType dtype, int images, int size, int c, int f, int kernel, Geometry g,
            int threads) {
        try (Device device = Device.open("cpu", new Device.Options(threads));
                Stream stream = device.newStream();
                DeviceArena arena = device.newArena("gradients")) {
            long out = g.outputHeight(size, kernel);
            Tensor x = arena.allocate(dtype, images, size, size, c);
            Tensor weight = arena.allocate(dtype, f, c, kernel, kernel).permute(0, 2, 3, 1);
            Tensor y = arena.allocate(dtype, images, out, out, f);
            Tensor dy = arena.allocate(dtype, y.shape());
            Tensor dx = arena.allocate(dtype, x.shape());
            Tensor dw = arena.allocate(DType.F32, f, c, kernel, kernel);
            x.copyFrom(stream, waves((int) x.elements()));
            weight.permute(0, 3, 1, 2).copyFrom(stream, waves(f * c * kernel * kernel));
            dy.copyFrom(stream, waves((int) dy.elements()));
            device.trainingConvolution(stream, y, x, weight, null, g, ActivationKind.NONE);
            device.convolutionInputGradient(stream, dx, dy, weight, g);
            device.convolutionWeightGradient(stream, dw.permute(0, 2, 3, 1), dy, x, g);
            return new float[][] {y.toFloats(stream), dx.toFloats(stream), dw.toFloats(stream)};
        }
    }

    private static float[] run(DType dtype, int images, int size, int c, int f, int kernel, Geometry g, int threads,
            int firstImage) {
        try (Device device = Device.open("cpu", new Device.Options(threads));
                Stream stream = device.newStream();
                DeviceArena arena = device.newArena("convolution")) {
            Tensor x = arena.allocate(dtype, images, size, size, c);
            Tensor weight = arena.allocate(dtype, f, c, kernel, kernel);
            long out = g.outputHeight(size, kernel);
            Tensor y = arena.allocate(dtype, images, out, out, f);
            float[] values = new float[images * size * size * c];
            for (int i = 0; i < values.length; i++) {
                values[i] = (float) Math.sin(0.37 * (i + firstImage * size * size * c));
            }
            x.copyFrom(stream, values);
            weight.copyFrom(stream, waves(f * c * kernel * kernel));
            device.convolution(stream, y, x, weight.permute(0, 2, 3, 1), null, g, ActivationKind.NONE);
            return y.toFloats(stream);
        }
    }

    private static float[] waves(int n) {
        float[] values = new float[n];
        for (int i = 0; i < n; i++) {
            values[i] = (float) Math.cos(0.11 * i);
        }
        return values;
    }

    /// Our kernel too works on a copy of a frozen weight, in the order that it likes best.
    @ParameterizedTest
    @CsvSource({"F32", "F16"})
    void transposedConvolution_frozenWeightIsCopiedOnce(DType dtype) {
        Tensor x = arena.allocate(dtype, 1, 3, 4, 5);
        x.copyFrom(stream, waves(3 * 4 * 5));
        Tensor weight = arena.allocate(dtype, 5, 7, 4, 4);
        weight.copyFrom(stream, waves(5 * 7 * 16));
        Tensor view = weight.permute(0, 2, 3, 1);
        Tensor expected = arena.allocate(dtype, 1, 6, 8, 7);
        Tensor y = arena.allocate(dtype, 1, 6, 8, 7);
        Convolution.convTranspose2d(stream, expected, x, view, null, Transposed.of(2, 1), ActivationKind.NONE);
        long before = device.counters().snapshot().conversions();
        for (int again = 0; again < 2; again++) {
            device.transposedConvolution(stream, y, x, view.frozen(), null, Transposed.of(2, 1), ActivationKind.NONE);
            assertArrayEquals(expected.toFloats(stream), y.toFloats(stream));
        }
        assertEquals(5 * 7 * 16 * dtype.bytes(), device.counters().snapshot().conversions() - before);
    }

    /// A frozen weight is packed once for all images and sizes that like the same layout; its memory's end is noticed.
    @Test
    void convolution_frozenWeightIsPackedOnce() {
        long before = device.counters().snapshot().conversions();
        Tensor y = arena.allocate(DType.F32, 1, 8, 8, 32);
        Tensor x = arena.allocate(DType.F32, 1, 8, 8, 32);
        x.copyFrom(stream, waves(8 * 8 * 32));
        for (int round = 0; round < 2; round++) {
            try (DeviceArena weights = device.newArena("weights")) {
                Tensor weight = weights.allocate(DType.F32, 32, 32, 3, 3);
                float[] values = waves(32 * 32 * 9);
                values[0] = round + 1;
                weight.copyFrom(stream, values);
                Tensor frozen = weight.permute(0, 2, 3, 1).frozen();
                Tensor expected = arena.allocate(DType.F32, 1, 8, 8, 32);
                Convolution.conv2d(stream, expected, x, frozen, null, Geometry.same(3), ActivationKind.NONE);
                for (int again = 0; again < 2; again++) {
                    device.convolution(stream, y, x, frozen, null, Geometry.same(3), ActivationKind.NONE);
                    assertArrayEquals(expected.toFloats(stream), y.toFloats(stream), 1e-3f, "round " + round);
                }
            }
        }
        assertEquals(2 * 32 * 32 * 9 * 4, device.counters().snapshot().conversions() - before,
                "bytes of packed weights");
    }
}
