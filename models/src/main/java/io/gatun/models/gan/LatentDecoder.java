package io.gatun.models.gan;

import io.gatun.models.Layers;
import io.gatun.runtime.Tensor;
import java.util.Map;

/// A network that makes an image of a vector of standard Gaussian numbers: the generator of a GAN, the decoder of a
/// VAE.
public sealed interface LatentDecoder permits Dcgan, VaeDecoder {
    /// What config.json says about its ends.
    interface Shape {
        /// Z, the length of the vector.
        int latentSize();

        /// Height and width of the image.
        int imageSize();

        int imageChannels();
    }

    Shape config();

    default int latentSize() {
        return config().latentSize();
    }

    default int imageSize() {
        return config().imageSize();
    }

    default int imageChannels() {
        return config().imageChannels();
    }

    /// What pixels in [0, 1] are: `image * pixelScale + pixelOffset`.
    float pixelScale();

    /// See [#pixelScale].
    float pixelOffset();

    /// Every weight by name.
    Map<String, Tensor> weights();

    /// @param z [B, Z], the network's dtype
    /// @return [B, H, W, channels]
    Tensor forward(Layers net, Tensor z);
}
