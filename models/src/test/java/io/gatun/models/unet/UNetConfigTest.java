package io.gatun.models.unet;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import io.gatun.models.ConfigFile;
import io.gatun.models.GoldenCase;
import io.gatun.models.ImageNetwork;
import io.gatun.models.ImageNetworkLoader;
import io.gatun.models.Layers;
import io.gatun.models.ModelDirectory;
import io.gatun.models.WeightLoader;
import io.gatun.models.unet.UNetLayout.AttentionKind;
import io.gatun.models.unet.UNetLayout.BlockLayout;
import io.gatun.models.unet.UNetLayout.Resampler;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.GatunException;
import io.gatun.runtime.Plan;
import io.gatun.runtime.Shapes;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import java.io.IOException;
import java.nio.file.Path;
import java.util.List;
import java.util.Objects;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/// Is config.json understood as diffusers understands it? No weights are needed.
class UNetConfigTest {
    @TempDir
    private Path directory;

    private static Path published(String name) {
        return GoldenCase.resource("unet/" + name).resolve("config.json");
    }

    /// A published config with other fields.
    private ConfigFile with(String name, String changes) {
        try {
            ObjectNode config = (ObjectNode) GoldenCase.json(published(name));
            JsonNode changed = new ObjectMapper().readTree(changes.replace('\'', '"'));
            changed.properties().forEach(field -> config.set(field.getKey(), field.getValue()));
            Path file = directory.resolve("config.json");
            ModelDirectory.writeText(file, config.toString());
            return ConfigFile.read(file);
        } catch (IOException e) {
            throw new IllegalArgumentException(changes, e);
        }
    }

    private UNetLayout unet2d(String changes) {
        return UNet2DConfig.parse(with("ddpm-cifar10-32", changes)).layout();
    }

    private UNetLayout conditional(String changes) {
        return UNet2DConditionConfig.parse(with("stable-diffusion-v1-5", changes)).layout();
    }

    private static List<Integer> heads(List<BlockLayout> blocks) {
        return blocks.stream().map(b -> b.attention().heads()).toList();
    }

    @ParameterizedTest
    @CsvSource({"ddpm-cifar10-32, 35746307", "stable-diffusion-v1-5, 859520964", "stable-diffusion-2-1, 865910724",
        "stable-diffusion-xl-base-1.0, 2567463684"})
    void parameterCount_published(String name, long expected) {
        try (Device device = Device.open("cpu"); Shapes shapes = new Shapes(device)) {
            ImageNetwork network = ImageNetworkLoader.create(ConfigFile.read(published(name)),
                    WeightLoader.shapes(shapes, DType.F32));
            assertEquals(expected, network.parameterCount());
        }
    }

    /// What a pass needs beside the weights is known from the config: less than all its temporaries together.
    @Test
    void measure_stableDiffusion() {
        try (Device device = Device.open("cpu"); Stream stream = device.newStream();
                Shapes shapes = new Shapes(device)) {
            ImageNetwork network = ImageNetworkLoader.create(ConfigFile.read(published("stable-diffusion-v1-5")),
                    WeightLoader.shapes(shapes, DType.F32));
            Tensor sample = shapes.of(DType.F32, 2, 64, 64, 4);
            Tensor out = shapes.of(DType.F32, 2, 64, 64, 4);
            ImageNetwork.Inputs in = ImageNetwork.Inputs.of(sample, shapes.of(DType.F32, 2))
                    .withText(shapes.of(DType.F32, 2, 77, 768));
            long bytes = Plan.measure(device, r -> network.forward(new Layers(device, stream, r), out, in));
            assertTrue(bytes > 100 << 20 && bytes < 1L << 30, bytes + " bytes");
        }
    }

    @Test
    void unet2d_headDimNullMeansOneHead() {
        assertEquals(List.of(0, 1, 0, 0), heads(unet2d("{'attention_head_dim': null}").down()));
        assertEquals(List.of(0, 32, 0, 0), heads(unet2d("{'attention_head_dim': 8}").down()));
    }

