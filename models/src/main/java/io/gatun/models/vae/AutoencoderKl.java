package io.gatun.models.vae;

import io.gatun.models.ComponentLoader;
import io.gatun.models.ConfigFile;
import io.gatun.models.Layers;
import io.gatun.models.WeightLoader;
import io.gatun.models.vae.AutoencoderKlConfig.LatentScale;
import io.gatun.ops.Elementwise;
import io.gatun.runtime.DType;
import io.gatun.runtime.Tensor;
import java.util.List;
import java.util.Map;
import java.util.function.ToDoubleFunction;
import org.jspecify.annotations.Nullable;

/// The variational autoencoder of latent diffusion models. Rombach et al. 2022, arXiv 2112.10752; Kingma and Welling
/// 2013, arXiv 1312.6114.
public final class AutoencoderKl {
    /// Opens the `vae` of a pipeline.
    public static final ComponentLoader.Family<AutoencoderKl> FAMILY = new ComponentLoader.Family<>() {
        @Override
        public AutoencoderKl create(ConfigFile config, WeightLoader loader) {
            return new AutoencoderKl(AutoencoderKlConfig.parse(config), loader);
        }

        @Override
        public DType dtype(ConfigFile config, DType asked) {
            return asked == DType.F16 && AutoencoderKlConfig.parse(config).forceUpcast() ? DType.F32 : asked;
        }
    };

    private final AutoencoderKlConfig config;
    private final DType dtype;
    private final Encoder encoder;
    private final Decoder decoder;
    private final @Nullable Pointwise quantConv;
    private final @Nullable Pointwise postQuantConv;
    private final Map<String, Tensor> all;

    public AutoencoderKl(AutoencoderKlConfig config, WeightLoader w) {
        long z = config.shape().latentChannels();
        this.config = config;
        this.dtype = w.dtype();
        this.encoder = Encoder.load(w, config.shape(), 2 * z);
        this.decoder = Decoder.load(w, config.shape());
        this.quantConv = config.quantConv() ? Pointwise.load(w, "quant_conv.", 2 * z, 2 * z) : null;
        this.postQuantConv = config.postQuantConv() ? Pointwise.load(w, "post_quant_conv.", z, z) : null;
        this.all = w.finish(name -> false);
    }

    public AutoencoderKlConfig config() {
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

    /// Mean and log-variance of the latents, one after the other in the last dimension.
    ///
    /// @param image [B, H, W, channels] in [-1, 1], the network's dtype
    /// @return [B, h, w, 2Z]; the log-variance as it comes: [#sample] clamps it
    public Tensor encode(Layers net, Tensor image) {
        Tensor moments = encoder.forward(net, image);
        return quantConv == null ? moments : quantConv.forward(net, moments);
    }

    /// A draw from the encoder's distribution, or its mean.
    ///
    /// @param moments [B, h, w, 2Z], what [#encode] gives
    /// @param eps     [B, h, w, Z], a draw from the standard Gaussian; null: the mean
    /// @return [B, h, w, Z]
    public Tensor sample(Layers net, Tensor moments, @Nullable Tensor eps) {
        long z = config.shape().latentChannels();
        Tensor mean = moments.slice(3, 0, z);
        if (eps == null) {
            return net.copy(mean);
        }
        Tensor logvar = moments.slice(3, z, 2 * z);
        Tensor y = net.allocate(moments.dtype(), mean.shape());
        net.op(stream -> Elementwise.gaussian(stream, y, mean, logvar, eps), y, moments, eps);
        return y;
    }

    /// @param z [B, h, w, Z] as the encoder gives it, the network's dtype
    /// @return [B, H, W, channels], about [-1, 1]
    public Tensor decode(Layers net, Tensor z) {
        return decoder.forward(net, postQuantConv == null ? z : postQuantConv.forward(net, z));
    }

    /// As [#encode], in tiles where the image is larger than the config's sample_size; what that changes, see [Tiles].
    ///
    /// @return [B, h, w, 2Z]; f32 where there were tiles
    public Tensor encodeTiled(Layers net, Tensor image) {
        Tiles tiles = Tiles.of(config.sampleSize(), latentTile());
        return tiles.isLarger(image) ? tiles.run(net, image, tile -> encode(net, tile)) : encode(net, image);
    }

    /// As [#decode], in tiles where the image would be larger than the config's sample_size.
    ///
    /// @return [B, H, W, channels]; f32 where there were tiles
    public Tensor decodeTiled(Layers net, Tensor z) {
        Tiles tiles = Tiles.of(latentTile(), config.sampleSize());
        return tiles.isLarger(z) ? tiles.run(net, z, tile -> decode(net, tile)) : decode(net, z);
    }

    private long latentTile() {
        return config.sampleSize() / config.shape().reduction();
    }

    /// From what diffusion works on to what [#decode] takes: `x / scale + shift`.
    ///
    /// @param x [B, h, w, Z], written
    public void fromLatents(Layers net, Tensor x) {
        LatentScale s = config.toLatent();
        multiply(net, x, scale -> 1 / scale);
        if (!s.isOneFactor()) {
            addShift(net, x, shift -> shift);
        }
    }

    /// From what the encoder gives to what diffusion works on: `(x - shift) * scale`.
    ///
    /// @param x [B, h, w, Z], written
    public void toLatents(Layers net, Tensor x) {
        if (!config.toLatent().isOneFactor()) {
            addShift(net, x, shift -> -shift);
        }
        multiply(net, x, scale -> scale);
    }

    private void multiply(Layers net, Tensor x, ToDoubleFunction<Double> factor) {
        LatentScale s = config.toLatent();
        if (s.isOneFactor()) {
            float one = (float) factor.applyAsDouble(s.scale().getFirst());
            net.scale(x, one);
        } else {
            Tensor wide = perChannel(net, x, s.scale(), factor);
            net.op(stream -> Elementwise.mul(stream, x, x, wide), x, wide);
        }
    }

    private void addShift(Layers net, Tensor x, ToDoubleFunction<Double> sign) {
        Tensor wide = perChannel(net, x, config.toLatent().shift(), sign);
        net.op(stream -> Elementwise.add(stream, x, x, wide), x, wide);
    }

    /// One number per channel, for all pixels. [B, h, w, Z]
    private static Tensor perChannel(Layers net, Tensor x, List<Double> values, ToDoubleFunction<Double> rule) {
        Tensor row = net.allocate(x.dtype(), values.size());
        for (int c = 0; c < values.size(); c++) {
            Tensor one = row.slice(0, c, c + 1);
            double value = rule.applyAsDouble(values.get(c));
            net.op(stream -> Elementwise.fill(stream, one, value), one);
        }
        return row.strided(x.shape(), new long[] {0, 0, 0, 1});
    }
}
