package io.gatun.models.vae;

import io.gatun.models.Layers;
import io.gatun.models.WeightLoader;
import io.gatun.models.blocks.Downsample;
import io.gatun.models.blocks.ResnetBlock;
import io.gatun.ops.Convolution.Geometry;
import io.gatun.runtime.Tensor;
import java.util.ArrayList;
import java.util.List;
import org.jspecify.annotations.Nullable;

/// From an image to its latents. C0 is the width of the first level, C that of the last.
///
/// @param convIn      encoder.conv_in.weight       [C0, channels of the image, 3, 3]
/// @param convInBias  encoder.conv_in.bias         [C0]
/// @param levels      encoder.down_blocks.i.*
/// @param mid         encoder.mid_block.*
/// @param norm        encoder.conv_norm_out.weight [C]
/// @param normBias    encoder.conv_norm_out.bias   [C]
/// @param convOut     encoder.conv_out.weight      [out, C, 3, 3]
/// @param convOutBias encoder.conv_out.bias        [out]
record Encoder(CoderShape shape, Tensor convIn, Tensor convInBias, List<Level> levels, MidBlock mid, Tensor norm,
        Tensor normBias, Tensor convOut, Tensor convOutBias) {

    /// @param resnets    down_blocks.i.resnets.*
    /// @param downsample down_blocks.i.downsamplers.0.*; null: the last level
    record Level(List<ResnetBlock> resnets, @Nullable Downsample downsample) {}

    /// @param out channels of the result: 2Z for a mean and a log-variance, else Z
    static Encoder load(WeightLoader w, CoderShape shape, long out) {
        List<Level> levels = new ArrayList<>();
        int width = shape.channels().getFirst();
        long last = shape.channels().getLast();
        for (int i = 0; i < shape.channels().size(); i++) {
            String p = "encoder.down_blocks." + i + ".";
            List<ResnetBlock> resnets = new ArrayList<>();
            for (int r = 0; r < shape.layersPerBlock(); r++) {
                int next = shape.channels().get(i);
                resnets.add(ResnetBlock.load(w, p + "resnets." + r + ".", width, next, 0, shape.resnets()));
                width = next;
            }
            boolean isLast = i == shape.channels().size() - 1;
            levels.add(new Level(List.copyOf(resnets),
                    isLast ? null : Downsample.load(w, p + "downsamplers.0.", width, width, 0)));
        }
        long first = shape.channels().getFirst();
        return new Encoder(shape,
                w.require("encoder.conv_in.weight", first, shape.inChannels(), 3, 3),
                w.require("encoder.conv_in.bias", first),
                List.copyOf(levels), MidBlock.load(w, "encoder.mid_block.", shape),
                w.require("encoder.conv_norm_out.weight", last), w.require("encoder.conv_norm_out.bias", last),
                w.require("encoder.conv_out.weight", out, last, 3, 3), w.require("encoder.conv_out.bias", out));
    }

    /// @param image [B, H, W, channels]
    /// @return [B, H / reduction, W / reduction, out]
    Tensor forward(Layers net, Tensor image) {
        Tensor x = net.conv(image, convIn, convInBias, Geometry.same(3));                       // [B, H, W, C0]
        for (Level level : levels) {
            for (ResnetBlock resnet : level.resnets) {
                x = resnet.forward(net, x, null);                                               // [B, h, w, C]
            }
            if (level.downsample != null) {
                x = level.downsample.forward(net, x);                                           // [B, h/2, w/2, C]
            }
        }
        x = mid.forward(net, x);                                                                // [B, h, w, C]
        x = net.groupNorm(x, norm, normBias, shape.groups(), CoderShape.EPS, shape.activation());
        return net.conv(x, convOut, convOutBias, Geometry.same(3));                             // [B, h, w, out]
    }
}
