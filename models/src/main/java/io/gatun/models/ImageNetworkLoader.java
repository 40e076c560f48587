package io.gatun.models;

import io.gatun.models.dit.Dit;
import io.gatun.models.dit.DitConfig;
import io.gatun.models.unet.UNet;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.GatunException;
import io.gatun.runtime.Stream;
import java.nio.file.Path;
import java.util.List;
import java.util.function.IntConsumer;
import org.jspecify.annotations.Nullable;

/// Opens the folder of a denoising network (`unet` or `transformer` of a pipeline): config.json says which class.
public final class ImageNetworkLoader {
    /// The classes that [#load] knows.
    public static final List<String> CLASSES = List.of("UNet2DModel", "UNet2DConditionModel",
            "DiTTransformer2DModel", "Transformer2DModel");

    private ImageNetworkLoader() {}

    /// @param dtype    to compute in; null: as the checkpoint is stored
    /// @param progress told the number of weights loaded so far
    /// @throws GatunException when something in the directory is missing, damaged or not supported; says what
    public static ComponentLoader.Component<ImageNetwork> load(Device device, Stream stream, Path directory,
            @Nullable DType dtype, IntConsumer progress) {
        return ComponentLoader.load(device, stream, directory, dtype, ImageNetworkLoader::create, progress);
    }

    /// The network of a config. With [WeightLoader#shapes] it has no memory: for counting parameters and measuring
    /// plans.
    public static ImageNetwork create(ConfigFile config, WeightLoader loader) {
        return switch (ComponentLoader.className(config)) {
            case "UNet2DModel" -> UNet.unet2d(config, loader);
            case "UNet2DConditionModel" -> UNet.unet2dCondition(config, loader);
            case "DiTTransformer2DModel", "Transformer2DModel" -> new Dit(DitConfig.parse(config), loader);
            default -> throw GatunException.invalid("%s is that of %s, expected one of %s", config.file(),
                    ComponentLoader.className(config), String.join(", ", CLASSES));
        };
    }
}
