package io.gatun.models;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.fasterxml.jackson.databind.node.ObjectNode;
import io.gatun.runtime.DType;
import io.gatun.runtime.GatunException;
import java.nio.file.Path;
import java.util.Arrays;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// Do checkpoints in the spellings of older and other writers give the same network?
@Tag("device")
class CheckpointVariantsTest {
    private static final int[] IDS = {5, 9, 200, 17, 3};
    private static final String GPT2_HEAD = "lm_head.weight";

    @TempDir
    private Path directory;

    private final ModelDirectory gpt2 = ModelDirectory.of(GoldenCase.GPT2);
    private final ModelDirectory llama = ModelDirectory.of(GoldenCase.LLAMA);

    private void assertSame(GoldenCase original, Path variant) {
        assertArrayEquals(Forward.logits(original.model(), IDS), Forward.logits(variant, IDS));
    }

    @Test
    void gpt2_withoutPrefix() {
        assertSame(GoldenCase.GPT2, gpt2.rename(name -> name.replace("transformer.", "")).write(directory));
    }

    @Test
    void gpt2_maskBuffers() {
        for (int i = 0; i < 4; i++) {
            gpt2.with("transformer.h." + i + ".attn.bias", new float[64 * 64], 1, 1, 64, 64);
            gpt2.with("transformer.h." + i + ".attn.masked_bias", new float[] {-1e4f});
        }
        assertSame(GoldenCase.GPT2, gpt2.write(directory));
    }

    @Test
    void gpt2_maskBuffersWithoutPrefix() {
        for (int i = 0; i < 4; i++) {
            gpt2.with("h." + i + ".attn.bias", new float[64 * 64], 1, 1, 64, 64);
        }
        assertSame(GoldenCase.GPT2, gpt2.rename(name -> name.replace("transformer.", "")).write(directory));
    }

    @Test
    void gpt2_headAlone() {
        ModelDirectory.Weight embedding = gpt2.weight("transformer.wte.weight");
        gpt2.without("transformer.wte.weight").with(GPT2_HEAD, embedding.values(), embedding.shape());
        assertSame(GoldenCase.GPT2, gpt2.write(directory));
    }

    @Test
    void gpt2_headAndEmbedding() {
        ModelDirectory.Weight embedding = gpt2.weight("transformer.wte.weight");
        assertSame(GoldenCase.GPT2, gpt2.with(GPT2_HEAD, embedding.values(), embedding.shape()).write(directory));
    }

    /// The flag in the config says tied; the checkpoint, which is believed, says otherwise.
    @Test
    void gpt2_headDiffersFromEmbedding() {
        ModelDirectory.Weight embedding = gpt2.weight("transformer.wte.weight");
        float[] doubled = embedding.values().clone();
        for (int i = 0; i < doubled.length; i++) {
            doubled[i] *= 2;
        }
        float[] expected = Forward.logits(GoldenCase.GPT2.model(), IDS);
        for (int i = 0; i < expected.length; i++) {
            expected[i] *= 2;
        }
        gpt2.with(GPT2_HEAD, doubled, embedding.shape()).write(directory);
        assertArrayEquals(expected, Forward.logits(directory, IDS));
    }

    @Test
    void llama_withoutPrefix() {
        assertSame(GoldenCase.LLAMA, llama.rename(name -> name.replace("model.", "")).write(directory));
    }

    @Test
    void llama_headAlone() {
        ModelDirectory.Weight embedding = llama.weight("model.embed_tokens.weight");
        llama.without("model.embed_tokens.weight").with("lm_head.weight", embedding.values(), embedding.shape());
        assertSame(GoldenCase.LLAMA, llama.write(directory));
    }

    @Test
    void llama_headAndEmbedding() {
        ModelDirectory.Weight embedding = llama.weight("model.embed_tokens.weight");
        assertSame(GoldenCase.LLAMA,
                llama.with("lm_head.weight", embedding.values(), embedding.shape()).write(directory));
    }

    @Test
    void llama_frequencyBuffers() {
        for (int i = 0; i < 4; i++) {
            llama.with("model.layers." + i + ".self_attn.rotary_emb.inv_freq", new float[8], 8);
        }
        assertSame(GoldenCase.LLAMA, llama.with("model.rotary_emb.inv_freq", new float[8], 8).write(directory));
    }

