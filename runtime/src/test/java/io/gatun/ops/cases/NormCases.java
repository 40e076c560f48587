package io.gatun.ops.cases;

import static io.gatun.ops.cases.Operand.Strides.CONTIGUOUS;
import static io.gatun.ops.cases.Operand.Strides.OUTER;
import static io.gatun.ops.cases.Operand.Strides.ROWS;

import io.gatun.ops.ActivationKind;
import io.gatun.ops.Norm;
import io.gatun.runtime.DType;
import io.gatun.runtime.Tensor;
import java.util.Map;
import java.util.Set;
import org.jspecify.annotations.Nullable;

/// Cases of [Norm].
public final class NormCases {
    private static final float EPS = 1e-5f;
    /// A power of two: no rounding of it is in the way.
    private static final float MOMENTUM = 0.25f;
    /// With a mean that is not lost in the rounding of the sum.
    private static final Fill VALUES = Fill.uniform(-2, 5);

    private NormCases() {}

    /// Operands that may be left out; RMS norm has no bias, and group norm alone a modulation.
    public enum Part { RESIDUAL, STATISTICS, WEIGHT, BIAS, F32_PARAMETERS, MODULATION }

    /// How an image lies in memory.
    public enum Channels {
        /// [B, S, C]
        LAST,
        /// [B, C, S]
        FIRST;

        int[] shape(int b, int s, int c) {
            return this == LAST ? new int[] {b, s, c} : new int[] {b, c, s};
        }

        /// As [B, S, C].
        Tensor image(Tensor t) {
            return this == LAST ? t : t.permute(0, 2, 1);
        }

        int index(int b, int s, int c, int pixels, int channels) {
            return this == LAST ? (b * pixels + s) * channels + c : (b * channels + c) * pixels + s;
        }
    }

    /// The sizes of a case of group norm.
    public record Groups(Channels channels, int b, int s, int c, int groups) {}

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

    /// Group norm of [B, S, C].
    public static OpCase groupNorm(DType dtype, Groups size, float eps, ActivationKind activation, Set<Part> parts) {
        int b = size.b();
        int c = size.c();
        Channels layout = size.channels();
        OpCaseBuilder builder = imageOperands("groupnorm", dtype, layout, b, size.s(), c,
                "G=%d eps=%s %s %s".formatted(size.groups(), eps, activation, parts), parts);
        if (parts.contains(Part.STATISTICS)) {
            builder.out("mean", DType.F32, CONTIGUOUS, b, size.groups())
                    .out("rstd", DType.F32, CONTIGUOUS, b, size.groups());
        }
        if (parts.contains(Part.MODULATION)) {
            builder.in("scale", dtype, OUTER, Fill.normal(0.5), b, c).in("shift", dtype, OUTER, Fill.normal(1), b, c);
        }
        return builder
                .workspace((s, t) -> Norm.groupNormWorkspaceBytes(s, layout.image(t.get("x")), size.groups()))
                .build((s, t) -> Norm.groupNorm(s, layout.image(t.get("y")), t.get("mean"), t.get("rstd"),
                        layout.image(t.get("x")), t.get("weight"), t.get("bias"), t.get("scale"), t.get("shift"),
                        size.groups(), eps, activation, t.get("workspace")), (in, out, round) -> {
                            for (int i = 0; i < b * size.groups(); i++) {
                                group(in, out, round, dtype, size, eps, activation, i / size.groups(),
                                        i % size.groups());
                            }
                        });
    }

    /// Batch norm of [B, S, C] with given statistics.
    public static OpCase batchNorm(DType dtype, Channels layout, int b, int s, int c, ActivationKind activation,
            Set<Part> parts) {
        return imageOperands("batchnorm", dtype, layout, b, s, c, activation + " " + parts, parts)
                .in("mean", parameters(dtype, parts), CONTIGUOUS, Fill.normal(1), c)
                .in("var", parameters(dtype, parts), CONTIGUOUS, Fill.uniform(0.1, 2), c)
                .build((stream, t) -> Norm.batchNorm(stream, layout.image(t.get("y")), layout.image(t.get("x")),
                        t.get("mean"), t.get("var"), t.get("weight"), t.get("bias"), EPS, activation),
                        (in, out, round) -> {
                            for (int i = 0; i < b * s * c; i++) {
                                int k = i % c;
                                double rstd = round.f32(1 / round.f32(
                                        Math.sqrt(round.f32(in.floats("var")[k] + EPS))));
                                int at = layout.index(i / c / s, i / c % s, k, s, c);
                                double h = affine(in, round, in.floats("x")[at], in.floats("mean")[k], rstd, k);
                                out.get("y")[at] = round.store(dtype, activate(h, activation, round));
                            }
                        });
    }

