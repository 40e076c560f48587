package io.gatun.models.gan;

import io.gatun.models.ComponentLoader;
import io.gatun.models.ConfigFile;
import io.gatun.models.Layers;
import io.gatun.models.WeightLoader;
import io.gatun.ops.ActivationKind;
import io.gatun.ops.Convolution.Transposed;
import io.gatun.runtime.Tensor;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/// The generator of a DCGAN: transposed 4 x 4 convolutions, batch norm with the statistics of training and ReLU between
/// them, tanh at the end. Radford, Metz and Chintala 2015, arXiv 1511.06434.
public final class Dcgan implements LatentDecoder {
    /// Opens a directory of `model_type` gatun_dcgan.
    public static final ComponentLoader.Family<Dcgan> FAMILY = new ComponentLoader.Family<>() {
        @Override
        public Dcgan create(ConfigFile config, WeightLoader loader) {
            return new Dcgan(DcganConfig.parse(config), loader);
        }

        @Override
        public List<String> prefixes() {
            return List.of("generator.", "main.", "G.", "");
        }
    };

    private final DcganConfig config;
    private final List<Layer> layers;
    private final Map<String, Tensor> all;

    /// A layer; n = 3i is its place in the torch.nn.Sequential of convolutions, norms and activations.
    ///
    /// @param weight       n.weight           [C, F, 4, 4]
    /// @param bias         n.bias             [F]; null: none, which is usual before a norm
    /// @param mean         (n+1).running_mean [F]; null, and the next three too: the last layer
    /// @param variance     (n+1).running_var  [F]
    /// @param scale        (n+1).weight       [F]
    /// @param shift        (n+1).bias         [F]
    private record Layer(Tensor weight, @Nullable Tensor bias, @Nullable Tensor mean, @Nullable Tensor variance,
            @Nullable Tensor scale, @Nullable Tensor shift) {}

    public Dcgan(DcganConfig config, WeightLoader w) {
        this.config = config;
        this.layers = new ArrayList<>();
        long in = config.latentSize() + config.numClasses();
        for (int i = 0; i <= config.channels().size(); i++) {
            boolean normed = i < config.channels().size();
            long out = normed ? config.channels().get(i) : config.imageChannels();
            String conv = 3 * i + ".";
            String norm = 3 * i + 1 + ".";
            layers.add(new Layer(w.require(conv + "weight", in, out, 4, 4), w.optional(conv + "bias", out),
                    w.when(normed, norm + "running_mean", out), w.when(normed, norm + "running_var", out),
                    w.when(normed, norm + "weight", out), w.when(normed, norm + "bias", out)));
            in = out;
        }
        this.all = w.finish(name -> name.endsWith(".num_batches_tracked") || name.startsWith("D.")
                || name.startsWith("discriminator."));
    }

    @Override
    public DcganConfig config() {
        return config;
    }

    @Override
    public float pixelScale() {
        return 0.5f;
    }

    @Override
    public float pixelOffset() {
        return 0.5f;
    }

    @Override
    public Map<String, Tensor> weights() {
        return all;
    }

    @Override
    public Tensor forward(Layers net, Tensor z) {
        Tensor x = z.reshape(z.size(0), 1, 1, z.size(1));                                       // [B, 1, 1, Z + K]
        Transposed geometry = Transposed.of(1, 0);
        for (Layer l : layers) {
            ActivationKind end = l.mean == null ? ActivationKind.TANH : ActivationKind.NONE;
            x = net.convTranspose(x, l.weight, l.bias, geometry, end);                          // [B, 2H, 2W, F]
            if (l.mean != null && l.variance != null) {
                x = net.batchNorm(x, l.mean, l.variance, l.scale, l.shift, config.batchNormEps(), ActivationKind.RELU);
            }
            geometry = Transposed.of(2, 1);
        }
        return x;                                                                               // [B, H, W, channels]
    }
}
