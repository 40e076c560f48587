package io.gatun.models.blocks;

import io.gatun.models.Layers;
import io.gatun.models.WeightLoader;
import io.gatun.ops.ActivationKind;
import io.gatun.ops.Attention.Mask;
import io.gatun.runtime.Tensor;
import java.util.List;
import org.jspecify.annotations.Nullable;

/// Self-attention over the pixels of an image, after group normalisation, with the image added (`Attention` of
/// diffusers as VAEs and unconditional U-Nets have it, formerly `AttentionBlock`). Ho et al. 2020, arXiv 2006.11239.
///
/// @param heads    H
/// @param groups   of the norm; 0: there is none
/// @param norm     group_norm.weight  [C]; null: none
/// @param normBias group_norm.bias    [C]
/// @param q        to_q.weight        [C, C]; before 2023 query.weight
/// @param qBias    to_q.bias          [C]
/// @param k        to_k.weight        [C, C]; key.weight
/// @param kBias    to_k.bias          [C]
/// @param v        to_v.weight        [C, C]; value.weight
/// @param vBias    to_v.bias          [C]
/// @param out      to_out.0.weight    [C, C]; proj_attn.weight
/// @param outBias  to_out.0.bias      [C]
public record AttentionBlock(int heads, int groups, float eps, float outputScale,
        @Nullable Tensor norm, @Nullable Tensor normBias, Tensor q, Tensor qBias, Tensor k,
        Tensor kBias, Tensor v, Tensor vBias, Tensor out, Tensor outBias) {

    /// @param prefix      `mid_block.attentions.0.`
    /// @param outputScale what the sum with the image is divided by
    public static AttentionBlock load(WeightLoader w, String prefix, long channels, int heads, int groups, float eps,
            float outputScale) {
        return new AttentionBlock(heads, groups, eps, outputScale,
                w.when(groups > 0, prefix + "group_norm.weight", channels),
                w.when(groups > 0, prefix + "group_norm.bias", channels),
                weight(w, prefix, "to_q", "query", channels), bias(w, prefix, "to_q", "query", channels),
                weight(w, prefix, "to_k", "key", channels), bias(w, prefix, "to_k", "key", channels),
                weight(w, prefix, "to_v", "value", channels), bias(w, prefix, "to_v", "value", channels),
                weight(w, prefix, "to_out.0", "proj_attn", channels),
                bias(w, prefix, "to_out.0", "proj_attn", channels));
    }

    private static Tensor weight(WeightLoader w, String prefix, String name, String before, long c) {
        return w.requireAny(List.of(prefix + name + ".weight", prefix + before + ".weight"), c, c);
    }

    private static Tensor bias(WeightLoader w, String prefix, String name, String before, long c) {
        return w.requireAny(List.of(prefix + name + ".bias", prefix + before + ".bias"), c);
    }

    /// @param x [B, H, W, C]
    /// @return [B, H, W, C]
    public Tensor forward(Layers net, Tensor x) {
        Tensor y = net.allocate(x.dtype(), x.shape());
        forwardInto(net, y, x);
        return y;
    }

    /// As [#forward], into a tensor of the caller's, such as a slice of a wider one.
    ///
    /// @param y [B, H, W, C]
    public void forwardInto(Layers net, Tensor y, Tensor x) {
        float scale = (float) (1 / Math.sqrt((double) x.size(3) / heads));
        Tensor h = norm == null ? x
                : net.groupNorm(x, norm, normBias, groups, eps, ActivationKind.NONE);           // [B, H, W, C]
        Tensor tokens = Layers.pixels(h);                                                       // [B, S, C]
        Tensor queries = net.linear(tokens, q, qBias);                                          // [B, S, C]
        Tensor keys = net.linear(tokens, k, kBias);                                             // [B, S, C]
        Tensor values = net.linear(tokens, v, vBias);                                           // [B, S, C]
        Tensor mixed = net.attention(queries, keys, values, heads, heads, scale, Mask.NONE);    // [B, S, C]
        Tensor projected = net.linear(mixed, out, outBias);                                     // [B, S, C]
        net.addInto(Layers.pixels(y), Layers.pixels(x), projected);                             // [B, S, C]
        net.scale(y, 1 / outputScale);
    }
}
