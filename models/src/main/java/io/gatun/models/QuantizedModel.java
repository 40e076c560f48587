package io.gatun.models;

import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.Map;

/// A language model whose matrices have scales beside them ([Quantization#FP8]), which its layers are told.
final class QuantizedModel implements CausalModel {
    private final CausalModel base;
    private final Map<Tensor, Tensor> scales;
    private final Map<String, Tensor> weights = new LinkedHashMap<>();

    /// @param scales [F] of each matrix in e4m3
    /// @param named  the same scales by name
    QuantizedModel(CausalModel base, Map<Tensor, Tensor> scales, Map<String, Tensor> named) {
        this.base = base;
        this.scales = scales;
        weights.putAll(base.weights());
        weights.putAll(named);
    }

    @Override
    public ModelConfig config() {
        return base.config();
    }

    @Override
    public void reserve(Stream stream, int length) {
        base.reserve(stream, length);
    }

    @Override
    public Tensor forward(Layers layers, Tokens tokens, SequenceAttention attention, ForwardPass.Observer observer) {
        layers.scaleWeights(scales);
        return base.forward(layers, tokens, attention, observer);
    }

    @Override
    public void forwardToLogits(Layers layers, Tensor logits, Tokens tokens, SequenceAttention attention,
            ForwardPass.Observer observer) {
        layers.scaleWeights(scales);
        base.forwardToLogits(layers, logits, tokens, attention, observer);
    }

    @Override
    public Tensor headWeight() {
        return base.headWeight();
    }

    /// The base's, and the scales.
    @Override
    public Map<String, Tensor> weights() {
        return Collections.unmodifiableMap(weights);
    }
}
