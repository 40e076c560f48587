package io.gatun.models.vae;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.models.ConfigText;
import io.gatun.models.WeightLoader;
import io.gatun.ops.ActivationKind;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.Shapes;
import io.gatun.runtime.Tensor;
import java.nio.file.Path;
import java.util.Collections;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/// Are the configs of AutoencoderKL and VQModel understood as diffusers understands them?
class AutoencoderConfigTest {
    private static final String STABLE_DIFFUSION = """
            {'_class_name': 'AutoencoderKL', 'act_fn': 'silu', 'block_out_channels': [128, 256, 512, 512],
             'down_block_types': ['DownEncoderBlock2D', 'DownEncoderBlock2D', 'DownEncoderBlock2D',
             'DownEncoderBlock2D'], 'up_block_types': ['UpDecoderBlock2D', 'UpDecoderBlock2D', 'UpDecoderBlock2D',
             'UpDecoderBlock2D'], 'in_channels': 3, 'latent_channels': 4, 'layers_per_block': 2,
             'norm_num_groups': 32, 'out_channels': 3, 'sample_size': 512}""";

    @TempDir
    private Path folder;

    private AutoencoderKlConfig kl(String json) {
        return AutoencoderKlConfig.parse(ConfigText.of(folder, json));
    }

    private VqModelConfig vq(String json) {
        return VqModelConfig.parse(ConfigText.of(folder, json));
    }

    @Test
    void parameterCount_stableDiffusion() {
        try (Device device = Device.open("cpu"); Shapes shapes = new Shapes(device)) {
            AutoencoderKl vae = new AutoencoderKl(kl(STABLE_DIFFUSION), WeightLoader.shapes(shapes, DType.F32));
            assertEquals(83_653_863, vae.weights().values().stream().mapToLong(Tensor::elements).sum());
        }
    }

    /// Old configs lack most fields.
    @Test
    void parse_defaults() {
        AutoencoderKlConfig config = kl("{}");
        assertEquals(new CoderShape(3, 3, 4, List.of(64), 1, 32, ActivationKind.SILU, true), config.shape());
        assertEquals(List.of(0.18215, 0.18215, 0.18215, 0.18215), config.toLatent().scale());
        assertEquals(32, config.sampleSize());
        assertTrue(config.forceUpcast() && config.quantConv() && config.postQuantConv());
        assertEquals(3, vq("{}").shape().latentChannels());
        assertEquals(256, vq("{}").numCodes());
        assertFalse(vq("{}").lookupFromCodebook());
        assertEquals(0.18215, vq("{}").scalingFactor());
    }

    @Test
    void parse_nulls() {
        AutoencoderKlConfig config = kl("""
                {'shift_factor': null, 'latents_mean': null, 'latents_std': null, 'scaling_factor': 1.5305}""");
        assertEquals(List.of(0.0, 0.0, 0.0, 0.0), config.toLatent().shift());
        assertTrue(config.toLatent().isOneFactor());
    }

    @Test
    void parse_shift() {
        AutoencoderKlConfig config = kl("{'shift_factor': 0.1159, 'scaling_factor': 0.3611, 'latent_channels': 2}");
        assertEquals(List.of(0.1159, 0.1159), config.toLatent().shift());
        assertFalse(config.toLatent().isOneFactor());
    }

    /// Mean and deviation per channel stand beside the factor.
    @Test
    void parse_meansAndDeviations() {
        AutoencoderKlConfig config = kl("""
                {'latent_channels': 2, 'scaling_factor': 0.5, 'latents_mean': [1, 2], 'latents_std': [4, 8]}""");
        assertEquals(List.of(0.125, 0.0625), config.toLatent().scale());
        assertEquals(List.of(1.0, 2.0), config.toLatent().shift());
    }

    @Test
    void parse_meansOfAnotherLength() {
        ConfigText.assertRefused(() -> kl("{'latents_mean': [1], 'latents_std': [1, 1, 1, 1]}"), "latents_mean", "4");
        ConfigText.assertRefused(() -> kl("{'latents_mean': [1, 1, 1, 1], 'latents_std': [1, 1, 0, 1]}"),
                "latents_std");
    }

    @ParameterizedTest
    @CsvSource(quoteCharacter = '"', delimiter = '|', value = {
        "{'act_fn': 'mish'} | act_fn", "{'act_fn': 'nothing'} | act_fn",
        "{'down_block_types': ['AttnDownEncoderBlock2D']} | down_block_types",
        "{'up_block_types': ['UpDecoderBlock2D', 'UpDecoderBlock2D']} | up_block_types",
        "{'block_out_channels': [60]} | block_out_channels", "{'scaling_factor': 0} | scaling_factor",
        "{'sample_size': 0} | sample_size", "{'layers_per_block': 0} | layers_per_block"})
    void parse_refused(String json, String field) {
        ConfigText.assertRefused(() -> kl(json), field);
        if (!field.equals("sample_size")) {
            ConfigText.assertRefused(() -> vq(json), field);
        }
    }

    @Test
    void parse_tooManyLevels() {
        String channels = String.join(", ", Collections.nCopies(33, "32"));
        ConfigText.assertRefused(() -> vq("{'block_out_channels': [%s]}".formatted(channels)), "block_out_channels",
                "at most 16 levels");
    }

    @Test
    void parse_spatialNorm() {
        ConfigText.assertRefused(() -> vq("{'norm_type': 'spatial'}"), "norm_type", "spatial");
    }

    @Test
    void parse_codeWidth() {
        assertEquals(3, vq("{'vq_embed_dim': null}").codeWidth());
        assertEquals(7, vq("{'vq_embed_dim': 7}").codeWidth());
    }

    @Test
    void parse_sampleSizeOfTwo() {
        assertEquals(64, kl("{'sample_size': [64, 96]}").sampleSize());
    }

    /// f16 becomes f32 unless the config says that it need not; bf16 has the range of f32.
    @Test
    void dtype_forceUpcast() {
        assertEquals(DType.F32, AutoencoderKl.FAMILY.dtype(ConfigText.of(folder, "{}"), DType.F16));
        assertEquals(DType.F16, AutoencoderKl.FAMILY.dtype(ConfigText.of(folder, "{'force_upcast': false}"),
                DType.F16));
        assertEquals(DType.BF16, AutoencoderKl.FAMILY.dtype(ConfigText.of(folder, "{}"), DType.BF16));
    }
}
