package io.gatun.runtime;

import io.gatun.bindings.HostMemory;
import io.gatun.bindings.gatun.gt_tensor;
import java.lang.foreign.MemorySegment;
import java.util.Arrays;
import org.jspecify.annotations.Nullable;

/// An immutable view of device memory: dtype, shape, strides in elements, and the native descriptor, built once.
///
/// A tensor owns nothing and has no `close()`; it can be used until the [DeviceArena] or [Workspace] it came from is
/// closed, after which every use throws [IllegalStateException]. Views ([#slice], [#reshape], [#permute]) share the
/// memory and the lifetime. Tensors may be shared between threads; the work on them is ordered by a [Stream].
public final class Tensor {
    /// The largest rank a tensor can have.
    public static final int MAX_RANK = 5;

    private final Lifetime lifetime;
    private final long address;
    private final DType dtype;
    private final long[] shape;
    private final long[] stride;
    private final boolean frozen;
    private final @Nullable Tensor base;
    private final MemorySegment descriptor;

    private Tensor(Lifetime lifetime, long address, DType dtype, long[] shape, long[] stride, boolean frozen,
            @Nullable Tensor base) {
        if (shape.length > MAX_RANK) {
            throw GatunException.invalid("shape %s has rank %d, expected at most %d", Arrays.toString(shape),
                    shape.length, MAX_RANK);
        }
        this.lifetime = lifetime;
        this.address = address;
        this.dtype = dtype;
        this.shape = shape;
        this.stride = stride;
        this.frozen = frozen;
        this.base = base;
        this.descriptor = lifetime.newDescriptor(gt_tensor.sizeof(), d -> describe(d, address, dtype, shape, stride));
    }

    private static void describe(MemorySegment d, long address, DType dtype, long[] shape, long[] stride) {
        gt_tensor.data(d, MemorySegment.ofAddress(address));
        gt_tensor.dtype(d, dtype.code());
        gt_tensor.rank(d, shape.length);
        for (int i = 0; i < MAX_RANK; i++) {
            gt_tensor.shape(d, i, i < shape.length ? shape[i] : 1);
            gt_tensor.stride(d, i, i < shape.length ? stride[i] : 0);
        }
    }

    /// A contiguous tensor over memory that belongs to a lifetime.
    static Tensor contiguous(Lifetime lifetime, long address, DType dtype, long... shape) {
        return new Tensor(lifetime, address, dtype, shape.clone(), contiguousStrides(shape), false, null);
    }

    private static long[] contiguousStrides(long[] shape) {
        long[] stride = new long[shape.length];
        long step = 1;
        for (int i = shape.length - 1; i >= 0; i--) {
            stride[i] = step;
            step *= shape[i];
        }
        return stride;
    }

    /// Bytes of a contiguous tensor; [GatunException] when a dimension is negative or the product overflows.
    static long bytes(DType dtype, long... shape) {
        long bytes = dtype.bytes();
        try {
            for (long d : shape) {
                if (d < 0) {
                    throw new ArithmeticException();
                }
                bytes = Math.multiplyExact(bytes, d);
            }
        } catch (ArithmeticException e) {
            throw GatunException.invalid("shape %s: expected non-negative dimensions whose product fits 63 bits",
                    Arrays.toString(shape));
        }
        return bytes;
    }

    public Device device() {
        return lifetime.device();
    }

    public DType dtype() {
        return dtype;
    }

    public int rank() {
        return shape.length;
    }

    /// The size of a dimension; negative ones count from the end, -1 being the last.
    public long size(int dim) {
        return shape[index(dim)];
    }

    /// The step in elements from one index of a dimension to the next.
    public long stride(int dim) {
        return stride[index(dim)];
    }

    public long[] shape() {
        return shape.clone();
    }

    public long elements() {
        long n = 1;
        for (long d : shape) {
            n *= d;
        }
        return n;
    }

    public boolean isContiguous() {
        long step = 1;
        for (int i = shape.length - 1; i >= 0; i--) {
            if (shape[i] != 1 && stride[i] != step) {
                return elements() == 0;
            }
            step *= shape[i];
        }
        return true;
    }

    /// Indices `from` (inclusive) to `to` (exclusive) of one dimension. The result is a view; like every view it keeps
    /// a descriptor of 96 bytes until the lifetime ends, so make views once, not per step.
    public Tensor slice(int dim, long from, long to) {
        int d = index(dim);
        if (from < 0 || to < from || to > shape[d]) {
            throw GatunException.invalid("slice %d..%d of dimension %d of %s: expected 0 <= from <= to <= %d", from, to,
                    d, this, shape[d]);
        }
        long[] s = shape.clone();
        s[d] = to - from;
        return new Tensor(lifetime, address + from * stride[d] * dtype.bytes(), dtype, s, stride, frozen, base());
    }

