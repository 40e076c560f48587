package io.gatun.models;

import io.gatun.ops.Linear;
import io.gatun.ops.Linear.InputNorm;
import io.gatun.ops.Linear.MlpActivation;
import io.gatun.ops.Linear.Product;
import io.gatun.ops.Linear.WeightLayout;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import java.util.Map;

/// A decoder-only language model: weights on a device and its forward computation, written once for prompts, decode
/// steps and training.
public interface CausalModel {
    /// Up to so many rows a head is a node like those of a decode step; more have the same bits.
    int FEW_ROWS = 16;

    /// The rows of a pass.
    ///
    /// @param ids            [N] i32
    /// @param positions      [N] i32, place of each token in its sequence; negative: idle
    /// @param sequenceLength length of the sequence that the rows belong to; 0 in decode steps, where each has its own
    record Tokens(Tensor ids, Tensor positions, int sequenceLength) {}

    ModelConfig config();

    /// Prepares sequences of up to `length` positions, for instance their rotary angles.
    void reserve(Stream stream, int length);

    /// Writes a forward pass down.
    ///
    /// @param observer is called while the pass is written down, with the tensors between the layers
    /// @return the states after the final norm. [N, C]
    Tensor forward(Layers layers, Tokens tokens, SequenceAttention attention, ForwardPass.Observer observer);

    /// Writes a decode step down up to its logits: [#forward] and [#head]. A model whose final norm is one launch with
    /// its head has no states `L` and `L + 1` to show the observer.
    ///
    /// @param logits [N, V] f32
    default void forwardToLogits(Layers layers, Tensor logits, Tokens tokens, SequenceAttention attention,
            ForwardPass.Observer observer) {
        Tensor hidden = forward(layers, tokens, attention, observer);
        layers.op(stream -> head(stream, logits, hidden), logits, hidden);
    }

    /// The matrix that makes logits of states. [V, C]
    Tensor headWeight();

    /// `logits[n] = hidden[n] . headWeight`, a row's bits the same whatever other rows there are. [N, V] f32, [N, C]
    default void head(Stream stream, Tensor logits, Tensor hidden) {
        if (!Layers.fuses(stream.device(), hidden.size(1), Linear.MOST_CHANNELS)) {
            stream.device().matmulRowwise(stream, logits, hidden, headWeight(), null, WeightLayout.OUT_IN);
        } else if (hidden.size(0) <= FEW_ROWS) {
            Linear.normLinear(stream, hidden, InputNorm.NONE, new Product(logits, headWeight(), null),
                    WeightLayout.OUT_IN, MlpActivation.NONE);
        } else {
            Linear.linear(stream, logits, hidden, headWeight(), null, WeightLayout.OUT_IN);
        }
    }

    /// All weights by their name in the checkpoint, to name a bad one.
    Map<String, Tensor> weights();
}
