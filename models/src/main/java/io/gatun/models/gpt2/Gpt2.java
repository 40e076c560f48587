package io.gatun.models.gpt2;

import io.gatun.models.Activation;
import io.gatun.models.Batch;
import io.gatun.models.CausalModel;
import io.gatun.models.ForwardPass;
import io.gatun.models.KvCache;
import io.gatun.models.ModelConfig;
import io.gatun.models.WeightLoader;
import io.gatun.ops.Attention;
import io.gatun.ops.Embedding;
import io.gatun.ops.Linear.WeightLayout;
import io.gatun.ops.Norm;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import io.gatun.runtime.Workspace;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/// GPT-2: learned positions, pre-norm blocks, packed query/key/value, a tied head. Radford et al. 2019.
public final class Gpt2 implements CausalModel {
    private final Device device;
    private final Gpt2Config config;
    private final Gpt2Weights weights;

    public Gpt2(Device device, Gpt2Config config, WeightLoader loader) {
        this.device = device;
        this.config = config;
        this.weights = Gpt2Weights.load(config, loader);
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
        // positions are a table of the checkpoint
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
        private final Tensor x;
        private final Tensor h;
        private final Tensor qkv;
        private final Tensor q;
        private final Tensor k;
        private final Tensor v;
        private final @Nullable Tensor scratch;
        private final Tensor heads;
        private final Tensor headsFlat;
        private final Tensor out;
        private final Tensor inner;

        Pass(Stream s, Workspace w, Batch batch, KvCache cache) {
            this.batch = batch;
            this.cache = cache;
            DType dtype = config().dtype();
            long n = batch.rows();
            long c = config().hiddenSize();
            long[] perHead = {n, config().heads(), config().headDim()};
            long[] stride = {3 * c, config().headDim(), 1};
            x = w.allocate(dtype, n, c);
            h = w.allocate(dtype, n, c);
            qkv = w.allocate(dtype, n, 3 * c);
            q = qkv.slice(1, 0, c).strided(perHead, stride);
            k = qkv.slice(1, c, 2 * c).strided(perHead, stride);
            v = qkv.slice(1, 2 * c, 3 * c).strided(perHead, stride);
            scratch = Attention.placePagedWorkspace(s, w, q, batch.pageTable());
            heads = w.allocate(dtype, perHead);
            headsFlat = heads.reshape(n, c);
            out = w.allocate(dtype, n, c);
            inner = w.allocate(dtype, n, config.innerSize());
        }

        @Override
        public void run(Stream s, Observer observer) {
            float eps = config.layerNormEps();
            Embedding.embedding(s, x, batch.ids(), weights.wte(), batch.positions(), weights.wpe());     // [N, C]
            for (int i = 0; i < config().layers(); i++) {
                Gpt2Weights.Layer l = weights.layers().get(i);
                if (i == 0) {
                    observer.layer(0, x);
                    Norm.layerNorm(s, h, x, l.ln1(), l.ln1Bias(), eps);                                  // [N, C]
                } else {
                    Norm.layerNorm(s, h, x, null, null, x, out, l.ln1(), l.ln1Bias(), eps);              // x += out
                    observer.layer(i, x);
                }
                project(s, qkv, h, l.qkv(), l.qkvBias());                                                // [N, 3C]
                Attention.appendKv(s, cache.keys(i), cache.values(i), k, v, batch.pageTable(), batch.queryStart(),
                        batch.positions());
                Attention.attentionPaged(s, heads, null, q, cache.keys(i), cache.values(i), batch.pageTable(),
                        batch.queryStart(), batch.positions(), config.attentionScale(i), scratch);       // [N, H, D]
                project(s, out, headsFlat, l.proj(), l.projBias());                                      // [N, C]
                Norm.layerNorm(s, h, x, null, null, x, out, l.ln2(), l.ln2Bias(), eps);                  // x += out
                activate(s, inner, h, l.up(), l.upBias());                                               // [N, F]
                project(s, out, inner, l.down(), l.downBias());                                          // [N, C]
            }
            Norm.layerNorm(s, h, x, null, null, x, out, weights.lnF(), weights.lnFBias(), eps);          // x += out
            observer.layer(config().layers(), x);
            observer.layer(config().layers() + 1, h);
        }

        private void activate(Stream s, Tensor y, Tensor in, Tensor weight, Tensor bias) {
            if (config.activation() == Activation.GELU_TANH) {
                device.matmulGeluTanh(s, y, in, weight, bias, WeightLayout.IN_OUT, batch.isDecode());
            } else {
                project(s, y, in, weight, bias);
                config.activation().apply(s, y, y);
            }
        }

        private void project(Stream s, Tensor y, Tensor in, Tensor weight, Tensor bias) {
            if (batch.isDecode()) {
                device.matmulRowwise(s, y, in, weight, bias, WeightLayout.IN_OUT);
            } else {
                device.matmul(s, y, in, weight, bias, WeightLayout.IN_OUT);
            }
        }

        @Override
        public Tensor hidden() {
            return h;
        }
    }
}
