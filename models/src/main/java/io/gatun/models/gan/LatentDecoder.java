package io.gatun.models.gan;

import io.gatun.models.Layers;
import io.gatun.runtime.Tensor;
import java.util.Map;
import java.util.Objects;

/// A network that makes an image of a vector of standard Gaussian numbers: the generator of a GAN, the decoder of a
/// VAE.
public sealed interface LatentDecoder permits Dcgan, VaeDecoder {
    /// What config.json says about its ends.
    interface Shape {
        /// Z, the length of the vector.
        int latentSize();

        /// K, of which each image shows one; 0: it shows what it happens to show.
        default int numClasses() {
            return 0;
        }

        /// Height and width of the image.
        int imageSize();

        int imageChannels();
    }

    Shape config();

    default int latentSize() {
        return config().latentSize();
    }

    default int numClasses() {
        return config().numClasses();
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

    /// @param z [B, Z + K], the network's dtype: Gaussian numbers and, with classes, 1 at the place of the class among
    ///          K zeros ([#oneHot])
    /// @return [B, H, W, channels]
    Tensor forward(Layers net, Tensor z);

    /// Rows of 0 with a 1 at the place of the class.
    ///
    /// @return [B, K]
    static float[] oneHot(int[] classes, int numClasses) {
        float[] rows = new float[classes.length * numClasses];
        for (int i = 0; i < classes.length; i++) {
            rows[i * numClasses + Objects.checkIndex(classes[i], numClasses)] = 1;
        }
        return rows;
    }
}
