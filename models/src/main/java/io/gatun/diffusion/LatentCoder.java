package io.gatun.diffusion;

import io.gatun.models.Layers;
import io.gatun.runtime.DType;
import io.gatun.runtime.Tensor;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/// What stands between pixels and the samples that a loop works on: an autoencoder, or nothing.
interface LatentCoder extends AutoCloseable {
    /// Channels of a picture.
    int imageChannels();

    /// Pixels per latent, along each side.
    int reduction();

    /// What it computes in.
    DType dtype();

    Map<String, Tensor> weights();

    /// Pixels in [0, 1] are what [#decode] gives times this, plus [#pixelOffset].
    default float pixelScale() {
        return 0.5f;
    }

    default float pixelOffset() {
        return 0.5f;
    }

    /// Writes down: a sample to pixels, about [-1, 1].
    ///
    /// @param latents [1, h, w, Z] in [#dtype], may be overwritten
    /// @return [1, H, W, C]
    Tensor decode(Layers net, Tensor latents);

    /// Writes down: a picture to a sample.
    ///
    /// @param pixels [1, H, W, C] in [#dtype], in [-1, 1]
    /// @param noise  [1, h, w, Z] standard normals, for what is drawn from a distribution; null: its mean
    /// @return [1, h, w, Z]
    Tensor encode(Layers net, Tensor pixels, @Nullable Tensor noise);

    @Override
    void close();
}
