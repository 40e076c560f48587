package io.gatun.models.llama;

import io.gatun.models.Activation;
import io.gatun.models.ConfigFile;
import io.gatun.models.ModelConfig;
import io.gatun.models.RopeScaling;
import io.gatun.runtime.DType;

/// config.json of a Llama model (Touvron et al. 2023; Grattafiori et al. 2024).
///
/// @param base             V, C, context, L, H, G, D
/// @param intermediateSize F, width of the MLP
/// @param rmsNormEps       epsilon of the norms
/// @param attentionBias    whether the attention projections have biases
/// @param mlpBias          whether the MLP projections have biases
/// @param rope             rotary frequencies
public record LlamaConfig(ModelConfig base, int intermediateSize, float rmsNormEps,
        boolean attentionBias, boolean mlpBias, RopeScaling rope) {
    private static final int MAX = 1 << 24;
    private static final int MAX_HEAD_DIM = 512;

    public static LlamaConfig parse(ConfigFile config, DType dtype) {
        int hidden = config.requireInt("hidden_size", 1, MAX);
        int heads = config.requireInt("num_attention_heads", 1, MAX);
        int kvHeads = config.getInt("num_key_value_heads", 1, MAX, heads);
        if (heads % kvHeads != 0) {
            throw config.wrong("num_key_value_heads", "a divisor of num_attention_heads (%d)".formatted(heads));
        }
        if (!config.has("head_dim") && hidden % heads != 0) {
            throw config.wrong("num_attention_heads", "a divisor of hidden_size (%d), or a head_dim".formatted(hidden));
        }
        int headDim = config.getInt("head_dim", 1, MAX_HEAD_DIM, Math.max(1, hidden / heads));
        if (headDim % 2 != 0 || headDim > MAX_HEAD_DIM) {
            throw config.wrong(config.has("head_dim") ? "head_dim" : "hidden_size",
                    "an even head dim of at most %d, found %d".formatted(MAX_HEAD_DIM, headDim));
        }
        int context = config.requireInt("max_position_embeddings", 1, MAX);
        RopeScaling rope = RopeScaling.parse(config, headDim, context);
        ModelConfig base = new ModelConfig("llama", config.requireInt("vocab_size", 1, MAX), hidden, rope.reach(),
                config.requireInt("num_hidden_layers", 1, 10_000), heads, kvHeads, headDim, dtype);
        if (Activation.parse(config, "hidden_act") != Activation.SILU) {
            throw config.wrong("hidden_act", "silu");
        }
        return new LlamaConfig(base, config.requireInt("intermediate_size", 1, MAX),
                (float) config.requirePositive("rms_norm_eps"), config.getBoolean("attention_bias", false),
                config.getBoolean("mlp_bias", false), rope);
    }
}
