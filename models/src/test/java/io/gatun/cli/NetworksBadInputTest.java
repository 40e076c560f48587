package io.gatun.cli;

import io.gatun.io.SafetensorsWriter;
import io.gatun.io.TensorSource;
import io.gatun.models.GoldenCase;
import java.nio.file.Path;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// Does `gatun forward` say what is wrong with the inputs of an image network?
class NetworksBadInputTest {
    @TempDir
    private Path folder;

    private void assertRefused(String golden, Map<String, TensorSource> tensors, String... parts) {
        Path inputs = folder.resolve("inputs.safetensors");
        SafetensorsWriter.write(inputs, tensors, Map.of());
        Captured.run("forward", "--model", new GoldenCase(golden).model().toString(), "--inputs", inputs.toString(),
                "--out", folder.resolve("out.safetensors").toString(), "--device", "cpu").assertFailed(2, parts);
    }

    private static TensorSource zeros(long... shape) {
        long n = 1;
        for (long d : shape) {
            n *= d;
        }
        return TensorSource.of(new float[(int) n], shape);
    }

    private static TensorSource ids(long[] values, long... shape) {
        return TensorSource.of(values, shape);
    }

    @Test
    void forward_clip() {
        assertRefused("clip/clip_text", Map.of("text", ids(new long[1], 1, 1)), "'ids'", "text");
        assertRefused("clip/clip_text", Map.of("ids", ids(new long[] {1, 150}, 1, 2)), "150", "149");
        assertRefused("clip/clip_text", Map.of("ids", ids(new long[2], 2)), "ids", "2 dimensions");
        assertRefused("clip/clip_text", Map.of("ids", ids(new long[25], 1, 25)), "25", "24");
    }

    @Test
    void forward_vae() {
        assertRefused("diffusers/vae_sd", Map.of("pixels", zeros(1)), "'latents' or 'z'", "pixels");
        assertRefused("diffusers/vae_sd", Map.of("image", zeros(1, 3, 31, 32)), "[1, 3, 31, 32]", "multiples of 2");
        assertRefused("diffusers/vae_sd", Map.of("image", zeros(1, 1, 32, 32)), "[B, 3, H, W]");
        assertRefused("diffusers/vae_sd", Map.of("image", zeros(1, 3, 8, 8), "eps", zeros(1, 4, 8, 8)), "eps",
                "[1, 4, 4, 4]");
        assertRefused("diffusers/vae_sd", Map.of("z", zeros(1, 3, 8, 8)), "4 channels");
    }

    @Test
    void forward_vq() {
        assertRefused("diffusers/vqmodel", Map.of("indices", ids(new long[4], 1, 2, 2)), "lookup_from_codebook");
        assertRefused("networks/vq_lookup", Map.of("indices", ids(new long[] {0, 17}, 1, 1, 2)), "17", "0 to 16");
    }

    @Test
    void forward_latentDecoder() {
        assertRefused("networks/dcgan", Map.of("z", zeros(2, 8)), "[B, 7]", "[2, 8]");
    }
}
