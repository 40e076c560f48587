package io.gatun.models.llama;

import io.gatun.models.CausalModel;
import io.gatun.models.ForwardPass;
import io.gatun.models.Layers;
import io.gatun.models.Layers.Branches;
import io.gatun.models.Layers.Matrix;
import io.gatun.models.Layers.Prenorm;
import io.gatun.models.Layers.Projected;
import io.gatun.models.Layers.ProjectedQkv;
import io.gatun.models.Layers.Residual;
import io.gatun.models.ModelConfig;
import io.gatun.models.RopeTable;
import io.gatun.models.SequenceAttention;
import io.gatun.models.SequenceAttention.Rotation;
import io.gatun.models.WeightLoader;
import io.gatun.ops.Rope;
import io.gatun.runtime.DeviceArena;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import java.util.Map;

/// Llama: rotary positions, grouped-query attention, RMS norm, SwiGLU. Touvron et al. 2023, arXiv 2302.13971.
public final class Llama implements CausalModel {
    private final LlamaConfig config;
    private final LlamaWeights weights;
    private final RopeTable rope;

    /// @param arena owns the rotary table
    public Llama(DeviceArena arena, LlamaConfig config, WeightLoader loader) {
        this.config = config;
        this.weights = LlamaWeights.load(config, loader);
        this.rope = new RopeTable(arena, config.rope());
    }

    /// Asks the loader for every weight.
    public static void declare(LlamaConfig config, WeightLoader loader) {
        LlamaWeights.load(config, loader);
    }

    @Override
    public ModelConfig config() {
        return config.base();
    }

    @Override
    public Map<String, Tensor> weights() {
        return weights.all();
    }

    @Override
    public void reserve(Stream stream, int length) {
        rope.reserve(stream, length);
    }

    @Override
    public Tensor headWeight() {
        return weights.head();
    }

    @Override
    public Tensor forward(Layers net, Tokens tokens, SequenceAttention attention, ForwardPass.Observer observer) {
        Branches x = blocks(net, tokens, attention, observer);
        Residual last = net.rmsNorm(x, weights.norm(), config.rmsNormEps());                         // [N, C]
        observer.layer(config().layers(), last.sum());
        observer.layer(config().layers() + 1, last.normed());
        return last.normed();
    }

    @Override
    public void forwardToLogits(Layers net, Tensor logits, Tokens tokens, SequenceAttention attention,
            ForwardPass.Observer observer) {
        Branches x = blocks(net, tokens, attention, observer);
        net.normHead(this, logits, x, Prenorm.rms(weights.norm(), config.rmsNormEps()));
    }

    private Branches blocks(Layers net, Tokens tokens, SequenceAttention attention, ForwardPass.Observer observer) {
        Rotation rotation = new Rotation(tokens.positions(), rope.angles(net, tokens.sequenceLength()),
                Rope.Pairing.HALF);
        Branches x = new Branches(net.dropout(net.embedding(tokens.ids(), weights.embedding())), null);
        observer.layer(0, x.stream());
        for (int i = 0; i < config().layers(); i++) {
            int layer = i;
            Branches before = x;
            x = net.block(() -> block(net, layer, before, rotation, attention, observer));           // [N, C]
        }
        return x;
    }

    private Branches block(Layers net, int i, Branches x, Rotation rotation, SequenceAttention attention,
            ForwardPass.Observer observer) {
        LlamaWeights.Layer l = weights.layers().get(i);
        float eps = config.rmsNormEps();
        float scale = (float) (1 / Math.sqrt(config().headDim()));
        ProjectedQkv r = net.normLinearQkv(x, Prenorm.rms(l.inputNorm(), eps), l.q(), l.k(), l.v());
        if (i > 0) {
            observer.layer(i, r.sum());                                                              // [N, C]
        }
        Tensor q = heads(r.q(), config().heads());                                                   // [N, H, D]
        Tensor k = heads(r.k(), config().kvHeads());                                                 // [N, G, D]
        Tensor v = heads(r.v(), config().kvHeads());                                                 // [N, G, D]
        Tensor heads = attention.attend(net, i, q, k, v, rotation, scale);                           // [N, H, D]
        Tensor out = net.dropout(project(net, Layers.flat(heads), l.o()));                           // [N, C]
        Projected inner = net.normSwiglu(new Branches(r.sum(), out), Prenorm.rms(l.postNorm(), eps), l.gate(), l.up());
        return new Branches(inner.sum(), net.dropout(project(net, inner.y(), l.down())));            // [N, C]
    }

    private static Tensor project(Layers net, Tensor x, Matrix m) {
        return net.linear(x, m.weight(), m.bias());
    }

    /// [N, H D] as [N, H, D].
    private Tensor heads(Tensor x, int heads) {
        return x.reshape(x.size(0), heads, config().headDim());
    }
}
