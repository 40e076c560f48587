package io.gatun.cli;

import io.gatun.io.SafetensorsFile;
import io.gatun.io.TensorSource;
import io.gatun.models.ComponentLoader;
import io.gatun.models.ConfigFile;
import io.gatun.models.ImageNetworkLoader;
import io.gatun.models.ModelLoader;
import io.gatun.models.gan.Dcgan;
import io.gatun.models.gan.DcganConfig;
import io.gatun.models.gan.VaeDecoder;
import io.gatun.models.gan.VaeDecoderConfig;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.Stream;
import java.nio.file.Path;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/// How `gatun forward` runs one kind of model.
interface ForwardFamily {
    /// Loads the model and runs it once.
    ///
    /// @param dtype null: as the checkpoint is stored
    /// @return the outputs by name
    /// @throws io.gatun.runtime.GatunException when an input is missing or has another shape; says which
    Map<String, TensorSource> run(Device device, Stream stream, Path model, @Nullable DType dtype,
            SafetensorsFile inputs);

    /// The family of a directory, by the class that its config.json names.
    static ForwardFamily of(Path model) {
        ModelLoader.requireDirectory(model);
        ConfigFile config = ConfigFile.read(model.resolve("config.json"));
        String name = ComponentLoader.className(config);
        if (config.has("_class_name") && ImageNetworkLoader.CLASSES.contains(name)) {
            return new ImageNetworkForward();
        }
        return switch (name) {
            case "CLIPTextModel", "CLIPTextModelWithProjection", "clip_text_model" -> new ClipForward();
            case "AutoencoderKL" -> new AutoencoderKlForward();
            case "VQModel" -> new VqModelForward();
            case DcganConfig.MODEL_TYPE -> new LatentForward(Dcgan.FAMILY);
            case VaeDecoderConfig.MODEL_TYPE -> new LatentForward(VaeDecoder.FAMILY);
            default -> new LanguageForward();
        };
    }
}
