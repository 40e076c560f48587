package io.gatun.models;

import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.Stream;
import java.nio.file.Path;
import java.util.Map;

/// A model's raw outputs for one prompt, for tests that compare them.
public final class Forward {
    private Forward() {}

    /// All outputs of [FullForward].
    public static Map<String, float[]> run(Path directory, DType dtype, int[] ids) {
        try (Device device = Device.open(TestDevice.NAME, new Device.Options(2)); Stream stream = device.newStream();
                ModelLoader.Result model = ModelLoader.load(device, stream, directory, dtype, count -> {})) {
            return FullForward.run(device, stream, model.network(), ids);
        }
    }

    public static float[] logits(Path directory, int[] ids) {
        return run(directory, DType.F32, ids).get("logits");
    }
}
