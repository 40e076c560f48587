package io.gatun.runtime;

import io.gatun.bindings.onednn.OneDnn;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.ArrayList;
import java.util.List;
import java.util.function.Consumer;

/// What oneDNN needs while something is planned or copied: layouts, attributes, descriptors. All of it ends with this,
/// whatever is thrown in between.
final class OneDnnScratch implements AutoCloseable {
    private final Arena arena = Arena.ofConfined();
    private final List<Runnable> releases = new ArrayList<>();

    /// Where a call of oneDNN puts a handle.
    MemorySegment newHandle() {
        return arena.allocate(ValueLayout.ADDRESS);
    }

    /// The handle that a call has put there, to be destroyed with the rest.
    MemorySegment own(MemorySegment handle, Consumer<MemorySegment> destroy) {
        MemorySegment value = handle.get(ValueLayout.ADDRESS, 0);
        releases.add(() -> destroy.accept(value));
        return value;
    }

    MemorySegment ownDescriptor(MemorySegment handle) {
        return own(handle, OneDnn::dnnl_primitive_desc_destroy);
    }

    /// A layout with these strides.
    MemorySegment layout(int type, long[] dims, long[] strides) {
        MemorySegment out = newHandle();
        OneDnnEngine.check("descriptor", OneDnn.dnnl_memory_desc_create_with_strides(out, dims.length,
                arena.allocateFrom(ValueLayout.JAVA_LONG, dims), type,
                arena.allocateFrom(ValueLayout.JAVA_LONG, strides)));
        return own(out, OneDnn::dnnl_memory_desc_destroy);
    }

    /// A layout that the library shall choose.
    MemorySegment anyLayout(int type, long... dims) {
        MemorySegment out = newHandle();
        OneDnnEngine.check("descriptor", OneDnn.dnnl_memory_desc_create_with_tag(out, dims.length,
                arena.allocateFrom(ValueLayout.JAVA_LONG, dims), type, OneDnn.dnnl_format_tag_any()));
        return own(out, OneDnn::dnnl_memory_desc_destroy);
    }

    /// Attributes of a primitive whose scratchpad comes with each call.
    MemorySegment attributes() {
        MemorySegment out = newHandle();
        OneDnnEngine.check("attributes", OneDnn.dnnl_primitive_attr_create(out));
        MemorySegment attributes = own(out, OneDnn::dnnl_primitive_attr_destroy);
        OneDnnEngine.check("attributes", OneDnn.dnnl_primitive_attr_set_scratchpad_mode(attributes,
                OneDnn.dnnl_scratchpad_mode_user()));
        return attributes;
    }

    /// Attributes of a primitive that adds to what its destination holds.
    MemorySegment attributesOfSum() {
        MemorySegment out = newHandle();
        OneDnnEngine.check("sum", OneDnn.dnnl_post_ops_create(out));
        MemorySegment postOps = own(out, OneDnn::dnnl_post_ops_destroy);
        OneDnnEngine.check("sum", OneDnn.dnnl_post_ops_append_sum(postOps, 1, 0, OneDnn.dnnl_data_type_undef()));
        OneDnnEngine.check("attributes", OneDnn.dnnl_primitive_attr_create(out));
        MemorySegment attributes = own(out, OneDnn::dnnl_primitive_attr_destroy);
        OneDnnEngine.check("sum", OneDnn.dnnl_primitive_attr_set_post_ops(attributes, postOps));
        return attributes;
    }

    /// Strides or pads.
    MemorySegment longs(long... values) {
        return arena.allocateFrom(ValueLayout.JAVA_LONG, values);
    }

    @Override
    public void close() {
        for (int i = releases.size() - 1; i >= 0; i--) {
            releases.get(i).run();
        }
        arena.close();
    }
}
