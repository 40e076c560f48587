package io.gatun.runtime;

import io.gatun.bindings.HostMemory;
import io.gatun.bindings.onednn.OneDnn;
import io.gatun.bindings.onednn.dnnl_exec_arg_t;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;

/// A copy between two layouts that oneDNN has planned, for any addresses.
final class OneDnnReorder implements AutoCloseable {
    private static final int ARGS = 2;
    /// Bytes that a thread must have for itself: a second one costs about 5 microseconds.
    private static final long BYTES_PER_THREAD = 128 << 10;

    private final OneDnnEngine engine;
    private final long threads;
    private final MemorySegment args;
    private MemorySegment handle = MemorySegment.NULL;
    private MemorySegment source = MemorySegment.NULL;
    private MemorySegment target = MemorySegment.NULL;

    /// @param adds to what is there; else it is overwritten
    OneDnnReorder(OneDnnEngine engine, MemorySegment fromLayout, MemorySegment toLayout, boolean adds) {
        this.engine = engine;
        threads = Math.min(OneDnn.dnnl_memory_desc_get_size(fromLayout), OneDnn.dnnl_memory_desc_get_size(toLayout))
                / BYTES_PER_THREAD;
        args = OneDnnPrimitive.newArgs("reorder", ARGS);
        try (OneDnnScratch scratch = new OneDnnScratch()) {
            engine.enterTeam(threads);
            MemorySegment attributes = adds ? scratch.attributesOfSum() : MemorySegment.NULL;
            MemorySegment out = scratch.newHandle();
            OneDnnEngine.check("reorder", OneDnn.dnnl_reorder_primitive_desc_create(out, fromLayout, engine.handle(),
                    toLayout, engine.handle(), attributes));
            MemorySegment descriptor = scratch.ownDescriptor(out);
            OneDnnEngine.check("reorder", OneDnn.dnnl_primitive_create(out, descriptor));
            handle = out.get(ValueLayout.ADDRESS, 0);
            source = engine.newMemory(out, fromLayout, 0);
            target = engine.newMemory(out, toLayout, 0);
            OneDnnPrimitive.setArg(args, 0, OneDnn.DNNL_ARG_FROM(), source);
            OneDnnPrimitive.setArg(args, 1, OneDnn.DNNL_ARG_TO(), target);
            engine.enterTeam();
        } catch (RuntimeException e) {
            close();
            throw e;
        }
    }

    /// Inside an op of the stream.
    void run(long from, long to) {
        OneDnnEngine.point(source, from);
        OneDnnEngine.point(target, to);
        engine.enterTeam(threads);
        engine.execute("reorder", handle, ARGS, args);
        engine.enterTeam();
    }

    @Override
    public void close() {
        OneDnn.dnnl_primitive_destroy(handle);
        OneDnn.dnnl_memory_destroy(source);
        OneDnn.dnnl_memory_destroy(target);
        HostMemory.free(args.address());
    }
}
