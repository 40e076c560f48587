package io.gatun.models.classifier;

import io.gatun.models.ConfigFile;
import java.util.List;

/// config.json of a small image classifier, a format of Gatun's own (`model_type` gatun_classifier).
///
/// @param channels      of the convolutions
/// @param hiddenSize    width of the layer before the last
/// @param classes       K
/// @param imageChannels of the image
/// @param imageSize     height and width
public record ImageClassifierConfig(List<Integer> channels, int hiddenSize, int classes, int imageChannels,
        int imageSize) {
    /// `model_type` of the directory.
    public static final String MODEL_TYPE = "gatun_classifier";
    private static final int MAX = 1 << 16;

    public static ImageClassifierConfig parse(ConfigFile config) {
        if (!MODEL_TYPE.equals(config.getString("model_type"))) {
            throw config.wrong("model_type", MODEL_TYPE + ", which gatun train writes for a classifier");
        }
        List<Integer> channels = List.copyOf(config.getInts("channels"));
        if (channels.isEmpty() || channels.size() > 8 || !channels.stream().allMatch(c -> c > 0 && c <= MAX)) {
            throw config.wrong("channels", "1 to 8 positive integers");
        }
        int size = config.requireInt("image_size", 1, MAX);
        if (size % (1 << channels.size()) != 0) {
            throw config.wrong("image_size", "a multiple of %d, for %d channels".formatted(1 << channels.size(),
                    channels.size()));
        }
        return new ImageClassifierConfig(channels, config.requireInt("hidden_size", 1, MAX),
                config.requireInt("num_labels", 2, MAX), config.getInt("image_channels", 1, MAX, 1), size);
    }

    /// Height and width behind the last pool.
    int lowest() {
        return imageSize >> channels.size();
    }
}