    /// One index of a dimension, which disappears. The result is a view.
    public Tensor select(int dim, long at) {
        int d = index(dim);
        Tensor one = slice(d, at, at + 1);
        long[] s = new long[shape.length - 1];
        long[] t = new long[shape.length - 1];
        for (int i = 0, k = 0; i < shape.length; i++) {
            if (i != d) {
                s[k] = shape[i];
                t[k++] = stride[i];
            }
        }
        return new Tensor(lifetime, one.address, dtype, s, t, frozen, base());
    }

    /// The same elements in another shape; the tensor must be contiguous. The result is a view.
    public Tensor reshape(long... newShape) {
        if (!isContiguous()) {
            throw GatunException.invalid("reshape of %s: expected a contiguous tensor, copy it first", this);
        }
        if (bytes(dtype, newShape) != bytes(dtype, shape)) {
            throw GatunException.invalid("reshape of %s to %s: the number of elements differs", this,
                    Arrays.toString(newShape));
        }
        return new Tensor(lifetime, address, dtype, newShape.clone(), contiguousStrides(newShape), frozen, base());
    }

    /// The same bytes of a contiguous u8 tensor as another dtype.
    Tensor viewAs(DType other, long... newShape) {
        if (dtype != DType.U8 || bytes(other, newShape) != contiguousBytes() || address % other.bytes() != 0) {
            throw GatunException.invalid("view of %s as %s%s: expected bytes that are as many, and aligned", this,
                    other,
                    Arrays.toString(newShape));
        }
        return new Tensor(lifetime, address, other, newShape.clone(), contiguousStrides(newShape), frozen, base());
    }

    /// Dimension `i` of the result is dimension `order[i]` of this tensor. The result is a view.
    public Tensor permute(int... order) {
        boolean[] seen = new boolean[shape.length];
        long[] s = new long[shape.length];
        long[] t = new long[shape.length];
        boolean valid = order.length == shape.length;
        for (int i = 0; valid && i < order.length; i++) {
            int d = order[i];
            valid = d >= 0 && d < shape.length && !seen[d];
            if (valid) {
                seen[d] = true;
                s[i] = shape[d];
                t[i] = stride[d];
            }
        }
        if (!valid) {
            throw GatunException.invalid("permute %s of %s: expected each of 0..%d once", Arrays.toString(order), this,
                    shape.length - 1);
        }
        return new Tensor(lifetime, address, dtype, s, t, frozen, base());
    }

    /// Any shape and strides over the same memory, counted from this tensor's first element. The result is a view; the
    /// elements it reaches must lie within this tensor.
    public Tensor strided(long[] newShape, long[] newStride) {
        boolean inside = newShape.length == newStride.length;
        if (inside && bytes(dtype, newShape) > 0) {
            inside = elements() > 0 && reach(newShape, newStride) <= reach(shape, stride);
        }
        if (!inside) {
            throw GatunException.invalid("strided view %s with strides %s leaves %s", Arrays.toString(newShape),
                    Arrays.toString(newStride), this);
        }
        return new Tensor(lifetime, address, dtype, newShape.clone(), newStride.clone(), frozen, base());
    }

    /// The offset of the last element of a shape that is not empty; the largest long where a stride steps back or the
    /// offset overflows.
    private static long reach(long[] shape, long[] stride) {
        long last = 0;
        for (int i = 0; i < shape.length; i++) {
            long steps = shape[i] - 1;
            if (steps > 0 && (stride[i] < 0 || stride[i] > (Long.MAX_VALUE - last) / steps)) {
                return Long.MAX_VALUE;
            }
            last += steps * stride[i];
        }
        return last;
    }

    /// A view that promises that these elements will not change any more, as a model's weights: a device may then keep
    /// a copy in the layout its matrix products like best. Views of it are frozen too.
    public Tensor frozen() {
        return new Tensor(lifetime, address, dtype, shape, stride, true, base());
    }

    /// The tensor that was allocated, of which this is a view; itself where it is no view. Two tensors share memory
    /// only if they have one base.
    public Tensor base() {
        return base == null ? this : base;
    }

    /// Elements from the base's first to this tensor's first.
    public long offset() {
        return (address - base().address) / dtype.bytes();
    }

