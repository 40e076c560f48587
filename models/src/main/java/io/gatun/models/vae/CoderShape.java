package io.gatun.models.vae;

import io.gatun.models.ConfigFile;
import io.gatun.models.blocks.ResnetBlock;
import io.gatun.ops.ActivationKind;
import java.util.List;

/// The convolutional encoder and decoder that AutoencoderKL and VQModel share: fields of config.json.
///
/// @param inChannels     of the image
/// @param outChannels    of the decoded image
/// @param latentChannels Z
/// @param channels       `block_out_channels`, per level from the image down
/// @param layersPerBlock residual blocks per level of the encoder; the decoder has one more
/// @param groups         of the norms
/// @param activation     after the norms
/// @param midAttention   whether the middle has attention
public record CoderShape(int inChannels, int outChannels, int latentChannels, List<Integer> channels,
        int layersPerBlock, int groups, ActivationKind activation, boolean midAttention) {
    private static final int MAX = 1 << 20;
    private static final int MAX_LEVELS = 16;
    /// All norms of these autoencoders; no field says so.
    static final float EPS = 1e-6f;

    static CoderShape parse(ConfigFile config, int latentChannels) {
        List<Integer> channels = config.getInts("block_out_channels");
        channels = channels.isEmpty() ? List.of(64) : List.copyOf(channels);
        if (channels.size() > MAX_LEVELS) {
            throw config.wrong("block_out_channels", "at most %d levels".formatted(MAX_LEVELS));
        }
        int groups = config.getInt("norm_num_groups", 1, MAX, 32);
        for (int c : channels) {
            if (c < 1 || c > MAX || c % groups != 0) {
                throw config.wrong("block_out_channels", "multiples of norm_num_groups (%d)".formatted(groups));
            }
        }
        requireBlocks(config, "down_block_types", "DownEncoderBlock2D", channels.size());
        requireBlocks(config, "up_block_types", "UpDecoderBlock2D", channels.size());
        return new CoderShape(config.getInt("in_channels", 1, MAX, 3), config.getInt("out_channels", 1, MAX, 3),
                config.getInt("latent_channels", 1, MAX, latentChannels), channels,
                config.getInt("layers_per_block", 1, 1000, 1), groups, activation(config),
                config.getBoolean("mid_block_add_attention", true));
    }

    private static void requireBlocks(ConfigFile config, String field, String type, int levels) {
        List<String> types = config.getStrings(field);
        types = types.isEmpty() ? List.of(type) : types;
        if (types.size() != levels || !types.stream().allMatch(type::equals)) {
            throw config.wrong(field, "%s, once per entry of block_out_channels (%d)".formatted(type, levels));
        }
    }

    private static ActivationKind activation(ConfigFile config) {
        String name = config.has("act_fn") ? config.requireString("act_fn") : "silu";
        return switch (name) {
            case "silu", "swish" -> ActivationKind.SILU;
            case "relu" -> ActivationKind.RELU;
            default -> throw config.wrong("act_fn", "silu, swish or relu");
        };
    }

    /// Pixels of the image per pixel of the latents, along each side.
    public int reduction() {
        return 1 << (channels.size() - 1);
    }

    ResnetBlock.Settings resnets() {
        return ResnetBlock.Settings.of(groups, EPS, activation);
    }
}
