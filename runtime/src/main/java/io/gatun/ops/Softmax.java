package io.gatun.ops;

import io.gatun.bindings.gatun.Gatun;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import org.jspecify.annotations.Nullable;

/// Softmax and log-softmax of rows [..., C], where the dtypes of `x` and `y` may differ and `y` may be `x`; the
/// cross-entropy of logits with its gradient.
public final class Softmax {
    private Softmax() {}

    /// `y = exp(x - max x) / sum(exp(x - max x))` over the last dimension. A row of -inf gives zeros.
    public static void softmax(Stream stream, Tensor y, Tensor x) {
        stream.enter("softmax");
        try {
            stream.check(Gatun.gt_softmax(stream.descriptor(), y.on(stream), x.on(stream)));
        } finally {
            stream.exit();
        }
    }

    /// `y = x - max x - log(sum(exp(x - max x)))` over the last dimension. A row of -inf gives -inf.
    public static void logSoftmax(Stream stream, Tensor y, Tensor x) {
        stream.enter("log_softmax");
        try {
            stream.check(Gatun.gt_log_softmax(stream.descriptor(), y.on(stream), x.on(stream)));
        } finally {
            stream.exit();
        }
    }

    /// Softmax cross-entropy and, in the same call, its gradient: with `p = softmax(logits[n])`, `t = targets[n]` and
    /// `e = labelSmoothing`, of each row with `t != ignoreIndex`
    /// `rowLosses[n] = -(1 - e) log p[t] - e / V sum_v log p[v]`; `loss` is their mean over those rows, 0 if there are
    /// none, and `dlogits[n, v] = gradScale / rows * (p[v] - (1 - e) [v = t] - e / V)`. Other rows have loss 0 and
    /// gradient 0. A target outside 0 .. V-1 gives NaN.
    ///
    /// @param loss           [1] f32
    /// @param rowLosses      [N] f32; null: not wanted
    /// @param dlogits        [N, V] logits' dtype, may be `logits`; null: the loss alone
    /// @param logits         [N, V] f32, bf16 or f16
    /// @param targets        [N] i32 or i64
    /// @param labelSmoothing 0 to 1
    /// @param gradScale      [1] f32, by which the loss is multiplied before it is differentiated; null: 1
    /// @param workspace      u8 of [#crossEntropyWorkspaceBytes]; null where that is 0
    public static void crossEntropy(Stream stream, Tensor loss, @Nullable Tensor rowLosses, @Nullable Tensor dlogits,
            Tensor logits, Tensor targets, long ignoreIndex, float labelSmoothing, @Nullable Tensor gradScale,
            @Nullable Tensor workspace) {
        stream.enter("cross_entropy");
        try {
            stream.check(Gatun.gt_cross_entropy(stream.descriptor(), loss.on(stream), Tensor.on(rowLosses, stream),
                    Tensor.on(dlogits, stream), logits.on(stream), targets.on(stream), ignoreIndex, labelSmoothing,
                    Tensor.on(gradScale, stream), Tensor.on(workspace, stream)));
        } finally {
            stream.exit();
        }
    }

    /// Bytes of workspace that [#crossEntropy] wants for these logits; with 0 it takes null.
    public static long crossEntropyWorkspaceBytes(Stream stream, Tensor logits) {
        return WorkspaceQuery.bytes(stream, "cross_entropy_workspace",
                bytes -> Gatun.gt_cross_entropy_workspace(stream.descriptor(), logits.shapeOn(stream), bytes));
    }
}
