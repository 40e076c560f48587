package io.gatun.models.unet;

import io.gatun.models.ConfigFile;
import io.gatun.models.unet.UNetLayout.AttentionKind;
import io.gatun.models.unet.UNetLayout.AttentionLayout;
import io.gatun.models.unet.UNetLayout.BlockLayout;
import io.gatun.models.unet.UNetLayout.ClassKind;
import io.gatun.models.unet.UNetLayout.Resampler;
import io.gatun.models.unet.UNetLayout.ResnetLayout;
import io.gatun.models.unet.UNetLayout.TimeLayout;
import io.gatun.runtime.GatunException;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import org.jspecify.annotations.Nullable;

/// config.json of a UNet2DConditionModel: the network of Stable Diffusion (Rombach et al. 2022, arXiv 2112.10752) and
/// SDXL (Podell et al. 2023, arXiv 2307.01952). `upcast_attention` needs nothing: scores and sums are f32 always.
///
/// @param sampleSize height and width that the network was trained for; empty where the file does not say
/// @param encoderDim channels of the encoder's states
record UNet2DConditionConfig(List<Integer> sampleSize, int encoderDim, UNetLayout layout) {
    private static final List<String> DOWN = List.of("CrossAttnDownBlock2D", "DownBlock2D", "AttnDownBlock2D",
            "ResnetDownsampleBlock2D");
    private static final List<String> UP = List.of("CrossAttnUpBlock2D", "UpBlock2D", "AttnUpBlock2D",
            "ResnetUpsampleBlock2D");
    private static final List<String> UNSUPPORTED = List.of("encoder_hid_dim", "encoder_hid_dim_type",
            "num_attention_heads", "time_embedding_act_fn", "timestep_post_act", "cross_attention_norm");
    private static final List<String> UNSUPPORTED_FLAGS = List.of("dual_cross_attention", "resnet_skip_time_act",
            "class_embeddings_concat", "mid_block_only_cross_attention");

    static UNet2DConditionConfig parse(ConfigFile config) {
        UNetLayout.requireDefaults(config, UNSUPPORTED, UNSUPPORTED_FLAGS);
        config.getOneOf("time_embedding_type", "positional", "positional");
        config.getOneOf("attention_type", "default", "default");
        UNetLayout.requireSilu(config);
        return new Parser(config).parse();
    }

    private static final class Parser {
        private final ConfigFile config;
        private final List<String> down;
        private final List<String> up;
        private final List<Integer> channels;
        private final List<Integer> layers;
        private final List<Integer> heads;
        private final List<Integer> encoderDims;
        private final List<List<Integer>> transformerLayers;
        private final List<Boolean> onlyCross;
        private final int groups;
        private final int blocks;

        Parser(ConfigFile config) {
            this.config = config;
            this.groups = UNetLayout.groups(config);
            this.down = UNetLayout.blockTypes(config, "down_block_types", List.of("CrossAttnDownBlock2D",
                    "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"), DOWN);
            this.up = UNetLayout.blockTypes(config, "up_block_types", List.of("UpBlock2D", "CrossAttnUpBlock2D",
                    "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"), UP);
            this.channels = UNetLayout.blockChannels(config, List.of(320, 640, 1280, 1280), down, up, groups);
            this.blocks = down.size();
            this.layers = UNetLayout.perBlock(config, "layers_per_block", blocks, 2);
            this.heads = UNetLayout.perBlock(config, "attention_head_dim", blocks, 8);
            this.encoderDims = UNetLayout.perBlock(config, "cross_attention_dim", blocks, 1280);
            this.transformerLayers = transformerLayers("transformer_layers_per_block", 0);
            this.onlyCross = config.getBooleans("only_cross_attention", blocks, false);
        }

