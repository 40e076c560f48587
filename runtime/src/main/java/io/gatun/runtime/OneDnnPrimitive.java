package io.gatun.runtime;

import io.gatun.bindings.HostMemory;
import io.gatun.bindings.onednn.OneDnn;
import io.gatun.bindings.onednn.dnnl_exec_arg_t;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.function.Function;
import org.jspecify.annotations.Nullable;

/// A product or a convolution that oneDNN has planned for a shape, with memory objects that are pointed at the operands
/// of each call; or the knowledge that oneDNN has no good kernel for the shape.
///
/// @param weights how the weights are packed; null: they are read where they lie
record OneDnnPrimitive(MemorySegment handle, MemorySegment[] memories, MemorySegment args, long scratchpadBytes,
        OneDnnPackedWeights.@Nullable Form weights) {
    private static final int ARGS = 5;

    static final OneDnnPrimitive UNIMPLEMENTED = new OneDnnPrimitive(MemorySegment.NULL, new MemorySegment[0],
            MemorySegment.NULL, 0, null);

    /// @param descriptor `dnnl_primitive_desc_t`; whoever asks destroys it, and the layouts
    /// @param bias       NULL: none
    /// @param form       adopted, also where this throws
    static OneDnnPrimitive of(OneDnnEngine engine, OneDnnScratch scratch, String what, MemorySegment descriptor,
            MemorySegment x, MemorySegment y, MemorySegment bias, OneDnnPackedWeights.@Nullable Form form) {
        return of(engine, scratch, what, descriptor, x, y, bias, form, OneDnn.DNNL_ARG_SRC(), OneDnn.DNNL_ARG_DST());
    }

    /// The gradient of a convolution's input: reads dy, writes dx.
    ///
    /// @param form adopted, also where this throws
    static OneDnnPrimitive ofInputGradient(OneDnnEngine engine, OneDnnScratch scratch, MemorySegment descriptor,
            MemorySegment dx, MemorySegment dy, OneDnnPackedWeights.Form form) {
        return of(engine, scratch, "gradient of a convolution", descriptor, dy, dx, MemorySegment.NULL, form,
                OneDnn.DNNL_ARG_DIFF_DST(), OneDnn.DNNL_ARG_DIFF_SRC());
    }

    private static OneDnnPrimitive of(OneDnnEngine engine, OneDnnScratch scratch, String what,
            MemorySegment descriptor, MemorySegment x, MemorySegment y, MemorySegment bias,
            OneDnnPackedWeights.@Nullable Form form, int source, int destination) {
        MemorySegment out = scratch.newHandle();
        int numArgs = bias.address() == 0 ? ARGS - 1 : ARGS;
        MemorySegment[] memories = new MemorySegment[numArgs];
        Arrays.fill(memories, MemorySegment.NULL);
        MemorySegment handle = MemorySegment.NULL;
        MemorySegment args = MemorySegment.NULL;
        try {
            args = newArgs(what, ARGS);
            OneDnnEngine.check(what, OneDnn.dnnl_primitive_create(out, descriptor));
            handle = out.get(ValueLayout.ADDRESS, 0);
            MemorySegment pad = scratchpadLayout(descriptor);
            MemorySegment[] layouts = {x, weightsLayout(descriptor), y, pad, bias};
            int[] kinds = {source, OneDnn.DNNL_ARG_WEIGHTS(), destination,
                OneDnn.DNNL_ARG_SCRATCHPAD(), OneDnn.DNNL_ARG_BIAS()};
            for (int i = 0; i < numArgs; i++) {
                memories[i] = engine.newMemory(out, layouts[i], 0);
                setArg(args, i, kinds[i], memories[i]);
            }
            return new OneDnnPrimitive(handle, memories, args, OneDnn.dnnl_memory_desc_get_size(pad), form);
        } catch (RuntimeException e) {
            destroy(handle, memories, args, form);
            throw e;
        }
    }

    /// What a descriptor has chosen or was told; it lives as long as the descriptor.
    static MemorySegment weightsLayout(MemorySegment descriptor) {
        return OneDnn.dnnl_primitive_desc_query_md(descriptor, OneDnn.dnnl_query_weights_md(), 0);
    }

    static MemorySegment scratchpadLayout(MemorySegment descriptor) {
        return OneDnn.dnnl_primitive_desc_query_md(descriptor, OneDnn.dnnl_query_scratchpad_md(), 0);
    }

    static MemorySegment newArgs(String what, int count) {
        return newMemory("the arguments of " + what, dnnl_exec_arg_t.sizeof() * count);
    }

    static MemorySegment newMemory(String what, long bytes) {
        long address = HostMemory.allocate(bytes);
        if (address == 0) {
            throw new OutOfDeviceMemoryException("no host memory for " + what, bytes);
        }
        return HostMemory.view(address, bytes);
    }

    int numArgs() {
        return memories.length;
    }

    /// In the order source, weights, destination, scratchpad, bias.
    void pointAt(long... addresses) {
        for (int i = 0; i < memories.length; i++) {
            OneDnnEngine.point(memories[i], addresses[i]);
        }
    }

    static void setArg(MemorySegment args, int index, int kind, MemorySegment memory) {
        MemorySegment arg = dnnl_exec_arg_t.asSlice(args, index);
        dnnl_exec_arg_t.arg(arg, kind);
        dnnl_exec_arg_t.memory(arg, memory);
    }

    private void destroy() {
        destroy(handle, memories, args, weights);
    }

    /// NULL is none.
    private static void destroy(MemorySegment handle, MemorySegment[] memories, MemorySegment args,
            OneDnnPackedWeights.@Nullable Form form) {
        OneDnn.dnnl_primitive_destroy(handle);
        for (MemorySegment memory : memories) {
            OneDnn.dnnl_memory_destroy(memory);
        }
        HostMemory.free(args.address());
        if (form != null) {
            form.release();
        }
    }

    /// Primitives by what they are made for; the one that was not used for longest goes first.
    static final class Cache<K> implements AutoCloseable {
        private final int most;
        private final Map<K, OneDnnPrimitive> primitives = new LinkedHashMap<>(16, 0.75f, true);

        Cache(int most) {
            this.most = most;
        }

        OneDnnPrimitive get(K key, Function<K, OneDnnPrimitive> create) {
            OneDnnPrimitive primitive = primitives.get(key);
            if (primitive == null) {
                primitive = create.apply(key);
                primitives.put(key, primitive);
                if (primitives.size() > most) {
                    var oldest = primitives.entrySet().iterator();
                    oldest.next().getValue().destroy();
                    oldest.remove();
                }
            }
            return primitive;
        }

        @Override
        public void close() {
            primitives.values().forEach(OneDnnPrimitive::destroy);
            primitives.clear();
        }
    }
}
