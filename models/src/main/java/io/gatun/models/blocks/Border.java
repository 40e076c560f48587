package io.gatun.models.blocks;

import io.gatun.models.Layers;
import io.gatun.runtime.DType;
import io.gatun.runtime.Tensor;

/// Where images come from callers and go back to them: files and the Hugging Face libraries keep channels first,
/// networks here keep them last.
public final class Border {
    private Border() {}

    /// @param x [B, C, H, W] floats
    /// @return [B, H, W, C] in the given dtype
    public static Tensor channelsLast(Layers net, Tensor x, DType dtype) {
        Tensor y = net.allocate(dtype, x.size(0), x.size(2), x.size(3), x.size(1));
        net.castInto(y, x.permute(0, 2, 3, 1));
        return y;
    }

    /// @param y [B, C, H, W] floats
    /// @param x [B, H, W, C] floats, may be a slice of more channels
    public static void channelsFirstInto(Layers net, Tensor y, Tensor x) {
        net.castInto(y, x.permute(0, 3, 1, 2));
    }
}
