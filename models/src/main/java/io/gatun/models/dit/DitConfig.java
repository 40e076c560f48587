package io.gatun.models.dit;

import io.gatun.models.Activation;
import io.gatun.models.ConfigFile;

/// config.json of DiTTransformer2DModel, or of the Transformer2DModel with `norm_type` ada_norm_zero that it was
/// before. Peebles and Xie 2022, arXiv 2212.09748.
///
/// @param heads         H
/// @param headDim       D
/// @param inChannels    of the latents
/// @param outChannels   of the result: twice inChannels where the variance is learned
/// @param layers        L
/// @param sampleSize    height and width of the latents
/// @param patchSize     p, side of the squares of pixels that become tokens
/// @param activation    of the MLP
/// @param isGated       the MLP's first layer has a second half, which is activated and multiplied (geglu)
/// @param classes       ids 0 to classes - 1; `classes` itself stands for no class
/// @param attentionBias whether queries, keys and values have biases
/// @param norm3Affine   whether the norm before the MLP has weights
/// @param norm3Eps      its epsilon
public record DitConfig(int heads, int headDim, int inChannels, int outChannels, int layers, int sampleSize,
        int patchSize, Activation activation, boolean isGated, int classes, boolean attentionBias, boolean norm3Affine,
        float norm3Eps) {
    private static final int MAX = 1 << 20;
    /// Of the table of positions.
    private static final long MAX_POSITIONS = 1L << 27;
    /// Of the norm before attention and of the last; no field says so.
    static final float EPS = 1e-6f;
    /// Width of the sinusoids of a time step.
    static final int TIME_WIDTH = 256;

    public static DitConfig parse(ConfigFile config) {
        String norm = config.getString("norm_type");
        String name = config.getString("_class_name");
        if (norm == null ? "Transformer2DModel".equals(name) : !norm.equals("ada_norm_zero")) {
            throw config.wrong("norm_type", "ada_norm_zero: other transformers are not supported");
        }
        if (config.isNull("num_embeds_ada_norm")) {
            throw config.wrong("num_embeds_ada_norm", "the number of classes");
        }
        int patch = config.getInt("patch_size", 1, MAX, 2);
        int sample = config.getInt("sample_size", 1, MAX, 32);
        int headDim = config.getInt("attention_head_dim", 1, MAX, 72);
        int heads = config.getInt("num_attention_heads", 1, MAX, 16);
        if (sample % patch != 0) {
            throw config.wrong("sample_size", "a multiple of patch_size (%d)".formatted(patch));
        }
        long width = (long) heads * headDim;
        if (width % 4 != 0 || width > MAX) {
            throw config.wrong("attention_head_dim", "a width of all %d heads that is a multiple of 4, at most %d"
                    .formatted(heads, MAX));
        }
        long side = sample / patch;
        if (side * side > MAX_POSITIONS / width) {
            throw config.wrong("sample_size", "at most %d numbers in the positions of %d x %d patches of width %d"
                    .formatted(MAX_POSITIONS, side, side, width));
        }
        int in = config.getInt("in_channels", 1, MAX, 4);
        return new DitConfig(heads, headDim, in, config.getInt("out_channels", 1, MAX, in),
                config.getInt("num_layers", 1, 10_000, 28), sample, patch, activation(config), isGated(config),
                config.getInt("num_embeds_ada_norm", 1, MAX, 1000), config.getBoolean("attention_bias", true),
                config.getBoolean("norm_elementwise_affine", false),
                config.has("norm_eps") ? (float) config.requirePositive("norm_eps") : 1e-5f);
    }

    private static boolean isGated(ConfigFile config) {
        return "geglu".equals(config.getString("activation_fn"));
    }

    private static Activation activation(ConfigFile config) {
        String name = config.has("activation_fn") ? config.requireString("activation_fn") : "gelu-approximate";
        return switch (name) {
            case "gelu-approximate" -> Activation.GELU_TANH;
            case "gelu", "geglu" -> Activation.GELU_ERF;
            default -> throw config.wrong("activation_fn", "gelu-approximate, gelu or geglu");
        };
    }

    /// C, the width of a token.
    public int hiddenSize() {
        return heads * headDim;
    }

    /// Tokens along a side.
    public int grid() {
        return sampleSize / patchSize;
    }

    /// `[sin(x f) | cos(x f) | sin(y f) | cos(y f)]` for the token in column x of row y, `f_i = 10000^(-i / (C/4))`.
    ///
    /// @return [grid grid, C], row by row
    float[] positions() {
        int c = hiddenSize();
        int quarter = c / 4;
        int side = grid();
        float[] table = new float[side * side * c];
        for (int y = 0; y < side; y++) {
            for (int x = 0; x < side; x++) {
                int at = (y * side + x) * c;
                for (int i = 0; i < quarter; i++) {
                    double f = Math.pow(10000, -(double) i / quarter);
                    table[at + i] = (float) Math.sin(x * f);
                    table[at + quarter + i] = (float) Math.cos(x * f);
                    table[at + 2 * quarter + i] = (float) Math.sin(y * f);
                    table[at + 3 * quarter + i] = (float) Math.cos(y * f);
                }
            }
        }
        return table;
    }
}
