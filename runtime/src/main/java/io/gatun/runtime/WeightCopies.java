package io.gatun.runtime;

import io.gatun.ops.Elementwise;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/// What convolutions of one stream keep of frozen weights and of biases: of the former copies in the order of memory
/// that a kernel reads well, of the latter broadcast views. A copy is made by the device at the first use, is counted
/// as a conversion, and lives until the next one is made after the weight's memory has ended.
final class WeightCopies implements AutoCloseable {
    private final Device device;
    private final Lifetime lifetime;
    private final Map<Key, Copy> copies = new HashMap<>();
    private final Map<Key, Tensor> views = new HashMap<>();

    /// A tensor: its address means something only while its memory lives.
    private record Key(Lifetime lifetime, long address, List<Long> shape, List<Long> stride) {
        static Key of(Tensor t, long[] shape) {
            List<Long> sizes = new ArrayList<>();
            List<Long> strides = new ArrayList<>();
            for (long size : shape) {
                sizes.add(size);
            }
            for (int d = 0; d < t.rank(); d++) {
                strides.add(t.stride(d));
            }
            return new Key(t.lifetime(), t.address(), sizes, strides);
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
        Key key = Key.of(weight, weight.shape());
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

    private Copy copy(Stream stream, Tensor ordered, int[] order) {
        long bytes = Tensor.bytes(ordered.dtype(), ordered.shape());
        Tensor memory = Tensor.contiguous(lifetime, device.allocate(bytes), ordered.dtype(), ordered.shape());
        Elementwise.copy(stream, memory, ordered);
        device.counters().countConversion(bytes);
        int[] back = new int[order.length];
        for (int d = 0; d < order.length; d++) {
            back[order[d]] = d;
        }
        return new Copy(memory, memory.permute(back));
    }

    private void removeEnded() {
        copies.entrySet().removeIf(entry -> !entry.getKey().lifetime.isOpen() && free(entry.getValue()));
        views.keySet().removeIf(bias -> !bias.lifetime.isOpen());
    }

    /// A bias [F] as [B, H, W, F].
    Tensor broadcast(Tensor bias, long[] shape) {
        return views.computeIfAbsent(Key.of(bias, shape), key -> bias.strided(shape, new long[] {0, 0, 0, 1}));
    }

    /// What is planned or packed at the first use cannot be part of a graph.
    static void requireEager(Stream stream) {
        if (stream.isCapturing()) {
            throw new GatunException(GatunException.Status.UNSUPPORTED, "convolution: the stream is being captured and"
                    + " this weight or shape is new to it: run the work once before it is captured");
        }
    }

    private boolean free(Copy copy) {
        if (copy.memory.lifetime() == lifetime) {
            device.free(copy.memory.address(), copy.memory.contiguousBytes());
        }
        return true;
    }

    /// The stream's work has finished.
    @Override
    public void close() {
        copies.values().forEach(this::free);
        copies.clear();
        views.clear();
        lifetime.closeInOrder();
    }
}
