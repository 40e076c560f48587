package io.gatun.models.vae;

import io.gatun.models.ComponentLoader;
import io.gatun.models.Layers;
import io.gatun.models.WeightLoader;
import io.gatun.runtime.DType;
import io.gatun.runtime.Tensor;
import java.util.Map;

/// An autoencoder whose latents are rows of a codebook. van den Oord et al. 2017, arXiv 1711.00937.
public final class VqModel {
    /// Opens a folder with a VQModel.
    public static final ComponentLoader.Family<VqModel> FAMILY = (config, loader) ->
            new VqModel(VqModelConfig.parse(config), loader);

    private final VqModelConfig config;
    private final DType dtype;
    private final Encoder encoder;
    private final Decoder decoder;
    private final Pointwise quantConv;
    private final Pointwise postQuantConv;
    /// quantize.embedding.weight [K, E]
    private final Tensor codebook;
    private final Map<String, Tensor> all;

    public VqModel(VqModelConfig config, WeightLoader w) {
        long z = config.shape().latentChannels();
        long e = config.codeWidth();
        this.config = config;
        this.dtype = w.dtype();
        this.encoder = Encoder.load(w, config.shape(), z);
        this.decoder = Decoder.load(w, config.shape());
        this.quantConv = Pointwise.load(w, "quant_conv.", z, e);
        this.postQuantConv = Pointwise.load(w, "post_quant_conv.", e, z);
        this.codebook = w.require("quantize.embedding.weight", config.numCodes(), e);
        this.all = w.finish(name -> false);
    }

    public VqModelConfig config() {
        return config;
    }

    /// What it computes in.
    public DType dtype() {
        return dtype;
    }

    /// Every weight by name.
    public Map<String, Tensor> weights() {
        return all;
    }

    /// @param image [B, H, W, channels], the network's dtype
    /// @return [B, h, w, E], before quantisation
    public Tensor encode(Layers net, Tensor image) {
        return quantConv.forward(net, encoder.forward(net, image));
    }

    /// The nearest row of the codebook for each pixel.
    ///
    /// @param latents [B, h, w, E]
    /// @return [B h w] i32
    public Tensor quantise(Layers net, Tensor latents) {
        Tensor pixels = Layers.rows(latents);                                                   // [B h w, E]
        return net.nearestCode(pixels, codebook);                                               // [B h w]
    }

    /// The rows of the codebook that ids choose: what [#decode] takes.
    ///
    /// @param ids [B h w] i32
    /// @return [B, h, w, E]
    public Tensor lookup(Layers net, Tensor ids, long batch, long height, long width) {
        return net.embedding(ids, codebook).reshape(batch, height, width, config.codeWidth());
    }

    /// @param quantised [B, h, w, E], rows of the codebook
    /// @return [B, H, W, channels]
    public Tensor decode(Layers net, Tensor quantised) {
        return decoder.forward(net, postQuantConv.forward(net, quantised));
    }

    /// From what diffusion works on to what [#quantise] takes: `x / scaling_factor`.
    ///
    /// @param x [B, h, w, E], written
    public void fromLatents(Layers net, Tensor x) {
        scale(net, x, 1 / config.scalingFactor());
    }

    /// From what [#encode] gives to what diffusion works on: `x * scaling_factor`.
    ///
    /// @param x [B, h, w, E], written
    public void toLatents(Layers net, Tensor x) {
        scale(net, x, config.scalingFactor());
    }

    private static void scale(Layers net, Tensor x, double factor) {
        net.scale(x, (float) factor);
    }
}
