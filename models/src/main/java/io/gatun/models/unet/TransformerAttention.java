package io.gatun.models.unet;

import io.gatun.models.Layers;
import io.gatun.models.WeightLoader;
import io.gatun.ops.Attention.Mask;
import io.gatun.runtime.Tensor;

/// Multi-head attention of a transformer block: of the pixels among themselves, or to the encoder's states. Vaswani et
/// al. 2017, arXiv 1706.03762.
///
/// @param q       to_q.weight     [C, C]
/// @param k       to_k.weight     [C, K], K channels of what is looked at
/// @param v       to_v.weight     [C, K]
/// @param out     to_out.0.weight [C, C]
/// @param outBias to_out.0.bias   [C]
record TransformerAttention(Tensor q, Tensor k, Tensor v, Tensor out, Tensor outBias) {

    static TransformerAttention load(WeightLoader w, String at, int c, int keyChannels) {
        return new TransformerAttention(w.require(at + "to_q.weight", c, c),
                w.require(at + "to_k.weight", c, keyChannels), w.require(at + "to_v.weight", c, keyChannels),
                w.require(at + "to_out.0.weight", c, c), w.require(at + "to_out.0.bias", c));
    }

    /// `softmax(q k^T / sqrt(D)) v`, projected.
    ///
    /// @param x       [B, T, C]
    /// @param context [B, S, K], whose keys and values they are; x itself for self attention
    /// @return [B, T, C]
    Tensor forward(Layers l, Tensor x, Tensor context, int heads) {
        float scale = (float) (1 / Math.sqrt((double) x.size(2) / heads));
        Tensor queries = l.linear(x, q, null);                                                       // [B, T, C]
        Tensor keys = l.linear(context, k, null);                                                    // [B, S, C]
        Tensor values = l.linear(context, v, null);                                                  // [B, S, C]
        Tensor mixed = l.attention(queries, keys, values, heads, heads, scale, Mask.NONE);           // [B, T, C]
        return l.linear(mixed, out, outBias);                                                        // [B, T, C]
    }
}
