package io.gatun.io;

import io.gatun.runtime.GatunException;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import java.lang.foreign.MemorySegment;
import java.util.Arrays;
import java.util.function.Supplier;

/// Something that [SafetensorsWriter] can write: host values, or a tensor on a device, which is downloaded when its
/// turn comes, so that one tensor at a time is on the heap. Arrays are not copied: leave them alone until then.
public final class TensorSource {
    private final StoredDType dtype;
    private final long[] shape;
    private final Supplier<MemorySegment> data;

    private TensorSource(StoredDType dtype, long[] shape, Supplier<MemorySegment> data) {
        this.dtype = dtype;
        this.shape = shape.clone();
        this.data = data;
    }

    /// Values as F32.
    public static TensorSource of(float[] values, long... shape) {
        return host(StoredDType.F32, MemorySegment.ofArray(values), shape);
    }

    /// Values as I64.
    public static TensorSource of(long[] values, long... shape) {
        return host(StoredDType.I64, MemorySegment.ofArray(values), shape);
    }

    /// Bytes that are in the format already, little endian.
    public static TensorSource of(StoredDType dtype, byte[] bytes, long... shape) {
        return host(dtype, MemorySegment.ofArray(bytes), shape);
    }

    /// A contiguous tensor, downloaded through a stream when it is written.
    public static TensorSource of(Tensor tensor, Stream stream) {
        return new TensorSource(StoredDType.of(tensor.dtype()), tensor.shape(), () -> tensor.toBytes(stream));
    }

    /// The same values, rounded to nearest even as they are written.
    ///
    /// @param wanted F32, BF16 or F16
    public TensorSource as(StoredDType wanted) {
        if (wanted == dtype) {
            return this;
        }
        if (dtype != StoredDType.F32 || wanted != StoredDType.BF16 && wanted != StoredDType.F16) {
            throw GatunException.invalid("a tensor %s to write as %s, expected F32 to write as BF16 or F16", dtype,
                    wanted);
        }
        return new TensorSource(wanted, shape, () -> wanted.rounded(data.get()));
    }

    private static TensorSource host(StoredDType dtype, MemorySegment bytes, long[] shape) {
        boolean valid = Arrays.stream(shape).allMatch(d -> d >= 0);
        if (!valid || SafetensorsHeader.bytes(dtype, shape) != bytes.byteSize()) {
            throw GatunException.invalid("%d bytes of values for a tensor %s%s, which do not belong together",
                    bytes.byteSize(), dtype, Arrays.toString(shape));
        }
        return new TensorSource(dtype, shape, () -> bytes);
    }

    StoredDType dtype() {
        return dtype;
    }

    long[] shape() {
        return shape;
    }

    long bytes() {
        return SafetensorsHeader.bytes(dtype, shape);
    }

    MemorySegment data() {
        return data.get();
    }
}
