package io.gatun.models.vae;

import io.gatun.models.ConfigFile;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;

/// config.json of AutoencoderKL. Rombach et al. 2022, arXiv 2112.10752.
///
/// @param shape         of encoder and decoder
/// @param sampleSize    side of the images it was trained on, and of the tiles of large ones
/// @param toLatent      diffusion works on `(z - shift) * scale`, per channel of z
/// @param forceUpcast   f16 would overflow: compute in f32 where f16 was asked for
/// @param quantConv     a 1x1 convolution after the encoder
/// @param postQuantConv a 1x1 convolution before the decoder
public record AutoencoderKlConfig(CoderShape shape, int sampleSize, LatentScale toLatent, boolean forceUpcast,
        boolean quantConv, boolean postQuantConv) {
    private static final int MAX = 1 << 20;

    /// `(z - shift[c]) * scale[c]`.
    ///
    /// @param scale [Z]
    /// @param shift [Z]
    public record LatentScale(List<Double> scale, List<Double> shift) {
        public LatentScale {
            scale = List.copyOf(scale);
            shift = List.copyOf(shift);
        }

        /// Whether all channels are only multiplied, by one factor.
        boolean isOneFactor() {
            return shift.stream().allMatch(s -> s == 0) && scale.stream().allMatch(scale.getFirst()::equals);
        }
    }

    public static AutoencoderKlConfig parse(ConfigFile config) {
        CoderShape shape = CoderShape.parse(config, 4);
        List<Integer> sides = config.getInts("sample_size");
        int side = sides.isEmpty() ? 32 : sides.getFirst();
        if (side < shape.reduction() || side > MAX || sides.size() > 2) {
            throw config.wrong("sample_size", "a side of %d pixels or more, or two".formatted(shape.reduction()));
        }
        return new AutoencoderKlConfig(shape, side, latentScale(config, shape.latentChannels()),
                config.getBoolean("force_upcast", true), config.getBoolean("use_quant_conv", true),
                config.getBoolean("use_post_quant_conv", true));
    }

    /// `scaling_factor` and `shift_factor` for all channels, or with `latents_mean` and `latents_std` for each:
    /// `(z - mean) * scaling_factor / std`, as the pipelines of diffusers do.
    private static LatentScale latentScale(ConfigFile config, int channels) {
        double factor = config.has("scaling_factor") ? config.requirePositive("scaling_factor") : 0.18215;
        List<Double> means = config.getNumbers("latents_mean");
        List<Double> deviations = config.getNumbers("latents_std");
        if (means.isEmpty() || deviations.isEmpty()) {
            return new LatentScale(Collections.nCopies(channels, factor),
                    Collections.nCopies(channels, config.getNumber("shift_factor", 0)));
        }
        List<Double> scale = new ArrayList<>();
        if (means.size() != channels) {
            throw config.wrong("latents_mean", "%d numbers (latent_channels)".formatted(channels));
        }
        if (deviations.size() != channels || !deviations.stream().allMatch(d -> d > 0)) {
            throw config.wrong("latents_std", "%d numbers above 0 (latent_channels)".formatted(channels));
        }
        deviations.forEach(d -> scale.add(factor / d));
        return new LatentScale(scale, means);
    }
}
