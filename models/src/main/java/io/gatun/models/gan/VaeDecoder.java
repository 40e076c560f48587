package io.gatun.models.gan;

import io.gatun.models.Activation;
import io.gatun.models.ComponentLoader;
import io.gatun.models.ConfigFile;
import io.gatun.models.Layers;
import io.gatun.models.WeightLoader;
import io.gatun.models.gan.VaeDecoderConfig.Kind;
import io.gatun.ops.ActivationKind;
import io.gatun.ops.Convolution.Transposed;
import io.gatun.runtime.Tensor;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;

/// The decoder of a small VAE: an MLP, or a linear layer and transposed convolutions; a sigmoid gives pixels in [0, 1].
/// Kingma and Welling 2013, arXiv 1312.6114.
public final class VaeDecoder implements LatentDecoder {
    /// Opens a directory of `model_type` gatun_vae.
    public static final ComponentLoader.Family<VaeDecoder> FAMILY = new ComponentLoader.Family<>() {
        @Override
        public VaeDecoder create(ConfigFile config, WeightLoader loader) {
            return new VaeDecoder(VaeDecoderConfig.parse(config), loader);
        }

        @Override
        public List<String> prefixes() {
            return List.of("decoder.", "");
        }
    };

    private final VaeDecoderConfig config;
    private final List<Layer> layers;
    private final Map<String, Tensor> all;

    /// @param weight dec1.weight, dec2.weight, ... [F, C]; of a convolutional decoder fc.weight [C0 h w, Z], then
    ///               deconv1.weight, ... [C, F, 4, 4]
    /// @param bias   of the same name [F]
    private record Layer(Tensor weight, Tensor bias) {}

    public VaeDecoder(VaeDecoderConfig config, WeightLoader w) {
        this.config = config;
        this.layers = config.kind() == Kind.MLP ? linear(config, w) : convolutional(config, w);
        this.all = w.finish(VaeDecoder::isOfEncoder);
    }

    private static List<Layer> linear(VaeDecoderConfig config, WeightLoader w) {
        List<Layer> layers = new ArrayList<>();
        long in = config.latentSize();
        for (int i = 0; i <= config.widths().size(); i++) {
            long out = i < config.widths().size() ? config.widths().get(i)
                    : (long) config.imageChannels() * config.imageSize() * config.imageSize();
            String name = "dec" + (i + 1) + ".";
            layers.add(new Layer(w.require(name + "weight", out, in), w.require(name + "bias", out)));
            in = out;
        }
        return layers;
    }

    private static List<Layer> convolutional(VaeDecoderConfig config, WeightLoader w) {
        List<Layer> layers = new ArrayList<>();
        long in = config.widths().getFirst();
        long first = in * config.lowest() * config.lowest();
        layers.add(new Layer(w.require("fc.weight", first, config.latentSize()), w.require("fc.bias", first)));
        for (int i = 1; i <= config.widths().size(); i++) {
            long out = i < config.widths().size() ? config.widths().get(i) : config.imageChannels();
            String name = "deconv" + i + ".";
            layers.add(new Layer(w.require(name + "weight", in, out, 4, 4), w.require(name + "bias", out)));
            in = out;
        }
        return layers;
    }

    /// Whether a weight is of the other half, which training writes too.
    public static boolean isOfEncoder(String name) {
        return name.matches("encoder\\..*|(enc\\d*|mu|logvar|conv\\d+)\\.(weight|bias)");
    }

    @Override
    public VaeDecoderConfig config() {
        return config;
    }

    @Override
    public float pixelScale() {
        return 1;
    }

    @Override
    public float pixelOffset() {
        return 0;
    }

    @Override
    public Map<String, Tensor> weights() {
        return all;
    }

    @Override
    public Tensor forward(Layers net, Tensor z) {
        return net.activation(logits(net, z), Activation.SIGMOID);                              // [B, H, W, channels]
    }

    /// What [#forward] gives, before the sigmoid: what training compares with pixels.
    public Tensor logits(Layers net, Tensor z) {
        return config.kind() == Kind.MLP ? linear(net, z) : convolutional(net, z);              // [B, H, W, channels]
    }

    private Tensor linear(Layers net, Tensor z) {
        Tensor x = z;                                                                           // [B, Z]
        for (Layer l : layers) {
            x = l == layers.getFirst() ? x : net.activation(x, config.activation());
            x = net.linearRowwise(x, l.weight, l.bias);                                         // [B, F]
        }
        return channelsLast(net, x, config.imageChannels(), config.imageSize());
    }

    private Tensor convolutional(Layers net, Tensor z) {
        Tensor x = net.linearRowwise(z, layers.getFirst().weight, layers.getFirst().bias);      // [B, C0 h w]
        x = channelsLast(net, x, config.widths().getFirst(), config.lowest());                  // [B, h, w, C0]
        for (Layer l : layers.subList(1, layers.size())) {
            x = net.activation(x, config.activation());
            x = net.convTranspose(x, l.weight, l.bias, Transposed.of(2, 1), ActivationKind.NONE); // [B, 2h, 2w, F]
        }
        return x;
    }

    /// x [B, C H W], channels first as torch flattens; [B, H, W, C]
    private static Tensor channelsLast(Layers net, Tensor x, long channels, long size) {
        return net.copy(x.reshape(x.size(0), channels, size, size).permute(0, 2, 3, 1));
    }
}
