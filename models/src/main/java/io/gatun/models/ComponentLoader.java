package io.gatun.models;

import io.gatun.io.Checkpoint;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.DeviceArena;
import io.gatun.runtime.GatunException;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Upload;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.function.IntConsumer;
import org.jspecify.annotations.Nullable;

/// Opens one network of a diffusers pipeline, such as its `unet` or `text_encoder` folder: config.json, and weights in
/// `diffusion_pytorch_model[.fp16].safetensors` or `model[.fp16].safetensors`, in one file or in shards.
public final class ComponentLoader {
    private static final List<String> BASE_NAMES = List.of("diffusion_pytorch_model", "model",
            "diffusion_pytorch_model.fp16", "model.fp16");

    private ComponentLoader() {}

    /// How a family makes its network.
    @FunctionalInterface
    public interface Family<T> {
        T create(ConfigFile config, WeightLoader loader);

        /// The dtype to compute in, where a config has a say.
        default DType dtype(ConfigFile config, DType asked) {
            return asked;
        }

        /// See [WeightLoader].
        default List<String> prefixes() {
            return List.of("");
        }
    }

    /// A network and the arena that owns its weights.
    ///
    /// @param dtype  what it computes in
    /// @param upload what was carried to the device, and how fast; null where the device reads the mapped file
    public record Component<T>(T network, DType dtype, DeviceArena arena, Upload.@Nullable Result upload)
            implements AutoCloseable {
        @Override
        public void close() {
            arena.close();
        }
    }

    /// The class that wrote a config: `_class_name` of diffusers, else the first of `architectures`, else `model_type`.
    public static String className(ConfigFile config) {
        if (config.has("_class_name")) {
            return config.requireString("_class_name");
        }
        List<String> architectures = config.getStrings("architectures");
        return architectures.isEmpty() ? config.requireString("model_type") : architectures.getFirst();
    }

    /// What a component would be computed in: `asked`, or, where that is null, what most of its weights are stored in.
    public static DType dtype(Path directory, @Nullable DType asked) {
        if (asked != null) {
            return asked;
        }
        ConfigFile config = ConfigFile.read(directory.resolve("config.json"));
        try (Checkpoint checkpoint = Checkpoint.open(directory, baseName(directory, config))) {
            return ModelLoader.storedDtype(checkpoint);
        }
    }

    /// @param dtype    to compute in; null: as the checkpoint is stored
    /// @param progress told the number of weights loaded so far
    /// @throws GatunException when something in the directory is missing, damaged or not supported; says what
    public static <T> Component<T> load(Device device, Stream stream, Path directory, @Nullable DType dtype,
            Family<T> family, IntConsumer progress) {
        ModelLoader.requireDirectory(directory);
        ConfigFile config = ConfigFile.read(directory.resolve("config.json"));
        if (config.has("quantization_config")) {
            throw config.wrong("quantization_config", "none: quantised checkpoints are not supported");
        }
        DeviceArena arena = device.newArena("weights of " + directory);
        try (Checkpoint checkpoint = Checkpoint.open(directory, baseName(directory, config));
                Upload upload = device.addressesHostMemory() ? null : new Upload(device)) {
            DType computed = family.dtype(config, dtype != null ? dtype : ModelLoader.storedDtype(checkpoint));
            ModelLoader.reserve(device, arena, checkpoint, computed, 0);
            WeightLoader loader = new WeightLoader(checkpoint, arena, stream, upload, computed, family.prefixes(),
                    progress);
            T network = family.create(config, loader);
            Upload.Result uploaded = upload == null ? null : upload.finish();
            loader.derive();
            return new Component<>(network, computed, arena, uploaded);
        } catch (RuntimeException e) {
            arena.close();
            throw e;
        }
    }

    /// The first base name that has a file or an index; else the one whose absence the message should be about.
    private static String baseName(Path directory, ConfigFile config) {
        for (String base : BASE_NAMES) {
            String index = base.endsWith(".fp16") ? base.replace(".fp16", "") + ".safetensors.index.fp16.json"
                    : base + ".safetensors.index.json";
            if (Files.exists(directory.resolve(base + ".safetensors")) || Files.exists(directory.resolve(index))
                    || Files.exists(directory.resolve(base + ".safetensors.index.json"))) {
                return base;
            }
        }
        return config.has("_class_name") ? BASE_NAMES.get(0) : BASE_NAMES.get(1);
    }
}
