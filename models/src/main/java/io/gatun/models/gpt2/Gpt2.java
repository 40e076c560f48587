package io.gatun.models.gpt2;

import io.gatun.models.CausalModel;
import io.gatun.models.ForwardPass;
import io.gatun.models.Layers;
import io.gatun.models.Layers.Branches;
import io.gatun.models.Layers.Matrix;
import io.gatun.models.Layers.Prenorm;
import io.gatun.models.Layers.Projected;
import io.gatun.models.Layers.Residual;
import io.gatun.models.ModelConfig;
import io.gatun.models.SequenceAttention;
import io.gatun.models.WeightLoader;
import io.gatun.ops.Linear.WeightLayout;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import java.util.Map;

/// GPT-2: learned positions, pre-norm blocks, packed query/key/value, a tied head. Radford et al. 2019.
public final class Gpt2 implements CausalModel {
    private final Gpt2Config config;
    private final Gpt2Weights weights;

    public Gpt2(Gpt2Config config, WeightLoader loader) {
        this.config = config;
        this.weights = Gpt2Weights.load(config, loader);
    }

    /// Asks the loader for every weight.
    public static void declare(Gpt2Config config, WeightLoader loader) {
        Gpt2Weights.load(config, loader);
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
        // positions are a table of the checkpoint
    }

    @Override
    public Tensor headWeight() {
        return weights.head();
    }

    @Override
    public Tensor forward(Layers net, Tokens tokens, SequenceAttention attention, ForwardPass.Observer observer) {
        Branches x = blocks(net, tokens, attention, observer);
        Residual last = net.layerNorm(x, weights.lnF(), weights.lnFBias(), config.layerNormEps());  // [N, C]
        observer.layer(config().layers(), last.sum());
        observer.layer(config().layers() + 1, last.normed());
        return last.normed();
    }

    @Override
    public void forwardToLogits(Layers net, Tensor logits, Tokens tokens, SequenceAttention attention,
            ForwardPass.Observer observer) {
        Branches x = blocks(net, tokens, attention, observer);
        net.normHead(this, logits, x, Prenorm.layer(weights.lnF(), weights.lnFBias(), config.layerNormEps()));
    }

    private Branches blocks(Layers net, Tokens tokens, SequenceAttention attention, ForwardPass.Observer observer) {
        Branches x = new Branches(
                net.dropout(net.embedding(tokens.ids(), weights.wte(), tokens.positions(), weights.wpe())),
                null);                                                                              // [N, C]
        observer.layer(0, x.stream());
        for (int i = 0; i < config().layers(); i++) {
            int layer = i;
            Branches before = x;
            x = net.block(() -> block(net, layer, before, attention, observer));                    // [N, C]
        }
        return x;
    }

    private Branches block(Layers net, int i, Branches x, SequenceAttention attention, ForwardPass.Observer observer) {
        Gpt2Weights.Layer l = weights.layers().get(i);
        float eps = config.layerNormEps();
        Projected r = net.normLinear(x, Prenorm.layer(l.ln1(), l.ln1Bias(), eps),
                new Matrix(l.qkv(), l.qkvBias()), WeightLayout.IN_OUT, null);                       // [N, C], [N, 3C]
        if (i > 0) {
            observer.layer(i, r.sum());
        }
        Tensor qkv = r.y();
        Tensor heads = attention.attend(net, i, heads(qkv, 0), heads(qkv, 1), heads(qkv, 2), null,
                config.attentionScale(i));                                                          // [N, H, D]
        Tensor out = net.dropout(
                net.linear(Layers.flat(heads), l.proj(), l.projBias(), WeightLayout.IN_OUT));       // [N, C]
        r = net.normLinear(new Branches(r.sum(), out), Prenorm.layer(l.ln2(), l.ln2Bias(), eps),
                new Matrix(l.up(), l.upBias()), WeightLayout.IN_OUT, config.activation());          // [N, C], [N, F]
        return new Branches(r.sum(),
                net.dropout(net.linear(r.y(), l.down(), l.downBias(), WeightLayout.IN_OUT)));       // [N, C]
    }

    /// Queries, keys or values of the packed projection. [N, 3C]; [N, H, D]
    private Tensor heads(Tensor qkv, int which) {
        long c = config().hiddenSize();
        return qkv.slice(1, which * c, (which + 1) * c).strided(
                new long[] {qkv.size(0), config().heads(), config().headDim()},
                new long[] {3 * c, config().headDim(), 1});
    }
}
