package io.gatun.ops.cases;

import static io.gatun.ops.cases.Operand.Strides.CONTIGUOUS;

import io.gatun.ops.Optimizer;
import io.gatun.runtime.DType;
import java.util.Map;
import java.util.Set;
import org.jspecify.annotations.Nullable;

/// Cases of [Optimizer].
public final class OptimizerCases {
    private static final double BETA1 = 0.9;
    private static final double BETA2 = 0.999;
    private static final double ALPHA = 0.99;
    private static final double EPS = 1e-8;
    private static final double DECAY = 0.1;
    private static final double MOMENTUM = 0.9;
    private static final float MAX_NORM = 1;
    private static final int STEP = 2;

    private OptimizerCases() {}

    /// What an update has beside parameters, gradient and state.
    public enum Part {
        /// A copy of the parameters in the case's dtype.
        LOW,
        /// A norm that clips, and a loss scale.
        SCALED,
        /// Of AdamW: the decay is not part of the gradient.
        DECOUPLED,
        MOMENTUM,
        NESTEROV
    }

    /// @param low dtype of the copy of the parameters, where there is one
    public static OpCase adamw(DType low, int n, Set<Part> parts) {
        boolean decoupled = parts.contains(Part.DECOUPLED);
        return operands("adamw", low, n, parts)
                .inOut("m", DType.F32, CONTIGUOUS, Fill.normal(0.1), n)
                .inOut("v", DType.F32, CONTIGUOUS, Fill.uniform(0, 0.1), n)
                .build((s, t) -> Optimizer.adamw(s, t.get("param"), t.get("low"), t.get("grad"), t.get("m"), t.get("v"),
                        t.get("rates"), t.get("step"), t.get("norm"), MAX_NORM, t.get("loss_scale"), BETA1, BETA2, EPS,
                        DECAY, n / 2, decoupled), (in, out, r) -> {
                            double rate = rate(in);
                            double stepSize = r.f32(rate / (1 - Math.pow(BETA1, STEP + 1)));
                            double root = r.f32(Math.sqrt(1 - Math.pow(BETA2, STEP + 1)));
                            double[] m = out.get("m");
                            double[] v = out.get("v");
                            update(in, out, low, r, (i, p, grad) -> {
                                double decay = i < n / 2 ? DECAY : 0;
                                double g = decoupled ? grad : r.f32(grad + r.f32(r.f32(decay) * p));
                                double kept = decoupled ? r.f32(p * r.f32(1 - rate * decay)) : p;
                                m[i] = r.f32(r.f32(r.f32(BETA1) * m[i]) + r.f32(r.f32(1 - BETA1) * g));
                                v[i] = r.f32(r.f32(r.f32(BETA2) * v[i]) + r.f32(r.f32(1 - BETA2) * r.f32(g * g)));
                                double denominator = r.f32(r.f32(r.f32(Math.sqrt(v[i])) / root) + r.f32(EPS));
                                return r.f32(kept - r.f32(stepSize * r.f32(m[i] / denominator)));
                            });
                        });
    }

    public static OpCase sgd(DType low, int n, Set<Part> parts) {
        boolean nesterov = parts.contains(Part.NESTEROV);
        double momentum = parts.contains(Part.MOMENTUM) ? MOMENTUM : 0;
        return withBuffer(operands("sgd", low, n, parts), n, momentum)
                .build((s, t) -> Optimizer.sgd(s, t.get("param"), t.get("low"), t.get("grad"), t.get("momentum_buffer"),
                        t.get("rates"), t.get("step"), t.get("norm"), MAX_NORM, t.get("loss_scale"), momentum, nesterov,
                        DECAY, n / 2), (in, out, r) -> {
                            double[] buffer = out.get("momentum_buffer");
                            update(in, out, low, r, (i, p, grad) -> {
                                double direction = decayed(grad, i, n, p, r);
                                if (buffer != null) {
                                    double g = direction;
                                    buffer[i] = r.f32(r.f32(r.f32(momentum) * buffer[i]) + g);
                                    direction = nesterov ? r.f32(g + r.f32(r.f32(momentum) * buffer[i])) : buffer[i];
                                }
                                return r.f32(p - r.f32(rate(in) * direction));
                            });
                        });
    }

    public static OpCase rmsprop(DType low, int n, Set<Part> parts) {
        double momentum = parts.contains(Part.MOMENTUM) ? MOMENTUM : 0;
        return withBuffer(operands("rmsprop", low, n, parts)
                .inOut("square_average", DType.F32, CONTIGUOUS, Fill.uniform(0, 0.1), n), n, momentum)
                .build((s, t) -> Optimizer.rmsprop(s, t.get("param"), t.get("low"), t.get("grad"),
                        t.get("square_average"), t.get("momentum_buffer"), t.get("rates"), t.get("step"), t.get("norm"),
                        MAX_NORM, t.get("loss_scale"), ALPHA, EPS, momentum, DECAY, n / 2), (in, out, r) -> {
                            double[] square = out.get("square_average");
                            double[] buffer = out.get("momentum_buffer");
                            update(in, out, low, r, (i, p, grad) -> {
                                double g = decayed(grad, i, n, p, r);
                                square[i] = r.f32(r.f32(r.f32(ALPHA) * square[i])
                                        + r.f32(r.f32(1 - ALPHA) * r.f32(g * g)));
                                double u = r.f32(g / r.f32(r.f32(Math.sqrt(square[i])) + r.f32(EPS)));
                                if (buffer != null) {
                                    u = r.f32(r.f32(r.f32(momentum) * buffer[i]) + u);
                                    buffer[i] = u;
                                }
                                return r.f32(p - r.f32(rate(in) * u));
                            });
                        });
    }

