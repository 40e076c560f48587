package io.gatun.cli;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;

import io.gatun.io.SafetensorsFile;
import io.gatun.io.SafetensorsWriter;
import io.gatun.io.TensorSource;
import io.gatun.models.GoldenCase;
import io.gatun.models.ModelDirectory;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/// Does `gatun forward` compute what diffusers and transformers compute, for text encoders, autoencoders and DiT?
@Tag("device")
class NetworksForwardTest {
    @TempDir
    private Path folder;

    @ParameterizedTest
    @CsvSource(delimiter = '|', value = {
        "clip/clip_text | embeddings hidden_penultimate last_hidden_state pooler_output",
        "diffusers/vae_sd | mean logvar latent_sample scaled_latent decoded decoded_mode",
        "diffusers/vqmodel | latents indices quantized decoded",
        "diffusers/dit | sample_out",
        "networks/clip_projection | last_hidden_state hidden_penultimate pooler_output text_embeds embeddings",
        "networks/vq_lookup | quantized decoded",
        "networks/dcgan | image",
        "networks/vae_mlp | image",
        "networks/vae_conv | image"})
    void forward_golden(String name, String outputs) {
        GoldenCase golden = new GoldenCase(name);
        List<String> expected = List.of(outputs.split(" "));
        try (Forwarded actual = Forwarded.run(golden.model(), golden.directory().resolve("io.safetensors"))) {
            assertEquals(Set.copyOf(expected), Set.copyOf(actual.names()));
            for (String output : expected) {
                if (!golden.has(output)) {
                    continue;
                } else if (output.equals("indices")) {
                    assertArrayEquals(golden.longs(output), actual.longs(output), golden + " " + output);
                } else {
                    actual.assertClose(golden, output, output, golden.tolerance());
                }
            }
        }
    }

    /// The limit is twice the error that diffusers and transformers make in the same dtype.
    @ParameterizedTest
    @CsvSource({"diffusers/dit, bf16, sample_out, 0.03229", "diffusers/dit, f16, sample_out, 0.003846",
        "clip/clip_text, bf16, last_hidden_state, 0.04317", "clip/clip_text, f16, last_hidden_state, 0.00741",
        "clip/clip_text, bf16, pooler_output, 0.02246", "diffusers/vae_sd, bf16, mean, 0.02497"})
    void forward_halfPrecision(String name, String dtype, String output, double torchError) {
        GoldenCase golden = new GoldenCase(name);
        try (Forwarded actual = Forwarded.run(golden.model(), golden.directory().resolve("io.safetensors"), "--dtype",
                dtype)) {
            actual.assertWithin(golden, output, output, 2 * torchError);
        }
    }

    /// Decoding alone in bf16; in f16 force_upcast makes it f32.
    @ParameterizedTest
    @CsvSource({"bf16, 0.03969", "f16, 5e-5"})
    void forward_vaeHalfPrecision(String dtype, double torchError) {
        GoldenCase golden = new GoldenCase("diffusers/vae_sd");
        Path inputs = Forwarded.renamed(folder, golden, "mean", "z");
        try (Forwarded actual = Forwarded.run(golden.model(), inputs, "--dtype", dtype)) {
            actual.assertWithin(golden, "decoded", "decoded_mode", 2 * torchError);
        }
    }

    /// The generator that torch trained for the case train/gan_bce, under the names it has there.
    @Test
    void forward_dcganOfTraining() {
        GoldenCase golden = new GoldenCase("train/gan_bce");
        writeGenerator(golden, "");
        checkGenerator(golden, golden.floats("z_eval"), 16);
    }

    /// With classes in turn behind the normal numbers.
    @Test
    void forward_dcganWithClasses() {
        GoldenCase golden = new GoldenCase("train/gan_classes_bce");
        writeGenerator(golden, "\"num_class_embeds\": 3, ");
        float[] z = golden.floats("z_eval");
        float[] rows = new float[3 * 19];
        for (int i = 0; i < 3; i++) {
            System.arraycopy(z, i * 16, rows, i * 19, 16);
            rows[i * 19 + 16 + i] = 1;
        }
        checkGenerator(golden, rows, 19);
    }

    private void writeGenerator(GoldenCase golden, String field) {
        Map<String, TensorSource> weights = new LinkedHashMap<>();
        try (SafetensorsFile io = SafetensorsFile.open(golden.directory().resolve("io.safetensors"))) {
            for (String name : io.names()) {
                if (name.startsWith("final.") && !name.endsWith("num_batches_tracked")) {
                    weights.put(name.substring("final.".length()), TensorSource.of(io.floats(name),
                            io.info(name).shape()));
                }
            }
        }
        SafetensorsWriter.write(folder.resolve("model.safetensors"), weights, Map.of());
        ModelDirectory.writeText(folder.resolve("config.json"), """
                {"model_type": "gatun_dcgan", "latent_size": 16, %s"channels": [16, 8], "image_channels": 1}"""
                .formatted(field));
    }

    private void checkGenerator(GoldenCase golden, float[] z, int width) {
        Path inputs = folder.resolve("inputs.safetensors");
        SafetensorsWriter.write(inputs, Map.of("z", TensorSource.of(z, z.length / width, width)), Map.of());
        try (Forwarded actual = Forwarded.run(folder, inputs)) {
            actual.assertClose(golden, "image", "image_eval", 1e-5);
        }
    }

    /// A shift, no quant convolutions and no attention.
    @Test
    void forward_vaeWithShift() {
        GoldenCase golden = new GoldenCase("networks/vae_tiling");
        for (String name : List.of("z", "latents")) {
            try (Forwarded actual = Forwarded.run(golden.model(), Forwarded.renamed(folder, golden, name, name))) {
                actual.assertClose(golden, "decoded", "decoded", golden.tolerance());
            }
        }
    }

    /// Latents as diffusion has them, without an image.
    @Test
    void forward_vaeDecodesLatents() {
        GoldenCase golden = new GoldenCase("diffusers/vae_sd");
        Path inputs = Forwarded.renamed(folder, golden, "scaled_latent", "latents");
        try (Forwarded actual = Forwarded.run(golden.model(), inputs)) {
            actual.assertClose(golden, "decoded", "decoded", golden.tolerance());
        }
        Path mean = Forwarded.renamed(folder, golden, "mean", "z");
        try (Forwarded actual = Forwarded.run(golden.model(), mean)) {
            actual.assertClose(golden, "decoded", "decoded_mode", golden.tolerance());
        }
    }
}
