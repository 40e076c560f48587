package io.gatun.models.blocks;

import io.gatun.models.Layers;
import io.gatun.models.WeightLoader;
import io.gatun.ops.Convolution.Geometry;
import io.gatun.runtime.Tensor;

/// More pixels by nearest neighbour, then a 3x3 convolution (`Upsample2D` of diffusers).
///
/// @param conv conv.weight [F, C, 3, 3]
/// @param bias conv.bias   [F]
public record Upsample(Tensor conv, Tensor bias) {
    /// @param prefix `up_blocks.0.upsamplers.0.`
    public static Upsample load(WeightLoader w, String prefix, long in, long out) {
        return new Upsample(w.require(prefix + "conv.weight", out, in, 3, 3), w.require(prefix + "conv.bias", out));
    }

    /// Twice the height and width.
    ///
    /// @param x [B, H, W, C]
    /// @return [B, 2H, 2W, F]
    public Tensor forward(Layers net, Tensor x) {
        return forward(net, x, 2 * x.size(1), 2 * x.size(2));
    }

    /// To a given height and width: those of the skip connection, where halving had rounded.
    ///
    /// @return [B, height, width, F]
    public Tensor forward(Layers net, Tensor x, long height, long width) {
        return net.conv(net.upsample(x, height, width), conv, bias, Geometry.same(3));
    }
}
