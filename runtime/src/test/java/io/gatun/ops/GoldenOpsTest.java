package io.gatun.ops;

import io.gatun.ops.Attention.Mask;
import io.gatun.ops.Convolution.Geometry;
import io.gatun.ops.Convolution.Transposed;
import io.gatun.ops.Linear.WeightLayout;
import io.gatun.ops.Rope.Pairing;
import io.gatun.runtime.DType;
import io.gatun.runtime.Tensor;
import java.util.Arrays;
import java.util.List;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/// Do the ops agree with torch? Results of torch in f64, tolerances from the cases.
@Tag("device")
class GoldenOpsTest {
    @ParameterizedTest
    @CsvSource({"gelu_erf", "gelu_tanh", "quick_gelu", "silu", "relu", "leaky_relu_0.2", "tanh", "sigmoid"})
    void activations(String variant) {
        try (Golden golden = new Golden("ops/activations")) {
            Tensor x = golden.floats(variant + ".in.x");
            Tensor y = golden.like(variant + ".out.y");
            switch (variant) {
                case "gelu_erf" -> Elementwise.geluErf(golden.stream(), y, x);
                case "gelu_tanh" -> Elementwise.geluTanh(golden.stream(), y, x);
                case "quick_gelu" -> Elementwise.quickGelu(golden.stream(), y, x);
                case "silu" -> Elementwise.silu(golden.stream(), y, x);
                case "relu" -> Elementwise.relu(golden.stream(), y, x);
                case "leaky_relu_0.2" -> Elementwise.leakyRelu(golden.stream(), y, x, 0.2f);
                case "tanh" -> Elementwise.tanh(golden.stream(), y, x);
                default -> Elementwise.sigmoid(golden.stream(), y, x);
            }
            golden.check(variant + ".out.y", y);
            Tensor dx = golden.floats(variant + ".up.y");
            switch (variant) {
                case "gelu_erf" -> Elementwise.geluErfBackward(golden.stream(), dx, dx, x);
                case "gelu_tanh" -> Elementwise.geluTanhBackward(golden.stream(), dx, dx, x);
                case "quick_gelu" -> Elementwise.quickGeluBackward(golden.stream(), dx, dx, x);
                case "silu" -> Elementwise.siluBackward(golden.stream(), dx, dx, x);
                case "relu" -> Elementwise.reluBackward(golden.stream(), dx, dx, x);
                case "leaky_relu_0.2" -> Elementwise.leakyReluBackward(golden.stream(), dx, dx, x, 0.2f);
                case "tanh" -> Elementwise.tanhBackward(golden.stream(), dx, dx, y);
                default -> Elementwise.sigmoidBackward(golden.stream(), dx, dx, y);
            }
            golden.check(variant + ".grad.x", dx);
        }
    }

    @Test
    void glu() {
        try (Golden golden = new Golden("ops/glu")) {
            Tensor y = golden.like("swiglu.out.y");
            Elementwise.swiglu(golden.stream(), y, golden.floats("swiglu.in.gate"), golden.floats("swiglu.in.up"));
            golden.check("swiglu.out.y", y);
            Tensor z = golden.like("gated_gelu_new.out.y");
            Elementwise.gegluTanh(golden.stream(), z, golden.floats("gated_gelu_new.in.gate"),
                    golden.floats("gated_gelu_new.in.up"));
            golden.check("gated_gelu_new.out.y", z);
            Tensor both = golden.floats("geglu_chunk.in.x");
            long half = both.size(-1) / 2;
            Tensor w = golden.like("geglu_chunk.out.y");
            Elementwise.geglu(golden.stream(), w, both.slice(-1, half, 2 * half), both.slice(-1, 0, half));
            golden.check("geglu_chunk.out.y", w);
        }
    }