        UNet2DConditionConfig parse() {
            int c = channels.getFirst();
            int timeDim = UNetLayout.positiveOr(config, "time_embedding_dim", 4 * c);
            if (encoderDims.stream().distinct().count() > 1) {
                throw config.wrong("cross_attention_dim", "one width for all blocks");
            }
            ResnetLayout resnet = new ResnetLayout(UNetLayout.eps(config), groups, UNetLayout.timeAs(config),
                    timeDim);
            return new UNet2DConditionConfig(UNetLayout.sampleSize(config), encoderDims.getFirst(), new UNetLayout(
                    UNetLayout.positiveOr(config, "in_channels", 4), UNetLayout.positiveOr(config, "out_channels", 4),
                    kernel("conv_in_kernel"), kernel("conv_out_kernel"), time(c, timeDim), resnet, downBlocks(), mid(),
                    upBlocks(), config.getBoolean("center_input_sample", false)));
        }

        private int kernel(String field) {
            int size = config.getInt(field, 1, 31, 3);
            if (size % 2 == 0) {
                throw config.wrong(field, "an odd integer");
            }
            return size;
        }

        private List<BlockLayout> downBlocks() {
            int padding = config.getInt("downsample_padding", 0, 1, 1);
            List<BlockLayout> result = new ArrayList<>();
            for (int i = 0; i < blocks; i++) {
                int c = channels.get(i);
                String type = down.get(i);
                result.add(new BlockLayout(
                        UNetLayout.downChannels(channels.get(Math.max(i - 1, 0)), c, layers.get(i)), c,
                        attention(type, c, heads.get(i), heads.get(i), perLayer(transformerLayers.get(i),
                                layers.get(i)), onlyCross.get(i)),
                        UNetLayout.resampler(type, "ResnetDownsampleBlock2D", i == blocks - 1), padding,
                        scale(type.equals("ResnetDownsampleBlock2D"))));
            }
            return result;
        }

        /// Of an up block with self attention the head dim is that of the down block with the same index, not of the
        /// same level: diffusers does not reverse that list.
        private List<BlockLayout> upBlocks() {
            List<Integer> out = channels.reversed();
            boolean reversedGiven = config.has("reverse_transformer_layers_per_block");
            List<List<Integer>> transformers = reversedGiven
                    ? transformerLayers("reverse_transformer_layers_per_block", 1) : transformerLayers.reversed();
            List<BlockLayout> result = new ArrayList<>();
            for (int i = 0; i < blocks; i++) {
                int c = out.get(i);
                int number = layers.reversed().get(i) + 1;
                String type = up.get(i);
                result.add(new BlockLayout(UNetLayout.upChannels(out.get(Math.max(i - 1, 0)), c,
                        out.get(Math.min(i + 1, blocks - 1)), number), c,
                        attention(type, c, heads.reversed().get(i), heads.get(i), perLayer(transformers.get(i), number),
                                onlyCross.reversed().get(i)),
                        UNetLayout.resampler(type, "ResnetUpsampleBlock2D", i == blocks - 1), 0,
                        scale(type.equals("ResnetUpsampleBlock2D"))));
            }
            return result;
        }

        private @Nullable BlockLayout mid() {
            if (config.isNull("mid_block_type")) {
                return null;
            }
            String type = config.getOneOf("mid_block_type", "UNetMidBlock2DCrossAttn", "UNetMidBlock2DCrossAttn",
                    "UNetMidBlock2D");
            int c = channels.getLast();
            boolean attends = type.equals("UNetMidBlock2DCrossAttn");
            AttentionLayout attention = attends ? attention("CrossAttn", c, heads.getLast(), 1,
                    List.of(transformerLayers.getLast().getFirst()), false) : AttentionLayout.NONE;
            return new BlockLayout(attends ? List.of(c, c) : List.of(c), c, attention, Resampler.NONE, 0,
                    UNetLayout.scale(config, "mid_block_scale_factor"));
        }

        private float scale(boolean resnetBlock) {
            return resnetBlock ? UNetLayout.scale(config, "resnet_out_scale_factor") : 1;
        }

