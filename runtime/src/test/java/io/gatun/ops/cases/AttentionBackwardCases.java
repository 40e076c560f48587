package io.gatun.ops.cases;

import static io.gatun.ops.cases.Operand.Strides.ANY;
import static io.gatun.ops.cases.Operand.Strides.CONTIGUOUS;
import static io.gatun.ops.cases.Operand.Strides.OUTER;

import io.gatun.ops.Attention;
import io.gatun.ops.Attention.Mask;
import io.gatun.ops.cases.AttentionCases.Dims;
import io.gatun.ops.cases.AttentionCases.Part;
import io.gatun.runtime.DType;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import java.util.Arrays;
import java.util.Map;
import java.util.Set;

/// Cases of [Attention#attentionBackward]. Keys and values from key lengths on are NaN. A bias that is both SHARED_BIAS
/// and BIAS is shared by the sequences, but not by the heads.
public final class AttentionBackwardCases {
    private AttentionBackwardCases() {}

    /// Of the backward op alone: y and lse are any numbers.
    public static OpCase alone(DType dtype, Dims dims, Mask mask, Set<Part> parts) {
        return build(dtype, dims, mask, parts, false);
    }

    /// Attention and its derivatives after it.
    public static OpCase afterForward(DType dtype, Dims dims, Mask mask, Set<Part> parts) {
        return build(dtype, dims, mask, parts, true);
    }

    private static OpCase build(DType dtype, Dims n, Mask mask, Set<Part> parts, boolean afterForward) {
        boolean shared = parts.contains(Part.SHARED_BIAS);
        boolean lengths = parts.contains(Part.KEY_LENGTHS);
        int keyElements = n.g() * n.d();
        Fill keys = Fill.normal(1.2);
        Fill visible = (random, i) -> {
            double value = keys.at(random, i);
            int s = i / keyElements % n.s();
            return lengths && s >= n.keyLength(i / keyElements / n.s()) ? Double.NaN : value;
        };
        OpCaseBuilder c = OpCase.of("attention_backward", dtype, "%s %s %s%s", n, mask, parts,
                        afterForward ? " after attention" : "")
                .out("dq", dtype, OUTER, n.b(), n.t(), n.h(), n.d())
                .out("dk", dtype, OUTER, n.b(), n.s(), n.g(), n.d())
                .out("dv", dtype, OUTER, n.b(), n.s(), n.g(), n.d())
                .in("dy", dtype, OUTER, Fill.normal(1), n.b(), n.t(), n.h(), n.d())
                .in("q", dtype, OUTER, Fill.normal(1.2), n.b(), n.t(), n.h(), n.d())
                .in("k", dtype, OUTER, visible, n.b(), n.s(), n.g(), n.d())
                .in("v", dtype, OUTER, visible, n.b(), n.s(), n.g(), n.d())
                .flops(10L * n.b() * n.h() * n.t() * n.s() * n.d() / (mask == Mask.CAUSAL ? 2 : 1))
                .accuracy(Accuracy.GRADIENT_ROOT_MEAN_SQUARE)
                .workspace((s, t) -> Attention.attentionBackwardWorkspaceBytes(s, t.get("q"), t.get("k")));
        if (afterForward) {
            c.out("y", dtype, OUTER, n.b(), n.t(), n.h(), n.d());
            c.out("lse", DType.F32, CONTIGUOUS, n.b(), n.h(), n.t());
        } else {
            c.in("y", dtype, OUTER, Fill.normal(0.5), n.b(), n.t(), n.h(), n.d());
            c.in("lse", DType.F32, CONTIGUOUS, Fill.uniform(0, 1 + Math.log(n.s() + 1)), n.b(), n.h(), n.t());
        }
        if (shared || parts.contains(Part.BIAS)) {
            int sequences = shared ? 1 : n.b();
            int heads = shared && !parts.contains(Part.BIAS) ? 1 : n.h();
            c.in("bias", DType.F32, ANY, Fill.normal(1).with(1, 7, Double.NEGATIVE_INFINITY), sequences, heads, n.t(),
                    n.s());
            c.out("dbias", DType.F32, CONTIGUOUS, sequences, heads, n.t(), n.s());
        }
        if (lengths) {
            c.in("key_lengths", DType.I32, CONTIGUOUS, (random, i) -> n.keyLength(i), n.b());
        }
        return c.build((s, t) -> run(s, t, n, mask, afterForward),
                (in, out, round) -> new Reference(in, out, round, dtype, n, mask).compute(afterForward));
    }

