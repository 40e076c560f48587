package io.gatun.models;

import io.gatun.io.Checkpoint;
import io.gatun.ops.Elementwise;
import io.gatun.ops.Fp8;
import io.gatun.ops.Linear.WeightLayout;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.DeviceArena;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import io.gatun.runtime.Upload;
import java.util.ArrayList;
import java.util.IdentityHashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/// Turns matrices into e4m3 while they are loaded ([Quantization#FP8]), from the values that the checkpoint stores, so
/// that only a few of them are on the device as they were.
final class WeightQuantizer implements AutoCloseable {
    /// Of matrices that wait, as stored, and of copies of them: large uploads are fast ones, and this much the device
    /// has room for.
    private static final long MAX_WAITING_BYTES = 512L << 20;

    private final Checkpoint checkpoint;
    private final DeviceArena arena;
    private final Stream stream;
    private final long maxWaitingBytes;
    private final Map<Tensor, Tensor> scales = new IdentityHashMap<>();
    private final Map<String, Tensor> scalesByName = new LinkedHashMap<>();
    private final List<Runnable> waiting = new ArrayList<>();
    private @Nullable DeviceArena staging;
    private @Nullable Upload upload;
    private long waitingBytes;
    private long uploadedBytes;

    /// @param arena owns what is made
    WeightQuantizer(Checkpoint checkpoint, DeviceArena arena, Stream stream) {
        this(checkpoint, arena, stream, MAX_WAITING_BYTES);
    }

    WeightQuantizer(Checkpoint checkpoint, DeviceArena arena, Stream stream, long maxWaitingBytes) {
        this.checkpoint = checkpoint;
        this.arena = arena;
        this.stream = stream;
        this.maxWaitingBytes = maxWaitingBytes;
    }

    /// What [#load] takes of reserved memory.
    ///
    /// @param layout of a matrix of that shape
    static long bytesFor(WeightLayout layout, long... shape) {
        return DeviceArena.bytesFor(DType.F8_E4M3, shape)
                + DeviceArena.bytesFor(DType.F32, shape[layout == WeightLayout.OUT_IN ? 0 : 1]);
    }

    /// A matrix in e4m3, which may be used when this has [finished][#finish]: a view of that shape of memory [F, C].
    Tensor load(String name, WeightLayout layout, long... shape) {
        DType known = checkpoint.info(name).dtype().dtype();
        // what no weight is stored as is an error of checkpoint.load
        DType stored = known == null || !known.isFloat() ? DType.F32 : known;
        boolean outIn = layout == WeightLayout.OUT_IN;
        long bytes = checkpoint.info(name).bytes() * (outIn ? 1 : 2); // with a copy of [C, F] as [F, C]
        if (waitingBytes > 0 && waitingBytes + bytes > maxWaitingBytes) {
            quantizeWaiting();
        }
        DeviceArena from = staging();
        Tensor matrix = upload == null ? checkpoint.load(name, from, stream, stored, shape)
                : checkpoint.load(name, from, upload, stored, shape);
        waitingBytes += bytes;
        Tensor rows = outIn ? matrix : matrix.permute(1, 0);                                          // [F, C]
        Tensor quantized = arena.allocate(DType.F8_E4M3, rows.size(0), rows.size(1));                 // [F, C]
        Tensor scale = arena.allocate(DType.F32, rows.size(0));                                       // [F]
        waiting.add(() -> {
            Fp8.quantizeRows(stream, quantized, scale, outIn ? rows : contiguous(from, rows));
            arena.device().counters().countConversion(quantized.elements());
        });
        Tensor weight = (outIn ? quantized : quantized.permute(1, 0)).frozen();
        scales.put(weight, scale.frozen());
        scalesByName.put(name + "_scale", scale);
        return weight;
    }

    private DeviceArena staging() {
        DeviceArena open = staging;
        if (open == null) {
            Device device = arena.device();
            open = device.newArena("matrices to be quantised");
            staging = open;
            upload = device.addressesHostMemory() ? null : new Upload(device);
        }
        return open;
    }

    private Tensor contiguous(DeviceArena from, Tensor x) {
        Tensor copy = from.allocate(x.dtype(), x.shape());
        Elementwise.copy(stream, copy, x);
        return copy;
    }

    private void quantizeWaiting() {
        if (upload != null) {
            uploadedBytes += upload.finish().bytes();
        }
        waiting.forEach(Runnable::run);
        close();
    }

    /// Quantises what still waits.
    ///
    /// @return bytes that were uploaded
    long finish() {
        quantizeWaiting();
        return uploadedBytes;
    }

    /// The scale of each matrix. [F]
    Map<Tensor, Tensor> scales() {
        return scales;
    }

    /// By the matrix's name in the checkpoint followed by `_scale`.
    Map<String, Tensor> scalesByName() {
        return scalesByName;
    }

    /// Drops what waits; twice is fine.
    @Override
    public void close() {
        Upload running = upload;
        DeviceArena memory = staging;
        upload = null;
        staging = null;
        waiting.clear();
        waitingBytes = 0;
        try (memory; running) {
            if (memory != null) {
                stream.synchronize(); // work that was begun reads it
            }
        }
    }
}
