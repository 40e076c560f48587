package io.gatun.runtime;

import io.gatun.bindings.HostMemory;
import io.gatun.bindings.onednn.OneDnn;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/// Copies of weights in the layouts that oneDNN likes best. That of a frozen weight is made at the first use, counted
/// as a conversion, and lives until the next one is made after the weight's memory has ended, or until no primitive is
/// kept that reads it.
final class OneDnnPackedWeights implements AutoCloseable {
    private final OneDnnEngine engine;
    private final Map<Key, Packed> packed = new HashMap<>();
    private final List<Form> forms = new ArrayList<>();
    private Packed passing = new Packed(0, 0);

    /// A weight: its address means something only while its memory lives, and views of several sizes may begin there.
    private record Key(Lifetime lifetime, long address, Form form) {}

    private record Packed(long address, long bytes) {}

    /// How weights lie, as oneDNN sees them, and how the primitives that hold this want them. Two are the same if they
    /// are one object.
    final class Form {
        private final long[] dims;
        private final long[] strides;
        private final MemorySegment layout;
        private int holders;
        private @Nullable OneDnnReorder packing;

        private Form(long[] dims, long[] strides, MemorySegment layout) {
            this.dims = dims;
            this.strides = strides;
            this.layout = layout;
        }

        private boolean is(long[] otherDims, long[] otherStrides, MemorySegment otherLayout) {
            return Arrays.equals(dims, otherDims) && Arrays.equals(strides, otherStrides)
                    && OneDnn.dnnl_memory_desc_equal(layout, otherLayout) != 0;
        }

        /// With its last holder it ends, and the copies that have it.
        void release() {
            if (--holders == 0) {
                forms.remove(this);
                packed.entrySet().removeIf(entry -> entry.getKey().form == this && free(entry.getValue()));
                destroy();
            }
        }

        private void destroy() {
            if (packing != null) {
                packing.close();
            }
            OneDnn.dnnl_memory_desc_destroy(layout);
        }

        private void pack(Tensor weight, long to) {
            OneDnnReorder reorder = packing;
            if (reorder == null) {
                try (OneDnnScratch scratch = new OneDnnScratch()) {
                    reorder = new OneDnnReorder(engine, scratch.layout(OneDnnEngine.typeOf("weight", weight.dtype()),
                            dims, strides), layout, false);
                }
                packing = reorder;
            }
            reorder.run(weight.address(), to);
        }
    }

    OneDnnPackedWeights(OneDnnEngine engine) {
        this.engine = engine;
    }

    /// The form of weights with these sizes and strides; whoever asks releases it.
    ///
    /// @param layout what a primitive wants; it is copied
    Form hold(long[] dims, long[] strides, MemorySegment layout) {
        for (Form form : forms) {
            if (form.is(dims, strides, layout)) {
                form.holders++;
                return form;
            }
        }
        try (OneDnnScratch scratch = new OneDnnScratch()) {
            MemorySegment out = scratch.newHandle();
            OneDnnEngine.check("descriptor", OneDnn.dnnl_memory_desc_clone(out, layout));
            Form form = new Form(dims, strides, out.get(ValueLayout.ADDRESS, 0));
            form.holders = 1;
            forms.add(form);
            return form;
        }
    }

    /// The address of the weight as the form wants it; of a weight that is not frozen it is made at every call and
    /// holds until the next.
    long addressOf(Tensor weight, Form form) {
        return addressOf(weight, form, false);
    }

    /// As [#addressOf], of a weight that nobody reads where it lies: if that is in a mapped file, its pages are let go.
    long addressOfOnlyCopy(Tensor weight, Form form) {
        return addressOf(weight, form, true);
    }

    private long addressOf(Tensor weight, Form form, boolean only) {
        if (!weight.isFrozen()) {
            long bytes = OneDnn.dnnl_memory_desc_get_size(form.layout);
            if (passing.bytes < bytes) {
                free(passing);
                passing = new Packed(0, 0);
                passing = allocate(bytes);
            }
            form.pack(weight, passing.address);
            return passing.address;
        }
        Key key = new Key(weight.lifetime(), weight.address(), form);
        Packed copy = packed.get(key);
        if (copy == null) {
            packed.entrySet().removeIf(entry -> !entry.getKey().lifetime.isOpen() && free(entry.getValue()));
            copy = allocate(OneDnn.dnnl_memory_desc_get_size(form.layout));
            try {
                form.pack(weight, copy.address);
            } catch (RuntimeException e) {
                free(copy);
                throw e;
            }
            engine.counters().countConversion(copy.bytes);
            packed.put(key, copy);
            if (only) {
                weight.letGoOfFile();
            }
        }
        return copy.address;
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

    /// The primitives are closed.
    @Override
    public void close() {
        packed.values().forEach(this::free);
        packed.clear();
        free(passing);
        passing = new Packed(0, 0);
        forms.forEach(Form::destroy);
        forms.clear();
    }
}