    /// Batch norm of [B, S, C] in training; [Part#STATISTICS] stands for the running ones.
    public static OpCase batchNormTrain(DType dtype, Channels layout, int b, int s, int c, ActivationKind activation,
            Set<Part> parts) {
        OpCaseBuilder builder = imageOperands("batchnorm_train", dtype, layout, b, s, c, activation + " " + parts,
                parts)
                .out("mean", DType.F32, CONTIGUOUS, c)
                .out("rstd", DType.F32, CONTIGUOUS, c);
        if (parts.contains(Part.STATISTICS)) {
            builder.inOut("running_mean", DType.F32, CONTIGUOUS, Fill.normal(1), c)
                    .inOut("running_var", DType.F32, CONTIGUOUS, Fill.uniform(0.5, 2), c);
        }
        return builder
                .workspace((stream, t) -> Norm.batchNormTrainWorkspaceBytes(stream, layout.image(t.get("x"))))
                .build((stream, t) -> Norm.batchNormTrain(stream, layout.image(t.get("y")), t.get("mean"),
                        t.get("rstd"), t.get("running_mean"), t.get("running_var"), layout.image(t.get("x")),
                        t.get("weight"), t.get("bias"), MOMENTUM, EPS, activation, t.get("workspace")),
                        (in, out, round) -> {
                            for (int k = 0; k < c; k++) {
                                int[] at = new int[b * s];
                                for (int i = 0; i < b * s; i++) {
                                    at[i] = layout.index(i / s, i % s, k, s, c);
                                }
                                trainChannel(in, out, round, dtype, at, k, activation);
                            }
                        });
    }

    private static void trainChannel(HostValues in, Map<String, double[]> out, Rounding round, DType dtype, int[] at,
            int k, ActivationKind activation) {
        double sum = 0;
        for (int i : at) {
            sum = round.f32(sum + in.floats("x")[i]);
        }
        double mean = round.f32(sum / at.length);
        double squares = 0;
        for (int i : at) {
            double d = round.f32(in.floats("x")[i] - mean);
            squares = round.f32(squares + round.f32(d * d));
        }
        double rstd = reciprocalRoot(squares, at.length, round);
        out.get("mean")[k] = mean;
        out.get("rstd")[k] = rstd;
        for (int i : at) {
            out.get("y")[i] = round.store(dtype, activate(affine(in, round, in.floats("x")[i], mean, rstd, k),
                    activation, round));
        }
        if (out.containsKey("running_mean")) {
            double[] means = out.get("running_mean");
            double[] variances = out.get("running_var");
            means[k] = round.f32(round.f32((1 - MOMENTUM) * means[k]) + round.f32(MOMENTUM * mean));
            variances[k] = round.f32(round.f32((1 - MOMENTUM) * variances[k])
                    + round.f32(MOMENTUM * round.f32(squares / (at.length - 1))));
        }
    }

    private static OpCaseBuilder imageOperands(String op, DType dtype, Channels layout, int b, int s, int c,
            String options, Set<Part> parts) {
        OpCaseBuilder builder = OpCase.of(op, dtype, "B=%d S=%d C=%d channels %s %s", b, s, c, layout, options)
                .out("y", dtype, OUTER, layout.shape(b, s, c))
                .in("x", dtype, OUTER, VALUES, layout.shape(b, s, c))
                .aliasing("y", "x");
        if (parts.contains(Part.WEIGHT)) {
            builder.in("weight", parameters(dtype, parts), CONTIGUOUS, Fill.uniform(0.5, 1.5), c);
        }
        if (parts.contains(Part.BIAS)) {
            builder.in("bias", parameters(dtype, parts), CONTIGUOUS, Fill.normal(1), c);
        }
        return builder;
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

    private static void group(HostValues in, Map<String, double[]> out, Rounding round, DType dtype, Groups size,
            float eps, ActivationKind activation, int b, int g) {
        int width = size.c() / size.groups();
        int n = size.s() * width;
        int[] at = new int[n];
        double sum = 0;
        for (int i = 0; i < n; i++) {
            at[i] = size.channels().index(b, i / width, g * width + i % width, size.s(), size.c());
            sum = round.f32(sum + in.floats("x")[at[i]]);
        }
        double mean = round.f32(sum / n);
        double squares = 0;
        for (int i : at) {
            double d = round.f32(in.floats("x")[i] - mean);
            squares = round.f32(squares + round.f32(d * d));
        }
        double rstd = round.f32(1 / round.f32(Math.sqrt(round.f32(round.f32(squares / n) + eps))));
        for (int i = 0; i < n; i++) {
            int c = g * width + i % width;
            double h = affine(in, round, in.floats("x")[at[i]], mean, rstd, c);
            if (in.has("scale")) {
                double factor = round.f32(1 + in.floats("scale")[b * size.c() + c]);
                h = round.f32(round.f32(h * factor) + in.floats("shift")[b * size.c() + c]);
            }
            out.get("y")[at[i]] = round.store(dtype, activate(h, activation, round));
        }
        set(out.get("mean"), b * size.groups() + g, mean);
        set(out.get("rstd"), b * size.groups() + g, rstd);
    }

    private static double affine(HostValues in, Rounding round, double x, double mean, double rstd, int c) {
        double normal = round.f32(round.f32(x - mean) * rstd);
        double scaled = in.has("weight") ? round.f32(normal * in.floats("weight")[c]) : normal;
        return in.has("bias") ? round.f32(scaled + in.floats("bias")[c]) : scaled;
    }

    static double activate(double h, ActivationKind activation, Rounding round) {
        return switch (activation) {
            case NONE -> h;
            case SILU -> round.f32(h * round.f32(1 / round.f32(1 + round.f32(Math.exp(-h)))));
            case RELU -> h > 0 || Double.isNaN(h) ? h : 0;
            case TANH -> round.f32(Math.tanh(h));
        };
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
