package io.gatun.models;

import io.gatun.ops.Attention;
import io.gatun.runtime.DType;
import io.gatun.runtime.Tensor;
import org.jspecify.annotations.Nullable;

/// Attention of ragged rows over the key/value cache, to which their own keys and values are appended first. Rows that
/// begin a prompt see nothing but each other: for them it is attention of one whole sequence.
final class PagedAttention implements SequenceAttention {
    private final Batch batch;
    private final KvCache cache;

    PagedAttention(Batch batch, KvCache cache) {
        this.batch = batch;
        this.cache = cache;
    }

    @Override
    public Tensor attend(Layers layers, int layer, Tensor q, Tensor k, Tensor v, float scale) {
        Tensor keys = cache.keys(layer);
        Tensor values = cache.values(layer);
        layers.op(s -> Attention.appendKv(s, keys, values, k, v, batch.pageTable(), batch.queryStart(),
                batch.positions()), k, v);
        if (!batch.hasPast()) {
            return new WholeSequences(1).attend(layers, layer, q, k, v, scale);
        }
        Tensor y = layers.allocate(q.dtype(), q.shape());
        Tensor scratch = scratch(layers, q);
        layers.op(s -> Attention.attentionPaged(s, y, null, q, keys, values, batch.pageTable(), batch.queryStart(),
                batch.positions(), scale, scratch), y, q, scratch);
        return y;
    }

    private @Nullable Tensor scratch(Layers layers, Tensor q) {
        long bytes = Attention.pagedWorkspaceBytes(layers.stream(), q, batch.pageTable());
        return bytes == 0 ? null : layers.allocate(DType.U8, bytes);
    }
}
