package io.gatun.models.gan;

import io.gatun.models.ConfigFile;
import java.util.List;

/// config.json of a DCGAN generator, a format of Gatun's own (`model_type` gatun_dcgan). Radford, Metz and Chintala
/// 2015, arXiv 1511.06434.
///
/// @param latentSize    Z
/// @param numClasses    K (`num_class_embeds`): the input is followed by its class, one of K numbers 1 and the others
///                      0, as Mirza and Osindero 2014, arXiv 1411.1784; 0: none
/// @param channels      of the layers from the lowest resolution, 4 x 4, up
/// @param imageChannels of the image
/// @param batchNormEps  epsilon of the batch norms
public record DcganConfig(int latentSize, int numClasses, List<Integer> channels, int imageChannels,
        float batchNormEps) implements LatentDecoder.Shape {
    /// `model_type` of the directory.
    public static final String MODEL_TYPE = "gatun_dcgan";
    private static final int MAX = 1 << 20;
    private static final int MAX_LEVELS = 12;
    private static final int LOWEST = 4;

    public static DcganConfig parse(ConfigFile config) {
        List<Integer> channels = List.copyOf(config.getInts("channels"));
        if (channels.isEmpty() || channels.size() > MAX_LEVELS || !channels.stream().allMatch(c -> c > 0 && c <= MAX)) {
            throw config.wrong("channels", "1 to %d positive integers".formatted(MAX_LEVELS));
        }
        DcganConfig parsed = new DcganConfig(config.requireInt("latent_size", 1, MAX),
                config.getInt("num_class_embeds", 0, MAX, 0), channels, config.getInt("image_channels", 1, MAX, 3),
                config.has("batch_norm_eps") ? (float) config.requirePositive("batch_norm_eps") : 1e-5f);
        if (config.has("image_size") && config.requireInt("image_size", 1, MAX) != parsed.imageSize()) {
            throw config.wrong("image_size", "%d, for %d channels".formatted(parsed.imageSize(), channels.size()));
        }
        return parsed;
    }

    /// Height and width: each layer but the first doubles them.
    @Override
    public int imageSize() {
        return LOWEST << channels.size();
    }
}
