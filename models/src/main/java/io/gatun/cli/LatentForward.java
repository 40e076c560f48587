package io.gatun.cli;

import io.gatun.io.SafetensorsFile;
import io.gatun.io.TensorSource;
import io.gatun.models.ComponentLoader;
import io.gatun.models.blocks.Border;
import io.gatun.models.gan.LatentDecoder;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import java.nio.file.Path;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/// Generators of GANs and decoders of small VAEs: `z` [B, Z + K] to `image` [B, C, H, W], in [-1, 1] for a GAN and in
/// [0, 1] for a VAE.
record LatentForward(ComponentLoader.Family<? extends LatentDecoder> family) implements ForwardFamily {
    @Override
    public Map<String, TensorSource> run(Device device, Stream stream, Path model, @Nullable DType dtype,
            SafetensorsFile inputs) {
        try (ForwardRun run = new ForwardRun(device, stream, inputs);
                ComponentLoader.Component<? extends LatentDecoder> loaded = ComponentLoader.load(device, stream, model,
                        dtype, family, n -> {})) {
            LatentDecoder decoder = loaded.network();
            String name = run.find(2, "z");
            int width = decoder.latentSize() + decoder.numClasses();
            if (run.shape(name)[1] != width) {
                throw run.wrong(name, "[B, %d]".formatted(width));
            }
            Tensor z = run.floats(name);
            Tensor image = run.result("image", z.size(0), decoder.imageChannels(), decoder.imageSize(),
                    decoder.imageSize());
            run.run(net -> Border.channelsFirstInto(net, image, decoder.forward(net, net.cast(z, loaded.dtype()))));
            return run.results();
        }
    }
}
