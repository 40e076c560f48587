package io.gatun.runtime;

import io.gatun.ops.Elementwise;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;

/// What products and convolutions of one stream keep of weights and biases: copies of frozen weights in the order of
/// memory that a kernel reads well, biases in the dtype that a library adds, and broadcast views of biases. A copy is
/// made by the device at the first use, is counted as a conversion, and lives until something new is kept after the
/// weight's memory has ended. Of a weight in training, which changes, the memory is kept and written at every use.
final class WeightCopies implements AutoCloseable {
    private final Device device;
    private final Lifetime lifetime;
    private final Map<Key, Copy> copies = new HashMap<>();
    private final Map<Key, Copy> passing = new HashMap<>();
    private final Map<Key, Tensor> views = new HashMap<>();

    /// A tensor, or a view of it with another shape or dtype: its address means something only while its memory lives.
    private record Key(Lifetime lifetime, long address, DType dtype, long size0, long size1, long size2, long size3,
            long stride0, long stride1, long stride2, long stride3) {
        static Key of(Tensor t) {
            return new Key(t.lifetime(), t.address(), t.dtype(), t.size(0), t.size(1), t.size(2), t.size(3),
                    t.stride(0), t.stride(1), t.stride(2), t.stride(3));
        }

        static Key ofBias(Tensor bias, long size0, long size1, long size2, DType dtype) {
            return new Key(bias.lifetime(), bias.address(), dtype, size0, size1, size2, bias.size(0), 0, 0, 0,
                    bias.dtype().bytes());
        }
    }

    /// @param view as the weight, over the memory
    private record Copy(Tensor memory, Tensor view) {}

    WeightCopies(Device device) {
        this.device = device;
        this.lifetime = new Lifetime(device, "copies of weights");
    }

    /// The weight itself where it lies so already or may change, else a view like it of the copy. Not inside an op.
    ///
    /// @param order dimensions from the outermost in memory to the innermost; one per weight
    Tensor inOrder(Stream stream, Tensor weight, int... order) {
        if (!weight.isFrozen()) {
            return weight;
        }
        Key key = Key.of(weight);
        Copy copy = copies.get(key);
        if (copy == null) {
            Tensor ordered = weight.permute(order);
            if (ordered.isContiguous()) {
                copy = new Copy(weight, weight);
            } else {
                requireEager(stream);
                removeEnded();
                copy = copy(stream, ordered, order);
            }
            copies.put(key, copy);
        }
        return copy.view;
    }

    /// The weight [F, kh, kw, C] itself where it is contiguous, else a contiguous copy: of one that may change it is
    /// written at every call. Not inside an op.
    Tensor passing(Stream stream, Tensor weight) {
        if (weight.isContiguous()) {
            return weight;
        }
        if (weight.isFrozen()) {
            return inOrder(stream, weight, 0, 1, 2, 3);
        }
        Key key = Key.of(weight);
        Copy copy = passing.get(key);
        if (copy == null) {
            requireEager(stream);
            removeEnded();
            Tensor memory = allocate(weight.dtype(), weight.shape());
            copy = new Copy(memory, memory);
            passing.put(key, copy);
        }
        Elementwise.copy(stream, copy.memory, weight);
        return copy.memory;
    }

    private Copy copy(Stream stream, Tensor ordered, int[] order) {
        Tensor memory = allocate(ordered.dtype(), ordered.shape());
        try {
            Elementwise.copy(stream, memory, ordered);
        } catch (RuntimeException e) {
            free(memory);
            throw e;
        }
        device.counters().countConversion(memory.contiguousBytes());
        ordered.letGoOfFile(); // of a device that reads host memory, whose copies are done when they return
        int[] back = new int[order.length];
        for (int d = 0; d < order.length; d++) {
            back[order[d]] = d;
        }
        return new Copy(memory, memory.permute(back));
    }

    private Tensor allocate(DType dtype, long... shape) {
        return Tensor.contiguous(lifetime, device.allocate(Tensor.bytes(dtype, shape)), dtype, shape);
    }

    private void removeEnded() {
        for (Map<Key, Copy> kept : List.of(copies, passing)) {
            kept.entrySet().removeIf(entry -> !entry.getKey().lifetime.isOpen() && free(entry.getValue().memory));
        }
        views.keySet().removeIf(bias -> !bias.lifetime.isOpen());
    }

    /// A bias [F] as y's [B, H, W, F].
    Tensor broadcast(Tensor bias, Tensor y) {
        Key key = Key.ofBias(bias, y.size(0), y.size(1), y.size(2), bias.dtype());
        Tensor view = views.get(key);
        if (view == null) {
            removeEnded();
            view = bias.strided(y.shape(), new long[] {0, 0, 0, 1});
            views.put(key, view);
        }
        return view;
    }

    /// A bias [F] in another dtype: of a frozen one the copy that is kept, else one that is written at every call. Not
    /// inside an op.
    Tensor cast(Stream stream, Tensor bias, DType dtype) {
        Key key = Key.ofBias(bias, -1, -1, bias.isFrozen() ? -1 : -2, dtype);
        Copy copy = copies.get(key);
        if (copy == null) {
            requireEager(stream);
            removeEnded();
            Tensor memory = allocate(dtype, bias.size(0));
            try {
                Elementwise.cast(stream, memory, bias);
            } catch (RuntimeException e) {
                free(memory);
                throw e;
            }
            device.counters().countConversion(memory.contiguousBytes());
            copies.put(key, new Copy(memory, memory));
        } else if (!bias.isFrozen()) {
            Elementwise.cast(stream, copy.memory, bias);
        }
        return Objects.requireNonNull(copies.get(key)).memory;
    }

    /// What is planned or packed at the first use cannot be part of a graph.
    static void requireEager(Stream stream) {
        if (stream.isCapturing()) {
            throw new GatunException(GatunException.Status.UNSUPPORTED, "convolution: the stream is being captured and"
                    + " this weight or shape is new to it: run the work once before it is captured");
        }
    }

    private boolean free(Tensor memory) {
        if (memory.lifetime() == lifetime) {
            device.free(memory.address(), memory.contiguousBytes());
        }
        return true;
    }

    /// The stream's work has finished.
    @Override
    public void close() {
        Endings endings = new Endings();
        copies.values().forEach(copy -> endings.attempt(() -> free(copy.memory)));
        copies.clear();
        passing.values().forEach(copy -> endings.attempt(() -> free(copy.memory)));
        passing.clear();
        views.clear();
        endings.attempt(lifetime::closeInOrder);
        endings.rethrow();
    }
}
