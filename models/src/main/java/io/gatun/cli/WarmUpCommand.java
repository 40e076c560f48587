package io.gatun.cli;

import io.gatun.io.SafetensorsWriter;
import io.gatun.io.TensorSource;
import io.gatun.models.DemoModels;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Random;
import java.util.concurrent.Callable;
import java.util.stream.Stream;
import picocli.CommandLine.Command;

/// `gatun warm-up`: runs the main commands on a tiny random model and on the demo models, so that the launcher can
/// record which classes a start needs (an AOT cache, JEP 514). Of no use to people, therefore hidden.
@Command(name = "warm-up", hidden = true)
final class WarmUpCommand implements Callable<Integer> {
    private static final int V = 8;
    private static final int C = 8;
    private static final String CONFIG = """
            {"model_type": "llama", "vocab_size": 8, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
             "num_attention_heads": 2, "max_position_embeddings": 256, "hidden_act": "silu", "rms_norm_eps": 1e-6,
             "eos_token_id": 7}""";
    private static final String TOKENIZER = """
            {"version": "1.0", "added_tokens": [{"id": 7, "content": "<end>", "single_word": false, "lstrip": false,
             "rstrip": false, "normalized": false, "special": true}], "normalizer": null, "pre_tokenizer": null,
             "post_processor": null, "decoder": {"type": "ByteFallback"},
             "model": {"type": "BPE", "dropout": null, "unk_token": "u", "continuing_subword_prefix": null,
             "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
             "vocab": {"a": 0, "b": 1, "c": 2, "d": 3, "e": 4, "u": 5, "ab": 6}, "merges": ["a b"]}}""";

    WarmUpCommand() {}

    @Override
    public Integer call() throws IOException {
        Path directory = Files.createTempDirectory("gatun-warm-up");
        try {
            Files.writeString(directory.resolve("config.json"), CONFIG);
            Files.writeString(directory.resolve("tokenizer.json"), TOKENIZER);
            SafetensorsWriter.write(directory.resolve("model.safetensors"), weights(), Map.of());
            String model = directory.toString();
            int code = Main.execute("generate", "--model", model, "--prompt", "abc".repeat(20), "--greedy", "--device",
                    "cpu", "--max-new-tokens", "4");
            code += Main.execute("generate", "--model", model, "--prompt", "ab", "--device", "cpu", "--top-k",
                    "3",
                    "--top-p", "0.9", "--max-new-tokens", "4", "--dtype", "bf16") + Main.execute("--help");
            if (!DemoModels.names().isEmpty()) {
                String picture = directory.resolve("digits.png").toString();
                code += Main.execute("generate", "--max-new-tokens", "4", "--device", "cpu")
                        + Main.execute("sample", "--steps", "2", "--device", "cpu", "--out", picture)
                        + Main.execute("sample", "--kind", "gan", "--device", "cpu", "--out", picture);
            }
            return code;
        } finally {
            try (Stream<Path> files = Files.list(directory)) {
                for (Path file : files.toList()) {
                    Files.delete(file);
                }
            }
            Files.delete(directory);
        }
    }

    private static Map<String, TensorSource> weights() {
        Map<String, TensorSource> weights = new LinkedHashMap<>();
        Random random = new Random(0);
        String layer = "model.layers.0.";
        add(weights, random, "model.embed_tokens.weight", V, C);
        for (String name : new String[] {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
            "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"}) {
            add(weights, random, layer + name + ".weight", C, C);
        }
        add(weights, random, layer + "input_layernorm.weight", C);
        add(weights, random, layer + "post_attention_layernorm.weight", C);
        add(weights, random, "model.norm.weight", C);
        return weights;
    }

    private static void add(Map<String, TensorSource> weights, Random random, String name, long... shape) {
        float[] values = new float[shape.length == 2 ? (int) (shape[0] * shape[1]) : (int) shape[0]];
        for (int i = 0; i < values.length; i++) {
            values[i] = random.nextFloat() - 0.5f;
        }
        weights.put(name, TensorSource.of(values, shape));
    }
}