    @Test
    void unet2d_paddingZeroIsBelowAndRight() {
        assertEquals(0, unet2d("{}").down().getFirst().padding());
        assertEquals(1, unet2d("{'downsample_padding': 1}").down().getFirst().padding());
    }

    @Test
    void unet2d_residualBlocksResampleWhereAttentionIs() {
        UNetLayout layout = unet2d("{'downsample_type': 'resnet', 'upsample_type': 'resnet'}");
        assertEquals(List.of(Resampler.CONV, Resampler.RESNET, Resampler.CONV, Resampler.NONE),
                layout.down().stream().map(BlockLayout::resampler).toList());
        assertEquals(List.of(Resampler.CONV, Resampler.CONV, Resampler.RESNET, Resampler.NONE),
                layout.up().stream().map(BlockLayout::resampler).toList());
    }

    @Test
    void unet2d_normOfTheMiddle() {
        assertEquals(32, middle(unet2d("{}")).attention().groups());
        assertEquals(0, middle(unet2d("{'resnet_time_scale_shift': 'scale_shift'}")).attention().groups());
        assertEquals(16, middle(unet2d("{'attn_norm_num_groups': 16}")).attention().groups());
        assertEquals(AttentionKind.NONE, middle(unet2d("{'add_attention': false}")).attention().kind());
    }

    private static BlockLayout middle(UNetLayout layout) {
        return Objects.requireNonNull(layout.mid());
    }

    @Test
    void midBlockType_nullIsNotAbsent() {
        assertNull(unet2d("{'mid_block_type': null}").mid());
        assertNotNull(unet2d("{}").mid());
        assertNull(conditional("{'mid_block_type': null}").mid());
        assertEquals(1, middle(conditional("{'mid_block_type': 'UNetMidBlock2D'}")).layers());
    }

    @Test
    void blockTypes_oldPrefix() {
        assertEquals(AttentionKind.NONE, unet2d("{'down_block_types': ['UNetResDownBlock2D', 'UNetResAttnDownBlock2D',"
                + "'DownBlock2D', 'DownBlock2D']}").down().getFirst().attention().kind());
    }

    @Test
    void upBlocks_channels() {
        assertEquals(List.of(List.of(512, 512, 512), List.of(512, 512, 512), List.of(512, 512, 384),
                List.of(384, 256, 256)), unet2d("{}").up().stream().map(BlockLayout::inChannels).toList());
    }

    @Test
    void conditional_headDimIsTheNumberOfHeads() {
        assertEquals(List.of(8, 8, 8, 0), heads(conditional("{}").down()));
        assertEquals(List.of(40, 80, 160, 0),
                conditional("{}").down().stream().map(b -> b.attention().headDim()).toList());
        UNetLayout sd2 = conditional("{'attention_head_dim': [5, 10, 20, 20]}");
        assertEquals(List.of(0, 20, 10, 5), heads(sd2.up()));
        assertEquals(List.of(0, 64, 64, 64), sd2.up().stream().map(b -> b.attention().headDim()).toList());
    }

    @Test
    void conditional_transformerLayers() {
        UNetLayout layout = conditional("{'transformer_layers_per_block': [1, 2, 10, 4]}");
        assertEquals(List.of(2, 2), layout.down().get(1).attention().transformerLayers());
        assertEquals(List.of(4), middle(layout).attention().transformerLayers());
        assertEquals(List.of(10, 10, 10), layout.up().get(1).attention().transformerLayers());
        UNetLayout lopsided = conditional("{'transformer_layers_per_block': [[1, 2], 1, 1, 1],"
                + "'reverse_transformer_layers_per_block': [1, 3, 1, [1, 2, 3]]}");
        assertEquals(List.of(1, 2), lopsided.down().getFirst().attention().transformerLayers());
        assertEquals(List.of(1, 2, 3), lopsided.up().getLast().attention().transformerLayers());
    }

