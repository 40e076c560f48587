package io.gatun.diffusion;

import io.gatun.models.ComponentLoader;
import io.gatun.models.ComponentLoader.Component;
import io.gatun.models.ComponentLoader.Family;
import io.gatun.models.ConfigFile;
import io.gatun.models.Layers;
import io.gatun.models.WeightLoader;
import io.gatun.models.vae.AutoencoderKl;
import io.gatun.models.vae.VqModel;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.GatunException;
import io.gatun.runtime.Shapes;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import java.nio.file.Path;
import java.util.Map;
import java.util.function.BiFunction;
import org.jspecify.annotations.Nullable;

/// The autoencoders that pipelines use.
final class LatentCoders {
    private LatentCoders() {}

    /// @param className AutoencoderKL or VQModel
    /// @param shapes    null: load the weights
    static LatentCoder open(Device device, Stream stream, Path folder, String className, ImageModel.Options options,
            @Nullable Shapes shapes) {
        return switch (className) {
            case "AutoencoderKL" -> open(device, stream, folder, AutoencoderKl.FAMILY, options, shapes, Kl::new);
            case "VQModel" -> open(device, stream, folder, VqModel.FAMILY, options, shapes, Vq::new);
            default -> throw GatunException.invalid("%s: class %s, expected AutoencoderKL or VQModel", folder,
                    className);
        };
    }

    private static <T> LatentCoder open(Device device, Stream stream, Path folder, Family<T> family,
            ImageModel.Options options, @Nullable Shapes shapes, BiFunction<T, Runnable, LatentCoder> coder) {
        if (shapes != null) {
            ConfigFile config = ConfigFile.read(folder.resolve("config.json"));
            DType dtype = family.dtype(config, ComponentLoader.dtype(folder, options.dtype()));
            return coder.apply(family.create(config, WeightLoader.shapes(shapes, dtype)), () -> {});
        }
        Component<T> component = ComponentLoader.load(device, stream, folder, options.dtype(), family,
                options.progress());
        return coder.apply(component.network(), component::close);
    }

    /// The loop works on pixels.
    record None(int imageChannels, DType dtype) implements LatentCoder {
        @Override
        public int reduction() {
            return 1;
        }

        @Override
        public Map<String, Tensor> weights() {
            return Map.of();
        }

        @Override
        public Tensor decode(Layers net, Tensor latents) {
            return latents;
        }

        @Override
        public Tensor encode(Layers net, Tensor pixels, @Nullable Tensor noise) {
            return pixels;
        }

        @Override
        public void close() {
            // nothing was opened
        }
    }

    /// Latents are drawn around a mean, and scaled.
    private record Kl(AutoencoderKl vae, Runnable release) implements LatentCoder {
        @Override
        public int imageChannels() {
            return vae.config().shape().outChannels();
        }

        @Override
        public int reduction() {
            return vae.config().shape().reduction();
        }

        @Override
        public DType dtype() {
            return vae.dtype();
        }

        @Override
        public Map<String, Tensor> weights() {
            return vae.weights();
        }

        @Override
        public Tensor decode(Layers net, Tensor latents) {
            vae.fromLatents(net, latents);
            return vae.decode(net, latents);
        }

        @Override
        public Tensor encode(Layers net, Tensor pixels, @Nullable Tensor noise) {
            Tensor latents = vae.sample(net, vae.encode(net, pixels), noise);
            vae.toLatents(net, latents);
            return latents;
        }

        @Override
        public void close() {
            release.run();
        }
    }

    /// Latents are scaled, and become rows of a codebook before they are decoded.
    private record Vq(VqModel vq, Runnable release) implements LatentCoder {
        @Override
        public int imageChannels() {
            return vq.config().shape().outChannels();
        }

        @Override
        public int reduction() {
            return vq.config().shape().reduction();
        }

        @Override
        public DType dtype() {
            return vq.dtype();
        }

        @Override
        public Map<String, Tensor> weights() {
            return vq.weights();
        }

        @Override
        public Tensor decode(Layers net, Tensor latents) {
            vq.fromLatents(net, latents);
            Tensor ids = vq.quantise(net, latents);
            return vq.decode(net, vq.lookup(net, ids, latents.size(0), latents.size(1), latents.size(2)));
        }

        @Override
        public Tensor encode(Layers net, Tensor pixels, @Nullable Tensor noise) {
            Tensor latents = vq.encode(net, pixels);
            vq.toLatents(net, latents);
            return latents;
        }

        @Override
        public void close() {
            release.run();
        }
    }
}
