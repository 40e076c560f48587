package io.gatun.models;

import io.gatun.runtime.Tensor;

/// How the tokens of a language model see each other: the one thing that differs between prompts and decode steps,
/// which read a cache of keys and values, and training, whose sequences are whole.
public interface SequenceAttention {
    /// Causal attention of one layer.
    ///
    /// @param q [N, H, D]
    /// @param k [N, G, D]
    /// @param v [N, G, D]
    /// @return [N, H, D], contiguous
    Tensor attend(Layers layers, int layer, Tensor q, Tensor k, Tensor v, float scale);
}
