package io.gatun.cli;

import io.gatun.io.SafetensorsFile;
import io.gatun.io.TensorSource;
import io.gatun.models.ComponentLoader;
import io.gatun.models.blocks.Border;
import io.gatun.models.vae.AutoencoderKl;
import io.gatun.models.vae.CoderShape;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/// AutoencoderKL: `image` (or `sample`) [B, C, H, W] to `mean` and `logvar` [B, Z, h, w] and `decoded_mode`, the
/// decoded mean; with `eps` also to `latent_sample`, `scaled_latent` and `decoded`. Without an image `latents`, scaled
/// as diffusion has them, or `z`, as the encoder gives it, to `decoded`.
final class AutoencoderKlForward implements ForwardFamily {
    AutoencoderKlForward() {}

    @Override
    public Map<String, TensorSource> run(Device device, Stream stream, Path model, @Nullable DType dtype,
            SafetensorsFile inputs) {
        try (ForwardRun run = new ForwardRun(device, stream, inputs); ComponentLoader.Component<AutoencoderKl> loaded =
                ComponentLoader.load(device, stream, model, dtype, AutoencoderKl.FAMILY, n -> {})) {
            AutoencoderKl vae = loaded.network();
            if (run.has("image", "sample")) {
                Tensor logvar = encode(vae, run);
                Map<String, TensorSource> results = run.results();
                results.put("logvar", TensorSource.of(clamped(logvar.toFloats(stream)), logvar.shape()));
                return results;
            } else {
                String name = run.find(4, "latents", "z");
                if (run.shape(name)[1] != vae.config().shape().latentChannels()) {
                    throw run.wrong(name, vae.config().shape().latentChannels() + " channels");
                }
                decode(vae, run, "decoded", run.floats(name), name.equals("latents"));
            }
            return run.results();
        }
    }

    /// @return [B, Z, h, w], the log-variance as it comes
    private static Tensor encode(AutoencoderKl vae, ForwardRun run) {
        CoderShape shape = vae.config().shape();
        Tensor image = image(run, shape);
        long z = shape.latentChannels();
        long[] latent = {image.size(0), z, image.size(2) / shape.reduction(), image.size(3) / shape.reduction()};
        Tensor mean = run.result("mean", latent);
        Tensor logvar = run.result("logvar", latent);
        boolean draws = run.has("eps");
        if (draws && !Arrays.equals(run.shape("eps"), latent)) {
            throw run.wrong("eps", Arrays.toString(latent));
        }
        Tensor eps = draws ? run.floats("eps") : mean;
        Tensor sample = draws ? run.result("latent_sample", latent) : mean;
        Tensor scaled = draws ? run.result("scaled_latent", latent) : mean;
        run.run(net -> {
            Tensor moments = vae.encode(net, Border.channelsLast(net, image, vae.dtype()));     // [B, h, w, 2Z]
            Border.channelsFirstInto(net, mean, moments.slice(3, 0, z));
            Border.channelsFirstInto(net, logvar, moments.slice(3, z, 2 * z));
            if (draws) {
                Tensor drawn = vae.sample(net, moments, Border.channelsLast(net, eps, vae.dtype()));
                Border.channelsFirstInto(net, sample, drawn);
                vae.toLatents(net, drawn);
                Border.channelsFirstInto(net, scaled, drawn);
            }
        });
        decode(vae, run, "decoded_mode", mean, false);
        if (draws) {
            decode(vae, run, "decoded", scaled, true);
        }
        return logvar;
    }

    private static float[] clamped(float[] logvar) {
        for (int i = 0; i < logvar.length; i++) {
            logvar[i] = Math.clamp(logvar[i], -30, 20);
        }
        return logvar;
    }

    static Tensor image(ForwardRun run, CoderShape shape) {
        String name = run.find(4, "image", "sample");
        long[] found = run.shape(name);
        int r = shape.reduction();
        if (found[1] != shape.inChannels() || found[2] % r != 0 || found[3] % r != 0 || found[2] * found[3] == 0) {
            throw run.wrong(name, "[B, %d, H, W], H and W multiples of %d".formatted(shape.inChannels(), r));
        }
        return run.floats(name);
    }

    /// @param latents [B, Z, h, w] f32
    private static void decode(AutoencoderKl vae, ForwardRun run, String name, Tensor latents, boolean scaled) {
        CoderShape shape = vae.config().shape();
        Tensor image = run.result(name, latents.size(0), shape.outChannels(), latents.size(2) * shape.reduction(),
                latents.size(3) * shape.reduction());
        run.run(net -> {
            Tensor z = Border.channelsLast(net, latents, vae.dtype());                          // [B, h, w, Z]
            if (scaled) {
                vae.fromLatents(net, z);
            }
            Border.channelsFirstInto(net, image, vae.decode(net, z));                           // [B, C, H, W]
        });
    }
}
