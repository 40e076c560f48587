package io.gatun.models.gan;

import io.gatun.models.Activation;
import io.gatun.models.ConfigFile;
import java.util.List;

/// config.json of the decoder of a small VAE, a format of Gatun's own (`model_type` gatun_vae). Kingma and Welling
/// 2013, arXiv 1312.6114.
///
/// @param kind          of the layers
/// @param latentSize    Z
/// @param widths        of the layers from the latents to before the image: features of an MLP, channels of a
///                      convolutional decoder
/// @param imageChannels of the image
/// @param imageSize     height and width
/// @param activation    between layers; a sigmoid ends the decoder
public record VaeDecoderConfig(Kind kind, int latentSize, List<Integer> widths, int imageChannels, int imageSize,
        Activation activation) implements LatentDecoder.Shape {
    /// `model_type` of the directory.
    public static final String MODEL_TYPE = "gatun_vae";
    private static final int MAX = 1 << 20;
    private static final int MAX_LEVELS = 12;

    /// What the decoder is made of.
    public enum Kind {
        /// `mlp`: linear layers.
        MLP,
        /// `conv`: a linear layer to the lowest resolution, then transposed 4 x 4 convolutions that double it.
        CONV
    }

    public static VaeDecoderConfig parse(ConfigFile config) {
        Kind kind = switch (config.requireString("decoder")) {
            case "mlp" -> Kind.MLP;
            case "conv" -> Kind.CONV;
            default -> throw config.wrong("decoder", "mlp or conv");
        };
        List<Integer> widths = List.copyOf(config.getInts("widths"));
        if (widths.isEmpty() || widths.size() > MAX_LEVELS || !widths.stream().allMatch(w -> w > 0 && w <= MAX)) {
            throw config.wrong("widths", "1 to %d positive integers".formatted(MAX_LEVELS));
        }
        int size = config.requireInt("image_size", 1, 1 << 14);
        if (kind == Kind.CONV && size % (1 << widths.size()) != 0) {
            throw config.wrong("image_size", "a multiple of %d, for %d widths".formatted(1 << widths.size(),
                    widths.size()));
        }
        return new VaeDecoderConfig(kind, config.requireInt("latent_size", 1, MAX), widths,
                config.getInt("image_channels", 1, MAX, 1), size, Activation.parse(config, "activation"));
    }

    /// Height and width after the first layer of a convolutional decoder.
    int lowest() {
        return imageSize >> widths.size();
    }
}
