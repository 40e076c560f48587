package io.gatun.models;

import io.gatun.ops.Rope;
import io.gatun.runtime.DType;
import io.gatun.runtime.DeviceArena;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;

/// Cosines and sines of a model's rotary angles on the device, filled as far as sequences need them.
///
/// Under `dynamic` scaling the frequencies depend on the length of the sequence. As in transformers, a decode step at
/// position p beyond the context uses the frequencies of length p + 1, and a prompt beyond it uses those of its own
/// length for all its tokens: such a prompt gets a table of its own.
public final class RopeTable {
    private static final int CHUNK = 1024;

    private final RopeScaling scaling;
    private final Tensor table;
    private final Tensor inverseFrequencies;
    private final Tensor ownFrequencies;
    private int filled;
    private boolean hasFrequencies;

    /// Bytes that a table takes of its arena.
    public static long bytes(RopeScaling scaling) {
        return DeviceArena.bytesFor(DType.F32, scaling.reach(), 2, scaling.dim() / 2)
                + 2 * DeviceArena.bytesFor(DType.F32, scaling.dim() / 2);
    }

    public RopeTable(DeviceArena arena, RopeScaling scaling) {
        this.scaling = scaling;
        this.table = arena.allocate(DType.F32, scaling.reach(), 2, scaling.dim() / 2);
        this.inverseFrequencies = arena.allocate(DType.F32, scaling.dim() / 2);
        this.ownFrequencies = arena.allocate(DType.F32, scaling.dim() / 2);
    }

    /// Fills the table up to a length.
    public void reserve(Stream stream, int length) {
        int end = Math.min(scaling.reach(), (length + CHUNK - 1) / CHUNK * CHUNK);
        int plainEnd = scaling.dependsOnLength() ? Math.min(end, scaling.contextLength()) : end;
        if (!hasFrequencies) {
            inverseFrequencies.copyFrom(stream, scaling.inverseFrequencies(0));
            hasFrequencies = true;
        }
        if (filled < plainEnd) {
            Rope.table(stream, table.slice(0, filled, plainEnd), inverseFrequencies, filled, scaling.attentionFactor());
            filled = plainEnd;
        }
        for (; filled < end; filled++) {
            ownFrequencies.copyFrom(stream, scaling.inverseFrequencies(filled + 1));
            Rope.table(stream, table.slice(0, filled, filled + 1), ownFrequencies, filled, scaling.attentionFactor());
        }
    }

    /// The angles for the rows of one pass, [M, 2, R/2]: the shared table, or one of the pass's own, filled when it
    /// runs.
    ///
    /// @param length of the sequence that the rows belong to; 0 in decode steps
    public Tensor angles(Layers layers, int length) {
        if (!scaling.dependsOnLength() || length <= scaling.contextLength()) {
            return table;
        }
        Tensor own = layers.allocate(DType.F32, length, 2, scaling.dim() / 2);
        Tensor frequencies = layers.allocate(DType.F32, scaling.dim() / 2);
        layers.op(stream -> {
            frequencies.copyFrom(stream, scaling.inverseFrequencies(length));
            Rope.table(stream, own, frequencies, 0, scaling.attentionFactor());
        }, own, frequencies);
        return own;
    }
}
