package io.gatun.models.blocks;

import io.gatun.models.Layers;
import io.gatun.models.WeightLoader;
import io.gatun.ops.ActivationKind;
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
        return net.conv(net.upsample(x, 2 * x.size(1), 2 * x.size(2)), conv, bias, Geometry.same(3));
    }

    /// To the height and width of y, as those of a skip connection where halving had rounded.
    ///
    /// @param y [B, height, width, F]
    public void forwardInto(Layers net, Tensor y, Tensor x) {
        net.convInto(y, net.upsample(x, y.size(1), y.size(2)), conv, bias, Geometry.same(3), ActivationKind.NONE);
    }
}
