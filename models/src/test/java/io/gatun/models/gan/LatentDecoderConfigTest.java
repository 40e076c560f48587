package io.gatun.models.gan;

import static org.junit.jupiter.api.Assertions.assertEquals;

import io.gatun.models.Activation;
import io.gatun.models.ConfigText;
import java.nio.file.Path;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/// Are the configs of generators and small decoders read as models/README.md describes them?
class LatentDecoderConfigTest {
    @TempDir
    private Path folder;

    @Test
    void dcgan_defaults() {
        DcganConfig config = DcganConfig.parse(ConfigText.of(folder, "{'latent_size': 100, 'channels': [512, 256]}"));
        assertEquals(new DcganConfig(100, 0, List.of(512, 256), 3, 1e-5f), config);
        assertEquals(16, config.imageSize());
    }

    @Test
    void dcgan_classes() {
        DcganConfig config = DcganConfig.parse(ConfigText.of(folder,
                "{'latent_size': 4, 'num_class_embeds': 3, 'channels': [8], 'image_channels': 1}"));
        assertEquals(new DcganConfig(4, 3, List.of(8), 1, 1e-5f), config);
    }

    @ParameterizedTest
    @CsvSource(quoteCharacter = '"', delimiter = '|', value = {
        "{'latent_size': 4, 'channels': [8], 'num_class_embeds': -1} | num_class_embeds",
        "{'channels': [8]} | latent_size", "{'latent_size': 4} | channels",
        "{'latent_size': 4, 'channels': []} | channels", "{'latent_size': 4, 'channels': [8, 0]} | channels",
        "{'latent_size': 4, 'channels': [8], 'image_size': 16} | image_size",
        "{'latent_size': 4, 'channels': [8], 'batch_norm_eps': 0} | batch_norm_eps"})
    void dcgan_refused(String json, String field) {
        ConfigText.assertRefused(() -> DcganConfig.parse(ConfigText.of(folder, json)), field);
    }

    @Test
    void vae_values() {
        assertEquals(new VaeDecoderConfig(VaeDecoderConfig.Kind.MLP, 8, List.of(64), 1, 28, Activation.RELU),
                VaeDecoderConfig.parse(ConfigText.of(folder, """
                        {'decoder': 'mlp', 'latent_size': 8, 'widths': [64], 'image_size': 28,
                         'activation': 'relu'}""")));
    }

    @ParameterizedTest
    @CsvSource(quoteCharacter = '"', delimiter = '|', value = {
        "{'decoder': 'unet'} | decoder", "{'decoder': 'mlp'} | widths",
        "{'decoder': 'mlp', 'widths': [4]} | image_size",
        "{'decoder': 'conv', 'widths': [4, 4], 'image_size': 18} | image_size",
        "{'decoder': 'mlp', 'widths': [4], 'image_size': 5} | latent_size",
        "{'decoder': 'mlp', 'widths': [4], 'image_size': 5, 'latent_size': 2, 'activation': 'mish'} | activation"})
    void vae_refused(String json, String field) {
        ConfigText.assertRefused(() -> VaeDecoderConfig.parse(ConfigText.of(folder, json)), field);
    }
}
