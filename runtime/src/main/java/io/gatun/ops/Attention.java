package io.gatun.ops;

import static io.gatun.runtime.Tensor.on;

import io.gatun.bindings.gatun.Gatun;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import org.jspecify.annotations.Nullable;

/// Scaled dot-product attention, computed block by block with a running maximum (Dao 2022, arXiv 2205.14135): the score
/// matrix is never stored. A row that sees no key gives zeros and lse = -inf, never NaN.
public final class Attention {
    /// Positions in one page of the key/value cache.
    public static final int PAGE_SIZE = 64;
    /// The largest head dim of [#decode].
    public static final int MAX_DECODE_HEAD_DIM = 256;

    private Attention() {}

    /// Which keys a query sees.
    public enum Mask {
        /// All.
        NONE(Gatun.GT_MASK_NONE()),
        /// Key `s` when `s <= t + (S - T)`: aligned at the bottom right.
        CAUSAL(Gatun.GT_MASK_CAUSAL());

        private final int code;

        Mask(int code) {
            this.code = code;
        }
    }

    /// `y[b,t,h] = sum_s softmax_s(scale q[b,t,h] . k[b,s,g] + bias[b,h,t,s]) v[b,s,g]`, `g = h / (H / G)`.
    ///
    /// @param y          [B, T, H, D] any outer strides, may not overlap an input
    /// @param lse        [B, H, T] f32, the log of the sum of exponentials; null: not wanted
    /// @param q          [B, T, H, D] f32, bf16 or f16, D contiguous, D <= 512
    /// @param k          [B, S, G, D], G divides H
    /// @param v          [B, S, G, D]
    /// @param bias       [B or 1, H or 1, T, S] f32, added to the scores; null: none
    /// @param keyLengths [B] i32: keys from there on are not seen; null: all S are
    /// @param workspace  u8 [workspaceBytes]; null where that is 0
    public static void attention(Stream stream, Tensor y, @Nullable Tensor lse, Tensor q, Tensor k, Tensor v,
            @Nullable Tensor bias, @Nullable Tensor keyLengths, float scale, Mask mask, @Nullable Tensor workspace) {
        stream.enter("attention");
        try {
            stream.check(Gatun.gt_attention(stream.descriptor(), y.on(stream), on(lse, stream), q.on(stream),
                    k.on(stream), v.on(stream), on(bias, stream), on(keyLengths, stream), scale, mask.code,
                    on(workspace, stream)));
        } finally {
            stream.exit();
        }
    }

    /// Bytes of workspace that [#attention] wants.
    public static long workspaceBytes(Stream stream, Tensor q, Tensor k) {
        return WorkspaceQuery.bytes(stream, "attention_workspace",
                bytes -> Gatun.gt_attention_workspace(stream.descriptor(), q.shapeOn(stream), k.shapeOn(stream),
                        bytes));
    }

    /// The derivatives of [#attention]: with `P = exp(scale q . k + bias - lse)` of the keys that a query sees and
    /// `dS = P (dy . v - dy . y)`, `dq = scale dS k`, `dk = scale dS^T q`, `dv = P^T dy`, `dbias = dS` (Dao 2022, arXiv
    /// 2205.14135). A query that sees no key and a key that no query sees have gradients of zero. Sums have one order,
    /// whatever the number of threads. Outputs are overwritten and may not overlap another operand.
    ///
    /// @param dq         [B, T, H, D] any outer strides, dtype of q
    /// @param dk         [B, S, G, D]
    /// @param dv         [B, S, G, D]
    /// @param dbias      f32, the shape of bias, contiguous: the sum over the batches and heads that share it; null:
    ///                   not wanted
    /// @param dy         [B, T, H, D] the gradient of y
    /// @param y          [B, T, H, D] as attention wrote it
    /// @param lse        [B, H, T] f32, as attention wrote it
    /// @param q          [B, T, H, D], and k, v, bias, keyLengths, scale and mask as attention had them
    /// @param workspace  u8 [attentionBackwardWorkspaceBytes]
    public static void attentionBackward(Stream stream, Tensor dq, Tensor dk, Tensor dv, @Nullable Tensor dbias,
            Tensor dy, Tensor y, Tensor lse, Tensor q, Tensor k, Tensor v, @Nullable Tensor bias,
            @Nullable Tensor keyLengths, float scale, Mask mask, @Nullable Tensor workspace) {
        stream.enter("attention_backward");
        try {
            stream.check(Gatun.gt_attention_backward(stream.descriptor(), dq.on(stream), dk.on(stream), dv.on(stream),
                    on(dbias, stream), dy.on(stream), y.on(stream), lse.on(stream), q.on(stream), k.on(stream),
                    v.on(stream), on(bias, stream), on(keyLengths, stream), scale, mask.code, on(workspace, stream)));
        } finally {
            stream.exit();
        }
    }

    /// Bytes of workspace that [#attentionBackward] wants on this stream for these shapes.
    public static long attentionBackwardWorkspaceBytes(Stream stream, Tensor q, Tensor k) {
        return WorkspaceQuery.bytes(stream, "attention_backward_workspace",
                bytes -> Gatun.gt_attention_backward_workspace(stream.descriptor(), q.shapeOn(stream),
                        k.shapeOn(stream), bytes));
    }

