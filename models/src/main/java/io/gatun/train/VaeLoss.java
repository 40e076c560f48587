package io.gatun.train;

import io.gatun.models.Activation;
import io.gatun.models.Layers;
import io.gatun.models.WeightLoader;
import io.gatun.models.gan.VaeDecoder;
import io.gatun.models.gan.VaeDecoderConfig;
import io.gatun.models.gan.VaeEncoder;
import io.gatun.ops.LossKind;
import io.gatun.runtime.DType;
import io.gatun.runtime.Tensor;
import io.gatun.train.Recipe.Reconstruction;

/// The evidence lower bound of a VAE, negated: `reconstruction + beta KL`, sums over pixels and latents, means over
/// pictures. The latents are `mean + exp(logvar / 2) eps`. Kingma and Welling 2013, arXiv 1312.6114.
///
/// With [Reconstruction#BCE] pixels are Bernoulli, and the reconstruction is in nats; with [Reconstruction#MSE] it is
/// the sum of squared errors.
final class VaeLoss {
    private final Reconstruction kind;
    private final float beta;

    VaeLoss(Reconstruction kind, double beta) {
        this.kind = kind;
        this.beta = (float) beta;
    }

    /// Encoder and decoder, whose weights lie side by side.
    record Networks(VaeEncoder encoder, VaeDecoder decoder) {
        static Networks load(VaeDecoderConfig config, WeightLoader loader) {
            return new Networks(new VaeEncoder(config, loader), new VaeDecoder(config, loader));
        }
    }

    /// Both f32 [1]; the divergence is multiplied by beta.
    record Terms(Tensor reconstruction, Tensor divergence) {}

    /// Writes the loss down.
    ///
    /// @param images [B, H, W, channels] f32, 0 to 1
    /// @param eps    [B, Z] standard normal, of the dtype that the networks compute in
    Terms of(Layers net, Networks networks, Tensor images, Tensor eps) {
        float share = (float) (1.0 / images.size(0));
        VaeEncoder.Moments moments = networks.encoder.forward(net, net.cast(images, eps.dtype()));
        Tensor z = net.gaussian(moments.mean(), moments.logvar(), eps);                         // [B, Z]
        Tensor logits = networks.decoder.logits(net, z);                                        // [B, H, W, channels]
        Tensor reconstruction = kind == Reconstruction.BCE
                ? net.loss(LossKind.BCE_WITH_LOGITS, logits, images, null, share)
                : net.loss(LossKind.MSE, net.activation(logits, Activation.SIGMOID), images, null, share);
        return new Terms(reconstruction, net.klGaussian(moments.mean(), moments.logvar(), beta * share));
    }
}
