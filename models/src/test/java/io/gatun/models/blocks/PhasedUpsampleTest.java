package io.gatun.models.blocks;

import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.io.SafetensorsWriter;
import io.gatun.io.TensorSource;
import io.gatun.models.ComponentLoader;
import io.gatun.models.Layers;
import io.gatun.models.ModelDirectory;
import io.gatun.models.TestDevice;
import io.gatun.models.WeightLoader;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.DeviceArena;
import io.gatun.runtime.Plan;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import java.nio.file.Path;
import java.util.Map;
import java.util.Random;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// Do four small convolutions give what doubling the image and one convolution give?
@Tag("device")
class PhasedUpsampleTest {
    private static final int C = 5;
    private static final int F = 3;

    @TempDir
    private Path folder;

    private final float[] image = normal(3, 2 * 3 * 4 * C);

    private static float[] normal(int seed, int n) {
        Random random = new Random(seed);
        float[] values = new float[n];
        for (int i = 0; i < n; i++) {
            values[i] = (float) random.nextGaussian();
        }
        return values;
    }

    private <T> float[] run(DType dtype, ComponentLoader.Family<T> family, Pass<T> forward) {
        try (Device device = Device.open(TestDevice.NAME, new Device.Options(2)); Stream stream = device.newStream();
                DeviceArena arena = device.newArena("test");
                ComponentLoader.Component<T> block = ComponentLoader.load(device, stream, folder, dtype, family,
                        n -> {})) {
            Tensor x = arena.allocate(dtype, 2, 3, 4, C);
            x.copyFrom(stream, image);
            Tensor y = arena.allocate(dtype, 2, 6, 8, F);
            try (Plan plan = Plan.of(device, recorder -> {
                Layers net = new Layers(device, stream, recorder);
                net.copyInto(y, forward.apply(block.network(), net, x));
            })) {
                plan.run();
                return y.toFloats(stream);
            }
        }
    }

    private interface Pass<T> {
        Tensor apply(T block, Layers net, Tensor x);
    }

    private void assertSame(DType dtype, double tolerance) {
        SafetensorsWriter.write(folder.resolve("model.safetensors"), Map.of(
                "up.conv.weight", TensorSource.of(normal(1, F * C * 9), F, C, 3, 3),
                "up.conv.bias", TensorSource.of(normal(2, F), F)), Map.of());
        ModelDirectory.writeText(folder.resolve("config.json"), "{\"model_type\": \"test\"}");
        float[] expected = run(DType.F32, (config, w) -> finished(w, Upsample.load(w, "up.", C, F)),
                Upsample::forward);
        float[] actual = run(dtype, (config, w) -> finished(w, PhasedUpsample.of(w, Upsample.load(w, "up.", C, F))),
                PhasedUpsample::forward);
        for (int i = 0; i < expected.length; i++) {
            int at = i;
            assertTrue(Math.abs(expected[i] - actual[i]) <= tolerance,
                    () -> "%s on %s, element %d: expected %s, actual %s".formatted(dtype,
                            TestDevice.NAME, at, expected[at], actual[at]));
        }
    }

    private static <T> T finished(WeightLoader w, T block) {
        w.finish(name -> false);
        return block;
    }

    @Test
    void forward_f32() {
        assertSame(DType.F32, 1e-5);
    }

    /// The roundings of image, weights, their sums and the result: half a unit each of values up to 4, times sqrt(45).
    @Test
    void forward_bf16() {
        assertSame(DType.BF16, 0.15);
    }
}
