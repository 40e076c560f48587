package io.gatun.models.clip;

import io.gatun.models.ComponentLoader;
import io.gatun.models.ConfigFile;
import io.gatun.models.Layers;
import io.gatun.models.WeightLoader;
import io.gatun.ops.Attention.Mask;
import io.gatun.ops.Embedding;
import io.gatun.runtime.DType;
import io.gatun.runtime.DeviceArena;
import io.gatun.runtime.GatunException;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/// CLIP's text encoder: a causal transformer over token ids, whose states condition image models. CLIPTextModel and
/// CLIPTextModelWithProjection of transformers. Radford et al. 2021, arXiv 2103.00020.
public final class ClipText {
    /// Opens the `text_encoder` of a pipeline.
    public static final ComponentLoader.Family<ClipText> FAMILY = new ComponentLoader.Family<>() {
        @Override
        public ClipText create(ConfigFile config, WeightLoader loader) {
            return new ClipText(ClipTextConfig.parse(config), loader);
        }

        @Override
        public List<String> prefixes() {
            return List.of("text_model.", "");
        }
    };

    private final ClipTextConfig config;
    private final ClipTextWeights weights;

    public ClipText(ClipTextConfig config, WeightLoader loader) {
        this.config = config;
        this.weights = ClipTextWeights.load(config, loader);
    }

    public ClipTextConfig config() {
        return config;
    }

    /// Whether the checkpoint projects the pooled state.
    public boolean isProjected() {
        return weights.projection() != null;
    }

    /// Every weight by name.
    public Map<String, Tensor> weights() {
        return weights.all();
    }

    /// Texts on the device.
    ///
    /// @param ids        [B T] i32
    /// @param positions  [B T] i32, 0 to T - 1 for each text
    /// @param pooledRows [B] i32, the row of ids whose state stands for each text
    public record Texts(int batch, int length, Tensor ids, Tensor positions, Tensor pooledRows) {}

    /// Uploads texts of one length.
    ///
    /// @param ids [B][T]
    /// @throws GatunException for an id outside the vocabulary and a text longer than the encoder's context
    public Texts upload(Stream stream, DeviceArena arena, int[][] ids) {
        int batch = ids.length;
        int length = batch == 0 ? 0 : ids[0].length;
        if (length == 0 || length > config.contextLength()) {
            throw GatunException.invalid("%d texts of %d ids, expected 1 to %d ids", batch, length,
                    config.contextLength());
        }
        int[] all = new int[batch * length];
        int[] positions = new int[batch * length];
        int[] pooled = new int[batch];
        for (int b = 0; b < batch; b++) {
            if (ids[b].length != length) {
                throw GatunException.invalid("text %d has %d ids, the first has %d: expected one length", b,
                        ids[b].length, length);
            }
            for (int t = 0; t < length; t++) {
                if (ids[b][t] < 0 || ids[b][t] >= config.vocabSize()) {
                    throw GatunException.invalid("ids: id %d, expected 0 to %d (vocab_size %d)", ids[b][t],
                            config.vocabSize() - 1, config.vocabSize());
                }
                all[b * length + t] = ids[b][t];
                positions[b * length + t] = t;
            }
            pooled[b] = b * length + config.pooledPosition(ids[b]);
        }
        return new Texts(batch, length, i32(stream, arena, all), i32(stream, arena, positions),
                i32(stream, arena, pooled));
    }

    private static Tensor i32(Stream stream, DeviceArena arena, int[] values) {
        Tensor tensor = arena.allocate(DType.I32, values.length);
        tensor.copyFrom(stream, values);
        return tensor;
    }

    /// What the encoder knows of texts. All are temporaries of the plan: copy what shall stay.
    ///
    /// @param hidden    [B, T, C], `0` the embeddings, `i` the output of layer `i - 1`, without the final norm;
    ///                  `hidden.get(L - 1)` is `hidden_states[-2]`, which Stable Diffusion XL uses
    /// @param last      [B, T, C], the output of the last layer after the final norm, which Stable Diffusion 1 uses
    /// @param pooled    [B, C], rows of `last`
    /// @param projected [B, P], `text_embeds`; null: the model has no projection
    public record States(List<Tensor> hidden, Tensor last, Tensor pooled, @Nullable Tensor projected) {}

    /// The forward pass.
    public States forward(Layers net, Texts texts) {
        long b = texts.batch;
        long t = texts.length;
        long c = config.hiddenSize();
        float eps = config.layerNormEps();
        float scale = (float) (1 / Math.sqrt((double) c / config.heads()));
        Tensor x = embed(net, texts).reshape(b, t, c);                                                     // [B, T, C]
        List<Tensor> hidden = new ArrayList<>(List.of(x));
        for (ClipTextWeights.Layer l : weights.layers()) {
            Tensor h = net.layerNorm(x, l.norm1(), l.norm1Bias(), eps);                                    // [B, T, C]
            Tensor q = net.linear(h, l.q(), l.qBias());                                                    // [B, T, C]
            Tensor k = net.linear(h, l.k(), l.kBias());                                                    // [B, T, C]
            Tensor v = net.linear(h, l.v(), l.vBias());                                                    // [B, T, C]
            Tensor mixed = net.attention(q, k, v, config.heads(), config.heads(), scale, Mask.CAUSAL);     // [B, T, C]
            x = net.add(x, net.linear(mixed, l.out(), l.outBias()));                                       // [B, T, C]
            h = net.layerNorm(x, l.norm2(), l.norm2Bias(), eps);                                           // [B, T, C]
            h = net.activation(net.linear(h, l.up(), l.upBias()), config.activation());                    // [B, T, F]
            x = net.add(x, net.linear(h, l.down(), l.downBias()));                                         // [B, T, C]
            hidden.add(x);
        }
        Tensor last = net.layerNorm(x, weights.finalNorm(), weights.finalNormBias(), eps);                 // [B, T, C]
        Tensor pooled = net.embedding(texts.pooledRows, last.reshape(b * t, c));                           // [B, C]
        Tensor projected = weights.projection() == null ? null
                : net.linearRowwise(pooled, weights.projection(), null);                                   // [B, P]
        return new States(List.copyOf(hidden), last, pooled, projected);
    }

    private Tensor embed(Layers net, Texts texts) {
        Tensor y = net.allocate(weights.tokens().dtype(), texts.ids.size(0), config.hiddenSize());
        net.op(stream -> Embedding.embedding(stream, y, texts.ids, weights.tokens(), texts.positions,
                weights.positions()), y);
        return y;
    }
}
