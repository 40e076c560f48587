package io.gatun.models;

import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import java.util.Map;

/// A language model that computes what another one does, with layers that were told something first.
public abstract class WrappedModel implements CausalModel {
    private final CausalModel base;

    protected WrappedModel(CausalModel base) {
        this.base = base;
    }

    /// Tells the layers; comes before every pass that is written down.
    protected abstract void prepare(Layers layers);

    @Override
    public ModelConfig config() {
        return base.config();
    }

    @Override
    public void reserve(Stream stream, int length) {
        base.reserve(stream, length);
    }

    @Override
    public final Tensor forward(Layers layers, Tokens tokens, SequenceAttention attention,
            ForwardPass.Observer observer) {
        prepare(layers);
        return base.forward(layers, tokens, attention, observer);
    }

    @Override
    public final void forwardToLogits(Layers layers, Tensor logits, Tokens tokens, SequenceAttention attention,
            ForwardPass.Observer observer) {
        prepare(layers);
        base.forwardToLogits(layers, logits, tokens, attention, observer);
    }

    @Override
    public Tensor headWeight() {
        return base.headWeight();
    }

    @Override
    public Map<String, Tensor> weights() {
        return base.weights();
    }
}
