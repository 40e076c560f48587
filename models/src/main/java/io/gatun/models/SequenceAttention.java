package io.gatun.models;

import io.gatun.ops.Rope;
import io.gatun.runtime.Tensor;
import org.jspecify.annotations.Nullable;

/// How the tokens of a language model see each other: the one thing that differs between prompts and decode steps,
/// which read a cache of keys and values, and training, whose sequences are whole.
public interface SequenceAttention {
    /// Rotary positions, of queries and keys alike; operands as in [Rope#rope].
    ///
    /// @param positions [N] i32
    /// @param table     [M, 2, R/2] f32
    record Rotation(Tensor positions, Tensor table, Rope.Pairing pairing) {
        /// [N, H, D] in x's memory, rotated where there is a rotation.
        static Tensor of(Layers layers, @Nullable Rotation rotation, Tensor x) {
            return rotation == null ? x : layers.rope(x, rotation.positions, rotation.table, rotation.pairing);
        }
    }

    /// Causal attention of one layer.
    ///
    /// @param q        [N, H, D], may be written to
    /// @param k        [N, G, D], may be written to
    /// @param v        [N, G, D]
    /// @param rotation of q and k before they meet; null: none
    /// @return [N, H, D], contiguous
    Tensor attend(Layers layers, int layer, Tensor q, Tensor k, Tensor v, @Nullable Rotation rotation, float scale);
}
