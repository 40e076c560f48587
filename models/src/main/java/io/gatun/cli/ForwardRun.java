package io.gatun.cli;

import io.gatun.io.SafetensorsFile;
import io.gatun.io.TensorSource;
import io.gatun.models.Layers;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.DeviceArena;
import io.gatun.runtime.GatunException;
import io.gatun.runtime.Plan;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.function.Consumer;

/// The inputs of a network from a file, passes over them, and the results for a file. Tensors of the file that nobody
/// asks for are left alone.
final class ForwardRun implements AutoCloseable {
    private final Device device;
    private final Stream stream;
    private final SafetensorsFile file;
    private final DeviceArena arena;
    private final Map<String, Tensor> results = new LinkedHashMap<>();

    ForwardRun(Device device, Stream stream, SafetensorsFile file) {
        this.device = device;
        this.stream = stream;
        this.file = file;
        this.arena = device.newArena("forward");
    }

    DeviceArena arena() {
        return arena;
    }

    /// Whether there is a tensor of one of these names.
    boolean has(String... names) {
        return Arrays.stream(names).anyMatch(file.names()::contains);
    }

    /// The first of these names that is there.
    ///
    /// @throws GatunException when there is none, or the tensor has another rank
    String find(int rank, String... names) {
        String name = find(names);
        if (shape(name).length != rank) {
            throw wrong(name, rank + " dimensions");
        }
        return name;
    }

    /// The first of these names that is there, whatever its rank.
    ///
    /// @throws GatunException when there is none
    String find(String... names) {
        for (String name : names) {
            if (has(name)) {
                return name;
            }
        }
        throw GatunException.invalid("%s has no tensor '%s'; it has %s", file.path(), String.join("' or '",
                List.of(names)), file.names());
    }

    long[] shape(String name) {
        return file.info(name).shape();
    }

    GatunException wrong(String name, String expected) {
        return GatunException.invalid("%s: %s has shape %s, expected %s", file.path(), name,
                Arrays.toString(shape(name)), expected);
    }

    /// The floats of a tensor of the file.
    float[] values(String name) {
        return file.floats(name);
    }

    /// A tensor of the file on the device, as f32.
    Tensor floats(String name) {
        Tensor tensor = arena.allocate(DType.F32, shape(name));
        tensor.copyFrom(stream, values(name));
        return tensor;
    }

    /// The integers of a tensor of the file.
    ///
    /// @throws GatunException for one that is not 0 to `limit` - 1
    int[] ids(String name, int limit) {
        long[] ids = file.longs(name);
        for (long id : ids) {
            if (id < 0 || id >= limit) {
                throw GatunException.invalid("%s: %s holds id %d, expected 0 to %d", file.path(), name, id, limit - 1);
            }
        }
        return Arrays.stream(ids).mapToInt(Math::toIntExact).toArray();
    }

    /// A tensor on the device for a result of this name.
    Tensor result(String name, DType dtype, long... shape) {
        Tensor tensor = arena.allocate(dtype, shape);
        results.put(name, tensor);
        return tensor;
    }

    /// An f32 result.
    Tensor result(String name, long... shape) {
        return result(name, DType.F32, shape);
    }

    void run(Consumer<Layers> work) {
        try (Plan plan = Plan.of(device, recorder -> work.accept(new Layers(device, stream, recorder)))) {
            plan.run();
        }
    }

    /// The results on the host, in the order in which they were asked for.
    Map<String, TensorSource> results() {
        Map<String, TensorSource> sources = new LinkedHashMap<>();
        results.forEach((name, tensor) -> sources.put(name, tensor.dtype() == DType.F32
                ? TensorSource.of(tensor.toFloats(stream), tensor.shape())
                : TensorSource.of(tensor.toLongs(stream), tensor.shape())));
        return sources;
    }

    @Override
    public void close() {
        arena.close();
    }
}