        /// "attention_head_dim" is the number of heads where there is cross attention, and D where there is not.
        private AttentionLayout attention(String type, int c, int number, int headDim, List<Integer> perLayer,
                boolean only) {
            if (type.startsWith("CrossAttn")) {
                return new AttentionLayout(AttentionKind.CROSS, number,
                        UNetLayout.divide(config, "attention_head_dim", c, number), groups, perLayer,
                        encoderDims.getFirst(), only, config.getBoolean("use_linear_projection", false));
            }
            if (type.startsWith("Attn")) {
                return new AttentionLayout(AttentionKind.SELF,
                        UNetLayout.divide(config, "attention_head_dim", c, headDim), headDim, groups, List.of(), 0,
                        false, false);
            }
            return AttentionLayout.NONE;
        }

        private List<List<Integer>> transformerLayers(String field, int more) {
            List<List<Integer>> values = config.getIntLists(field);
            if (values.isEmpty()) {
                values = List.of(List.of(1));
            }
            if (values.size() == 1 && blocks != 1 && values.getFirst().size() == 1) {
                values = Collections.nCopies(blocks, values.getFirst());
            }
            boolean fits = values.size() == blocks;
            for (int i = 0; fits && i < blocks; i++) {
                int layersOfBlock = (more == 0 ? layers : layers.reversed()).get(i) + more;
                fits = (values.get(i).size() == 1 || values.get(i).size() == layersOfBlock)
                        && values.get(i).stream().allMatch(n -> n >= 1 && n <= 1000);
            }
            if (!fits) {
                throw config.wrong(field, "an integer or %d of them, or of lists with one for each of a block's layers"
                        .formatted(blocks));
            }
            if (more == 0 && values.stream().anyMatch(v -> v.size() > 1)
                    && !config.has("reverse_transformer_layers_per_block")) {
                throw config.wrong(field, "no lists inside the list unless reverse_transformer_layers_per_block is"
                        + " given too");
            }
            return values;
        }

        private static List<Integer> perLayer(List<Integer> values, int number) {
            return values.size() == 1 ? Collections.nCopies(number, values.getFirst()) : values;
        }

        private TimeLayout time(int sinusoids, int dim) {
            int projected = config.getInt("projection_class_embeddings_input_dim", 1, UNetLayout.MAX, 0);
            int table = config.getInt("num_class_embeds", 1, UNetLayout.MAX, 0);
            ClassKind kind = switch (config.getOneOf("class_embed_type", "", "timestep", "identity", "projection",
                    "simple_projection")) {
                case "timestep" -> ClassKind.TIMESTEP;
                case "identity" -> ClassKind.IDENTITY;
                case "projection" -> ClassKind.PROJECTION;
                case "simple_projection" -> ClassKind.SIMPLE_PROJECTION;
                default -> table > 0 ? ClassKind.TABLE : ClassKind.NONE;
            };
            boolean projects = kind == ClassKind.PROJECTION || kind == ClassKind.SIMPLE_PROJECTION;
            boolean textTime = !config.getOneOf("addition_embed_type", "", "text_time").isEmpty();
            int textTimeDim = textTime ? config.requireInt("addition_time_embed_dim", 2, UNetLayout.MAX) : 0;
            if ((projects || textTime) && projected == 0) {
                throw GatunException.invalid("%s: field 'projection_class_embeddings_input_dim' is missing, which"
                        + " class_embed_type or addition_embed_type needs", config.file());
            }
            return new TimeLayout(sinusoids, config.getBoolean("flip_sin_to_cos", true),
                    UNetLayout.shift(config, sinusoids), dim,
                    config.getInt("time_cond_proj_dim", 1, UNetLayout.MAX, 0), kind,
                    projects ? projected : kind == ClassKind.TABLE ? table : 0, textTimeDim, textTime ? projected : 0);
        }
    }
}
