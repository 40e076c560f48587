package io.gatun.models.llama;

import io.gatun.models.Batch;
import io.gatun.models.CausalModel;
import io.gatun.models.ForwardPass;
import io.gatun.models.KvCache;
import io.gatun.models.ModelConfig;
import io.gatun.models.RopeTable;
import io.gatun.models.WeightLoader;
import io.gatun.models.llama.LlamaWeights.Projection;
import io.gatun.ops.Attention;
import io.gatun.ops.Elementwise;
import io.gatun.ops.Embedding;
import io.gatun.ops.Linear.WeightLayout;
import io.gatun.ops.Norm;
import io.gatun.ops.Rope;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.DeviceArena;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import io.gatun.runtime.Workspace;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/// Llama: rotary positions, grouped-query attention, RMS norm, SwiGLU. Touvron et al. 2023, arXiv 2302.13971.
public final class Llama implements CausalModel {
    private final Device device;
    private final LlamaConfig config;
    private final LlamaWeights weights;
    private final RopeTable rope;

    /// @param arena owns the rotary table
    public Llama(Device device, DeviceArena arena, LlamaConfig config, WeightLoader loader) {
        this.device = device;
        this.config = config;
        this.weights = LlamaWeights.load(config, loader);
        this.rope = new RopeTable(arena, config.rope());
    }

    @Override
    public ModelConfig config() {
        return config.base();
    }

    @Override
    public Map<String, Tensor> weights() {
        return weights.all();
    }

    @Override
    public void reserve(Stream stream, int length) {
        rope.reserve(stream, length);
    }

    @Override
    public ForwardPass place(Stream stream, Workspace workspace, Batch batch, KvCache cache) {
        return new Pass(stream, workspace, batch, cache);
    }

    @Override
    public void head(Stream stream, Tensor logits, Tensor hidden) {
        device.matmulRowwise(stream, logits, hidden, weights.head(), null, WeightLayout.OUT_IN);
    }

    private final class Pass implements ForwardPass {
        private final Batch batch;
        private final KvCache cache;
        private final RopeTable.Angles angles;
        private final Tensor x;
        private final Tensor h;
        private final Tensor q;
        private final Tensor k;
        private final Tensor v;
        private final Tensor qHeads;
        private final Tensor kHeads;
        private final Tensor vHeads;
        private final @Nullable Tensor scratch;
        private final Tensor heads;
        private final Tensor headsFlat;
        private final Tensor out;
        private final Tensor gate;
        private final Tensor up;

        Pass(Stream s, Workspace w, Batch batch, KvCache cache) {
            this.batch = batch;
            this.cache = cache;
            this.angles = rope.place(w, batch.sequenceLength());
            ModelConfig c = config();
            DType dtype = c.dtype();
            long n = batch.rows();
            x = w.allocate(dtype, n, c.hiddenSize());
            h = w.allocate(dtype, n, c.hiddenSize());
            q = w.allocate(dtype, n, (long) c.heads() * c.headDim());
            k = w.allocate(dtype, n, (long) c.kvHeads() * c.headDim());
            v = w.allocate(dtype, n, (long) c.kvHeads() * c.headDim());
            qHeads = q.reshape(n, c.heads(), c.headDim());
            kHeads = k.reshape(n, c.kvHeads(), c.headDim());
            vHeads = v.reshape(n, c.kvHeads(), c.headDim());
            scratch = Attention.placePagedWorkspace(s, w, qHeads, batch.pageTable());
            heads = w.allocate(dtype, n, c.heads(), c.headDim());
            headsFlat = heads.reshape(n, (long) c.heads() * c.headDim());
            out = w.allocate(dtype, n, c.hiddenSize());
            gate = w.allocate(dtype, n, config.intermediateSize());
            up = w.allocate(dtype, n, config.intermediateSize());
        }

        @Override
        public void run(Stream s, Observer observer) {
            float eps = config.rmsNormEps();
            float scale = (float) (1 / Math.sqrt(config().headDim()));
            angles.fill(s);
            Embedding.embedding(s, x, batch.ids(), weights.embedding(), null, null);                 // [N, C]
            for (int i = 0; i < config().layers(); i++) {
                LlamaWeights.Layer l = weights.layers().get(i);
                if (i == 0) {
                    observer.layer(0, x);
                    Norm.rmsNorm(s, h, x, l.inputNorm(), eps);                                       // [N, C]
                } else {
                    Norm.rmsNorm(s, h, x, null, x, out, l.inputNorm(), eps);                         // x += out
                    observer.layer(i, x);
                }
                project(s, q, h, l.q());                                                             // [N, H D]
                project(s, k, h, l.k());                                                             // [N, G D]
                project(s, v, h, l.v());                                                             // [N, G D]
                Rope.rope(s, qHeads, qHeads, batch.positions(), angles.table(), Rope.Pairing.HALF);
                Rope.rope(s, kHeads, kHeads, batch.positions(), angles.table(), Rope.Pairing.HALF);
                Attention.appendKv(s, cache.keys(i), cache.values(i), kHeads, vHeads, batch.pageTable(),
                        batch.queryStart(), batch.positions());
                Attention.attentionPaged(s, heads, null, qHeads, cache.keys(i), cache.values(i), batch.pageTable(),
                        batch.queryStart(), batch.positions(), scale, scratch);                      // [N, H, D]
                project(s, out, headsFlat, l.o());                                                   // [N, C]
                Norm.rmsNorm(s, h, x, null, x, out, l.postNorm(), eps);                              // x += out
                project(s, gate, h, l.gate());                                                       // [N, F]
                project(s, up, h, l.up());                                                           // [N, F]
                Elementwise.swiglu(s, gate, gate, up);                                               // [N, F]
                project(s, out, gate, l.down());                                                     // [N, C]
            }
            Norm.rmsNorm(s, h, x, null, x, out, weights.norm(), eps);                                // x += out
            observer.layer(config().layers(), x);
            observer.layer(config().layers() + 1, h);
        }

        private void project(Stream s, Tensor y, Tensor in, Projection p) {
            if (batch.isDecode()) {
                device.matmulRowwise(s, y, in, p.weight(), p.bias(), WeightLayout.OUT_IN);
            } else {
                device.matmul(s, y, in, p.weight(), p.bias(), WeightLayout.OUT_IN);
            }
        }

        @Override
        public Tensor hidden() {
            return h;
        }
    }
}
