package io.gatun.models.gan;

import io.gatun.models.Layers;
import io.gatun.models.WeightLoader;
import io.gatun.ops.ActivationKind;
import io.gatun.ops.Convolution.Geometry;
import io.gatun.runtime.Tensor;
import java.util.ArrayList;
import java.util.List;
import org.jspecify.annotations.Nullable;

/// The discriminator or critic of a DCGAN, the mirror image of [Dcgan]: 4 x 4 convolutions that halve the image, leaky
/// ReLU, a norm behind all but the first and the last. Radford, Metz and Chintala 2015, arXiv 1511.06434; with group
/// norm for the gradient penalty, which batch norm does not go with (Gulrajani et al. 2017, arXiv 1704.00028).
public final class Discriminator {
    private static final float SLOPE = 0.2f;

    private final DcganConfig config;
    private final int groups;
    private final List<Layer> layers;

    /// A layer; n is its place in the torch.nn.Sequential of convolutions, norms and activations.
    ///
    /// @param weight   n.weight           [F, C, 4, 4]
    /// @param scale    (n+1).weight       [F]; null, and the next too: no norm
    /// @param shift    (n+1).bias         [F]
    /// @param mean     (n+1).running_mean [F], of a batch norm
    /// @param variance (n+1).running_var  [F]
    private record Layer(Tensor weight, @Nullable Tensor scale, @Nullable Tensor shift, @Nullable Tensor mean,
            @Nullable Tensor variance) {}

    /// @param config of the generator
    /// @param groups of the norms; 0: batch norms
    public Discriminator(DcganConfig config, int groups, WeightLoader w) {
        this.config = config;
        this.groups = groups;
        this.layers = new ArrayList<>();
        List<Integer> channels = config.channels().reversed();
        long in = config.imageChannels();
        int place = 0;
        for (int i = 0; i <= channels.size(); i++) {
            long out = i < channels.size() ? channels.get(i) : Math.max(1, config.numClasses());
            boolean normed = i > 0 && i < channels.size();
            boolean batch = normed && groups == 0;
            String norm = place + 1 + ".";
            layers.add(new Layer(w.require(place + ".weight", out, in, 4, 4), w.when(normed, norm + "weight", out),
                    w.when(normed, norm + "bias", out), w.when(batch, norm + "running_mean", out),
                    w.when(batch, norm + "running_var", out)));
            place += normed ? 3 : 2;
            in = out;
        }
    }

    /// @param image [B, H, W, channels]
    /// @return [B, 1], a logit or a critic's value; [B, K] with classes: of the picture as one of each
    public Tensor forward(Layers net, Tensor image) {
        Tensor x = image;
        for (Layer l : layers) {
            boolean last = l == layers.getLast();
            x = net.conv(x, l.weight, null, Geometry.of(last ? 1 : 2, last ? 0 : 1));           // [B, H/2, W/2, F]
            if (l.mean != null && l.variance != null) {
                x = net.batchNorm(x, l.mean, l.variance, l.scale, l.shift, config.batchNormEps(), ActivationKind.NONE);
            } else if (l.scale != null) {
                x = net.groupNorm(x, l.scale, l.shift, groups, config.batchNormEps(), ActivationKind.NONE);
            }
            x = last ? x : net.leakyRelu(x, SLOPE);
        }
        return x.reshape(x.size(0), x.size(3));                                                 // [B, K]
    }
}
