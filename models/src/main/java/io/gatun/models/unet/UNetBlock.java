package io.gatun.models.unet;

import io.gatun.models.Layers;
import io.gatun.models.WeightLoader;
import io.gatun.models.blocks.AttentionBlock;
import io.gatun.models.blocks.Downsample;
import io.gatun.models.blocks.PhasedUpsample;
import io.gatun.models.blocks.ResnetBlock;
import io.gatun.models.blocks.ResnetBlock.Resize;
import io.gatun.models.blocks.Upsample;
import io.gatun.models.unet.UNetLayout.AttentionKind;
import io.gatun.models.unet.UNetLayout.AttentionLayout;
import io.gatun.models.unet.UNetLayout.BlockLayout;
import io.gatun.models.unet.UNetLayout.Resampler;
import io.gatun.models.unet.UNetLayout.ResnetLayout;
import io.gatun.runtime.GatunException;
import io.gatun.runtime.Tensor;
import java.util.ArrayList;
import java.util.List;
import org.jspecify.annotations.Nullable;

/// The weights of a down, middle or up block, and its layers one by one.
///
/// @param layout       what the block contains
/// @param resnets      resnets.i.*
/// @param attentions   attentions.i.*, where attention is among the pixels; else empty
/// @param transformers attentions.i.*, where it is to the encoder's states as well; else empty
/// @param downsample   downsamplers.0.*; null: none, or a residual block does it
/// @param upsample     upsamplers.0.*; likewise
/// @param phased       upsamplers.0.*, for exactly twice the size
/// @param resampler    downsamplers.0.* or upsamplers.0.*, where it is a residual block
record UNetBlock(BlockLayout layout, List<ResnetBlock> resnets, List<AttentionBlock> attentions,
        List<Transformer2D> transformers, @Nullable Downsample downsample, @Nullable Upsample upsample,
        @Nullable PhasedUpsample phased, @Nullable ResnetBlock resampler) {

    /// Which way a block goes.
    enum Side {
        DOWN,
        MID,
        UP
    }

    static UNetBlock load(WeightLoader w, String at, BlockLayout layout, ResnetLayout resnet, Side side) {
        int c = layout.outChannels();
        AttentionLayout attention = layout.attention();
        List<ResnetBlock> resnets = new ArrayList<>();
        List<AttentionBlock> attentions = new ArrayList<>();
        List<Transformer2D> transformers = new ArrayList<>();
        for (int i = 0; i < layout.layers(); i++) {
            resnets.add(ResnetBlock.load(w, at + "resnets." + i + ".", layout.inChannels().get(i), c, resnet.timeDim(),
                    resnet.settings(layout.scale())));
        }
        for (int i = 0; i < (side == Side.MID ? layout.layers() - 1 : layout.layers()); i++) {
            String name = at + "attentions." + i + ".";
            if (attention.kind() == AttentionKind.SELF) {
                attentions.add(AttentionBlock.load(w, name, c, attention.heads(), attention.groups(), resnet.eps(),
                        layout.scale()));
            } else if (attention.kind() == AttentionKind.CROSS) {
                transformers.add(Transformer2D.load(w, name, c, attention, attention.transformerLayers().get(i)));
            }
        }
        String name = at + (side == Side.DOWN ? "downsamplers.0." : "upsamplers.0.");
        boolean convolves = layout.resampler() == Resampler.CONV;
        Upsample upsample = convolves && side == Side.UP ? Upsample.load(w, name, c, c) : null;
        return new UNetBlock(layout, List.copyOf(resnets), List.copyOf(attentions), List.copyOf(transformers),
                convolves && side == Side.DOWN ? Downsample.load(w, name, c, c, layout.padding()) : null,
                upsample, upsample == null || w.isTrained() ? null : PhasedUpsample.of(w, upsample),
                layout.resampler() == Resampler.RESNET
                        ? ResnetBlock.load(w, name, c, c, resnet.timeDim(), resnet.settings(layout.scale())) : null);
    }

    int layers() {
        return resnets.size();
    }

    boolean resamples() {
        return layout.resampler() != Resampler.NONE;
    }

    /// Residual block i and, but behind the last of the middle, attention i.
    ///
    /// @param y       [B, H, W, C] receives the result
    /// @param x       [B, H, W, channels into layer i]
    /// @param time    [B, E], after silu
    /// @param encoder [B, S, K]; null where no block looks at it
    void layerInto(Layers l, Tensor y, int i, Tensor x, Tensor time, @Nullable Tensor encoder) {
        if (i >= attentions.size() && i >= transformers.size()) {
            resnets.get(i).forwardInto(l, y, x, time, Resize.NONE);                                  // [B, H, W, C]
            return;
        }
        Tensor h = resnets.get(i).forward(l, x, time);                                               // [B, H, W, C]
        if (!attentions.isEmpty()) {
            attentions.get(i).forwardInto(l, y, h);                                                  // [B, H, W, C]
        } else {
            transformers.get(i).into(l, y, h, encoder);                                              // [B, H, W, C]
        }
    }

    /// y [B, H', W', C], sizes [#halved]; x [B, H, W, C]
    void halveInto(Layers l, Tensor y, Tensor x, Tensor time) {
        if (downsample != null) {
            downsample.forwardInto(l, y, x);
        } else if (resampler != null) {
            resampler.forwardInto(l, y, x, time, Resize.HALVE);
        }
    }

    /// y [B, H', W', C], as large as the skip connection; x [B, H, W, C]
    void doubleInto(Layers l, Tensor y, Tensor x, Tensor time) {
        boolean doubles = y.size(1) == 2 * x.size(1) && y.size(2) == 2 * x.size(2);
        if (phased != null && doubles) {
            phased.forwardInto(l, y, x);
        } else if (upsample != null) {
            upsample.forwardInto(l, y, x);
        } else if (resampler != null && doubles) {
            resampler.forwardInto(l, y, x, time, Resize.DOUBLE);
        } else {
            throw GatunException.invalid("a sample whose height or width is odd at one of the levels, expected even"
                    + " sizes: this network doubles by residual blocks");
        }
    }

    /// Height or width behind the block's end.
    long halved(long size) {
        return downsample == null ? size / 2 : downsample.geometry().outputHeight(size, 3);
    }
}
