package io.gatun.models.blocks;

import io.gatun.models.Layers;
import io.gatun.models.WeightLoader;
import io.gatun.ops.ActivationKind;
import io.gatun.ops.Convolution.Geometry;
import io.gatun.runtime.Tensor;
import org.jspecify.annotations.Nullable;

/// A residual block of two 3x3 convolutions, each after group normalisation and activation, with the embedding of a
/// time step between them (`ResnetBlock2D` of diffusers). He et al. 2016, arXiv 1603.05027; Ho et al. 2020, arXiv
/// 2006.11239.
///
/// @param norm1        norm1.weight          [C]
/// @param norm1Bias    norm1.bias            [C]
/// @param conv1        conv1.weight          [F, C, 3, 3]
/// @param conv1Bias    conv1.bias            [F]
/// @param time         time_emb_proj.weight  [F, E], or [2F, E] where scale and shift come from it; null: no time
/// @param timeBias     time_emb_proj.bias    [F] or [2F]
/// @param norm2        norm2.weight          [F]
/// @param norm2Bias    norm2.bias            [F]
/// @param conv2        conv2.weight          [F, F, 3, 3]
/// @param conv2Bias    conv2.bias            [F]
/// @param shortcut     conv_shortcut.weight  [F, C, 1, 1]; null where F = C
/// @param shortcutBias conv_shortcut.bias    [F]
public record ResnetBlock(Settings settings, Tensor norm1, Tensor norm1Bias, Tensor conv1, Tensor conv1Bias,
        @Nullable Tensor time, @Nullable Tensor timeBias, Tensor norm2, Tensor norm2Bias, Tensor conv2,
        Tensor conv2Bias, @Nullable Tensor shortcut, @Nullable Tensor shortcutBias) {

    /// What all blocks of a network share.
    ///
    /// @param groups      of the norms
    /// @param eps         of the norms
    /// @param activation  after the norms
    /// @param timeAs      how the time enters
    /// @param outputScale what the sum with the shortcut is divided by
    public record Settings(int groups, float eps, ActivationKind activation, TimeAs timeAs, float outputScale) {
        /// No time, no scale of the output.
        public static Settings of(int groups, float eps, ActivationKind activation) {
            return new Settings(groups, eps, activation, TimeAs.SUM, 1);
        }
    }

    /// `resnet_time_scale_shift`
    public enum TimeAs {
        /// `default`: added after the first convolution.
        SUM,
        /// `scale_shift`: scales and shifts after the second norm.
        SCALE_SHIFT
    }

    /// What happens to the image behind the first norm, on the path and on the shortcut alike: blocks that end a level
    /// of a U-Net halve by averages or double.
    public enum Resize {
        NONE,
        HALVE,
        DOUBLE
    }

    /// @param prefix    `down_blocks.0.resnets.0.`
    /// @param timeWidth E; 0: no time
    public static ResnetBlock load(WeightLoader w, String prefix, long in, long out, long timeWidth,
            Settings settings) {
        boolean timed = timeWidth > 0;
        boolean projected = in != out;
        long timeOut = settings.timeAs == TimeAs.SCALE_SHIFT ? 2 * out : out;
        return new ResnetBlock(settings,
                w.require(prefix + "norm1.weight", in), w.require(prefix + "norm1.bias", in),
                w.require(prefix + "conv1.weight", out, in, 3, 3), w.require(prefix + "conv1.bias", out),
                w.when(timed, prefix + "time_emb_proj.weight", timeOut, timeWidth),
                w.when(timed, prefix + "time_emb_proj.bias", timeOut),
                w.require(prefix + "norm2.weight", out), w.require(prefix + "norm2.bias", out),
                w.require(prefix + "conv2.weight", out, out, 3, 3), w.require(prefix + "conv2.bias", out),
                w.when(projected, prefix + "conv_shortcut.weight", out, in, 1, 1),
                w.when(projected, prefix + "conv_shortcut.bias", out));
    }

    /// @param x         [B, H, W, C]
    /// @param timeState [B, E], activated already; null where the block has no time
    /// @return [B, H, W, F]
    public Tensor forward(Layers net, Tensor x, @Nullable Tensor timeState) {
        Tensor y = net.allocate(x.dtype(), x.size(0), x.size(1), x.size(2), conv2.size(0));
        forwardInto(net, y, x, timeState, Resize.NONE);
        return y;
    }

    /// As [#forward], into a tensor of the caller's, such as a slice of a wider one, and possibly to another size.
    ///
    /// @param y [B, H', W', F]
    public void forwardInto(Layers net, Tensor y, Tensor x, @Nullable Tensor timeState, Resize resize) {
        Settings s = settings;
        Tensor t = time == null || timeState == null ? null : net.linearRowwise(timeState, time, timeBias); // [B, F]
        Tensor scale = null;
        Tensor shift = null;
        Tensor h = net.groupNorm(x, norm1, norm1Bias, s.groups, s.eps, s.activation);           // [B, H, W, C]
        Tensor in = x;
        if (resize != Resize.NONE) {
            h = resize(net, h, resize);                                                         // [B, H', W', C]
            in = resize(net, x, resize);                                                        // [B, H', W', C]
        }
        h = net.conv(h, conv1, conv1Bias, Geometry.same(3));                                    // [B, H', W', F]
        if (t != null && s.timeAs == TimeAs.SUM) {
            h = net.addPerImage(h, t);                                                          // [B, H', W', F]
        } else if (t != null) {
            scale = t.slice(1, 0, h.size(3));                                                   // [B, F]
            shift = t.slice(1, h.size(3), 2 * h.size(3));                                       // [B, F]
        }
        h = net.groupNorm(h, norm2, norm2Bias, scale, shift, s.groups, s.eps, s.activation);    // [B, H', W', F]
        h = net.conv(h, conv2, conv2Bias, Geometry.same(3));                                    // [B, H', W', F]
        Tensor residual = shortcut == null ? in
                : net.linear(in, shortcut.reshape(shortcut.size(0), shortcut.size(1)), shortcutBias);
        net.addInto(y, residual, h);                                                            // [B, H', W', F]
        net.scale(y, 1 / s.outputScale);
    }

    private static Tensor resize(Layers net, Tensor x, Resize resize) {
        return resize == Resize.DOUBLE ? net.upsample(x, 2 * x.size(1), 2 * x.size(2)) : net.averagePool(x, 2);
    }
}