    @Test
    void llama_frequencyBufferWithoutPrefix() {
        llama.with("model.rotary_emb.inv_freq", new float[8], 8);
        assertSame(GoldenCase.LLAMA, llama.rename(name -> name.replace("model.", "")).write(directory));
    }

    @Test
    void llama_shards() {
        assertSame(GoldenCase.LLAMA, llama.writeShards(directory, 3));
    }

    @Test
    void gpt2_shards() {
        assertSame(GoldenCase.GPT2, gpt2.writeShards(directory, 2));
    }

    /// `rope_theta` with `rope_scaling` and `type`, as before transformers 5.
    @Test
    void llama_oldRopeFields() {
        ObjectNode config = llama.config();
        ObjectNode scaling = (ObjectNode) config.remove("rope_parameters");
        config.set("rope_theta", scaling.remove("rope_theta"));
        scaling.set("type", scaling.remove("rope_type"));
        config.set("rope_scaling", scaling);
        config.set("torch_dtype", config.remove("dtype"));
        assertSame(GoldenCase.LLAMA, llama.write(directory));
    }

    /// Fields that may be null take their default.
    @Test
    void llama_nullFields() {
        llama.config().putNull("quantization_config").putNull("rope_scaling").putNull("pretraining_tp");
        assertSame(GoldenCase.LLAMA, llama.write(directory));
    }

    /// Biases of zeros change nothing, others do.
    @Test
    void llama_biases() {
        llama.config().put("attention_bias", true).put("mlp_bias", true);
        for (int i = 0; i < 4; i++) {
            String layer = "model.layers." + i + ".";
            for (String name : new String[] {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
                "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"}) {
                int out = (int) llama.weight(layer + name + ".weight").shape()[0];
                llama.with(layer + name + ".bias", new float[out], out);
            }
        }
        assertSame(GoldenCase.LLAMA, llama.write(directory));
        float[] bias = new float[64];
        Arrays.fill(bias, 0.25f);
        llama.with("model.layers.2.mlp.down_proj.bias", bias, 64).write(directory);
        assertFalse(Arrays.equals(Forward.logits(GoldenCase.LLAMA.model(), IDS), Forward.logits(directory, IDS)));
    }

    /// `scale_attn_by_inverse_layer_idx` is the same as dividing layer i's query weights by i + 1.
    @Test
    void gpt2_scaledByLayer() {
        gpt2.config().put("scale_attn_by_inverse_layer_idx", true).put("scale_attn_weights", false);
        for (int i = 0; i < 4; i++) {
            String name = "transformer.h." + i + ".attn.c_attn.";
            ModelDirectory.Weight weight = gpt2.weight(name + "weight");
            ModelDirectory.Weight bias = gpt2.weight(name + "bias");
            float factor = (i + 1) / 4f; // 1 / sqrt(D), D = 16, which the second field takes away
            for (int k = 0; k < weight.values().length; k++) {
                weight.values()[k] *= k % 192 < 64 ? factor : 1;
            }
            for (int k = 0; k < 64; k++) {
                bias.values()[k] *= factor;
            }
        }
        GoldenForwardTest.assertClose("logits", Forward.logits(GoldenCase.GPT2.model(), IDS),
                Forward.logits(gpt2.write(directory), IDS), GoldenCase.GPT2.tolerance());
    }

    /// The whole list of what does not fit comes at once.
    @Test
    void load_namesMissingAndUnexpected() {
        llama.without("model.norm.weight").without("model.layers.3.mlp.up_proj.weight");
        llama.with("model.layers.4.mlp.up_proj.weight", new float[6], 2, 3);
        Path written = llama.write(directory);
        String message = assertThrows(GatunException.class, () -> Forward.run(written, DType.F32, IDS)).getMessage();
        for (String part : new String[] {"missing 2 weights", "norm.weight", "layers.3.mlp.up_proj.weight",
            "unexpected 1 weights", "model.layers.4.mlp.up_proj.weight"}) {
            assertTrue(message.contains(part), message);
        }
    }
}