    @Test
    void gluGradients() {
        try (Golden golden = new Golden("ops/glu")) {
            for (String variant : List.of("swiglu", "gated_gelu_new")) {
                Tensor gate = golden.floats(variant + ".in.gate");
                Tensor up = golden.floats(variant + ".in.up");
                Tensor dgate = golden.like(variant + ".grad.gate");
                Tensor dup = golden.like(variant + ".grad.up");
                if (variant.equals("swiglu")) {
                    Elementwise.swigluBackward(golden.stream(), dgate, dup, golden.floats("swiglu.up.y"), gate, up);
                } else {
                    Elementwise.gegluTanhBackward(golden.stream(), dgate, dup, golden.floats(variant + ".up.y"), gate,
                            up);
                }
                golden.check(variant + ".grad.gate", dgate);
                golden.check(variant + ".grad.up", dup);
            }
            Tensor both = golden.floats("geglu_chunk.in.x");
            Tensor gradient = golden.like("geglu_chunk.grad.x");
            long half = both.size(-1) / 2;
            Elementwise.gegluBackward(golden.stream(), gradient.slice(-1, half, 2 * half), gradient.slice(-1, 0, half),
                    golden.floats("geglu_chunk.up.y"), both.slice(-1, half, 2 * half), both.slice(-1, 0, half));
            golden.check("geglu_chunk.grad.x", gradient);
        }
    }

    @ParameterizedTest
    @CsvSource({"affine, 1e-5", "eps1e12, 1e-12", "plain, 1e-6", "offset, 1e-5"})
    void layernorm(String variant, float eps) {
        try (Golden golden = new Golden("ops/layernorm")) {
            Tensor x = golden.floats(variant + ".in.x");
            Tensor weight = golden.optional(variant + ".in.weight");
            Tensor mean = golden.memory(x.elements() / x.size(-1));
            Tensor rstd = golden.memory(x.elements() / x.size(-1));
            Tensor y = golden.like(variant + ".out.y");
            Norm.layerNorm(golden.stream(), y, null, mean, rstd, x, null, weight,
                    golden.optional(variant + ".in.bias"), eps);
            golden.check(variant + ".out.y", y);
            Tensor dx = golden.like(variant + ".grad.x");
            Tensor dweight = weight == null ? null : golden.like(variant + ".grad.weight");
            Tensor dbias = weight == null ? null : golden.like(variant + ".grad.bias");
            Norm.layerNormBackward(golden.stream(), dx, dweight, dbias, golden.floats(variant + ".up.y"), x, mean, rstd,
                    weight, null, golden.bytes(Norm.layerNormBackwardWorkspaceBytes(golden.stream(), x)));
            golden.check(variant + ".grad.x", dx);
            if (weight != null) {
                golden.check(variant + ".grad.weight", dweight);
                golden.check(variant + ".grad.bias", dbias);
            }
        }
    }

    @ParameterizedTest
    @CsvSource({"a, 1e-6", "b, 1e-5"})
    void rmsnorm(String variant, float eps) {
        try (Golden golden = new Golden("ops/rmsnorm")) {
            Tensor x = golden.floats(variant + ".in.x");
            Tensor weight = golden.floats(variant + ".in.weight");
            Tensor rstd = golden.memory(x.elements() / x.size(-1));
            Tensor y = golden.like(variant + ".out.y");
            Norm.rmsNorm(golden.stream(), y, null, rstd, x, null, weight, eps);
            golden.check(variant + ".out.y", y);
            Tensor dx = golden.like(variant + ".grad.x");
            Tensor dweight = golden.like(variant + ".grad.weight");
            Norm.rmsNormBackward(golden.stream(), dx, dweight, golden.floats(variant + ".up.y"), x, rstd, weight, null,
                    golden.bytes(Norm.rmsNormBackwardWorkspaceBytes(golden.stream(), x)));
            golden.check(variant + ".grad.x", dx);
            golden.check(variant + ".grad.weight", dweight);
        }
    }

