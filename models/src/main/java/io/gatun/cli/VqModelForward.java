package io.gatun.cli;

import io.gatun.io.SafetensorsFile;
import io.gatun.io.TensorSource;
import io.gatun.models.ComponentLoader;
import io.gatun.models.blocks.Border;
import io.gatun.models.vae.CoderShape;
import io.gatun.models.vae.VqModel;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.GatunException;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import java.nio.file.Path;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/// VQModel: `image` (or `sample`) [B, C, H, W] to `latents` [B, E, h, w], `indices` [B, h, w], `quantized` [B, E, h, w]
/// and `decoded`. Without an image `latents` to the rest, or, where the config has lookup_from_codebook, `indices` to
/// `quantized` and `decoded`.
final class VqModelForward implements ForwardFamily {
    VqModelForward() {}

    @Override
    public Map<String, TensorSource> run(Device device, Stream stream, Path model, @Nullable DType dtype,
            SafetensorsFile inputs) {
        try (ForwardRun run = new ForwardRun(device, stream, inputs); ComponentLoader.Component<VqModel> loaded =
                ComponentLoader.load(device, stream, model, dtype, VqModel.FAMILY, n -> {})) {
            VqModel vq = loaded.network();
            if (run.has("image", "sample")) {
                decode(vq, run, quantise(vq, run, encode(vq, run)));
            } else if (run.has("latents") || !run.has("indices")) {
                decode(vq, run, quantise(vq, run, run.floats(run.find(4, "latents"))));
            } else if (vq.config().lookupFromCodebook()) {
                decode(vq, run, indices(vq, stream, run));
            } else {
                throw GatunException.invalid("%s holds indices, but config.json says lookup_from_codebook false:"
                        + " expected image or latents", inputs.path());
            }
            return run.results();
        }
    }

    private static Tensor encode(VqModel vq, ForwardRun run) {
        CoderShape shape = vq.config().shape();
        Tensor image = AutoencoderKlForward.image(run, shape);
        Tensor latents = run.result("latents", image.size(0), vq.config().codeWidth(),
                image.size(2) / shape.reduction(), image.size(3) / shape.reduction());
        run.run(net -> Border.channelsFirstInto(net, latents,
                vq.encode(net, Border.channelsLast(net, image, vq.dtype()))));                  // [B, E, h, w]
        return latents;
    }

    /// @param latents [B, E, h, w] f32
    /// @return [B, h, w] i32
    private static Tensor quantise(VqModel vq, ForwardRun run, Tensor latents) {
        Tensor ids = run.result("indices", DType.I32, latents.size(0), latents.size(2), latents.size(3));
        run.run(net -> net.copyInto(ids.reshape(ids.elements()),
                vq.quantise(net, Border.channelsLast(net, latents, vq.dtype()))));              // [B h w]
        return ids;
    }

    private static Tensor indices(VqModel vq, Stream stream, ForwardRun run) {
        String name = run.find(3, "indices");
        Tensor ids = run.arena().allocate(DType.I32, run.shape(name));
        ids.copyFrom(stream, run.ids(name, vq.config().numCodes()));
        return ids;
    }

    /// @param ids [B, h, w] i32
    private static void decode(VqModel vq, ForwardRun run, Tensor ids) {
        CoderShape shape = vq.config().shape();
        Tensor quantized = run.result("quantized", ids.size(0), vq.config().codeWidth(), ids.size(1), ids.size(2));
        Tensor decoded = run.result("decoded", ids.size(0), shape.outChannels(), ids.size(1) * shape.reduction(),
                ids.size(2) * shape.reduction());
        run.run(net -> {
            Tensor codes = vq.lookup(net, ids.reshape(ids.elements()), ids.size(0), ids.size(1), ids.size(2));
            Border.channelsFirstInto(net, quantized, codes);                                    // [B, E, h, w]
            Border.channelsFirstInto(net, decoded, vq.decode(net, codes));                      // [B, C, H, W]
        });
    }
}
