package io.gatun.cli;

import io.gatun.io.SafetensorsFile;
import io.gatun.io.TensorSource;
import io.gatun.models.ComponentLoader.Component;
import io.gatun.models.ImageForward;
import io.gatun.models.ImageNetwork;
import io.gatun.models.ImageNetworkLoader;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.Stream;
import java.nio.file.Path;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/// Denoising networks: `sample` and what else [ImageForward] takes, to `sample_out`.
final class ImageNetworkForward implements ForwardFamily {
    ImageNetworkForward() {}

    @Override
    public Map<String, TensorSource> run(Device device, Stream stream, Path model, @Nullable DType dtype,
            SafetensorsFile inputs) {
        try (Component<ImageNetwork> loaded = ImageNetworkLoader.load(device, stream, model, dtype, count -> {})) {
            ImageForward.Prediction out = ImageForward.run(device, stream, loaded.network(), loaded.dtype(), inputs);
            return Map.of("sample_out", TensorSource.of(out.values(), out.shape()));
        }
    }
}
