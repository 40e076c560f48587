package io.gatun.runtime;

import io.gatun.ops.Elementwise;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/// What convolutions of one stream keep of frozen weights and of biases: contiguous copies of the former, as cuDNN and
/// our kernel's wide loads want them, and broadcast views of the latter. A copy is made by the device at the first use,
/// is counted as a conversion, and lives until the next one is made after the weight's memory has ended.
final class CudaWeights implements AutoCloseable {
    private final Device device;
    private final Lifetime lifetime;
    private final Map<Key, Tensor> copies = new HashMap<>();
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

    CudaWeights(Device device) {
        this.device = device;
        this.lifetime = new Lifetime(device, "copies of weights");
    }

    /// The weight itself where it is contiguous or may change, else a copy in row-major order. Not inside an op.
    Tensor contiguous(Stream stream, Tensor weight) {
        if (weight.isContiguous() || !weight.isFrozen()) {
            return weight;
        }
        Key key = Key.of(weight, weight.shape());
        Tensor copy = copies.get(key);
        if (copy == null) {
            requireEager(stream);
            copies.entrySet().removeIf(entry -> !entry.getKey().lifetime.isOpen() && free(entry.getValue()));
            views.keySet().removeIf(bias -> !bias.lifetime.isOpen());
            long bytes = Tensor.bytes(weight.dtype(), weight.shape());
            copy = Tensor.contiguous(lifetime, device.allocate(bytes), weight.dtype(), weight.shape());
            copies.put(key, copy);
            Elementwise.copy(stream, copy, weight);
            device.counters().countConversion(bytes);
        }
        return copy;
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

    private boolean free(Tensor copy) {
        device.free(copy.address(), copy.contiguousBytes());
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
