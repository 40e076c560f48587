package io.gatun.train;

import io.gatun.models.Layers;
import io.gatun.models.vae.VqModel;
import io.gatun.ops.LossKind;
import io.gatun.runtime.Tensor;

/// The loss of a VQ-VAE: the mean squared error of what is decoded; the codes' distance to the latents, which moves the
/// codes; and, times `commitment`, the latents' distance to the codes, which moves the encoder. The decoder's gradient
/// goes straight through to the latents. van den Oord et al. 2017, arXiv 1711.00937, equation 3.
final class VqVaeLoss {
    private final float commitment;

    VqVaeLoss(double commitment) {
        this.commitment = (float) commitment;
    }

    /// The losses f32 [1], means over all elements.
    ///
    /// @param ids     [B h w] i32
    /// @param decoded [B, H, W, channels]
    record Terms(Tensor reconstruction, Tensor codebook, Tensor commitment, Tensor ids, Tensor decoded) {}

    /// Writes the loss down.
    ///
    /// @param images [B, H, W, channels] f32, -1 to 1
    Terms of(Layers net, VqModel model, Tensor images) {
        Tensor z = model.encode(net, net.cast(images, model.dtype()));                          // [B, h, w, E]
        Tensor ids = model.quantise(net, z);                                                    // [B h w]
        Tensor codes = model.lookup(net, ids, z.size(0), z.size(1), z.size(2));                 // [B, h, w, E]
        Tensor decoded = model.decode(net, net.straightThrough(codes, z));                      // [B, H, W, channels]
        float share = (float) (1.0 / z.elements());
        return new Terms(net.meanSquaredError(decoded, images),
                net.loss(LossKind.MSE, codes, net.detached(z), null, share),
                net.loss(LossKind.MSE, z, net.detached(codes), null, commitment * share), ids, decoded);
    }
}
