package io.gatun.bench;

import io.gatun.io.IoReason;
import io.gatun.io.SafetensorsWriter;
import io.gatun.io.StoredDType;
import io.gatun.io.TensorSource;
import io.gatun.ops.cases.Rounding;
import io.gatun.runtime.DType;
import io.gatun.runtime.GatunException;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.SplittableRandom;

/// A GPT-2 directory with random weights, as Hugging Face writes it: time does not depend on what weights say, and
/// nothing has to be downloaded. Other runtimes open it too.
///
/// @param v vocabulary
/// @param c hidden size
/// @param m positions
/// @param l layers
/// @param h heads
public record Gpt2Checkpoint(int v, int c, int m, int l, int h) {
    /// The published model of 124 million parameters.
    public static final Gpt2Checkpoint GPT2_124M = new Gpt2Checkpoint(50257, 768, 1024, 12, 12);
    /// So small that a step costs what the host costs.
    public static final Gpt2Checkpoint TINY = new Gpt2Checkpoint(64, 16, 512, 2, 2);

    /// As Radford et al. initialise.
    private static final double DEVIATION = 0.02;

    /// Writes config.json and model.safetensors; the same seed gives the same bytes.
    ///
    /// @param dtype f32 or bf16
    public void write(Path directory, DType dtype, long seed) {
        try {
            Files.createDirectories(directory);
            Files.writeString(directory.resolve("config.json"), config(dtype));
        } catch (IOException e) {
            throw new GatunException(GatunException.Status.INTERNAL, "cannot write to %s: %s".formatted(directory,
                    IoReason.of(e)), e);
        }
        SafetensorsWriter.write(directory.resolve("model.safetensors"), new Weights(dtype, seed).all(),
                Map.of("format", "pt"));
    }

    private String config(DType dtype) {
        return """
                {
                  "architectures": ["GPT2LMHeadModel"],
                  "model_type": "gpt2",
                  "vocab_size": %d,
                  "n_embd": %d,
                  "n_positions": %d,
                  "n_ctx": %d,
                  "n_layer": %d,
                  "n_head": %d,
                  "activation_function": "gelu_new",
                  "layer_norm_epsilon": 1e-05,
                  "attn_pdrop": 0.0,
                  "embd_pdrop": 0.0,
                  "resid_pdrop": 0.0,
                  "tie_word_embeddings": true,
                  "dtype": "%s"
                }
                """.formatted(v, c, m, m, l, h, dtype == DType.BF16 ? "bfloat16" : "float32");
    }

    private final class Weights {
        private final Map<String, TensorSource> tensors = new LinkedHashMap<>();
        private final SplittableRandom random;
        private final DType dtype;

        Weights(DType dtype, long seed) {
            if (dtype != DType.F32 && dtype != DType.BF16) {
                throw GatunException.invalid("a checkpoint of %s, expected f32 or bf16", dtype);
            }
            this.dtype = dtype;
            this.random = new SplittableRandom(seed);
        }

        Map<String, TensorSource> all() {
            normal("wte.weight", v, c);
            normal("wpe.weight", m, c);
            for (int i = 0; i < l; i++) {
                String layer = "h." + i + ".";
                layerNorm(layer + "ln_1");
                projection(layer + "attn.c_attn", c, 3 * c);
                projection(layer + "attn.c_proj", c, c);
                layerNorm(layer + "ln_2");
                projection(layer + "mlp.c_fc", c, 4 * c);
                projection(layer + "mlp.c_proj", 4 * c, c);
            }
            layerNorm("ln_f");
            return tensors;
        }

        private void layerNorm(String name) {
            add(name + ".weight", 1, 0, c);
            add(name + ".bias", 0, DEVIATION, c);
        }

        private void projection(String name, int in, int out) {
            normal(name + ".weight", in, out);
            normal(name + ".bias", out);
        }

        private void normal(String name, long... shape) {
            add(name, 0, DEVIATION, shape);
        }

        private void add(String name, double mean, double deviation, long... shape) {
            int n = 1;
            for (long d : shape) {
                n = Math.multiplyExact(n, Math.toIntExact(d));
            }
            ByteBuffer bytes = ByteBuffer.allocate(n * dtype.bytes()).order(ByteOrder.LITTLE_ENDIAN);
            for (int i = 0; i < n; i++) {
                float value = (float) Rounding.nearest(dtype, mean + deviation * random.nextGaussian());
                if (dtype == DType.F32) {
                    bytes.putFloat(value);
                } else {
                    bytes.putShort((short) (Float.floatToRawIntBits(value) >>> 16));
                }
            }
            tensors.put("transformer." + name,
                    TensorSource.of(StoredDType.valueOf(dtype.name()), bytes.array(), shape));
        }
    }
}
