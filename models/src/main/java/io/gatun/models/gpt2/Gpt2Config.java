package io.gatun.models.gpt2;

import io.gatun.models.Activation;
import io.gatun.models.ConfigFile;
import io.gatun.models.ModelConfig;
import io.gatun.runtime.DType;

/// config.json of a GPT-2 model (Radford et al. 2019).
///
/// @param base             V, C, context, L, H, D
/// @param innerSize        F, width of the MLP
/// @param activation       of the MLP
/// @param layerNormEps     epsilon of the layer norms
/// @param scaleByHeadDim   scores are divided by sqrt(D)
/// @param scaleByLayer     scores of layer i are also divided by i + 1
public record Gpt2Config(ModelConfig base, int innerSize, Activation activation, float layerNormEps,
        boolean scaleByHeadDim, boolean scaleByLayer) {
    private static final int MAX = 1 << 24;

    public static Gpt2Config parse(ConfigFile config, DType dtype) {
        int hidden = config.requireInt("n_embd", 1, MAX);
        int heads = config.requireInt("n_head", 1, MAX);
        if (hidden % heads != 0) {
            throw config.wrong("n_head", "a divisor of n_embd (%d)".formatted(hidden));
        }
        ModelConfig base = new ModelConfig("gpt2", config.requireInt("vocab_size", 1, MAX), hidden,
                config.requireInt("n_positions", 1, MAX), config.requireInt("n_layer", 1, 10_000), heads, heads,
                hidden / heads, dtype);
        return new Gpt2Config(base, config.getInt("n_inner", 1, MAX, 4 * hidden),
                Activation.parse(config, "activation_function"), (float) config.requirePositive("layer_norm_epsilon"),
                config.getBoolean("scale_attn_weights", true),
                config.getBoolean("scale_attn_by_inverse_layer_idx", false));
    }

    /// What scores of a layer are multiplied by.
    float attentionScale(int layer) {
        double scale = scaleByHeadDim ? 1 / Math.sqrt(base.headDim()) : 1;
        return (float) (scaleByLayer ? scale / (layer + 1) : scale);
    }
}
