package io.gatun.models;

import io.gatun.ops.Attention;
import io.gatun.ops.Rope;
import io.gatun.runtime.DType;
import io.gatun.runtime.Tensor;
import java.util.Objects;
import org.jspecify.annotations.Nullable;

/// Attention of ragged rows over the key/value cache, to which their own keys and values are appended first. In a
/// decode step, where each sequence has one row, a layer's rotation, append and attention are one launch. Rows that
/// begin a prompt see nothing but each other: for them it is attention of one whole sequence.
final class PagedAttention implements SequenceAttention {
    private final Batch batch;
    private final KvCache cache;

    PagedAttention(Batch batch, KvCache cache) {
        this.batch = batch;
        this.cache = cache;
    }

    @Override
    public Tensor attend(Layers layers, int layer, Tensor q, Tensor k, Tensor v, @Nullable Rotation rotation,
            float scale) {
        if (batch.isDecode() && q.size(2) <= Attention.MAX_DECODE_HEAD_DIM) {
            return step(layers, layer, q, k, v, rotation, scale);
        }
        Tensor keys = cache.keys(layer);
        Tensor values = cache.values(layer);
        Tensor rotatedQ = Rotation.of(layers, rotation, q);
        Tensor rotatedK = Rotation.of(layers, rotation, k);
        layers.op(s -> Attention.appendKv(s, keys, values, rotatedK, v, batch.pageTable(), batch.queryStart(),
                batch.positions()), rotatedK, v);
        if (!batch.hasPast()) {
            return new WholeSequences(1).attend(layers, layer, rotatedQ, rotatedK, v, null, scale);
        }
        Tensor y = layers.allocate(q.dtype(), q.shape());
        Tensor scratch = scratch(layers, Attention.pagedWorkspaceBytes(layers.stream(), q, batch.pageTable()));
        layers.op(s -> Attention.attentionPaged(s, y, null, rotatedQ, keys, values, batch.pageTable(),
                batch.queryStart(), batch.positions(), scale, scratch), y, rotatedQ, scratch);
        return y;
    }

    private Tensor step(Layers layers, int layer, Tensor q, Tensor k, Tensor v, @Nullable Rotation rotation,
            float scale) {
        Tensor y = layers.allocate(q.dtype(), q.shape());
        Tensor counters = Objects.requireNonNull(batch.counters(), "counters of a decode step");
        Tensor table = rotation == null ? null : rotation.table();
        Rope.Pairing pairing = rotation == null ? Rope.Pairing.HALF : rotation.pairing();
        Tensor scratch = scratch(layers, Attention.decodeWorkspaceBytes(layers.stream(), q, k, batch.pageTable()));
        layers.op(s -> Attention.decode(s, y, null, cache.keys(layer), cache.values(layer), counters, q, k, v,
                batch.pageTable(), batch.positions(), table, pairing, scale, scratch), y, q, k, v, scratch);
        return y;
    }

    private static @Nullable Tensor scratch(Layers layers, long bytes) {
        return bytes == 0 ? null : layers.allocate(DType.U8, bytes);
    }
}
