package io.gatun.cli;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;

import io.gatun.models.GoldenCase;
import java.nio.file.Path;
import java.util.List;
import java.util.Set;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/// Does `gatun forward` compute what diffusers and transformers compute, for text encoders, autoencoders and DiT?
class NetworksForwardTest {
    @TempDir
    private Path folder;

    @ParameterizedTest
    @CsvSource(delimiter = '|', value = {
        "clip/clip_text | embeddings hidden_penultimate last_hidden_state pooler_output",
        "diffusers/vae_sd | mean logvar latent_sample scaled_latent decoded decoded_mode",
        "diffusers/vqmodel | latents indices quantized decoded",
        "diffusers/dit | sample_out"})
    void forward_golden(String name, String outputs) {
        GoldenCase golden = new GoldenCase(name);
        List<String> expected = List.of(outputs.split(" "));
        try (Forwarded actual = Forwarded.run(golden.model(), golden.directory().resolve("io.safetensors"))) {
            assertEquals(Set.copyOf(expected), Set.copyOf(actual.names()));
            for (String output : expected) {
                if (output.equals("indices")) {
                    assertArrayEquals(golden.longs(output), actual.longs(output), golden + " " + output);
                } else {
                    actual.assertClose(golden, output, output, golden.tolerance());
                }
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
