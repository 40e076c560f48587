package io.gatun.models;

import io.gatun.runtime.Tensor;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.Map;

/// A language model whose matrices have scales beside them ([Quantization#FP8]), which its layers are told.
final class QuantizedModel extends WrappedModel {
    private final Map<Tensor, Tensor> scales;
    private final Map<String, Tensor> weights = new LinkedHashMap<>();

    /// @param scales [F] of each matrix in e4m3
    /// @param named  the same scales by name
    QuantizedModel(CausalModel base, Map<Tensor, Tensor> scales, Map<String, Tensor> named) {
        super(base);
        this.scales = scales;
        weights.putAll(base.weights());
        weights.putAll(named);
    }

    @Override
    protected void prepare(Layers layers) {
        layers.scaleWeights(scales);
    }

    /// The base's, and the scales.
    @Override
    public Map<String, Tensor> weights() {
        return Collections.unmodifiableMap(weights);
    }
}
