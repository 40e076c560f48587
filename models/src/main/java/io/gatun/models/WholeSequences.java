package io.gatun.models;

import io.gatun.ops.Attention.Mask;
import io.gatun.runtime.Tensor;
import org.jspecify.annotations.Nullable;

/// Attention among the tokens of sequences that are there from their beginning, all equally long, one behind the other.
///
/// @param batch B; the rows are B sequences of N / B tokens
public record WholeSequences(long batch) implements SequenceAttention {
    @Override
    public Tensor attend(Layers layers, int layer, Tensor q, Tensor k, Tensor v, @Nullable Rotation rotation,
            float scale) {
        Tensor rotatedQ = Rotation.of(layers, rotation, q);
        Tensor rotatedK = Rotation.of(layers, rotation, k);
        return layers.attention(sequences(rotatedQ), sequences(rotatedK), sequences(v), scale, Mask.CAUSAL)
                .reshape(q.shape());
    }

    /// [N, H, D] as [B, T, H, D].
    private Tensor sequences(Tensor x) {
        long t = x.size(0) / batch;
        return x.strided(new long[] {batch, t, x.size(1), x.size(2)},
                new long[] {t * x.stride(0), x.stride(0), x.stride(1), x.stride(2)});
    }
}
