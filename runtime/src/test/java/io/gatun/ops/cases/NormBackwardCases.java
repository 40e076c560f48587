package io.gatun.ops.cases;

import static io.gatun.ops.cases.Operand.Strides.CONTIGUOUS;
import static io.gatun.ops.cases.Operand.Strides.ROWS;

import io.gatun.ops.Norm;
import io.gatun.ops.cases.NormCases.Part;
import io.gatun.runtime.DType;
import java.util.Map;
import java.util.Set;

/// Cases of the gradients in [Norm]. [Part#WEIGHT] stands for the weight and its gradient, [Part#BIAS] for dbias,
/// [Part#STATISTICS] means nothing: they are always there.
public final class NormBackwardCases {
    private NormBackwardCases() {}

    /// Gradients of layer norm of [N, C].
    public static OpCase layerNorm(DType dtype, int n, int c, Set<Part> parts) {
        OpCaseBuilder b = rows("layernorm_backward", dtype, n, c, parts)
                .in("mean", DType.F32, CONTIGUOUS, Fill.uniform(1, 2), n);
        if (parts.contains(Part.BIAS)) {
            b.out("dbias", DType.F32, CONTIGUOUS, c);
        }
        return b.workspace((s, t) -> Norm.layerNormBackwardWorkspaceBytes(s, t.get("x")))
                .build((s, t) -> Norm.layerNormBackward(s, t.get("dx"), t.get("dweight"), t.get("dbias"), t.get("dy"),
                        t.get("x"), t.get("mean"), t.get("rstd"), t.get("weight"), t.get("residual"),
                        t.get("workspace")), (in, out, round) -> rows(in, out, round, dtype, n, c));
    }

    /// Gradients of RMS norm of [N, C].
    public static OpCase rmsNorm(DType dtype, int n, int c, Set<Part> parts) {
        return rows("rmsnorm_backward", dtype, n, c, parts)
                .workspace((s, t) -> Norm.rmsNormBackwardWorkspaceBytes(s, t.get("x")))
                .build((s, t) -> Norm.rmsNormBackward(s, t.get("dx"), t.get("dweight"), t.get("dy"), t.get("x"),
                        t.get("rstd"), t.get("weight"), t.get("residual"), t.get("workspace")),
                        (in, out, round) -> rows(in, out, round, dtype, n, c));
    }

    private static OpCaseBuilder rows(String op, DType dtype, int n, int c, Set<Part> parts) {
        OpCaseBuilder b = OpCase.of(op, dtype, "N=%d C=%d %s", n, c, parts)
                .accuracy(Accuracy.GRADIENT)
                .out("dx", dtype, ROWS, n, c)
                .in("dy", dtype, ROWS, Fill.normal(1), n, c)
                .in("x", dtype, ROWS, Fill.uniform(-2, 5), n, c)
                .in("rstd", DType.F32, CONTIGUOUS, Fill.uniform(0.3, 2), n)
                .aliasing("dx", "dy");
        if (parts.contains(Part.RESIDUAL)) {
            b.in("residual", dtype, ROWS, Fill.normal(1), n, c).aliasing("dx", "residual");
        }
        if (parts.contains(Part.WEIGHT)) {
            b.in("weight", parts.contains(Part.F32_PARAMETERS) ? DType.F32 : dtype, CONTIGUOUS,
                    Fill.uniform(0.5, 1.5), c).out("dweight", DType.F32, CONTIGUOUS, c);
        }
        return b;
    }

    /// With a mean layer norm, without RMS norm.
    private static void rows(HostValues in, Map<String, double[]> out, Rounding round, DType dtype, int n, int c) {
        double[] dweight = new double[c];
        double[] dbias = new double[c];
        boolean centred = in.has("mean");
        for (int row = 0; row < n; row++) {
            double rstd = in.floats("rstd")[row];
            double[] h = new double[c];
            double[] g = new double[c];
            double sum = 0;
            double product = 0;
            for (int k = 0; k < c; k++) {
                double dy = in.floats("dy")[row * c + k];
                double x = in.floats("x")[row * c + k];
                h[k] = round.f32((centred ? round.f32(x - in.floats("mean")[row]) : x) * rstd);
                g[k] = in.has("weight") ? round.f32(dy * in.floats("weight")[k]) : dy;
                sum = round.f32(sum + g[k]);
                product = round.f32(product + round.f32(g[k] * h[k]));
                dweight[k] = round.f32(dweight[k] + round.f32(dy * h[k]));
                dbias[k] = round.f32(dbias[k] + dy);
            }
            double mean = centred ? round.f32(sum / c) : 0;
            double meanProduct = round.f32(product / c);
            for (int k = 0; k < c; k++) {
                double dx = round.f32(round.f32(round.f32(g[k] - mean) - round.f32(h[k] * meanProduct)) * rstd);
                if (in.has("residual")) {
                    dx = round.f32(dx + in.floats("residual")[row * c + k]);
                }
                out.get("dx")[row * c + k] = round.store(dtype, dx);
            }
        }
        put(out, "dweight", dweight);
        put(out, "dbias", dbias);
    }

    private static void put(Map<String, double[]> out, String name, double[] values) {
        if (out.containsKey(name)) {
            System.arraycopy(values, 0, out.get(name), 0, values.length);
        }
    }
}