    /// x [B, C, H, W] there, [B, S, C] here.
    @ParameterizedTest
    @CsvSource({"g3, 3, 1e-5, NONE", "g1, 1, 1e-6, NONE", "silu, 4, 1e-6, SILU"})
    void groupnorm(String variant, int groups, float eps, ActivationKind activation) {
        try (Golden golden = new Golden("ops/groupnorm")) {
            Tensor x = pixelsOf(golden.floats(variant + ".in.x"));
            Tensor weight = golden.floats(variant + ".in.weight");
            Tensor bias = golden.floats(variant + ".in.bias");
            Tensor mean = golden.memory(x.size(0) * groups).reshape(x.size(0), groups);
            Tensor rstd = golden.memory(x.size(0) * groups).reshape(x.size(0), groups);
            Tensor y = golden.like(variant + ".out.y");
            Norm.groupNorm(golden.stream(), pixelsOf(y), mean, rstd, x, weight, bias, null, null, groups, eps,
                    activation, golden.bytes(Norm.groupNormWorkspaceBytes(golden.stream(), x, groups)));
            golden.check(variant + ".out.y", y);
            Tensor dx = golden.like(variant + ".grad.x");
            Tensor dweight = golden.like(variant + ".grad.weight");
            Tensor dbias = golden.like(variant + ".grad.bias");
            Norm.groupNormBackward(golden.stream(), pixelsOf(dx), dweight, dbias, null, null,
                    pixelsOf(golden.floats(variant + ".up.y")), x, mean, rstd, weight, bias, null, null, groups,
                    activation, golden.bytes(Norm.groupNormBackwardWorkspaceBytes(golden.stream(), x, groups)));
            golden.check(variant + ".grad.x", dx);
            golden.check(variant + ".grad.weight", dweight);
            golden.check(variant + ".grad.bias", dbias);
        }
    }

    @Test
    void batchnorm2d() {
        try (Golden golden = new Golden("ops/batchnorm2d")) {
            Tensor x = pixelsOf(golden.floats("train.in.x"));
            Tensor weight = golden.floats("train.in.weight");
            Tensor bias = golden.floats("train.in.bias");
            Tensor mean = golden.memory(x.size(2));
            Tensor rstd = golden.memory(x.size(2));
            Tensor y = golden.like("train.out.y");
            Norm.batchNormTrain(golden.stream(), pixelsOf(y), mean, rstd, null, null, x, weight, bias, 0.1f, 1e-5f,
                    ActivationKind.NONE, golden.bytes(Norm.batchNormTrainWorkspaceBytes(golden.stream(), x)));
            golden.check("train.out.y", y);
            Tensor dx = golden.like("train.grad.x");
            Tensor dweight = golden.like("train.grad.weight");
            Tensor dbias = golden.like("train.grad.bias");
            Norm.batchNormBackward(golden.stream(), pixelsOf(dx), dweight, dbias,
                    pixelsOf(golden.floats("train.up.y")), x, mean, rstd, weight, bias, ActivationKind.NONE,
                    golden.bytes(Norm.batchNormBackwardWorkspaceBytes(golden.stream(), x)));
            golden.check("train.grad.x", dx);
            golden.check("train.grad.weight", dweight);
            golden.check("train.grad.bias", dbias);
        }
    }

    @ParameterizedTest
    @CsvSource({"nearest2", "nearest_to_size", "avg2", "max3s2p1"})
    void resamplePool(String variant) {
        try (Golden golden = new Golden("ops/resample_pool")) {
            Tensor x = golden.floats(variant + ".in.x").permute(0, 2, 3, 1);
            Tensor y = golden.like(variant + ".out.y");
            Tensor last = y.permute(0, 2, 3, 1);
            Tensor dy = golden.floats(variant + ".up.y").permute(0, 2, 3, 1);
            Tensor dx = golden.like(variant + ".grad.x");
            Tensor dxLast = dx.permute(0, 2, 3, 1);
            switch (variant) {
                case "avg2" -> {
                    Image.averagePool(golden.stream(), last, x, 2);
                    Image.averagePoolBackward(golden.stream(), dxLast, dy, 2);
                }
                case "max3s2p1" -> {
                    Image.maxPool(golden.stream(), last, x, 3, 2, 1);
                    Image.maxPoolBackward(golden.stream(), dxLast, dy, x, 3, 2, 1);
                }
                default -> {
                    Image.upsampleNearest(golden.stream(), last, x);
                    Image.upsampleNearestBackward(golden.stream(), dxLast, dy);
                }
            }
            golden.check(variant + ".out.y", y);
            golden.check(variant + ".grad.x", dx);
        }
    }

    /// [B, C, H, W] as [B, S, C].
    private static Tensor pixelsOf(Tensor t) {
        return t.reshape(t.size(0), t.size(1), t.size(2) * t.size(3)).permute(0, 2, 1);
    }

