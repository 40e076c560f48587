package io.gatun.models.vae;

import io.gatun.models.Layers;
import io.gatun.models.WeightLoader;
import io.gatun.models.blocks.PhasedUpsample;
import io.gatun.models.blocks.ResnetBlock;
import io.gatun.models.blocks.Upsample;
import io.gatun.ops.Convolution.Geometry;
import io.gatun.runtime.Tensor;
import java.util.ArrayList;
import java.util.List;
import org.jspecify.annotations.Nullable;

/// From latents to an image. C is the width of the lowest level, C0 that of the last.
///
/// @param convIn      decoder.conv_in.weight       [C, Z, 3, 3]
/// @param convInBias  decoder.conv_in.bias         [C]
/// @param mid         decoder.mid_block.*
/// @param levels      decoder.up_blocks.i.*, the lowest first
/// @param norm        decoder.conv_norm_out.weight [C0]
/// @param normBias    decoder.conv_norm_out.bias   [C0]
/// @param convOut     decoder.conv_out.weight      [channels of the image, C0, 3, 3]
/// @param convOutBias decoder.conv_out.bias        [channels of the image]
record Decoder(CoderShape shape, Tensor convIn, Tensor convInBias, MidBlock mid, List<Level> levels, Tensor norm,
        Tensor normBias, Tensor convOut, Tensor convOutBias) {

    /// @param resnets  up_blocks.i.resnets.*, one more than the encoder has
    /// @param upsample up_blocks.i.upsamplers.0.*; null: the last level
    /// @param phased   the same; null: the weights change
    record Level(List<ResnetBlock> resnets, @Nullable Upsample upsample, @Nullable PhasedUpsample phased) {}

    static Decoder load(WeightLoader w, CoderShape shape) {
        List<Integer> channels = shape.channels().reversed();
        long lowest = channels.getFirst();
        Tensor convIn = w.require("decoder.conv_in.weight", lowest, shape.latentChannels(), 3, 3);
        Tensor convInBias = w.require("decoder.conv_in.bias", lowest);
        MidBlock mid = MidBlock.load(w, "decoder.mid_block.", shape);
        List<Level> levels = new ArrayList<>();
        long width = lowest;
        for (int i = 0; i < channels.size(); i++) {
            String p = "decoder.up_blocks." + i + ".";
            List<ResnetBlock> resnets = new ArrayList<>();
            for (int r = 0; r <= shape.layersPerBlock(); r++) {
                long next = channels.get(i);
                resnets.add(ResnetBlock.load(w, p + "resnets." + r + ".", width, next, 0, shape.resnets()));
                width = next;
            }
            boolean isLast = i == channels.size() - 1;
            Upsample upsample = isLast ? null : Upsample.load(w, p + "upsamplers.0.", width, width);
            levels.add(new Level(List.copyOf(resnets), upsample,
                    upsample == null || w.isTrained() ? null : PhasedUpsample.of(w, upsample)));
        }
        return new Decoder(shape, convIn, convInBias, mid, List.copyOf(levels),
                w.require("decoder.conv_norm_out.weight", width), w.require("decoder.conv_norm_out.bias", width),
                w.require("decoder.conv_out.weight", shape.outChannels(), width, 3, 3),
                w.require("decoder.conv_out.bias", shape.outChannels()));
    }

    /// @param z [B, h, w, Z]
    /// @return [B, h reduction, w reduction, channels of the image]
    Tensor forward(Layers net, Tensor z) {
        Tensor x = net.conv(z, convIn, convInBias, Geometry.same(3));                           // [B, h, w, C]
        x = mid.forward(net, x);                                                                // [B, h, w, C]
        for (Level level : levels) {
            for (ResnetBlock resnet : level.resnets) {
                x = resnet.forward(net, x, null);                                               // [B, h, w, C]
            }
            if (level.phased != null) {
                x = level.phased.forward(net, x);                                               // [B, 2h, 2w, C]
            } else if (level.upsample != null) {
                x = level.upsample.forward(net, x);                                             // [B, 2h, 2w, C]
            }
        }
        x = net.groupNorm(x, norm, normBias, shape.groups(), CoderShape.EPS, shape.activation());
        return net.conv(x, convOut, convOutBias, Geometry.same(3));                             // [B, H, W, channels]
    }
}
