package io.gatun.io;

import io.gatun.runtime.DType;
import io.gatun.runtime.DeviceArena;
import io.gatun.runtime.GatunException;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import io.gatun.runtime.Upload;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;

/// The weights in a folder as Hugging Face libraries wrote it: one safetensors file, or shards and their index. Opening
/// reads the headers only.
///
/// ```java
/// try (Checkpoint checkpoint = Checkpoint.open(folder)) {
///     Tensor embedding = checkpoint.load("wte.weight", arena, stream, DType.F32, vocab, channels);
///     ...
///     log(checkpoint.unused());
/// } // the arena keeps the mapped memory that its tensors look at
/// ```
///
/// May be shared between threads as far as the streams are not. `close()` twice is fine.
public final class Checkpoint implements AutoCloseable {
    private final Path directory;
    private final Map<String, SafetensorsFile> shards;
    private final Map<String, SafetensorsFile> homes;
    private final Set<String> used = ConcurrentHashMap.newKeySet();

    private Checkpoint(Path directory, Map<String, SafetensorsFile> shards, Map<String, SafetensorsFile> homes) {
        this.directory = directory;
        this.shards = shards;
        this.homes = homes;
    }

    /// Opens `model.safetensors`, or the shards of `model.safetensors.index.json`.
    public static Checkpoint open(Path directory) {
        return open(directory, "model");
    }

    /// Opens `<baseName>.safetensors` or the shards of its index. Tensors of a shard that the index does not name are
    /// left out.
    ///
    /// @param baseName `model`, `diffusion_pytorch_model`, or one with a variant: `model.fp16`
    /// @throws GatunException when there is no such file, a file is damaged, a shard or a tensor that the index names
    ///     is missing, or there are only files that Gatun refuses (pickle, GGUF); says which and what to do
    public static Checkpoint open(Path directory, String baseName) {
        return open(directory, baseName, FileBytes.Mode.configured());
    }

    static Checkpoint open(Path directory, String baseName, FileBytes.Mode mode) {
        CheckpointFiles files = CheckpointFiles.locate(directory, baseName);
        Map<String, SafetensorsFile> shards = new LinkedHashMap<>();
        Map<String, SafetensorsFile> homes = new LinkedHashMap<>();
        try {
            Path single = files.single();
            if (single != null) {
                SafetensorsFile file = SafetensorsFile.open(single, mode);
                shards.put(baseName, file);
                file.names().forEach(name -> homes.put(name, file));
            }
            files.weightMap().forEach((name, shard) -> {
                Path path = directory.resolve(shard);
                SafetensorsFile file = shards.computeIfAbsent(shard, s -> openShard(path, files, mode));
                if (!file.names().contains(name)) {
                    throw GatunException.invalid("%s: no tensor %s, which %s promises: copy or download both again",
                            path, TensorInfo.quote(name), files.index());
                }
                homes.put(name, file);
            });
        } catch (RuntimeException e) {
            shards.values().forEach(SafetensorsFile::close);
            throw e;
        }
        return new Checkpoint(directory, shards, homes);
    }

    private static SafetensorsFile openShard(Path path, CheckpointFiles files, FileBytes.Mode mode) {
        if (!Files.exists(path)) {
            throw GatunException.invalid("%s: missing, %s names it: copy or download it as well", path, files.index());
        }
        return SafetensorsFile.open(path, mode);
    }

    /// The names of the tensors, in the order of the index, or of their bytes where there is one file.
    public Set<String> names() {
        return Collections.unmodifiableSet(homes.keySet());
    }

    /// Dtype, shape and place of a tensor; says nothing of its use.
    ///
    /// @throws GatunException when there is none of that name
    public TensorInfo info(String name) {
        return home(name).info(name);
    }

    /// A weight on a device. Where the device addresses host memory, the dtype is the stored one and the data is
    /// aligned, the tensor is the mapped file itself: nothing is copied, and an op that wrote to it would end the
    /// process (train on a copy). Else the bytes are uploaded, converted if need be; conversions and realignment are
    /// [counted][io.gatun.runtime.TransferCounters.Snapshot#conversions()]. Either way the tensor lives as long as the
    /// arena; this checkpoint may be closed before.
    ///
    /// @param wanted        f32, bf16 or f16; rounded to nearest even where it is narrower than stored
    /// @param expectedShape what the model's config asks for
    /// @throws GatunException when there is none of that name, its shape is another, or it is not F32, BF16 or F16
    public Tensor load(String name, DeviceArena arena, Stream stream, DType wanted, long... expectedShape) {
        SafetensorsFile file = home(name);
        Tensor tensor = TensorPlacement.load(file, file.info(name), arena, stream, wanted, expectedShape);
        used.add(name);
        return tensor;
    }

    /// As [#load(String, DeviceArena, Stream, DType, long...)], for many weights and a device that does not address
    /// host memory: the tensor may be used when the upload has [finished][Upload#finish].
    public Tensor load(String name, DeviceArena arena, Upload upload, DType wanted, long... expectedShape) {
        SafetensorsFile file = home(name);
        Tensor tensor = TensorPlacement.load(file, file.info(name), arena, upload, wanted, expectedShape);
        used.add(name);
        return tensor;
    }

    /// The values of a tensor for the host, which counts as a use; see [SafetensorsFile#floats].
    public float[] floats(String name) {
        float[] values = home(name).floats(name);
        used.add(name);
        return values;
    }

    /// As [#floats]; see [SafetensorsFile#longs].
    public long[] longs(String name) {
        long[] values = home(name).longs(name);
        used.add(name);
        return values;
    }

    /// The names of the tensors that have not been used so far, in the order of [#names()].
    public Set<String> unused() {
        Set<String> names = new LinkedHashSet<>(homes.keySet());
        names.removeAll(used);
        return names;
    }

    private SafetensorsFile home(String name) {
        SafetensorsFile file = homes.get(name);
        if (file == null) {
            throw SafetensorsFile.missing(directory, name, names());
        }
        return file;
    }

    @Override
    public void close() {
        shards.values().forEach(SafetensorsFile::close);
    }

    @Override
    public String toString() {
        return "checkpoint " + directory + " with " + homes.size() + " tensors";
    }
}
