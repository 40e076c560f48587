package io.gatun.diffusion;

import io.gatun.models.ConfigFile;
import io.gatun.runtime.Device;
import io.gatun.runtime.Shapes;
import io.gatun.runtime.Stream;
import java.nio.file.Path;
import org.jspecify.annotations.Nullable;

/// Pictures in one pass from random numbers: the generator of a GAN, or the decoder of a VAE.
final class GeneratorPipeline {
    private GeneratorPipeline() {}

    static Pipeline open(Device device, Stream stream, Path directory, ConfigFile config, ImageModel.Options options,
            @Nullable Shapes shapes) {
        throw config.wrong("model_type", "something else");
    }
}
