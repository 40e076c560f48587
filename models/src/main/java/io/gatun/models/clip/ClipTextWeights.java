package io.gatun.models.clip;

import io.gatun.models.WeightLoader;
import io.gatun.runtime.Tensor;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/// Weights of a CLIP text encoder with their names in the checkpoint, before which `text_model.` may stand.
///
/// @param tokens        embeddings.token_embedding.weight    [V, C]
/// @param positions     embeddings.position_embedding.weight [M, C]
/// @param layers        encoder.layers.i.*
/// @param finalNorm     final_layer_norm.weight              [C]
/// @param finalNormBias final_layer_norm.bias                [C]
/// @param projection    text_projection.weight               [P, C]; null: none
/// @param all           every weight by name
record ClipTextWeights(Tensor tokens, Tensor positions, List<Layer> layers, Tensor finalNorm, Tensor finalNormBias,
        @Nullable Tensor projection, Map<String, Tensor> all) {

    /// @param norm1     layer_norm1.weight          [C]
    /// @param norm1Bias layer_norm1.bias            [C]
    /// @param q         self_attn.q_proj.weight     [C, C]
    /// @param qBias     self_attn.q_proj.bias       [C]
    /// @param k         self_attn.k_proj.weight     [C, C]
    /// @param kBias     self_attn.k_proj.bias       [C]
    /// @param v         self_attn.v_proj.weight     [C, C]
    /// @param vBias     self_attn.v_proj.bias       [C]
    /// @param out       self_attn.out_proj.weight   [C, C]
    /// @param outBias   self_attn.out_proj.bias     [C]
    /// @param norm2     layer_norm2.weight          [C]
    /// @param norm2Bias layer_norm2.bias            [C]
    /// @param up        mlp.fc1.weight              [F, C]
    /// @param upBias    mlp.fc1.bias                [F]
    /// @param down      mlp.fc2.weight              [C, F]
    /// @param downBias  mlp.fc2.bias                [C]
    record Layer(Tensor norm1, Tensor norm1Bias, Tensor q, Tensor qBias, Tensor k, Tensor kBias, Tensor v, Tensor vBias,
            Tensor out, Tensor outBias, Tensor norm2, Tensor norm2Bias, Tensor up, Tensor upBias, Tensor down,
            Tensor downBias) {}

    static ClipTextWeights load(ClipTextConfig config, WeightLoader w) {
        long c = config.hiddenSize();
        long f = config.innerSize();
        Tensor tokens = w.require("embeddings.token_embedding.weight", config.vocabSize(), c);
        Tensor positions = w.require("embeddings.position_embedding.weight", config.contextLength(), c);
        List<Layer> layers = new ArrayList<>();
        for (int i = 0; i < config.layers(); i++) {
            String p = "encoder.layers." + i + ".";
            layers.add(new Layer(
                    w.require(p + "layer_norm1.weight", c), w.require(p + "layer_norm1.bias", c),
                    w.require(p + "self_attn.q_proj.weight", c, c), w.require(p + "self_attn.q_proj.bias", c),
                    w.require(p + "self_attn.k_proj.weight", c, c), w.require(p + "self_attn.k_proj.bias", c),
                    w.require(p + "self_attn.v_proj.weight", c, c), w.require(p + "self_attn.v_proj.bias", c),
                    w.require(p + "self_attn.out_proj.weight", c, c), w.require(p + "self_attn.out_proj.bias", c),
                    w.require(p + "layer_norm2.weight", c), w.require(p + "layer_norm2.bias", c),
                    w.require(p + "mlp.fc1.weight", f, c), w.require(p + "mlp.fc1.bias", f),
                    w.require(p + "mlp.fc2.weight", c, f), w.require(p + "mlp.fc2.bias", c)));
        }
        Tensor norm = w.require("final_layer_norm.weight", c);
        Tensor normBias = w.require("final_layer_norm.bias", c);
        Tensor projection = config.isProjected() ? w.require("text_projection.weight", config.projectionDim(), c)
                : w.optional("text_projection.weight", config.projectionDim(), c);
        Map<String, Tensor> all = w.finish(name -> name.endsWith("embeddings.position_ids"));
        return new ClipTextWeights(tokens, positions, List.copyOf(layers), norm, normBias, projection, all);
    }
}