    @Test
    void softmax() {
        try (Golden golden = new Golden("ops/softmax_cross_entropy")) {
            Tensor y = golden.like("softmax.out.y");
            Softmax.softmax(golden.stream(), y, golden.floats("softmax.in.x"));
            golden.check("softmax.out.y", y);
        }
    }

    /// A sum over rows is the mean times their number, and so is its gradient.
    @ParameterizedTest
    @CsvSource({"mean, 0", "smooth, 0.1", "sum_large, 0"})
    void crossEntropy(String variant, float smoothing) {
        try (Golden golden = new Golden("ops/softmax_cross_entropy")) {
            Tensor logits = golden.floats(variant + ".in.logits");
            long[] labels = golden.file().longs(variant + ".in.labels");
            long rows = variant.equals("sum_large") ? Arrays.stream(labels).filter(t -> t != -100).count() : 1;
            Tensor loss = golden.like(variant + ".out.y");
            Tensor scale = golden.memory(1);
            scale.copyFrom(golden.stream(), rows * golden.file().floats(variant + ".up.y")[0]);
            Softmax.crossEntropy(golden.stream(), loss, null, logits, logits, golden.ints(labels, labels.length), -100,
                    smoothing, scale, golden.bytes(Softmax.crossEntropyWorkspaceBytes(golden.stream(), logits)));
            Elementwise.scale(golden.stream(), loss, loss, rows);
            golden.check(variant + ".out.y", loss);
            golden.check(variant + ".grad.logits", logits);
        }
    }

    @ParameterizedTest
    @CsvSource({"linear, OUT_IN", "conv1d_hf, IN_OUT"})
    void linear(String variant, WeightLayout layout) {
        try (Golden golden = new Golden("ops/linear")) {
            Tensor x = golden.floats(variant + ".in.x");
            Tensor y = golden.like(variant + ".out.y");
            long n = x.elements() / x.size(-1);
            Linear.linear(golden.stream(), y.reshape(n, y.size(-1)), x.reshape(n, x.size(-1)),
                    golden.floats(variant + ".in.weight"), golden.optional(variant + ".in.bias"), layout);
            golden.check(variant + ".out.y", y);
            checkGradients(golden, variant, layout, n);
        }
    }

    /// `dx = dy w` is a product with the weight in its other layout; dw is summed over the rows.
    private static void checkGradients(Golden golden, String variant, WeightLayout layout, long n) {
        boolean outIn = layout == WeightLayout.OUT_IN;
        Tensor x = golden.floats(variant + ".in.x");
        Tensor dy = golden.floats(variant + ".up.y");
        Tensor dx = golden.like(variant + ".grad.x");
        Tensor dw = golden.like(variant + ".grad.weight");
        Tensor rows = x.reshape(n, x.size(-1));
        Tensor up = dy.reshape(n, dy.size(-1));
        x.device().matmul(golden.stream(), dx.reshape(n, x.size(-1)), up, golden.floats(variant + ".in.weight"), null,
                outIn ? WeightLayout.IN_OUT : WeightLayout.OUT_IN);
        x.device().matmulOuter(golden.stream(), dw, outIn ? up : rows, outIn ? rows : up);
        golden.check(variant + ".grad.x", dx);
        golden.check(variant + ".grad.weight", dw);
    }

    /// Channels first there, weights [F, C, kh, kw]: permuted views here.
    @ParameterizedTest
    @CsvSource({"k3s1, 1, 1, 1", "k3s2_asym, 2, 0, 1", "k1, 1, 0, 0", "k4s2, 2, 1, 1"})
    void conv2d(String variant, int stride, int padBefore, int padAfter) {
        try (Golden golden = new Golden("ops/conv2d")) {
            Tensor y = golden.like(variant + ".out.y");
            var geometry = new Geometry(stride, stride, padBefore, padAfter, padBefore, padAfter, 1, 1, 1);
            y.device().convolution(golden.stream(), y.permute(0, 2, 3, 1),
                    golden.floats(variant + ".in.x").permute(0, 2, 3, 1),
                    golden.floats(variant + ".in.weight").permute(0, 2, 3, 1), golden.floats(variant + ".in.bias"),
                    geometry, ActivationKind.NONE);
            golden.check(variant + ".out.y", y);
            Tensor dy = golden.floats(variant + ".up.y").permute(0, 2, 3, 1);
            Tensor dx = golden.like(variant + ".grad.x");
            Tensor dw = golden.like(variant + ".grad.weight");
            y.device().convolutionInputGradient(golden.stream(), dx.permute(0, 2, 3, 1), dy,
                    golden.floats(variant + ".in.weight").permute(0, 2, 3, 1), geometry);
            y.device().convolutionWeightGradient(golden.stream(), dw.permute(0, 2, 3, 1), dy,
                    golden.floats(variant + ".in.x").permute(0, 2, 3, 1), geometry);
            golden.check(variant + ".grad.x", dx);
            golden.check(variant + ".grad.weight", dw);
        }
    }

