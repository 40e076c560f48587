package io.gatun.models.vae;

import io.gatun.models.Layers;
import io.gatun.models.WeightLoader;
import io.gatun.runtime.Tensor;

/// A 1x1 convolution: a matrix product on each pixel.
///
/// @param weight weight [F, C, 1, 1], kept as [F, C]
/// @param bias   bias   [F]
record Pointwise(Tensor weight, Tensor bias) {
    static Pointwise load(WeightLoader w, String prefix, long in, long out) {
        return new Pointwise(w.require(prefix + "weight", out, in, 1, 1).reshape(out, in),
                w.require(prefix + "bias", out));
    }

    /// @param x [B, H, W, C]
    /// @return [B, H, W, F]
    Tensor forward(Layers net, Tensor x) {
        return net.linear(x, weight, bias);
    }
}
