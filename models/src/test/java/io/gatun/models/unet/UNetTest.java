package io.gatun.models.unet;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.io.SafetensorsFile;
import io.gatun.models.ComponentLoader.Component;
import io.gatun.models.GoldenCase;
import io.gatun.models.ImageForward;
import io.gatun.models.ImageNetwork;
import io.gatun.models.ImageNetworkLoader;
import io.gatun.models.TestDevice;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.Stream;
import java.nio.file.Path;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/// Do U-Nets compute what diffusers computes?
class UNetTest {
    static ImageForward.Prediction run(Path model, DType dtype, Path inputs) {
        try (Device device = Device.open(TestDevice.NAME, new Device.Options(2)); Stream stream = device.newStream();
                Component<ImageNetwork> loaded = ImageNetworkLoader.load(device, stream, model, dtype, count -> {});
                SafetensorsFile file = SafetensorsFile.open(inputs)) {
            return ImageForward.run(device, stream, loaded.network(), loaded.dtype(), file);
        }
    }

    private static ImageForward.Prediction run(GoldenCase golden, DType dtype) {
        return run(golden.model(), dtype, golden.directory().resolve("io.safetensors"));
    }

    static double worst(float[] expected, float[] actual) {
        double worst = 0;
        for (int i = 0; i < expected.length; i++) {
            worst = Math.max(worst, Double.isNaN(actual[i]) ? Double.POSITIVE_INFINITY
                    : Math.abs(expected[i] - actual[i]));
        }
        return worst;
    }

    @ParameterizedTest
    @ValueSource(strings = {"unet2d", "unet2d_cond_sd15"})
    void forward_f32(String name) {
        GoldenCase golden = new GoldenCase("diffusers/" + name);
        ImageForward.Prediction actual = run(golden, DType.F32);
        assertArrayEquals(golden.shape("sample_out"), actual.shape(), name);
        double worst = worst(golden.floats("sample_out"), actual.values());
        assertTrue(worst <= golden.tolerance(), () -> "%s on %s: differs by %s, allowed %s".formatted(name,
                TestDevice.NAME, worst, golden.tolerance()));
    }
}
