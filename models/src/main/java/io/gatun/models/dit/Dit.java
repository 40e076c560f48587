package io.gatun.models.dit;

import io.gatun.models.ImageNetwork;
import io.gatun.models.Layers;
import io.gatun.models.WeightLoader;
import io.gatun.ops.Attention.Mask;
import io.gatun.ops.Convolution.Geometry;
import io.gatun.ops.Image.Sinusoids;
import io.gatun.runtime.DType;
import io.gatun.runtime.GatunException;
import io.gatun.runtime.Tensor;
import java.util.List;
import java.util.Map;

/// A diffusion transformer: patches of latents as tokens, time step and class as shift, scale and gate of every block.
/// DiTTransformer2DModel of diffusers. Peebles and Xie 2022, arXiv 2212.09748.
public final class Dit implements ImageNetwork {
    private final DitConfig config;
    private final DType dtype;
    private final DitWeights weights;

    public Dit(DitConfig config, WeightLoader w) {
        this.config = config;
        this.dtype = w.dtype();
        this.weights = DitWeights.load(config, w);
    }

    public DitConfig config() {
        return config;
    }

    /// What it computes in.
    public DType dtype() {
        return dtype;
    }

    @Override
    public Labels classLabels() {
        return Labels.IDS;
    }

    @Override
    public int numClasses() {
        return config.classes();
    }

    @Override
    public int inChannels() {
        return config.inChannels();
    }

    @Override
    public int outChannels() {
        return config.outChannels();
    }

    @Override
    public List<Integer> sampleSize() {
        return List.of(config.sampleSize(), config.sampleSize());
    }

    @Override
    public Map<String, Tensor> weights() {
        return weights.all();
    }

    /// The noise in a sample, and where the variance is learned that too: one after the other in the last dimension.
    @Override
    public void forward(Layers net, Tensor prediction, Inputs in) {
        Tensor sample = in.sample();
        Tensor classes = in.classLabels();
        long side = config.sampleSize();
        if (sample.size(1) != side || sample.size(2) != side || sample.size(3) != config.inChannels()) {
            throw GatunException.invalid("sample is %s, expected [B, %d, %d, %d]", sample, side, side,
                    config.inChannels());
        }
        if (classes == null || classes.rank() != 1 || classes.size(0) != sample.size(0)) {
            throw GatunException.invalid("class_labels are %s, expected one id per image: 0 to %d, or %d for no class",
                    classes, config.classes() - 1, config.classes());
        }
        Tensor tokens = tokens(net, sample, net.timestepEmbedding(dtype, sample.size(0), DitConfig.TIME_WIDTH,
                in.timesteps(), in.counter(), Sinusoids.COS_SIN, 1), classes);                   // [B, T, p p out]
        unpatch(net, prediction, tokens);                                                        // [B, H, W, out]
    }

    /// @param time [B, 256]
    /// @return [B, T, p p out]
    private Tensor tokens(Layers net, Tensor sample, Tensor time, Tensor classes) {
        long b = sample.size(0);
        long c = config.hiddenSize();
        long t = (long) config.grid() * config.grid();
        float scale = (float) (1 / Math.sqrt(config.headDim()));
        Geometry stride = Geometry.of(config.patchSize(), 0);
        Tensor x = net.conv(sample, weights.patches(), weights.patchesBias(), stride).reshape(b, t, c);  // [B, T, C]
        net.addInto(x, x, weights.positions().strided(x.shape(), new long[] {0, c, 1}));                 // [B, T, C]
        Tensor first = null;
        for (DitWeights.Layer l : weights.layers()) {
            Tensor condition = condition(net, l, time, classes);                                         // [B, C]
            first = first == null ? condition : first;
            Tensor m = net.linearRowwise(condition, l.modulate(), l.modulateBias());                     // [B, 6C]
            Tensor h = net.layerNorm(x, null, null, DitConfig.EPS);                                      // [B, T, C]
            h = net.modulate(h, part(m, 1), part(m, 0));                                                 // [B, T, C]
            Tensor q = net.linear(h, l.q(), l.qBias());                                                  // [B, T, C]
            Tensor k = net.linear(h, l.k(), l.kBias());                                                  // [B, T, C]
            Tensor v = net.linear(h, l.v(), l.vBias());                                                  // [B, T, C]
            h = net.attention(q, k, v, config.heads(), config.heads(), scale, Mask.NONE);                // [B, T, C]
            x = net.addGated(x, part(m, 2), net.linear(h, l.proj(), l.projBias()));                      // [B, T, C]
            h = net.layerNorm(x, l.norm3(), l.norm3Bias(), config.norm3Eps());                           // [B, T, C]
            h = net.modulate(h, part(m, 4), part(m, 3));                                                 // [B, T, C]
            h = activate(net, net.linear(h, l.up(), l.upBias()));                                        // [B, T, 4C]
            x = net.addGated(x, part(m, 5), net.linear(h, l.down(), l.downBias()));                      // [B, T, C]
        }
        Tensor m = net.linearRowwise(first, weights.modulate(), weights.modulateBias());                 // [B, 2C]
        x = net.modulate(net.layerNorm(x, null, null, DitConfig.EPS), part(m, 1), part(m, 0));           // [B, T, C]
        return net.linear(x, weights.out(), weights.outBias());                                  // [B, T, p p out]
    }

    /// `silu(MLP(time) + class)`. [B, C]
    private static Tensor condition(Layers net, DitWeights.Layer l, Tensor time, Tensor classes) {
        Tensor h = net.silu(net.linearRowwise(time, l.time1(), l.time1Bias()));
        h = net.linearRowwise(h, l.time2(), l.time2Bias());
        return net.silu(net.add(h, net.embedding(classes, l.classes())));
    }

    private Tensor activate(Layers net, Tensor x) {
        return config.isGated() ? net.geglu(x) : net.activation(x, config.activation());
    }

    /// Part i of C-wide parts side by side. [B, C]
    private Tensor part(Tensor m, int i) {
        long c = config.hiddenSize();
        return m.slice(1, i * c, (i + 1) * c);
    }

    /// From tokens that hold p x p pixels to an image: x [B, T, p p out], y [B, H, W, out].
    private void unpatch(Layers net, Tensor y, Tensor x) {
        long rows = x.size(0) * config.grid();
        long p = config.patchSize();
        Tensor tokens = x.reshape(rows, config.grid(), p, p * config.outChannels()).permute(0, 2, 1, 3);
        net.copyInto(y.reshape(tokens.shape()), tokens);
    }
}
