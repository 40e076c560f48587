package io.gatun.cli;

import io.gatun.models.GoldenCase;
import io.gatun.models.ModelDirectory;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// Do checkpoints of image networks in other spellings, variants and shards give the same network?
class NetworkVariantsTest {
    private static final GoldenCase VAE = new GoldenCase("diffusers/vae_sd");
    private static final GoldenCase DIT = new GoldenCase("diffusers/dit");
    private static final GoldenCase CLIP = new GoldenCase("clip/clip_text");
    private static final String FILE = "diffusion_pytorch_model.safetensors";

    @TempDir
    private Path folder;

    private static void assertGolden(GoldenCase golden, Path model, String output) {
        try (Forwarded actual = Forwarded.run(model, golden.directory().resolve("io.safetensors"))) {
            actual.assertClose(golden, output, output, golden.tolerance());
        }
    }

    /// query, key, value and proj_attn, as before 2023.
    @Test
    void vae_oldAttentionNames() {
        assertGolden(VAE, ModelDirectory.of(VAE).rename(name -> name.replace("to_q", "query").replace("to_k", "key")
                .replace("to_v", "value").replace("to_out.0", "proj_attn")).write(folder), "decoded");
    }

    @Test
    void vae_shards() {
        assertGolden(VAE, ModelDirectory.of(VAE).writeShards(folder, 3), "decoded");
    }

    @Test
    void vae_fp16Variant() throws IOException {
        ModelDirectory.of(VAE).write(folder);
        Files.move(folder.resolve(FILE), folder.resolve("diffusion_pytorch_model.fp16.safetensors"));
        assertGolden(VAE, folder, "decoded");
    }

    /// Most libraries write the variant at the end of the index's name.
    @Test
    void vae_fp16VariantInShards() throws IOException {
        ModelDirectory.of(VAE).writeShards(folder, 2);
        Files.move(folder.resolve(FILE + ".index.json"), folder.resolve(FILE + ".index.fp16.json"));
        assertGolden(VAE, folder, "decoded");
    }

    @Test
    void clip_withPrefixAndBuffer() {
        assertGolden(CLIP, ModelDirectory.of(CLIP).rename(name -> "text_model." + name)
                .with("text_model.embeddings.position_ids", new float[24], 1, 24).write(folder), "pooler_output");
    }

    /// The name of the class before DiT had one.
    @Test
    void dit_transformer2d() {
        ModelDirectory dit = ModelDirectory.of(DIT);
        dit.config().put("_class_name", "Transformer2DModel");
        assertGolden(DIT, dit.write(folder), "sample_out");
    }

    @Test
    void vae_namesMissingAndUnexpected() {
        ModelDirectory vae = ModelDirectory.of(VAE).without("decoder.conv_in.bias");
        vae.with("decoder.conv_in.gamma", new float[3], 3).write(folder);
        Captured.run("forward", "--model", folder.toString(), "--inputs",
                VAE.directory().resolve("io.safetensors").toString(), "--out", folder.resolve("out").toString(),
                "--device", "cpu").assertFailed(2, "decoder.conv_in.bias", "decoder.conv_in.gamma");
    }
}
