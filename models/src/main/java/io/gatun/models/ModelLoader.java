package io.gatun.models;

import io.gatun.io.Checkpoint;
import io.gatun.io.TensorInfo;
import io.gatun.ops.Linear.WeightLayout;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.DeviceArena;
import io.gatun.runtime.GatunException;
import io.gatun.runtime.Shapes;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Upload;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.EnumMap;
import java.util.Map;
import java.util.function.IntConsumer;
import java.util.function.ToLongFunction;
import org.jspecify.annotations.Nullable;

/// Opens a Hugging Face directory: config.json says which family, the family reads its weights.
public final class ModelLoader {
    private ModelLoader() {}

    /// A network and the arena that owns its weights.
    ///
    /// @param upload what was carried to the device, and how fast; null where the device reads the mapped file
    public record Result(CausalModel network, DeviceArena arena, long weightBytes, Upload.@Nullable Result upload)
            implements AutoCloseable {
        @Override
        public void close() {
            arena.close();
        }
    }

    /// @param dtype    to compute in; null: as the checkpoint is stored
    /// @param progress told the number of weights loaded so far
    /// @throws GatunException when something in the directory is missing, damaged or not supported; says what
    public static Result load(Device device, Stream stream, Path directory, @Nullable DType dtype,
            IntConsumer progress) {
        return load(device, stream, directory, dtype, Quantization.NONE, progress);
    }

    /// As above, with matrices quantised as they are loaded.
    ///
    /// @throws GatunException as above; when there is a quantization and `dtype`, or what null stands for, is f32
    public static Result load(Device device, Stream stream, Path directory, @Nullable DType dtype,
            Quantization quantization, IntConsumer progress) {
        requireDirectory(directory);
        ConfigFile config = LanguageFamily.config(directory);
        LanguageFamily family = LanguageFamily.of(config);
        if (config.has("quantization_config")) {
            throw config.wrong("quantization_config", "none: quantised checkpoints are not supported");
        }
        DeviceArena arena = device.newArena("weights of " + directory);
        try (Checkpoint checkpoint = Checkpoint.open(directory, "model");
                Upload upload = device.addressesHostMemory() ? null : new Upload(device)) {
            DType computed = dtype != null ? dtype : storedDtype(checkpoint);
            boolean quantizes = quantization == Quantization.FP8;
            if (quantizes) {
                requireSixteenBits(computed, dtype == null);
            }
            Map<String, WeightLayout> matrices = quantizes ? matrices(device, config, family, computed) : Map.of();
            reserve(device, arena, checkpoint, family.tableBytes(config, computed),
                    name -> bytesOf(checkpoint, name, family, computed, matrices));
            try (WeightQuantizer quantizer = quantizes ? new WeightQuantizer(checkpoint, arena, stream) : null) {
                CausalModel network = family.build(config, computed, new WeightLoader(checkpoint, arena, stream, upload,
                        computed, family.prefixes(), progress, quantizer), arena);
                if (quantizer == null) {
                    return result(network, arena, upload, 0);
                }
                long uploaded = quantizer.finish();
                return result(new QuantizedModel(network, quantizer.scales(), quantizer.scalesByName()), arena, upload,
                        uploaded);
            }
        } catch (RuntimeException e) {
            arena.close();
            throw e;
        }
    }

    /// @param moreUploaded bytes that came another way than by `upload`
    private static Result result(CausalModel network, DeviceArena arena, @Nullable Upload upload, long moreUploaded) {
        long bytes = network.weights().values().stream().mapToLong(t -> t.elements() * t.dtype().bytes()).sum();
        Upload.Result uploaded = upload == null ? null : upload.finish();
        return new Result(network, arena, bytes, uploaded == null ? null
                : new Upload.Result(uploaded.bytes() + moreUploaded, uploaded.nanos()));
    }

    private static void requireSixteenBits(DType computed, boolean isStored) {
        if (computed == DType.F32) {
            throw GatunException.invalid("quantization fp8 computes in bf16 or f16, %s f32: pass dtype bf16",
                    isStored ? "the checkpoint is stored in" : "dtype is");
        }
    }

    /// What a quantization applies to, by name without a prefix.
    private static Map<String, WeightLayout> matrices(Device device, ConfigFile config, LanguageFamily family,
            DType dtype) {
        try (Shapes shapes = new Shapes(device)) {
            WeightLoader declared = WeightLoader.shapes(shapes, dtype);
            family.declare(config, declared);
            return declared.matrices();
        }
    }

    private static long bytesOf(Checkpoint checkpoint, String name, LanguageFamily family, DType dtype,
            Map<String, WeightLayout> matrices) {
        long[] shape = checkpoint.info(name).shape();
        for (String prefix : family.prefixes()) {
            WeightLayout layout = name.startsWith(prefix) ? matrices.get(name.substring(prefix.length())) : null;
            if (layout != null && shape.length == 2) {
                return WeightQuantizer.bytesFor(layout, shape);
            }
        }
        return DeviceArena.bytesFor(dtype, shape);
    }

    /// All weights, and what else the model keeps, in one allocation; nothing where the mapped file is the memory.
    static void reserve(Device device, DeviceArena arena, Checkpoint checkpoint, DType dtype, long more) {
        reserve(device, arena, checkpoint, more, name -> DeviceArena.bytesFor(dtype, checkpoint.info(name).shape()));
    }

    private static void reserve(Device device, DeviceArena arena, Checkpoint checkpoint, long more,
            ToLongFunction<String> bytesOf) {
        if (!device.addressesHostMemory()) {
            long bytes = more;
            for (String name : checkpoint.names()) {
                bytes = Math.addExact(bytes, bytesOf.applyAsLong(name));
            }
            arena.reserve(bytes);
        }
    }

    /// @throws GatunException when there is no such directory
    public static void requireDirectory(Path directory) {
        if (!Files.isDirectory(directory)) {
            throw GatunException.invalid("%s: expected a Hugging Face model directory with config.json and"
                    + " model.safetensors", Files.exists(directory) ? directory + " is a file, not a directory"
                            : "no directory " + directory);
        }
    }

    /// The dtype that most bytes of the weights are stored in.
    static DType storedDtype(Checkpoint checkpoint) {
        Map<DType, Long> bytes = new EnumMap<>(DType.class);
        for (String name : checkpoint.names()) {
            TensorInfo info = checkpoint.info(name);
            DType dtype = info.dtype().dtype();
            if (dtype != null && dtype.isFloat()) {
                bytes.merge(dtype, info.bytes(), Long::sum);
            }
        }
        return bytes.entrySet().stream().max(Map.Entry.comparingByValue()).map(Map.Entry::getKey)
                .orElseThrow(() -> GatunException.invalid("%s holds no f32, bf16 or f16 weights: quantised"
                        + " checkpoints are"
                        + " not supported", checkpoint));
    }
}
