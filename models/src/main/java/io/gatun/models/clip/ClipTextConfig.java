package io.gatun.models.clip;

import io.gatun.models.Activation;
import io.gatun.models.ConfigFile;
import java.util.List;

/// config.json of a CLIP text encoder (Radford et al. 2021, arXiv 2103.00020).
///
/// @param vocabSize     V
/// @param hiddenSize    C
/// @param innerSize     F, width of the MLP
/// @param layers        L
/// @param heads         H
/// @param contextLength M, positions: 77 in the published models
/// @param activation    of the MLP: `quick_gelu` for OpenAI's weights, `gelu` for OpenCLIP's
/// @param layerNormEps  epsilon of the layer norms
/// @param eosTokenId    the pooled state is that of its first place; 2 stands for the largest id, whatever that is
/// @param projectionDim P, width of the projected pooled state
/// @param isProjected   whether the class is CLIPTextModelWithProjection
public record ClipTextConfig(int vocabSize, int hiddenSize, int innerSize, int layers, int heads, int contextLength,
        Activation activation, float layerNormEps, int eosTokenId, int projectionDim, boolean isProjected) {
    private static final int MAX = 1 << 24;
    /// What config files said before transformers 4.32, whatever the tokenizer's end token was.
    private static final int LEGACY_EOS = 2;

    public static ClipTextConfig parse(ConfigFile config) {
        int hidden = config.getInt("hidden_size", 1, MAX, 512);
        int heads = config.getInt("num_attention_heads", 1, MAX, 8);
        if (hidden % heads != 0) {
            throw config.wrong("num_attention_heads", "a divisor of hidden_size (%d)".formatted(hidden));
        }
        List<String> architectures = config.getStrings("architectures");
        return new ClipTextConfig(config.getInt("vocab_size", 1, MAX, 49408), hidden,
                config.getInt("intermediate_size", 1, MAX, 2048), config.getInt("num_hidden_layers", 1, 10_000, 12),
                heads, config.getInt("max_position_embeddings", 1, MAX, 77),
                config.has("hidden_act") ? Activation.parse(config, "hidden_act") : Activation.QUICK_GELU,
                config.has("layer_norm_eps") ? (float) config.requirePositive("layer_norm_eps") : 1e-5f,
                config.getInt("eos_token_id", 0, MAX, 49407), config.getInt("projection_dim", 1, MAX, 512),
                architectures.contains("CLIPTextModelWithProjection"));
    }

    /// The position whose state stands for the whole text: the first end token, or the largest id under the old rule;
    /// the first position where there is no end token.
    public int pooledPosition(int[] ids) {
        int best = 0;
        for (int t = 0; t < ids.length; t++) {
            if (eosTokenId != LEGACY_EOS && ids[t] == eosTokenId) {
                return t;
            }
            if (eosTokenId == LEGACY_EOS && ids[t] > ids[best]) {
                best = t;
            }
        }
        return best;
    }
}
