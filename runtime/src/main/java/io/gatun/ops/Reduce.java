package io.gatun.ops;

import static io.gatun.runtime.Tensor.on;

import io.gatun.bindings.gatun.Gatun;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import org.jspecify.annotations.Nullable;

/// Sums over the rows of matrices, as the gradient of a bias or of a broadcast operand needs them, and over everything.
/// The order of addition depends on the shape alone: any number of threads gives the same bits.
public final class Reduce {
    private Reduce() {}

    /// `y[b,c] = sum_s a[b,s,c] b[b,s,c]`, in f32. With B = 1 the gradient of a bias.
    ///
    /// @param y         [B, C] f32 or a's dtype, C contiguous; overlaps no input
    /// @param a         [B, S, C] f32, bf16 or f16, C contiguous, the others at any stride
    /// @param b         like a; null: 1
    /// @param workspace u8 of [#sumRowsWorkspaceBytes]; null where that is 0
    public static void sumRows(Stream stream, Tensor y, Tensor a, @Nullable Tensor b, @Nullable Tensor workspace) {
        stream.enter("sum_rows");
        try {
            stream.check(Gatun.gt_sum_rows(stream.descriptor(), y.on(stream), a.on(stream), on(b, stream),
                    on(workspace, stream)));
        } finally {
            stream.exit();
        }
    }

    /// Bytes of workspace that [#sumRows] wants for this a; with 0 it takes null.
    public static long sumRowsWorkspaceBytes(Stream stream, Tensor a) {
        return WorkspaceQuery.bytes(stream, "sum_rows_workspace",
                bytes -> Gatun.gt_sum_rows_workspace(stream.descriptor(), a.shapeOn(stream), bytes));
    }

    /// `y = factor * sum(x)`, summed in f64.
    ///
    /// @param y         [1] f32
    /// @param x         any shape, contiguous, f32, bf16 or f16
    /// @param workspace u8 of [#sumWorkspaceBytes]; null where that is 0
    public static void sum(Stream stream, Tensor y, Tensor x, float factor, @Nullable Tensor workspace) {
        stream.enter("sum");
        try {
            stream.check(Gatun.gt_sum(stream.descriptor(), y.on(stream), x.on(stream), factor, on(workspace, stream)));
        } finally {
            stream.exit();
        }
    }

    /// Bytes of workspace that [#sum] wants for this x; with 0 it takes null.
    public static long sumWorkspaceBytes(Stream stream, Tensor x) {
        return WorkspaceQuery.bytes(stream, "sum_workspace",
                bytes -> Gatun.gt_sum_workspace(stream.descriptor(), x.shapeOn(stream), bytes));
    }
}
