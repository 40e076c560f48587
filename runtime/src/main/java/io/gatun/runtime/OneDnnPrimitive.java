package io.gatun.runtime;

import io.gatun.bindings.HostMemory;
import io.gatun.bindings.onednn.OneDnn;
import io.gatun.bindings.onednn.dnnl_exec_arg_t;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.function.Function;

/// A product or a convolution that oneDNN has planned for a shape, with memory objects that are pointed at the operands
/// of each call; or the knowledge that oneDNN has no good kernel for the shape.
///
/// @param weights layout that the weights must have
record OneDnnPrimitive(MemorySegment handle, MemorySegment[] memories, MemorySegment args, long scratchpadBytes,
        MemorySegment weights) {
    private static final int ARGS = 5;

    static final OneDnnPrimitive UNIMPLEMENTED = new OneDnnPrimitive(MemorySegment.NULL, new MemorySegment[0],
            MemorySegment.NULL, 0, MemorySegment.NULL);

    /// @param descriptor `dnnl_primitive_desc_t`; whoever asks destroys it, and the layouts
    /// @param bias       NULL: none
    static OneDnnPrimitive of(OneDnnEngine engine, Arena scratch, String what, MemorySegment descriptor,
            MemorySegment x, MemorySegment y, MemorySegment bias) {
        MemorySegment out = scratch.allocate(ValueLayout.ADDRESS);
        OneDnnEngine.check(what, OneDnn.dnnl_primitive_create(out, descriptor));
        MemorySegment handle = out.get(ValueLayout.ADDRESS, 0);
        MemorySegment pad = OneDnn.dnnl_primitive_desc_query_md(descriptor, OneDnn.dnnl_query_scratchpad_md(), 0);
        MemorySegment weights = OneDnnEngine.copyOf(scratch, OneDnn.dnnl_primitive_desc_query_md(descriptor,
                OneDnn.dnnl_query_weights_md(), 0));
        MemorySegment[] layouts = {x, weights, y, pad, bias};
        int[] kinds = {OneDnn.DNNL_ARG_SRC(), OneDnn.DNNL_ARG_WEIGHTS(), OneDnn.DNNL_ARG_DST(),
            OneDnn.DNNL_ARG_SCRATCHPAD(), OneDnn.DNNL_ARG_BIAS()};
        int numArgs = bias.address() == 0 ? ARGS - 1 : ARGS;
        long bytes = dnnl_exec_arg_t.sizeof() * ARGS;
        MemorySegment args = HostMemory.view(HostMemory.allocate(bytes), bytes);
        MemorySegment[] memories = new MemorySegment[numArgs];
        for (int i = 0; i < numArgs; i++) {
            memories[i] = engine.newMemory(out, layouts[i], 0);
            setArg(args, i, kinds[i], memories[i]);
        }
        return new OneDnnPrimitive(handle, memories, args, OneDnn.dnnl_memory_desc_get_size(pad), weights);
    }

    int numArgs() {
        return memories.length;
    }

    /// In the order source, weights, destination, scratchpad, bias.
    void pointAt(long... addresses) {
        for (int i = 0; i < memories.length; i++) {
            OneDnnEngine.check("operand", OneDnn.dnnl_memory_set_data_handle(memories[i],
                    MemorySegment.ofAddress(addresses[i])));
        }
    }

    static void setArg(MemorySegment args, int index, int kind, MemorySegment memory) {
        MemorySegment arg = dnnl_exec_arg_t.asSlice(args, index);
        dnnl_exec_arg_t.arg(arg, kind);
        dnnl_exec_arg_t.memory(arg, memory);
    }

    private void destroy() {
        if (this != UNIMPLEMENTED) {
            OneDnn.dnnl_primitive_destroy(handle);
            for (MemorySegment memory : memories) {
                OneDnn.dnnl_memory_destroy(memory);
            }
            OneDnn.dnnl_memory_desc_destroy(weights);
            HostMemory.free(args.address());
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
