package io.gatun.io;

import io.gatun.ops.Elementwise;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.DeviceArena;
import io.gatun.runtime.GatunException;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import io.gatun.runtime.Upload;
import java.lang.foreign.MemorySegment;
import java.util.Arrays;
import org.jspecify.annotations.Nullable;

/// Brings one tensor of a file to a device with as few copies as can be: none where the device reads host memory and
/// dtype and alignment fit, one upload where it does not, and a counted conversion where the dtype differs.
final class TensorPlacement {
    private TensorPlacement() {}

    /// See [Checkpoint#load].
    static Tensor load(SafetensorsFile file, TensorInfo info, DeviceArena arena, Stream stream, DType wanted,
            long... expectedShape) {
        DType stored = checked(file, info, wanted, expectedShape);
        Device device = arena.device();
        FileBytes content = file.acquire();
        try {
            MemorySegment data = file.data(content, info);
            boolean readInPlace = device.addressesHostMemory() && data.address() % stored.bytes() == 0;
            if (stored == wanted) {
                return place(readInPlace, content, data, arena, stream, stored, expectedShape);
            }
            try (DeviceArena staging = device.newArena("staging of " + info)) {
                Tensor source = place(readInPlace, content, data, staging, stream, stored, expectedShape);
                Tensor converted = arena.allocate(wanted, expectedShape);
                Elementwise.cast(stream, converted, source);
                device.counters().countConversion(info.elements() * wanted.bytes());
                stream.synchronize(); // the source ends here
                return converted;
            }
        } finally {
            content.release();
        }
    }

    /// As [#load], for a device that does not address host memory: the bytes are on their way when this returns, and
    /// there when the upload has finished. The file's memory is held until the upload is closed.
    static Tensor load(SafetensorsFile file, TensorInfo info, DeviceArena arena, Upload upload, DType wanted,
            long... expectedShape) {
        DType stored = checked(file, info, wanted, expectedShape);
        FileBytes content = file.acquire();
        upload.whenClosed(content::release);
        Tensor tensor = arena.allocate(wanted, expectedShape);
        upload.add(tensor, stored, file.data(content, info));
        return tensor;
    }

    private static DType checked(SafetensorsFile file, TensorInfo info, DType wanted, long[] expectedShape) {
        if (!wanted.isFloat()) {
            throw GatunException.invalid("%s: tensor %s wanted as %s, expected f32, bf16 or f16", file.path(), info,
                    wanted);
        }
        if (info.dtype().isQuantised()) {
            throw new GatunException(GatunException.Status.UNSUPPORTED, ("%s: tensor %s: quantised checkpoints are not"
                    + " supported: use the original one in F32, BF16 or F16").formatted(file.path(), info));
        }
        @Nullable DType stored = info.dtype().dtype();
        if (stored == null || !stored.isFloat()) {
            throw GatunException.invalid("%s: tensor %s cannot be loaded as a weight, expected F32, BF16 or F16",
                    file.path(), info);
        }
        if (!Arrays.equals(info.shape(), expectedShape)) {
            throw GatunException.invalid("%s: tensor %s, expected shape %s: do the checkpoint and its config.json"
                    + " belong together?", file.path(), info, Arrays.toString(expectedShape));
        }
        return stored;
    }

    /// The data as it is stored, in an arena: looked at in place, or copied.
    private static Tensor place(boolean readInPlace, FileBytes content, MemorySegment data, DeviceArena arena,
            Stream stream, DType dtype, long[] shape) {
        if (readInPlace) {
            content.retain();
            try {
                arena.adopt(content::release);
            } catch (RuntimeException e) {
                content.release();
                throw e;
            }
            return arena.view(data, dtype, shape);
        }
        Tensor copy = arena.allocate(dtype, shape);
        copy.copyFrom(stream, data);
        if (arena.device().addressesHostMemory()) {
            arena.device().counters().countConversion(data.byteSize()); // no upload was needed, only alignment
        }
        return copy;
    }
}