    /// Attention of ragged queries over a paged key/value cache (Kwon et al. 2023, arXiv 2309.06180): row `n` of
    /// sequence `b` (`queryStart[b] <= n < queryStart[b+1]`) sees the cached keys `0 .. positions[n]`. A row with a
    /// negative position is idle and gives zeros. A row's bits do not depend on what else is in the batch.
    ///
    /// @param y          [N, H, D]
    /// @param lse        [N, H] f32; null: not wanted
    /// @param q          [N, H, D]
    /// @param kPages     [pages, G, PAGE_SIZE, D]
    /// @param vPages     [pages, G, PAGE_SIZE, D]
    /// @param pageTable  [B, maxPages] i32
    /// @param queryStart [B + 1] i32 from 0 to N
    /// @param positions  [N] i32, of a sequence ascending by 1 or all negative
    /// @param workspace  u8 [pagedWorkspaceBytes]; null where that is 0
    public static void attentionPaged(Stream stream, Tensor y, @Nullable Tensor lse, Tensor q, Tensor kPages,
            Tensor vPages, Tensor pageTable, Tensor queryStart, Tensor positions, float scale,
            @Nullable Tensor workspace) {
        stream.enter("attention_paged");
        try {
            stream.check(Gatun.gt_attention_paged(stream.descriptor(), y.on(stream), on(lse, stream), q.on(stream),
                    kPages.on(stream), vPages.on(stream), pageTable.on(stream), queryStart.on(stream),
                    positions.on(stream), scale, on(workspace, stream)));
        } finally {
            stream.exit();
        }
    }

    /// Bytes of workspace that [#attentionPaged] wants.
    public static long pagedWorkspaceBytes(Stream stream, Tensor q, Tensor pageTable) {
        return WorkspaceQuery.bytes(stream, "attention_paged_workspace",
                bytes -> Gatun.gt_attention_paged_workspace(stream.descriptor(), q.shapeOn(stream),
                        pageTable.shapeOn(stream), bytes));
    }

    /// Stores keys and values `[N, G, D]` of ragged rows in their pages; rows with a negative position are skipped.
    /// Operands as in [#attentionPaged].
    public static void appendKv(Stream stream, Tensor kPages, Tensor vPages, Tensor k, Tensor v, Tensor pageTable,
            Tensor queryStart, Tensor positions) {
        stream.enter("kv_append");
        try {
            stream.check(Gatun.gt_kv_append(stream.descriptor(), kPages.on(stream), vPages.on(stream), k.on(stream),
                    v.on(stream), pageTable.on(stream), queryStart.on(stream), positions.on(stream)));
        } finally {
            stream.exit();
        }
    }

    /// The attention of a decode step in one launch, with the bits of [Rope#rope] of q and k, [#appendKv] and
    /// [#attentionPaged] in turn: row `n`, of sequence `n`, stores its key and value at `positions[n]` and sees the
    /// cached keys `0 .. positions[n]`. A row with a negative position is idle: it stores nothing and gives zeros.
    ///
    /// @param y         [N, H, D], may not overlap an input; D at most [#MAX_DECODE_HEAD_DIM]
    /// @param lse       [N, H] f32; null: not wanted
    /// @param kPages    [pages, G, PAGE_SIZE, D]; a page that a row writes to is in no other row's reach
    /// @param vPages    [pages, G, PAGE_SIZE, D]
    /// @param counters  [N, G] i32, zeros before the first call and again after each; for one call at a time
    /// @param q         [N, H, D]
    /// @param k         [N, G, D]
    /// @param v         [N, G, D]
    /// @param pageTable [N, maxPages] i32
    /// @param positions [N] i32
    /// @param ropeTable [M, 2, R/2] f32 as in [Rope#rope]; null: no rotation
    /// @param pairing   as in [Rope#rope]
    /// @param workspace u8 [decodeWorkspaceBytes]; null where that is 0
    public static void decode(Stream stream, Tensor y, @Nullable Tensor lse, Tensor kPages, Tensor vPages,
            Tensor counters, Tensor q, Tensor k, Tensor v, Tensor pageTable, Tensor positions,
            @Nullable Tensor ropeTable, Rope.Pairing pairing, float scale, @Nullable Tensor workspace) {
        stream.enter("attention_decode");
        try {
            stream.check(Gatun.gt_attention_decode(stream.descriptor(), y.on(stream), on(lse, stream),
                    kPages.on(stream), vPages.on(stream), counters.on(stream), q.on(stream), k.on(stream), v.on(stream),
                    pageTable.on(stream), positions.on(stream), on(ropeTable, stream), pairing.code, scale,
                    on(workspace, stream)));
        } finally {
            stream.exit();
        }
    }

    /// Bytes of workspace that [#decode] wants.
    public static long decodeWorkspaceBytes(Stream stream, Tensor q, Tensor k, Tensor pageTable) {
        return WorkspaceQuery.bytes(stream, "attention_decode_workspace",
                bytes -> Gatun.gt_attention_decode_workspace(stream.descriptor(), q.shapeOn(stream),
                        k.shapeOn(stream), pageTable.shapeOn(stream), bytes));
    }
}