    /// As above; weights [C, F, kh, kw].
    @ParameterizedTest
    @CsvSource({"k4s2, 2, 1, 0", "k4s1p0, 1, 0, 0", "outpad, 2, 1, 1"})
    void convTranspose2d(String variant, int stride, int pad, int outputPad) {
        try (Golden golden = new Golden("ops/conv_transpose2d")) {
            Tensor y = golden.like(variant + ".out.y");
            var geometry = new Transposed(stride, stride, pad, pad, outputPad, outputPad, 1, 1, 1);
            y.device().transposedConvolution(golden.stream(), y.permute(0, 2, 3, 1),
                    golden.floats(variant + ".in.x").permute(0, 2, 3, 1),
                    golden.floats(variant + ".in.weight").permute(0, 2, 3, 1), golden.floats(variant + ".in.bias"),
                    geometry, ActivationKind.NONE);
            golden.check(variant + ".out.y", y);
            Tensor dy = golden.floats(variant + ".up.y").permute(0, 2, 3, 1);
            Tensor dx = golden.like(variant + ".grad.x");
            Tensor dw = golden.like(variant + ".grad.weight");
            y.device().transposedConvolutionInputGradient(golden.stream(), dx.permute(0, 2, 3, 1), dy,
                    golden.floats(variant + ".in.weight").permute(0, 2, 3, 1), geometry);
            y.device().transposedConvolutionWeightGradient(golden.stream(), dw.permute(0, 2, 3, 1), dy,
                    golden.floats(variant + ".in.x").permute(0, 2, 3, 1), geometry);
            golden.check(variant + ".grad.x", dx);
            golden.check(variant + ".grad.weight", dw);
        }
    }

    @ParameterizedTest
    @CsvSource({"lookup", "padding_idx"})
    void embedding(String variant) {
        try (Golden golden = new Golden("ops/embedding")) {
            long[] ids = golden.file().longs(variant + ".in.ids");
            Tensor y = golden.like(variant + ".out.y");
            Embedding.embedding(golden.stream(), y.reshape(ids.length, y.size(-1)), golden.ints(ids, ids.length),
                    golden.floats(variant + ".in.table"), null, null);
            golden.check(variant + ".out.y", y);

            // an id that is left out adds nothing, as torch's padding_idx wants it
            Tensor kept = golden.ints(Arrays.stream(ids).map(id -> variant.equals("lookup") || id != 2 ? id : -1)
                    .toArray(), ids.length);
            Tensor dtable = golden.like(variant + ".grad.table");
            Embedding.embeddingBackward(golden.stream(), dtable,
                    golden.floats(variant + ".up.y").reshape(ids.length, y.size(-1)), kept,
                    golden.bytes(Embedding.embeddingBackwardWorkspaceBytes(golden.stream(), dtable, kept)));
            golden.check(variant + ".grad.table", dtable);
        }
    }