    private static void run(Stream s, Map<String, Tensor> t, Dims n, Mask mask, boolean afterForward) {
        if (afterForward) {
            Attention.attention(s, t.get("y"), t.get("lse"), t.get("q"), t.get("k"), t.get("v"), t.get("bias"),
                    t.get("key_lengths"), n.scale(), mask, null);
        }
        Attention.attentionBackward(s, t.get("dq"), t.get("dk"), t.get("dv"), t.get("dbias"), t.get("dy"), t.get("y"),
                t.get("lse"), t.get("q"), t.get("k"), t.get("v"), t.get("bias"), t.get("key_lengths"), n.scale(), mask,
                t.get("workspace"));
    }

    /// Row after row; as the obvious same-dtype computation P and dS are rounded to the dtype of what they multiply.
    private record Reference(HostValues in, Map<String, double[]> out, Rounding round, DType dtype, Dims n, Mask mask) {
        void compute(boolean afterForward) {
            if (afterForward) {
                AttentionCases.dense(in, out, round, dtype, n, mask);
            }
            out.forEach((name, values) -> {
                if (name.startsWith("d")) {
                    Arrays.fill(values, 0);
                }
            });
            for (int b = 0; b < n.b(); b++) {
                for (int h = 0; h < n.h(); h++) {
                    for (int t = 0; t < n.t(); t++) {
                        row(b, h, t, afterForward);
                    }
                }
            }
            for (String name : new String[] {"dq", "dk"}) {
                double[] values = out.get(name);
                Arrays.setAll(values, i -> round.f32(values[i] * n.scale()));
            }
            for (String name : new String[] {"dq", "dk", "dv"}) {
                double[] values = out.get(name);
                Arrays.setAll(values, i -> round.store(dtype, values[i]));
            }
        }

        private void row(int b, int h, int t, boolean afterForward) {
            int row = ((b * n.t() + t) * n.h() + h) * n.d();
            int lseAt = (b * n.h() + h) * n.t() + t;
            double lse = afterForward ? out.get("lse")[lseAt] : in.floats("lse")[lseAt];
            float[] q = in.floats("q");
            float[] dy = in.floats("dy");
            double delta = 0;
            for (int i = 0; i < n.d(); i++) {
                double y = afterForward ? out.get("y")[row + i] : in.floats("y")[row + i];
                delta = round.f32(delta + round.f32(dy[row + i] * y));
            }
            int keys = AttentionCases.visible(in, n, mask, b, t);
            for (int s = 0; s < keys && lse != Double.NEGATIVE_INFINITY; s++) {
                int key = ((b * n.s() + s) * n.g() + h / (n.h() / n.g())) * n.d();
                double score = round.f32(round.f32(dot(q, row, in.floats("k"), key) * n.scale())
                        + AttentionCases.bias(in, n, b, h, t, s));
                double p = round.f32(Math.exp(round.f32(score - lse)));
                double ds = round.f32(p * round.f32(dot(dy, row, in.floats("v"), key) - delta));
                if (out.containsKey("dbias")) {
                    double[] dbias = out.get("dbias");
                    int at = AttentionCases.biasIndex(dbias.length, n, b, h, t, s);
                    dbias[at] = round.f32(dbias[at] + ds);
                }
                add("dv", key, round.store(dtype, p), dy, row);
                add("dk", key, round.store(dtype, ds), q, row);
                add("dq", row, round.store(dtype, ds), in.floats("k"), key);
            }
        }

        private double dot(float[] a, int i, float[] b, int j) {
            double sum = 0;
            for (int d = 0; d < n.d(); d++) {
                sum = round.f32(sum + round.f32((double) a[i + d] * b[j + d]));
            }
            return sum;
        }

        private void add(String name, int to, double factor, float[] x, int from) {
            double[] values = out.get(name);
            for (int d = 0; d < n.d(); d++) {
                values[to + d] = round.f32(values[to + d] + round.f32(factor * x[from + d]));
            }
        }
    }
}
