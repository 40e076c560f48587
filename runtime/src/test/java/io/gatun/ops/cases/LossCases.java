package io.gatun.ops.cases;

import static io.gatun.ops.cases.Operand.Strides.ANY;
import static io.gatun.ops.cases.Operand.Strides.CONTIGUOUS;

import io.gatun.ops.Loss;
import io.gatun.ops.LossKind;
import io.gatun.runtime.DType;
import java.util.Arrays;
import java.util.Set;

/// Cases of [Loss].
public final class LossCases {
    private static final float FACTOR = 0.3f;
    private static final float GRAD_SCALE = 8;

    private LossCases() {}

    /// What a loss has beside x and its target.
    public enum Part { GRADIENT, WEIGHT, SCALE }

    /// @param target x's dtype or f32
    /// @param shape  [B, ...]
    public static OpCase loss(LossKind kind, DType dtype, DType target, Set<Part> parts, int... shape) {
        Fill targets = switch (kind) {
            case MSE -> Fill.normal(1);
            case BCE_WITH_LOGITS -> Fill.uniform(0, 1);
            case HINGE, LINEAR -> Fill.values(1, -1, -1, 1, 1);
        };
        boolean isWeighted = parts.contains(Part.WEIGHT);
        OpCaseBuilder builder = OpCase.of("loss", dtype, "%s target %s %s %s", kind, target, parts,
                Arrays.toString(shape)).out("loss", DType.F32, CONTIGUOUS, 1);
        if (parts.contains(Part.GRADIENT)) {
            builder.out("dx", dtype, ANY, shape).aliasing("dx", "x");
        }
        builder.in("x", dtype, ANY, Fill.normal(3), shape).in("target", target, ANY, targets, shape);
        if (isWeighted) {
            builder.in("weight", DType.F32, ANY, Fill.uniform(0, 2), shape[0]);
        }
        return scaled(builder, parts).accuracy(Accuracy.GRADIENT)
                .workspace((s, t) -> Loss.lossWorkspaceBytes(s, t.get("x")))
                .build((s, t) -> Loss.loss(s, kind, t.get("loss"), t.get("dx"), t.get("x"), t.get("target"),
                        t.get("weight"), FACTOR, t.get("grad_scale"), t.get("workspace")), (in, out, r) -> {
                            float[] x = in.floats("x");
                            double sum = 0;
                            for (int i = 0; i < x.length; i++) {
                                double w = isWeighted ? in.floats("weight")[i / (x.length / shape[0])] : 1;
                                double t = in.floats("target")[i];
                                sum = r.f32(sum + r.f32(w * value(kind, x[i], t, r)));
                                if (parts.contains(Part.GRADIENT)) {
                                    double scale = r.f32(gradientScale(parts, r) * w);
                                    out.get("dx")[i] = r.store(dtype, r.f32(scale * slope(kind, x[i], t, r)));
                                }
                            }
                            out.get("loss")[0] = r.f32(FACTOR * sum);
                        });
    }

    public static OpCase klGaussian(DType dtype, Set<Part> parts, int... shape) {
        OpCaseBuilder builder = OpCase.of("kl_gaussian", dtype, "%s %s", parts, Arrays.toString(shape))
                .out("loss", DType.F32, CONTIGUOUS, 1);
        if (parts.contains(Part.GRADIENT)) {
            builder.out("dmean", dtype, ANY, shape).out("dlogvar", dtype, ANY, shape).aliasing("dmean", "mean")
                    .aliasing("dlogvar", "logvar");
        }
        builder.in("mean", dtype, ANY, Fill.normal(1), shape).in("logvar", dtype, ANY, Fill.normal(1), shape);
        return scaled(builder, parts).accuracy(Accuracy.GRADIENT)
                .workspace((s, t) -> Loss.lossWorkspaceBytes(s, t.get("mean")))
                .build((s, t) -> Loss.klGaussian(s, t.get("loss"), t.get("dmean"), t.get("dlogvar"), t.get("mean"),
                        t.get("logvar"), FACTOR, t.get("grad_scale"), t.get("workspace")), (in, out, r) -> {
                            float[] mean = in.floats("mean");
                            double scale = gradientScale(parts, r);
                            double sum = 0;
                            for (int i = 0; i < mean.length; i++) {
                                double logvar = in.floats("logvar")[i];
                                double variance = r.f32(Math.exp(logvar));
                                double inner = r.f32(r.f32(r.f32(1 + logvar) - r.f32((double) mean[i] * mean[i]))
                                        - variance);
                                sum = r.f32(sum + inner);
                                if (parts.contains(Part.GRADIENT)) {
                                    out.get("dmean")[i] = r.store(dtype, r.f32(scale * mean[i]));
                                    double half = r.f32(0.5 * r.f32(variance - 1));
                                    out.get("dlogvar")[i] = r.store(dtype, r.f32(scale * half));
                                }
                            }
                            out.get("loss")[0] = r.f32(FACTOR * r.f32(-0.5 * sum));
                        });
    }

    private static OpCaseBuilder scaled(OpCaseBuilder builder, Set<Part> parts) {
        return parts.contains(Part.SCALE)
                ? builder.in("grad_scale", DType.F32, CONTIGUOUS, Fill.constant(GRAD_SCALE), 1) : builder;
    }

    private static double gradientScale(Set<Part> parts, Rounding r) {
        return r.f32(FACTOR * (double) (parts.contains(Part.SCALE) ? GRAD_SCALE : 1));
    }

    private static double value(LossKind kind, double x, double t, Rounding r) {
        return switch (kind) {
            case MSE -> {
                double d = r.f32(x - t);
                yield r.f32(d * d);
            }
            case BCE_WITH_LOGITS -> {
                double tail = r.f32(Math.log1p(r.f32(Math.exp(-Math.abs(x)))));
                yield r.f32(r.f32((x < 0 ? 0 : x) - r.f32(x * t)) + tail);
            }
            case HINGE -> {
                double margin = r.f32(1 - r.f32(t * x));
                yield margin < 0 ? 0 : margin;
            }
            case LINEAR -> r.f32(t * x);
        };
    }

    private static double slope(LossKind kind, double x, double t, Rounding r) {
        return switch (kind) {
            case MSE -> r.f32(2 * r.f32(x - t));
            case BCE_WITH_LOGITS -> r.f32(r.f32(1 / r.f32(1 + r.f32(Math.exp(-x)))) - t);
            case HINGE -> r.f32(1 - r.f32(t * x)) <= 0 ? 0 : -t;
            case LINEAR -> t;
        };
    }
}
