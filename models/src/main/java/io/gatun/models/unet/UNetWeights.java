package io.gatun.models.unet;

import io.gatun.models.WeightLoader;
import io.gatun.models.unet.UNetBlock.Side;
import io.gatun.models.unet.UNetLayout.BlockLayout;
import io.gatun.runtime.Tensor;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/// Weights of a U-Net with their names in the checkpoint.
///
/// @param convIn      conv_in.weight        [C0, in, k, k]
/// @param convInBias  conv_in.bias          [C0]
/// @param time        time_embedding.*, class_embedding.*, add_embedding.*
/// @param down        down_blocks.i.*
/// @param mid         mid_block.*           null: none
/// @param up          up_blocks.i.*
/// @param normOut     conv_norm_out.weight  [C0]
/// @param normOutBias conv_norm_out.bias    [C0]
/// @param convOut     conv_out.weight       [out, C0, k, k]
/// @param convOutBias conv_out.bias         [out]
/// @param all         every weight by name
record UNetWeights(Tensor convIn, Tensor convInBias, TimeEmbedding time, List<UNetBlock> down, @Nullable UNetBlock mid,
        List<UNetBlock> up, Tensor normOut, Tensor normOutBias, Tensor convOut, Tensor convOutBias,
        Map<String, Tensor> all) {

    static UNetWeights load(UNetLayout layout, WeightLoader w) {
        long c = layout.down().getFirst().inChannels().getFirst();
        long in = layout.convIn();
        long out = layout.convOut();
        Tensor convIn = w.require("conv_in.weight", c, layout.inChannels(), in, in);
        Tensor convInBias = w.require("conv_in.bias", c);
        TimeEmbedding time = TimeEmbedding.load(w, layout.time());
        List<UNetBlock> down = blocks(w, "down_blocks.", layout.down(), layout, Side.DOWN);
        BlockLayout middle = layout.mid();
        UNetBlock mid = middle == null ? null : UNetBlock.load(w, "mid_block.", middle, layout.resnet(), Side.MID);
        List<UNetBlock> up = blocks(w, "up_blocks.", layout.up(), layout, Side.UP);
        Tensor normOut = w.require("conv_norm_out.weight", c);
        Tensor normOutBias = w.require("conv_norm_out.bias", c);
        Tensor convOut = w.require("conv_out.weight", layout.outChannels(), c, out, out);
        Tensor convOutBias = w.require("conv_out.bias", layout.outChannels());
        return new UNetWeights(convIn, convInBias, time, down, mid, up, normOut, normOutBias, convOut, convOutBias,
                w.finish(name -> false));
    }

    private static List<UNetBlock> blocks(WeightLoader w, String name, List<BlockLayout> blocks, UNetLayout layout,
            Side side) {
        List<UNetBlock> loaded = new ArrayList<>();
        for (int i = 0; i < blocks.size(); i++) {
            loaded.add(UNetBlock.load(w, name + i + ".", blocks.get(i), layout.resnet(), side));
        }
        return List.copyOf(loaded);
    }
}