    public static OpCase gradientNorm(int n, boolean isScaled) {
        OpCaseBuilder builder = OpCase.of("gradient_norm", DType.F32, "n=%d%s", n, isScaled ? " SCALED" : "")
                .out("norm", DType.F32, CONTIGUOUS, 1)
                .in("grad", DType.F32, CONTIGUOUS, Fill.normal(3), n);
        if (isScaled) {
            builder.in("loss_scale", DType.F32, CONTIGUOUS, Fill.constant(1024), 1);
        }
        return builder.workspace((s, t) -> Optimizer.gradientNormWorkspaceBytes(s, t.get("grad")))
                .build((s, t) -> Optimizer.gradientNorm(s, t.get("norm"), t.get("grad"), t.get("loss_scale"),
                        t.get("workspace")), (in, out, r) -> {
                            double squares = 0;
                            for (float g : in.floats("grad")) {
                                squares = r.f32(squares + r.f32((double) g * g));
                            }
                            out.get("norm")[0] = r.f32(r.f32(Math.sqrt(squares)) / (isScaled ? 1024 : 1));
                        });
    }

    /// @param step updates so far; null: the decay as it is
    public static OpCase ema(DType dtype, int n, double decay, @Nullable Integer step) {
        OpCaseBuilder builder = OpCase.of("ema", dtype, "n=%d decay=%s step=%s", n, decay, step)
                .inOut("average", DType.F32, CONTIGUOUS, Fill.normal(1), n)
                .in("param", dtype, CONTIGUOUS, Fill.normal(1), n);
        if (step != null) {
            builder.in("step", DType.I32, CONTIGUOUS, Fill.constant(step), 1);
        }
        double d = step == null ? decay : Math.min(decay, (1.0 + step) / (10.0 + step));
        return builder.build((s, t) -> Optimizer.ema(s, t.get("average"), t.get("param"), decay, t.get("step")),
                (in, out, r) -> {
                    double[] average = out.get("average");
                    for (int i = 0; i < n; i++) {
                        average[i] = r.f32(average[i]
                                + r.f32(r.f32(1 - d) * r.f32(in.floats("param")[i] - average[i])));
                    }
                });
    }

    private interface Rule {
        /// The new parameter.
        double of(int i, double param, double grad);
    }

    private static void update(HostValues in, Map<String, double[]> out, DType low, Rounding r, Rule rule) {
        double factor = in.has("norm")
                ? r.f32(r.f32(MAX_NORM / r.f32(in.floats("norm")[0] + r.f32(1e-6))) / in.floats("loss_scale")[0]) : 1;
        double[] param = out.get("param");
        double[] rounded = out.get("low");
        for (int i = 0; i < param.length; i++) {
            param[i] = rule.of(i, param[i], r.f32(in.floats("grad")[i] * factor));
            if (rounded != null) {
                rounded[i] = r.store(low, param[i]);
            }
        }
    }

    private static double decayed(double grad, int i, int n, double p, Rounding r) {
        return i < n / 2 ? r.f32(grad + r.f32(r.f32(DECAY) * p)) : grad;
    }

    private static double rate(HostValues in) {
        return in.floats("rates")[STEP];
    }

    private static OpCaseBuilder operands(String op, DType low, int n, Set<Part> parts) {
        OpCaseBuilder builder = OpCase.of(op, low, "n=%d %s", n, parts)
                .inOut("param", DType.F32, CONTIGUOUS, Fill.normal(1), n)
                .in("grad", DType.F32, CONTIGUOUS, Fill.normal(1), n)
                .in("rates", DType.F32, CONTIGUOUS, Fill.uniform(1e-3, 1e-1), 5)
                .in("step", DType.I32, CONTIGUOUS, Fill.constant(STEP), 1);
        if (parts.contains(Part.LOW)) {
            builder.out("low", low, CONTIGUOUS, n);
        }
        if (parts.contains(Part.SCALED)) {
            builder.in("norm", DType.F32, CONTIGUOUS, Fill.constant(3), 1)
                    .in("loss_scale", DType.F32, CONTIGUOUS, Fill.constant(0.5), 1);
        }
        return builder;
    }

    private static OpCaseBuilder withBuffer(OpCaseBuilder builder, int n, double momentum) {
        return momentum == 0 ? builder : builder.inOut("momentum_buffer", DType.F32, CONTIGUOUS, Fill.normal(0.5), n);
    }
}
