package io.gatun.ops.cases;

import static io.gatun.ops.cases.Operand.Strides.CONTIGUOUS;
import static io.gatun.ops.cases.Operand.Strides.ROWS;

import io.gatun.ops.Norm;
import io.gatun.runtime.DType;
import java.util.Map;
import java.util.Set;
import org.jspecify.annotations.Nullable;

/// Cases of [Norm].
public final class NormCases {
    private static final float EPS = 1e-5f;
    /// With a mean that is not lost in the rounding of the sum.
    private static final Fill VALUES = Fill.uniform(-2, 5);

    private NormCases() {}

    /// Operands that may be left out; RMS norm has no bias.
    public enum Part { RESIDUAL, STATISTICS, WEIGHT, BIAS, F32_PARAMETERS }

    /// Layer norm of [N, C].
    public static OpCase layerNorm(DType dtype, int n, int c, Set<Part> parts) {
        OpCaseBuilder b = operands("layernorm", dtype, n, c, parts);
        if (parts.contains(Part.STATISTICS)) {
            b.out("mean", DType.F32, CONTIGUOUS, n);
        }
        if (parts.contains(Part.BIAS)) {
            b.in("bias", parameters(dtype, parts), CONTIGUOUS, Fill.normal(1), c);
        }
        return b.build((s, t) -> Norm.layerNorm(s, t.get("y"), t.get("residual_out"), t.get("mean"), t.get("rstd"),
                t.get("x"), t.get("residual"), t.get("weight"), t.get("bias"), EPS), (in, out, round) -> {
                    for (int i = 0; i < n; i++) {
                        layerNormRow(in, out, round, dtype, i, c);
                    }
                });
    }

    /// RMS norm of [N, C].
    public static OpCase rmsNorm(DType dtype, int n, int c, Set<Part> parts) {
        return operands("rmsnorm", dtype, n, c, parts).build(
                (s, t) -> Norm.rmsNorm(s, t.get("y"), t.get("residual_out"), t.get("rstd"), t.get("x"),
                        t.get("residual"), t.get("weight"), EPS),
                (in, out, round) -> {
                    for (int i = 0; i < n; i++) {
                        rmsNormRow(in, out, round, dtype, i, c);
                    }
                });
    }

    private static OpCaseBuilder operands(String op, DType dtype, int n, int c, Set<Part> parts) {
        OpCaseBuilder b = OpCase.of(op, dtype, "N=%d C=%d %s", n, c, parts)
                .out("y", dtype, ROWS, n, c)
                .in("x", dtype, ROWS, VALUES, n, c)
                .aliasing("y", "x");
        if (parts.contains(Part.RESIDUAL)) {
            b.out("residual_out", dtype, ROWS, n, c).in("residual", dtype, ROWS, VALUES, n, c)
                    .aliasing("residual_out", "x").aliasing("residual_out", "residual");
        }
        if (parts.contains(Part.STATISTICS)) {
            b.out("rstd", DType.F32, CONTIGUOUS, n);
        }
        if (parts.contains(Part.WEIGHT)) {
            b.in("weight", parameters(dtype, parts), CONTIGUOUS, Fill.uniform(0.5, 1.5), c);
        }
        return b;
    }

    private static DType parameters(DType dtype, Set<Part> parts) {
        return parts.contains(Part.F32_PARAMETERS) ? DType.F32 : dtype;
    }

    private static void layerNormRow(HostValues in, Map<String, double[]> out, Rounding round, DType dtype, int row,
            int c) {
        double[] h = residualSum(in, out, round, dtype, row, c);
        double sum = 0;
        for (double v : h) {
            sum = round.f32(sum + v);
        }
        double mean = round.f32(sum / c);
        double squares = 0;
        for (double v : h) {
            double d = round.f32(v - mean);
            squares = round.f32(squares + round.f32(d * d));
        }
        double rstd = reciprocalRoot(squares, c, round);
        for (int k = 0; k < c; k++) {
            double normal = round.f32(round.f32(h[k] - mean) * rstd);
            double scaled = in.has("weight") ? round.f32(normal * in.floats("weight")[k]) : normal;
            double y = in.has("bias") ? round.f32(scaled + in.floats("bias")[k]) : scaled;
            out.get("y")[row * c + k] = round.store(dtype, y);
        }
        set(out.get("mean"), row, mean);
        set(out.get("rstd"), row, rstd);
    }

    private static void rmsNormRow(HostValues in, Map<String, double[]> out, Rounding round, DType dtype, int row,
            int c) {
        double[] h = residualSum(in, out, round, dtype, row, c);
        double squares = 0;
        for (double v : h) {
            squares = round.f32(squares + round.f32(v * v));
        }
        double rstd = reciprocalRoot(squares, c, round);
        for (int k = 0; k < c; k++) {
            double normal = round.store(dtype, round.f32(h[k] * rstd));
            double y = in.has("weight") ? round.f32(normal * in.floats("weight")[k]) : normal;
            out.get("y")[row * c + k] = round.store(dtype, y);
        }
        set(out.get("rstd"), row, rstd);
    }

    private static double[] residualSum(HostValues in, Map<String, double[]> out, Rounding round, DType dtype, int row,
            int c) {
        double[] h = new double[c];
        for (int k = 0; k < c; k++) {
            h[k] = in.floats("x")[row * c + k];
            if (in.has("residual")) {
                h[k] = round.store(dtype, h[k] + in.floats("residual")[row * c + k]);
                out.get("residual_out")[row * c + k] = h[k];
            }
        }
        return h;
    }

    private static double reciprocalRoot(double squares, int c, Rounding round) {
        return round.f32(1 / round.f32(Math.sqrt(round.f32(round.f32(squares / c) + EPS))));
    }

    private static void set(double @Nullable [] array, int index, double value) {
        if (array != null) {
            array[index] = value;
        }
    }
}