    /// x [B, H, T, D] there, [T, H, D] here.
    @ParameterizedTest
    @CsvSource({"half, HALF", "interleaved, INTERLEAVED"})
    void rope(String variant, Pairing pairing) {
        try (Golden golden = new Golden("ops/rope")) {
            Tensor x = golden.floats(variant + ".in.x");
            Tensor y = golden.like(variant + ".out.y");
            Tensor gradient = golden.floats(variant + ".up.y");
            long[] positions = golden.file().longs(variant + ".in.positions");
            int half = (int) x.size(-1) / 2;
            float[] invFreq = new float[half];
            for (int i = 0; i < half; i++) {
                invFreq[i] = (float) Math.pow(10000, -(double) i / half);
            }
            long rows = Arrays.stream(positions).max().orElseThrow() + 1;
            try (var arena = x.device().newArena("table")) {
                Tensor frequencies = arena.allocate(DType.F32, half);
                Tensor table = arena.allocate(DType.F32, rows, 2, half);
                frequencies.copyFrom(golden.stream(), invFreq);
                Rope.table(golden.stream(), table, frequencies, 0, 1);
                for (int b = 0; b < x.size(0); b++) {
                    Rope.rope(golden.stream(), y.select(0, b).permute(1, 0, 2), x.select(0, b).permute(1, 0, 2),
                            golden.ints(positions, positions.length), table, pairing);
                    Tensor each = gradient.select(0, b).permute(1, 0, 2);
                    Rope.ropeBackward(golden.stream(), each, each, golden.ints(positions, positions.length), table,
                            pairing);
                }
            }
            golden.check(variant + ".out.y", y);
            golden.check(variant + ".grad.x", gradient);
        }
    }

    /// [B, H, T, D] there, [B, T, H, D] here.
    @ParameterizedTest
    @CsvSource({"mha, NONE, 20", "causal, CAUSAL, 16", "causal_offset, CAUSAL, 24", "gqa_causal, CAUSAL, 12",
        "bias, NONE, 1", "key_padding, NONE, 12"})
    void attention(String variant, Mask mask, double inverseSquareScale) {
        try (Golden golden = new Golden("ops/attention")) {
            Tensor q = heads(golden.floats(variant + ".in.q"));
            Tensor k = heads(golden.floats(variant + ".in.k"));
            Tensor v = heads(golden.floats(variant + ".in.v"));
            Tensor y = golden.like(variant + ".out.y");
            Tensor lse = golden.like(variant + ".out.lse");
            Tensor bias = golden.optional(variant + ".in.bias");
            if (golden.has(variant + ".in.key_mask")) {
                bias = keyMask(golden, golden.memory(q.size(0) * k.size(1)).reshape(q.size(0), k.size(1)), variant,
                        q.size(1));
            }
            float scale = (float) (1 / Math.sqrt(inverseSquareScale));
            Attention.attention(golden.stream(), heads(y), lse, q, k, v, bias, null, scale, mask, null);
            golden.check(variant + ".out.y", y);
            golden.check(variant + ".out.lse", lse);

            Tensor dq = golden.like(variant + ".grad.q");
            Tensor dk = golden.like(variant + ".grad.k");
            Tensor dv = golden.like(variant + ".grad.v");
            Tensor dbias = golden.has(variant + ".grad.bias") ? golden.like(variant + ".grad.bias") : null;
            Attention.attentionBackward(golden.stream(), heads(dq), heads(dk), heads(dv), dbias,
                    heads(golden.floats(variant + ".up.y")), heads(y), lse, q, k, v, bias, null, scale, mask,
                    golden.bytes(Attention.attentionBackwardWorkspaceBytes(golden.stream(), q, k)));
            golden.check(variant + ".grad.q", dq);
            golden.check(variant + ".grad.k", dk);
            golden.check(variant + ".grad.v", dv);
            if (dbias != null) {
                golden.check(variant + ".grad.bias", dbias);
            }
        }
    }

    /// From [B, H, T, D] to [B, T, H, D].
    private static Tensor heads(Tensor t) {
        return t.permute(0, 2, 1, 3);
    }

    /// A mask [B, S] as a bias [B, 1, T, S] that is the same for all queries.
    private static Tensor keyMask(Golden golden, Tensor bias, String variant, long queries) {
        long[] visible = golden.file().longs(variant + ".in.key_mask");
        float[] values = new float[visible.length];
        for (int i = 0; i < values.length; i++) {
            values[i] = visible[i] == 1 ? 0 : Float.NEGATIVE_INFINITY;
        }
        bias.copyFrom(golden.stream(), values);
        return bias.strided(new long[] {bias.size(0), 1, queries, bias.size(1)},
                new long[] {bias.size(1), 0, 0, 1});
    }
}
