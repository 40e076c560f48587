package io.gatun.runtime;

import io.gatun.bindings.HostMemory;
import io.gatun.bindings.onednn.OneDnn;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/// Copies of weights in the layouts that oneDNN likes best. That of a frozen weight is made at the first use, counted
/// as a conversion, and lives until the next one is made after the weight's memory has ended.
final class OneDnnPackedWeights implements AutoCloseable {
    private final OneDnnEngine engine;
    private final Map<Key, Packed> packed = new HashMap<>();
    private final List<MemorySegment> layouts = new ArrayList<>();
    private Packed passing = new Packed(0, 0);

    /// A weight: its address means something only while its memory lives, and views of several sizes may begin there.
    private record Key(Lifetime lifetime, long address, List<Long> shape, List<Long> stride, int layout) {}

    private record Packed(long address, long bytes) {}

    OneDnnPackedWeights(OneDnnEngine engine) {
        this.engine = engine;
    }

    /// The address of the weight in another layout; of a weight that is not frozen it is made at every call and holds
    /// until the next.
    ///
    /// @param dims, strides the weight as oneDNN sees it
    long addressOf(Tensor weight, long[] dims, long[] strides, MemorySegment layout) {
        long bytes = OneDnn.dnnl_memory_desc_get_size(layout);
        if (!weight.isFrozen()) {
            if (passing.bytes < bytes) {
                free(passing);
                passing = new Packed(0, 0);
                passing = allocate(bytes);
            }
            pack(weight, dims, strides, layout, passing.address);
            return passing.address;
        }
        Key key = new Key(weight.lifetime(), weight.address(), boxed(dims), boxed(strides), idOf(layout));
        Packed copy = packed.get(key);
        if (copy == null) {
            packed.entrySet().removeIf(entry -> !entry.getKey().lifetime.isOpen() && free(entry.getValue()));
            copy = allocate(bytes);
            pack(weight, dims, strides, layout, copy.address);
            engine.counters().countConversion(bytes);
            packed.put(key, copy);
        }
        return copy.address;
    }

    private void pack(Tensor weight, long[] dims, long[] strides, MemorySegment layout, long to) {
        try (Arena scratch = Arena.ofConfined()) {
            MemorySegment plain = OneDnnEngine.describe(scratch, OneDnnEngine.typeOf("weight", weight.dtype()), dims,
                    strides);
            try {
                engine.reorder(plain, weight.address(), layout, to);
            } finally {
                OneDnnEngine.destroyLayouts(plain);
            }
        }
    }

    private static List<Long> boxed(long[] numbers) {
        return Arrays.stream(numbers).boxed().toList();
    }

    private int idOf(MemorySegment layout) {
        for (int i = 0; i < layouts.size(); i++) {
            if (OneDnn.dnnl_memory_desc_equal(layouts.get(i), layout) != 0) {
                return i;
            }
        }
        try (Arena scratch = Arena.ofConfined()) {
            layouts.add(OneDnnEngine.copyOf(scratch, layout));
        }
        return layouts.size() - 1;
    }

    private Packed allocate(long bytes) {
        long address = HostMemory.allocate(bytes);
        if (address == 0) {
            throw new OutOfDeviceMemoryException("no memory for %,d bytes of packed weights".formatted(bytes), bytes);
        }
        engine.counters().countAllocation(bytes);
        return new Packed(address, bytes);
    }

    private boolean free(Packed copy) {
        if (copy.address != 0) {
            HostMemory.free(copy.address);
            engine.counters().countFree(copy.bytes);
        }
        return true;
    }

    @Override
    public void close() {
        packed.values().forEach(this::free);
        packed.clear();
        free(passing);
        passing = new Packed(0, 0);
        layouts.forEach(OneDnnEngine::destroyLayouts);
        layouts.clear();
    }
}
