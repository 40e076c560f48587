package io.gatun.models.unet;

import io.gatun.models.Layers;
import io.gatun.models.Layers.Residual;
import io.gatun.models.WeightLoader;
import io.gatun.models.unet.UNetLayout.AttentionLayout;
import io.gatun.ops.ActivationKind;
import io.gatun.runtime.GatunException;
import io.gatun.runtime.Tensor;
import java.util.ArrayList;
import java.util.List;
import org.jspecify.annotations.Nullable;

/// Transformer blocks on an image's pixels that also look at the encoder's states, between two projections, with the
/// input added (Rombach et al. 2022). Its group norm has another epsilon than those of the residual blocks.
///
/// @param layout      heads, groups and widths
/// @param norm        norm.weight     [C]
/// @param normBias    norm.bias       [C]
/// @param projIn      proj_in.weight  [C, C] or [C, C, 1, 1]
/// @param projInBias  proj_in.bias    [C]
/// @param blocks      transformer_blocks.i.*
/// @param projOut     proj_out.weight [C, C] or [C, C, 1, 1]
/// @param projOutBias proj_out.bias   [C]
record Transformer2D(AttentionLayout layout, Tensor norm, Tensor normBias, Tensor projIn, Tensor projInBias,
        List<Block> blocks, Tensor projOut, Tensor projOutBias) {
    private static final float GROUP_NORM_EPS = 1e-6f;
    private static final float LAYER_NORM_EPS = 1e-5f;

    /// @param norm1     norm1.weight         [C]
    /// @param norm1Bias norm1.bias           [C]
    /// @param attn1     attn1.*              among the pixels
    /// @param norm2     norm2.weight         [C]
    /// @param norm2Bias norm2.bias           [C]
    /// @param attn2     attn2.*              to the encoder's states
    /// @param norm3     norm3.weight         [C]
    /// @param norm3Bias norm3.bias           [C]
    /// @param up        ff.net.0.proj.weight [8C, C], values then gates
    /// @param upBias    ff.net.0.proj.bias   [8C]
    /// @param down      ff.net.2.weight      [C, 4C]
    /// @param downBias  ff.net.2.bias        [C]
    record Block(Tensor norm1, Tensor norm1Bias, TransformerAttention attn1, Tensor norm2, Tensor norm2Bias,
            TransformerAttention attn2, Tensor norm3, Tensor norm3Bias, Tensor up, Tensor upBias, Tensor down,
            Tensor downBias) {

        static Block load(WeightLoader w, String at, int c, AttentionLayout layout) {
            return new Block(w.require(at + "norm1.weight", c), w.require(at + "norm1.bias", c),
                    TransformerAttention.load(w, at + "attn1.", c,
                            layout.onlyCross() ? layout.encoderDim() : c),
                    w.require(at + "norm2.weight", c), w.require(at + "norm2.bias", c),
                    TransformerAttention.load(w, at + "attn2.", c, layout.encoderDim()),
                    w.require(at + "norm3.weight", c), w.require(at + "norm3.bias", c),
                    w.require(at + "ff.net.0.proj.weight", 8L * c, c), w.require(at + "ff.net.0.proj.bias", 8L * c),
                    w.require(at + "ff.net.2.weight", c, 4L * c), w.require(at + "ff.net.2.bias", c));
        }
    }

    static Transformer2D load(WeightLoader w, String at, int c, AttentionLayout layout, int number) {
        List<Block> blocks = new ArrayList<>();
        Tensor norm = w.require(at + "norm.weight", c);
        Tensor normBias = w.require(at + "norm.bias", c);
        Tensor projIn = projection(w, at + "proj_in", c, layout);
        Tensor projInBias = w.require(at + "proj_in.bias", c);
        for (int i = 0; i < number; i++) {
            blocks.add(Block.load(w, at + "transformer_blocks." + i + ".", c, layout));
        }
        return new Transformer2D(layout, norm, normBias, projIn, projInBias, List.copyOf(blocks),
                projection(w, at + "proj_out", c, layout), w.require(at + "proj_out.bias", c));
    }

    private static Tensor projection(WeightLoader w, String name, int c, AttentionLayout layout) {
        return layout.linearProjection() ? w.require(name + ".weight", c, c) : w.require(name + ".weight", c, c, 1, 1);
    }

    /// @param y       [B, H, W, C] receives the result
    /// @param image   [B, H, W, C]
    /// @param encoder [B, S, K], the encoder's states
    void into(Layers l, Tensor y, Tensor image, @Nullable Tensor encoder) {
        if (encoder == null) {
            throw GatunException.invalid("encoder_hidden_states are missing: expected [B, S, %d]",
                    layout.encoderDim());
        }
        Tensor h = l.groupNorm(image, norm, normBias, layout.groups(), GROUP_NORM_EPS, ActivationKind.NONE);
        Tensor x = l.linear(Layers.pixels(h), matrix(projIn), projInBias);                                 // [B, T, C]
        Tensor add = null;
        for (Block b : blocks) {
            Residual r = norm(l, x, add, b.norm1, b.norm1Bias);                                      // [B, T, C]
            add = b.attn1.forward(l, r.normed(), layout.onlyCross() ? encoder : r.normed(), layout.heads());
            r = l.addLayerNorm(r.sum(), add, b.norm2, b.norm2Bias, LAYER_NORM_EPS);                  // [B, T, C]
            add = b.attn2.forward(l, r.normed(), encoder, layout.heads());                           // [B, T, C]
            r = l.addLayerNorm(r.sum(), add, b.norm3, b.norm3Bias, LAYER_NORM_EPS);                  // [B, T, C]
            h = l.geglu(l.linear(r.normed(), b.up, b.upBias));                                       // [B, T, 4C]
            add = l.linear(h, b.down, b.downBias);                                                   // [B, T, C]
            x = r.sum();
        }
        x = add == null ? x : l.add(x, add);                                                         // [B, T, C]
        h = l.linear(x, matrix(projOut), projOutBias);                                               // [B, T, C]
        l.addInto(Layers.pixels(y), Layers.pixels(image), h);                                        // [B, T, C]
    }

    /// [C, C], as a 1x1 kernel is one too.
    private static Tensor matrix(Tensor weight) {
        return weight.reshape(weight.size(0), weight.size(1));
    }

    /// `x + add`, and that normalised.
    private static Residual norm(Layers l, Tensor x, @Nullable Tensor add, Tensor weight, Tensor bias) {
        return add == null ? new Residual(x, l.layerNorm(x, weight, bias, LAYER_NORM_EPS))
                : l.addLayerNorm(x, add, weight, bias, LAYER_NORM_EPS);
    }
}
