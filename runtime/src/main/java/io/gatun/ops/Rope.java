package io.gatun.ops;

import io.gatun.bindings.gatun.Gatun;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;

/// Rotary position embedding (Su et al. 2021, arXiv 2104.09864) from a table of angles.
public final class Rope {
    private Rope() {}

    /// Which elements form a pair.
    public enum Pairing {
        /// `(x[i], x[i + R/2])`: Hugging Face.
        HALF(Gatun.GT_ROPE_HALF()),
        /// `(x[2i], x[2i + 1])`: GPT-J, Meta.
        INTERLEAVED(Gatun.GT_ROPE_INTERLEAVED());

        final int code;

        Pairing(int code) {
            this.code = code;
        }
    }

    /// `table[p, 0, i] = cos(a) f`, `table[p, 1, i] = sin(a) f`, `a = (firstPosition + p) invFreq[i]` in f32,
    /// `f = attentionFactor`.
    ///
    /// @param table   [M, 2, R/2] f32
    /// @param invFreq [R/2] f32
    public static void table(Stream stream, Tensor table, Tensor invFreq, long firstPosition, float attentionFactor) {
        stream.enter("rope_table");
        try {
            stream.check(Gatun.gt_rope_table(stream.descriptor(), table.on(stream), invFreq.on(stream), firstPosition,
                    attentionFactor));
        } finally {
            stream.exit();
        }
    }

    /// `(a, b) -> (a cos - b sin, b cos + a sin)` for each pair of the first R elements; the others are copied.
    ///
    /// @param y         [N, H, D], may be `x`
    /// @param x         [N, H, D] f32, bf16 or f16
    /// @param positions [N] i32: row of the table; a negative one copies the row
    /// @param table     [M, 2, R/2] f32
    public static void rope(Stream stream, Tensor y, Tensor x, Tensor positions, Tensor table, Pairing pairing) {
        stream.enter("rope");
        try {
            stream.check(Gatun.gt_rope(stream.descriptor(), y.on(stream), x.on(stream), positions.on(stream),
                    table.on(stream), pairing.code));
        } finally {
            stream.exit();
        }
    }

    /// The gradient of [#rope]: `(a, b) -> (a cos + b sin, b cos - a sin)` for each pair of the first R elements of
    /// `dy`; the others are copied. Positions and table as there.
    ///
    /// @param dx [N, H, D], may be `dy`
    /// @param dy [N, H, D] f32, bf16 or f16
    public static void ropeBackward(Stream stream, Tensor dx, Tensor dy, Tensor positions, Tensor table,
            Pairing pairing) {
        stream.enter("rope_backward");
        try {
            stream.check(Gatun.gt_rope_backward(stream.descriptor(), dx.on(stream), dy.on(stream),
                    positions.on(stream), table.on(stream), pairing.code));
        } finally {
            stream.exit();
        }
    }
}
