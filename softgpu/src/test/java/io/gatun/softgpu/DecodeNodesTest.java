package io.gatun.softgpu;

import static org.junit.jupiter.api.Assertions.assertEquals;

import io.gatun.models.Batch;
import io.gatun.models.CausalModel;
import io.gatun.models.ForwardPass;
import io.gatun.models.KvCache;
import io.gatun.models.Layers;
import io.gatun.models.ModelConfig;
import io.gatun.models.ModelLoader;
import io.gatun.models.SequenceAttention;
import io.gatun.models.SequenceAttention.Rotation;
import io.gatun.ops.Elementwise;
import io.gatun.ops.Rope;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.DeviceArena;
import io.gatun.runtime.Graph;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import io.gatun.runtime.Workspace;
import io.gatun.softgpu.SoftGpu.Counter;
import java.util.Map;
import org.junit.jupiter.api.Test;

/// How many nodes of a decode step's graph are attention's? Each costs microseconds.
class DecodeNodesTest extends SoftGpuTest {
    private static final int LAYERS = 2;
    private static final int B = 2;

    /// A model of attention alone.
    private record OnlyAttention(ModelConfig config, Tensor table) implements CausalModel {
        @Override
        public void reserve(Stream stream, int length) {
            // the table is there
        }

        @Override
        public Tensor forward(Layers layers, Tokens tokens, SequenceAttention attention,
                ForwardPass.Observer observer) {
            Rotation rotation = new Rotation(tokens.positions(), table, Rope.Pairing.HALF);
            Tensor q = layers.allocate(DType.F32, B, config.heads(), config.headDim());
            Tensor k = layers.allocate(DType.F32, B, config.kvHeads(), config.headDim());
            Tensor v = layers.allocate(DType.F32, B, config.kvHeads(), config.headDim());
            layers.op(stream -> {}, q, k, v);
            for (int i = 0; i < LAYERS; i++) {
                q = attention.attend(layers, i, q, k, v, rotation, 1);
            }
            return q;
        }

        @Override
        public Tensor headWeight() {
            throw new UnsupportedOperationException();
        }

        @Override
        public Map<String, Tensor> weights() {
            return Map.of();
        }
    }

    /// Rotation, append, attention and the adding of splits: positions reach over several splits.
    @Test
    void attention_isOneNodeALayer() {
        try (Device device = Device.open("cuda"); Stream stream = device.newStream();
                ModelLoader.Result llama = ModelLoader.load(device, stream, Models.LLAMA.directory(), DType.F32,
                        n -> {});
                DeviceArena arena = device.newArena("operands")) {
            ModelConfig config = llama.network().config();
            Tensor table = arena.allocate(DType.F32, 200, 2, config.headDim() / 2);
            CausalModel model = new OnlyAttention(config, table);
            Tensor positions = arena.allocate(DType.I32, B);
            positions.copyFrom(stream, 130, -1);
            Tensor queryStart = arena.allocate(DType.I32, B + 1);
            queryStart.copyFrom(stream, 0, 1, 2);
            Tensor pageTable = arena.allocate(DType.I32, B, 3);
            pageTable.copyFrom(stream, 0, 1, 2, 0, 0, 0);
            Tensor counters = arena.allocate(DType.I32, B, config.kvHeads());
            Elementwise.fill(stream, counters, 0);
            Batch batch = new Batch(positions, positions, queryStart, pageTable, counters, 0, true);
            try (KvCache cache = new KvCache(device, config, 3);
                    Workspace workspace = device.newWorkspace(Workspace.measure(device,
                            w -> new ForwardPass(device, stream, w, model, batch, cache)))) {
                ForwardPass pass = new ForwardPass(device, stream, workspace, model, batch, cache);
                pass.run(ForwardPass.Observer.NONE);
                stream.synchronize();
                gpu.clearCounters();
                try (Graph graph = device.capture(stream, () -> pass.run(ForwardPass.Observer.NONE))) {
                    graph.launch();
                    stream.synchronize();
                    assertEquals(LAYERS, gpu.counter(Counter.GRAPH_NODES));
                }
            }
        }
    }
}
