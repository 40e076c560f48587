package io.gatun.cli;

import io.gatun.io.SafetensorsFile;
import io.gatun.io.SafetensorsWriter;
import io.gatun.io.TensorSource;
import io.gatun.runtime.Device;
import io.gatun.runtime.Stream;
import java.nio.file.Path;
import java.util.Map;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;

/// `gatun forward`: a model's raw function on tensors in files.
@Command(name = "forward", mixinStandardHelpOptions = true,
        description = {"Runs the model once on recorded inputs, under the names that the Hugging Face libraries use.",
            "Language models: ids [B, T] to logits [B, T, V] and hidden.* [B, T, C].",
            "U-Nets and DiT: sample [B, C, H, W], timesteps [B], and what the network wants of encoder_hidden_states,"
                + " class_labels, text_embeds, time_ids, timestep_cond, to sample_out [B, C, H, W].",
            "CLIP: ids [B, T] to embeddings, hidden_penultimate, last_hidden_state [B, T, C], pooler_output [B, C] and,"
                + " with a projection, text_embeds [B, P].",
            "AutoencoderKL: image [B, C, H, W] to mean, logvar [B, Z, h, w], decoded_mode; with eps [B, Z, h, w] also"
                + " latent_sample, scaled_latent, decoded. Or latents or z [B, Z, h, w] to decoded.",
            "VQModel: image to latents, indices, quantized, decoded; or latents to the rest; or, with"
                + " lookup_from_codebook, indices [B, h, w] to quantized, decoded.",
            "Generators (gatun_dcgan, gatun_vae): z [B, Z] to image [B, C, H, W]."})
final class ForwardCommand implements Runnable {
    @Mixin
    private ModelOptions options;

    @Option(names = "--inputs", required = true, paramLabel = "FILE", description = "safetensors with the inputs")
    private Path inputs;

    @Option(names = "--out", required = true, paramLabel = "FILE", description = "safetensors to write")
    private Path out;

    ForwardCommand() {}

    @Override
    public void run() {
        ForwardFamily family = ForwardFamily.of(options.model());
        try (SafetensorsFile file = SafetensorsFile.open(inputs);
                Device device = Device.open(options.device(), new Device.Options(options.threads()));
                Stream stream = device.newStream()) {
            Map<String, TensorSource> outputs = family.run(device, stream, options.model(), options.dtype(), file);
            SafetensorsWriter.write(out, outputs, Map.of());
        }
    }
}