    @Test
    void conditional_onlyCrossAttention() {
        UNetLayout layout = conditional("{'only_cross_attention': [true, false, false, false]}");
        assertTrue(layout.down().getFirst().attention().onlyCross());
        assertTrue(layout.up().getLast().attention().onlyCross());
        assertFalse(layout.up().get(1).attention().onlyCross());
    }

    @Test
    void sampleSize_oneOrTwo() {
        assertEquals(List.of(32, 32), UNet2DConfig.parse(with("ddpm-cifar10-32", "{}")).sampleSize());
        assertEquals(List.of(32, 48), UNet2DConfig.parse(with("ddpm-cifar10-32", "{'sample_size': [32, 48]}"))
                .sampleSize());
        assertEquals(List.of(), UNet2DConfig.parse(with("ddpm-cifar10-32", "{'sample_size': null}")).sampleSize());
    }

    @ParameterizedTest
    @CsvSource(delimiter = '|', quoteCharacter = '~', value = {
        "act_fn | 'mish'", "time_embedding_type | 'fourier'", "down_block_types | ['DownBlock2D', 'KDownBlock2D']",
        "down_block_types | ['DownBlock2D']", "up_block_types | 'UpBlock2D'", "mid_block_type | 'MidBlock'",
        "resnet_time_scale_shift | 'spatial'", "norm_num_groups | 33", "norm_num_groups | null", "norm_eps | 0",
        "attention_head_dim | 24", "downsample_type | 'fir'", "upsample_type | 3", "class_embed_type | 'projection'",
        "block_out_channels | [128, 256]", "layers_per_block | 0", "in_channels | -1", "freq_shift | 64",
        "sample_size | [1, 2, 3]", "attn_norm_num_groups | 24", "downsample_padding | 2"})
    void unet2d_wrongValue(String field, String value) {
        GatunException e = assertThrows(GatunException.class, () -> unet2d("{'" + field + "': " + value + "}"));
        assertTrue(e.getMessage().contains(field), e.getMessage());
        assertTrue(e.getMessage().contains("config.json"), e.getMessage());
    }

    @ParameterizedTest
    @CsvSource(delimiter = '|', quoteCharacter = '~', value = {
        "encoder_hid_dim_type | 'text_proj'", "num_attention_heads | 8", "time_embedding_act_fn | 'silu'",
        "cross_attention_norm | 'layer_norm'", "dual_cross_attention | true", "resnet_skip_time_act | true",
        "class_embeddings_concat | true", "attention_type | 'gated'", "addition_embed_type | 'text'",
        "addition_embed_type | 'text_time'", "class_embed_type | 'projection'", "class_embed_type | 'other'",
        "attention_head_dim | [8, 8]", "attention_head_dim | 7", "conv_in_kernel | 4",
        "cross_attention_dim | [768, 768, 768, 512]", "transformer_layers_per_block | [1, 2]",
        "transformer_layers_per_block | [[1, 2], 1, 1, 1]", "only_cross_attention | [true]",
        "mid_block_type | 'UNetMidBlock2DSimpleCrossAttn'", "down_block_types | ['SimpleCrossAttnDownBlock2D']"})
    void conditional_wrongValue(String field, String value) {
        GatunException e = assertThrows(GatunException.class, () -> conditional("{'" + field + "': " + value + "}"));
        assertTrue(e.getMessage().contains(field) || e.getMessage().contains("addition_time_embed_dim"),
                e.getMessage());
    }

    @Test
    void create_unknownClass() {
        try (Device device = Device.open("cpu"); Shapes shapes = new Shapes(device)) {
            ConfigFile config = with("ddpm-cifar10-32", "{'_class_name': 'UNet1DModel'}");
            GatunException e = assertThrows(GatunException.class,
                    () -> ImageNetworkLoader.create(config, WeightLoader.shapes(shapes, DType.F32)));
            assertTrue(e.getMessage().contains("UNet1DModel"), e.getMessage());
        }
    }
}
