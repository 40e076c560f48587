package io.gatun.models.vae;

import io.gatun.models.ConfigFile;

/// config.json of VQModel. van den Oord et al. 2017, arXiv 1711.00937; Esser et al. 2021, arXiv 2012.09841.
///
/// @param shape              of encoder and decoder
/// @param numCodes           K, entries of the codebook
/// @param codeWidth          E, width of an entry
/// @param lookupFromCodebook decoding may start from ids
/// @param scalingFactor      diffusion works on the latents times this
public record VqModelConfig(CoderShape shape, int numCodes, int codeWidth, boolean lookupFromCodebook,
        double scalingFactor) {
    private static final int MAX = 1 << 24;

    public static VqModelConfig parse(ConfigFile config) {
        CoderShape shape = CoderShape.parse(config, 3);
        String norm = config.getString("norm_type");
        if (norm != null && !norm.equals("group")) {
            throw config.wrong("norm_type", "group");
        }
        return new VqModelConfig(shape, config.getInt("num_vq_embeddings", 1, MAX, 256),
                config.getInt("vq_embed_dim", 1, MAX, shape.latentChannels()),
                config.getBoolean("lookup_from_codebook", false),
                config.has("scaling_factor") ? config.requirePositive("scaling_factor") : 0.18215);
    }
}
