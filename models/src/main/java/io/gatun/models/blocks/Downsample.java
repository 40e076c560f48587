package io.gatun.models.blocks;

import io.gatun.models.Layers;
import io.gatun.models.WeightLoader;
import io.gatun.ops.ActivationKind;
import io.gatun.ops.Convolution.Geometry;
import io.gatun.runtime.Tensor;

/// Half the height and width by a 3x3 convolution of stride 2 (`Downsample2D` of diffusers).
///
/// @param conv conv.weight [F, C, 3, 3]
/// @param bias conv.bias   [F]
public record Downsample(Geometry geometry, Tensor conv, Tensor bias) {
    private static final Geometry BELOW_AND_RIGHT = new Geometry(2, 2, 0, 1, 0, 1, 1, 1, 1);

    /// @param prefix  `down_blocks.0.downsamplers.0.`
    /// @param padding `downsample_padding`: 1 on all sides, or 0, which means one row below and one column to the right
    public static Downsample load(WeightLoader w, String prefix, long in, long out, int padding) {
        return new Downsample(padding == 0 ? BELOW_AND_RIGHT : Geometry.of(2, padding),
                w.require(prefix + "conv.weight", out, in, 3, 3), w.require(prefix + "conv.bias", out));
    }

    /// @param x [B, H, W, C]
    /// @return [B, H/2, W/2, F]
    public Tensor forward(Layers net, Tensor x) {
        return net.conv(x, conv, bias, geometry);
    }

    /// As [#forward], into a tensor of the caller's, such as a slice of a wider one.
    public void forwardInto(Layers net, Tensor y, Tensor x) {
        net.convInto(y, x, conv, bias, geometry, ActivationKind.NONE);
    }
}
