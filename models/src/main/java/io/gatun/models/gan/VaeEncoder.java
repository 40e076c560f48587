package io.gatun.models.gan;

import io.gatun.models.Layers;
import io.gatun.models.WeightLoader;
import io.gatun.models.gan.VaeDecoderConfig.Kind;
import io.gatun.ops.Convolution.Geometry;
import io.gatun.runtime.Tensor;
import java.util.ArrayList;
import java.util.List;

/// The encoder of a small VAE, the mirror image of [VaeDecoder]: an MLP, or 3 x 3 convolutions that halve the image.
/// Kingma and Welling 2013, arXiv 1312.6114.
public final class VaeEncoder {
    private final VaeDecoderConfig config;
    private final List<Layer> layers;
    private final Layer mean;
    private final Layer logvar;

    /// @param weight enc.weight, or enc1.weight, enc2.weight, ... [F, C]; of a convolutional encoder conv1.weight, ...
    ///               [F, C, 3, 3]; at the end mu.weight and logvar.weight [Z, C]
    /// @param bias   of the same name [F]
    private record Layer(Tensor weight, Tensor bias) {
        static Layer load(WeightLoader w, String name, long... shape) {
            return new Layer(w.require(name + ".weight", shape), w.require(name + ".bias", shape[0]));
        }
    }

    /// Mean and log-variance of the latents. Both [B, Z]
    public record Moments(Tensor mean, Tensor logvar) {}

    /// @param config of the decoder
    public VaeEncoder(VaeDecoderConfig config, WeightLoader w) {
        this.config = config;
        this.layers = new ArrayList<>();
        List<Integer> widths = config.widths().reversed();
        long pixels = (long) config.imageSize() * config.imageSize();
        long in = config.kind() == Kind.MLP ? config.imageChannels() * pixels : config.imageChannels();
        for (int i = 0; i < widths.size(); i++) {
            long out = widths.get(i);
            layers.add(config.kind() == Kind.CONV ? Layer.load(w, "conv" + (i + 1), out, in, 3, 3)
                    : Layer.load(w, widths.size() == 1 ? "enc" : "enc" + (i + 1), out, in));
            in = out;
        }
        long last = config.kind() == Kind.MLP ? in : in * config.lowest() * config.lowest();
        this.mean = Layer.load(w, "mu", config.latentSize(), last);
        this.logvar = Layer.load(w, "logvar", config.latentSize(), last);
    }

    /// @param image [B, H, W, channels] in [0, 1]
    public Moments forward(Layers net, Tensor image) {
        Tensor x = config.kind() == Kind.MLP ? flat(net, image) : image;
        for (Layer l : layers) {
            x = config.kind() == Kind.MLP ? net.linearRowwise(x, l.weight, l.bias)              // [B, F]
                    : net.conv(x, l.weight, l.bias, Geometry.of(2, 1));                         // [B, H/2, W/2, F]
            x = net.activation(x, config.activation());
        }
        Tensor features = config.kind() == Kind.MLP ? x : flat(net, x);                         // [B, C]
        return new Moments(net.linearRowwise(features, mean.weight, mean.bias),                 // [B, Z]
                net.linearRowwise(features, logvar.weight, logvar.bias));                       // [B, Z]
    }

    /// Channels first, as torch flattens. x [B, H, W, C]; [B, C H W]
    private static Tensor flat(Layers net, Tensor x) {
        Tensor y = net.copy(x.permute(0, 3, 1, 2));
        return y.reshape(x.size(0), x.size(1) * x.size(2) * x.size(3));
    }
}
