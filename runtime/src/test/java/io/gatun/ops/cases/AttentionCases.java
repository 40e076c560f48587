package io.gatun.ops.cases;

import static io.gatun.ops.cases.Operand.Strides.ANY;
import static io.gatun.ops.cases.Operand.Strides.CONTIGUOUS;
import static io.gatun.ops.cases.Operand.Strides.OUTER;

import io.gatun.ops.Attention;
import io.gatun.ops.Attention.Mask;
import io.gatun.runtime.DType;
import java.util.Map;
import java.util.Set;

/// Cases of dense [Attention]. Keys and values that no query may see are NaN.
public final class AttentionCases {
    private AttentionCases() {}

    /// Operands that may be left out.
    public enum Part { LSE, BIAS, SHARED_BIAS, KEY_LENGTHS }

    /// Batch, query length, key length, query heads, key/value heads, head dim.
    public record Dims(int b, int t, int s, int h, int g, int d) {
        @Override
        public String toString() {
            return "B=%d T=%d S=%d H=%d G=%d D=%d".formatted(b, t, s, h, g, d);
        }

        float scale() {
            return (float) (1 / Math.sqrt(d));
        }

        /// Of batch b where there are key lengths: all, none, about half of them, and so on.
        int keyLength(int batch) {
            return switch (batch % 3) {
                case 0 -> s;
                case 1 -> 0;
                default -> (s + 1) / 2;
            };
        }
    }

    public static OpCase dense(DType dtype, Dims dims, Mask mask, Set<Part> parts) {
        boolean shared = parts.contains(Part.SHARED_BIAS);
        boolean lengths = parts.contains(Part.KEY_LENGTHS);
        int b = dims.b;
        int keyElements = dims.g * dims.d;
        Fill keys = Fill.normal(1.5);
        Fill visible = (random, i) -> {
            double value = keys.at(random, i);
            int s = i / keyElements % dims.s;
            return lengths && s >= dims.keyLength(i / keyElements / dims.s) ? Double.NaN : value;
        };
        OpCaseBuilder c = OpCase.of("attention", dtype, "%s %s %s", dims, mask, parts)
                .out("y", dtype, OUTER, b, dims.t, dims.h, dims.d)
                .in("q", dtype, OUTER, Fill.normal(1.5), b, dims.t, dims.h, dims.d)
                .in("k", dtype, OUTER, visible, b, dims.s, dims.g, dims.d)
                .in("v", dtype, OUTER, visible, b, dims.s, dims.g, dims.d)
                .flops(4L * b * dims.h * dims.t * dims.s * dims.d / (mask == Mask.CAUSAL ? 2 : 1))
                .accuracy(Accuracy.ROOT_MEAN_SQUARE)
                .workspace((s, t) -> Attention.workspaceBytes(s, t.get("q"), t.get("k")));
        if (parts.contains(Part.LSE)) {
            c.out("lse", DType.F32, CONTIGUOUS, b, dims.h, dims.t);
        }
        if (shared || parts.contains(Part.BIAS)) {
            c.in("bias", DType.F32, ANY, Fill.normal(1).with(1, 7, Double.NEGATIVE_INFINITY), shared ? 1 : b,
                    shared ? 1 : dims.h, dims.t, dims.s);
        }
        if (lengths) {
            c.in("key_lengths", DType.I32, CONTIGUOUS, (random, i) -> dims.keyLength(i), b);
        }
        return c.build((s, t) -> Attention.attention(s, t.get("y"), t.get("lse"), t.get("q"), t.get("k"), t.get("v"),
                t.get("bias"), t.get("key_lengths"), dims.scale(), mask, t.get("workspace")),
                (in, out, round) -> dense(in, out, round, dtype, dims, mask));
    }

    static void dense(HostValues in, Map<String, double[]> out, Rounding round, DType dtype, Dims n,
            Mask mask) {
        AttentionRow row = new AttentionRow(round, dtype, n.d, n.scale());
        for (int i = 0; i < n.b * n.t * n.h; i++) {
            int b = i / n.h / n.t;
            int t = i / n.h % n.t;
            int h = i % n.h;
            int keys = visible(in, n, mask, b, t);
            int[] at = new int[keys];
            double[] bias = new double[keys];
            for (int s = 0; s < keys; s++) {
                at[s] = ((b * n.s + s) * n.g + h / (n.h / n.g)) * n.d;
                bias[s] = bias(in, n, b, h, t, s);
            }
            double lse = row.compute(in.floats("q"), i * n.d, in.floats("k"), in.floats("v"), at, bias, out.get("y"));
            if (out.containsKey("lse")) {
                out.get("lse")[(b * n.h + h) * n.t + t] = lse;
            }
        }
    }

    /// Keys that query t of sequence b sees: the first so many.
    static int visible(HostValues in, Dims n, Mask mask, int b, int t) {
        int keys = mask == Mask.CAUSAL ? Math.clamp(t + 1 + n.s - n.t, 0, n.s) : n.s;
        return in.has("key_lengths") ? (int) Math.min(keys, in.longs("key_lengths")[b]) : keys;
    }

    static double bias(HostValues in, Dims n, int b, int h, int t, int s) {
        if (!in.has("bias")) {
            return 0;
        }
        float[] bias = in.floats("bias");
        return bias[biasIndex(bias.length, n, b, h, t, s)];
    }

    /// Where in a bias of so many elements: one plane, one for each head, or one for each sequence and head.
    static int biasIndex(int elements, Dims n, int b, int h, int t, int s) {
        int planes = elements / (n.t * n.s);
        int plane = planes == 1 ? 0 : planes == n.h ? h : b * n.h + h;
        return (plane * n.t + t) * n.s + s;
    }
}
