package io.gatun.models;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;

import io.gatun.ops.Linear.WeightLayout;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.DeviceArena;
import io.gatun.runtime.Plan;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import java.util.Arrays;
import java.util.Random;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

@Tag("device")
class LayersTest {
    private static final int C = 67;
    private static final int F = 33;

    private static float[] random(int seed, int n) {
        Random random = new Random(seed);
        float[] values = new float[n];
        for (int i = 0; i < n; i++) {
            values[i] = (float) random.nextGaussian();
        }
        return values;
    }

    /// From 17 rows on the CPU's products are another kernel's.
    @ParameterizedTest
    @ValueSource(ints = {1, 2, 4, 5})
    void linear_imageIsTheSameAloneAndInABatch(int side) {
        int n = side * side * C;
        try (Device device = Device.open(TestDevice.NAME, new Device.Options(2)); Stream stream = device.newStream();
                DeviceArena arena = device.newArena("test")) {
            Tensor weight = arena.allocate(DType.F32, F, C);
            weight.copyFrom(stream, random(1, F * C));
            float[] images = random(2, 3 * n);
            float[] all = linear(device, stream, arena, weight, images, 3, side);
            for (int image = 0; image < 3; image++) {
                float[] alone = linear(device, stream, arena, weight,
                        Arrays.copyOfRange(images, image * n, (image + 1) * n), 1, side);
                assertArrayEquals(Arrays.copyOfRange(all, image * alone.length, (image + 1) * alone.length), alone,
                        "image " + image + " of " + side + " x " + side);
            }
        }
    }

    private static float[] linear(Device device, Stream stream, DeviceArena arena, Tensor weight, float[] values,
            int images, int side) {
        Tensor x = arena.allocate(DType.F32, images, side, side, C);
        x.copyFrom(stream, values);
        Tensor y = arena.allocate(DType.F32, images, side, side, F);
        try (Plan plan = Plan.of(device, recorder ->
                new Layers(device, stream, recorder).linearInto(y, x, weight, null, WeightLayout.OUT_IN))) {
            plan.run();
            return y.toFloats(stream);
        }
    }
}
