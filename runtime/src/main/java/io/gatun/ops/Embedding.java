package io.gatun.ops;

import io.gatun.bindings.gatun.Gatun;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import org.jspecify.annotations.Nullable;

/// Rows of a table, gathered by id.
public final class Embedding {
    private Embedding() {}

    /// `y[n] = table[ids[n]] + positionTable[positions[n]]`, summed in f32. An id or position outside its table gives a
    /// NaN row, so that the fault travels with the row to the next record.
    ///
    /// @param y             [N, C] f32, bf16 or f16
    /// @param ids           [N] i32 or i64
    /// @param table         [V, C] y's dtype
    /// @param positions     [N] i32; null together with `positionTable`
    /// @param positionTable [M, C] y's dtype
    public static void embedding(Stream stream, Tensor y, Tensor ids, Tensor table, @Nullable Tensor positions,
            @Nullable Tensor positionTable) {
        stream.enter("embedding");
        try {
            stream.check(Gatun.gt_embedding(stream.descriptor(), y.on(stream), ids.on(stream), table.on(stream),
                    Tensor.on(positions, stream), Tensor.on(positionTable, stream)));
        } finally {
            stream.exit();
        }
    }
}
