package io.gatun.softgpu;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;

import io.gatun.io.SafetensorsWriter;
import io.gatun.io.TensorSource;
import io.gatun.models.Batch;
import io.gatun.models.CausalModel;
import io.gatun.models.ForwardPass;
import io.gatun.models.KvCache;
import io.gatun.models.ModelLoader;
import io.gatun.ops.Elementwise;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.DeviceArena;
import io.gatun.runtime.Graph;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import io.gatun.runtime.Workspace;
import io.gatun.softgpu.SoftGpu.Counter;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.SplittableRandom;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// Of how many nodes is the graph of a decode step, each of which costs microseconds whatever it computes? And does a
/// step of few nodes give what the CPU's ops give one by one?
class DecodeGraphTest extends SoftGpuTest {
    /// Enough for products that are nodes of our own: `FEWEST_CHANNELS` of [io.gatun.models.Layers].
    private static final int C = 384;
    private static final int LAYERS = 2;
    private static final int VOCABULARY = 33;
    /// The largest that a golden forward in f32 may have.
    private static final float TOLERANCE = 1e-4f;
    /// Embedding, and final norm with the head.
    private static final int AROUND_THE_LAYERS = 2;
    /// Norm with its products, attention's output projection, norm with the MLP's first products, its last one;
    /// attention itself is one more.
    private static final int PRODUCTS_OF_A_LAYER = 4;

    @TempDir
    private Path directory;

    private final Map<String, TensorSource> tensors = new LinkedHashMap<>();
    private final SplittableRandom random = new SplittableRandom(11);

    private void put(String name, double mean, double scale, long... shape) {
        float[] values = new float[(int) (shape[0] * (shape.length > 1 ? shape[1] : 1))];
        for (int i = 0; i < values.length; i++) {
            values[i] = (float) (mean + scale * random.nextDouble(-1, 1));
        }
        tensors.put(name, TensorSource.of(values, shape));
    }

    private void write(String config) throws IOException {
        Files.writeString(directory.resolve("config.json"), config);
        SafetensorsWriter.write(directory.resolve("model.safetensors"), tensors, Map.of("format", "pt"));
    }

    @Test
    void gpt2_hasFourProductsALayer() throws IOException {
        put("wte.weight", 0, 1, VOCABULARY, C);
        put("wpe.weight", 0, 0.5, 16, C);
        for (int i = 0; i < LAYERS; i++) {
            String h = "h." + i + ".";
            for (String norm : new String[] {"ln_1", "ln_2"}) {
                put(h + norm + ".weight", 1, 0.3, C);
                put(h + norm + ".bias", 0, 0.3, C);
            }
            put(h + "attn.c_attn.weight", 0, 0.1, C, 3 * C);
            put(h + "attn.c_attn.bias", 0, 0.3, 3 * C);
            put(h + "attn.c_proj.weight", 0, 0.1, C, C);
            put(h + "attn.c_proj.bias", 0, 0.3, C);
            put(h + "mlp.c_fc.weight", 0, 0.1, C, 400);
            put(h + "mlp.c_fc.bias", 0, 0.3, 400);
            put(h + "mlp.c_proj.weight", 0, 0.1, 400, C);
            put(h + "mlp.c_proj.bias", 0, 0.3, C);
        }
        put("ln_f.weight", 1, 0.3, C);
        put("ln_f.bias", 0, 0.3, C);
        write("""
                {"model_type": "gpt2", "vocab_size": %d, "n_embd": %d, "n_positions": 16, "n_layer": %d, "n_head": 6,
                 "n_inner": 400, "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5}
                """.formatted(VOCABULARY, C, LAYERS));
        check();
    }

    @Test
    void llama_hasFourProductsALayer() throws IOException {
        put("embed_tokens.weight", 0, 1, VOCABULARY, C);
        for (int i = 0; i < LAYERS; i++) {
            String l = "layers." + i + ".";
            put(l + "input_layernorm.weight", 1, 0.3, C);
            put(l + "post_attention_layernorm.weight", 1, 0.3, C);
            put(l + "self_attn.q_proj.weight", 0, 0.1, C, C);
            put(l + "self_attn.k_proj.weight", 0, 0.1, C / 3, C);
            put(l + "self_attn.v_proj.weight", 0, 0.1, C / 3, C);
            put(l + "self_attn.o_proj.weight", 0, 0.1, C, C);
            put(l + "mlp.gate_proj.weight", 0, 0.1, 400, C);
            put(l + "mlp.up_proj.weight", 0, 0.1, 400, C);
            put(l + "mlp.down_proj.weight", 0, 0.1, C, 400);
        }
        put("norm.weight", 1, 0.3, C);
        write("""
                {"model_type": "llama", "vocab_size": %d, "hidden_size": %d, "intermediate_size": 400,
                 "num_attention_heads": 6, "num_key_value_heads": 2, "num_hidden_layers": %d,
                 "max_position_embeddings": 16, "rms_norm_eps": 1e-5, "hidden_act": "silu", "rope_theta": 10000.0,
                 "tie_word_embeddings": true}
                """.formatted(VOCABULARY, C, LAYERS));
        check();
    }

    private void check() {
        float[] onGpu = logits("cuda");
        assertEquals(AROUND_THE_LAYERS + LAYERS * (PRODUCTS_OF_A_LAYER + 1),
                gpu.counter(Counter.GRAPH_NODES));
        assertArrayEquals(logits("cpu"), onGpu, TOLERANCE);
    }

    /// Of the second token of two sequences, each of which saw another first one.
    private float[] logits(String name) {
        try (Device device = Device.open(name); Stream stream = device.newStream();
                ModelLoader.Result loaded = ModelLoader.load(device, stream, directory, DType.F32, n -> {});
                DeviceArena arena = device.newArena("operands")) {
            CausalModel model = loaded.network();
            Tensor ids = arena.allocate(DType.I32, 2);
            Tensor positions = arena.allocate(DType.I32, 2);
            Tensor queryStart = arena.allocate(DType.I32, 3);
            queryStart.copyFrom(stream, 0, 1, 2);
            Tensor pageTable = arena.allocate(DType.I32, 2, 1);
            pageTable.copyFrom(stream, 0, 1);
            Tensor logits = arena.allocate(DType.F32, 2, VOCABULARY);
            Tensor counters = arena.allocate(DType.I32, 2, model.config().kvHeads());
            Elementwise.fill(stream, counters, 0);
            Batch batch = new Batch(ids, positions, queryStart, pageTable, counters, 0, true);
            model.reserve(stream, 16);
            try (KvCache cache = new KvCache(device, model.config(), 2);
                    Workspace workspace = device.newWorkspace(Workspace.measure(device,
                            w -> new ForwardPass(device, stream, w, model, batch, cache, logits)))) {
                ForwardPass pass = new ForwardPass(device, stream, workspace, model, batch, cache, logits);
                ids.copyFrom(stream, 5, 17);
                positions.copyFrom(stream, 0, 0);
                pass.run(ForwardPass.Observer.NONE);
                ids.copyFrom(stream, 8, 8);
                positions.copyFrom(stream, 1, 1);
                stream.synchronize();
                gpu.clearCounters();
                try (Graph graph = device.capture(stream, () -> pass.run(ForwardPass.Observer.NONE))) {
                    graph.launch();
                    return logits.toFloats(stream);
                }
            }
        }
    }
}
