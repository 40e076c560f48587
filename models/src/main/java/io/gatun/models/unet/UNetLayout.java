package io.gatun.models.unet;

import io.gatun.models.ConfigFile;
import io.gatun.models.blocks.ResnetBlock;
import io.gatun.models.blocks.ResnetBlock.TimeAs;
import io.gatun.ops.ActivationKind;
import io.gatun.runtime.GatunException;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import org.jspecify.annotations.Nullable;

/// The structure that both kinds of U-Net share, with all defaults and special cases resolved: which blocks there are,
/// how many channels go in and out, and what each contains. The weights and the forward pass are built from it alone.
///
/// @param inChannels   channels of the sample
/// @param outChannels  channels of the prediction
/// @param convIn       size of the first kernel, odd
/// @param convOut      size of the last kernel, odd
/// @param time         the embeddings of time step and conditions
/// @param resnet       what all residual blocks share
/// @param down         from the full image to the smallest
/// @param mid          at the smallest; null: none
/// @param up           from the smallest image to the full one
/// @param centerInput  the sample is `2 x - 1` first
record UNetLayout(int inChannels, int outChannels, int convIn, int convOut, TimeLayout time, ResnetLayout resnet,
        List<BlockLayout> down, @Nullable BlockLayout mid, List<BlockLayout> up, boolean centerInput) {
    static final int MAX = 1 << 20;

    /// @param eps     of the group norms
    /// @param groups  of the group norms
    /// @param timeAs  "resnet_time_scale_shift"
    /// @param timeDim E, width of the time embedding
    record ResnetLayout(float eps, int groups, TimeAs timeAs, int timeDim) {
        /// @param scale the results are divided by it
        ResnetBlock.Settings settings(float scale) {
            return new ResnetBlock.Settings(groups, eps, ActivationKind.SILU, timeAs, scale);
        }
    }

    /// What stands behind each residual block.
    enum AttentionKind {
        NONE,
        /// Attention of the pixels among themselves, as in DDPM.
        SELF,
        /// Transformer blocks that also look at the encoder's states.
        CROSS
    }

    /// @param kind              none, self or cross
    /// @param heads             H
    /// @param headDim           D
    /// @param groups            of the norm before self attention; 0: no norm
    /// @param transformerLayers transformer blocks behind each residual block
    /// @param encoderDim        channels of the encoder's states
    /// @param onlyCross         the first attention of a transformer block looks at the encoder's states as well
    /// @param linearProjection  the projections around the transformer blocks are [C, C], not [C, C, 1, 1]
    record AttentionLayout(AttentionKind kind, int heads, int headDim, int groups, List<Integer> transformerLayers,
            int encoderDim, boolean onlyCross, boolean linearProjection) {
        static final AttentionLayout NONE = new AttentionLayout(AttentionKind.NONE, 0, 0, 0, List.of(), 0, false,
                false);
    }

    /// How a block changes the size of the image at its end.
    enum Resampler {
        NONE,
        CONV,
        RESNET
    }

    /// @param inChannels  of each residual block; of an up block with the channels of its skip connection
    /// @param outChannels C, of every residual block
    /// @param attention   behind each residual block; in the middle between them
    /// @param resampler   at the end
    /// @param padding     of the convolution that halves; 0: one row and column at the bottom and the right
    /// @param scale       results of residual blocks and of self attention are divided by it
    record BlockLayout(List<Integer> inChannels, int outChannels, AttentionLayout attention, Resampler resampler,
            int padding, float scale) {
        int layers() {
            return inChannels.size();
        }
    }

    /// @param sinusoids      width of the sinusoids of a time step
    /// @param cosinesFirst   "flip_sin_to_cos"
    /// @param shift          "freq_shift"
    /// @param dim            E, width of the embedding
    /// @param conditionDim   "time_cond_proj_dim"; 0: none
    /// @param classKind      how class labels are embedded
    /// @param classes        rows of the table, or width of what is projected
    /// @param textTimeDim    sinusoids of each of the sizes that SDXL is told; 0: none
    /// @param textTimeInput  width of pooled text and sinusoids together
    record TimeLayout(int sinusoids, boolean cosinesFirst, float shift, int dim, int conditionDim, ClassKind classKind,
            int classes, int textTimeDim, int textTimeInput) {}

    /// "class_embed_type", and null with "num_class_embeds" as TABLE.
    enum ClassKind {
        NONE,
        TABLE,
        /// The label goes the way of the time step.
        TIMESTEP,
        /// The labels are embeddings already.
        IDENTITY,
        /// The labels are vectors that two linear layers project.
        PROJECTION,
        /// The labels are vectors that one linear layer projects.
        SIMPLE_PROJECTION
    }

    /// The channels into each residual block of a down block.
    static List<Integer> downChannels(int in, int out, int layers) {
        List<Integer> channels = new ArrayList<>(Collections.nCopies(layers, out));
        channels.set(0, in);
        return channels;
    }

    /// The channels into each residual block of an up block: what comes from below, then the skip connection. The last
    /// skip connection comes from one level higher.
    ///
    /// @param previous channels that come from below
    /// @param skip     channels of the last skip connection
    static List<Integer> upChannels(int previous, int out, int skip, int layers) {
        List<Integer> channels = new ArrayList<>();
        for (int i = 0; i < layers; i++) {
            channels.add((i == 0 ? previous : out) + (i == layers - 1 ? skip : out));
        }
        return channels;
    }

    /// An integer for all blocks or a list with one for each.
    static List<Integer> perBlock(ConfigFile config, String field, int blocks, int otherwise) {
        List<Integer> values = config.getInts(field);
        if (values.isEmpty()) {
            values = List.of(otherwise);
        }
        if (values.size() != 1 && values.size() != blocks || values.stream().anyMatch(v -> v < 1 || v > MAX)) {
            throw config.wrong(field, "an integer or %d integers, each from 1 to %d".formatted(blocks, MAX));
        }
        return values.size() == 1 ? Collections.nCopies(blocks, values.getFirst()) : values;
    }

    /// The types of the blocks of one side; old files write them with a prefix.
    static List<String> blockTypes(ConfigFile config, String field, List<String> otherwise, List<String> known) {
        List<String> types = (config.has(field) ? config.getStrings(field) : otherwise).stream()
                .map(type -> type.startsWith("UNetRes") ? type.substring("UNetRes".length()) : type).toList();
        for (String type : types) {
            if (!known.contains(type)) {
                throw config.wrong(field, "blocks of the types " + String.join(", ", known) + " (not " + type + ")");
            }
        }
        return types;
    }

    /// "block_out_channels", as many as there are blocks on each side, each divisible into the norm's groups.
    static List<Integer> blockChannels(ConfigFile config, List<Integer> otherwise, List<String> down, List<String> up,
            int groups) {
        List<Integer> channels = config.has("block_out_channels") ? config.getInts("block_out_channels") : otherwise;
        if (up.size() != down.size() || channels.size() != down.size() || channels.isEmpty()) {
            throw GatunException.invalid("%s: %d down_block_types, %d up_block_types, %d block_out_channels: expected"
                    + " as many of each", config.file(), down.size(), up.size(), channels.size());
        }
        for (int c : channels) {
            if (c < 1 || c > MAX || c % groups != 0) {
                throw config.wrong("block_out_channels", "multiples of norm_num_groups (%d)".formatted(groups));
            }
        }
        return channels;
    }

    /// `channels / divisor`.
    static int divide(ConfigFile config, String field, int channels, int divisor) {
        if (divisor > channels || channels % divisor != 0) {
            throw config.wrong(field, "divisors of the block's channels (%d)".formatted(channels));
        }
        return channels / divisor;
    }

    /// "norm_num_groups": not null, since residual blocks need it.
    static int groups(ConfigFile config) {
        if (config.isNull("norm_num_groups")) {
            throw config.wrong("norm_num_groups", "an integer");
        }
        return config.getInt("norm_num_groups", 1, MAX, 32);
    }

    /// Settings that exist, and that no network here has.
    static void requireDefaults(ConfigFile config, List<String> nulls, List<String> falses) {
        for (String field : nulls) {
            if (config.has(field)) {
                throw config.wrong(field, "null: nothing else is supported");
            }
        }
        for (String field : falses) {
            if (config.getBoolean(field, false)) {
                throw config.wrong(field, "false: true is not supported");
            }
        }
    }

    static TimeAs timeAs(ConfigFile config) {
        return config.getOneOf("resnet_time_scale_shift", "default", "default", "scale_shift").equals("default")
                ? TimeAs.SUM : TimeAs.SCALE_SHIFT;
    }

    static Resampler resampler(String type, String typeOfResnets, boolean last) {
        return last ? Resampler.NONE : type.equals(typeOfResnets) ? Resampler.RESNET : Resampler.CONV;
    }

    /// "freq_shift": sinusoids divide by the half width minus it.
    static float shift(ConfigFile config, int sinusoids) {
        double shift = config.getNumber("freq_shift", 0);
        if (!(shift >= 0 && shift < sinusoids / 2)) {
            throw config.wrong("freq_shift", "0 or more, below %d".formatted(sinusoids / 2));
        }
        return (float) shift;
    }

    static int positiveOr(ConfigFile config, String field, int otherwise) {
        return config.getInt(field, 1, MAX, otherwise);
    }

    static float scale(ConfigFile config, String field) {
        return config.has(field) ? (float) config.requirePositive(field) : 1;
    }

    static float eps(ConfigFile config) {
        return config.has("norm_eps") ? (float) config.requirePositive("norm_eps") : 1e-5f;
    }

    /// "act_fn": the norms' activation, and that of the time embedding.
    static void requireSilu(ConfigFile config) {
        config.getOneOf("act_fn", "silu", "silu", "swish");
    }

    /// "sample_size": one side or height and width; empty where it is not given.
    static List<Integer> sampleSize(ConfigFile config) {
        List<Integer> size = config.getInts("sample_size");
        if (size.size() > 2 || size.stream().anyMatch(s -> s < 1 || s > MAX)) {
            throw config.wrong("sample_size", "one or two integers from 1 on");
        }
        return size.size() == 1 ? List.of(size.getFirst(), size.getFirst()) : size;
    }
}
