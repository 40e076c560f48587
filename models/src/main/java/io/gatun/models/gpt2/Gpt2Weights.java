package io.gatun.models.gpt2;

import io.gatun.models.WeightLoader;
import io.gatun.ops.Linear.WeightLayout;
import io.gatun.runtime.Tensor;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;

/// Weights of GPT-2 with their names in the checkpoint. Matrices are Conv1D: [in, out].
///
/// @param wte     wte.weight             [V, C]
/// @param wpe     wpe.weight             [M, C]
/// @param layers  h.i.*
/// @param lnF     ln_f.weight            [C]
/// @param lnFBias ln_f.bias              [C]
/// @param head    lm_head.weight         [V, C], else wte
/// @param all     every weight by name
record Gpt2Weights(Tensor wte, Tensor wpe, List<Layer> layers, Tensor lnF, Tensor lnFBias, Tensor head,
        Map<String, Tensor> all) {

    /// @param ln1       h.i.ln_1.weight        [C]
    /// @param ln1Bias   h.i.ln_1.bias          [C]
    /// @param qkv       h.i.attn.c_attn.weight [C, 3C]
    /// @param qkvBias   h.i.attn.c_attn.bias   [3C]
    /// @param proj      h.i.attn.c_proj.weight [C, C]
    /// @param projBias  h.i.attn.c_proj.bias   [C]
    /// @param ln2       h.i.ln_2.weight        [C]
    /// @param ln2Bias   h.i.ln_2.bias          [C]
    /// @param up        h.i.mlp.c_fc.weight    [C, F]
    /// @param upBias    h.i.mlp.c_fc.bias      [F]
    /// @param down      h.i.mlp.c_proj.weight  [F, C]
    /// @param downBias  h.i.mlp.c_proj.bias    [C]
    record Layer(Tensor ln1, Tensor ln1Bias, Tensor qkv, Tensor qkvBias, Tensor proj, Tensor projBias, Tensor ln2,
            Tensor ln2Bias, Tensor up, Tensor upBias, Tensor down, Tensor downBias) {}

    static Gpt2Weights load(Gpt2Config config, WeightLoader w) {
        int c = config.base().hiddenSize();
        int f = config.innerSize();
        int v = config.base().vocabSize();
        List<Layer> layers = new ArrayList<>();
        Tensor wte = w.optional("wte.weight", v, c);
        Tensor wpe = w.require("wpe.weight", config.base().contextLength(), c);
        for (int i = 0; i < config.base().layers(); i++) {
            String h = "h." + i + ".";
            layers.add(new Layer(
                    w.require(h + "ln_1.weight", c), w.require(h + "ln_1.bias", c),
                    w.matrix(WeightLayout.IN_OUT, h + "attn.c_attn.weight", c, 3L * c),
                    w.require(h + "attn.c_attn.bias", 3L * c),
                    w.matrix(WeightLayout.IN_OUT, h + "attn.c_proj.weight", c, c),
                    w.require(h + "attn.c_proj.bias", c),
                    w.require(h + "ln_2.weight", c), w.require(h + "ln_2.bias", c),
                    w.matrix(WeightLayout.IN_OUT, h + "mlp.c_fc.weight", c, f),
                    w.require(h + "mlp.c_fc.bias", f),
                    w.matrix(WeightLayout.IN_OUT, h + "mlp.c_proj.weight", f, c),
                    w.require(h + "mlp.c_proj.bias", c)));
        }
        Tensor lnF = w.require("ln_f.weight", c);
        Tensor lnFBias = w.require("ln_f.bias", c);
        Tensor head = w.optional("lm_head.weight", v, c);
        if (wte == null) {
            wte = head != null ? head : w.require("wte.weight", v, c);
        }
        Map<String, Tensor> all = w.finish(name -> name.endsWith(".attn.bias") || name.endsWith(".attn.masked_bias"));
        return new Gpt2Weights(wte, wpe, List.copyOf(layers), lnF, lnFBias, head == null ? wte : head, all);
    }
}
