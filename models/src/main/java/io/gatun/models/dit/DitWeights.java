package io.gatun.models.dit;

import io.gatun.models.WeightLoader;
import io.gatun.runtime.Tensor;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/// Weights of DiT with their names in the checkpoint. Positions are computed, not stored.
///
/// @param patches       pos_embed.proj.weight [C, in, p, p]
/// @param patchesBias   pos_embed.proj.bias   [C]
/// @param positions     computed              [T, C]
/// @param layers        transformer_blocks.i.*
/// @param modulate      proj_out_1.weight     [2C, C]: shift, scale
/// @param modulateBias  proj_out_1.bias       [2C]
/// @param out           proj_out_2.weight     [p p out, C]
/// @param outBias       proj_out_2.bias       [p p out]
/// @param all           every weight by name
record DitWeights(Tensor patches, Tensor patchesBias, Tensor positions, List<Layer> layers, Tensor modulate,
        Tensor modulateBias, Tensor out, Tensor outBias, Map<String, Tensor> all) {

    /// Every block has its own embedding of time step and class.
    ///
    /// @param time1        norm1.emb.timestep_embedder.linear_1.weight   [C, 256]
    /// @param time1Bias    norm1.emb.timestep_embedder.linear_1.bias     [C]
    /// @param time2        norm1.emb.timestep_embedder.linear_2.weight   [C, C]
    /// @param time2Bias    norm1.emb.timestep_embedder.linear_2.bias     [C]
    /// @param classes      norm1.emb.class_embedder.embedding_table.weight [classes + 1, C]
    /// @param modulate     norm1.linear.weight [6C, C]: shift, scale, gate of attention, then of the MLP
    /// @param modulateBias norm1.linear.bias   [6C]
    /// @param q            attn1.to_q.weight   [C, C]
    /// @param qBias        attn1.to_q.bias     [C]; null: attention_bias is false
    /// @param k            attn1.to_k.weight   [C, C]
    /// @param kBias        attn1.to_k.bias     [C]
    /// @param v            attn1.to_v.weight   [C, C]
    /// @param vBias        attn1.to_v.bias     [C]
    /// @param proj         attn1.to_out.0.weight [C, C]
    /// @param projBias     attn1.to_out.0.bias [C]
    /// @param norm3        norm3.weight        [C]; null: norm_elementwise_affine is false
    /// @param norm3Bias    norm3.bias          [C]
    /// @param up           ff.net.0.proj.weight [F, C], F = 4C, or 8C under geglu
    /// @param upBias       ff.net.0.proj.bias  [F]
    /// @param down         ff.net.2.weight     [C, 4C]
    /// @param downBias     ff.net.2.bias       [C]
    record Layer(Tensor time1, Tensor time1Bias, Tensor time2, Tensor time2Bias, Tensor classes, Tensor modulate,
            Tensor modulateBias, Tensor q, @Nullable Tensor qBias, Tensor k, @Nullable Tensor kBias, Tensor v,
            @Nullable Tensor vBias, Tensor proj, Tensor projBias, @Nullable Tensor norm3, @Nullable Tensor norm3Bias,
            Tensor up, Tensor upBias, Tensor down, Tensor downBias) {}

    static DitWeights load(DitConfig config, WeightLoader w) {
        long c = config.hiddenSize();
        long p = config.patchSize();
        long f = config.isGated() ? 8 * c : 4 * c;
        boolean bias = config.attentionBias();
        boolean affine = config.norm3Affine();
        Tensor patches = w.require("pos_embed.proj.weight", c, config.inChannels(), p, p);
        Tensor patchesBias = w.require("pos_embed.proj.bias", c);
        List<Layer> layers = new ArrayList<>();
        for (int i = 0; i < config.layers(); i++) {
            String b = "transformer_blocks." + i + ".";
            String e = b + "norm1.emb.";
            layers.add(new Layer(
                    w.require(e + "timestep_embedder.linear_1.weight", c, DitConfig.TIME_WIDTH),
                    w.require(e + "timestep_embedder.linear_1.bias", c),
                    w.require(e + "timestep_embedder.linear_2.weight", c, c),
                    w.require(e + "timestep_embedder.linear_2.bias", c),
                    w.require(e + "class_embedder.embedding_table.weight", config.classes() + 1L, c),
                    w.require(b + "norm1.linear.weight", 6 * c, c), w.require(b + "norm1.linear.bias", 6 * c),
                    w.require(b + "attn1.to_q.weight", c, c), w.when(bias, b + "attn1.to_q.bias", c),
                    w.require(b + "attn1.to_k.weight", c, c), w.when(bias, b + "attn1.to_k.bias", c),
                    w.require(b + "attn1.to_v.weight", c, c), w.when(bias, b + "attn1.to_v.bias", c),
                    w.require(b + "attn1.to_out.0.weight", c, c), w.require(b + "attn1.to_out.0.bias", c),
                    w.when(affine, b + "norm3.weight", c), w.when(affine, b + "norm3.bias", c),
                    w.require(b + "ff.net.0.proj.weight", f, c), w.require(b + "ff.net.0.proj.bias", f),
                    w.require(b + "ff.net.2.weight", c, 4 * c), w.require(b + "ff.net.2.bias", c)));
        }
        Tensor modulate = w.require("proj_out_1.weight", 2 * c, c);
        Tensor modulateBias = w.require("proj_out_1.bias", 2 * c);
        Tensor out = w.require("proj_out_2.weight", p * p * config.outChannels(), c);
        Tensor outBias = w.require("proj_out_2.bias", p * p * config.outChannels());
        Map<String, Tensor> all = w.finish(name -> name.equals("pos_embed.pos_embed"));
        Tensor positions = w.computed(config.positions(), (long) config.grid() * config.grid(), c);
        return new DitWeights(patches, patchesBias, positions, List.copyOf(layers), modulate, modulateBias, out,
                outBias, all);
    }
}
