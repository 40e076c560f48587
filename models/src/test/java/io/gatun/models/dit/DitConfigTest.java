package io.gatun.models.dit;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.models.Activation;
import io.gatun.models.ConfigText;
import io.gatun.models.ImageNetworkLoader;
import io.gatun.models.WeightLoader;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.Shapes;
import java.nio.file.Path;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

/// Is the config of a DiT understood as diffusers understands it?
class DitConfigTest {
    /// As facebook/DiT-XL-2-256 has it, from before the class had a name of its own.
    private static final String XL_2 = """
            {'_class_name': '%s', 'activation_fn': 'gelu-approximate', 'attention_bias': true,
             'attention_head_dim': 72, 'cross_attention_dim': null, 'dropout': 0.0, 'in_channels': 4,
             'norm_elementwise_affine': false, 'norm_num_groups': 32, 'norm_type': 'ada_norm_zero',
             'num_attention_heads': 16, 'num_embeds_ada_norm': 1000, 'num_layers': 28, 'num_vector_embeds': null,
             'only_cross_attention': false, 'out_channels': 8, 'patch_size': 2, 'sample_size': 32,
             'upcast_attention': false, 'use_linear_projection': false}""";

    @TempDir
    private Path folder;

    private DitConfig parse(String json) {
        return DitConfig.parse(ConfigText.of(folder, json));
    }

    @ParameterizedTest
    @ValueSource(strings = {"Transformer2DModel", "DiTTransformer2DModel"})
    void parameterCount_xl2(String className) {
        try (Device device = Device.open("cpu"); Shapes shapes = new Shapes(device)) {
            assertEquals(749_826_464, ImageNetworkLoader.create(ConfigText.of(folder, XL_2.formatted(className)),
                    WeightLoader.shapes(shapes, DType.F32)).parameterCount());
        }
    }

    /// The defaults are those of DiTTransformer2DModel.
    @Test
    void parse_defaults() {
        assertEquals(new DitConfig(16, 72, 4, 4, 28, 32, 2, Activation.GELU_TANH, false, 1000, true, false, 1e-5f),
                parse("{}"));
        assertEquals(6, parse("{'in_channels': 6, 'out_channels': null}").outChannels());
    }

    @Test
    void parse_values() {
        DitConfig config = parse("{'activation_fn': 'geglu', 'norm_eps': 1e-3, 'attention_bias': false}");
        assertTrue(config.isGated());
        assertEquals(1e-3f, config.norm3Eps());
        DitConfig exact = parse("{'activation_fn': 'gelu'}");
        assertEquals(Activation.GELU_ERF, exact.activation());
        assertFalse(exact.isGated());
    }

    @ParameterizedTest
    @CsvSource(quoteCharacter = '"', delimiter = '|', value = {
        "{'norm_type': 'ada_norm_single'} | norm_type", "{'norm_type': 'layer_norm'} | norm_type",
        "{'_class_name': 'Transformer2DModel'} | norm_type", "{'activation_fn': 'swiglu'} | activation_fn",
        "{'num_embeds_ada_norm': null} | num_embeds_ada_norm", "{'sample_size': 31} | sample_size",
        "{'attention_head_dim': 3, 'num_attention_heads': 3} | attention_head_dim",
        "{'attention_head_dim': 1048576, 'num_attention_heads': 1048576} | attention_head_dim",
        "{'sample_size': 1048576, 'patch_size': 1} | sample_size",
        "{'sample_size': 65536, 'patch_size': 2} | sample_size"})
    void parse_refused(String json, String field) {
        ConfigText.assertRefused(() -> parse(json), field);
    }

    /// Columns first, sines before cosines.
    @Test
    void positions_order() {
        float[] table = parse("{'num_attention_heads': 1, 'attention_head_dim': 8, 'sample_size': 6}").positions();
        int token = 2 * 3 + 1; // row 2, column 1
        double[] expected = {Math.sin(1), Math.sin(0.01), Math.cos(1), Math.cos(0.01), Math.sin(2), Math.sin(0.02),
            Math.cos(2), Math.cos(0.02)};
        for (int i = 0; i < expected.length; i++) {
            assertEquals((float) expected[i], table[token * 8 + i], "element " + i);
        }
    }
}
