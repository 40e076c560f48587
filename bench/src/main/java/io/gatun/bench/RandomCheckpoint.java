package io.gatun.bench;

import io.gatun.io.IoReason;
import io.gatun.io.SafetensorsWriter;
import io.gatun.io.StoredDType;
import io.gatun.io.TensorSource;
import io.gatun.models.ConfigFile;
import io.gatun.models.ImageNetwork;
import io.gatun.models.ImageNetworkLoader;
import io.gatun.models.WeightLoader;
import io.gatun.ops.cases.Rounding;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.GatunException;
import io.gatun.runtime.Shapes;
import io.gatun.runtime.Tensor;
import java.io.IOException;
import java.io.InputStream;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.SplittableRandom;

/// A denoising network's directory with random weights, as diffusers writes it, from its config alone: norms near 1,
/// everything else small enough that no activation overflows.
final class RandomCheckpoint {
    private static final double DEVIATION = 0.02;

    private RandomCheckpoint() {}

    /// The published U-Net of DDPM for images of 32 x 32 (google/ddpm-cifar10-32), with random weights.
    static void writeDdpmCifar10(Path directory, DType dtype, long seed) {
        try (InputStream config = RandomCheckpoint.class.getResourceAsStream("ddpm-cifar10-32.json")) {
            Files.createDirectories(directory);
            Files.write(directory.resolve("config.json"), config.readAllBytes());
        } catch (IOException e) {
            throw new GatunException(GatunException.Status.INTERNAL, "cannot write to %s: %s".formatted(directory,
                    IoReason.of(e)), e);
        }
        writeWeights(directory, dtype, seed);
    }

    /// Writes diffusion_pytorch_model.safetensors beside the config.json that is there; the same seed gives the same
    /// bytes.
    ///
    /// @param dtype f32 or bf16
    static void writeWeights(Path directory, DType dtype, long seed) {
        SplittableRandom random = new SplittableRandom(seed);
        Map<String, TensorSource> tensors = new LinkedHashMap<>();
        try (Device device = Device.open("cpu"); Shapes shapes = new Shapes(device)) {
            ImageNetwork network = ImageNetworkLoader.create(ConfigFile.read(directory.resolve("config.json")),
                    WeightLoader.shapes(shapes, dtype));
            network.weights().forEach((name, tensor) -> tensors.put(name, randomTensor(name, tensor, random)));
        }
        SafetensorsWriter.write(directory.resolve("diffusion_pytorch_model.safetensors"), tensors,
                Map.of("format", "pt"));
    }

    private static TensorSource randomTensor(String name, Tensor tensor, SplittableRandom random) {
        DType dtype = tensor.dtype();
        int n = Math.toIntExact(tensor.elements());
        double mean = name.contains("norm") && name.endsWith("weight") ? 1 : 0;
        ByteBuffer bytes = ByteBuffer.allocate(Math.multiplyExact(n, dtype.bytes())).order(ByteOrder.LITTLE_ENDIAN);
        for (int i = 0; i < n; i++) {
            float value = (float) Rounding.nearest(dtype, mean + DEVIATION * random.nextGaussian());
            if (dtype == DType.F32) {
                bytes.putFloat(value);
            } else {
                bytes.putShort((short) (Float.floatToRawIntBits(value) >>> 16));
            }
        }
        return TensorSource.of(StoredDType.valueOf(dtype.name()), bytes.array(), tensor.shape());
    }
}
