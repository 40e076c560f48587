package io.gatun.models.clip;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.gatun.models.Activation;
import io.gatun.models.ConfigText;
import io.gatun.models.WeightLoader;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.Shapes;
import java.nio.file.Path;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// Is the config of a text encoder understood as transformers understands it?
class ClipTextConfigTest {
    @TempDir
    private Path folder;

    private ClipTextConfig parse(String json) {
        return ClipTextConfig.parse(ConfigText.of(folder, json));
    }

    /// The defaults are those of transformers' CLIPTextConfig.
    @Test
    void parse_defaults() {
        assertEquals(new ClipTextConfig(49408, 512, 2048, 12, 8, 77, Activation.QUICK_GELU, 1e-5f, 49407, 512, false),
                parse("{}"));
    }

    @Test
    void parse_values() {
        ClipTextConfig config = parse("""
                {'architectures': ['CLIPTextModelWithProjection'], 'hidden_size': 1280, 'intermediate_size': 5120,
                 'num_hidden_layers': 32, 'num_attention_heads': 20, 'hidden_act': 'gelu', 'eos_token_id': 2,
                 'projection_dim': 1280, 'layer_norm_eps': 1e-6}""");
        assertEquals(Activation.GELU_ERF, config.activation());
        assertEquals(1e-6f, config.layerNormEps());
        assertTrue(config.isProjected());
    }

    @Test
    void parse_unknownActivation() {
        ConfigText.assertRefused(() -> parse("{'hidden_act': 'mish'}"), "hidden_act", "mish", "quick_gelu");
    }

    @Test
    void parse_headsThatDoNotDivide() {
        ConfigText.assertRefused(() -> parse("{'num_attention_heads': 7}"), "num_attention_heads", "512");
    }

    /// The first end token, even where a larger id comes before it.
    @Test
    void pooledPosition_firstEnd() {
        ClipTextConfig config = parse("{'eos_token_id': 50, 'vocab_size': 60}");
        assertEquals(2, config.pooledPosition(new int[] {1, 59, 50, 50, 50}));
        assertEquals(0, config.pooledPosition(new int[] {1, 59, 7}));
    }

    /// Under the id 2 of old configs the largest id, and the first of them.
    @Test
    void pooledPosition_legacy() {
        ClipTextConfig config = parse("{'eos_token_id': 2}");
        assertEquals(3, config.pooledPosition(new int[] {1, 2, 2, 59, 59, 0}));
    }

    /// The text encoder of Stable Diffusion 1.
    @Test
    void parameterCount_clipL() {
        try (Device device = Device.open("cpu"); Shapes shapes = new Shapes(device)) {
            ClipText clip = new ClipText(parse("""
                    {'hidden_size': 768, 'intermediate_size': 3072, 'num_attention_heads': 12}"""),
                    WeightLoader.shapes(shapes, DType.F32));
            assertEquals(123060480, clip.weights().values().stream().mapToLong(t -> t.elements()).sum());
        }
    }
}
