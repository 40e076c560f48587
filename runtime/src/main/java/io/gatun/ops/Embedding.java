package io.gatun.ops;

import io.gatun.bindings.gatun.Gatun;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import org.jspecify.annotations.Nullable;

/// Rows of a table, gathered by id, and the gradient of the table.
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

    /// The gradient of the table: `dtable[v] = sum over n with ids[n] = v of dy[n]`, 0 where no id is v. Summed in f32
    /// in an order that `ids` alone decide. An id outside the table adds to no row.
    ///
    /// @param dtable    [V, C] f32; all of it is written
    /// @param dy        [N, C] f32, bf16 or f16
    /// @param ids       [N] i32 or i64
    /// @param workspace u8 of [#embeddingBackwardWorkspaceBytes]; null where that is 0
    public static void embeddingBackward(Stream stream, Tensor dtable, Tensor dy, Tensor ids,
            @Nullable Tensor workspace) {
        stream.enter("embedding_backward");
        try {
            stream.check(Gatun.gt_embedding_backward(stream.descriptor(), dtable.on(stream), dy.on(stream),
                    ids.on(stream), Tensor.on(workspace, stream)));
        } finally {
            stream.exit();
        }
    }

    /// Bytes of workspace that [#embeddingBackward] wants for a table [V, C] and ids [N]; with 0 it takes null.
    public static long embeddingBackwardWorkspaceBytes(Stream stream, Tensor table, Tensor ids) {
        return WorkspaceQuery.bytes(stream, "embedding_backward_workspace",
                bytes -> Gatun.gt_embedding_backward_workspace(stream.descriptor(), table.shapeOn(stream),
                        ids.shapeOn(stream), bytes));
    }
}
