package io.gatun.runtime;

import io.gatun.bindings.HostMemory;
import io.gatun.bindings.gatun.Gatun;
import io.gatun.bindings.onednn.OneDnn;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.Arrays;

/// One primitive of oneDNN, planned for one thread, on several operands side by side: so that results depend on how the
/// work was cut, which sizes alone decide, and not on the number of threads.
final class OneDnnCalls implements AutoCloseable {
    private final OneDnnEngine engine;
    private final int count;
    private final MemorySegment[][] memories;
    private final MemorySegment[] args;
    private final MemorySegment pointers;
    private MemorySegment handle = MemorySegment.NULL;

    /// @param descriptor `dnnl_primitive_desc_t`, planned in a team of one
    /// @param kinds      arguments; the last is the scratchpad
    /// @param layouts    theirs
    OneDnnCalls(OneDnnEngine engine, MemorySegment descriptor, int calls, int[] kinds, MemorySegment[] layouts) {
        this.engine = engine;
        this.count = kinds.length;
        memories = new MemorySegment[calls][count];
        args = new MemorySegment[calls];
        Arrays.fill(args, MemorySegment.NULL);
        for (MemorySegment[] ofCall : memories) {
            Arrays.fill(ofCall, MemorySegment.NULL);
        }
        pointers = OneDnnPrimitive.newMemory("the arguments of oneDNN", 2L * calls * Long.BYTES);
        try (OneDnnScratch scratch = new OneDnnScratch()) {
            MemorySegment out = scratch.newHandle();
            OneDnnEngine.check("primitive", OneDnn.dnnl_primitive_create(out, descriptor));
            handle = out.get(ValueLayout.ADDRESS, 0);
            for (int i = 0; i < calls; i++) {
                args[i] = OneDnnPrimitive.newArgs("oneDNN", count);
                for (int a = 0; a < count; a++) {
                    memories[i][a] = engine.newMemory(out, layouts[a], 0);
                    OneDnnPrimitive.setArg(args[i], a, kinds[a], memories[i][a]);
                }
                pointers.setAtIndex(ValueLayout.ADDRESS, i, handle);
                pointers.setAtIndex(ValueLayout.ADDRESS, calls + i, args[i]);
            }
        } catch (RuntimeException e) {
            close();
            throw e;
        }
    }

    int calls() {
        return args.length;
    }

    /// @param addresses in the order of the kinds
    void pointAt(int call, long... addresses) {
        for (int a = 0; a < count; a++) {
            OneDnnEngine.point(memories[call][a], addresses[a]);
        }
    }

    /// Inside an op of the stream.
    void run(Stream stream) {
        engine.enterTeam(1);
        long calls = args.length;
        stream.check(Gatun.gt_call_each(stream.descriptor(), OneDnn.dnnl_primitive_execute$address(), pointers,
                engine.stream(), count, pointers.asSlice(calls * Long.BYTES), calls));
        engine.enterTeam();
    }

    @Override
    public void close() {
        OneDnn.dnnl_primitive_destroy(handle);
        for (int i = 0; i < args.length; i++) {
            for (MemorySegment memory : memories[i]) {
                OneDnn.dnnl_memory_destroy(memory);
            }
            HostMemory.free(args[i].address());
        }
        HostMemory.free(pointers.address());
    }
}
