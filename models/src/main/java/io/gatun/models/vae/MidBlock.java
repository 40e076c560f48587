package io.gatun.models.vae;

import io.gatun.models.Layers;
import io.gatun.models.WeightLoader;
import io.gatun.models.blocks.AttentionBlock;
import io.gatun.models.blocks.ResnetBlock;
import io.gatun.runtime.Tensor;
import org.jspecify.annotations.Nullable;

/// The middle of encoder and decoder, at the lowest resolution.
///
/// @param first     mid_block.resnets.0.*
/// @param attention mid_block.attentions.0.*, one head; null: none
/// @param second    mid_block.resnets.1.*
record MidBlock(ResnetBlock first, @Nullable AttentionBlock attention, ResnetBlock second) {

    static MidBlock load(WeightLoader w, String prefix, CoderShape shape) {
        long c = shape.channels().getLast();
        return new MidBlock(ResnetBlock.load(w, prefix + "resnets.0.", c, c, 0, shape.resnets()),
                shape.midAttention() ? AttentionBlock.load(w, prefix + "attentions.0.", c, 1, shape.groups(),
                        CoderShape.EPS, 1) : null,
                ResnetBlock.load(w, prefix + "resnets.1.", c, c, 0, shape.resnets()));
    }

    /// @param x [B, H, W, C]
    /// @return [B, H, W, C]
    Tensor forward(Layers net, Tensor x) {
        Tensor h = first.forward(net, x, null);
        if (attention != null) {
            h = attention.forward(net, h);
        }
        return second.forward(net, h, null);
    }
}