    /// The view of another tensor that this is of its own base: the same offset, shape and strides. Where gradients
    /// have the layout of the values, this finds the gradient of a view.
    ///
    /// @param other contiguous, with as many elements as the base
    public Tensor sameViewOf(Tensor other) {
        Tensor whole = base();
        if (!other.isContiguous() || other.elements() != whole.elements()) {
            throw GatunException.invalid("the view %s of %s in %s: expected a contiguous tensor of as many elements",
                    this,
                    whole, other);
        }
        return new Tensor(other.lifetime, other.address + offset() * other.dtype.bytes(), other.dtype, shape, stride,
                other.frozen, other.base());
    }

    boolean isFrozen() {
        return frozen;
    }

    /// Copies host values into this contiguous f32, bf16, f16 or f8_e4m3 tensor (rounded to nearest even), in order
    /// with the stream's work. Counted as a host to device transfer. Meant for inputs and tests.
    public void copyFrom(Stream stream, float... values) {
        device().upload(stream, this, HostData.encode(dtype, values));
    }

    /// Copies host values into this contiguous i32 or i64 tensor; otherwise as [#copyFrom(Stream, float...)].
    public void copyFrom(Stream stream, long... values) {
        device().upload(stream, this, HostData.encode(dtype, values));
    }

    /// As [#copyFrom(Stream, long...)].
    public void copyFrom(Stream stream, int... values) {
        device().upload(stream, this, HostData.encode(dtype, values));
    }

    /// Copies bytes as they are into this contiguous tensor; otherwise as [#copyFrom(Stream, float...)].
    public void copyFrom(Stream stream, MemorySegment bytes) {
        device().upload(stream, this, bytes);
    }

    /// The elements of this contiguous float tensor as f32, after the stream's work so far. Counted as a device to
    /// host transfer.
    public float[] toFloats(Stream stream) {
        return HostData.decodeFloats(dtype, device().download(stream, this));
    }

    /// The elements of this contiguous integer tensor; otherwise as [#toFloats].
    public long[] toLongs(Stream stream) {
        return HostData.decodeLongs(dtype, device().download(stream, this));
    }

    /// The bytes of this contiguous tensor as they are; otherwise as [#toFloats].
    public MemorySegment toBytes(Stream stream) {
        return device().download(stream, this);
    }

    /// `f32[2, 3]`
    @Override
    public String toString() {
        return dtype + Arrays.toString(shape);
    }

    /// The `gt_tensor` of this tensor for a native call on a stream that has been [entered][Stream#enter]; throws when
    /// the tensor cannot be used there. For classes that bind ops.
    public MemorySegment on(Stream stream) {
        lifetime.requireOpen();
        if (lifetime.device() != stream.device()) {
            throw GatunException.invalid("tensor %s is on %s, the stream on %s%s", this, lifetime.device(),
                    stream.device(), lifetime.device().name().equals(stream.device().name())
                            ? " that was opened another time: expected operands of one Device" : "");
        }
        stream.uses(lifetime);
        return descriptor;
    }

    /// The `gt_tensor` for a native call that looks at dtype and shape only, as queries do: also of a tensor that is
    /// being measured. For classes that bind ops.
    public MemorySegment shapeOn(Stream stream) {
        lifetime.requireShapes();
        return lifetime.device() == stream.device() ? descriptor : on(stream);
    }

    /// As [#on(Stream)]; NULL for an operand that is left out.
    public static MemorySegment on(@Nullable Tensor tensor, Stream stream) {
        return tensor == null ? MemorySegment.NULL : tensor.on(stream);
    }

    /// Where the elements lie in a mapped file: they are not needed there for now, because there is a copy.
    void letGoOfFile() {
        if (elements() > 0) {
            lifetime.letGoOfFile(address, (reach(shape, stride) + 1) * dtype.bytes());
        }
    }

    long address() {
        return address;
    }

    Lifetime lifetime() {
        return lifetime;
    }

    /// The memory of a contiguous tensor on a device whose memory the host can address.
    MemorySegment hostMemory() {
        lifetime.requireOpen();
        return HostMemory.view(address, contiguousBytes());
    }

    /// Bytes of a tensor that must be contiguous.
    long contiguousBytes() {
        if (!isContiguous()) {
            throw GatunException.invalid("%s is strided, expected contiguous: copy it first", this);
        }
        return bytes(dtype, shape);
    }

    private int index(int dim) {
        int d = dim < 0 ? dim + shape.length : dim;
        if (d < 0 || d >= shape.length) {
            throw GatunException.invalid("dimension %d of %s: expected %d to %d", dim, this, -shape.length,
                    shape.length - 1);
        }
        return d;
    }
}
