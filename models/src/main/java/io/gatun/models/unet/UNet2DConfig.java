package io.gatun.models.unet;

import io.gatun.models.ConfigFile;
import io.gatun.models.blocks.ResnetBlock.TimeAs;
import io.gatun.models.unet.UNetLayout.AttentionKind;
import io.gatun.models.unet.UNetLayout.AttentionLayout;
import io.gatun.models.unet.UNetLayout.BlockLayout;
import io.gatun.models.unet.UNetLayout.ClassKind;
import io.gatun.models.unet.UNetLayout.Resampler;
import io.gatun.models.unet.UNetLayout.ResnetLayout;
import io.gatun.models.unet.UNetLayout.TimeLayout;
import java.util.ArrayList;
import java.util.List;

/// config.json of a UNet2DModel: the network of DDPM (Ho, Jain and Abbeel 2020, arXiv 2006.11239).
///
/// @param sampleSize height and width that the network was trained for; empty where the file does not say
record UNet2DConfig(List<Integer> sampleSize, UNetLayout layout) {
    private static final List<String> DOWN = List.of("DownBlock2D", "AttnDownBlock2D", "ResnetDownsampleBlock2D");
    private static final List<String> UP = List.of("UpBlock2D", "AttnUpBlock2D", "ResnetUpsampleBlock2D");

    static UNet2DConfig parse(ConfigFile config) {
        config.getOneOf("time_embedding_type", "positional", "positional");
        UNetLayout.requireSilu(config);
        int groups = UNetLayout.groups(config);
        List<String> down = UNetLayout.blockTypes(config, "down_block_types",
                List.of("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"), DOWN);
        List<String> up = UNetLayout.blockTypes(config, "up_block_types",
                List.of("AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"), UP);
        List<Integer> channels = UNetLayout.blockChannels(config, List.of(224, 448, 672, 896), down, up, groups);
        int timeDim = UNetLayout.positiveOr(config, "time_embedding_dim", 4 * channels.getFirst());
        ResnetLayout resnet = new ResnetLayout(UNetLayout.eps(config), groups, UNetLayout.timeAs(config), timeDim);
        return new UNet2DConfig(UNetLayout.sampleSize(config), new UNetLayout(
                UNetLayout.positiveOr(config, "in_channels", 3), UNetLayout.positiveOr(config, "out_channels", 3), 3, 3,
                time(config, channels.getFirst(), timeDim), resnet, down(config, down, channels, groups),
                config.isNull("mid_block_type") ? null : mid(config, channels.getLast(), resnet),
                up(config, up, channels, groups), config.getBoolean("center_input_sample", false)));
    }

    private static TimeLayout time(ConfigFile config, int sinusoids, int dim) {
        String type = config.getOneOf("class_embed_type", "", "timestep", "identity");
        int classes = config.getInt("num_class_embeds", 1, UNetLayout.MAX, 0);
        ClassKind kind = switch (type) {
            case "timestep" -> ClassKind.TIMESTEP;
            case "identity" -> ClassKind.IDENTITY;
            default -> classes > 0 ? ClassKind.TABLE : ClassKind.NONE;
        };
        return new TimeLayout(sinusoids, config.getBoolean("flip_sin_to_cos", true),
                UNetLayout.shift(config, sinusoids), dim, 0, kind, kind == ClassKind.TABLE ? classes : 0, 0, 0);
    }

    private static List<BlockLayout> down(ConfigFile config, List<String> types, List<Integer> channels, int groups) {
        int layers = config.getInt("layers_per_block", 1, 1000, 2);
        int padding = config.getInt("downsample_padding", 0, 1, 1);
        boolean resnets = config.getOneOf("downsample_type", "conv", "conv", "resnet").equals("resnet");
        List<BlockLayout> blocks = new ArrayList<>();
        for (int i = 0; i < types.size(); i++) {
            boolean attends = types.get(i).equals("AttnDownBlock2D");
            Resampler resampler = attends && resnets && i < types.size() - 1 ? Resampler.RESNET
                    : UNetLayout.resampler(types.get(i), "ResnetDownsampleBlock2D", i == types.size() - 1);
            int c = channels.get(i);
            blocks.add(new BlockLayout(UNetLayout.downChannels(channels.get(Math.max(i - 1, 0)), c, layers), c,
                    attends ? attention(config, c, groups) : AttentionLayout.NONE, resampler, padding, 1));
        }
        return blocks;
    }

    private static List<BlockLayout> up(ConfigFile config, List<String> types, List<Integer> channels, int groups) {
        int layers = config.getInt("layers_per_block", 1, 1000, 2) + 1;
        boolean resnets = config.getOneOf("upsample_type", "conv", "conv", "resnet").equals("resnet");
        List<Integer> reversed = channels.reversed();
        int last = types.size() - 1;
        List<BlockLayout> blocks = new ArrayList<>();
        for (int i = 0; i <= last; i++) {
            boolean attends = types.get(i).equals("AttnUpBlock2D");
            Resampler resampler = attends && resnets && i < last ? Resampler.RESNET
                    : UNetLayout.resampler(types.get(i), "ResnetUpsampleBlock2D", i == last);
            int c = reversed.get(i);
            blocks.add(new BlockLayout(UNetLayout.upChannels(reversed.get(Math.max(i - 1, 0)), c,
                    reversed.get(Math.min(i + 1, last)), layers), c,
                    attends ? attention(config, c, groups) : AttentionLayout.NONE, resampler, 0, 1));
        }
        return blocks;
    }

    /// The norm of the attention in the middle is left out where the time embedding scales and shifts, unless the file
    /// gives its groups.
    private static BlockLayout mid(ConfigFile config, int c, ResnetLayout resnet) {
        config.getOneOf("mid_block_type", "UNetMidBlock2D", "UNetMidBlock2D");
        int groups = config.getInt("attn_norm_num_groups", 1, c,
                resnet.timeAs() == TimeAs.SUM ? resnet.groups() : 0);
        if (groups > 0) {
            UNetLayout.divide(config, "attn_norm_num_groups", c, groups);
        }
        AttentionLayout attention = config.getBoolean("add_attention", true) ? attention(config, c, groups)
                : AttentionLayout.NONE;
        return new BlockLayout(List.of(c, c), c, attention, Resampler.NONE, 0,
                UNetLayout.scale(config, "mid_block_scale_factor"));
    }

    /// "attention_head_dim" is D, and where the file says null there is one head.
    private static AttentionLayout attention(ConfigFile config, int c, int groups) {
        int headDim = config.isNull("attention_head_dim") ? c
                : config.getInt("attention_head_dim", 1, UNetLayout.MAX, 8);
        return new AttentionLayout(AttentionKind.SELF, UNetLayout.divide(config, "attention_head_dim", c, headDim),
                headDim, groups, List.of(), 0, false, false);
    }
}
