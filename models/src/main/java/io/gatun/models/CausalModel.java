package io.gatun.models;

import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import io.gatun.runtime.Workspace;
import java.util.Map;

/// A decoder-only language model: weights on a device and how to run them.
public interface CausalModel {
    ModelConfig config();

    /// Prepares sequences of up to `length` positions, for instance their rotary angles.
    void reserve(Stream stream, int length);

    /// Places a forward pass for the rows of `batch`, to be run on the stream.
    ForwardPass place(Stream stream, Workspace workspace, Batch batch, KvCache cache);

    /// `logits[n] = hidden[n] . head`.
    ///
    /// @param logits [N, V] f32
    /// @param hidden [N, C]
    void head(Stream stream, Tensor logits, Tensor hidden);

    /// All weights by their name in the checkpoint, to name a bad one.
    Map<String, Tensor> weights();
}
