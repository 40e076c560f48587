package io.gatun.models.llama;

import io.gatun.models.Layers.Matrix;
import io.gatun.models.WeightLoader;
import io.gatun.ops.Linear.WeightLayout;
import io.gatun.runtime.Tensor;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;

/// Weights of Llama with their names in the checkpoint. Matrices are Linear: [out, in].
///
/// @param embedding embed_tokens.weight [V, C], else lm_head.weight
/// @param layers    layers.i.*
/// @param norm      norm.weight         [C]
/// @param head      lm_head.weight      [V, C], else embed_tokens.weight
/// @param all       every weight by name
record LlamaWeights(Tensor embedding, List<Layer> layers, Tensor norm, Tensor head, Map<String, Tensor> all) {

    /// @param inputNorm  layers.i.input_layernorm.weight          [C]
    /// @param q          layers.i.self_attn.q_proj                [H D, C]
    /// @param k          layers.i.self_attn.k_proj                [G D, C]
    /// @param v          layers.i.self_attn.v_proj                [G D, C]
    /// @param o          layers.i.self_attn.o_proj                [C, H D]
    /// @param postNorm   layers.i.post_attention_layernorm.weight [C]
    /// @param gate       layers.i.mlp.gate_proj                   [F, C]
    /// @param up         layers.i.mlp.up_proj                     [F, C]
    /// @param down       layers.i.mlp.down_proj                   [C, F]
    record Layer(Tensor inputNorm, Matrix q, Matrix k, Matrix v, Matrix o, Tensor postNorm, Matrix gate, Matrix up,
            Matrix down) {}

    /// NAME.weight [out, in] and, where the config has biases, NAME.bias [out].
    private static Matrix projection(WeightLoader w, String name, boolean bias, long out, long in) {
        return new Matrix(w.matrix(WeightLayout.OUT_IN, name + ".weight", out, in), w.when(bias, name + ".bias", out));
    }

    static LlamaWeights load(LlamaConfig config, WeightLoader w) {
        long c = config.base().hiddenSize();
        long f = config.intermediateSize();
        long v = config.base().vocabSize();
        long hd = (long) config.base().heads() * config.base().headDim();
        long gd = (long) config.base().kvHeads() * config.base().headDim();
        boolean ab = config.attentionBias();
        boolean mb = config.mlpBias();
        Tensor embedding = w.optional("embed_tokens.weight", v, c);
        List<Layer> layers = new ArrayList<>();
        for (int i = 0; i < config.base().layers(); i++) {
            String l = "layers." + i + ".";
            layers.add(new Layer(
                    w.require(l + "input_layernorm.weight", c),
                    projection(w, l + "self_attn.q_proj", ab, hd, c),
                    projection(w, l + "self_attn.k_proj", ab, gd, c),
                    projection(w, l + "self_attn.v_proj", ab, gd, c),
                    projection(w, l + "self_attn.o_proj", ab, c, hd),
                    w.require(l + "post_attention_layernorm.weight", c),
                    projection(w, l + "mlp.gate_proj", mb, f, c),
                    projection(w, l + "mlp.up_proj", mb, f, c),
                    projection(w, l + "mlp.down_proj", mb, c, f)));
        }
        Tensor norm = w.require("norm.weight", c);
        Tensor head = w.optional("lm_head.weight", v, c);
        if (embedding == null) {
            embedding = head != null ? head : w.require("embed_tokens.weight", v, c);
        }
        Map<String, Tensor> all = w.finish(name -> name.endsWith("rotary_emb.inv_freq"));
        return new LlamaWeights(embedding, List.copyOf(layers), norm, head == null ? embedding : head, all);
    }
}
